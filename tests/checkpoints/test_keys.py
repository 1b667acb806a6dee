import pytest
import torch
from torch import nn

from distill3d.checkpoints.keys import load_strict, merge_aliases, rename_keys, restore_keys, strip_prefixes
from distill3d.errors import CheckpointError

RENAMES = ((".head.", ".output."), ("enc.", "encoder."), ("encoder.blocks.0.", "encoder.blocks."))


def tensors(*names):
    return {name: torch.full((2,), float(index)) for index, name in enumerate(names)}


def test_parts_are_replaced_inside_and_starts_only_at_the_start():
    renamed = rename_keys(tensors("a.head.enc.w", "enc.blocks.0.0.w", "head.x"), RENAMES)
    assert list(renamed) == ["a.output.enc.w", "encoder.blocks.0.w", "head.x"]


def test_restoring_is_the_way_back():
    official = tensors("a.head.w", "enc.blocks.0.0.w", "enc.blocks.0.11.w", "rest")
    renamed = rename_keys(official, RENAMES)
    assert restore_keys(renamed, RENAMES) == official


def test_two_names_that_become_one_are_refused():
    with pytest.raises(CheckpointError, match=r"both become 'encoder\.w'"):
        rename_keys(tensors("enc.w", "encoder.w"), RENAMES)


def test_aliases_may_stand_alone_or_agree_but_not_differ():
    aliases = ((".one.", ".list.0."),)
    assert list(merge_aliases(tensors("a.one.w"), aliases, source="f")) == ["a.list.0.w"]
    same = {"a.one.w": torch.ones(2), "a.list.0.w": torch.ones(2)}
    assert list(merge_aliases(same, aliases, source="f")) == ["a.list.0.w"]
    with pytest.raises(CheckpointError, match=r"old\.pth holds 'a\.list\.0\.w' twice"):
        merge_aliases({**same, "a.one.w": torch.zeros(2)}, aliases, source="old.pth")


def test_a_prefix_is_cut_off_with_all_that_lacks_it():
    assert list(strip_prefixes(tensors("student.w", "epoch"), ("student.", "module."))) == ["w"]
    assert list(strip_prefixes(tensors("student.module.w"), ("student.", "module."))) == ["w"]
    assert list(strip_prefixes(tensors("w", "epoch"), ("student.",))) == ["w", "epoch"]


def test_loading_says_what_is_missing_left_over_and_of_another_shape_and_changes_nothing():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {
        "0.weight": torch.zeros(3, 3),
        "0.bias": torch.zeros(3),
        "1.weight": torch.zeros(1, 3),
        "2.x": torch.ones(1),
    }
    with pytest.raises(CheckpointError) as caught:
        load_strict(model, weights, source="tiny.pth")
    assert str(caught.value) == (
        "tiny.pth does not fit Sequential: 1 missing ['1.bias'], 1 left over ['2.x'], "
        "1 of another shape ['0.weight: (3, 3) instead of (3, 2)']. "
        "Check the variant you asked for, or the renames of the model."
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_long_lists_are_cut():
    with pytest.raises(CheckpointError, match=r"40 left over \['k0', .*'\.\.\.'\]"):
        load_strict(nn.Identity(), tensors(*(f"k{index}" for index in range(40))), source="x")


def test_halves_on_disk_become_the_model_s_precision_and_ignored_names_are_let_go():
    model = nn.Linear(2, 1)
    weights = {"weight": torch.full((1, 2), 0.5).half(), "bias": torch.ones(1).half(), "mask_token": torch.ones(1)}
    load_strict(model, weights, source="x", ignore=("mask_token",))
    assert model.weight.dtype == torch.float32
    assert model.weight.tolist() == [[0.5, 0.5]]

"""`finetune` and `weights` as a user types them."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from distill3d import checkpoints, models
from tests.cli.calls import call

SMALL = (
    *("--base", "vggt", "--variant", "tiny", "--long-side", 28, "--batch", 2, "--teacher", "place", "--device", "cpu"),
    *("--steps", 3, "--no-tensorboard", "--validation.held-out", 0.3),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)
    for index in range(5):
        pixels = (torch.rand(28, 28, 3, generator=generator) * 255).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("finetune")
    done = call(
        "finetune", "fin3r", "--photos", photos, "--photo-cache", out / "cache", "--out", out / "run", *SMALL, "--json"
    )
    assert done.code == 0, done.err
    return out / "run", done


def test_photos_a_teacher_and_a_network_give_an_adapter_and_a_page(run):
    folder, done = run
    assert done.data["steps"] == 3
    assert (folder / "adapter.safetensors").is_file()
    page = (folder / "report.html").read_text()
    assert "vggt refined" in page
    assert "Boundary F1".lower() in page.lower()
    assert json.loads((folder / "config.json").read_text())["kind"] == "refine"


def test_a_finished_run_goes_on_to_nothing_and_reports_again(run, photos, tmp_path):
    folder, _ = run
    again = call(
        "finetune", "fin3r", "--photo-cache", folder.parent / "cache", "--out", folder, "--resume", *SMALL, "--json"
    )
    assert again.code == 0, again.err
    assert again.data["steps_now"] == 0
    page = call("report", folder, "--out", tmp_path / "page.html")
    assert page.code == 0, page.err


def test_an_adapter_is_checked_merged_and_exported(run, tmp_path):
    folder, _ = run
    checked = call("weights", "check", folder, "--json")
    assert checked.code == 0, checked.err
    assert (checked.data["model"], checked.data["rule"], checked.data["layers"]) == ("vggt", "frobenius", 3)
    for to in ("ours", "official"):
        merged = call("weights", "merge", folder, "--out", tmp_path / f"{to}.safetensors", "--to", to)
        assert merged.code == 0, merged.err
    spec = models.get("vggt")
    ours, _ = checkpoints.load_saved(tmp_path / "ours.safetensors")
    theirs = spec.build(spec.variants["tiny"])
    checkpoints.load_official(theirs, spec, load_file(tmp_path / "official.safetensors"), source="official")
    # The tracker of a VGGT without weights is drawn anew each time; the adapters are in the encoder.
    encoder = {name: value for name, value in ours.state_dict().items() if name.startswith("encoder.")}
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in encoder.items())
    assert ours(torch.zeros(1, 1, 3, 28, 28)).depth.isfinite().all()
    exported = call("weights", "convert", folder, "--to", "peft-official", "--out", tmp_path / "peft")
    assert exported.code == 0, exported.err
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["use_dora"] is True


def test_official_weights_become_ours_and_back(tmp_path):
    spec = models.get("dust3r")
    official = checkpoints.to_official(spec.build(spec.variants["tiny"]), spec, aliases=False)
    save_file({name: value.contiguous() for name, value in official.items()}, tmp_path / "theirs.safetensors")
    converted = call("weights", "convert", tmp_path / "theirs.safetensors", "--model", "dust3r", "--variant", "tiny",
                     "--out", tmp_path / "ours.safetensors")  # fmt: skip
    assert converted.code == 0, converted.err
    back = call("weights", "convert", tmp_path / "ours.safetensors", "--to", "official",
                "--out", tmp_path / "back.safetensors")  # fmt: skip
    assert back.code == 0, back.err
    found = load_file(tmp_path / "back.safetensors")
    assert found.keys() == official.keys()
    assert all(torch.equal(found[name], value) for name, value in official.items())
    checked = call("weights", "check", tmp_path / "theirs.safetensors", "--model", "dust3r", "--json")
    assert checked.data["variant"] == "tiny"


def test_a_released_adapter_becomes_ours_and_cannot_be_merged(tmp_path):
    names = [f"aggregator.patch_embed.blocks.{index}.attn.base_model.model.qkv" for index in range(3)]
    tensors = {f"{name}.lora_A.default.weight": torch.randn(8, 64) for name in names}
    tensors |= {f"{name}.lora_B.default.weight": torch.randn(192, 8) for name in names}
    torch.save({**tensors, "stray": torch.zeros(1)}, tmp_path / "vggt_lora.pth")
    out = tmp_path / "ours.safetensors"
    done = call(
        "weights", "convert", tmp_path / "vggt_lora.pth", "--model", "vggt", "--variant", "tiny", "--out", out, "--json"
    )
    assert done.code == 0, done.err
    assert done.data["unexpected"] == ["stray"]
    merged = call("weights", "merge", out, "--out", tmp_path / "merged.safetensors")
    assert merged.code == 2
    assert "factor of its own" in merged.err


def test_mistakes_are_told_in_words(photos, tmp_path):
    for words, told in (
        (("finetune",), "Which recipe?"),
        (("finetune", "fin4r", "--out", tmp_path / "a"), "There is no recipe 'fin4r'"),
        (("finetune", "fin3r", "--out", tmp_path / "a"), "There is nothing to learn from"),
        (("finetune", "fin3r", "--photos", photos, "--out", tmp_path / "a"), "needs weights"),
        (("finetune", "fin3r", "--photos", tmp_path / "none", "--teacher", "place", "--out", tmp_path / "a"), "none"),
        (("weights", "check", tmp_path / "none.safetensors"), "neither a weight file nor a run folder"),
        (("weights", "merge", tmp_path / "none", "--out", tmp_path / "b.safetensors"), "There is no adapter at"),
    ):
        done = call(*words)
        assert done.code == 2, words
        assert told in done.err

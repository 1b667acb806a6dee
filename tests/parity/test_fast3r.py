"""Fast3R against recordings of the reference code under seeded weights."""

import dataclasses
import json

import jaxtyping
import pytest
import torch
from safetensors.torch import load_file, save_file

from distill3d import checkpoints, models
from distill3d.errors import ConfigError
from distill3d.nn.fusion import seeded_view_ids, view_id_table
from tests.parity.official import fill_seeded, relative, relative_points, relative_values

SPEC = models.get("fast3r")
TINY = SPEC.variants["tiny"]
RECORDED = dataclasses.replace(
    SPEC.variants["base"],
    encoder_dim=64, encoder_depth=2, encoder_heads=4, fusion_dim=48, fusion_depth=12, fusion_heads=4,
    view_ids="sequential",
)  # fmt: skip
FIELDS = {
    "pts3d_in_other_view": ("pointmap_world", relative_points),
    "pts3d_local": ("pointmap_camera", relative_points),
    "conf": ("confidence_world", relative_values),
    "conf_local": ("confidence_camera", relative_values),
}


@pytest.fixture(scope="module")
def golden(fixtures):
    return load_file(fixtures / "fast3r" / "golden.safetensors")


@pytest.fixture(scope="module")
def model():
    return fill_seeded(SPEC.build(RECORDED), SPEC)


def photos(golden, case, views):
    """The recorded inputs in [0, 1]."""
    return [(golden[f"{case}.img{view}"] + 1) / 2 for view in range(views)]


def deviations(prediction, golden, case, view, index):
    """By recorded name, how far view `index` of a prediction is from what was recorded for `view`."""
    found = {}
    for name, (field, measure) in FIELDS.items():
        recorded = golden.get(f"{case}.view{view}.{name}")
        if recorded is not None:
            found[f"{case}.view{view}.{name}"] = measure(getattr(prediction, field)[: len(recorded), index], recorded)
    return found


def assert_equal_to_recording(found, golden, *cases):
    """All within 1e-4 of each point's norm, and nothing recorded was passed over."""
    assert max(found.values()) < 1e-4, found
    assert set(found) == {name for name in golden if name.split(".")[0] in cases and ".view" in name}


@torch.no_grad()
def test_case_a_agrees_inside_the_network_and_in_every_map(model, golden):
    seen = {}
    parts = {"encoder": model.encoder, "raw": model.head_world}
    parts |= {f"A.dec.{k}": model.fusion.blocks[k - 1] for k in (1, 6, 9)} | {"A.dec.12": model.fusion.norm}
    hooks = [
        part.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
        for name, part in parts.items()
    ]
    try:
        prediction = model(torch.stack(photos(golden, "A", 3), dim=1))
    finally:
        for hook in hooks:
            hook.remove()
    tokens = seen.pop("encoder").tokens.unflatten(0, (2, 3))
    seen |= {"A.enc0": tokens[:, 0], "A.enc2": tokens[:, 2]}
    seen["A.dec.12"] = seen["A.dec.12"].flatten(1, 2)
    # They ran the heads with the views in front, we with the scenes.
    seen["A.raw_global"] = seen.pop("raw").unflatten(0, (2, 3)).transpose(0, 1).flatten(0, 1)
    inside = {name: relative(value, golden[name]) for name, value in seen.items()}
    assert max(inside.values()) < 2e-5, inside
    assert set(inside) == {name for name in golden if name.startswith(("A.enc", "A.dec", "A.raw"))}
    found = {}
    for view in range(3):
        found |= deviations(prediction, golden, "A", view, view)
    assert_equal_to_recording(found, golden, "A")


@torch.no_grad()
def test_case_b_agrees_with_views_of_three_sizes(model, golden):
    predictions = model.forward_mixed(photos(golden, "B", 3), view_ids=torch.tensor([[0, 517, 33]]))
    found = {}
    for view, prediction in enumerate(predictions):
        found |= deviations(prediction, golden, "B", view, 0)
    assert_equal_to_recording(found, golden, "B")


@torch.no_grad()
def test_case_c_agrees_with_the_attention_bias_which_training_mode_lacks(model, golden):
    biased = SPEC.build(dataclasses.replace(RECORDED, attention_bias_in_eval=True))
    biased.load_state_dict(model.state_dict())
    images = torch.stack([image[:1] for image in photos(golden, "A", 3)], dim=1)
    scales = [biased.train(mode).fusion.blocks[0].attn.scale for mode in (True, False)]
    assert scales == pytest.approx(golden["C.attn_scale"].tolist())
    assert_equal_to_recording(deviations(biased(images), golden, "C", 2, 2), golden, "C")
    torch.testing.assert_close(biased.train()(images).pointmap_world, model(images).pointmap_world)


@torch.no_grad()
def test_case_t_agrees_with_portrait_rows_stored_transposed(model, golden):
    images = torch.stack(photos(golden, "T", 2), dim=1)
    prediction = model(images, portrait=torch.tensor([[False, True], [True, False]]))
    found = {}
    for view in range(2):
        found |= deviations(prediction, golden, "T", view, view)
    assert_equal_to_recording(found, golden, "T")


@torch.no_grad()
@pytest.mark.parametrize("height", [32, 64])
def test_portrait_views_give_what_they_give_upright_in_any_chunks(model, height):
    images = torch.rand(1, 2, 3, height, 48, generator=torch.Generator().manual_seed(1))
    upright = model(images.transpose(-1, -2))
    turned = model(images, portrait=torch.ones(1, 2, dtype=torch.bool), head_chunk=1)
    errors = relative_points(turned.pointmap_world, upright.pointmap_world.transpose(2, 3))
    assert errors < 1e-4


@pytest.mark.parametrize("seed", [0, 1, 1234])
def test_random_view_ids_are_drawn_as_upstream_draws_them(golden, seed):
    drawn = seeded_view_ids(2, 5, 1000, torch.Generator().manual_seed(seed))
    assert torch.equal(drawn, golden[f"rng.seed{seed}"])
    network = SPEC.build(dataclasses.replace(TINY, fusion_dim=48)).eval()
    found = network.view_ids(2, 5, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(found, view_id_table(1000, 48)[golden[f"rng.seed{seed}"]])


def test_the_table_of_view_ids_agrees(golden):
    found = view_id_table(1000, 48)[[0, 1, 2, 33, 517, 999]]
    torch.testing.assert_close(found, golden["emb.48"], rtol=0, atol=1e-6)


def test_the_released_network_has_every_entry_of_the_manifest_and_no_other(fixtures):
    manifest = json.loads((fixtures / "fast3r" / "manifest.json").read_text())
    with torch.device("meta"):
        network = SPEC.build(SPEC.variants["base"])
    official = checkpoints.to_official(network, SPEC)
    shapes = {name: list(tensor.shape) for name, tensor in official.items()}
    assert shapes == {name: shape for name, shape, _ in manifest["entries"]}
    assert len(shapes) == 720
    assert sum(parameter.numel() for parameter in network.parameters()) == manifest["parameter_count"]
    back = checkpoints.rename_keys(checkpoints.to_official(network, SPEC, aliases=False), SPEC.renames)
    assert set(back) == set(network.state_dict())


@pytest.mark.parametrize("form", ["both names", "hub", "lightning"])
def test_official_weights_make_the_round_trip(form):
    network = fill_seeded(SPEC.build(TINY), SPEC, seed=3)
    official = checkpoints.to_official(network, SPEC)
    given = official
    if form == "hub":  # the hub's file keeps the alias alone
        given = {name: tensor for name, tensor in official.items() if ".layer_rn." not in name}
    if form == "lightning":
        given = {f"net.{name}": tensor for name, tensor in official.items()} | {"epoch_fraction": torch.zeros(())}
    other = SPEC.build(TINY)
    checkpoints.load_official(other, SPEC, given, source="test")
    again = checkpoints.to_official(other, SPEC)
    assert set(again) == set(official)
    assert all(torch.equal(again[name], official[name]) for name in official)


def test_the_hub_s_file_and_our_file_give_the_same_network(tmp_path):
    network = fill_seeded(SPEC.build(TINY), SPEC, seed=3)
    official = checkpoints.to_official(network, SPEC)
    hub = {name: tensor.clone() for name, tensor in official.items() if ".layer_rn." not in name}
    save_file(hub, tmp_path / "model.safetensors")
    theirs = checkpoints.load_model("fast3r", tmp_path / "model.safetensors", variant="tiny")
    checkpoints.save_model(tmp_path / "own.safetensors", network, model_name="fast3r", config=TINY, meta={})
    ours, info = checkpoints.load_saved(tmp_path / "own.safetensors")
    assert info.config == TINY
    expected = checkpoints.weights_hash(network)
    assert checkpoints.weights_hash(theirs) == checkpoints.weights_hash(ours) == expected


def images(batch, views, height=32, width=48):
    return torch.rand(batch, views, 3, height, width, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def tiny():
    return fill_seeded(SPEC.build(dataclasses.replace(TINY, view_ids="sequential")), SPEC)


def assert_same(first, second, first_at=..., second_at=...):
    for field, _ in FIELDS.values():
        assert relative(getattr(first, field)[first_at], getattr(second, field)[second_at]) < 1e-5


@torch.no_grad()
def test_a_batch_gives_what_its_rows_give_alone(tiny):
    together, photos = tiny(images(3, 2)), images(3, 2)
    for row in range(3):
        assert_same(tiny(photos[row : row + 1]), together, 0, row)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 2, 50])
def test_chunks_of_views_change_no_value(tiny, chunk):
    assert_same(tiny(images(2, 3), head_chunk=chunk), tiny(images(2, 3)))


@torch.no_grad()
def test_views_of_one_size_may_come_one_by_one(tiny):
    photos, whole = images(2, 3), tiny(images(2, 3))
    for view, prediction in enumerate(tiny.forward_mixed([photos[:, view] for view in range(3)])):
        assert_same(prediction, whole, (slice(None), 0), (slice(None), view))


@pytest.mark.parametrize("recompute", [False, True])
def test_every_weight_that_is_read_takes_a_gradient_from_every_image(recompute):
    network = SPEC.build(dataclasses.replace(TINY, gradient_checkpointing=recompute)).train()
    photos = images(1, 2).requires_grad_()
    prediction = network(photos, generator=torch.Generator().manual_seed(0), portrait=torch.tensor([[False, True]]))
    sum(getattr(prediction, field).square().mean() for field, _ in FIELDS.values()).backward()
    assert (photos.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()
    without = {name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()}
    frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert without == frozen
    assert all(".fuse.3.unit_level." in name for name in frozen)


def test_ids_out_of_range_or_undrawn_in_training_and_odd_sides_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"0 \.\. 999"):
        tiny(images(1, 2), view_ids=torch.tensor([[0, 1000]]))
    with pytest.raises(ConfigError, match="generator"):
        SPEC.build(TINY).train()(images(1, 2))
    with pytest.raises(ConfigError, match=r"30x48.*32x48"):
        tiny(images(1, 2, height=30))
    with pytest.raises(ConfigError, match="1001 views"):
        tiny.view_ids(1, 1001)


@torch.no_grad()
def test_the_fusion_compiles_in_one_graph(tiny, monkeypatch):
    # The check of shapes draws random items of sequences, which cannot be traced; users never pay for it.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    tokens, embedding = tiny.encoder(images(1, 2)[0]).tokens[None], tiny.view_ids(1, 2)
    compiled = torch.compile(tiny.fusion, backend="eager", fullgraph=True)
    for found, expected in zip(compiled(tokens, embedding), tiny.fusion(tokens, embedding), strict=True):
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_autocast_leaves_the_maps_in_float32(tiny):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = tiny(images(1, 2))
    assert {getattr(prediction, field).dtype for field, _ in FIELDS.values()} == {torch.float32}

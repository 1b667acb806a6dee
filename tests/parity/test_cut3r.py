"""CUT3R against recordings of the reference code under seeded weights."""

import argparse
import dataclasses
import json

import jaxtyping
import pytest
import torch
from safetensors.torch import load_file

from distill3d import checkpoints, models
from distill3d.errors import ConfigError
from distill3d.geometry.poses import pose_from_rt, quaternion_from_rotation, rotation_from_quaternion
from distill3d.models.cut3r import CUT3RState, ray_map, state_positions
from tests.parity.official import fill_seeded, relative, relative_points, relative_values

SPEC = models.get("cut3r")
TINY = SPEC.variants["tiny"]
RECORDED = dataclasses.replace(
    SPEC.variants["base"],
    encoder_dim=64, encoder_depth=2, encoder_heads=4, decoder_dim=48, decoder_depth=4, decoder_heads=4, state_heads=6,
    state_size=30, memory_size=8, half_precision_rotary=True,
)  # fmt: skip
MEASURES = {
    "pts3d_in_self_view": relative_points,
    "conf_self": relative_values,
    "pts3d_in_other_view": relative_points,
    "conf": relative_values,
    "camera_pose": relative,
    "rgb": relative,
}
MAPS = ("pointmap_world", "pointmap_camera", "confidence_world", "confidence_camera", "world_from_camera")


@pytest.fixture(scope="module")
def golden(fixtures):
    return load_file(fixtures / "cut3r" / "golden.safetensors")


def rounding(**changes):
    """A network that takes normalised images: one that went to [0, 1] and back would round otherwise here and there."""
    network = fill_seeded(SPEC.build(dataclasses.replace(RECORDED, **changes)), SPEC)
    network.normalise = torch.nn.Identity()
    return network


@pytest.fixture(scope="module")
def model():
    return rounding()


@pytest.fixture(scope="module")
def exact(model):
    network = SPEC.build(dataclasses.replace(RECORDED, half_precision_rotary=False)).eval()
    network.load_state_dict(model.state_dict())
    return network


@pytest.fixture(scope="module")
def photos(golden):
    """The recorded inputs, in [-1, 1]: (1, 3, 3, 48, 64)."""
    return torch.stack([golden[f"A.img{view}"] for view in range(3)], dim=1)


def as_recorded(output, view):
    """The fields of one view in upstream's words."""
    prediction = output.prediction
    pose = prediction.world_from_camera[:, view]
    return {
        "pts3d_in_self_view": prediction.pointmap_camera[:, view],
        "conf_self": prediction.confidence_camera[:, view],
        "pts3d_in_other_view": prediction.pointmap_world[:, view],
        "conf": prediction.confidence_world[:, view],
        "camera_pose": torch.cat([pose[:, :3, 3], quaternion_from_rotation(pose[:, :3, :3])], dim=-1),
        "rgb": output.colours[:, view].permute(0, 2, 3, 1) * 2 - 1,
    }


def deviations(output, view, golden, prefix):
    return {
        f"{prefix}.{name}": MEASURES[name](value, golden[f"{prefix}.{name}"])
        for name, value in as_recorded(output, view).items()
        if f"{prefix}.{name}" in golden
    }


def assert_equal_to_recording(errors, golden, case, *inputs):
    """All within 1e-4, and nothing recorded was passed over."""
    assert max(errors.values()) < 1e-4, errors
    assert set(errors) | set(inputs) == {name for name in golden if name.startswith(f"{case}.")}


@torch.no_grad()
def test_case_a_agrees_inside_the_network_in_its_states_and_in_every_map(model, golden, photos):
    state = model.start(1)
    errors = {
        "A.state0": relative(state.tokens, golden["A.state0"]),
        "A.mem0": relative(state.memory, golden["A.mem0"]),
    }
    parts = {"enc": model.encoder, "dec.2": model.image_blocks[1], "dec.3": model.image_blocks[2]}
    parts |= {"dec.4": model.image_norm, "state_out": model.state_norm, "raw_pose_head": model.heads.pose}
    parts |= {"raw_dpt_self": model.heads.camera, "raw_dpt_cross": model.heads.world, "raw_dpt_rgb": model.heads.colour}
    seen = {}
    hooks = [
        part.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
        for name, part in parts.items()
    ]
    try:
        for view in range(3):
            output, state = model.step(photos[:, view], state)
            tokens = seen.pop("enc").tokens
            seen["dec.0"] = tokens
            if view == 0:
                errors["A.enc0"] = relative(tokens, golden["A.enc0"])
            errors |= {f"A.step{view}.{name}": relative(x, golden[f"A.step{view}.{name}"]) for name, x in seen.items()}
            errors |= deviations(output, 0, golden, f"A.step{view}")
            errors[f"A.state{view + 1}"] = relative(state.tokens, golden[f"A.state{view + 1}"])
            errors[f"A.mem{view + 1}"] = relative(state.memory, golden[f"A.mem{view + 1}"])
    finally:
        for hook in hooks:
            hook.remove()
    assert torch.equal(state_positions(30, "2d"), golden["A.state_pos"])
    assert_equal_to_recording(errors, golden, "A", "A.img0", "A.img1", "A.img2", "A.state_pos")


@torch.no_grad()
def test_case_n_agrees_without_half_precision(exact, golden, photos):
    output, state = exact.run((photos + 1) / 2)
    errors = deviations(output, 2, golden, "N.step2")
    errors["N.enc0"] = relative(exact.encoder(photos[:, 0]).tokens, golden["N.enc0"])
    errors["N.state3"] = relative(state.tokens, golden["N.state3"])
    errors["N.mem3"] = relative(state.memory, golden["N.mem3"])
    assert_equal_to_recording(errors, golden, "N")
    # The rounding is not lost in the noise: without it the same recordings are far.
    assert deviations(output, 2, golden, "A.step2")["A.step2.pts3d_in_self_view"] > 2e-4


@torch.no_grad()
def test_case_b_agrees_with_a_reset_a_query_and_a_view_that_only_looks(model, golden, photos):
    images = photos[:, [0, 1, 1, 2]].clone()
    images[:, 2] = torch.nan
    rays = torch.full((1, 4, 48, 64, 6), torch.nan)
    rays[:, 2] = golden["B.ray2"]
    flags = {
        "has_image": torch.tensor([[True, True, False, True]]),
        "has_ray_map": torch.tensor([[False, False, True, False]]),
        "update": torch.tensor([[True, True, False, False]]),
        "reset": torch.tensor([[False, True, False, False]]),
    }
    output, _ = model.run(images, ray_maps=rays, **flags)
    errors = {}
    for view in range(4):
        errors |= deviations(output, view, golden, f"B.step{view}")
    for count in (3, 4):
        until = {name: flag[:, :count] for name, flag in flags.items()}
        _, state = model.run(images[:, :count], ray_maps=rays[:, :count], **until)
        errors[f"B.state{count}"] = relative(state.tokens, golden[f"B.state{count}"])
    # Shorter calls must hold the ray map as well, since it changes the tokens of every view; here it writes nothing.
    for count in (1, 2):
        chosen = [*range(count), 2]
        until = {name: flag[:, chosen] for name, flag in flags.items()}
        _, state = model.run(images[:, chosen], ray_maps=rays[:, chosen], **until)
        errors[f"B.state{count}"] = relative(state.tokens, golden[f"B.state{count}"])
    assert_equal_to_recording(errors, golden, "B", "B.ray2")


@torch.no_grad()
def test_case_q_agrees_when_a_camera_asks(model, golden, photos):
    _, state = model.run(photos[:, :2])
    before = dataclasses.replace(state, tokens=state.tokens.clone(), memory=state.memory.clone())
    errors = deviations(model.query(golden["B.ray2"], state), 0, golden, "Q")
    assert torch.equal(before.tokens, state.tokens)
    assert torch.equal(before.memory, state.memory)
    assert_equal_to_recording(errors, golden, "Q")


@torch.no_grad()
def test_case_c_agrees_with_linear_heads(golden, photos):
    network = rounding(head="linear")
    seen = []
    hook = network.heads.camera.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    output, _ = network.run(photos[:, :2])
    hook.remove()
    errors = {}
    for view in range(2):
        # Where raw z is next to 0, the sign of a point may be either.
        steady = seen[0][view, 2].abs() > 1e-3
        assert steady.float().mean() > 0.99
        for name, value in as_recorded(output, view).items():
            recorded = golden[f"C.step{view}.{name}"]
            if name == "pts3d_in_self_view":
                value, recorded = value[0][steady], recorded[0][steady]
                assert (value[..., 2] >= 0).all()
            errors[f"C.step{view}.{name}"] = MEASURES[name](value, recorded)
    assert_equal_to_recording(errors, golden, "C")


@torch.no_grad()
def test_case_d_agrees_when_a_portrait_view_follows_a_landscape_one(model, golden, photos):
    outputs = [output for output, _ in model.stream([photos[:, 0], golden["D.img1"]])]
    assert_equal_to_recording(deviations(outputs[1], 0, golden, "D.step1"), golden, "D", "D.img1")


def test_ray_maps_and_poses_agree(golden):
    k, view, first = golden["raymap.K"], golden["raymap.c2w_view"], golden["raymap.c2w_first"]
    found = ray_map(k, view, first, 12, 16)
    torch.testing.assert_close(found.float(), golden["raymap.out"], rtol=0, atol=1e-5)
    pose = golden["A.step2.camera_pose"]
    matrix = pose_from_rt(rotation_from_quaternion(pose[:, 3:]), pose[:, :3])
    torch.testing.assert_close(matrix, golden["pose.c2w"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", ["base", "linear_224"])
def test_the_released_networks_have_every_entry_of_the_manifest_and_no_other(fixtures, variant):
    manifest = json.loads((fixtures / "cut3r" / "manifest.json").read_text())
    expected = {name: shape for name, shape, _ in manifest["entries"]}
    count = manifest["parameter_count"]
    if variant == "linear_224":
        other = manifest["linear_head_variant"]
        expected = {name: shape for name, shape in expected.items() if ".dpt_" not in name}
        expected |= dict(other["differing_entries"])
        count = other["parameter_count"]
        assert len(expected) == other["n_entries"]
    with torch.device("meta"):
        network = SPEC.build(SPEC.variants[variant])
    official = checkpoints.to_official(network, SPEC)
    assert {name: list(tensor.shape) for name, tensor in official.items()} == expected
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    back = checkpoints.rename_keys(checkpoints.to_official(network, SPEC, aliases=False), SPEC.renames)
    assert set(back) == set(network.state_dict())


@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_official_weights_make_the_round_trip(head):
    config = dataclasses.replace(TINY, head=head)
    official = checkpoints.to_official(fill_seeded(SPEC.build(config), SPEC, seed=3), SPEC)
    other = SPEC.build(config)
    checkpoints.load_official(other, SPEC, {f"module.{name}": x for name, x in official.items()}, source="test")
    again = checkpoints.to_official(other, SPEC)
    assert set(again) == set(official)
    assert all(torch.equal(again[name], official[name]) for name in official)


def test_their_pickle_and_our_file_give_the_same_network(tmp_path):
    network = fill_seeded(SPEC.build(TINY), SPEC, seed=3)
    arguments = argparse.Namespace(model="ARCroco3DStereo(ARCroco3DStereoConfig(state_size=10))")
    torch.save({"model": checkpoints.to_official(network, SPEC), "args": arguments}, tmp_path / "cut3r.pth")
    theirs = checkpoints.load_model("cut3r", tmp_path / "cut3r.pth", variant="tiny")
    checkpoints.save_model(tmp_path / "own.safetensors", network, model_name="cut3r", config=TINY, meta={})
    ours, info = checkpoints.load_saved(tmp_path / "own.safetensors")
    assert info.config == TINY
    expected = checkpoints.weights_hash(network)
    assert checkpoints.weights_hash(theirs) == checkpoints.weights_hash(ours) == expected


def images(batch, views, height=32, width=48):
    return torch.rand(batch, views, 3, height, width, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def tiny():
    return fill_seeded(SPEC.build(TINY), SPEC)


def assert_same(first, second, first_at=..., second_at=...):
    for field in MAPS:
        assert relative(getattr(first, field)[first_at], getattr(second, field)[second_at]) < 1e-5, field


@torch.no_grad()
def test_a_batch_gives_what_its_rows_give_alone(tiny):
    photos = images(3, 3)
    together = tiny(photos)
    for row in range(3):
        assert_same(tiny(photos[row : row + 1]), together, 0, row)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 2, 50])
def test_chunks_of_views_change_no_value(tiny, chunk):
    assert_same(tiny(images(2, 3), head_chunk=chunk), tiny(images(2, 3)))


@torch.no_grad()
def test_views_one_by_one_give_what_the_sequence_gives(tiny):
    photos = images(2, 4)
    whole, last = tiny.run(photos)
    state = None
    for view, (output, after) in enumerate(tiny.stream(photos.unbind(dim=1))):
        state = after
        assert_same(output.prediction, whole.prediction, (slice(None), 0), (slice(None), view))
    assert relative(state.tokens, last.tokens) < 1e-5
    assert relative(state.memory, last.memory) < 1e-5


@torch.no_grad()
def test_a_stream_stopped_saved_and_resumed_goes_on_as_if_nothing_had_happened(tiny, tmp_path):
    photos = images(1, 4)
    uninterrupted = [output for output, _ in tiny.stream(photos.unbind(dim=1))]
    for _output, state in tiny.stream(photos[:, :2].unbind(dim=1)):
        stopped = state
    torch.save(dataclasses.asdict(stopped), tmp_path / "state.pt")
    resumed = CUT3RState(**torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(2):  # the record is frozen: two futures may start from it
        rest = [output for output, _ in tiny.stream(photos[:, 2:].unbind(dim=1), resumed)]
        for found, expected in zip(rest, uninterrupted[2:], strict=True):
            for field in MAPS:
                assert torch.equal(getattr(found.prediction, field), getattr(expected.prediction, field))
    assert_same(tiny.run(photos[:, 2:], resumed)[0].prediction, uninterrupted[3].prediction, (0, 1), (0, 0))


@torch.no_grad()
def test_rows_of_a_batch_may_miss_images_and_keep_their_own_state(tiny):
    photos = images(2, 3)
    holes = torch.tensor([[True, True, True], [True, False, True]])
    broken = photos.clone()
    broken[1, 1] = torch.nan
    together, state = tiny.run(broken, has_image=holes)
    assert all(torch.isfinite(getattr(together.prediction, field)).all() for field in MAPS)
    _, alone = tiny.run(photos[1:, [0, 2]])
    torch.testing.assert_close(state.tokens[1:], alone.tokens, rtol=1e-4, atol=1e-5)
    _, first = tiny.run(photos[:1])
    torch.testing.assert_close(state.tokens[:1], first.tokens, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_poses_are_rigid_and_colours_lie_in_the_unit_range(tiny):
    output, _ = tiny.run(images(1, 2))
    rotation = output.prediction.world_from_camera[..., :3, :3]
    torch.testing.assert_close(
        rotation @ rotation.transpose(-1, -2), torch.eye(3).expand(1, 2, 3, 3), atol=1e-5, rtol=0
    )
    assert 0 < output.colours.min() < output.colours.max() < 1


@pytest.mark.parametrize("recompute", [False, True])
def test_every_weight_that_is_read_takes_a_gradient_and_later_views_reach_earlier_images(recompute):
    network = SPEC.build(
        dataclasses.replace(TINY, gradient_checkpointing=recompute, half_precision_rotary=True)
    ).train()
    # Seeded: a gradient that is as small as that of a query's bias may come out as 0 for some numbers.
    photos = images(1, 3).requires_grad_()
    rays = torch.rand(1, 3, 32, 48, 6, generator=torch.Generator().manual_seed(0))
    flags = {"has_image": torch.tensor([[True, False, True]]), "has_ray_map": torch.tensor([[False, True, True]])}
    output, _ = network.run(photos, ray_maps=rays, **flags)
    parts = [getattr(output.prediction, field)[:, 2] for field in MAPS]
    (sum(part.square().mean() for part in parts) + output.colours[:, 1:].mean()).backward()
    reached = photos.grad.abs().amax(dim=(0, 2, 3, 4)) > 0
    assert reached.tolist() == [True, False, True]
    without = {name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()}
    frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert without == frozen
    assert all(".fuse.3.unit_level." in name for name in frozen)


@pytest.mark.parametrize(
    ("kind", "expected"), [("2d", (2, 1)), ("1d", (9, 9)), ("none", (0, 0))], ids=["2d", "1d", "none"]
)
def test_state_tokens_stand_where_the_configuration_says(kind, expected):
    assert tuple(state_positions(10, kind)[0, 9].tolist()) == expected
    assert tuple(state_positions(768, "2d")[0, 767].tolist()) == (27, 11)


def test_odd_sides_and_steps_without_anything_to_see_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"30x48.*32x48"):
        tiny(images(1, 2, height=30))
    with pytest.raises(ConfigError, match="image, a ray map, or both"):
        tiny.step(None)
    with pytest.raises(ConfigError, match="no view"):
        tiny(images(1, 0))
    with pytest.raises(ConfigError, match="state_heads is 5"):
        dataclasses.replace(TINY, state_heads=5)


@torch.no_grad()
def test_autocast_leaves_the_maps_in_float32(tiny):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = tiny(images(1, 2))
    assert {getattr(prediction, field).dtype for field in MAPS} == {torch.float32}


@torch.no_grad()
def test_a_step_of_the_decoders_compiles_in_one_graph(tiny, monkeypatch):
    # The check of shapes draws random items of sequences, which cannot be traced; users never pay for it.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    feature, state = tiny.encoder(images(1, 1)[0]).tokens, tiny.start(1)
    rotaries = tiny._rotaries((2, 3), feature.device)
    state = tiny._look(feature, state, rotaries).after
    found = torch.compile(tiny._look, backend="eager", fullgraph=True)(feature, state, rotaries)
    expected = tiny._look(feature, state, rotaries)
    for name in ("tokens", "memory", "pose"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))

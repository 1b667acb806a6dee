import dataclasses
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from distill3d import checkpoints, models
from distill3d.errors import ConfigError
from distill3d.infer.reconstruct import reconstruct
from distill3d.models.vggt import VGGT
from distill3d.types import Views
from tests.parity.official import fill_seeded, relative, relative_points, relative_values

SPEC = models.get("vggt")
TINY = SPEC.variants["tiny"]


@pytest.fixture(scope="module")
def model():
    return fill_seeded(VGGT(TINY), SPEC)


@pytest.fixture(scope="module")
def images():
    return torch.rand(1, 3, 3, 42, 56, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_heads_in_chunks_give_what_they_give_at_once(model, images):
    whole = model(images, head_chunk=None)
    for chunk in (1, 2):
        parts = model(images, head_chunk=chunk)
        assert relative_points(parts.pointmap_world, whole.pointmap_world) < 1e-5
        assert relative_values(parts.depth, whole.depth) < 1e-5


@torch.no_grad()
def test_odd_grids_and_a_single_view_are_fine(model, images):
    prediction = model(images[:, :1, :, :42, :14])
    assert prediction.depth.shape == (1, 1, 42, 14)
    assert prediction.depth.isfinite().all()


@torch.no_grad()
def test_only_the_place_of_the_first_view_matters(model, images):
    prediction, swapped = model(images), model(images[:, [0, 2, 1]])
    assert relative(swapped.world_from_camera[:, [0, 2, 1]], prediction.world_from_camera) < 1e-5
    other_first = model(images[:, [1, 0, 2]])
    assert relative(other_first.world_from_camera[:, [1, 0, 2]], prediction.world_from_camera) > 1e-2


def test_gradients_reach_every_weight_of_the_maps_and_cameras(images):
    model = fill_seeded(VGGT(TINY), SPEC)
    prediction = model(images)
    total = sum(
        value.mean()
        for value in (
            prediction.depth,
            prediction.pointmap_world,
            prediction.confidence_depth,
            prediction.confidence_world,
            prediction.world_from_camera,
        )
    )
    (total + model.camera_head(model.aggregate(images, ())[-1][:, :, 0])[-1].sum()).backward()
    without = {
        name
        for name, value in model.named_parameters()
        if value.requires_grad and (value.grad is None or not value.grad.any()) and not name.startswith("tracker.")
    }
    assert without == set()
    assert not model.encoder.mask_token.requires_grad


def test_recomputing_changes_neither_values_nor_gradients(model, images):
    frugal = fill_seeded(VGGT(dataclasses.replace(TINY, gradient_checkpointing=True)), SPEC)
    found = []
    for network in (model, frugal):
        network.zero_grad()
        prediction = network(images, head_chunk=2)
        prediction.depth.mean().backward()
        found.append((prediction.depth.detach(), network.frame_blocks[0].attn.qkv.weight.grad.clone()))
        network.zero_grad()
    assert torch.equal(found[0][0], found[1][0])
    assert relative(found[1][1], found[0][1]) < 1e-5


@torch.no_grad()
def test_tracks_start_where_they_were_asked_for_and_do_not_depend_on_chunks(model, images):
    queries = torch.tensor([[[3.0, 5.0], [55.0, 41.0]]])
    tracks = model.track(images, queries, iterations=1)
    assert torch.equal(tracks.points[:, 0], queries)
    assert tracks.points.shape == (1, 3, 2, 2)
    assert ((tracks.visibility > 0) & (tracks.visibility < 1)).all()
    assert relative(model.track(images, queries, iterations=1, head_chunk=1).points, tracks.points) < 1e-5


@torch.no_grad()
def test_points_do_not_change_places(model, images):
    queries = torch.tensor([[[3.0, 5.0], [40.0, 20.0], [20.0, 30.0]]])
    order = [2, 0, 1]
    tracks, moved = (model.track(images, found, iterations=1) for found in (queries, queries[:, order]))
    assert relative(moved.points, tracks.points[:, :, order]) < 1e-5


def test_gradients_reach_every_weight_of_the_tracker(images):
    model = fill_seeded(VGGT(TINY), SPEC)
    tracks = model.track(images, torch.tensor([[[20.0, 20.0], [30.0, 10.0]]]), iterations=2)
    (tracks.points.sum() + tracks.visibility.sum() + tracks.confidence.sum()).backward()
    without = {name for name, value in model.tracker.named_parameters() if value.grad is None or not value.grad.any()}
    assert without == set()


def test_a_network_without_its_tracker_takes_the_whole_file_and_refuses_to_track(model, images):
    lean = VGGT(dataclasses.replace(TINY, tracks=False))
    checkpoints.load_official(lean, SPEC, checkpoints.to_official(model, SPEC), source="model.pt")
    with torch.no_grad():
        assert torch.equal(lean.eval()(images).depth, model(images).depth)
    with pytest.raises(ConfigError, match="built without its tracker"):
        lean.track(images, torch.zeros(1, 1, 2))


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_file_as_it_is_published_loads_by_name(tmp_path, model, images, name):
    official = {key: value.contiguous() for key, value in checkpoints.to_official(model, SPEC).items()}
    if name.endswith(".pt"):
        torch.save(official, tmp_path / name)
    else:
        save_file(official, tmp_path / name)
    loaded = checkpoints.load_model("vggt", weights=tmp_path / name, variant="tiny")
    with torch.no_grad():
        assert torch.equal(loaded(images).depth, model(images).depth)


def test_our_own_file_brings_its_settings(tmp_path, model, images):
    path = checkpoints.save_model(
        tmp_path / "vggt.safetensors", model, model_name="vggt", config=model.config, meta={"licence": "none"}
    )
    loaded, info = checkpoints.load_saved(path)
    assert info.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(images).pointmap_world, model(images).pointmap_world)


def test_depth_and_cameras_become_a_reconstruction(model, images):
    found = reconstruct(model, Views(images=images))
    assert found.info["pose_method"] == "model"
    torch.testing.assert_close(found.prediction.world_from_camera[0, 0], torch.eye(4))
    assert found.prediction.pointmap_world.isfinite().all()


def test_a_side_that_is_no_multiple_of_the_patch_is_refused(model):
    with pytest.raises(ConfigError, match=r"45x56 pixels.*multiples of the patch size 14"):
        model(torch.zeros(1, 1, 3, 45, 56))
    with pytest.raises(ConfigError, match=r"14x56 pixels, too small to track in.*at least 16"):
        model.track(torch.zeros(1, 1, 3, 14, 56), torch.zeros(1, 1, 2))
    with pytest.raises(ConfigError, match="dense_levels must rise"):
        dataclasses.replace(TINY, dense_levels=(0, 1, 2, 4))


@torch.no_grad()
def test_half_precision_leaves_the_geometry_in_float32(model, images):
    exact = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(images)
    for name in ("depth", "pointmap_world", "confidence_world", "world_from_camera", "intrinsics"):
        assert getattr(rough, name).dtype == torch.float32
    assert (rough.depth / exact.depth).log().abs().median() < 0.1


def test_the_blocks_and_the_camera_head_compile_in_one_graph_each():
    # In a process of its own: the checks of shapes that the tests switch on are nothing a compiler can read.
    code = """
import torch
from distill3d import models
spec = models.get("vggt")
model = spec.build(spec.variants["tiny"]).eval()
images = torch.rand(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    for function, inputs in ((model.aggregate, (images, (3,))), (model.camera_head, (torch.ones(1, 2, 128),))):
        compiled = torch.compile(function, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*inputs), function(*inputs))
print("same")
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == "same", shown.stderr[-2000:]

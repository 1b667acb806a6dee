import dataclasses

import pytest
import torch
from torch import nn

from distill3d import models, teachers
from distill3d.checkpoints import save_model, weights_hash
from distill3d.errors import CheckpointError, ConfigError
from distill3d.geometry.poses import transform_points
from distill3d.teachers import Teacher, labels, place
from distill3d.teachers.zoo import NetworkTeacher
from distill3d.types import Prediction, Views, collate

from .views import wall_views


class Guess(nn.Module):
    """Says what it was told, a little wrong in the world map; draws a number where it is given a generator."""

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, images: torch.Tensor, *, generator: torch.Generator | None = None) -> Prediction:
        _, views, _, height, width = images.shape
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        depth = 2 + images.mean(dim=2)
        local = torch.stack([columns * depth, rows * depth, depth], dim=-1)
        turn = torch.eye(3).repeat(views, 1, 1)
        for view in range(views):
            angle = torch.tensor(0.3 * view)
            turn[view, 0, 0], turn[view, 0, 2] = angle.cos(), angle.sin()
            turn[view, 2, 0], turn[view, 2, 2] = -angle.sin(), angle.cos()
        world = self.scale * local @ turn[:, None].transpose(-1, -2)
        wobble = torch.zeros(()) if generator is None else torch.rand((), generator=generator)
        world = world + 0.01 * torch.sin(20 * local) + wobble
        confidence = 1 + images.mean(dim=2)
        return Prediction(
            pointmap_world=world, pointmap_camera=local, confidence_world=confidence, confidence_camera=confidence
        )


def test_the_world_map_becomes_a_similarity_of_the_local_one():
    images = wall_views(views=3).images
    raw = Guess()(images)
    found = NetworkTeacher(Guess(), name="guess").predict(Views(images=images))
    assert torch.equal(found.pointmap_camera, raw.pointmap_camera)
    error = (found.pointmap_world - raw.pointmap_world).norm(dim=-1)
    assert 1e-4 < error.max() < 1.2  # the wobble of the generator is one shift of all points
    local = transform_points(found.world_from_camera, 2 * found.pointmap_camera)
    assert torch.allclose(local, found.pointmap_world, atol=0.05)
    rotation = found.world_from_camera[..., :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(-1, -2), torch.eye(3).expand_as(rotation), atol=1e-5)


def test_without_alignment_the_network_speaks_for_itself():
    class Quiet(Guess):
        def forward(self, images):
            return super().forward(images)

    images = wall_views(views=2).images
    found = NetworkTeacher(Quiet(), name="quiet", align=False).predict(Views(images=images))
    assert torch.equal(found.pointmap_world, Guess()(images).pointmap_world)
    assert found.world_from_camera is None


def test_wrong_points_do_not_bend_the_alignment():
    images = wall_views(views=2).images
    raw = Guess()(images)
    spoiled = raw.pointmap_world.clone()
    spoiled[:, :, :, ::9] += 30
    found = labels.world_from_local(dataclasses.replace(raw, pointmap_world=spoiled))
    assert (found.pointmap_world - raw.pointmap_world).norm(dim=-1).mean() < 0.05


def test_padding_has_no_say_in_the_alignment():
    images = wall_views(views=2).images
    raw = Guess()(images)
    valid = torch.ones_like(raw.confidence_world, dtype=torch.bool)
    valid[..., 20:] = False
    spoiled = raw.pointmap_world.clone()
    spoiled[..., 20:, :] = torch.nan
    found = labels.world_from_local(dataclasses.replace(raw, pointmap_world=spoiled), valid)
    spoiled[..., 20:, :] = 9.0
    again = labels.world_from_local(dataclasses.replace(raw, pointmap_world=spoiled), valid)
    assert torch.equal(found.world_from_camera, again.world_from_camera)
    assert found.pointmap_world.isfinite().all()


def test_a_view_without_a_similarity_keeps_its_world_map():
    images = wall_views(views=2).images
    raw = Guess()(images)
    local = raw.pointmap_camera.clone()
    local[:, 1] = 1.0  # all points in one place
    found = labels.world_from_local(dataclasses.replace(raw, pointmap_camera=local))
    assert torch.equal(found.pointmap_world[:, 1], raw.pointmap_world[:, 1])
    assert not torch.equal(found.pointmap_world[:, 0], raw.pointmap_world[:, 0])


def test_random_numbers_come_from_the_photos():
    first, second = wall_views(seed=0).images, wall_views(seed=1).images
    teacher = NetworkTeacher(Guess(), name="guess")
    alone = teacher.predict(Views(images=first)).pointmap_world
    assert torch.equal(teacher.predict(Views(images=torch.cat([second, first]))).pointmap_world[1:], alone)
    other = NetworkTeacher(Guess(), name="guess", seed=1).predict(Views(images=first)).pointmap_world
    assert not torch.equal(other, alone)
    assert labels.content_seed(first[0], 0) != labels.content_seed(second[0], 0)
    assert labels.content_seed(first[0], 0) != labels.content_seed(first[0], 1)


def saved_tiny(folder, name="tiny.safetensors"):
    spec = models.get("distill3r")
    config = spec.variant("tiny")
    model = spec.build(config)
    meta = {"licence": "CC-BY-4.0"}
    return save_model(folder / name, model, model_name="distill3r", config=config, meta=meta), model


def test_a_weights_file_or_run_folder_is_a_teacher(tmp_path):
    path, model = saved_tiny(tmp_path, "student.safetensors")
    views = wall_views(views=3, height=28)
    for what, options in ((str(path), {}), (str(tmp_path), {}), ("distill3r", {"weights": path})):
        teacher = teachers.load(what, **options)
        assert isinstance(teacher, Teacher)
        assert teacher.name == "distill3r"
        assert teacher.licence == "CC-BY-4.0"
        assert teacher.weights_hash == weights_hash(model)
        assert teacher.settings()["config"]["encoder_dim"] == 32
        found = teacher.predict(views)
        assert found.pointmap_world.shape == (1, 3, 28, 28, 3)
        assert torch.equal(found.pointmap_world, teacher.predict(collate([views, views])).pointmap_world[1:])
        assert not found.pointmap_world.requires_grad


def test_a_teacher_that_sees_pairs_refuses_more():
    teacher = NetworkTeacher(Guess(), name="guess", max_views=2)
    assert teacher.predict(Views(images=wall_views(views=2).images)).pointmap_world is not None
    with pytest.raises(ConfigError, match="sees 2 views at a time, a group has 3"):
        teacher.predict(wall_views(views=3))


def test_a_network_without_weights_has_nothing_to_teach():
    with pytest.raises(CheckpointError, match="needs weights"):
        teachers.load("distill3r")


def test_the_place_teacher_loads_what_is_shipped_or_says_how_to_make_it(tmp_path, monkeypatch):
    path, model = saved_tiny(tmp_path, "place.safetensors")
    teacher = teachers.load("place", weights=path)
    assert teacher.name == "place"
    assert teacher.weights_hash == weights_hash(model)
    (tmp_path / "weights").mkdir()
    path.rename(tmp_path / "weights" / "place.safetensors")
    monkeypatch.setattr(place.resources, "files", lambda package: tmp_path)
    assert teachers.load("place").weights_hash == weights_hash(model)
    (tmp_path / "weights" / "place.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"Make them with `tools/place_teacher\.sh"):
        teachers.load("place")


def test_the_registry_knows_its_own_and_every_network():
    found = teachers.names()
    assert {"ground-truth", "place", *models.names()} <= set(found)
    assert not {"run", "zoo", "noise", "labels", "mask"} & set(found)
    for name in found:
        assert teachers.get(name).description
    with pytest.raises(ConfigError, match=r"There is no teacher 'oracle'; choose one of: .*ground-truth"):
        teachers.get("oracle")


def test_a_teacher_may_compute_in_bf16_says_so_and_gives_float32():
    model = models.get("vggt").build(models.get("vggt").variant("tiny"))
    views = Views(images=torch.rand(1, 2, 3, 56, 70, generator=torch.Generator().manual_seed(0)))
    exact, quick = (NetworkTeacher(model, name="vggt", precision=precision) for precision in ("fp32", "bf16"))
    assert "precision" not in exact.settings()
    assert quick.settings()["precision"] == "bf16"
    found, expected = quick.predict(views), exact.predict(views)
    assert found.pointmap_world.dtype == torch.float32
    assert not torch.equal(found.pointmap_world, expected.pointmap_world)
    assert (found.confidence_world / expected.confidence_world - 1).abs().median() < 0.05

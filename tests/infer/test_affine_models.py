"""Models whose camera maps are right up to scale and a shift of z, where people use them: reconstruct and teachers."""

import pytest
import torch
from torch import nn

from distill3d import checkpoints, models
from distill3d.errors import GeometryError
from distill3d.geometry.cameras import centred_intrinsics, project_points, unproject_depth
from distill3d.infer.reconstruct import reconstruct
from distill3d.teachers.zoo import NetworkTeacher, load_network
from distill3d.types import Prediction, Views

HEIGHT, WIDTH, FOCAL, SHIFT, METRES = 36, 48, 45.0, 0.6, 2.5


class Affine(nn.Module):
    """Knows the truth but for a shift of z, and how many metres its unit has."""

    affine = True

    def forward(self, images: torch.Tensor, *, head_chunk: int | None = None) -> Prediction:
        points = truth(images) - torch.tensor([0.0, 0.0, SHIFT])
        scale = torch.full(images.shape[:1], METRES)
        return Prediction(pointmap_camera=points, valid=points[..., 2] > 0, metric_scale=scale)


def truth(images):
    batch, views, _, height, width = images.shape
    depth = 2 + images.mean(dim=2)
    return unproject_depth(depth, centred_intrinsics(torch.full((batch, views), FOCAL), height, width))


def photo(views=1):
    return Views(images=torch.rand(1, views, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2)))


def test_a_reconstruction_has_the_focal_length_and_the_metres():
    views = photo()
    found = reconstruct(Affine(), views, confidence_percentile=0).prediction
    assert found.intrinsics[0, 0, 0, 0].item() == pytest.approx(FOCAL, rel=1e-3)
    torch.testing.assert_close(found.depth, METRES * truth(views.images)[..., 2], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.metric_scale, torch.ones(1))


def test_several_views_of_a_monocular_model_are_refused():
    with pytest.raises(GeometryError, match="does not say where the views are"):
        reconstruct(Affine(), photo(2))


def test_a_teacher_labels_every_view_with_its_own_camera():
    views = photo(2)
    found = NetworkTeacher(Affine(), name="affine").predict(views)
    torch.testing.assert_close(found.pointmap_camera, METRES * truth(views.images), rtol=1e-3, atol=1e-3)
    pixels, _ = project_points(found.pointmap_camera, found.intrinsics)
    assert (pixels[0, 1, 5, 9] - torch.tensor([9.0, 5.0])).abs().max() < 1e-2


def test_a_file_as_moge_publishes_it_becomes_a_teacher(tmp_path):
    spec = models.get("moge")
    network = spec.build(spec.variants["tiny2"])
    file = tmp_path / "model.pt"
    torch.save({"model_config": {"remap_output": "exp"}, "model": checkpoints.to_official(network, spec)}, file)
    teacher = load_network("moge", weights=file, variant="tiny2")
    found = teacher.predict(photo())
    assert found.depth.shape == (1, 1, HEIGHT, WIDTH)
    assert teacher.weights_hash == checkpoints.weights_hash(network)

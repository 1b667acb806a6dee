import dataclasses

import numpy as np
import pytest
import torch

from distill3d.types import Prediction, Views
from distill3d.viewer.rows import TRUTH, view_rows

NAMES = ("a.jpg", "b.jpg")


@pytest.fixture
def views() -> Views:
    generator = torch.Generator().manual_seed(0)
    return Views(
        images=torch.rand(1, 2, 3, 4, 5, generator=generator),
        depth=1 + torch.rand(1, 2, 4, 5, generator=generator),
        valid=torch.ones(1, 2, 4, 5, dtype=torch.bool),
    )


def test_one_factor_a_sample_removes_a_common_scale_and_no_more(views):
    student = Prediction(depth=views.depth * torch.tensor([3.0, 3.0]).view(1, 2, 1, 1))
    rows = view_rows(views, {"student": student}, NAMES)
    assert [row.name for row in rows] == list(NAMES)
    for row in rows:
        assert list(row.depth) == [TRUTH, "student"]
        np.testing.assert_allclose(row.depth["student"], row.depth[TRUTH], rtol=1e-5)
        assert row.error["student"].max() < 1e-5
    uneven = Prediction(depth=views.depth * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
    assert view_rows(views, {"student": uneven}, NAMES)[1].error["student"].max() > 0.1
    assert view_rows(views, {"student": uneven}, NAMES, align="view")[1].error["student"].max() < 1e-5
    unscaled = view_rows(views, {"student": uneven}, NAMES, align="none")[1].error["student"]
    np.testing.assert_allclose(unscaled, 1, rtol=1e-5)


def test_pixels_outside_the_photo_or_the_models_mask_are_unknown(views):
    inside = views.valid.clone()
    inside[0, 0, 0] = False
    own = torch.ones_like(inside)
    own[0, 0, 1] = False
    student = Prediction(depth=views.depth, valid=own, confidence_camera=views.depth)
    row = view_rows(dataclasses.replace(views, valid=inside), {"student": student}, NAMES)[0]
    assert (row.depth["student"][:2] == 0).all()
    assert np.isnan(row.error["student"][:2]).all()
    assert np.isfinite(row.error["student"][2:]).all()
    assert np.isnan(row.confidence["student"][0]).all()


def test_without_truth_a_source_can_be_the_reference(views):
    bare = dataclasses.replace(views, depth=None, valid=None)
    pointmap = torch.stack([views.depth * 0, views.depth * 0, views.depth], dim=-1)
    predictions = {"teacher": Prediction(depth=views.depth), "student": Prediction(pointmap_camera=2 * pointmap)}
    rows = view_rows(bare, predictions, NAMES, reference="teacher", notes=("one", "two"))
    assert list(rows[0].error) == ["student"]
    assert rows[0].error["student"].max() < 1e-5
    assert rows[1].note == "two"
    assert view_rows(bare, predictions, NAMES)[0].error == {}


def test_a_source_without_maps_is_left_out(views):
    row = view_rows(views, {"student": Prediction()}, NAMES)[0]
    assert list(row.depth) == [TRUTH]
    assert row.error == {}
    assert row.confidence == {}
    assert row.photo.dtype == np.uint8

import numpy as np
import pytest
import torch

from distill3d.errors import GeometryError
from distill3d.geometry.lenses import LENSES, distort, undistort

ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")


def params_of(model):
    if model == "FOV":
        return [0.8]
    if model == "EUCM":
        return [0.55, 1.1]
    return np.random.default_rng(3).uniform(-0.05, 0.05, LENSES[model][0]).tolist()


def grid():
    line = torch.linspace(-0.7, 0.7, 9, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


@pytest.mark.parametrize("model", LENSES)
def test_undistorting_is_the_inverse(model):
    points, params = grid(), params_of(model)
    bent = distort(model, params, points)
    assert (undistort(model, params, bent) - points).abs().max() < 1e-9
    assert torch.equal(distort(model, params, torch.zeros(1, 2)), torch.zeros(1, 2))
    if LENSES[model][0]:
        assert (bent - points).abs().max() > 1e-3


@pytest.mark.parametrize("model", LENSES)
def test_the_models_are_those_of_colmap(model):
    pycolmap = pytest.importorskip("pycolmap")
    focal = [500.0] if model in ONE_FOCAL or model in ("SIMPLE_DIVISION", "SIMPLE_FISHEYE") else [500.0, 510.0]
    params = params_of(model)
    try:
        camera = pycolmap.Camera(model=model, width=640, height=480, params=[*focal, 320.0, 240.0, *params])
    except (ValueError, TypeError, RuntimeError):
        pytest.skip("this pycolmap is older than the model")
    theirs = camera.img_from_cam(np.c_[grid().numpy(), np.ones(81)])
    ours = distort(model, params, grid()).numpy() * [focal[0], focal[-1]] + [320, 240]
    assert np.abs(ours - theirs).max() < 1e-9


def test_what_is_no_lens_is_refused():
    with pytest.raises(GeometryError, match="no camera model 'EQUIRECTANGULAR'; expected one of SIMPLE_PINHOLE"):
        distort("EQUIRECTANGULAR", [], grid())
    with pytest.raises(GeometryError, match="came with 1 distortion parameters, expected 4"):
        distort("OPENCV", [0.1], grid())

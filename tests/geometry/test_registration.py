import io

import numpy as np
import torch
from PIL import Image

from distill3d.geometry.registration import register_depth


def test_depth_moves_to_the_other_camera_as_recorded(fixtures):
    with np.load(fixtures / "data_formats/sevenscenes_depth.npz") as case:
        stored = np.asarray(Image.open(io.BytesIO(case["depth_png"].tobytes()))).astype(np.float64)
        expected, other_from_camera = case["registered_to_rgb"], case["depth_to_rgb"]
    depth = torch.from_numpy(np.where(stored == 65535, 0, stored / 1000))
    # Measured from pixel centres, but counted in whole numbers on arrival: the centres differ by half a pixel.
    infrared = torch.tensor([[58.5, 0, 31.5], [0, 58.5, 23.5], [0, 0, 1]], dtype=torch.float64)
    colour = torch.tensor([[52.5, 0, 32], [0, 52.5, 24], [0, 0, 1]], dtype=torch.float64)
    found = register_depth(depth, infrared, colour, torch.from_numpy(other_from_camera), (48, 64))
    assert np.allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_the_same_camera_gives_the_same_depth_and_the_nearest_point_wins():
    intrinsics = torch.tensor([[20.0, 0, 7.5], [0, 20.0, 5.5], [0, 0, 1]], dtype=torch.float64)
    depth = 1 + torch.rand(12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    depth[3, 4] = 0
    same = register_depth(depth, intrinsics, intrinsics, torch.eye(4, dtype=torch.float64), (12, 16))
    assert torch.allclose(same, depth, rtol=0, atol=1e-12)
    coarse = torch.tensor([[5.0, 0, 1.5], [0, 5.0, 1.0], [0, 0, 1]], dtype=torch.float64)
    small = register_depth(depth, intrinsics, coarse, torch.eye(4, dtype=torch.float64), (3, 4))
    assert float(small[small > 0].max()) < float(depth[depth > 0].median())

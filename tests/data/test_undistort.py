from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.data.check import check_scene
from distill3d.data.manifest import Manifest, build_manifest
from distill3d.data.refs import Ref
from distill3d.data.rows import Distortion, ManifestRow
from distill3d.data.undistort import lens_pixels, pinhole_for, undistort_manifest
from distill3d.errors import DataError
from distill3d.geometry.cameras import camera_rays
from distill3d.geometry.lenses import undistort

SIZE = (48, 64)
K = torch.tensor([[40.0, 0, 31.0], [0, 41.0, 23.0], [0, 0, 1]], dtype=torch.float64)
LENSES = [
    Distortion("OPENCV", (0.08, -0.01, 0.002, -0.001)),
    Distortion("SIMPLE_RADIAL", (-0.06,)),
    Distortion("OPENCV_FISHEYE", (0.02, -0.01, 0.0, 0.0)),
]


def colour(x, y):
    return torch.stack([0.5 + 0.4 * torch.sin(2 * x), 0.5 + 0.4 * torch.sin(3 * y), 0.5 + 0.2 * torch.cos(x + y)], -1)


def distorted_scene(root, lens):
    """Three cameras before the plane x + 4 z = 12, photographed through a lens."""
    flat = camera_rays(K, *SIZE)[..., :2]
    rays = undistort(lens.model, lens.params, flat)
    rows = []
    for number in range(3):
        shift = 0.3 * number
        depth = (12 - shift) / (rays[..., 0] + 4)
        point = torch.stack([rays[..., 0] * depth + shift, rays[..., 1] * depth], -1)
        pixels = (colour(point[..., 0], point[..., 1]) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(root / f"{number}.png")
        np.save(root / f"{number}.npy", depth.float().numpy())
        pose = torch.eye(4, dtype=torch.float64)
        pose[0, 3] = shift
        rows.append(
            ManifestRow(
                dataset="colmap",
                scene="s/wide",
                frame=number,
                image=Ref(f"{number}.png"),
                width=SIZE[1],
                height=SIZE[0],
                intrinsics=tuple(map(tuple, K.tolist())),
                distortion=lens,
                world_from_camera=tuple(map(tuple, pose.tolist())),
                depth=Ref(f"{number}.npy", "npy"),
                scale="metric",
                split="test",
            )
        )
    return Manifest.from_rows(rows, root)


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.model)
def test_pinhole_pictures_show_the_same_scene(tmp_path, lens):
    manifest = distorted_scene(tmp_path, lens)
    assert undistort_manifest(manifest, tmp_path / "out") == ()
    made, _ = build_manifest(tmp_path / "out")
    rows = list(made.rows())
    assert [(row.scene, row.frame, row.split, row.scale) for row in rows] == [
        ("s/wide", number, "test", "metric") for number in range(3)
    ]
    assert {row.distortion for row in rows} == {None}
    for number, row in enumerate(rows):
        rays = camera_rays(torch.tensor(row.intrinsics, dtype=torch.float64), *SIZE)
        depth = (12 - 0.3 * number) / (rays[..., 0] + 4)
        stored = np.load(made.root / row.depth.path)
        assert np.abs(stored / depth.numpy() - 1).max() < 0.01  # the nearest pixel, on a slant
        expected = colour(rays[..., 0] * depth + 0.3 * number, rays[..., 1] * depth)
        shown = np.asarray(Image.open(made.root / row.image.path)) / 255
        assert np.abs(shown - expected.numpy())[2:-2, 2:-2].max() < 0.03
    assert check_scene(made, "s/wide").is_good


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.model)
def test_every_pixel_is_filled_and_no_more_is_cut_off_than_must(lens):
    pinhole = pinhole_for(K, lens, SIZE)
    x, y = lens_pixels(pinhole, K, lens, SIZE)
    margins = torch.stack([x.min(), SIZE[1] - 1 - x.max(), y.min(), SIZE[0] - 1 - y.max()])
    assert (margins >= 0).all()
    assert margins.min() < 1e-3


def test_finished_scenes_are_kept_and_broken_frames_told(tmp_path):
    manifest = distorted_scene(tmp_path, LENSES[0])
    (tmp_path / "1.png").write_bytes(b"")
    skipped = undistort_manifest(manifest, tmp_path / "out")
    assert [entry.path for entry in skipped] == ["1.png"]
    before = (tmp_path / "out/s/wide/scene.json").stat().st_mtime_ns
    assert undistort_manifest(manifest, tmp_path / "out") == ()
    assert (tmp_path / "out/s/wide/scene.json").stat().st_mtime_ns == before
    bare = Manifest.from_rows([replace(row, intrinsics=None) for row in manifest.rows()], tmp_path)
    with pytest.raises(DataError, match="No frame of this manifest has intrinsics"):
        undistort_manifest(bare, tmp_path / "none")

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.data.datasets.annotated import write_annotated_scene
from distill3d.data.fit import ImageFit
from distill3d.data.groups import load_group, manifest_canvas
from distill3d.data.manifest import Manifest, ManifestRow, build_manifest
from distill3d.data.refs import Ref
from distill3d.data.sampling import ViewGroup, contiguous
from distill3d.data.video import VideoPool
from distill3d.errors import DataError
from tests.data.films import LEVEL, save_film
from tests.data.pictures import picture, save_picture, upright_tag

FIT = ImageFit(long_side=28, multiple=14)


def turn_about_y(angle):
    cosine, sine = np.cos(angle), np.sin(angle)
    return torch.tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]], dtype=torch.float64)


def annotated(root, height=30, width=40, frames=3, far=0.0, **options):
    """A wall at z = 5, seen from cameras that turn and move; its colour tells where a ray hits it."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    intrinsics = torch.tensor([[50.0, 0, 18.2], [0, 48, 15.7], [0, 0, 1]], dtype=torch.float64)
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1).double() @ torch.linalg.inv(intrinsics).T
    images, depths, poses = [], [], []
    for number in range(frames):
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = turn_about_y(0.1 * number)
        pose[:3, 3] = torch.tensor([0.3 * number + far, 0.1, 0], dtype=torch.float64)
        directions = rays @ pose[:3, :3].T
        depth = (5 - pose[2, 3]) / directions[..., 2]
        hit = directions * depth[..., None] + pose[:3, 3] - torch.tensor([far, 0, 0])
        images.append((hit / 8 + 0.5).clamp(0, 1).permute(2, 0, 1).float())
        depths.append(depth.float())
        poses.append(pose)
    write_annotated_scene(
        root,
        torch.stack(images),
        depth=torch.stack(depths),
        intrinsics=intrinsics.expand(frames, 3, 3),
        world_from_camera=torch.stack(poses),
        is_metric=True,
        **options,
    )
    return build_manifest(root.parent)[0]


@pytest.mark.parametrize("mode", ["pad", "crop"])
@pytest.mark.parametrize("world", ["view0", "scene"])
def test_pictures_depth_and_cameras_agree_on_the_canvas(tmp_path, mode, world):
    manifest = annotated(tmp_path / "room")
    fit = ImageFit(long_side=35, multiple=14, mode=mode)
    views = load_group(manifest, ViewGroup("room", (1, 0, 2)), fit, world=world)
    height, width = views.images.shape[-2:]
    assert (height % 14, width % 14) == (0, 0)
    assert views.is_metric.tolist() == [True]

    if world == "view0":
        assert torch.equal(views.world_from_camera[0, 0], torch.eye(4))
        scene_from_world = torch.tensor(manifest.row("room", 1).world_from_camera, dtype=torch.float64)
    else:
        scene_from_world = torch.eye(4, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).double()
    inner = torch.zeros(height, width, dtype=torch.bool)
    for view in range(3):
        rays = pixels @ torch.linalg.inv(views.intrinsics[0, view].double()).T
        points = rays * views.depth[0, view, ..., None].double()
        pose = scene_from_world @ views.world_from_camera[0, view].double()
        hit = points @ pose[:3, :3].T + pose[:3, 3]
        valid = views.valid[0, view]
        # The resized edge is blended with nothing: look at pixels whose neighbours are valid.
        inner[1:-1, 1:-1] = valid[1:-1, 1:-1] & valid[:-2, 1:-1] & valid[2:, 1:-1] & valid[1:-1, :-2] & valid[1:-1, 2:]
        # Nearest depth is up to half a source pixel away; the wall is nearly level over that.
        assert (hit[inner][:, 2] - 5).abs().max() < 0.03
        seen = views.images[0, view].permute(1, 2, 0)[inner].double()
        expected = (hit[inner] / 8 + 0.5).clamp(0, 1)
        assert (seen - expected)[:, :2].abs().mean() < 0.004
        assert (views.depth[0, view][~valid] == 0).all()


def test_far_from_the_origin_relative_poses_keep_their_precision(tmp_path):
    near = load_group(annotated(tmp_path / "a/room"), ViewGroup("room", (0, 1, 2)), FIT)
    far = load_group(annotated(tmp_path / "b/room", far=1e6), ViewGroup("room", (0, 1, 2)), FIT)
    assert torch.allclose(near.world_from_camera, far.world_from_camera, atol=1e-6)


def test_what_only_some_frames_have_is_left_out(tmp_path):
    manifest = annotated(tmp_path / "room")
    rows = list(manifest.rows())
    rows[1] = ManifestRow(**{**vars(rows[1]), "depth": None, "world_from_camera": None})
    views = load_group(Manifest.from_rows(rows, manifest.root), ViewGroup("room", (0, 1)), FIT)
    assert views.depth is None
    assert views.world_from_camera is None
    assert views.intrinsics is not None


def test_photos_alone_give_images_and_valid(tmp_path):
    save_picture(tmp_path / "yard/1.png", 30, 40)
    save_picture(tmp_path / "yard/2.png", 40, 30)
    manifest, _ = build_manifest(tmp_path)
    views = load_group(manifest, ViewGroup("yard", (0, 1)), FIT)
    assert views.images.shape == (1, 2, 3, 28, 28)
    assert views.intrinsics is views.world_from_camera is views.depth is None
    assert views.is_metric.tolist() == [False]
    assert 0.5 < views.valid.float().mean() < 1


def test_all_groups_of_a_manifest_share_a_canvas(tmp_path):
    for number, size in enumerate([(30, 40), (30, 40), (40, 30), (30, 40)]):
        save_picture(tmp_path / f"yard/{number}.png", *size)
    manifest, _ = build_manifest(tmp_path)
    canvas = manifest_canvas(manifest, FIT)
    assert canvas == (28, 28)
    for group in contiguous(manifest, 2):
        assert load_group(manifest, group, FIT, canvas=canvas).images.shape[-2:] == canvas
    assert manifest_canvas(manifest, FIT, split="train") == canvas
    with pytest.raises(DataError, match="no photos"):
        manifest_canvas(manifest, FIT, split="test")


def test_exif_turns_a_photo_but_not_one_whose_camera_is_known(tmp_path):
    path = tmp_path / "1.png"
    Image.fromarray(picture(30, 40)).save(path, exif=upright_tag(6))
    row = ManifestRow(dataset="photos", scene="s", frame=0, image=Ref("1.png"), width=30, height=40)
    camera = ((9.0, 0.0, 20.0), (0.0, 9.0, 15.0), (0.0, 0.0, 1.0))
    known = replace(row, frame=1, width=40, height=30, intrinsics=camera)
    manifest = Manifest.from_rows([row, known], tmp_path)
    valid = load_group(manifest, ViewGroup("s", (0, 1)), FIT).valid[0]
    assert valid[0].sum(dim=0).max() == 28  # portrait: full height
    assert valid[1].sum(dim=1).max() == 28  # landscape: full width
    assert not torch.equal(valid[0], valid[1])


@pytest.mark.parametrize("shared_pool", [False, True])
def test_frames_of_a_video_are_decoded_in_place(tmp_path, shared_pool):
    save_film(tmp_path / "walk.avi", frames=21, fps=10)
    manifest, _ = build_manifest(tmp_path / "walk.avi", rate=2)
    assert manifest.frames("walk.avi") == (0, 5, 10, 15, 20)
    pool = VideoPool() if shared_pool else None
    for frames in [(15, 5, 20), (0, 10), (20, 15)]:
        views = load_group(manifest, ViewGroup("walk.avi", frames), ImageFit(long_side=56), videos=pool)
        levels = views.images[0, :, :, :, 28:].mean(dim=(1, 2, 3)) * 255 / LEVEL
        assert torch.allclose(levels, torch.tensor(frames).float(), atol=0.7)


def test_files_that_are_gone_or_changed_are_named(tmp_path):
    for number in range(3):
        save_picture(tmp_path / f"data/{number}.png", seed=number)
    manifest, _ = build_manifest(tmp_path / "data")
    (tmp_path / "data/0.png").unlink()
    save_picture(tmp_path / "data/1.png", 24, 24)
    (tmp_path / "data/2.png").write_bytes(b"")
    for frame, words in enumerate(
        ["0.png does not exist", "1.png is 24x24, the manifest says 32x24", "2.png is empty"]
    ):
        with pytest.raises(DataError, match=words):
            load_group(manifest, ViewGroup("data", (frame,)), FIT)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DataError, match=r"does not exist on this machine. Say where they are with --root"):
        load_group(manifest, ViewGroup("data", (0,)), FIT)


def test_depth_of_another_size_than_its_photo_is_placed_and_of_another_aspect_refused(tmp_path):
    manifest = annotated(tmp_path / "room")
    path = tmp_path / "room/depth/000000.npy"
    np.save(path, np.load(path)[::2, ::2])
    views = load_group(manifest, ViewGroup("room", (0,)), ImageFit(long_side=28, multiple=1))
    assert ((views.depth > 0) == views.valid).all()
    np.save(path, np.ones((40, 30), dtype=np.float32))
    with pytest.raises(DataError, match=r"000000.npy: .*expected the same aspect"):
        load_group(manifest, ViewGroup("room", (0,)), FIT)


def test_16_bit_depth_is_read_in_scene_units(tmp_path):
    exact = load_group(annotated(tmp_path / "a/room"), ViewGroup("room", (0, 1)), FIT).depth
    steps = load_group(annotated(tmp_path / "b/room", depth_unit=0.001), ViewGroup("room", (0, 1)), FIT).depth
    assert (exact - steps).abs().max() <= 0.00051


@pytest.mark.parametrize("name", ["buddha", "charuco_desk"])
def test_groups_of_real_photos_load(shared_data, name):
    manifest, skipped = build_manifest(shared_data / name)
    assert skipped == ()
    fit = ImageFit(long_side=112)
    canvas = manifest_canvas(manifest, fit)
    for group in contiguous(manifest, 4):
        views = load_group(manifest, group, fit, canvas=canvas)
        assert views.images.shape == (1, 4, 3, 70, 112)
        assert views.images[views.valid[:, :, None].expand_as(views.images)].std() > 0.1

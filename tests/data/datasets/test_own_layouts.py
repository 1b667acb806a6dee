"""One scene with exact geometry in every layout of a user's own: all of them give the same cameras and depth."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from distill3d.data.check import check_scene
from distill3d.data.datasets.annotated import write_annotated_scene
from distill3d.data.fit import ImageFit
from distill3d.data.frames import read_depth, read_picture
from distill3d.data.manifest import build_manifest
from distill3d.data.sources import find_source, load_source
from tests.data.colmap_files import write_binary, write_text
from tests.fixtures.layout_scene import invert, millimetres, npy, photograph, pinhole, write, write_png

K, SIZE, COUNT = pinhole(55.0, 56.0, 31.2, 23.7), (48, 64), 5
OPENGL = np.diag([1.0, -1, -1, 1])


@pytest.fixture(scope="module")
def truth():
    return photograph(K, SIZE, COUNT)


def pictures(root, truth, folder="images"):
    for number, image in enumerate(truth.images):
        write_png(root / folder / f"frame_{number + 8}.png", image)


def colmap(root, truth, write_model):
    """`stereo/depth_maps` holds the depth, as COLMAP writes it after matching."""
    camera = (1, "PINHOLE", SIZE[1], SIZE[0], (K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5))
    images = []
    for number, pose in enumerate(truth.world_from_camera):
        camera_from_world = invert(pose)
        x, y, z, w = Rotation.from_matrix(camera_from_world[:3, :3]).as_quat()
        name = f"frame_{number + 8}.png"
        images.append((number + 1, (w, x, y, z, *camera_from_world[:3, 3]), 1, name, []))
        header = f"{SIZE[1]}&{SIZE[0]}&1&".encode()
        write(root / f"stereo/depth_maps/{name}.geometric.bin", header + truth.depth[number].astype("<f4").tobytes())
    pictures(root, truth)
    write_model(root / "sparse/0", [camera], images, [])


def nerfstudio(root, truth, turned, say):
    """`turned` is what nerfstudio does to the world; `say` how a reader can know."""
    frames = []
    for number, pose in enumerate(truth.world_from_camera):
        write(root / f"depth/{number}.npy", npy(truth.depth[number].astype(np.float32)))
        stored = turned @ pose @ OPENGL
        frames.append(
            {
                "file_path": f"./images/frame_{number + 8}",
                "transform_matrix": stored.tolist(),
                "depth_file_path": f"depth/{number}.npy",
            }
        )
    pictures(root, truth)
    scene = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5, "w": SIZE[1], "h": SIZE[0]}
    write(root / "transforms.json", json.dumps({**scene, **say, "frames": frames}))


def nerfstudio_now(root, truth):
    turned = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    nerfstudio(root, truth, turned, {"applied_transform": turned[:3].tolist()})


def nerfstudio_before(root, truth):
    nerfstudio(root, truth, np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]), {})
    write(root / "colmap/sparse/0/project.ini", "")


def table(root, truth):
    rows = []
    for number, pose in enumerate(truth.world_from_camera):
        write(root / f"depth/{number}.png", png_of(truth.depth[number]))
        rows.append(
            {
                **{"image": f"images/frame_{number + 8}.png", "depth": f"depth/{number}.png", "depth_scale": 0.001},
                **{
                    "fx": K[0, 0],
                    "fy": K[1, 1],
                    "cx": K[0, 2],
                    "cy": K[1, 2],
                    "world_from_camera": pose.ravel().tolist(),
                },
            }
        )
    pictures(root, truth)
    write(root / "frames.jsonl", "\n".join(map(json.dumps, rows)))


def png_of(depth):
    buffer = io.BytesIO()
    Image.fromarray(millimetres(depth)).save(buffer, "PNG")
    return buffer.getvalue()


def annotated(root, truth):
    write_annotated_scene(
        root,
        torch.from_numpy(truth.images).permute(0, 3, 1, 2).float() / 255,
        intrinsics=torch.from_numpy(np.broadcast_to(K, (COUNT, 3, 3)).copy()),
        world_from_camera=torch.from_numpy(truth.world_from_camera),
        depth=torch.from_numpy(truth.depth).float(),
    )


LAYOUTS = {
    "colmap-text": ("colmap", lambda root, truth: colmap(root, truth, write_text)),
    "colmap-binary": ("colmap", lambda root, truth: colmap(root, truth, write_binary)),
    "nerfstudio-now": ("nerfstudio", nerfstudio_now),
    "nerfstudio-before": ("nerfstudio", nerfstudio_before),
    "nerfstudio-as-is": ("nerfstudio", lambda root, truth: nerfstudio(root, truth, np.eye(4), {})),
    "table": ("table", table),
    "annotated": ("annotated", annotated),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_geometry(tmp_path, truth, layout):
    name, make = LAYOUTS[layout]
    root = tmp_path / "room"
    make(root, truth)
    assert find_source(root).dataset == name
    manifest, skipped = build_manifest(root)
    assert skipped == ()
    assert manifest.scenes() == ("room",)
    rows = list(manifest.rows())
    assert len(rows) == COUNT
    for number, row in enumerate(rows):
        assert np.abs(np.array(row.intrinsics) - K).max() < 1e-9
        assert np.abs(np.array(row.world_from_camera) - truth.world_from_camera[number]).max() < 1e-9
        assert np.array_equal(read_picture(row, root), truth.images[number])
        assert np.abs(read_depth(row, root) - truth.depth[number]).max() < (6e-4 if layout == "table" else 1e-5)
    checked = check_scene(manifest, "room")
    assert checked.is_good
    bare, _ = build_manifest(root, mode="images_only")
    assert [row.image for row in bare.rows()] == [row.image for row in rows]
    assert all(row.intrinsics is row.world_from_camera is row.depth is None for row in bare.rows())


@pytest.mark.parametrize("layout", ["colmap-text", "nerfstudio-now", "table"])
def test_a_project_is_reconstructed_with_its_cameras(tmp_path, truth, layout):
    root = tmp_path / "room"
    LAYOUTS[layout][1](root, truth)
    loaded = load_source(root, ImageFit(long_side=56), max_views=3)
    assert loaded.views.images.shape[1] == 3
    relative = np.linalg.inv(truth.world_from_camera[0]) @ truth.world_from_camera[[0, 2, 4]]
    assert np.abs(loaded.views.world_from_camera[0].numpy() - relative).max() < 1e-5
    assert loaded.views.intrinsics[0, 0, 0, 0] == pytest.approx(K[0, 0] * 56 / 64)

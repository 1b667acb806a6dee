"""Every loader gives back the geometry of the one scene that its data set's layout was written from."""

import contextlib
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from distill3d.data import check, datasets
from distill3d.data.datasets import ScanOptions
from distill3d.data.fit import ImageFit
from distill3d.data.frames import read_depth, read_mask, read_picture, read_sky
from distill3d.data.groups import load_group
from distill3d.data.manifest import build_manifest
from distill3d.data.rows import Skipped
from distill3d.data.sampling import ViewGroup
from distill3d.data.sources import find_source
from distill3d.errors import DataError
from tests.fixtures.layouts import LAYOUTS, TrueScene, write_layout

# Layouts that are two of one loader.
DATASET = {"kitti_selection": "kitti", "nyuv2_cut": "nyuv2", "nyuv2_hdf5": "nyuv2", "tartanair2": "tartanair"}
# Where pictures alone do not tell what they are.
LISTED = {"moge", "nyuv2_cut", "re10k"}


@pytest.fixture(scope="module", params=sorted(LAYOUTS))
def layout(request, tmp_path_factory):
    if request.param in ("hypersim", "megadepth", "nyuv2", "nyuv2_hdf5"):
        pytest.importorskip("h5py")
    return request.param, write_layout(request.param, tmp_path_factory.mktemp(request.param))


def scan(name: str, root: Path, mode: str):
    """Rows by scene, and what was skipped, as `manifest build` takes them."""
    spec = datasets.get(DATASET.get(name, name))
    rows, skipped = defaultdict(list), []
    for part in spec.find(root):
        try:
            for row in spec.read(part, root, ScanOptions(mode=mode), skipped.append):
                rows[row.scene].append(row)
        except DataError as error:
            skipped.append(Skipped(part.relative_to(root).as_posix(), str(error)))
    return {scene: sorted(found, key=lambda row: row.frame) for scene, found in rows.items()}, skipped


def world_points(depth: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray) -> np.ndarray:
    height, width = depth.shape
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(intrinsics).T
    return (rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]


def test_full_rows_hold_the_geometry_that_the_layout_was_written_from(layout):
    name, expected = layout
    found, skipped = scan(name, expected.root, "full")
    assert set(found) == {scene.name for scene in expected.scenes if len(scene.images)}
    for scene in expected.scenes:
        if len(scene.images):
            check_scene(name, scene, found[scene.name], expected.root)
    assert len(skipped) == expected.num_broken, [entry.reason for entry in skipped]
    for words in expected.broken_words:
        assert any(words in entry.reason for entry in skipped), [entry.reason for entry in skipped]


def check_scene(name, scene: TrueScene, rows, root):
    assert len(rows) == len(scene.images)
    assert len({row.frame for row in rows}) == len(rows)
    for index, row in enumerate(rows):
        assert row.dataset == DATASET.get(name, name)
        assert row.is_metric == scene.is_metric
        assert row.licence
        check_picture(scene, index, row, root)
        check_camera(scene, index, row)
        check_depth(scene, index, row, root)


def check_picture(scene: TrueScene, index, row, root):
    picture = read_picture(row, root)
    errors = np.abs(scene.images.astype(int) - picture).mean(axis=(1, 2, 3))
    # A JPEG is close to the photo that it is of, and further from all others: no frame took another's place.
    assert errors[index] <= 6
    assert errors.argmin() == index
    assert (row.height, row.width) == picture.shape[:2]


def check_camera(scene: TrueScene, index, row):
    for given, true in ((row.intrinsics, scene.intrinsics), (row.world_from_camera, scene.world_from_camera)):
        assert (given is None) == (true is None)
        if true is not None:
            np.testing.assert_allclose(given, true[index], rtol=0, atol=2e-6)
    given = None if row.distortion is None else (row.distortion.model, row.distortion.params)
    assert given == scene.distortion


def check_depth(scene: TrueScene, index, row, root):
    depth = read_depth(row, root)
    assert (depth is None) == (scene.depth is None)
    if depth is None:
        return
    true = scene.depth[index]
    assert depth.shape == true.shape
    # Half precision in half of float32's own, for maps that are exact.
    allowed = scene.step + (scene.relative_step + 1e-6) * true + 1e-6
    if scene.pixels:
        low, high = ndimage.minimum_filter(true, 2 * scene.pixels + 1), ndimage.maximum_filter(true, 3)
        agree = (depth > low - allowed) & (depth < high + allowed)
        assert agree[depth > 0].mean() > 0.99
        assert (depth > 0).mean() > 0.7
        return
    assert np.array_equal(depth > 0, true > 0)
    assert (np.abs(depth - true) <= allowed).all()
    if scene.sky is not None:
        assert np.array_equal(read_sky(row, root), scene.sky[index])
    if scene.distortion is None and row.intrinsics is not None:
        check_points(scene, index, row, depth, allowed)


def check_points(scene: TrueScene, index, row, depth, allowed):
    pose = np.eye(4) if row.world_from_camera is None else np.array(row.world_from_camera)
    true_pose = np.eye(4) if row.world_from_camera is None else scene.world_from_camera[index]
    scale = depth.shape[1] / row.width
    to_depth = np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5], [0, 0, 1]])
    points = world_points(depth, to_depth @ np.array(row.intrinsics), pose)
    true = world_points(scene.depth[index], to_depth @ scene.intrinsics[index], true_pose)
    stretch = np.linalg.norm(world_points(np.ones_like(depth), to_depth @ scene.intrinsics[index], np.eye(4)), axis=-1)
    error = np.linalg.norm(points - true, axis=-1)
    assert (error <= allowed * stretch + 2e-5)[depth > 0].all()


def test_images_only_needs_the_pictures_alone(layout, tmp_path):
    name, expected = layout
    found, _ = scan(name, expected.root, "images_only")
    counts = {scene.name: scene.num_images or len(scene.images) for scene in expected.scenes}
    assert {scene: len(rows) for scene, rows in found.items()} == counts
    for rows in found.values():
        for row in rows:
            known = (row.intrinsics, row.world_from_camera, row.depth, row.depth_mask, row.sky, row.distortion)
            assert known == (None,) * 6
            read_picture(row, expected.root)
    full, _ = scan(name, expected.root, "full")
    frames = {scene: {row.frame: row.image for row in rows} for scene, rows in found.items()}
    assert all(frames[scene][row.frame] == row.image for scene, rows in full.items() for row in rows)
    if name not in LISTED:
        for path in {row.image.path for rows in found.values() for row in rows}:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(expected.root / path, tmp_path / path)
        bare, skipped = scan(name, tmp_path, "images_only")
        assert not skipped
        assert {scene: [row.image for row in rows] for scene, rows in bare.items()} == {
            scene: [row.image for row in rows] for scene, rows in found.items()
        }


def test_the_kind_of_a_path_is_found_out(layout):
    name, expected = layout
    assert find_source(expected.root).dataset == DATASET.get(name, name)


def test_a_group_of_views_is_loaded_from_a_built_manifest(layout):
    _, expected = layout
    manifest, skipped = build_manifest(expected.root)
    assert len(skipped) == expected.num_broken
    assert len(manifest) == sum(len(scene.images) for scene in expected.scenes)
    for scene in expected.scenes:
        frames = manifest.frames(scene.name)[:2] if len(scene.images) else ()
        if frames and scene.distortion is None:
            views = load_group(manifest, ViewGroup(scene.name, frames), ImageFit())
            assert (views.depth is None) == (scene.depth is None)
            assert (views.intrinsics is None) == (scene.intrinsics is None)
            assert (views.world_from_camera is None) == (scene.world_from_camera is None)


def test_depth_of_neighbouring_views_agrees(layout):
    _, expected = layout
    manifest, _ = build_manifest(expected.root)
    for scene in expected.scenes:
        posed = all(known is not None for known in (scene.depth, scene.world_from_camera, scene.intrinsics))
        if posed and scene.distortion is None and len(scene.images) > 2:
            checked = check.check_scene(manifest, scene.name)
            assert checked.mistake is None
            assert checked.share > 0.98


def test_whatever_happens_to_a_file_is_told_in_words(layout):
    """One file of each kind is emptied, cut short or scrambled: what can still be read is, nothing else is raised."""
    name, expected = layout
    kinds = {}
    for path in sorted(path for path in expected.root.rglob("*") if path.is_file()):
        kinds.setdefault((path.parent.name[:4], path.suffix), path)
    generator = np.random.default_rng(len(name))
    for turn, path in enumerate(kinds.values()):
        whole = path.read_bytes()
        noise = generator.integers(0, 256, len(whole), dtype=np.uint8).tobytes()
        broken = (whole[: len(whole) // 2], b"", noise, whole[: len(whole) // 3] + noise[len(whole) // 3 :])[turn % 4]
        path.write_bytes(broken)
        try:
            for rows in scan(name, expected.root, "full")[0].values():
                for row in rows:
                    for reader in (read_picture, read_depth, read_mask, read_sky):
                        with contextlib.suppress(DataError):
                            reader(row, expected.root)
        finally:
            path.write_bytes(whole)


def test_the_page_of_data_sets_says_what_rows_hold(layout):
    name, expected = layout
    spec = datasets.get(DATASET.get(name, name))
    page = (Path(__file__).parents[3] / "docs/datasets.md").read_text(encoding="utf-8")
    found = [row for rows in scan(name, expected.root, "full")[0].values() for row in rows]
    known = []
    for field in ("intrinsics", "world_from_camera", "depth"):
        held = [getattr(row, field) is not None for row in found]
        known.append("yes" if all(held) else "some" if any(held) else "no")
    assert f"| {spec.title} | `{DATASET.get(name, name)}` | {' | '.join(known)} | " in page


@pytest.mark.parametrize("name", sorted({DATASET.get(name, name) for name in LAYOUTS}))
def test_a_set_says_what_it_is_and_finds_nothing_in_other_things(name, tmp_path):
    spec = datasets.get(name)
    assert spec.title
    assert spec.url
    assert spec.licence
    assert spec.sharing
    (tmp_path / "notes.txt").write_text("x")
    assert spec.find(tmp_path) == []
    assert spec.find(tmp_path / "notes.txt") == []
    assert spec.find(tmp_path / "nowhere") == []

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from distill3d.data.manifest import Manifest, ManifestRow, build_manifest
from distill3d.data.overlap import picture_descriptor, scene_overlap
from distill3d.data.policies import POLICIES, PolicyOptions, choose_groups, random_window
from distill3d.data.refs import Ref
from distill3d.data.render.write import render_place
from distill3d.data.sampling import ViewGroup
from distill3d.errors import ConfigError, DataError
from tests.data.pictures import picture, save_picture


def manifest_of(count=40, *, scene="s", seconds=None, ordered=True, root="."):
    rows = [
        ManifestRow(
            dataset="photos",
            scene=scene,
            frame=10 * number,
            image=Ref(f"{number}.png"),
            width=32,
            height=24,
            timestamp=None if seconds is None else number * seconds,
            ordered=ordered,
        )
        for number in range(count)
    ]
    return Manifest.from_rows(rows, root)


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    return build_manifest(render_place(tmp_path_factory.mktemp("w") / "r", size=(56, 70), num_train=24, num_test=0))[0]


def test_dynamic_strides_make_half_a_second_where_there_are_time_stamps():
    groups = choose_groups(manifest_of(seconds=0.1), "dynamic", 4)
    assert {tuple(np.diff(group.frames)) for group in groups} == {(50, 50, 50)}
    assert {frame for group in groups for frame in group.frames} == set(range(0, 400, 10))


def test_dynamic_strides_leave_four_windows_where_there_are_none():
    assert {tuple(np.diff(group.frames)) for group in choose_groups(manifest_of(48), "dynamic", 4)} == {(30, 30, 30)}
    assert {tuple(np.diff(group.frames)) for group in choose_groups(manifest_of(9), "dynamic", 4)} == {(10, 10, 10)}


def test_collections_without_an_order_are_cut_into_random_sets():
    groups = choose_groups(manifest_of(12, ordered=False), "dynamic", 4)
    assert sorted(frame for group in groups for frame in group.frames) == list(range(0, 120, 10))
    assert groups[0].frames != tuple(sorted(groups[0].frames))


def test_uniform_spans_the_scene():
    assert choose_groups(manifest_of(41), "uniform", 5) == [ViewGroup("s", (0, 100, 200, 300, 400))]


@pytest.mark.parametrize("length", [2, 3, 7, 40])
def test_random_windows_fit_whatever_the_length(length):
    frames = tuple(range(length))
    for seed in range(30):
        window = random_window(frames, 4, 6, random.Random(seed))
        assert len(window) == min(4, length)
        assert len(set(np.diff(window))) == 1
        assert 1 <= np.diff(window)[0] <= 6


def test_overlap_from_depth_and_cameras_is_high_for_neighbours(walk):
    scene = walk.scenes()[0]
    overlap = scene_overlap(walk, scene, walk.frames(scene)[:8])
    assert np.array_equal(overlap, overlap.T)
    assert (np.diag(overlap) == 1).all()
    assert ((overlap >= 0) & (overlap <= 1)).all()
    near = np.mean([overlap[at, at + 1] for at in range(7)])
    assert near > np.mean([overlap[at, at + 5] for at in range(3)])


def test_covisible_groups_hang_together(walk):
    scene = walk.scenes()[0]
    frames = walk.frames(scene)
    overlap = scene_overlap(walk, scene, frames)
    groups = choose_groups(walk, "covisible", 4, PolicyOptions(count=6, overlap=0.2, seed=1))
    assert len(groups) == 6
    for group in groups:
        places = [frames.index(frame) for frame in group.frames]
        assert len(set(places)) == 4
        for view in range(1, 4):
            earlier = overlap[places[view], places[:view]].max()
            others = np.delete(overlap[places[:view]].max(axis=0), places[:view])
            assert earlier >= 0.2 or earlier == others.max()


def test_without_depth_the_pictures_tell_what_belongs_together(tmp_path):
    rng = np.random.default_rng(0)
    places = [rng.integers(0, 255, (8, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(2)]
    noise = [rng.normal(0, 8, (64, 64, 3)) for _ in range(6)]
    pictures = [np.clip(places[k // 3] + noise[k], 0, 255).astype(np.uint8) for k in range(6)]
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    manifest, _ = build_manifest(tmp_path)
    overlap = scene_overlap(manifest, tmp_path.name, manifest.frames(tmp_path.name))
    same = [overlap[a, b] for a in range(6) for b in range(6) if a != b and a // 3 == b // 3]
    other = [overlap[a, b] for a in range(3) for b in range(3, 6)]
    assert min(same) > max(other) + 0.1
    for group in choose_groups(manifest, "covisible", 3, PolicyOptions(count=2, overlap=(min(same) + max(other)) / 2)):
        assert len({frame // 3 for frame in group.frames}) == 1


def test_an_even_picture_has_a_descriptor():
    assert np.isfinite(picture_descriptor(np.full((24, 32, 3), 99, np.uint8))).all()
    assert picture_descriptor(picture(24, 32)) @ picture_descriptor(picture(24, 32)) == pytest.approx(1)


def test_the_adaptive_stride_grows_as_less_overlap_is_asked_for(tmp_path):
    """A camera that moves sideways before a wall: a stride of k frames leaves 1 - k / 10 of the picture."""
    rows = []
    np.save(tmp_path / "d.npy", np.full((24, 32), 2.0, np.float32))
    for number in range(60):
        pose = np.eye(4)
        pose[0, 3] = number * 0.1 * 2.0  # a tenth of the width, 2 wide at depth 2 with fx = 32
        save = {"world_from_camera": tuple(map(tuple, pose.tolist())), "depth": Ref("d.npy", "npy")}
        intrinsics = ((32.0, 0.0, 15.5), (0.0, 32.0, 11.5), (0.0, 0.0, 1.0))
        row = manifest_of(1).row("s", 0)
        rows.append(replace(row, frame=number, intrinsics=intrinsics, **save))
    manifest = Manifest.from_rows(rows, tmp_path)
    for wanted, stride in ((0.9, 1), (0.7, 3), (0.4, 6)):
        groups = choose_groups(manifest, "adaptive", 4, PolicyOptions(overlap=wanted))
        assert {tuple(np.diff(group.frames)) for group in groups} == {(stride,) * 3}


def test_explicit_groups_come_from_a_file(tmp_path):
    path = tmp_path / "groups.jsonl"
    path.write_text('{"scene": "s", "frames": [30, 0]}\n\n{"scene": "s", "frames": [10]}\n')
    groups = choose_groups(manifest_of(), "explicit", 8, PolicyOptions(groups_file=path))
    assert groups == [ViewGroup("s", (30, 0)), ViewGroup("s", (10,))]
    for line, words in ((json.dumps({"scene": "s", "frames": [31]}), "has no frame 31"), ("{}", "line 1, is no group")):
        path.write_text(line)
        with pytest.raises(DataError, match=words):
            choose_groups(manifest_of(), "explicit", 8, PolicyOptions(groups_file=path))
    with pytest.raises(DataError, match="needs a file of groups"):
        choose_groups(manifest_of(), "explicit", 8)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name not in ("explicit", "nearby")])
def test_the_seed_alone_decides(policy, tmp_path):
    for number in range(12):
        save_picture(tmp_path / f"{number}.png", seed=number)
    manifest = manifest_of(12, root=tmp_path)
    options = PolicyOptions(count=2, seed=5, stride=2)
    assert choose_groups(manifest, policy, 3, options) == choose_groups(manifest, policy, 3, options)


def test_an_unknown_policy_is_named():
    with pytest.raises(ConfigError, match=r"no policy 'best'\. The policies are: contiguous, strided"):
        choose_groups(manifest_of(), "best", 3)

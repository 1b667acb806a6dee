import json
import logging
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from distill3d.data.datasets.annotated import write_annotated_scene
from distill3d.data.manifest import Manifest, ManifestRow, build_manifest, load_manifest
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import Distortion
from distill3d.data.verify import verify_files
from distill3d.errors import DataError, OutputError
from tests.data.pictures import save_picture


def photo_row(scene="s", frame=0, **known):
    return ManifestRow(
        dataset="photos", scene=scene, frame=frame, image=Ref(f"{scene}/{frame}.png"), width=32, height=24, **known
    )


def photo_scenes(root, **counts):
    for scene, count in counts.items():
        for index in range(count):
            save_picture(root / scene / f"frame_{index + 1}.png", seed=index)
    return root


def test_rows_survive_a_round_trip_exactly(tmp_path):
    rows = [
        photo_row("room", 0),
        photo_row(
            "room",
            7,
            intrinsics=((1.1, 0.0, 2.0), (0.0, 1.2, 3.0), (0.0, 0.0, 1.0)),
            world_from_camera=((1.0, 0, 0, 1 / 3), (0, 1.0, 0, 2), (0, 0, 1.0, 3), (0, 0, 0, 1.0)),
            depth=Ref("room/7.npy", codec("npy", scale=0.001)),
            depth_kind="distance",
            depth_mask=Ref("room/7.mask.png", "mask", offset=512, length=99),
            distortion=Distortion("RADIAL", (0.1, -0.02)),
            timestamp=0.7,
            split="test",
            scale="metric",
            licence="CC0-1.0",
        ),
        replace(photo_row("room", 8), image=Ref("room.mp4", "frame", offset=240, store="video"), ordered=False),
    ]
    Manifest.from_rows(rows, tmp_path).save(tmp_path / "m.parquet")
    loaded = load_manifest(tmp_path / "m.parquet")
    assert list(loaded.rows()) == rows
    assert [loaded.row("room", frame) for frame in (0, 7, 8)] == rows
    assert loaded.root == tmp_path
    assert loaded.splits() == {"": 2, "test": 1}


def test_scenes_and_frames_come_in_true_numeric_order():
    rows = [photo_row(scene, frame) for scene in ("room10", "room2", "room1") for frame in (10, 9, 2)]
    manifest = Manifest.from_rows(rows, ".")
    assert manifest.scenes() == ("room1", "room2", "room10")
    assert manifest.frames("room10") == (2, 9, 10)
    assert len(manifest) == 9


def test_a_split_selects_scenes_and_frames():
    rows = [photo_row("a", 0, split="train"), photo_row("a", 1, split="test"), photo_row("b", 0, split="train")]
    manifest = Manifest.from_rows(rows, ".")
    assert manifest.scenes("test") == ("a",)
    assert manifest.frames("a", "test") == (1,)
    assert manifest.frames("b", "test") == ()


def test_a_frame_listed_twice_is_refused():
    with pytest.raises(DataError, match="Frame 3 of scene s is listed twice"):
        Manifest.from_rows([photo_row(frame=3), photo_row(frame=3)], ".")


def test_unknown_scenes_and_frames_are_named():
    manifest = Manifest.from_rows([photo_row("a", 2), photo_row("a", 4)], ".")
    with pytest.raises(DataError, match="no scene 'x' in the manifest, which has 1: a"):
        manifest.frames("x")
    with pytest.raises(DataError, match="no frame 3; it has 2 from 2 to 4"):
        manifest.row("a", 3)


def test_a_folder_of_photos_becomes_one_scene(tmp_path, caplog):
    caplog.set_level(logging.INFO, "distill3d")
    folder = photo_scenes(tmp_path, garden=12) / "garden"
    manifest, skipped = build_manifest(folder)
    assert skipped == ()
    assert manifest.scenes() == ("garden",)
    assert [row.image.path for row in manifest.rows()] == [f"frame_{number}.png" for number in range(1, 13)]
    assert manifest.splits() == {"train": 12}
    assert f"found 12 photos of 1 scene in {folder}" in caplog.text


def test_one_broken_photo_among_many_is_left_out_and_the_others_keep_their_numbers(tmp_path):
    folder = photo_scenes(tmp_path, garden=5) / "garden"
    (folder / "frame_2.png").write_bytes(b"")
    manifest, skipped = build_manifest(folder)
    assert manifest.frames("garden") == (0, 2, 3, 4)
    assert [(entry.path, "0 bytes" in entry.reason) for entry in skipped] == [("frame_2.png", True)]


def test_verify_finds_photos_that_are_cut_short(tmp_path):
    folder = photo_scenes(tmp_path, garden=3) / "garden"
    data = (folder / "frame_3.png").read_bytes()
    (folder / "frame_3.png").write_bytes(data[:-100])
    assert len(build_manifest(folder)[0]) == 3
    manifest, skipped = build_manifest(folder, verify=True)
    assert manifest.frames("garden") == (0, 1)
    assert "cut short" in skipped[0].reason


def test_a_folder_with_only_broken_photos_lists_the_reasons(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_text("no photo")
    with pytest.raises(DataError, match=r"Found 3 photos of 1 scene .*none can be used(.|\n)*0\.jpg is not a photo"):
        build_manifest(tmp_path)


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, []), (0.1, [4, 14]), (0.25, [1, 5, 9, 13, 17]), (0.5, None)])
def test_the_test_split_is_spread_evenly(tmp_path, fraction, expected):
    folder = photo_scenes(tmp_path, garden=20) / "garden"
    manifest, _ = build_manifest(folder, test_fraction=fraction)
    assert manifest.frames("garden", "test") == tuple(range(0, 20, 2) if expected is None else expected)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_an_impossible_test_fraction_is_refused(tmp_path, fraction):
    with pytest.raises(DataError, match="expected at least 0 and below 1"):
        build_manifest(tmp_path, test_fraction=fraction)


def test_a_source_that_states_its_split_keeps_it(tmp_path):
    write_annotated_scene(tmp_path / "room", torch.rand(4, 3, 6, 8), split=["train", "test", "", "val"])
    manifest, _ = build_manifest(tmp_path, test_fraction=0.5)
    assert [row.split for row in manifest.rows()] == ["train", "test", "train", "val"]


def test_building_twice_gives_the_same_bytes(tmp_path):
    photo_scenes(tmp_path / "data", kitchen=3, yard=2)
    for name in "ab":
        build_manifest(tmp_path / "data", test_fraction=0.3)[0].save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_manifest_moves_with_its_photos(tmp_path):
    photo_scenes(tmp_path / "here/data", kitchen=2)
    build_manifest(tmp_path / "here/data")[0].save(tmp_path / "here/m.parquet")
    shutil.move(tmp_path / "here", tmp_path / "there")
    manifest = load_manifest(tmp_path / "there/m.parquet")
    assert manifest.root == tmp_path / "there/data"
    assert manifest.path(manifest.row("kitchen", 0).image.path).is_file()


def test_a_manifest_within_its_photos_moves_too(tmp_path):
    photo_scenes(tmp_path / "data", kitchen=2)
    build_manifest(tmp_path / "data")[0].save(tmp_path / "data/lists/m.parquet")
    shutil.move(tmp_path / "data", tmp_path / "moved")
    assert load_manifest(tmp_path / "moved/lists/m.parquet").root == tmp_path / "moved"


def test_a_manifest_far_from_its_photos_takes_another_root(tmp_path):
    photo_scenes(tmp_path / "data", kitchen=2)
    path = build_manifest(tmp_path / "data")[0].save(tmp_path / "lists/m.parquet")
    assert load_manifest(path).root == tmp_path / "data"
    assert load_manifest(path, root=tmp_path / "copy").root == tmp_path / "copy"


def rewrite(path, header=None, drop=()):
    table = pq.read_table(path).drop_columns(list(drop))
    metadata = {} if header is None else {b"distill3d.manifest": json.dumps(header).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize(
    ("header", "drop", "words"),
    [
        ({"format": 1, "root": "."}, (), "manifest format 1; this distill3d knows format 2"),
        (None, (), "no manifest of distill3d"),
        ({"format": 2, "root": ".", "digest": ""}, ("split",), r"lacks the columns \['split'\]"),
    ],
)
def test_a_manifest_of_another_make_is_refused_with_words(tmp_path, header, drop, words):
    path = Manifest.from_rows([photo_row()], tmp_path).save(tmp_path / "m.parquet")
    rewrite(path, header, drop)
    with pytest.raises(DataError, match=words):
        load_manifest(path)


def test_a_missing_or_damaged_manifest_says_so(tmp_path):
    with pytest.raises(DataError, match=r"There is no manifest at .*distill3d manifest build"):
        load_manifest(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="is no manifest"):
        load_manifest(tmp_path / "text.parquet")


def test_a_manifest_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        Manifest.from_rows([photo_row()], tmp_path).save(tmp_path / "file/m.parquet")


def test_checking_finds_what_is_missing_damaged_or_changed(tmp_path):
    write_annotated_scene(tmp_path / "room", torch.rand(5, 3, 6, 8), depth=torch.ones(5, 6, 8))
    manifest, _ = build_manifest(tmp_path)
    assert verify_files(manifest) == ()
    images = tmp_path / "room/images"
    (images / "000000.png").unlink()
    (images / "000001.png").write_bytes((images / "000001.png").read_bytes()[:-60])
    save_picture(images / "000002.png", 9, 9)
    (tmp_path / "room/depth/000003.npy").write_bytes(b"x")
    found = verify_files(manifest)
    assert [entry.path[-10:] for entry in found] == ["000000.png", "000001.png", "000002.png", "000003.png"]
    for entry, words in zip(found, ["not exist", "cut short", "the manifest says 8x6", "depth map"], strict=True):
        assert words in entry.reason


def test_the_summary_counts_what_is_known(tmp_path):
    write_annotated_scene(tmp_path / "a", torch.rand(2, 3, 6, 8), depth=torch.ones(2, 6, 8), licence="CC0-1.0")
    summary = build_manifest(tmp_path)[0].summary()
    assert summary["frames"] == summary["with_depth"] == 2
    assert summary["scenes"] == 1
    assert summary["with_poses"] == summary["from_video"] == 0
    assert summary["licences"] == ["CC0-1.0"]
    assert json.dumps(summary)


def test_a_manifest_of_many_frames_is_small(tmp_path):
    rows = [photo_row(f"scene{index % 10}", index, split="train") for index in range(5000)]
    path = Manifest.from_rows(rows, tmp_path).save(tmp_path / "m.parquet")
    assert path.stat().st_size < 60 * 5000
    assert isinstance(load_manifest(path).table, pa.Table)


def test_a_large_manifest_is_mapped_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("distill3d.data.table.MAPPED_FROM", 10)
    rows = [photo_row(f"s{index % 3}", index, timestamp=index / 3) for index in range(30)]
    path = Manifest.from_rows(rows, tmp_path).save(tmp_path / "m.parquet")
    assert (tmp_path / "m.arrow").is_file()
    before = pa.total_allocated_bytes()
    loaded = load_manifest(path)
    assert pa.total_allocated_bytes() - before < 10_000
    assert sorted(loaded.rows(), key=lambda row: row.frame) == rows
    assert loaded.group("s1", [7, 1, 28]) == [rows[7], rows[1], rows[28]]
    other = Manifest.from_rows(rows[:12], tmp_path).save(tmp_path / "other.parquet")
    shutil.copy(tmp_path / "m.arrow", tmp_path / "other.arrow")  # of another manifest: not believed, made again
    assert len(load_manifest(other)) == 12
    assert len(load_manifest(other).table.to_batches()) == 1


def test_a_place_that_takes_no_files_costs_memory_only(tmp_path, monkeypatch, caplog):
    path = Manifest.from_rows([photo_row(frame=index) for index in range(20)], tmp_path).save(tmp_path / "m.parquet")
    monkeypatch.setattr("distill3d.data.table.MAPPED_FROM", 10)

    def refuse(*_, **__):
        raise OutputError("read-only")

    monkeypatch.setattr("distill3d.data.mapped.atomic_writer", refuse)
    assert len(load_manifest(path)) == 20
    assert "hold the manifest in memory" in caplog.text


def test_a_scene_that_spans_two_batches_is_read_whole(tmp_path):
    whole = Manifest.from_rows([photo_row("a", index) for index in range(10)], tmp_path)
    cut = replace(whole, table=pa.concat_tables([whole.table.slice(0, 4), whole.table.slice(4)]))
    assert len(cut.table.to_batches()) == 2
    assert cut.group("a", [8, 2, 5]) == whole.group("a", [8, 2, 5])
    assert [cut.row("a", frame) for frame in range(10)] == list(whole.rows())


def test_the_table_of_scenes_is_made_anew_where_it_is_missing_or_of_another_manifest(tmp_path):
    rows = [photo_row(scene, frame, split="train") for scene in ("a", "b") for frame in range(3)]
    path = Manifest.from_rows(rows, tmp_path).save(tmp_path / "m.parquet")
    scenes = tmp_path / "m.scenes.parquet"
    assert pq.read_table(scenes)["frames"].to_pylist() == [3, 3]
    for damage in (scenes.unlink, lambda: scenes.write_bytes(b"x")):
        damage()
        loaded = load_manifest(path)
        assert loaded.scenes("train") == ("a", "b")
        assert loaded.known_scenes is None
    other = Manifest.from_rows(rows[:3], tmp_path).save(tmp_path / "n.parquet")
    shutil.copy(tmp_path / "n.scenes.parquet", scenes)
    assert load_manifest(path).scenes() == ("a", "b")
    assert load_manifest(other).known_scenes is not None

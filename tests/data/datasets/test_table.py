import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill3d.data.frames import read_depth
from distill3d.data.manifest import build_manifest
from distill3d.data.sources import find_source
from distill3d.errors import DataError
from tests.data.pictures import save_picture

POSE = [1.0, 0, 0, 5, 0, 1, 0, 6, 0, 0, 1, 7]


def lines(folder):
    found = []
    for number in range(3):
        save_picture(folder / f"p/{number}.png", seed=number)
        np.save(folder / f"p/{number}.npy", np.full((24, 32), 2.0, np.float32))
        found.append(
            {
                "image": f"p/{number}.png",
                "scene": "hall",
                "timestamp": number / 10,
                "fx": 30.0,
                "fy": 31.0,
                "cx": 15.5,
                "cy": 11.5,
                "world_from_camera": POSE,
                "depth": f"p/{number}.npy",
                "depth_scale": 0.5,
                "scale": "metric",
            }
        )
    return found


def write(folder, kind):
    rows = lines(folder)
    path = folder / f"frames.{kind}"
    if kind == "csv":
        text = [",".join(rows[0])]
        text += [
            ",".join(" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in row.values()) for row in rows
        ]
        path.write_text("\n".join(text))
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_kind_of_table_gives_the_same_rows(tmp_path, kind):
    path = write(tmp_path, kind)
    for place in (path, tmp_path):
        source = find_source(place)
        assert (source.dataset, source.root) == ("table", tmp_path)
        rows = list(source.scan())
        assert [(row.scene, row.frame, row.timestamp, row.scale) for row in rows] == [
            ("hall", number, number / 10, "metric") for number in range(3)
        ]
        assert rows[0].intrinsics == ((30.0, 0.0, 15.5), (0.0, 31.0, 11.5), (0.0, 0.0, 1.0))
        assert [line[3] for line in rows[0].world_from_camera] == [5, 6, 7, 1]
        assert (read_depth(rows[2], tmp_path) == 1).all()


def test_a_picture_alone_is_enough(tmp_path):
    save_picture(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("image\na.png\nmissing.png\n")
    skipped = []
    (row,) = find_source(tmp_path / "list.csv").scan(on_skip=skipped.append)
    assert (row.scene, row.frame, row.width, row.height) == (tmp_path.name, 0, 32, 24)
    assert skipped[0].path == "missing.png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("picture\na.png\n", r"expected `image` and any of .* leave out \['picture'\]"),
        ("image,fx\na.png,1,2\n", "cannot be read as a table"),
    ],
)
def test_a_table_that_nobody_can_read_says_why(tmp_path, text, words):
    (tmp_path / "frames.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        list(find_source(tmp_path).scan())


def test_a_manifest_is_no_table_to_make_one_from(tmp_path):
    save_picture(tmp_path / "p/a.png")
    path = build_manifest(tmp_path / "p")[0].save(tmp_path / "m.parquet")
    with pytest.raises(DataError, match="neither a photo nor a video nor a table of frames"):
        find_source(path)


def test_lines_that_contradict_themselves_are_skipped_with_a_reason(tmp_path):
    save_picture(tmp_path / "a.png")
    (tmp_path / "frames.csv").write_text(
        "image,fx,world_from_camera,scale\na.png,3,,\na.png,,1 2 3,\na.png,,,inches\na.png,,,metric\n"
    )
    skipped = []
    assert len(list(find_source(tmp_path).scan(on_skip=skipped.append))) == 1
    for entry, words in zip(skipped, ["expected all of fx", "has 3 numbers", "scale is 'inches'"], strict=True):
        assert words in entry.reason

import errno
import os
from pathlib import Path

import pytest

from distill3d import files
from distill3d.errors import OutputError
from distill3d.files import (
    atomic_write_bytes,
    atomic_writer,
    ensure_output_dir,
    output_errors,
    read_json,
    write_json,
)


def test_json_survives_a_round_trip_and_leaves_only_the_file(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"
    write_json(path, {"b": [1, 2.5, None], "a": "ü"})
    assert read_json(path) == {"b": [1, 2.5, None], "a": "ü"}
    assert [child.name for child in path.parent.iterdir()] == ["a.json"]


def test_equal_content_gives_equal_bytes(tmp_path):
    write_json(tmp_path / "a", {"x": 1, "y": 2})
    write_json(tmp_path / "b", {"y": 2, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_fails_changes_nothing_and_leaves_nothing(tmp_path, error):
    path = tmp_path / "data.bin"
    atomic_write_bytes(path, b"old")

    def stop_halfway():
        with atomic_writer(path) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(error):
        stop_halfway()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert read_json(tmp_path / "a.json") == 1


def test_text_is_utf8(tmp_path):
    with atomic_writer(tmp_path / "t.txt", "w") as file:
        file.write("π\n")
    assert (tmp_path / "t.txt").read_bytes() == "π\n".encode()


def test_a_full_disk_says_what_is_needed_and_what_is_free(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"disk is full \(about 3 MB needed, .* MB free\).*choose another --out"):
        atomic_write_bytes(tmp_path / "big.bin", bytes(3_000_000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_really_full_is_recognised():
    with pytest.raises(OutputError, match="disk is full"), output_errors("/dev/full"):
        Path("/dev/full").write_bytes(b"x")


def test_a_path_through_a_file_is_explained(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        atomic_write_bytes(tmp_path / "file" / "below.bin", b"x")
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        ensure_output_dir(tmp_path / "file")


def test_a_folder_in_the_way_of_a_file_is_explained(tmp_path):
    (tmp_path / "name").mkdir()
    with pytest.raises(OutputError, match="this is a folder"):
        atomic_write_bytes(tmp_path / "name", b"x")
    assert [child.name for child in tmp_path.iterdir()] == ["name"]


def test_permission_errors_are_explained(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match=r"permission denied.*another place"):
        atomic_write_bytes(tmp_path / "a.bin", b"x")


def test_an_error_about_another_file_passes_through(tmp_path):
    with pytest.raises(PermissionError), atomic_writer(tmp_path / "out" / "a.bin"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "elsewhere" / "input.jpg"))
    with pytest.raises(FileNotFoundError), atomic_writer(tmp_path / "out" / "a.bin"):
        (tmp_path / "none").open()


def test_a_long_name_is_written_or_explained(tmp_path):
    atomic_write_bytes(tmp_path / ("n" * 250), b"x")
    assert (tmp_path / ("n" * 250)).read_bytes() == b"x"
    with pytest.raises(OutputError, match="name is too long"):
        atomic_write_bytes(tmp_path / ("n" * 300), b"x")


def test_damaged_json_names_the_file(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_an_output_folder_is_made_and_must_be_empty(tmp_path):
    folder = ensure_output_dir(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert ensure_output_dir(str(folder)) == folder
    assert list(folder.iterdir()) == []
    (folder / "old.txt").write_text("kept")
    with pytest.raises(OutputError, match=r"already holds 1 files or folders \(old.txt\).*--resume"):
        ensure_output_dir(folder)
    for option in ({"overwrite": True}, {"resume": True}):
        assert ensure_output_dir(folder, **option) == folder
    assert (folder / "old.txt").read_text() == "kept"


def test_a_folder_that_takes_no_files_is_found_out_at_once(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputError, match="read-only"):
        ensure_output_dir(tmp_path)


def test_sizes_are_written_in_words():
    assert [files.megabytes(count) for count in (0, 12_345, 5_200_000_000)] == ["0 MB", "0.0123 MB", "5200 MB"]

"""The npz layout of the reference pipeline, in and out, and pickles that are never run."""

import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.cache import CacheHeader, CacheReader
from distill3d.cache.inert import read_pickled_lists
from distill3d.cache.npz import export_npz, import_npz, mask_of, read_npz_sample, runs_of
from distill3d.errors import CacheError

from .samples import write


@pytest.fixture
def recorded(tmp_path, fixtures):
    """The recorded sample of the reference with photos made for it, of another size."""
    folder = tmp_path / "npz" / "sample_0"
    shutil.copytree(fixtures / "distill3r_cache_sample", folder)
    rng = np.random.default_rng(0)
    for view in range(3):
        path = tmp_path / "npz" / "images" / f"view_{view}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (28, 56, 3), dtype=np.uint8)).save(path)
    return tmp_path / "npz"


def test_the_recorded_sample_comes_in_bit_for_bit(recorded, tmp_path):
    done = import_npz(recorded, tmp_path / "c", images=recorded, header=CacheHeader(teacher="fast3r"))
    assert (done.num_samples, done.failures) == (1, ())
    reader = CacheReader(tmp_path / "c")
    assert reader.keys() == ("Toy/Toy_scene/0",)
    assert reader.info("Toy/Toy_scene/0")["sampled_indices"] == [0, 1, 2]
    sample = reader[0]
    assert sample.views.images.shape == (1, 3, 3, 14, 28)
    arrays = np.load(recorded / "sample_0" / "consolidated.npz")
    found = sample.prediction
    assert np.array_equal(found.pointmap_camera[0].half().numpy(), arrays["xyz_local"], equal_nan=True)
    assert np.array_equal(found.confidence_camera[0].half().numpy(), arrays["conf_local"])
    assert np.array_equal(found.confidence_world[0].half().numpy(), arrays["conf_global"])
    # The reference zeroes what its masks leave out.
    assert np.array_equal(sample.valid[0].numpy(), arrays["conf_global"] > 0)
    world = torch.from_numpy(arrays["xyz_global"].astype(np.float32))
    assert torch.allclose(found.pointmap_world[0][sample.valid[0]], world[sample.valid[0]], rtol=2**-9, atol=2**-10)


def test_the_masks_are_those_that_numpy_would_have_read_by_running_them(recorded):
    arrays = np.load(recorded / "sample_0" / "consolidated.npz", allow_pickle=True)  # our own recording
    views, prediction = read_npz_sample(recorded / "sample_0", recorded)
    expected = np.stack([mask_of(list(runs), (14, 28)) for runs in arrays["masks"]])
    assert np.array_equal(prediction.valid[0].numpy(), expected)
    assert views.images.shape == (1, 3, 3, 14, 28)


class Trap:
    """Makes a file when a pickle of it is run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_is_refused_and_nothing_is_run(recorded, tmp_path, protocol):
    trap = tmp_path / "sprung"
    masks = np.empty(3, dtype=object)
    masks[:] = [[0, 4], Trap(str(trap)), [0, 4]]
    path = recorded / "sample_0" / "consolidated.npz"
    with zipfile.ZipFile(path) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"shape": (3,), "fortran_order": False, "descr": "|O"})
    arrays["masks.npy"] = head.getvalue() + pickle.dumps(masks, protocol=protocol)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in arrays.items():
            archive.writestr(name, data)
    with pytest.raises(CacheError, match=r"not one of 1 samples could be read.*without running them"):
        import_npz(recorded, tmp_path / "c", images=recorded)
    assert not trap.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_lists_of_any_protocol_are_read(protocol):
    masks = np.empty(2, dtype=object)
    masks[:] = [[0, 3, 70_000, 5], []]
    assert read_pickled_lists(pickle.dumps(masks, protocol=protocol)) == [[0, 3, 70_000, 5], []]


@pytest.mark.parametrize("data", [b"", b"\x80\x04.", pickle.dumps({"a": 1}), pickle.dumps([1]), b"\x80\x04K\x01"])
def test_what_is_no_array_of_lists_is_refused(data):
    with pytest.raises(CacheError, match="pickled masks"):
        read_pickled_lists(data)


def test_runs_tell_a_mask():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.5, 1.0):
        mask = rng.random((5, 7)) < share
        assert np.array_equal(mask_of(runs_of(mask), (5, 7)), mask)
    for runs in ([0], [30, 9], [-1, 2], ["a", 1], [0, 1.5]):
        with pytest.raises(CacheError, match="do not fit"):
            mask_of(runs, (5, 7))


def test_what_goes_out_comes_in_again(tmp_path):
    write(tmp_path / "c", range(2))
    reader = CacheReader(tmp_path / "c")
    assert export_npz(reader, tmp_path / "npz").num_samples == 2
    assert export_npz(reader, tmp_path / "npz", resume=True).num_existing == 2
    import_npz(tmp_path / "npz", tmp_path / "again", images=tmp_path / "npz")
    again = CacheReader(tmp_path / "again")
    assert again.keys() == ("distill3d/scene/0/0", "distill3d/scene/1/1")
    for first, second in zip(reader, again, strict=True):
        assert torch.equal(first.views.images, second.views.images)
        assert torch.equal(first.valid, second.valid)
        assert first.prediction.pointmap_world is not None
        for name in ("pointmap_camera", "confidence_camera", "confidence_world"):
            own, other = (getattr(sample.prediction, name)[sample.valid] for sample in (first, second))
            assert torch.equal(own, other), name


def test_a_broken_sample_among_good_ones_is_skipped_and_listed(recorded, tmp_path):
    for name, spoil in (("bad_zip", b"PK nonsense"), ("bad_json", None), ("no_photo", None)):
        shutil.copytree(recorded / "sample_0", recorded / name)
        about = json.loads((recorded / name / "sampled_views.json").read_text())
        about["sample_id"] = name
        if name == "no_photo":
            about["sampled_image_paths"][1] = "images/lost.png"
        text = "{" if name == "bad_json" else json.dumps(about)
        (recorded / name / "sampled_views.json").write_text(text)
        if spoil:
            (recorded / name / "consolidated.npz").write_bytes(spoil)
    done = import_npz(recorded, tmp_path / "c", images=recorded)
    assert done.num_samples == 1
    assert {key for key, _ in done.failures} == {"Toy/Toy_scene/bad_zip", "bad_json", "Toy/Toy_scene/no_photo"}
    assert len(CacheReader(tmp_path / "c").failures()) == 3
    with pytest.raises(CacheError, match=r"has no consolidated\.npz"):
        import_npz(tmp_path / "c", tmp_path / "d", images=tmp_path)

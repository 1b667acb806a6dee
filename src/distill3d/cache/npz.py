"""The npz layout of the Distill3R reference pipeline, read (without running what is pickled in it) and written.

A sample is a folder with `consolidated.npz` and `sampled_views.json`. The arrays: `xyz_local`, `xyz_global` (views,
height, width, 3) and `conf_local`, `conf_global` (views, height, width), float16, NaN and 0 where the teacher was
masked; `masks`, a pickled array with a list of runs for each view (start, length, start, length, ... of the pixels that
are kept, in raster order); `num_views`. The photos stay where `sampled_image_paths` says, of any size.
"""

import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill3d.cache.blob import Array
from distill3d.cache.format import CacheHeader, sample_folder
from distill3d.cache.inert import read_pickled_lists
from distill3d.cache.reader import CachedSample, CacheReader
from distill3d.cache.record import pack_image
from distill3d.cache.writer import CacheWriter
from distill3d.data.decode import read_photo, to_unit_range
from distill3d.errors import CacheError, DataError
from distill3d.files import atomic_write_bytes, ensure_output_dir, write_json
from distill3d.types import Prediction, Views

logger = logging.getLogger(__name__)
ARRAYS_NAME, VIEWS_NAME = "consolidated.npz", "sampled_views.json"


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What a conversion did."""

    path: Path
    num_samples: int
    num_existing: int
    failures: tuple[tuple[str, str], ...]
    """Sample and reason."""


def find_npz_samples(root: Path) -> list[Path]:
    """The folders of all samples below a folder.

    Raises:
        CacheError: there are none.
    """
    found = sorted(path.parent for path in root.rglob(ARRAYS_NAME))
    if not found:
        raise CacheError(f"{root} has no {ARRAYS_NAME} in it or below; give the folder of a cache in the npz layout")
    return found


def import_npz(
    root: Path,
    out: Path,
    *,
    images: Path,
    codec: str = "exact",
    header: CacheHeader | None = None,
    resume: bool = False,
    advance: Callable[[int], object] = lambda samples: None,
) -> Converted:
    """Make a cache of ours from one in the npz layout. A sample that cannot be read is skipped and listed.

    Args:
        root: of the npz samples.
        out: folder of the new cache.
        images: folder that the photos' paths are relative to. Photos are resized to the maps, as the reference does.
        codec: of the new cache; `exact` keeps every bit of the local map.
        header: teacher, weights and licence, which the npz layout does not tell.
        resume: the new cache may have been begun.
        advance: told the number of samples that are done, as they are.

    Raises:
        CacheError: no samples there, or not one of them could be read.
        OutputError: the new cache cannot be written.
    """
    folders = find_npz_samples(root)
    failures: list[tuple[str, str]] = []
    existing = written = 0
    with CacheWriter(out, codec=codec, header=header, resume=resume) as writer:
        for folder in folders:
            key = folder.relative_to(root).as_posix()
            try:
                about = _read_about(folder)
                key = _key(about, key)
                if writer.has(key):
                    existing += 1
                    continue
                views, prediction = read_npz_sample(folder, images, about)
                writer.add(key, views, prediction, info=about)
                written += 1
            except (CacheError, DataError) as error:
                failures.append((key, str(error)))
                writer.skip(key, str(error))
                logger.info("left out %s: %s", key, error)
            finally:
                advance(1)
    if not written and not existing:
        raise CacheError(f"not one of {len(folders)} samples could be read; the first: {failures[0][1]}")
    return Converted(path=out, num_samples=written, num_existing=existing, failures=tuple(failures))


def read_npz_sample(folder: Path, images: Path, about: dict[str, Any] | None = None) -> tuple[Views, Prediction]:
    """One sample in the npz layout.

    Raises:
        CacheError: its files are missing, damaged or contradict each other.
        DataError: a photo cannot be read.
    """
    arrays = _read_arrays(folder / ARRAYS_NAME)
    shape = arrays["conf_local"].shape
    num_views, height, width = shape
    paths = (about or _read_about(folder))["sampled_image_paths"]
    if len(paths) != num_views:
        raise CacheError(f"{folder}: {len(paths)} photos for the maps of {num_views} views")
    photos = [to_unit_range(read_photo(images / path, (height, width))) for path in paths]
    tensors = {
        name: torch.from_numpy(array.astype(np.float32))[None] for name, array in arrays.items() if name != "valid"
    }
    valid = torch.from_numpy(arrays["valid"])[None]
    prediction = Prediction(
        pointmap_camera=tensors["xyz_local"],
        pointmap_world=tensors["xyz_global"],
        confidence_camera=tensors["conf_local"],
        confidence_world=tensors["conf_global"],
        valid=valid,
    )
    return Views(images=torch.stack(photos)[None]), prediction


def export_npz(
    reader: CacheReader, out: Path, *, resume: bool = False, advance: Callable[[int], object] = lambda samples: None
) -> Converted:
    """Write a cache in the npz layout, with its photos as PNG under `images/`.

    Raises:
        CacheError: a sample lacks a local or a world map, or is damaged.
        OutputError: the folder holds something already, or cannot be written to.
    """
    ensure_output_dir(out, resume=resume)
    existing = 0
    for number, key in enumerate(reader.keys()):
        folder = out / sample_folder(key)
        if (folder / VIEWS_NAME).exists():  # written last
            existing += 1
        else:
            _export(reader.load(key), folder, out, number, len(reader))
        advance(1)
    return Converted(path=out, num_samples=len(reader) - existing, num_existing=existing, failures=())


def _export(sample: CachedSample, folder: Path, out: Path, number: int, total: int) -> None:
    prediction = sample.prediction
    local, world = prediction.pointmap_camera, prediction.pointmap_world
    if local is None or world is None:
        raise CacheError(
            f"sample {sample.key} has no {'local' if local is None else 'world'} map; the layout needs both"
        )
    valid = sample.valid[0]
    maps = {"xyz_local": local, "xyz_global": world}
    maps["conf_local"] = (
        torch.ones_like(local[..., 0]) if prediction.confidence_camera is None else prediction.confidence_camera
    )
    maps["conf_global"] = maps["conf_local"] if prediction.confidence_world is None else prediction.confidence_world
    arrays: dict[str, Any] = {}
    for name, value in maps.items():
        kept = value[0].clone()
        kept[~valid] = torch.nan if name.startswith("xyz") else 0
        arrays[name] = kept.half().numpy()
    masks = np.empty(len(valid), dtype=object)
    for view, mask in enumerate(valid.numpy()):
        masks[view] = runs_of(mask)
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays, masks=masks, num_views=np.int64(len(valid)))
    atomic_write_bytes(folder / ARRAYS_NAME, buffer.getvalue())
    paths = [f"images/{folder.name}/view_{view:03d}.png" for view in range(len(valid))]
    for path, image in zip(paths, sample.views.images[0], strict=True):
        atomic_write_bytes(out / path, pack_image(image))
    count = {"original_count": len(paths), "sampled_count": len(paths), "sampled_indices": list(range(len(paths)))}
    about = {"dataset": "distill3d", "scene_id": sample.key, "sample_id": number, "total_samples": total}
    write_json(folder / VIEWS_NAME, {**about, **count, "sampled_image_paths": paths})


def runs_of(mask: Array) -> list[int]:
    """Start and length of every run of true pixels in raster order, one after another."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.reshape(-1).astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    return [int(value) for value in np.stack([starts, ends - starts], axis=1).reshape(-1)]


def mask_of(runs: Sequence[Any], shape: tuple[int, int]) -> Array:
    """The mask that `runs_of` told.

    Raises:
        CacheError: runs that do not fit the shape.
    """
    mask = np.zeros(shape[0] * shape[1], dtype=bool)
    numbers = all(type(value) is int and value >= 0 for value in runs)
    if not numbers or len(runs) % 2 or any(a + n > mask.size for a, n in zip(runs[::2], runs[1::2], strict=True)):
        raise CacheError(f"a mask's runs do not fit into {shape[0]} x {shape[1]} pixels")
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        mask[start : start + length] = True
    return mask.reshape(shape)


def _read_arrays(path: Path) -> dict[str, Array]:
    """The maps, and `valid` from the masks."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        arrays = {
            name: np.load(BytesIO(members[name]), allow_pickle=False)
            for name in ("xyz_local", "xyz_global", "conf_local", "conf_global")
        }
        masks = members["masks"]
    except KeyError as error:
        raise CacheError(f"{path} has no array {error}; it is not in the npz layout of the reference") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CacheError(f"cannot read {path} ({error}); the file is damaged") from error
    shape = arrays["conf_local"].shape
    expected = {"xyz_local": (*shape, 3), "xyz_global": (*shape, 3), "conf_local": shape, "conf_global": shape}
    for name, array in arrays.items():
        if array.shape != expected[name] or len(shape) != 3:
            raise CacheError(f"{path}: {name} has shape {array.shape}, expected {expected[name]}")
    runs = _read_runs(masks, path)
    if len(runs) != shape[0]:
        raise CacheError(f"{path}: masks of {len(runs)} views for maps of {shape[0]}")
    return {**arrays, "valid": np.stack([mask_of(run, (shape[1], shape[2])) for run in runs])}


def _read_runs(data: bytes, path: Path) -> list[Any]:
    file = BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, kind = read_header(file)
    except ValueError as error:
        raise CacheError(f"{path}: the masks cannot be read ({error})") from error
    if kind != np.dtype(object):
        raise CacheError(f"{path}: masks of type {kind}, expected lists of runs")
    return read_pickled_lists(file.read())


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / VIEWS_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CacheError(f"cannot read {path} ({error}); it names the photos of the sample") from error
    if not isinstance(found, dict) or not isinstance(found.get("sampled_image_paths"), list):
        raise CacheError(f"{path} does not list the photos (sampled_image_paths)")
    return found


def _key(about: dict[str, Any], folder: str) -> str:
    parts = [about.get(name) for name in ("dataset", "scene_id", "sample_id")]
    return folder if None in parts else "/".join(map(str, parts))

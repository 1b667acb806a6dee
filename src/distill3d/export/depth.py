"""Depth maps as files: 16-bit PNG for eyes and other tools, npz with everything in float32."""

import io
import re
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Float, UInt16
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from distill3d.errors import OutputError
from distill3d.files import atomic_write_bytes, write_json
from distill3d.types import Reconstruction

MAX_COUNT = 65535


def view_stem(index: int, name: str) -> str:
    """Name the files of a view: its number, which keeps them unique and in order, and the plain part of its name."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePath(name.replace("\\", "/")).stem).strip("._")[:60]
    return f"{index:04d}_{plain}" if plain else f"{index:04d}"


def depth_scale(depth: Float[np.ndarray, "*batch height width"], *, is_metric: bool) -> float:
    """Choose how many scene units one count of a 16-bit PNG means; one scale serves all maps of `depth`.

    Metric depth within 65 m gets millimetres, as other tools expect; anything else uses the full range.
    """
    usable = depth[np.isfinite(depth) & (depth > 0)]
    largest = float(usable.max()) if usable.size else 1.0
    if is_metric and largest <= MAX_COUNT * 0.001:
        return 0.001
    return largest / MAX_COUNT


def quantize_depth(depth: Float[np.ndarray, "height width"], scale: float) -> UInt16[np.ndarray, "height width"]:
    """Round depth to counts; 0 stays for unknown, so a known depth is never rounded below 1."""
    known = np.isfinite(depth) & (depth > 0)
    counts = np.clip(np.round(np.where(known, depth, 0) / scale), 1, MAX_COUNT)
    return np.where(known, counts, 0).astype(np.uint16)


def encode_depth_png(depth: Float[np.ndarray, "height width"], scale: float) -> bytes:
    """Give the bytes of a 16-bit grey PNG; its text entries say scale and convention."""
    text = PngInfo()
    text.add_text("Title", "distill3d depth")
    text.add_text("depth_scale", repr(scale))
    text.add_text("Description", "planar z-depth = value * depth_scale, in scene units; 0 = unknown")
    stream = io.BytesIO()
    Image.fromarray(quantize_depth(depth, scale)).save(stream, format="PNG", pnginfo=text)
    return stream.getvalue()


def write_depth(folder: Path, reconstruction: Reconstruction, *, png: bool = True, npz: bool = True) -> dict[str, Path]:
    """Write `<view>.png`, `<view>.npz` and, for the PNGs, `depth.json` with the scale that they share.

    An npz holds `depth` and `confidence` [height width], `keep`, `intrinsics` [3 3] in pixels of the map and
    `world_from_camera` [4 4]: plain arrays, nothing pickled.

    Raises:
        OutputError: the reconstruction has no depth, or there is no room for the files.
    """
    prediction = reconstruction.prediction
    if prediction.depth is None:
        raise OutputError("the reconstruction has no depth; expected one from infer.reconstruct")
    depth = prediction.depth[0].detach().float().cpu().numpy()
    metric = reconstruction.views.is_metric
    scale = depth_scale(depth, is_metric=metric is not None and bool(metric[0]))
    arrays = {
        "confidence": prediction.confidence_depth
        if prediction.confidence_world is None
        else prediction.confidence_world,
        "keep": reconstruction.keep,
        "intrinsics": prediction.intrinsics,
        "world_from_camera": prediction.world_from_camera,
    }
    files: dict[str, Path] = {}
    for index, name in enumerate(reconstruction.names):
        stem = view_stem(index, name)
        if png:
            files[f"depth_png/{stem}"] = folder / f"{stem}.png"
            atomic_write_bytes(folder / f"{stem}.png", encode_depth_png(depth[index], scale))
        if npz:
            record = {"depth": depth[index]}
            for key, value in arrays.items():
                if value is not None:
                    view = value[0, index].detach().cpu()
                    record[key] = (view.float() if view.is_floating_point() else view).numpy()
            stream = io.BytesIO()
            np.savez_compressed(stream, **record)
            files[f"depth_npz/{stem}"] = folder / f"{stem}.npz"
            atomic_write_bytes(folder / f"{stem}.npz", stream.getvalue())
    if png:
        files["depth_scale"] = folder / "depth.json"
        write_json(
            folder / "depth.json",
            {
                "format": 1,
                "depth_scale": scale,
                "convention": "planar z-depth = PNG value * depth_scale, in scene units; 0 = unknown",
                "is_metric": None if metric is None else bool(metric[0]),
                "views": [
                    {"name": name, "file": f"{view_stem(index, name)}.png"}
                    for index, name in enumerate(reconstruction.names)
                ],
            },
        )
    return files

"""What else might make a cached view smaller? Predictors and entropy coders on the same planes of whole numbers.

Run with `OMP_NUM_THREADS=1 python benchmarks/cache_planes.py` (needs pcodec and blosc2 for their columns). Prints
kilobytes for the distance plane of a 224 x 518 view of a room (mean over views) and the processor time of packing it.
Besides the predictors of the cache: `interpolate`, the mean of two neighbours, in rows and then in columns; `directed`,
the mean of two opposite neighbours in the direction of least change, or of all four; and `other view`, where a pixel
that the view before sees too is predicted by that view's depth, through the exact poses. `entropy` is what no coder
that looks at one difference at a time can do without.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import zstandard

from distill3d.cache import planes
from distill3d.cache.planes import PREDICTORS, pack_differences, predict
from distill3d.cache.scalars import pack_confidence
from distill3d.geometry.cameras import project_points, unproject_depth
from distill3d.geometry.poses import invert_pose, transform_points
from distill3d.types import Views

rooms_of = importlib.import_module("cache").rooms  # benchmarks/cache.py

STEP = 2 * np.log1p(2.0**-11)
VIEWS = 10


def interpolate(plane: np.ndarray) -> np.ndarray:
    """Differences to the mean of the two neighbours, on a grid that gets twice as fine with every level."""
    rest = plane.copy()
    step = 2
    while step < 2 * max(plane.shape):
        half = step // 2
        for lines, left in ((plane[:, ::half].T, rest[:, ::half].T), (plane[::step], rest[::step])):
            count = lines[:, step::step].shape[1]
            before = lines[:, :-half:step] if half < lines.shape[1] else lines[:, :0]
            mean = before.copy()
            mean[:, :count] = (mean[:, :count] + lines[:, step::step]) >> 1
            left[:, half::step] = lines[:, half::step] - mean
        step *= 2
    return rest


def directed(plane: np.ndarray) -> np.ndarray:
    """Differences to the mean of two opposite neighbours, of the pair that differs less by far, or of all four."""
    rest = [plane[:1, :1].ravel()]
    step = 1 << (max(plane.shape) - 1).bit_length()
    while step > 1:
        half = step // 2
        coarse = np.pad(plane[::step, ::step], ((0, 1), (0, 1)), mode="edge")
        middle = plane[half::step, half::step]
        rows, columns = middle.shape
        if middle.size:
            pairs = (coarse[:rows, :columns], coarse[1 : rows + 1, 1 : columns + 1])
            pairs += (coarse[1 : rows + 1, :columns], coarse[:rows, 1 : columns + 1])
            rest.append((middle - _mean(*pairs)).ravel())
        for axis in (0, 1):
            target = plane[::step, half::step] if axis == 0 else plane[half::step, ::step]
            rows, columns = target.shape
            if not target.size:
                continue
            own = (
                coarse[:rows, :columns],
                coarse[:rows, 1 : columns + 1] if axis == 0 else coarse[1 : rows + 1, :columns],
            )
            spread = ((1, 1), (0, 0)) if axis == 0 else ((0, 0), (1, 1))
            across = np.pad(middle if middle.size else target, spread, mode="edge")
            pairs = (
                across[:rows, :columns],
                across[1 : rows + 1, :columns] if axis == 0 else across[:rows, 1 : columns + 1],
            )
            rest.append((target - _mean(*own, *pairs)).ravel())
        step = half
    return np.concatenate(rest)


def _mean(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    first, second = np.abs(a - b), np.abs(c - d)
    mean = (a + b + c + d) >> 2
    return np.where(4 * first < second, (a + b) >> 1, np.where(4 * second < first, (c + d) >> 1, mean))


def other_view(views: Views, depth: np.ndarray, view: int, plane: np.ndarray) -> np.ndarray:
    """Differences to the depth of the view before where it lands, delta elsewhere."""
    height, width = plane.shape
    points = unproject_depth(torch.from_numpy(depth[view - 1]).float(), views.intrinsics[0, view - 1])
    here_from_there = invert_pose(views.world_from_camera[0, view]) @ views.world_from_camera[0, view - 1]
    moved = transform_points(here_from_there[None], points[None])[0]
    pixels, z = project_points(moved, views.intrinsics[0, view])
    column, row = (pixels[..., axis].round().long() for axis in (0, 1))
    inside = (z > 0.1) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    near = np.full(plane.size, np.inf)
    np.minimum.at(near, (row * width + column)[inside].numpy(), z[inside].double().numpy())
    seen = np.isfinite(near).reshape(plane.shape)
    rest = predict(plane, "delta").reshape(plane.shape)
    guess = np.rint(np.log(np.where(seen, near.reshape(plane.shape), 1.0)) / STEP).astype(np.int32)
    error = predict(np.where(seen, plane - guess, 0).astype(np.int32), "delta")  # a shift of scale costs nothing
    return np.where(seen, error.reshape(plane.shape), rest)


def coders() -> dict[str, Callable[[np.ndarray], int]]:
    """Bytes of differences by each coder that is installed."""
    found: dict[str, Callable[[np.ndarray], int]] = {
        "entropy": _entropy,
        "huffman": lambda rest: len(pack_differences(rest.astype(np.int32))),
        "huffman 254": _with_all_bytes,
        "zstd 3": lambda rest: len(zstandard.ZstdCompressor(level=3).compress(_shuffled(rest))),
    }
    try:
        from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

        config = ChunkConfig(compression_level=8, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op())
        found["pcodec 8"] = lambda rest: len(standalone.simple_compress(rest.astype(np.int16).ravel(), config))
    except ImportError:
        pass
    try:
        import blosc2

        options: dict[str, Any] = {"filter": blosc2.Filter.BITSHUFFLE, "codec": blosc2.Codec.ZSTD, "clevel": 5}
        found["blosc2 5"] = lambda rest: len(blosc2.compress(rest.astype(np.int16).ravel(), typesize=2, **options))
    except ImportError:
        pass
    return found


def _with_all_bytes(rest: np.ndarray) -> int:
    """Differences up to 253 within the code, instead of up to 47."""
    usual, planes.BIG = planes.BIG, 254
    try:
        return len(pack_differences(rest.astype(np.int32)))
    finally:
        planes.BIG = usual


def _entropy(rest: np.ndarray) -> int:
    counts = np.unique(rest, return_counts=True)[1]
    return round(float((counts * np.log2(rest.size / counts)).sum()) / 8)


def _shuffled(rest: np.ndarray) -> bytes:
    folded = ((rest << 1) ^ (rest >> 31)).astype(np.uint16).ravel()
    return np.ascontiguousarray(folded.view(np.uint8).reshape(-1, 2).T).tobytes()


def main() -> None:
    torch.set_num_threads(1)
    views = rooms_of(VIEWS)
    exact = views.depth[0].double().numpy()
    exact = np.where(exact > 0, exact, 30.0)
    packers = coders()
    print("kB (ms) for the distance plane, mean over views that have another before them")
    print("noise   predictor    " + "".join(f"{name:>16}" for name in packers))
    for noise in (0.0, 5e-4, 3e-3):
        rng = np.random.default_rng(0)
        depth = exact * np.exp(noise * rng.standard_normal(exact.shape))
        chosen = [view for view in range(VIEWS) if view % 5]
        rests: dict[str, list[np.ndarray]] = {}
        for view in chosen:
            plane = np.rint(np.log(depth[view]) / STEP).astype(np.int32)
            for predictor in PREDICTORS:
                rests.setdefault(predictor, []).append(predict(plane, predictor))
            rests.setdefault("interpolate", []).append(interpolate(plane))
            rests.setdefault("directed", []).append(directed(plane))
            rests.setdefault("other view", []).append(other_view(views, depth, view, plane))
        show(noise, rests, packers)
    views = rooms_of(VIEWS)
    maps = importlib.import_module("cache").label(views, 0.0, False, 0.01).confidence_world[0].numpy()
    levels = [pack_confidence("c", values)[0]["c.levels"].astype(np.int32) for values in maps]
    print("the same for a confidence with 1 % noise, mean over all views")
    show(0.01, {name: [predict(plane, name) for plane in levels] for name in PREDICTORS}, packers)


def show(
    noise: float, rests: Mapping[str, Sequence[np.ndarray]], packers: Mapping[str, Callable[[np.ndarray], int]]
) -> None:
    """Print a row for every predictor."""
    for predictor, found in rests.items():
        cells = []
        for pack in packers.values():
            sizes, seconds = [], []
            for rest in found:
                start = time.process_time()
                sizes.append(pack(rest))
                seconds.append(time.process_time() - start)
            cells.append(f"{statistics.mean(sizes) / 1e3:8.1f} ({1e3 * statistics.median(seconds):4.1f})")
        print(f"{noise:<7.2%} {predictor:<12} " + " ".join(cells), flush=True)


if __name__ == "__main__":
    main()

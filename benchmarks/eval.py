"""How long do the expensive parts of the evaluation take? `python benchmarks/eval.py [--points 1000000] [--threads 2]`

Accuracy and completeness of two clouds of a million points, normals, ICP, DTU's thinning, the line through as many
depths, and MoGe's exact alignments over 4096 pixels beside their plain version. Prints core-seconds (of all threads
together, so that other work on the machine matters little) and seconds by the clock, the least of `--repeats`.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from distill3d.eval.metrics import robust
from distill3d.eval.metrics.observed import thin_out
from distill3d.eval.metrics.points import cloud_scores, estimate_normals, refine_rigidly


def least(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Core-seconds and seconds."""
    measured = []
    for _ in range(repeats):
        start, clock = time.process_time(), time.perf_counter()
        work()
        measured.append((time.process_time() - start, time.perf_counter() - clock))
    return min(measured)


def words(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:.1f} core-seconds ({seconds[1]:.1f} s)"


def surfaces(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samplings of one wavy surface of 4 m x 4 m, 2 cm apart, as a reconstruction and its truth are."""
    rng = np.random.default_rng(0)
    clouds = []
    for shift in (0.0, 0.02):
        plane = rng.uniform(0, 4, (count, 2))
        height = np.sin(3 * plane[:, 0]) * np.cos(2 * plane[:, 1]) + shift
        clouds.append(np.column_stack([plane, height]))
    return clouds[0], clouds[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--pixels", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    predicted, truth = surfaces(options.points)
    clouds = f"accuracy and completeness, {options.points:,} points each"
    print(f"{clouds}: {words(least(lambda: cloud_scores(predicted, truth), options.repeats))}", flush=True)
    print(f"normals of one cloud: {words(least(lambda: estimate_normals(predicted), 1))}", flush=True)
    print(f"ICP within 0.1: {words(least(lambda: refine_rigidly(predicted, truth, 0.1), 1))}", flush=True)

    print(f"thinning to 4 mm: {words(least(lambda: thin_out(predicted, 0.004), 1))}", flush=True)
    depth, noise = torch.rand(2, options.points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    line = words(least(lambda: robust.fit_affine_many(depth + 1, 3 * depth + noise**9), options.repeats))
    print(f"scale and shift of {options.points:,} depths: {line}", flush=True)

    generator = torch.Generator().manual_seed(0)
    target = torch.rand(options.pixels, 3, generator=generator, dtype=torch.float64) + 1
    source = target + 0.1 * torch.randn(options.pixels, 3, generator=generator, dtype=torch.float64)
    weight = 1 / target.norm(dim=-1)
    fits = {
        "depth, scale and shift": lambda: robust.fit_affine(source[:, 2], target[:, 2], weight),
        "points, scale and shift": lambda: robust.fit_points_scale_shift(source, target, weight),
    }
    few = robust._FEW_ANCHORS
    for name, fit in fits.items():
        quick = least(fit, options.repeats)
        robust._FEW_ANCHORS = 10**9  # every anchor is solved
        plain = least(fit, 1)
        robust._FEW_ANCHORS = few
        ratio = f"every anchor solved: {words(plain)}, {plain[0] / quick[0]:.0f} times as much"
        print(f"{name}, {options.pixels} pixels: {words(quick)}; {ratio}", flush=True)


if __name__ == "__main__":
    main()

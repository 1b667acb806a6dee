"""How a manifest of many frames opens, and what a random view group and a process cost.

    python benchmarks/manifest.py [--frames 10000000] [--scenes 20000] [--workers 4]

Writes a synthetic manifest (with cameras and depth references, no pictures), opens it in fresh processes, draws random
view groups of eight rows each, and removes it again. Memory is what a process adds by opening the manifest and drawing
groups, imports apart: `own` is what no other process can share; `resident` counts the pages of the mapped file as
well, which all processes of a machine share and the system takes back when it needs them.
"""

import argparse
import json
import multiprocessing
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

GROUP = 8


def synthetic(frames: int, scenes: int) -> pa.Table:
    per_scene = frames // scenes
    scene = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(np.arange(scenes, dtype=np.int32), per_scene)),
        pa.array([f"category_{number % 50}/sequence_{number:06d}" for number in range(scenes)]),
    )
    count = per_scene * scenes
    number = np.tile(np.arange(per_scene), scenes)

    def word(text: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text]))

    def lists(width: int) -> pa.Array:
        values = np.random.default_rng(0).standard_normal(count * width)
        return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * width), pa.array(values))

    digits = pa.array(np.char.zfill(np.arange(per_scene).astype(str), 6))
    names = pc.binary_join_element_wise(scene.cast(pa.string()), digits.take(pa.array(number)), "/images/frame")
    return pa.table(
        {
            "dataset": word("synthetic"),
            "scene": scene,
            "frame": pa.array(number),
            "width": pa.array(np.full(count, 640, np.int32)),
            "height": pa.array(np.full(count, 480, np.int32)),
            "ordered": pa.array(np.ones(count, bool)),
            "split": word("train"),
            "scale": word("metric"),
            "licence": word("CC0-1.0"),
            "intrinsics": lists(5),
            "world_from_camera": lists(12),
            "image": names,
            "image_codec": word("image"),
            "depth": names,
            "depth_codec": word("png16?scale=0.001"),
        }
    )


def memory() -> dict[str, float]:
    held = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    megabytes = {name: float(value.split()[0]) / 1024 for name, value in held.items()}
    return {"own_mb": megabytes["Anonymous"], "resident_mb": megabytes["Rss"]}


def worker(path: str, warm: str, seed: int, draws: int, queue: "multiprocessing.Queue[dict[str, float]]") -> None:
    from distill3d.data.policies import random_window
    from distill3d.data.table import load_manifest

    load_manifest(warm)  # imports and the allocator's first steps are not the manifest's
    before = memory()
    start = time.perf_counter()
    manifest = load_manifest(path)
    scenes = manifest.scenes()
    opened = time.perf_counter() - start
    generator = random.Random(seed)
    times = []
    for _ in range(draws):
        start = time.perf_counter()
        scene = scenes[generator.randrange(len(scenes))]
        frames = random_window(manifest.frames(scene), GROUP, 10, generator)
        rows = manifest.group(scene, frames)
        times.append(time.perf_counter() - start)
        assert len(rows) == GROUP
    after = memory()
    queue.put(
        {
            "open_s": opened,
            "group_ms_median": 1000 * float(np.median(times)),
            "group_ms_p99": 1000 * float(np.percentile(times, 99)),
            **{f"added_{name}": after[name] - before[name] for name in after},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--draws", type=int, default=2000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="manifest-"))
    try:
        from distill3d.data.table import Manifest

        path = folder / "m.parquet"
        start = time.perf_counter()
        Manifest(synthetic(arguments.frames, arguments.scenes), folder).save(path)
        warm = Manifest(synthetic(8, 2), folder).save(folder / "warm.parquet")
        sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        print(json.dumps({"made_s": round(time.perf_counter() - start, 1), "bytes": sizes}), flush=True)
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        for rank in range(arguments.workers):
            process = context.Process(target=worker, args=(str(path), str(warm), rank, arguments.draws, queue))
            process.start()
            process.join()
            print(json.dumps({name: round(value, 3) for name, value in queue.get().items()}), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

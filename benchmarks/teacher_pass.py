"""What a teacher pass costs besides the teacher: `python benchmarks/teacher_pass.py [--out FOLDER] [--json]`.

On a rendered room with photos of 1280 x 720 and labels of 294 x 518 (groups of 8 views, labels with the noise of a
decent network), CPU time of one thread, medians:

decode    reading, resizing and placing a photo (PNG)
encode    labels as `compact` and as `exact`, the photo as JPEG (quality 95) and as PNG
write     a sample of 8 views handed to the writer: appended, synced, committed; depends on the disk of --out
overlap   a teacher that sleeps for as long as decoding and encoding take: the share of the time in which it is busy,
          one step after another and in the pipeline, over 24 batches from the first to the last
index     Parquet index of synthetic samples with random sizes: bytes a sample, time to open, memory
teacher   FLOPs of Pi3 (official size) for the same views, counted without computing anything
answer    what a Ray worker sends to the writer, as pickled bytes
"""

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from distill3d import models
from distill3d.cache import CacheWriter
from distill3d.cache.codec import get_codec
from distill3d.cache.index import Index, SampleEntry, as_table, read_index, write_index
from distill3d.cache.packed import PackedSample, pack_sample
from distill3d.cache.record import pack_image
from distill3d.data.fit import ImageFit
from distill3d.data.groups import load_group
from distill3d.data.manifest import build_manifest
from distill3d.data.render.write import render_place
from distill3d.data.sampling import contiguous
from distill3d.data.table import Manifest
from distill3d.teachers.ground_truth import GroundTruth
from distill3d.teachers.mask import ConfidenceMask
from distill3d.teachers.run.making import Engine, LabelMaker, Recipe, make_batches, one_by_one
from distill3d.teachers.run.pipeline import pipelined
from distill3d.types import Prediction, Views

VIEWS, PHOTO, FIT = 8, (720, 1280), ImageFit(long_side=518)
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="folder on the disk that `write` is about")
    parser.add_argument("--samples", type=int, default=20_000, help="of the synthetic index")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.out) as scratch:
        folder = Path(scratch)
        manifest = render(folder / "photos")
        found = {**steps(manifest, folder), **overlap(manifest), **index(folder, arguments.samples), **teacher()}
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name:<34}{value:>14,.4g}")


def render(folder: Path) -> Manifest:
    render_place(folder, size=PHOTO, num_train=2 * VIEWS, num_test=0)
    return build_manifest(folder)[0]


def cpu_ms(work: Callable[[], Any]) -> float:
    """Median CPU time of this process."""
    taken = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return 1e3 * median(taken)


def steps(manifest: Manifest, folder: Path) -> dict[str, float]:
    group = contiguous(manifest, VIEWS, split="train")[0]
    views = load_group(manifest, group, FIT)
    found = {"decode_cpu_ms_per_view": cpu_ms(lambda: load_group(manifest, group, FIT)) / VIEWS}
    prediction = GroundTruth(noise=1.0).predict(views)
    samples: dict[str, PackedSample] = {}
    for codec, quality in (("compact", 95), ("exact", None)):
        pack = partial(pack_sample, get_codec(codec), "key", views, prediction, jpeg_quality=quality)
        samples[codec] = pack()
        images = "jpeg" if quality else "png"
        photo = cpu_ms(lambda quality=quality: [pack_image(image, quality) for image in views.images[0]]) / VIEWS
        found[f"encode_{codec}_cpu_ms_per_view"] = cpu_ms(pack) / VIEWS - photo
        found[f"encode_{images}_cpu_ms_per_view"] = photo
        found[f"label_{codec}_bytes_per_view"] = sum(len(label.data) for label in samples[codec].labels) / VIEWS
        found[f"photo_{images}_bytes_per_view"] = sum(map(len, samples[codec].images)) / VIEWS
    found["worker_answer_bytes_per_view"] = len(pickle.dumps(samples["compact"])) / VIEWS
    taken, spent = [], time.process_time()
    with CacheWriter(folder / "cache", codec="compact") as writer:
        for number in range(100):
            begun = time.perf_counter()
            writer.add_packed(replace(samples["compact"], key=f"key-{number}"))
            taken.append(time.perf_counter() - begun)
        spent = time.process_time() - spent
    found["write_ms_per_sample"] = 1e3 * median(taken)
    found["write_cpu_ms_per_sample"] = 1e3 * spent / len(taken)
    found["write_megabytes_per_second"] = samples["compact"].num_bytes / median(taken) / 1e6
    return found


class Sleeper:
    """A teacher that takes its time without using a core, as an accelerator does."""

    name, licence, weights_hash = "sleeper", "CC0-1.0", None

    def __init__(self, seconds: float, labels: Prediction) -> None:
        self.seconds, self.labels, self.busy = seconds, labels, 0.0

    def settings(self) -> dict[str, Any]:
        return {}

    def predict(self, views: Views) -> Prediction:
        begun = time.perf_counter()
        time.sleep(self.seconds)
        self.busy += time.perf_counter() - begun
        return self.labels


def overlap(manifest: Manifest) -> dict[str, float]:
    group = contiguous(manifest, VIEWS, split="train")[0]
    recipe = Recipe(fit=FIT, codec=get_codec("compact"), jpeg_quality=95, mask=ConfidenceMask())
    labels = GroundTruth(noise=1.0).predict(load_group(manifest, group, FIT))
    (batch,) = make_batches(manifest, [group], recipe, 1)
    plain = LabelMaker(Sleeper(0.0, labels), manifest, recipe)
    begun = time.perf_counter()
    plain.make(batch)
    seconds = time.perf_counter() - begun

    def busy(engine: Engine) -> float:
        teacher = Sleeper(seconds, labels)
        begun = time.perf_counter()
        for _ in engine(LabelMaker(teacher, manifest, recipe), [batch] * 24):
            pass
        return teacher.busy / (time.perf_counter() - begun)

    return {
        "teacher_busy_plain": busy(one_by_one),
        "teacher_busy_pipeline": busy(partial(pipelined, threads=2)),
    }


def index(folder: Path, num_samples: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    at, entries = 0, []
    for number in range(num_samples):
        sizes = rng.integers(60_000, 140_000, 2 * VIEWS + 1).tolist()
        crcs = rng.integers(0, 2**32, 2 * VIEWS + 1).tolist()
        offsets = [at + 512 * place + sum(sizes[:place]) // 512 * 512 for place in range(2 * VIEWS + 1)]
        at = offsets[-1] + sizes[-1]
        entries.append(
            SampleEntry(
                key=f"scene-{number // 20:06d}-{rng.integers(0, 2**63):016x}",
                shard=number // 600,
                height=294,
                width=518,
                num_views=VIEWS,
                num_similarities=VIEWS,
                info=json.dumps({"frames": list(range(number, number + VIEWS)), "scene": f"scene/{number // 20:06d}"}),
                label_offset=tuple(offsets[0:-1:2]),
                label_size=tuple(sizes[0:-1:2]),
                label_crc=tuple(crcs[0:-1:2]),
                image_offset=tuple(offsets[1::2]),
                image_size=tuple(sizes[1::2]),
                image_crc=tuple(crcs[1::2]),
                sample_offset=offsets[-1],
                sample_size=sizes[-1],
                sample_crc=crcs[-1],
            )
        )
    (folder / "index").mkdir()
    write_index(folder / "index", as_table(entries))
    size = (folder / "index" / "index.parquet").stat().st_size
    begun = time.process_time()
    opened = Index(read_index(folder / "index"))
    assert len(opened) == num_samples
    return {
        "index_bytes_per_sample": size / num_samples,
        "index_open_cpu_us_per_sample": 1e6 * (time.process_time() - begun) / num_samples,
        "index_memory_bytes_per_sample": len(pickle.dumps(opened)) / num_samples,
    }


def teacher() -> dict[str, float]:
    spec = models.get("pi3")
    with FakeTensorMode(), torch.no_grad():
        network = spec.build(spec.variants["pi3"]).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.rand(1, VIEWS, 3, 294, 518))
    return {"teacher_tflop_per_view": counter.get_total_flops() / 1e12 / VIEWS}


if __name__ == "__main__":
    main()

"""How large is a view in the cache, how far off its points, and what do writing and reading cost?

Run with `OMP_NUM_THREADS=1 python benchmarks/cache.py [--views 20] [--repeats 5]`. Renders rooms at 224 x 518, adds
what makes a teacher's pointmap out of an exact one (noise at 0, 0.05 and 0.3 % of the distance, rays that stray from a
pinhole by half a pixel, confidences that fall at silhouettes and have noise of their own), and compares the codecs with
the npz layout of the reference (float16, deflated) in one run. Times are medians of processor time, ratios medians of
rounds in which all take turns, so that other work on the machine matters little. `--noise-in all` puts the noise into
all three coordinates instead of the distance.
"""

import argparse
import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from distill3d.cache import CacheHeader, CacheReader, CacheWriter
from distill3d.cache.blob import read_parts
from distill3d.cache.codec import get_codec
from distill3d.cache.on_device import decode_on
from distill3d.cache.planes import split_plane
from distill3d.cache.record import split_sample
from distill3d.data.render.caster import render
from distill3d.data.render.rooms import random_room, room_cameras
from distill3d.geometry.cameras import pixel_grid
from distill3d.memory import keep_freed_memory
from distill3d.train.config import SamplingConfig
from distill3d.train.samples import CacheDataset
from distill3d.types import Prediction, Views

SIZE = (224, 518)
NOISES = (0.0, 5e-4, 3e-3)
SKY_DISTANCE = 30.0
STRAY_PIXELS = 0.5
TARGETS = {"MB/view": "<= 0.14", "max error": "<= 5e-4", "write": ">= 9x", "read 4": ">= 9x", "sample": "<= 120 ms"}


def rooms(num_views: int) -> Views:
    """Photos and exact depth of rooms, five views each, as one sample."""
    parts = []
    for seed in range(-(-num_views // 5)):
        room = random_room(seed)
        poses, intrinsics = room_cameras(room, min(5, num_views - 5 * seed), SIZE, seed)
        parts.append(render(room.scene, poses[None], intrinsics[None], SIZE))
    names = ("images", "depth", "world_from_camera", "intrinsics")
    return Views(**{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in names})


def label(views: Views, noise: float, everywhere: bool, confidence_noise: float) -> Prediction:
    """Maps as a network gives them: the world map is a similarity of the local one."""
    rng = np.random.default_rng(0)
    depth = views.depth[0].double().numpy()
    depth = np.where(depth > 0, depth, SKY_DISTANCE)
    intrinsics = views.intrinsics[0].double().numpy()
    pixels = pixel_grid(*SIZE).double().numpy()
    focal, centre = intrinsics[:, None, None, [0, 1], [0, 1]], intrinsics[:, None, None, :2, 2]
    rays = (pixels[None] - centre) / focal
    radius = np.square(rays).sum(axis=-1, keepdims=True)
    rays = rays * (1 + STRAY_PIXELS / focal * radius / radius.max() ** 1.5)
    points = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1) * depth[..., None]
    if everywhere:
        points += noise * np.linalg.norm(points, axis=-1, keepdims=True) * rng.standard_normal(points.shape)
    else:
        points *= np.exp(noise * rng.standard_normal(depth.shape))[..., None]
    poses = views.world_from_camera[0].double().numpy()
    world = 0.8 * points @ poses[:, None, :3, :3].swapaxes(-1, -2) + poses[:, None, None, :3, 3]

    def confidence() -> torch.Tensor:
        maps = []
        for z in np.log(depth):
            smooth = cv2.resize(rng.standard_normal((6, 12)), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
            kernel = np.ones((3, 3), np.uint8)
            edge = cv2.dilate(z, kernel) - cv2.erode(z, kernel) > 0.1
            edge = cv2.GaussianBlur(edge.astype(np.float64), (0, 0), 1.0)
            random = confidence_noise * rng.standard_normal(SIZE)
            maps.append(1 + np.exp(1.2 + 0.5 * smooth - 2 * edge - 0.3 * z + random))
        return torch.from_numpy(np.stack(maps)).float()[None]

    return Prediction(
        pointmap_camera=torch.from_numpy(points).float()[None],
        pointmap_world=torch.from_numpy(world).float()[None],
        confidence_camera=confidence(),
        confidence_world=confidence(),
    )


def cpu_ms(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor times of calls in milliseconds, after one of each to warm up.

    All of them take turns, so that a slow spell of the machine falls on all and not on one.
    """
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            taken[name].append(1e3 * (time.process_time() - start))
    return taken


def npz_bytes(prediction: Prediction) -> bytes:
    """The labels as the reference stores them."""
    names = {"xyz_local": "pointmap_camera", "xyz_global": "pointmap_world"}
    names |= {"conf_local": "confidence_camera", "conf_global": "confidence_world"}
    buffer = BytesIO()
    np.savez_compressed(buffer, **{ours: getattr(prediction, name)[0].half().numpy() for ours, name in names.items()})
    return buffer.getvalue()


def measure(views: Views, prediction: Prediction, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    """A row each for the npz of the reference and for both codecs."""
    num_views = views.images.shape[1]
    some = 5  # are written; the cost is that of every view
    packed = npz_bytes(prediction)
    fields = {item.name: getattr(prediction, item.name) for item in dataclasses.fields(prediction)}
    part = Prediction(**{name: None if value is None else value[:, :some] for name, value in fields.items()})

    def read_npz() -> list[torch.Tensor]:
        with np.load(BytesIO(packed)) as arrays:  # all views are inflated to get at four
            return [torch.from_numpy(arrays[name][:4]).float() for name in arrays.files]

    works: dict[str, Callable[[], object]] = {"npz write": lambda: npz_bytes(part), "npz read 4": read_npz}
    rows: list[dict[str, Any]] = [{"codec": "npz", "MB/view": len(packed) / num_views / 1e6}]
    bare = Views(images=views.images)
    parts = split_sample("x", bare, prediction)
    local = prediction.pointmap_camera[0].double()
    for name in ("exact", "compact"):
        codec = get_codec(name)
        blobs = [codec.encode(part).data for part in parts]

        def read(codec: Any = codec, blobs: list[bytes] = blobs) -> list[torch.Tensor]:
            found = [codec.decode(blob) for blob in blobs[:4]]
            return [torch.from_numpy(np.stack([view[name] for view in found])) for name in parts[0]]

        found = torch.stack([torch.from_numpy(codec.decode(blob)["prediction.pointmap_camera"]) for blob in blobs])
        error = ((found.double() - local).norm(dim=-1) / local.norm(dim=-1)).max()
        path = folder / name
        with CacheWriter(path, codec=name, header=CacheHeader(images="jpeg")) as writer:
            writer.add("x", bare, prediction)
        reader = CacheReader(path)
        rows.append({"codec": name, "MB/view": sum(map(len, blobs)) / num_views / 1e6, "max error": float(error)})
        works[f"{name} write"] = lambda codec=codec: [codec.encode(part) for part in parts[:some]]
        works[f"{name} read 4"] = read
        works[f"{name} sample"] = lambda reader=reader: reader.load("x")
        works[f"{name} feed"] = feed(reader, num_views)
    taken = cpu_ms(works, repeats)
    for row in rows:
        row["MB ratio"] = rows[0]["MB/view"] / row["MB/view"]
        for what in ("write", "read 4", "sample", "feed"):
            own = taken.get(f"{row['codec']} {what}")
            if own is not None:
                row[what] = statistics.median(own) / (some if what == "write" else 1)
            if own is not None and f"npz {what}" in taken:
                pairs = zip(taken[f"npz {what}"], own, strict=True)
                row[f"{what} ratio"] = statistics.median(first / second for first, second in pairs)
        yield row


def feed(reader: CacheReader, num_views: int) -> Callable[[], object]:
    """Makes one training sample after the other: read, mirrored, cut, with colours and reference changed."""
    config = SamplingConfig(flip=0.5, crop=0.8, color_jitter=0.2, memory_mb=0)
    batches = CacheDataset(reader, reader.keys(), config, views=num_views, batch=1, seed=0)
    numbers = itertools.count()
    return lambda: batches[next(numbers)]


def measure_device(views: Views, prediction: Prediction, device: str, repeats: int) -> dict[str, float]:
    """Milliseconds of processor time to decode all views: by the codec, in torch on a device, and zstd alone."""
    codec = get_codec("compact")
    blobs = [codec.encode(part).data for part in split_sample("x", Views(images=views.images), prediction)]
    pixels = SIZE[0] * SIZE[1]

    def inflate() -> None:
        for blob in blobs:
            for part in read_parts(blob)[0].values():
                if part.encoding.startswith("plane-"):
                    split_plane(part.data, pixels, 2)

    def there() -> None:
        decode_on(device, blobs)
        if device != "cpu":
            torch.cuda.synchronize()

    works = {"codec": lambda: [codec.decode(blob) for blob in blobs], f"torch, {device}": there, "zstd": inflate}
    return {name: statistics.median(taken) for name, taken in cpu_ms(works, repeats).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--noise-in", choices=("distance", "all"), default="distance")
    parser.add_argument("--confidence-noise", type=float, default=0.01, help="of ln(confidence - 1), pixel by pixel")
    parser.add_argument("--device", help="measure decoding in torch on this device instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()  # as the workers of the training feed do
    views = rooms(options.views)
    if options.device:
        for noise in NOISES:
            prediction = label(views, noise, options.noise_in == "all", options.confidence_noise)
            found = measure_device(views, prediction, options.device, options.repeats)
            print(f"{noise:<7.2%} " + "   ".join(f"{name} {taken:.0f} ms" for name, taken in found.items()), flush=True)
        return
    print(f"{options.views} views of {SIZE[0]}x{SIZE[1]}; times in ms of processor time; in brackets: npz / this")
    print(
        f"noise   codec    MB/view          max error  write/view       read 4 of {options.views}        sample   feed"
    )
    for noise in NOISES:
        prediction = label(views, noise, options.noise_in == "all", options.confidence_noise)
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(views, prediction, Path(folder), options.repeats):
                sizes = f"{row['MB/view']:.3f} ({row['MB ratio']:4.1f}x)   "
                times = "  ".join(f"{row[name]:7.1f} ({row[f'{name} ratio']:4.1f}x)" for name in ("write", "read 4"))
                rest = "".join(f"  {row[name]:7.0f}" if name in row else "        -" for name in ("sample", "feed"))
                error = f"{row['max error']:.2e}" if "max error" in row else "-       "
                print(f"{noise:<7.2%} {row['codec']:<8} {sizes} {error}  {times}{rest}", flush=True)
    print("targets for compact: " + ", ".join(f"{name} {target}" for name, target in TARGETS.items()))


if __name__ == "__main__":
    main()

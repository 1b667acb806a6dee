"""How many images a second does the ray caster make on one core?

Run with `python benchmarks/render.py [--views 24] [--repeats 5]`. Prints the median over the repeats, in images per
second of processor time of this one process, so that other work on the machine matters little.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from distill3d.data.render.caster import cast_depth, render
from distill3d.data.render.place import place_cameras, place_scene
from distill3d.data.render.rooms import random_room, room_cameras
from distill3d.data.render.scene import Scene, stack_scenes


def rate(work: Callable[[], object], images: int, repeats: int) -> float:
    """Median images per core-second, after one run to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return images / statistics.median(seconds)


def measure_place(place: Scene, size: tuple[int, int], views: int, repeats: int) -> None:
    cameras = place_cameras(size, num_train=views, num_test=0, seed=0)
    poses, intrinsics = cameras.world_from_camera[None], cameras.intrinsics[None]
    depth_only = rate(lambda: cast_depth(place, poses, intrinsics, size), views, repeats)
    plain = rate(lambda: render(place, poses, intrinsics, size), views, repeats)
    smooth = rate(lambda: render(place, poses, intrinsics, size, supersample=True), views, repeats)
    print(
        f"place {size[0]}x{size[1]}: {plain:.1f} images per core-second; depth only {depth_only:.0f}; "
        f"2x2 supersampled {smooth:.1f} ({plain / smooth:.1f} times slower)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=24, help="images per measurement")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    place = place_scene()
    print(f"place: {place.kind.shape[1]} primitives, {place.light_position.shape[1]} lights with shadows")
    for side in (112, 224):
        measure_place(place, (side, side), options.views, options.repeats)
    size, views = (112, 112), 6
    rooms = [random_room(seed) for seed in range(max(1, options.views // views))]
    cameras_of_rooms = [room_cameras(room, views, size, seed) for seed, room in enumerate(rooms)]
    scenes = stack_scenes([room.scene for room in rooms])
    poses = torch.stack([poses for poses, _ in cameras_of_rooms])
    intrinsics = torch.stack([intrinsics for _, intrinsics in cameras_of_rooms])
    images = views * len(rooms)
    batched = rate(lambda: render(scenes, poses, intrinsics, size), images, options.repeats)
    print(f"{len(rooms)} rooms 112x112 as one batch: {batched:.1f} images per core-second")

    def make_rooms() -> None:
        for seed in range(len(rooms)):
            room_cameras(random_room(seed), views, size, seed)

    made = rate(make_rooms, len(rooms), options.repeats)
    print(f"building a room and choosing {views} cameras: {made:.0f} rooms per core-second")


if __name__ == "__main__":
    main()

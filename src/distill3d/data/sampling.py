"""View groups: which frames of a scene are looked at together. Every policy is a pure function of (manifest, seed)."""

import hashlib
import logging
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from distill3d.data.table import Manifest
from distill3d.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewGroup:
    """Frames of one scene that a teacher sees together; the first is view 0, whose camera is the world."""

    scene: str
    frames: tuple[int, ...]

    @property
    def key(self) -> str:
        """A name made from scene and frames alone: the same on every machine, and safe as a file name."""
        content = "\n".join([self.scene, *map(str, self.frames)])
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        slug = re.sub(r"[^a-z0-9]+", "-", self.scene.lower()).strip("-")[:40]
        return f"{slug}-{digest}" if slug else digest


def contiguous(
    manifest: Manifest,
    size: int,
    *,
    count: int | None = None,
    seed: int = 0,
    split: str | None = None,
) -> list[ViewGroup]:
    """Windows of neighbouring frames that cover every scene once.

    The last window of a scene reaches back so that it is full as well.

    Args:
        manifest: what to choose from.
        size: views in a group; a scene with fewer gives one smaller group, down to two.
        count: keep this many, drawn by `seed`; all if `None`.
        seed: for the draw.
        split: only frames of this split; all if `None`.

    Raises:
        DataError: `size` is below 2, or no scene has two frames.
    """
    return strided(manifest, size, stride=1, count=count, seed=seed, split=split)


def strided(
    manifest: Manifest,
    size: int,
    *,
    stride: int,
    count: int | None = None,
    seed: int = 0,
    split: str | None = None,
) -> list[ViewGroup]:
    """Windows of every `stride`-th frame (in order, not by number) that cover every scene; see `contiguous`.

    Where a scene is too short for the stride it is lowered for that scene, so that groups stay full.

    Raises:
        DataError: `size` is below 2, `stride` below 1, or no scene has two frames.
    """
    if stride < 1:
        raise DataError(f"The stride between views is {stride}, expected at least 1.")
    groups = []
    for scene, frames in usable_scenes(manifest, size, split):
        groups += windows(scene, frames, size, stride)
    return draw(groups, count, seed)


def windows(scene: str, frames: tuple[int, ...], size: int, stride: int) -> list[ViewGroup]:
    """Windows of every `stride`-th of the frames (or nearer ones, in a short scene) that leave none out."""
    step = max(1, min(stride, len(frames) // size))
    groups = []
    for offset in range(step):
        lane = frames[offset::step]
        starts = list(range(0, max(len(lane) - size, 0) + 1, size))
        if len(lane) > size and starts[-1] + size < len(lane):
            starts.append(len(lane) - size)
        groups += [ViewGroup(scene, lane[start : start + size]) for start in starts]
    return groups


def random_groups(
    manifest: Manifest,
    size: int,
    *,
    count: int,
    seed: int = 0,
    split: str | None = None,
) -> list[ViewGroup]:
    """Frames drawn from one scene at a time, all different, in the order drawn; scenes take turns.

    Fewer than `count` come back where the scenes do not have so many different sets of frames.

    Raises:
        DataError: `size` is below 2, or no scene has two frames.
    """

    def choose(frames: tuple[int, ...], generator: random.Random) -> tuple[int, ...]:
        return tuple(generator.sample(frames, min(size, len(frames))))

    scenes = list(usable_scenes(manifest, size, split))
    return take_turns(scenes, count, seed, lambda scene, frames, generator: choose(frames, generator))


def nearby(
    manifest: Manifest,
    size: int,
    *,
    count: int,
    seed: int = 0,
    split: str | None = None,
    reach: float = 1.2,
    angle_weight: float = 1.0,
) -> list[ViewGroup]:
    """A random frame first, then frames whose cameras stand near it and look the same way.

    Nearness is the distance between the camera centres, in units of the scene's median distance between cameras, plus
    `angle_weight` times the angle between the viewing directions in units of 60 degrees.

    Args:
        manifest: what to choose from; frames without a pose are left out.
        size: views in a group; a scene with fewer gives smaller groups, down to two.
        count: number of groups; fewer where there are not so many different ones.
        seed: for all draws.
        split: only frames of this split; all if `None`.
        reach: the others are drawn from the frames whose nearness is at most this, or are the nearest ones where those
            are too few; 0 takes exactly the nearest.
        angle_weight: see above; 0 looks at positions alone.

    Raises:
        DataError: `size` is below 2, `reach` below 0, or no scene has two frames with poses.
    """
    if reach < 0:
        raise DataError(f"reach is {reach}, expected at least 0 (only the nearest views).")
    scenes = []
    costs: dict[str, np.ndarray] = {}
    for scene, frames in usable_scenes(manifest, size, split):
        poses = {frame: manifest.row(scene, frame).world_from_camera for frame in frames}
        posed = tuple(frame for frame in frames if poses[frame] is not None)
        if len(posed) >= 2:
            scenes.append((scene, posed))
            costs[scene] = _view_costs(np.array([poses[frame] for frame in posed]), angle_weight)
    if not scenes:
        raise DataError(
            "No scene has two frames with camera poses, which choosing nearby views needs. "
            "Choose views by another policy: contiguous, strided or random."
        )

    def choose(scene: str, frames: tuple[int, ...], generator: random.Random) -> tuple[int, ...]:
        anchor = generator.randrange(len(frames))
        others = min(size, len(frames)) - 1
        cost = costs[scene][anchor]
        ranked = [index for index in np.argsort(cost, kind="stable").tolist() if index != anchor]
        pool = ranked[: max(others, sum(cost[index] <= reach for index in ranked))]
        return tuple(frames[index] for index in (anchor, *generator.sample(pool, others)))

    return take_turns(scenes, count, seed, choose)


def _view_costs(world_from_camera: np.ndarray, angle_weight: float) -> np.ndarray:
    """How far apart each two of N cameras are, [N N]."""
    centres, forward = world_from_camera[:, :3, 3], world_from_camera[:, :3, 2]
    distances = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    apart = distances[~np.eye(len(centres), dtype=bool)]
    unit = float(np.median(apart)) or 1.0  # cameras that all stand on one spot differ by direction alone
    angles = np.arccos(np.clip(forward @ forward.T, -1, 1))
    # Rounding keeps ties ties on every machine; equal costs are then ranked by frame number.
    return np.asarray(np.round(distances / unit + angle_weight * angles / math.radians(60), 9))


def usable_scenes(manifest: Manifest, size: int, split: str | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Scenes with at least two frames in the split, each with those frames."""
    if size < 2:
        raise DataError(f"A group of {size} views was asked for, expected at least 2.")
    scenes = [(scene, manifest.frames(scene, split)) for scene in manifest.scenes()]
    usable = [(scene, frames) for scene, frames in scenes if len(frames) >= 2]
    few, short = sum(len(frames) == 1 for _, frames in scenes), sum(len(frames) < size for _, frames in usable)
    if not usable:
        where = "" if split is None else f" in the split {split!r} (splits: {manifest.splits()})"
        raise DataError(f"None of the {len(scenes)} scenes has two frames{where}. Add photos or choose another split.")
    if few:
        logger.info("left out %d of %d scenes: only one frame", few, len(scenes))
    if short:
        logger.info("%d of %d scenes have fewer than %d frames and give smaller groups", short, len(scenes), size)
    yield from usable


def take_turns(
    scenes: list[tuple[str, tuple[int, ...]]],
    count: int,
    seed: int,
    choose: Callable[[str, tuple[int, ...], random.Random], tuple[int, ...]],
) -> list[ViewGroup]:
    """Draw groups from the scenes in turn, no set of frames twice, until there are `count` or nothing new comes."""
    # A generator for each scene: its groups do not depend on which other scenes there are. Strings are hashed by SHA.
    generators = {scene: random.Random(f"{seed}/{scene}") for scene, _ in scenes}
    groups: list[ViewGroup] = []
    seen: set[tuple[str, frozenset[int]]] = set()
    waiting = list(scenes)
    while waiting and len(groups) < count:
        still_fresh = []
        for scene, frames in waiting:
            if len(groups) == count:
                break
            for _ in range(50):  # a scene that repeats itself so often has little new to give
                drawn = choose(scene, frames, generators[scene])
                if (scene, frozenset(drawn)) not in seen:
                    seen.add((scene, frozenset(drawn)))
                    groups.append(ViewGroup(scene, drawn))
                    still_fresh.append((scene, frames))
                    break
        waiting = still_fresh
    if len(groups) < count:
        logger.info("only %d different groups of %d asked for could be drawn", len(groups), count)
    return groups


def draw(groups: list[ViewGroup], count: int | None, seed: int) -> list[ViewGroup]:
    """`count` of the groups, in their order; all if `None`."""
    if count is None or count >= len(groups):
        return groups
    return [groups[index] for index in sorted(random.Random(seed).sample(range(len(groups)), count))]

"""Every sampling policy by its name, and those that look at time or at what the frames show.

`contiguous`, `strided`, `random` and `nearby` are in `data.sampling`. All are pure functions of (manifest, seed), and
of the files where they look at those. The Distill3R paper speaks of dynamic sub-sampling strides without stating them,
and the code it released takes contiguous windows; the rules of `dynamic` are ours.
"""

import json
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill3d.data import sampling
from distill3d.data.overlap_store import OverlapStore
from distill3d.data.sampling import ViewGroup
from distill3d.data.table import Manifest
from distill3d.data.video import spread
from distill3d.errors import ConfigError, DataError
from distill3d.files import PathLike
from distill3d.progress import track

_SECONDS_APART = 0.5
"""What `dynamic` aims at where frames carry time stamps: a slow walk moves half a metre."""
_WINDOWS_OF_A_SCENE = 4
"""What `dynamic` aims at where they do not: so many windows one after another."""
_MOST_FRAMES = 120
"""Overlap is computed between so many frames of a scene, spread over it."""


@dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """What the policies take; each looks at what it knows of."""

    count: int | None = None
    """Groups; all of them (or 200, where a policy could go on for ever) if `None`."""
    seed: int = 0
    split: str | None = None
    """Only frames of this split."""
    stride: int = 2
    """Of `strided`; the largest one of `random-windows`."""
    reach: float = 1.0
    """Of `nearby`."""
    overlap: float = 0.5
    """The smallest of two neighbours for `covisible`; what `adaptive` aims at."""
    groups_file: Path | None = None
    """Of `explicit`: JSON lines of {"scene": "...", "frames": [...]}."""
    overlaps: Path | None = None
    """A file that `covisible` and `adaptive` keep overlaps in, and take up what they kept before."""


def choose_groups(manifest: Manifest, policy: str, size: int, options: PolicyOptions | None = None) -> list[ViewGroup]:
    """The view groups of a policy.

    Raises:
        ConfigError: there is no such policy.
        DataError: the manifest has no such groups.
    """
    if policy not in POLICIES:
        raise ConfigError(f"There is no policy {policy!r}. The policies are: {', '.join(POLICIES)}.")
    return POLICIES[policy](manifest, size, options or PolicyOptions())


def dynamic(manifest: Manifest, size: int, options: PolicyOptions) -> list[ViewGroup]:
    """Windows whose stride fits the scene.

    Ordered frames with time stamps: as many frames apart as make half a second. Ordered frames without: as far apart as
    leaves four windows one after another, at least 1. Collections without an order: random sets, as many as windows.

    Raises:
        DataError: `size` is below 2, or no scene has two frames.
    """
    groups = []
    for scene, frames in sampling.usable_scenes(manifest, size, options.split):
        rows = [manifest.row(scene, frame) for frame in frames[:50]]
        if not all(row.ordered for row in rows):
            groups += _random_sets(scene, frames, size, options.seed)
            continue
        stamps = [row.timestamp for row in rows if row.timestamp is not None]
        gaps = np.diff(stamps)
        if len(stamps) == len(rows) and len(gaps) and statistics.median(gaps) > 0:
            stride = round(_SECONDS_APART / statistics.median(gaps))
        else:
            stride = len(frames) // (size * _WINDOWS_OF_A_SCENE)
        groups += sampling.windows(scene, frames, size, max(stride, 1))
    return sampling.draw(groups, options.count, options.seed)


def uniform(manifest: Manifest, size: int, options: PolicyOptions) -> list[ViewGroup]:
    """One group of each scene: views spread evenly from its first frame to its last.

    Raises:
        DataError: `size` is below 2, or no scene has two frames.
    """
    scenes = sampling.usable_scenes(manifest, size, options.split)
    groups = [ViewGroup(scene, tuple(frames[place] for place in spread(len(frames), size))) for scene, frames in scenes]
    return sampling.draw(groups, options.count, options.seed)


def single(manifest: Manifest, size: int, options: PolicyOptions) -> list[ViewGroup]:
    """Every frame alone, for teachers that see one view at a time; `size` is not looked at.

    Raises:
        DataError: there are no frames.
    """
    scenes = manifest.scenes(options.split)
    groups = [ViewGroup(scene, (frame,)) for scene in scenes for frame in manifest.frames(scene, options.split)]
    if not groups:
        raise DataError(f"There are no frames in the split {options.split!r} (splits: {manifest.splits()}).")
    return sampling.draw(groups, options.count, options.seed)


def random_windows(manifest: Manifest, size: int, options: PolicyOptions) -> list[ViewGroup]:
    """Windows at random places with a random stride from 1 to `stride`, one of each scene in turn.

    Raises:
        DataError: `size` is below 2, or no scene has two frames.
    """

    def choose(scene: str, frames: tuple[int, ...], generator: random.Random) -> tuple[int, ...]:
        return random_window(frames, size, options.stride, generator)

    scenes = list(sampling.usable_scenes(manifest, size, options.split))
    return sampling.take_turns(scenes, options.count or 200, options.seed, choose)


def random_window(frames: tuple[int, ...], size: int, stride: int, generator: random.Random) -> tuple[int, ...]:
    """A window at a random place with a random stride, as far as the frames allow."""
    longest = max(1, (len(frames) - 1) // max(min(size, len(frames)) - 1, 1))
    step = generator.randint(1, min(stride, longest))
    start = generator.randrange(max(1, len(frames) - (size - 1) * step))
    return frames[start : start + size * step : step][:size]


def covisible(manifest: Manifest, size: int, options: PolicyOptions) -> list[ViewGroup]:
    """Sets of frames in which each one overlaps with one that was chosen before it.

    From a random frame on, the next is drawn from those that overlap by at least `overlap` with any chosen one; where
    there are none, the one that overlaps most. See `data.overlap` for what overlap is where depth or poses are missing.

    Raises:
        DataError: `size` is below 2, or no scene has two frames.
    """
    scenes, overlaps = [], {}
    usable = list(sampling.usable_scenes(manifest, size, options.split))
    with closing(OverlapStore(options.overlaps)) as store:
        for scene, frames in track(usable, "comparing frames", unit="scenes"):
            kept = tuple(frames[place] for place in spread(len(frames), _MOST_FRAMES))
            scenes.append((scene, kept))
            overlaps[scene] = store.between(manifest, scene, kept)

    def choose(scene: str, frames: tuple[int, ...], generator: random.Random) -> tuple[int, ...]:
        chosen = [generator.randrange(len(frames))]
        while len(chosen) < min(size, len(frames)):
            best = overlaps[scene][chosen].max(axis=0)
            best[chosen] = -1
            pool = np.flatnonzero(best >= options.overlap).tolist()
            chosen.append(generator.choice(pool) if pool else int(best.argmax()))
        return tuple(frames[place] for place in chosen)

    return sampling.take_turns(scenes, options.count or 200, options.seed, choose)


def adaptive(manifest: Manifest, size: int, options: PolicyOptions) -> list[ViewGroup]:
    """Windows with the stride at which neighbouring views overlap most nearly by `overlap`, found for each scene.

    The overlap of a stride is its mean over up to eight places of the scene.

    Raises:
        DataError: `size` is below 2, or no scene has two frames.
    """
    groups = []
    usable = list(sampling.usable_scenes(manifest, size, options.split))
    with closing(OverlapStore(options.overlaps)) as store:
        for scene, frames in track(usable, "finding strides", unit="scenes"):
            longest = max(1, (len(frames) - 1) // max(min(size, len(frames)) - 1, 1))
            strides = sorted({round(2 ** (power / 2)) for power in range(20)} & set(range(1, longest + 1))) or [1]
            reached = {stride: _mean_overlap(store, manifest, scene, frames, stride) for stride in strides}
            # Of strides that come as near the smaller one is meant.
            stride = min(strides, key=lambda step: (round(abs(reached[step] - options.overlap), 6), step))
            groups += sampling.windows(scene, frames, size, stride)
    return sampling.draw(groups, options.count, options.seed)


def explicit(manifest: Manifest, size: int, options: PolicyOptions) -> list[ViewGroup]:
    """The groups of a file, whatever their size; `size` is not looked at.

    Raises:
        DataError: there is no such file, or a line names a scene or frame that the manifest lacks.
    """
    if options.groups_file is None:
        raise DataError("The policy `explicit` needs a file of groups, JSON lines of scene and frames.")
    return list(read_groups(options.groups_file, manifest))


def read_groups(path: PathLike, manifest: Manifest) -> Iterator[ViewGroup]:
    """View groups from JSON lines of {"scene": "...", "frames": [...]}.

    Raises:
        DataError: the file cannot be read, or a line is none or names what the manifest lacks.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of groups: {error}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            group = ViewGroup(record["scene"], tuple(int(frame) for frame in record["frames"]))
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(
                f'{path}, line {number}, is no group: expected {{"scene": "...", "frames": [...]}}, found {line[:80]}.'
            ) from error
        for frame in group.frames:
            manifest.row(group.scene, frame)
        yield group


def _random_sets(scene: str, frames: tuple[int, ...], size: int, seed: int) -> list[ViewGroup]:
    """A collection cut into random sets that leave no frame out; the last reaches back so that it is full as well."""
    shuffled = list(frames)
    random.Random(f"{seed}/{scene}/sets").shuffle(shuffled)
    return sampling.windows(scene, tuple(shuffled), size, 1)


def _mean_overlap(store: OverlapStore, manifest: Manifest, scene: str, frames: tuple[int, ...], stride: int) -> float:
    places = spread(len(frames) - stride, 8)
    found = [store.between(manifest, scene, (frames[at], frames[at + stride]))[0, 1] for at in places]
    return float(np.mean(found)) if found else 0.0


POLICIES: dict[str, Callable[[Manifest, int, PolicyOptions], list[ViewGroup]]] = {
    "contiguous": lambda m, size, o: sampling.contiguous(m, size, count=o.count, seed=o.seed, split=o.split),
    "strided": lambda m, size, o: sampling.strided(m, size, stride=o.stride, count=o.count, seed=o.seed, split=o.split),
    "random": lambda m, size, o: sampling.random_groups(m, size, count=o.count or 200, seed=o.seed, split=o.split),
    "nearby": lambda m, size, o: sampling.nearby(
        m, size, count=o.count or 200, seed=o.seed, split=o.split, reach=o.reach
    ),
    "dynamic": dynamic,
    "uniform": uniform,
    "single": single,
    "random-windows": random_windows,
    "covisible": covisible,
    "adaptive": adaptive,
    "explicit": explicit,
}
"""All policies, in the order in which they are explained."""

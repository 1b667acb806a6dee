"""A teacher pass from beginning to end: what is missing is made by an engine, and written in order as it comes."""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from distill3d.cache import CacheHeader, CacheWriter
from distill3d.cache.codec import get_codec
from distill3d.data.fit import ImageFit, Size
from distill3d.data.sampling import ViewGroup
from distill3d.data.table import Manifest
from distill3d.errors import ConfigError, DataError
from distill3d.files import megabytes
from distill3d.progress import ProgressBar
from distill3d.teachers import Teacher
from distill3d.teachers.mask import ConfidenceMask
from distill3d.teachers.run.estimate import Estimate, Meter
from distill3d.teachers.run.making import Engine, LabelMaker, Made, Recipe, make_batches
from distill3d.teachers.run.pipeline import pipelined

logger = logging.getLogger(__name__)
HOPELESS = 100
"""A run whose first so many groups all fail stops: the reason is hardly in the photos."""


@dataclass(frozen=True, kw_only=True)
class TeacherRun:
    """What a teacher pass did."""

    path: Path
    num_groups: int
    num_existing: int
    """Groups that were in the cache before."""
    num_written: int
    num_views: int
    """Views written in this run."""
    num_bytes: int
    """Bytes written in this run."""
    seconds: float
    failures: tuple[tuple[str, str], ...]
    """Key and reason of every group that could not be made; also in `failures.jsonl`."""

    def summary(self) -> dict[str, Any]:
        """The run in numbers, ready for JSON."""
        return {
            "path": str(self.path),
            "groups": self.num_groups,
            "existing": self.num_existing,
            "written": self.num_written,
            "failed": len(self.failures),
            "views": self.num_views,
            "bytes": self.num_bytes,
            "bytes_per_view": round(self.num_bytes / self.num_views) if self.num_views else 0,
            "seconds": round(self.seconds, 3),
            "views_per_second": round(self.num_views / self.seconds, 3) if self.seconds else 0.0,
        }


def run_teacher(
    teacher: Teacher,
    manifest: Manifest,
    groups: Sequence[ViewGroup],
    out: str | Path,
    *,
    fit: ImageFit,
    codec: str = "exact",
    codec_settings: Mapping[str, Any] | None = None,
    images: Literal["png", "jpeg"] = "png",
    jpeg_quality: int = 95,
    resume: bool = False,
    batch_size: int = 1,
    canvas: Size | None = None,
    mask: ConfidenceMask | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    engine: Engine = pipelined,
) -> TeacherRun:
    """Ask the teacher about every group, and keep the labels beside the photos in a cache.

    Groups that are in the cache already are skipped, so an interrupted run goes on where it stopped (`resume`) and ends
    with the same bytes. A group whose photos cannot be read or whose labels are not finite is noted and left out.

    Args:
        teacher: see `distill3d.teachers.load`.
        manifest: the groups were chosen from it.
        groups: in the order in which they are cached.
        out: the cache's folder.
        fit: how photos are brought to size.
        codec: of the cache.
        codec_settings: of that codec; its defaults if `None`.
        images: how the photos are stored.
        jpeg_quality: of these.
        resume: the cache may exist already, made with the same settings.
        batch_size: groups of equal size that the teacher sees in one pass.
        canvas: (height, width) of all groups; otherwise each gets the smallest that fits.
        mask: which pixels to leave out.
        settings: how the groups were chosen and whatever else should be on record; compared on resume.
        seed: on record likewise.
        engine: where the work is done; it has no influence on the cache.

    Raises:
        DataError: there are no groups, or not one of (the first hundred of) them could be made.
        CacheError: the cache exists without `resume`, or was made with other settings.
        OutputError: the disk is full or refuses; what was committed is safe.
    """
    groups = _checked(groups, batch_size)
    mask = mask or ConfidenceMask()
    licences = manifest.summary()["licences"]
    header = CacheHeader(
        teacher=teacher.name,
        weights_hash=teacher.weights_hash,
        licence=teacher.licence,
        teacher_settings=teacher.settings(),
        image_fit=asdict(fit),
        seed=seed,
        settings={**(settings or {}), "mask": asdict(mask), "canvas": canvas, "data_licences": licences},
        codec=codec,
        codec_settings=codec_settings or {},
        images=images,
        jpeg_quality=jpeg_quality,
    )
    with CacheWriter(out, codec=codec, header=header, resume=resume) as writer:
        quality = writer.header.photo_quality
        recipe = Recipe(fit=fit, codec=writer.codec, jpeg_quality=quality, mask=mask, canvas=canvas)
        maker = LabelMaker(teacher, manifest, recipe)
        missing = [group for group in groups if not writer.has(group.key)]
        results = engine(maker, make_batches(manifest, groups, recipe, batch_size, writer.has))
        done = _Writing(writer, teacher.name, len(groups), missing)
        try:
            done.take(results)
        except KeyboardInterrupt:
            logger.warning("stopped: %d groups are in %s; resume to go on", len(writer), out)
            raise
        finally:
            _close(results)
            maker.close()
    run = done.result()
    stopped = len(run.failures) + run.num_written < len(missing)
    if run.failures and not run.num_written and (stopped or not run.num_existing):
        key, reason = run.failures[0]
        tried = f"the first {len(run.failures)}" if stopped else str(len(groups))
        raise DataError(f"not one of {tried} view groups could be made. The first, {key}: {reason}")
    if run.failures:
        logger.warning("%d of %d groups failed, see failures.jsonl in %s", len(run.failures), len(groups), out)
    return run


def estimate_run(
    teacher: Teacher,
    manifest: Manifest,
    groups: Sequence[ViewGroup],
    *,
    fit: ImageFit,
    codec: str = "exact",
    codec_settings: Mapping[str, Any] | None = None,
    images: Literal["png", "jpeg"] = "png",
    jpeg_quality: int = 95,
    batch_size: int = 1,
    canvas: Size | None = None,
    mask: ConfidenceMask | None = None,
    existing: frozenset[str] = frozenset(),
    engine: Engine = pipelined,
) -> Estimate:
    """Make the first few samples as `run_teacher` would, for some seconds, and say what all will take; nothing is kept.

    Args:
        teacher, manifest, groups, fit, codec, codec_settings, images, jpeg_quality: see `run_teacher`.
        batch_size, canvas, mask, engine: see `run_teacher`.
        existing: keys of groups that are in the cache already.

    Raises:
        DataError: there are no groups, none is missing, or none of those tried could be made.
    """
    groups = _checked(groups, batch_size)
    recipe = Recipe(
        fit=fit,
        codec=get_codec(codec, codec_settings),
        jpeg_quality=CacheHeader(images=images, jpeg_quality=jpeg_quality).photo_quality,
        mask=mask or ConfidenceMask(),
        canvas=canvas,
    )
    missing = [group for group in groups if group.key not in existing]
    if not missing:
        raise DataError(f"all {len(groups)} view groups are in the cache already; there is nothing to estimate")
    maker = LabelMaker(teacher, manifest, recipe)
    results = engine(maker, make_batches(manifest, groups, recipe, batch_size, existing.__contains__))
    meter = Meter(len(missing), _num_views(missing))
    problem, tried = "", 0
    try:
        for made in results:
            meter.watch(made)
            tried += len(made)
            problem = problem or next((item.problem for item in made if item.sample is None), "")
            if meter.is_enough:
                break
    finally:
        _close(results)
        maker.close()
    found = meter.estimate()
    if found is None:
        raise DataError(f"not one of the first {tried} view groups could be made. The first: {problem}")
    return found


class _Writing:
    """Writes results in the order they come; counts, and shows how far it is."""

    def __init__(self, writer: CacheWriter, teacher: str, num_groups: int, missing: Sequence[ViewGroup]) -> None:
        self._writer, self._teacher = writer, teacher
        self._num_groups, self._num_missing = num_groups, len(missing)
        self._num_views = _num_views(missing)
        self._written = self._views = self._bytes = 0
        self._failures: dict[str, str] = {}
        self._start = time.monotonic()

    def take(self, results: Iterator[list[Made]]) -> None:
        """Write everything, or stop where it is hopeless."""
        meter = Meter(self._num_missing, self._num_views)
        told = False
        with ProgressBar(f"asking {self._teacher}", total=self._num_views, unit="views") as bar:
            for made in results:
                for item in made:
                    self._take(item)
                note = f"{megabytes(round(self._bytes / self._views))}/view" if self._views else None
                bar.advance(sum(len(item.group.frames) for item in made), note)
                if not told:
                    meter.watch(made)
                    told = meter.is_enough and self._tell(meter.estimate())
                if not self._written and len(self._failures) >= HOPELESS:
                    return

    def result(self) -> TeacherRun:
        return TeacherRun(
            path=self._writer.path,
            num_groups=self._num_groups,
            num_existing=self._num_groups - self._num_missing,
            num_written=self._written,
            num_views=self._views,
            num_bytes=self._bytes,
            seconds=time.monotonic() - self._start,
            failures=tuple(self._failures.items()),
        )

    def _take(self, item: Made) -> None:
        key = item.group.key
        if item.sample is None:
            self._failures[key] = item.problem
            self._writer.skip(key, item.problem)
            logger.info("left out %s (scene %s): %s", key, item.group.scene, item.problem)
            return
        self._bytes += self._writer.add_packed(item.sample)
        self._written += 1
        self._views += item.sample.num_views

    def _tell(self, estimate: Estimate | None) -> bool:
        if estimate is None:
            return False
        logger.info("estimate: %s", estimate.words())
        warn_of_space(self._writer.path, estimate.num_bytes - self._bytes)
        return True


def warn_of_space(out: Path, needed: int) -> int:
    """Bytes that are free where `out` is or will be; says so where these are fewer than the `needed` ones."""
    folder = next(found for found in (out.absolute(), *out.absolute().parents) if found.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        logger.warning("the cache needs %s more, but %s has %s free", megabytes(needed), out, megabytes(free))
    return free


def _checked(groups: Sequence[ViewGroup], batch_size: int) -> list[ViewGroup]:
    """Every group once.

    Raises:
        DataError: there are none.
        ConfigError: a batch of none.
    """
    if not groups:
        raise DataError(
            "there are no view groups to ask the teacher about; choose other frames or a smaller group size"
        )
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
    return list(dict.fromkeys(groups))


def _num_views(groups: Sequence[ViewGroup]) -> int:
    return sum(len(group.frames) for group in groups)


def _close(results: Iterator[list[Made]]) -> None:
    """Stop an engine that may still have work under way."""
    close = getattr(results, "close", None)
    if close is not None:
        close()

"""The teacher pass on one machine: every view group through the teacher once, its labels into a cache."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill3d.cache import CacheHeader, CacheWriter
from distill3d.data.fit import ImageFit, Size, canvas_size
from distill3d.data.groups import load_group
from distill3d.data.sampling import ViewGroup
from distill3d.data.table import Manifest
from distill3d.data.video import VideoPool
from distill3d.errors import ConfigError, DataError
from distill3d.files import megabytes
from distill3d.progress import ProgressBar, clock
from distill3d.teachers import Teacher
from distill3d.teachers.mask import ConfidenceMask, usable_pixels
from distill3d.types import Prediction, Views, collate, map_tensors

logger = logging.getLogger(__name__)
MEASURED_SECONDS = 3.0
"""After this long (and two batches) the rest of the run is estimated."""
_MAPS = ("pointmap_world", "pointmap_camera", "normal", "depth", "confidence_world", "confidence_camera")


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
    resume: bool = False,
    batch_size: int = 1,
    canvas: Size | None = None,
    mask: ConfidenceMask | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
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
        resume: the cache may exist already, made with the same settings.
        batch_size: groups of equal size that the teacher sees in one pass.
        canvas: (height, width) of all groups; otherwise each gets the smallest that fits.
        mask: which pixels to leave out.
        settings: how the groups were chosen and whatever else should be on record; compared on resume.
        seed: on record likewise.

    Raises:
        DataError: there are no groups, or not one of them could be made.
        CacheError: the cache exists without `resume`, or was made with other settings.
        OutputError: the disk is full or refuses; what was committed is safe.
    """
    groups = list(dict.fromkeys(groups))
    if not groups:
        raise DataError(
            "there are no view groups to ask the teacher about; choose other frames or a smaller group size"
        )
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
    mask = mask or ConfidenceMask()
    licences = sorted(set(manifest.table["licence"].to_pylist()) - {""})
    header = CacheHeader(
        teacher=teacher.name,
        weights_hash=teacher.weights_hash,
        licence=teacher.licence,
        teacher_settings=teacher.settings(),
        image_fit=asdict(fit),
        seed=seed,
        settings={**(settings or {}), "mask": asdict(mask), "canvas": canvas, "data_licences": licences},
    )
    with CacheWriter(out, codec=codec, header=header, resume=resume) as writer:
        job = _Pass(teacher, manifest, fit, mask, canvas, writer, len(groups), sum(len(g.frames) for g in groups))
        try:
            for batch in _batches(manifest, groups, fit, canvas, batch_size):
                job.work(batch)
        except KeyboardInterrupt:
            logger.warning("stopped: %d groups are in %s; resume to go on", len(writer), out)
            raise
        finally:
            job.close()
    done = job.result(Path(out))
    if done.failures and not done.num_written and not done.num_existing:
        key, reason = done.failures[0]
        raise DataError(f"not one of {len(groups)} view groups could be made. The first, {key}: {reason}")
    if done.failures:
        logger.warning("%d of %d groups failed, see failures.jsonl in %s", len(done.failures), len(groups), out)
    return done


class _Pass:
    """The state of one run: counters, the bar, the writer."""

    def __init__(
        self,
        teacher: Teacher,
        manifest: Manifest,
        fit: ImageFit,
        mask: ConfidenceMask,
        canvas: Size | None,
        writer: CacheWriter,
        num_groups: int,
        num_views: int,
    ) -> None:
        self._teacher, self._manifest, self._fit = teacher, manifest, fit
        self._mask, self._canvas, self._writer = mask, canvas, writer
        self._num_groups, self._num_views = num_groups, num_views
        self._existing = self._written = self._views = self._bytes = self._batches = self._passed = 0
        self._failures: dict[str, str] = {}
        self._estimated = False
        self._start = time.monotonic()
        self._videos = VideoPool()
        self._bar = ProgressBar(f"asking {teacher.name}", total=num_views, unit="views")
        self._bar.__enter__()

    def close(self) -> None:
        self._bar.__exit__(None, None, None)
        self._videos.close()

    def work(self, batch: Sequence[ViewGroup]) -> None:
        """Make the labels of a batch, always of all its members together, so that a rerun gives the same bytes."""
        missing = {group.key for group in batch if not self._writer.has(group.key)}
        self._existing += len(batch) - len(missing)
        if missing:
            self._batches += 1
            loaded: list[tuple[ViewGroup, Views]] = []
            for group in batch:
                try:
                    loaded.append((group, self._load(group)))
                except DataError as error:
                    self._fail(group, str(error))
            for group, views, prediction in self._predict(loaded):
                if group.key in missing:
                    self._keep(group, views, prediction)
        else:
            self._passed += sum(len(group.frames) for group in batch)
        note = f"{megabytes(round(self._bytes / self._views))}/view" if self._views else None
        self._bar.advance(sum(len(group.frames) for group in batch), note)
        self._estimate()

    def result(self, path: Path) -> TeacherRun:
        return TeacherRun(
            path=path,
            num_groups=self._num_groups,
            num_existing=self._existing,
            num_written=self._written,
            num_views=self._views,
            num_bytes=self._bytes,
            seconds=time.monotonic() - self._start,
            failures=tuple(self._failures.items()),
        )

    def _load(self, group: ViewGroup) -> Views:
        return load_group(self._manifest, group, self._fit, canvas=self._canvas, videos=self._videos)

    def _predict(self, loaded: list[tuple[ViewGroup, Views]]) -> Iterator[tuple[ViewGroup, Views, Prediction]]:
        alike: dict[tuple[bool, ...], list[tuple[ViewGroup, Views]]] = {}
        for group, views in loaded:
            known = tuple(value is not None for value in vars(views).values())
            alike.setdefault(known, []).append((group, views))
        for members in alike.values():
            try:
                found = self._teacher.predict(collate([views for _, views in members]))
            except DataError as error:
                # What these views lack (depth, poses), they all lack.
                for group, _ in members:
                    self._fail(group, str(error))
                continue
            for row, (group, views) in enumerate(members):
                yield group, views, _one_of(found, row)

    def _keep(self, group: ViewGroup, views: Views, prediction: Prediction) -> None:
        prediction = self._mask.apply(views, prediction)
        if problem := _find_problem(views, prediction):
            self._fail(group, problem)
            return
        info = {"scene": group.scene, "frames": list(group.frames)}
        self._bytes += self._writer.add(group.key, views, prediction, info=info)
        self._written += 1
        self._views += len(group.frames)

    def _fail(self, group: ViewGroup, reason: str) -> None:
        self._failures[group.key] = reason
        self._writer.skip(group.key, reason)
        logger.info("left out %s (scene %s): %s", group.key, group.scene, reason)

    def _estimate(self) -> None:
        elapsed = time.monotonic() - self._start
        if self._estimated or not self._views or self._batches < 2 or elapsed < MEASURED_SECONDS:
            return
        self._estimated = True
        left = self._num_views - self._passed - self._views
        if left > 0:
            rate, size = self._views / elapsed, self._bytes / self._views
            logger.info(
                "estimate: %d views left at %.3g views/s take %s; %s/view make %s in all",
                left, rate, clock(left / rate), megabytes(round(size)), megabytes(round(size * (left + self._views))),
            )  # fmt: skip


def _batches(
    manifest: Manifest, groups: Sequence[ViewGroup], fit: ImageFit, canvas: Size | None, batch_size: int
) -> Iterator[list[ViewGroup]]:
    """Neighbours of equal size, up to `batch_size`; the same lists whatever is in the cache already."""
    batch: list[ViewGroup] = []
    shape: tuple[int, Size] | None = None
    for group in groups:
        found = (len(group.frames), canvas or _canvas(manifest, group, fit))
        if batch and (found != shape or len(batch) == batch_size):
            yield batch
            batch = []
        shape = found
        batch.append(group)
    if batch:
        yield batch


def _canvas(manifest: Manifest, group: ViewGroup, fit: ImageFit) -> Size:
    rows = [manifest.row(group.scene, frame) for frame in group.frames]
    return canvas_size([(row.height, row.width) for row in rows], fit)


def _one_of(batch: Prediction, row: int) -> Prediction:
    return map_tensors(batch, lambda tensor: tensor[row : row + 1].cpu())


def _find_problem(views: Views, prediction: Prediction) -> str | None:
    """Why these labels cannot be taught, if so."""
    usable = usable_pixels(views, prediction)
    for name in _MAPS:
        values = getattr(prediction, name)
        if values is None:
            continue
        finite = values.isfinite()
        if finite.ndim == 5:
            finite = finite.all(dim=-1)
        wrong = int((usable & ~finite).sum())
        if wrong:
            return f"the teacher's {name} is not finite at {wrong} of {int(usable.sum())} usable pixels"
    return None

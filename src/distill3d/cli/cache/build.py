"""`distill3d cache build`: what a teacher says about view groups, kept on disk."""

from pathlib import Path
from typing import Any, Literal

from distill3d.cli.cache.words import told
from distill3d.cli.outcome import Outcome
from distill3d.data.fit import ImageFit
from distill3d.errors import ConfigError

DEFAULT_FIT = ImageFit()
Policy = Literal["nearby", "contiguous", "strided", "random"]


def build(
    manifest: Path,
    out: Path,
    teacher: str = "ground-truth",
    weights: str | None = None,
    variant: str | None = None,
    noise: float | None = None,
    policy: Policy = "contiguous",
    views: int = 8,
    groups: int | None = None,
    stride: int = 2,
    reach: float = 1.5,
    split: str | None = "train",
    seed: int = 0,
    fit: ImageFit = DEFAULT_FIT,
    mask_percentile: float | None = None,
    mask_threshold: float | None = None,
    batch: int = 1,
    device: str = "cpu",
    resume: bool = False,
) -> Outcome:
    """Show view groups of a manifest to a teacher once, and keep its pointmaps and confidences.

    Args:
        manifest: Parquet file of `distill3d manifest build`.
        out: folder of the cache.
        teacher: ground-truth, place, a model of `distill3d models list`, a weights file or a run folder.
        weights: weights of the teacher, where it is a model.
        variant: its configuration, for official weights.
        noise: error of the ground-truth teacher: 0 exact, 1 as a decent network, 2 twice that.
        policy: how views are grouped. nearby needs camera poses.
        views: views in a group.
        groups: how many groups; all there are for contiguous and strided, 200 for the others.
        stride: for strided: every so many frames.
        reach: for nearby: how far apart views of a group may stand and look.
        split: frames to use: train, test, or None for all.
        seed: of the grouping and of the teacher's own draws.
        fit: size of the photos the teacher sees and the cache keeps.
        mask_percentile: leave out this share (percent) of the least confident pixels.
        mask_threshold: leave out pixels of a confidence below this (above 1).
        batch: groups of one size that pass through the teacher at once.
        device: where the teacher computes.
        resume: go on with a cache that was begun with the same settings.
    """
    from distill3d import teachers
    from distill3d.data.groups import manifest_canvas
    from distill3d.data.table import load_manifest
    from distill3d.teachers.mask import ConfidenceMask
    from distill3d.teachers.run import run_teacher

    table = load_manifest(manifest)
    chosen = choose_groups(table, policy, views=views, count=groups, stride=stride, reach=reach, split=split, seed=seed)
    options: dict[str, Any] = {"weights": weights, "variant": variant, "noise": noise}
    if teacher.replace("_", "-") != "ground-truth":
        options["device"] = device
    made = teachers.load(teacher, seed=seed, **{name: value for name, value in options.items() if value is not None})
    done = run_teacher(
        made,
        table,
        chosen,
        out,
        fit=fit,
        resume=resume,
        batch_size=batch,
        canvas=manifest_canvas(table, fit, split),
        mask=ConfidenceMask(percentile=mask_percentile, threshold=mask_threshold),
        settings={"policy": policy, "views": views, "stride": stride, "reach": reach, "split": split},
        seed=seed,
    )
    summary = done.summary()
    return Outcome(summary, told({**summary, "failures": [f"{key}: {why}" for key, why in done.failures[:5]]}))


def choose_groups(
    manifest: Any,
    policy: Policy,
    *,
    views: int,
    count: int | None = None,
    stride: int = 2,
    reach: float = 1.5,
    split: str | None = None,
    seed: int = 0,
) -> list[Any]:
    """The view groups of a policy by its name.

    Raises:
        DataError: the manifest has no such groups.
        ConfigError: there is no such policy.
    """
    from distill3d.data import sampling

    if policy == "contiguous":
        return sampling.contiguous(manifest, views, count=count, seed=seed, split=split)
    if policy == "strided":
        return sampling.strided(manifest, views, stride=stride, count=count, seed=seed, split=split)
    if policy == "random":
        return sampling.random_groups(manifest, views, count=count or 200, seed=seed, split=split)
    if policy == "nearby":
        return sampling.nearby(manifest, views, count=count or 200, seed=seed, split=split, reach=reach)
    raise ConfigError(f"There is no policy {policy!r}. The policies are: nearby, contiguous, strided, random.")

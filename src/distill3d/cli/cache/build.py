"""`distill3d cache build`: what a teacher says about view groups, kept on disk."""

import inspect
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill3d.cli.cache.words import told
from distill3d.cli.outcome import Outcome
from distill3d.data.fit import ImageFit
from distill3d.errors import DataError

if TYPE_CHECKING:
    from distill3d.data.sampling import ViewGroup
    from distill3d.data.table import Manifest
    from distill3d.teachers import Teacher
    from distill3d.teachers.run import Estimate

DEFAULT_FIT = ImageFit()
Policy = Literal[
    "nearby",
    "contiguous",
    "strided",
    "random",
    "dynamic",
    "uniform",
    "single",
    "random-windows",
    "covisible",
    "adaptive",
    "explicit",
]
"""The names in `data.policies`, which is not imported for a help text."""


def build(
    manifest: tuple[Path, ...],
    out: Path,
    teacher: str = "ground-truth",
    weights: str | None = None,
    variant: str | None = None,
    noise: float | None = None,
    project: Path | None = None,
    work: Path | None = None,
    policy: Policy = "contiguous",
    views: int = 8,
    groups: int | None = None,
    stride: int = 2,
    reach: float = 1.5,
    overlap: float = 0.5,
    groups_file: Path | None = None,
    split: str | None = "train",
    seed: int = 0,
    fit: ImageFit = DEFAULT_FIT,
    mask_percentile: float | None = None,
    mask_threshold: float | None = None,
    codec: Literal["compact", "exact"] = "compact",
    bound: float | None = None,
    images: Literal["png", "jpeg"] = "png",
    jpeg_quality: int = 95,
    batch: int = 1,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    threads: int | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    ray_workers: int | None = None,
    ray_cpus: float = 1.0,
    dry_run: bool = False,
    resume: bool = False,
) -> Outcome:
    """Show view groups of a manifest to a teacher once, and keep its pointmaps and confidences.

    The first few groups tell how long all will take and how large the cache becomes; --dry-run ends there.

    Args:
        manifest: Parquet file of `distill3d manifest build`; of several, scenes are called FILE/SCENE.
        out: folder of the cache.
        teacher: ground-truth, colmap, place, a model of `distill3d models list`, a weights file or a run folder.
        weights: weights of the teacher, where it is a model.
        variant: its configuration, for official weights.
        noise: error of the ground-truth teacher: 0 exact, 1 as a decent network, 2 twice that.
        project: for colmap: folder of COLMAP models of these photos. The manifest's own if it was made from such a
            project; else models are made from the photos (needs the extra: pip install 'distill3d[colmap]').
        work: for colmap: where models that are made are kept, for the next run and for other programs.
        policy: how views are grouped. contiguous: windows of neighbours; strided: of every so many frames; adaptive:
            with the stride at which neighbours overlap by so much; dynamic: with one that fits the frame rate;
            covisible: sets of frames that overlap; nearby: of cameras that stand and look alike; single: every frame
            alone, for monocular teachers; random, random-windows, uniform: as they say; explicit: from a file.
        views: views in a group.
        groups: how many groups; all there are, or 200 where a policy could go on for ever.
        stride: for strided; the largest one for random-windows.
        reach: for nearby: how far apart views of a group may stand and look.
        overlap: for adaptive: the share of a view that the next one should see; for covisible: the least one.
        groups_file: for explicit: JSON lines of {"scene": "...", "frames": [...]}.
        split: frames to use: train, test, or None for all.
        seed: of the grouping and of the teacher's own draws.
        fit: size of the photos the teacher sees and the cache keeps.
        mask_percentile: leave out this share (percent) of the least confident pixels.
        mask_threshold: leave out pixels of a confidence below this (above 1).
        codec: compact keeps points within a bound, exact keeps float16 bit for bit.
        bound: for compact: greatest error of a point relative to its distance; 2^-11 (0.05 %) if None.
        images: how photos are stored at training size: png without loss, jpeg in about a third of the bytes.
        jpeg_quality: 1 to 100.
        batch: groups of one size that pass through the teacher at once.
        device: where the teacher computes: auto, cpu, cuda, ...; with ray every worker has one GPU of its own unless
            this is cpu (or auto on a machine without one).
        precision: what the layers of a network compute in; bf16 is about twice as fast on a GPU. Labels are float32.
        threads: that decode photos, and as many that encode labels; one for each core.
        engine: this machine, or the machines of a Ray cluster (needs the extra: pip install 'distill3d[ray]').
        ray_address: of the cluster, "auto" for the one that runs on this machine; None starts one for this run.
        ray_workers: how many; as many as the machines can hold, also those that join later, if None.
        ray_cpus: CPU cores of each worker.
        dry_run: only measure and estimate; nothing is written.
        resume: go on with a cache that was begun with the same settings.
    """
    from distill3d.data.groups import manifest_canvas
    from distill3d.data.join import join_manifests
    from distill3d.data.table import beside
    from distill3d.devices import choose_device
    from distill3d.teachers.mask import ConfidenceMask
    from distill3d.teachers.run import estimate_run, pipelined, run_teacher

    table = join_manifests(_by_name(manifest))
    grouping: dict[str, Any] = {"stride": stride, "reach": reach, "overlap": overlap, "groups_file": groups_file}
    if len(manifest) == 1 and not dry_run:
        grouping["overlaps"] = beside(manifest[0], ".overlaps.sqlite")
    chosen = choose_groups(table, policy, views=views, count=groups, split=split, seed=seed, **grouping)
    if teacher == "colmap" and project is None and len(manifest) == 1 and table.summary()["datasets"] == ["colmap"]:
        project = table.root
    options: dict[str, Any] = {"seed": seed, "weights": weights, "variant": variant, "noise": noise}
    options |= {"project": project, "work": None if dry_run else work}
    options |= {"precision": None if precision == "fp32" else precision}
    device = str(choose_device(device))
    options = {name: value for name, value in options.items() if value is not None}
    make = partial(_make_teacher, teacher, options)
    how: dict[str, Any] = {
        "fit": fit,
        "codec": codec,
        "codec_settings": {} if bound is None else {"bound": bound},
        "images": images,
        "jpeg_quality": jpeg_quality,
        "batch_size": batch,
        "canvas": manifest_canvas(table, fit, split),
        "mask": ConfidenceMask(percentile=mask_percentile, threshold=mask_threshold),
        "engine": partial(pipelined, threads=threads),
    }
    if engine == "ray":
        from distill3d.teachers.run.ray import RayEngine

        gpus = 0.0 if device == "cpu" else 1.0
        how["engine"] = RayEngine(
            build=partial(make, device), address=ray_address, workers=ray_workers, gpus=gpus, cpus=ray_cpus
        )
        device = "cpu"  # of the teacher here, which only says what it is
    made = make(device)
    if dry_run:
        existing = _existing(out) if resume else frozenset[str]()
        return _foretell(estimate_run(made, table, chosen, existing=existing, **how), out)
    grouping.pop("overlaps", None)  # where they are kept changes nothing
    settings = {"policy": policy, "views": views, "split": split, **grouping}
    done = run_teacher(made, table, chosen, out, resume=resume, settings=settings, seed=seed, **how)
    summary = done.summary()
    return Outcome(summary, told({**summary, "failures": [f"{key}: {why}" for key, why in done.failures[:5]]}))


def _by_name(paths: tuple[Path, ...]) -> dict[str, "Manifest"]:
    """The manifests by the names of their files.

    Raises:
        DataError: one cannot be read, or two have the same name.
    """
    from distill3d.data.table import load_manifest

    twice = [str(path) for path in paths if sum(path.stem == other.stem for other in paths) > 1]
    if twice:
        raise DataError(f"{' and '.join(twice)} have the same name, which their scenes would go by. Rename one.")
    return {path.stem: load_manifest(path) for path in paths}


def _make_teacher(name: str, options: dict[str, Any], device: str) -> "Teacher":
    """The teacher, on the device if it is of the kind that has one."""
    from distill3d import teachers

    has_device = "device" in inspect.signature(teachers.get(name).build).parameters
    return teachers.load(name, **options, **({"device": device} if has_device else {}))


def _existing(out: Path) -> frozenset[str]:
    from distill3d.cache import CacheReader

    return frozenset(CacheReader(out).keys()) if (out / "cache.json").exists() else frozenset()


def _foretell(estimate: "Estimate", out: Path) -> Outcome:
    from distill3d.teachers.run.job import warn_of_space

    free = warn_of_space(out, estimate.num_bytes)
    data = {**estimate.summary(), "dry_run": True, "free_gigabytes": round(free / 1e9, 4)}
    return Outcome(data, f"{estimate.words()}\n{free / 1e9:.3g} GB are free. Nothing was written.")


def choose_groups(manifest: "Manifest", policy: Policy, *, views: int, **options: Any) -> list["ViewGroup"]:
    """The view groups of a policy by its name; `options` as in `data.policies.PolicyOptions`.

    Raises:
        DataError: the manifest has no such groups.
        ConfigError: there is no such policy.
    """
    from distill3d.data import policies

    return policies.choose_groups(manifest, policy, views, policies.PolicyOptions(**options))

"""`distill3d finetune RECIPE`: sharper geometry for a finished network, from photos and a monocular teacher."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from distill3d.cli.outcome import Outcome
from distill3d.data.fit import ImageFit
from distill3d.errors import ConfigError
from distill3d.train.refine_config import RefineConfig
from distill3d.train.refine_recipes import RECIPES, get_recipe

SIDES = {14: 518, 16: 512}
"""Longer side of photos by patch size: what the large networks were trained at."""


@dataclass(frozen=True, kw_only=True)
class FinetuneArguments:
    """What was said on the command line; see `_parse`."""

    out: Path
    photos: Path | None
    photo_cache: tuple[Path, ...]
    teacher: tuple[str, ...]
    teacher_weights: tuple[str, ...]
    replay: tuple[Path, ...]
    validation_photos: Path | None
    validation_replay: Path | None
    long_side: int | None
    budget: str | None
    resume: bool
    config: RefineConfig


def _parse(recipe: str, arguments: Sequence[str]) -> FinetuneArguments:
    """The arguments after a recipe's name; its settings are the defaults."""
    settings = get_recipe(recipe)
    said = {word.split("=")[0] for word in arguments}
    if "--steps" in said and "--epochs" not in said:
        settings = replace(settings, epochs=None)  # who counts steps does not count epochs

    def read(
        out: Path,
        photos: Path | None = None,
        photo_cache: tuple[Path, ...] = (),
        teacher: tuple[str, ...] = ("moge",),
        teacher_weights: tuple[str, ...] = (),
        replay: tuple[Path, ...] = (),
        validation_photos: Path | None = None,
        validation_replay: Path | None = None,
        long_side: int | None = None,
        budget: str | None = None,
        resume: bool = False,
        config: Annotated[RefineConfig, tyro.conf.arg(name="")] = settings,
    ) -> FinetuneArguments:
        """Refine the encoder of a finished network. Every setting of the recipe can be changed on the command line.

        With --photos and one --photo-cache the teacher first looks at every photo once, into the cache (it goes on
        where it stopped); with --photos alone it looks at them while training; with --photo-cache alone its labels are
        there already.

        Args:
            out: run folder to write: adapter.safetensors, report.html, metrics.jsonl, pictures/, checkpoints/.
            photos: folder of photos, or a manifest. No labels are needed.
            photo_cache: what the teacher says about single photos.
            teacher: moge, another teacher, a weights file or run folder; several make an ensemble.
            teacher_weights: of each teacher that needs some, in the same order.
            replay: caches of exact labels of several views (`cache build --teacher ground-truth`), so that the views
                go on agreeing.
            validation_photos: a cache of labelled photos to watch; None holds back a share.
            validation_replay: the same of several views.
            long_side: longer side of the photos in pixels; 518 or 512, as the patches allow, if not said.
            budget: memory of the device, e.g. 24GB; chooses batch, accumulation and recomputing.
            resume: go on from the newest checkpoint of the run folder.
            config: the recipe, with what was changed.
        """
        return FinetuneArguments(**locals())

    return tyro.cli(read, prog=f"distill3d finetune {recipe}", args=list(arguments))


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb: a recipe's name first, then settings."""
    if not arguments or arguments[0].startswith("-"):
        if arguments and arguments[0] in ("-h", "--help"):
            lines = [f"  {name:<10}{(make.__doc__ or '').splitlines()[0]}" for name, make in RECIPES.items()]
            usage = "usage: distill3d finetune RECIPE --base vggt --weights FILE --photos FOLDER --out RUN [SETTINGS]"
            print("\n".join([usage, "", "Recipes (distill3d finetune RECIPE --help lists the settings):", *lines]))
            sys.exit(0)
        raise ConfigError(f"Which recipe? `distill3d finetune RECIPE --base B ...`; one of: {', '.join(RECIPES)}.")
    recipe, *rest = arguments
    return run(_parse(recipe, rest))


def run(given: FinetuneArguments) -> Outcome:
    """Gather the data, refine, and write the report."""
    from distill3d.train.budget import fit_budget, parse_budget
    from distill3d.train.refine import finetune
    from distill3d.viewer.refine import refine_report
    from distill3d.viewer.report import write_report

    fit = image_fit(given.config.base, given.long_side)
    sources = _sources(given, fit)
    config = given.config
    if given.budget is not None:
        side = -(-fit.long_side // fit.multiple) * fit.multiple
        config = fit_budget(config, parse_budget(given.budget), (side, side))
    done = finetune(config, sources, given.out, resume=given.out if given.resume else None)
    report = write_report(done.out / "report.html", refine_report(done.out))
    data = {**asdict(done), "out": str(done.out), "weights": str(done.weights), "report": str(report)}
    pace = f"{done.samples_per_second:.1f} photos/s"
    lines = [f"{done.steps} steps in {done.seconds:.0f} s ({pace}), loss {done.loss:.4g}"]
    lines.append(f"peak memory {done.peak_memory_mb / 1000:.2f} GB")
    lines += comparison(done.validation)
    lines += [f"the adapter is {done.weights}", f"look at {report}"]
    return Outcome(data, "\n".join(lines))


def comparison(scores: dict[str, float]) -> list[str]:
    """A line for every score that the frozen base has too."""
    names = [name for name in scores if f"{name}_base" in scores]
    return [f"{name.replace('_', ' '):<22} {scores[f'{name}_base']:>9.4g} -> {scores[name]:.4g}" for name in names]


def image_fit(base: str, long_side: int | None) -> ImageFit:
    """The size of photos for a network.

    Raises:
        ConfigError: no such network.
    """
    from distill3d import models

    patch = models.get(base).patch_size or 14
    return ImageFit(long_side=long_side or SIDES.get(patch, 32 * patch), multiple=patch)


def _sources(given: FinetuneArguments, fit: ImageFit) -> Any:
    """Where the batches come from; runs the teacher over the photos if there is a cache to fill."""
    from distill3d.train.refine_data import RefineSources, as_manifest, cache_photos

    if given.photos is None and not given.photo_cache:
        raise ConfigError("There is nothing to learn from. Give --photos FOLDER, or a --photo-cache of labelled ones.")
    manifest = teacher = None
    if given.photos is not None:
        teacher = load_teachers(given.teacher, given.teacher_weights, given.config.device)
        if given.photo_cache:
            if len(given.photo_cache) != 1:
                raise ConfigError(f"--photos fill one cache, but --photo-cache names {len(given.photo_cache)}.")
            cache_photos(given.photos, teacher, given.photo_cache[0], fit=fit)
            teacher = None
        else:
            manifest = as_manifest(given.photos)
    return RefineSources(
        photo_caches=given.photo_cache,
        photos=manifest,
        teacher=teacher,
        fit=fit,
        replay_caches=given.replay,
        validation_photos=given.validation_photos,
        validation_replay=given.validation_replay,
    )


def load_teachers(names: Sequence[str], weights: Sequence[str], device: str) -> Any:
    """One teacher, or an ensemble of several.

    Raises:
        ConfigError: no such teacher, or more weights than teachers that take some.
        CheckpointError: weights that are missing or do not fit.
    """
    from distill3d import models, teachers
    from distill3d.devices import choose_device

    left = list(weights)
    members = []
    for name in names:
        options: dict[str, Any] = {} if name == "ground-truth" else {"device": choose_device(device)}
        if name in models.names() and left:
            options["weights"] = left.pop(0)
        members.append(teachers.load(name, **options))
    if left:
        takers = [name for name in names if name in models.names()]
        raise ConfigError(
            f"{len(left)} of --teacher-weights belong to no teacher: {', '.join(left)}. Of {', '.join(names)}, weights "
            f"are taken by {', '.join(takers) or 'none'}; to teach with a network of your own, name its model."
        )
    return members[0] if len(members) == 1 else teachers.load("ensemble", members=members)

"""`distill3d train RECIPE`: a student from a cache."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distill3d.cli.outcome import Outcome
from distill3d.errors import ConfigError
from distill3d.train.config import DistillConfig
from distill3d.train.recipes import RECIPES, get_recipe


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What was said on the command line; see `_parse`."""

    cache: tuple[Path, ...]
    out: Path
    validation_cache: tuple[Path, ...]
    resume: bool
    config: DistillConfig


def _parse(recipe: str, arguments: Sequence[str]) -> TrainArguments:
    """The arguments after a recipe's name; its settings are the defaults."""
    settings = get_recipe(recipe)

    # A function, not the record itself: the record's defaults do not know the recipe.
    def read(
        cache: tuple[Path, ...],
        out: Path,
        validation_cache: tuple[Path, ...] = (),
        resume: bool = False,
        config: Annotated[DistillConfig, tyro.conf.arg(name="")] = settings,
    ) -> TrainArguments:
        """Distil a student from a teacher's cache. Every setting of the recipe can be changed on the command line.

        Args:
            cache: folder of `distill3d cache build`, or several; --mix says how often each has its turn.
            out: run folder to write: config.json, metrics.jsonl, checkpoints/, pictures/, student.safetensors.
            validation_cache: labels to watch on; without it a share of each cache is held back.
            resume: go on from the newest checkpoint of the run folder.
            config: the recipe, with what was changed.
        """
        return TrainArguments(cache=cache, out=out, validation_cache=validation_cache, resume=resume, config=config)

    return tyro.cli(read, prog=f"distill3d train {recipe}", args=list(arguments))


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb: a recipe's name first, then settings."""
    if not arguments or arguments[0].startswith("-"):
        if arguments and arguments[0] in ("-h", "--help"):
            lines = [f"  {name:<15}{(make.__doc__ or '').splitlines()[0]}" for name, make in RECIPES.items()]
            usage = "usage: distill3d train RECIPE --cache CACHE --out RUN [SETTINGS]"
            print("\n".join([usage, "", "Recipes (distill3d train RECIPE --help lists the settings):", *lines]))
            sys.exit(0)
        raise ConfigError(f"Which recipe? `distill3d train RECIPE --cache C --out RUN`; one of: {', '.join(RECIPES)}.")
    recipe, *rest = arguments
    given = _parse(recipe, rest)

    from distill3d.train.distil import train

    done = train(
        given.config,
        given.cache,
        given.out,
        validation_cache=given.validation_cache,
        resume=given.out if given.resume else None,
    )
    data = {**asdict(done), "out": str(done.out), "weights": str(done.weights)}
    scores = ", ".join(f"{name} {value:.4g}" for name, value in done.validation.items())
    return Outcome(
        data,
        f"{done.steps} steps in {done.seconds:.0f} s ({done.samples_per_second:.1f} samples/s), loss {done.loss:.4g}"
        + (f"\nheld-out groups against the teacher: {scores}" if scores else "")
        + f"\nthe student is {done.weights}",
    )

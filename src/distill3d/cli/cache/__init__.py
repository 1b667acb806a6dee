"""`distill3d cache WORD`: what a teacher says about view groups, kept on disk. One file a word."""

from collections.abc import Callable, Sequence

from distill3d.cli.outcome import Outcome, parse_subcommand


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    from distill3d.cli.cache.build import build
    from distill3d.cli.cache.check import check
    from distill3d.cli.cache.convert import convert
    from distill3d.cli.cache.merge import merge
    from distill3d.cli.cache.show import show

    words: dict[str, Callable[..., Outcome]] = {
        "build": build,
        "check": check,
        "show": show,
        "merge": merge,
        "convert": convert,
    }
    return parse_subcommand(words, "cache", arguments)

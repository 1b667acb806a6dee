"""`distill3d cache build|check|show`: what a teacher says about view groups, kept on disk. One file a word."""

from collections.abc import Sequence

from distill3d.cli.outcome import Outcome, parse_subcommand


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    from distill3d.cli.cache.build import build
    from distill3d.cli.cache.check import check
    from distill3d.cli.cache.show import show

    return parse_subcommand({"build": build, "check": check, "show": show}, "cache", arguments)

"""`distill3d report RUN`: one self-contained page about a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from distill3d.cli.outcome import Outcome, parse_command
from distill3d.errors import ConfigError


def report(
    run: Annotated[Path, tyro.conf.Positional],
    out: Path = Path("report.html"),
    evaluation: Path | None = None,
    manifest: Path | None = None,
    photos: Path | None = None,
    max_photos: int = 16,
    title: str | None = None,
) -> Outcome:
    """Show a run: curves, settings and licences; with an evaluation its table and maps; with photos a point cloud.

    Args:
        run: folder of `distill3d train` or `distill3d finetune`.
        out: the HTML file to write; it needs no network and no other file.
        evaluation: folder of `distill3d evaluate`.
        manifest: of the evaluated photos, to show their maps.
        photos: what the student reconstructs for the page: a folder of photos, a scene or a video.
        max_photos: at most so many of them.
        title: heading of the page.
    """
    from distill3d.checkpoints import load_saved
    from distill3d.data.fit import ImageFit
    from distill3d.data.sources import load_source
    from distill3d.data.table import load_manifest
    from distill3d.eval.run import load_evaluation
    from distill3d.files import read_json
    from distill3d.infer.reconstruct import reconstruct
    from distill3d.viewer.assemble import assemble_report
    from distill3d.viewer.refine import refine_report
    from distill3d.viewer.report import write_report

    if not (run / "config.json").is_file():
        raise ConfigError(f"{run} is not a run folder: it has no config.json. Give the --out of `distill3d train`.")
    if read_json(run / "config.json").get("kind") == "refine":
        return _outcome(write_report(out, refine_report(run, title)))
    cloud = None
    if photos is not None:
        student, _ = load_saved(run)
        fit = ImageFit(**read_json(run / "config.json")["cache"]["header_fields"]["image_fit"])
        loaded = load_source(photos, fit, max_views=max_photos)
        cloud = reconstruct(student, loaded.views, names=loaded.names)
    data = assemble_report(
        title or f"distill3d: {run.name}",
        run=run,
        evaluation=None if evaluation is None else load_evaluation(evaluation),
        manifest=None if manifest is None else load_manifest(manifest),
        reconstruction=cloud,
    )
    return _outcome(write_report(out, data))


def _outcome(path: Path) -> Outcome:
    size = path.stat().st_size
    return Outcome({"report": str(path), "bytes": size}, f"{path} ({size / 1e6:.1f} MB): open it in any browser")


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    return parse_command(report, "report", arguments)

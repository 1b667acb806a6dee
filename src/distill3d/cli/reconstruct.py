"""`distill3d reconstruct PHOTOS`: photos or a video in, one point cloud with cameras out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from distill3d.cli.outcome import Outcome, parse_command
from distill3d.devices import Precision
from distill3d.errors import ConfigError

Format = Literal["ply", "glb", "png", "npz", "cameras", "info"]
ALL_FORMATS: tuple[Format, ...] = ("ply", "glb", "png", "npz", "cameras", "info")
OWNED = ("points.ply", "points.glb", "depth", "cameras.json", "info.json")
"""What the command writes into its folder."""
_SHOWN = 10


def reconstruct(
    photos: Annotated[Path, tyro.conf.Positional],
    model: str,
    out: Path,
    weights: str | None = None,
    variant: str | None = None,
    max_views: int | None = None,
    rate: float = 2.0,
    long_side: int | None = None,
    mode: Literal["pad", "crop"] | None = None,
    percentile: float = 20.0,
    window: int = 64,
    head_chunk: int | None = None,
    precision: Precision = "auto",
    max_points: int | None = 2_000_000,
    formats: tuple[Format, ...] = ALL_FORMATS,
    device: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
) -> Outcome:
    """Reconstruct one place: a coloured point cloud, and depth and camera of every photo, in the frame of the first.

    Photos may have any sizes and orientations; files that cannot be read are left out and listed. Where the source
    knows its cameras (an annotated scene), they are not used, but the errors against them are reported.

    Args:
        photos: a folder of photos, an annotated scene, or a video.
        model: a run folder, a weight file, a shipped network (place), or an architecture with --weights.
        out: folder for points.ply, points.glb, depth/, cameras.json and info.json.
        weights: where --model is an architecture: its weights, a file, run folder or hub id.
        variant: of the architecture, for official weights.
        max_views: of more photos than this, so many are taken, spread over all of them.
        rate: frames per second taken from a video.
        long_side: pixels of the longer side of every photo; as the model was trained if its weights tell, else 518.
        mode: pad shows every photo whole, crop cuts them to one shape; as trained if the weights tell, else pad.
        percentile: this share (percent) of the points, the least certain, is left out of the clouds.
        window: photos that pass through the model at once; more go in windows that share some. Bounds the memory.
        head_chunk: photos that pass through the model's heads at once; as many as fit into 2 GiB if not given. It
            changes no value.
        precision: what the layers compute in: bf16, fp32, or auto (bf16 where an accelerator has it).
        max_points: of more points than this, an even random choice is written.
        formats: what to write.
        device: auto, cpu, cuda, ...
        seed: of the choice of points and of PnP.
        overwrite: replace older results in --out.
    """
    from distill3d.data.sources import load_source
    from distill3d.devices import choose_device
    from distill3d.eval.known_cameras import known_camera_errors
    from distill3d.export.folder import export_reconstruction
    from distill3d.export.staged import claim_output, staged_output
    from distill3d.infer.network import open_network
    from distill3d.infer.reconstruct import reconstruct as run_model

    _check_numbers(max_views=max_views, window=window, head_chunk=head_chunk, max_points=max_points)
    claim_output(out, owned=OWNED, overwrite=overwrite)
    network = open_network(model, weights=weights, variant=variant, device=choose_device(device))
    fit = network.choose_fit(long_side, mode)
    loaded = load_source(photos, fit, rate=rate, max_views=max_views)
    found = run_model(
        network.model,
        loaded.views,
        names=loaded.names,
        confidence_percentile=percentile,
        head_chunk=head_chunk,
        precision=precision,
        max_views=min(window, network.most_views or window),
        seed=seed,
    )
    errors = known_camera_errors(found, loaded.views)
    skipped = [{"path": entry.path, "reason": entry.reason} for entry in loaded.skipped]
    about = {
        "source": str(photos),
        "skipped": skipped,
        "network": network.summary(),
        "image_fit": {"long_side": fit.long_side, "multiple": fit.multiple, "mode": fit.mode},
        "errors_against_known_cameras": errors or None,
    }
    found = replace(found, info={**found.info, **about})
    with staged_output(out, owned=OWNED) as stage:
        written = export_reconstruction(
            found, stage, formats=formats, max_points=max_points, seed=seed, placements=loaded.placements
        )
        files = {kind: str(out / path.relative_to(stage)) for kind, path in written.items()}
    points = int(found.keep.sum())
    data = {
        **about,
        "views": list(found.names),
        "num_points": points,
        "size": list(found.views.images.shape[-2:]),
        "files": files,
    }
    return Outcome(data, _text(data, found.info))


def _check_numbers(**given: int | None) -> None:
    fewest = {"window": 3, "max_views": 2}
    for name, value in given.items():
        least = fewest.get(name, 1)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}, expected {least} or more.")


def _text(data: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    height, width = data["size"]
    seconds = info["seconds_model"] + info["seconds_cameras"]
    lines = [
        f"{len(data['views'])} photos at {width}x{height} with {data['network']['name']} "
        f"({data['network']['parameters'] / 1e6:.2f} M parameters): {data['num_points']} points in {seconds:.1f} s"
    ]
    if undetermined := info["undetermined_views"]:
        named = ", ".join(data["views"][view] for view in undetermined[:_SHOWN])
        lines.append(f"cameras that could not be determined, and are guesses: {named}")
    lines += [f"left out: {Path(entry['path']).name}: {entry['reason']}" for entry in data["skipped"][:_SHOWN]]
    if len(data["skipped"]) > _SHOWN:
        lines.append(f"... and {len(data['skipped']) - _SHOWN} more (--json lists all)")
    errors = data["errors_against_known_cameras"]
    if errors and "rotation_median_deg" in errors:
        lines.append(
            f"against the known cameras, median of {errors['num_pairs']} pairs: "
            f"rotation {errors['rotation_median_deg']:.1f} degrees, "
            + (
                f"direction of translation {errors['translation_median_deg']:.1f} degrees"
                if errors["translation_median_deg"] is not None
                else "no translation"
            )
        )
    if errors and "focal_percent" in errors:
        lines.append(f"against the known focal lengths: {errors['focal_percent']:.1f} % off (median)")
    return "\n".join([*lines, *(f"  {path}" for path in data["files"].values())])


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    return parse_command(reconstruct, "reconstruct", arguments)

"""`distill3d models list|show`: the architectures, what they weigh, and what their weights may be used for."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro

from distill3d.cli.outcome import Outcome, parse_subcommand

_COMMERCIAL = {True: "allowed", False: "not allowed", None: "unknown"}


def list_models() -> Outcome:
    """Name every architecture with its variants, their parameters, and the licences of official weights."""
    from distill3d import models

    found = [_describe(name) for name in models.names()]
    shipped = _shipped()
    lines: list[str] = []
    for one in found:
        lines.append(f"{one['name']}: {one['summary']} ({one['views']} views, patch {one['patch_size'] or 'varies'})")
        width = max(map(len, one["variants"]))
        lines += [f"  {variant:<{width}}  {_size(count)}" for variant, count in one["variants"].items()]
        lines.append(f"  code: {_code_licences(one)}")
        lines += [_licence_line(source, entry) for source, entry in one["licences"].items()]
    lines += ["", "networks that ship with the package:"]
    lines += [f"  {one['name']}: {one['description']}. {one['state']}" for one in shipped]
    lines += ["", "distill3d models show NAME tells more; NAME may also be a weight file or a run folder."]
    return Outcome({"models": found, "shipped": shipped}, "\n".join(lines))


def show(name: Annotated[str, tyro.conf.Positional], variant: str | None = None) -> Outcome:
    """Tell all about one architecture, or about a weight file or run folder: where it comes from, its licences.

    Args:
        name: an architecture, a shipped network, a weight file or a run folder.
        variant: whose settings to list, for an architecture; the default one otherwise.
    """
    from distill3d import models
    from distill3d.infer.network import open_network

    if name not in models.names():
        network = open_network(name)
        return _show_network(network.summary(), network.meta, getattr(network.model, "config", None))
    chosen = variant or next(iter(models.get(name).variants))
    settings = dataclasses.asdict(models.get(name).variant(chosen))
    about = {**_describe(name), "variant": chosen, "settings": settings}
    lines = [
        f"{name}: {about['summary']}",
        f"views: {about['views']}",
        f"patch size: {about['patch_size'] or 'varies'}",
        f"code: {_code_licences(about)}",
    ]
    lines += [f"variant {key}: {_size(count).strip()}" for key, count in about["variants"].items()]
    lines += [_licence_line(source, entry).strip() for source, entry in about["licences"].items()]
    lines += ["", f"settings of variant {chosen}:", *(f"  {key} = {value!r}" for key, value in settings.items())]
    return Outcome(about, "\n".join(lines))


def commercial_use(licence: str) -> bool | None:
    """Whether a licence is known to allow commercial use; None where its name does not tell."""
    from distill3d import checkpoints

    return checkpoints.commercial_use(licence)


def count_parameters(name: str, variant: str) -> int:
    """Parameters of a variant, without making them: on the meta device."""
    import torch

    from distill3d import models

    spec = models.get(name)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in spec.build(spec.variant(variant)).parameters())


def _describe(name: str) -> dict[str, Any]:
    from distill3d import models

    spec = models.get(name)
    return {
        "name": name,
        "summary": (sys.modules[spec.build.__module__].__doc__ or name).strip().splitlines()[0].rstrip("."),
        "views": spec.views,
        "patch_size": spec.patch_size,
        "code_licence": "Apache-2.0",
        "reference_licence": spec.reference_licence,
        "variants": {variant: count_parameters(name, variant) for variant in spec.variants},
        "licences": {
            source: {"licence": licence, "commercial_use": commercial_use(licence)}
            for source, licence in spec.licences.items()
        },
    }


def _shipped() -> list[dict[str, str]]:
    from distill3d import teachers
    from distill3d.errors import CheckpointError

    try:
        made = teachers.load("place")
        state = f"Licence {made.licence}; commercial use {_COMMERCIAL[commercial_use(made.licence)]}."
    except CheckpointError as error:
        state = str(error)
    return [{"name": "place", "description": teachers.get("place").description, "state": state}]


def _size(parameters: int) -> str:
    return f"{parameters:>13,} parameters, {4e-6 * parameters:>7,.1f} MB in float32"


def _code_licences(about: Mapping[str, Any]) -> str:
    return f"{about['code_licence']} (ours; the authors': {about['reference_licence']})"


def _licence_line(source: str, entry: Mapping[str, Any]) -> str:
    return f"  {source}: {entry['licence']}; commercial use {_COMMERCIAL[entry['commercial_use']]}"


def _show_network(summary: Mapping[str, Any], meta: Mapping[str, Any], config: Any) -> Outcome:
    settings = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else {}
    allowed = commercial_use(summary["licence"])
    about = {**summary, "commercial_use": allowed, "settings": settings, "meta": dict(meta)}
    lines = [
        f"{summary['name']}: {summary['architecture']}, {summary['parameters']:,} parameters",
        f"licence: {summary['licence']}; commercial use {_COMMERCIAL[allowed]}",
        *(f"  {entry}" for entry in meta.get("licence_chain", ())),
        f"weights: sha256 {summary['weights_sha256']}",
    ]
    if fit := meta.get("cache", {}).get("image_fit"):
        lines.append(f"trained at: {', '.join(f'{key} {value}' for key, value in fit.items())}")
    caches = [meta.get("cache", {}), *meta.get("more_caches", ())]
    if licences := [name for cache in caches for name in cache.get("settings", {}).get("data_licences", ())]:
        lines.append(f"photos it learned from: {', '.join(dict.fromkeys(licences))}")
    if teacher := meta.get("teacher"):
        lines.append(f"teacher: {teacher}")
    if scores := meta.get("validation"):
        lines.append("validation: " + ", ".join(f"{key} {value:.4g}" for key, value in scores.items()))
    return Outcome(about, "\n".join(lines))


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    return parse_subcommand({"list": list_models, "show": show}, "models", arguments)

"""`distill3d evaluate --benchmark efficiency|feature-norm`: what a network costs, and where its features lie."""

from dataclasses import asdict
from pathlib import Path

from distill3d.cli.outcome import Outcome
from distill3d.errors import ConfigError


def measure(
    name: str,
    model: str,
    *,
    weights: str | None,
    variant: str | None,
    long_side: int | None,
    device: str,
    out: Path | None,
    most_views: int | None = None,
    data: Path | None = None,
) -> Outcome:
    """Measure one network; see `eval.efficiency`."""
    from distill3d import models
    from distill3d.devices import choose_device
    from distill3d.eval import efficiency
    from distill3d.eval.inputs import input_size
    from distill3d.files import write_json
    from distill3d.infer.network import open_network

    chosen = choose_device(device)
    if name == efficiency.EFFICIENCY and model in models.names() and weights is None:
        spec = models.get(model)
        network = spec.build(spec.variant(variant)).eval().requires_grad_(False).to(chosen)
        label, patch = f"{model}:{variant or next(iter(spec.variants))}", spec.patch_size or 1
    else:
        opened = open_network(model, weights=weights, variant=variant, device=chosen)
        network, label, patch = opened.model, opened.label, opened.patch_size
    side = long_side or max(efficiency.SIZE)
    size = input_size(efficiency.SIZE, side, patch)
    if name == efficiency.FEATURE_NORM:
        return _feature_norm(network, label, side, patch, data)
    counts = [count for count in efficiency.NUM_VIEWS if most_views is None or count <= most_views]
    if not counts:
        raise ConfigError(f"--limit {most_views} leaves nothing to measure; the fewest views are 12.")
    costs = efficiency.measure_costs(network, counts, size)
    what = _device_name(str(chosen))
    result = {
        "protocol": efficiency.EFFICIENCY_PROTOCOL,
        "model": label,
        "device": what,
        "size": list(size),
        "costs": [asdict(cost) for cost in costs],
    }
    if out is not None:
        write_json(out / "efficiency.json", result)
    return Outcome(result, efficiency.costs_markdown(label, costs, what, size))


def _feature_norm(network: object, label: str, side: int, patch: int, data: Path | None) -> Outcome:
    import torch
    from torch import nn

    from distill3d.data.fit import ImageFit
    from distill3d.data.sources import load_source
    from distill3d.eval import efficiency
    from distill3d.eval.benchmarks.synthetic import HELD_OUT_SEED, KINDS, photograph
    from distill3d.eval.inputs import input_size, resize_images

    assert isinstance(network, nn.Module)
    if data is not None:
        fit = ImageFit(long_side=side // patch * patch, multiple=patch, mode="crop")
        images, shown = load_source(data, fit).views.images[0], str(data)
    else:
        scenes = torch.cat([photograph(kind, HELD_OUT_SEED).images[0] for kind in KINDS])
        size = input_size((scenes.shape[-2], scenes.shape[-1]), side, patch)
        images, shown = resize_images(scenes[None], size)[0], "rendered scenes"
    norm = efficiency.feature_norm(network, images)
    published = "; ".join(f"{name} {value}" for name, value in efficiency.PUBLISHED_NORMS.items())
    protocol = efficiency.FEATURE_NORM_PROTOCOL
    result = {"protocol": protocol, "model": label, "feature_norm": norm, "photos": len(images), "source": shown}
    text = f"{label}: mean feature norm {norm:.4f} over {len(images)} photos ({shown}), protocol {protocol}"
    return Outcome(result, f"{text}\nFin3R: {published}")


def _device_name(device: str) -> str:
    import platform

    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return f"{torch.get_num_threads()} threads of {platform.machine()}"

"""`distill3d weights merge|convert|check`: adapters into networks, official files to ours and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from distill3d.cli.outcome import Outcome, parse_subcommand
from distill3d.errors import CheckpointError, ConfigError


def merge(
    adapter: Annotated[Path, tyro.conf.Positional],
    out: Path,
    weights: str | None = None,
    variant: str | None = None,
    to: Literal["ours", "official"] = "ours",
) -> Outcome:
    """Put an adapter into the weights of its base: the result is as fast and as large as the base.

    Args:
        adapter: file of `distill3d finetune`, or its run folder.
        out: .safetensors to write.
        weights: of the base, those that the adapter was trained on; None for what the adapter names.
        variant: configuration of the base, where official weights do not tell it.
        to: ours (brings its settings along) or official (the names that the authors' code reads).
    """
    from distill3d import adapters, models
    from distill3d.adapters.files import read_adapter

    info = read_adapter(adapter)
    base = info.meta.get("base", {})
    model, loaded = _open_base(info.model, weights or base.get("source"), variant or base.get("variant"))
    adapters.load_adapter(adapter, model)
    names = adapters.merge(model)
    meta = {**info.meta, "licence": info.meta.get("licence", loaded.licence), "merged": {"rule": info.rule}}
    _write(out, model, models.get(info.model), info.model, meta, to)
    data = {"out": str(out), "model": info.model, "rule": info.rule, "layers": list(names), "to": to}
    return Outcome(data, f"{len(names)} layers of {info.model} merged ({info.rule}); the network is {out}")


def convert(
    source: Annotated[Path, tyro.conf.Positional],
    out: Path,
    model: str | None = None,
    weights: str | None = None,
    variant: str | None = None,
    to: Literal["ours", "official", "peft", "peft-official"] = "ours",
    alpha: float = 8.0,
) -> Outcome:
    """Turn a weight or adapter file into another format. What a file holds besides is told, never dropped silently.

    Args:
        source: official weights, one of our files, a released adapter of Fin3R, or an adapter of ours.
        out: .safetensors to write; a folder for peft.
        model: the architecture; not needed for our own files.
        weights: of the base, for adapters.
        variant: configuration, where official weights do not tell it.
        to: ours; official names; peft, a DoRA adapter for our network; or peft-official, one for the authors'.
        alpha: of a released adapter, which does not hold it.
    """
    from distill3d import adapters, models
    from distill3d.adapters.files import is_adapter, read_adapter
    from distill3d.checkpoints.read import read_weights

    if is_adapter(source):
        info = read_adapter(source)
        base = info.meta.get("base", {})
        if to == "ours":
            raise ConfigError(f"{source} is an adapter of ours already. Say --to peft, or merge it into its base.")
        if to == "official":
            raise ConfigError(f"{source} is an adapter; `distill3d weights merge --to official` writes whole weights.")
        network, _ = _open_base(info.model, weights or base.get("source"), variant or base.get("variant"))
        adapters.load_adapter(source, network)
        adapters.export_dora(out, network, spec=models.get(info.model) if to == "peft-official" else None)
        return Outcome({"out": str(out), "to": to}, f"peft reads {out} (DoRA, {len(info.layers)} layers)")
    tensors = read_weights(source) if source.is_file() else {}
    if any(".lora_A" in name for name in tensors):
        if model is None or to != "ours":
            raise ConfigError(f"{source} is an adapter of others. Name its base with --model; it becomes one of ours.")
        network, loaded = _open_base(model, weights, variant)
        report = adapters.load_fin3r(network, models.get(model), tensors, source=str(source), alpha=alpha)
        meta = {"licence": loaded.licence, "base": {"source": weights, "variant": variant}, "origin": source.name}
        adapters.save_adapter(out, network, model_name=model, meta=meta)
        data = {
            "out": str(out),
            "layers": list(report.layers),
            "rank": report.rank,
            "base_entries": report.base_entries,
            "unexpected": list(report.unexpected),
        }
        lines = [f"{len(report.layers)} layers of rank {report.rank}, rule activation_qkv, are in {out}"]
        if report.base_entries:
            lines.append(f"{report.base_entries} weights of the base came with the file and are left out")
        lines += [f"not used: {', '.join(report.unexpected)}"] if report.unexpected else []
        return Outcome(data, "\n".join(lines))
    if to.startswith("peft"):
        raise ConfigError(f"{source} holds no adapter, so there is nothing for peft.")
    network, loaded = _open_base(model or str(source), None if model is None else str(source), variant)
    name = loaded.model
    _write(out, network, models.get(name), name, {**loaded.meta, "licence": loaded.licence}, to)
    return Outcome({"out": str(out), "model": name, "to": to}, f"{name} is in {out} ({to})")


def check(source: Annotated[Path, tyro.conf.Positional], model: str | None = None) -> Outcome:
    """Say what a weight or adapter file holds, and whether it is whole.

    Args:
        source: a file or run folder.
        model: for official weights: the architecture they should fit.
    """
    from distill3d import checkpoints, models
    from distill3d.adapters.files import is_adapter, read_adapter
    from distill3d.checkpoints.read import read_weights

    if is_adapter(source):
        info = read_adapter(source)
        tensors = read_weights(info.path)
        _need_finite(info.path, tensors)
        data: dict[str, Any] = {
            "kind": "adapter",
            "model": info.model,
            "rule": info.rule,
            "rank": info.rank,
            "alpha": info.alpha,
            "layers": len(info.layers),
            "parameters": sum(tensor.numel() for tensor in tensors.values()),
            "base_hash": info.base_hash,
            "licence": info.meta.get("licence"),
        }
        return Outcome(data, _lines(data))
    file = checkpoints.find_weights(source)
    tensors = read_weights(file)
    _need_finite(file, tensors)
    count = sum(tensor.numel() for tensor in tensors.values())
    if any(".lora_A" in name for name in tensors):
        layers = sum(".lora_A" in name for name in tensors)
        data = {"kind": "adapter of others", "layers": layers, "entries": len(tensors), "parameters": count}
        return Outcome(data, _lines(data) + "\n`distill3d weights convert --model NAME` makes one of ours of it")
    if model is None:
        network, info_ = checkpoints.load_with_info(source)
        data = {"kind": "weights", "model": info_.model, "licence": info_.licence}
    else:
        variant = checkpoints.fitting_variant(models.get(model), tensors, source=str(file))
        network, info_ = checkpoints.load_with_info(model, source, variant)
        data = {"kind": "official weights", "model": model, "variant": variant, "licence": info_.licence}
    data |= {"entries": len(tensors), "parameters": count, "hash": checkpoints.weights_hash(network)}
    return Outcome(data, _lines(data))


def _open_base(model: str, weights: str | None, variant: str | None) -> Any:
    from distill3d import checkpoints

    return checkpoints.load_with_info(model, weights, variant)


def _write(out: Path, network: Any, spec: Any, name: str, meta: Any, to: str) -> None:
    from distill3d import checkpoints

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out is {out}, expected a name ending in .safetensors.")
    if to == "official":
        import safetensors.torch

        from distill3d.files import atomic_write_bytes

        # Second names of one tensor are left out: safetensors cannot hold them, and loaders fill them in.
        tensors = checkpoints.to_official(network, spec, aliases=False)
        stored = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
        atomic_write_bytes(out, safetensors.torch.save(stored, {"format": "pt"}))
    else:
        checkpoints.save_model(out, network, model_name=name, config=network.config, meta=meta)


def _need_finite(file: Path, tensors: Any) -> None:
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{file} holds numbers that are not finite in {len(broken)} of {len(tensors)} tensors, e.g. {broken[0]!r}. "
            "Fetch or train it again."
        )


def _lines(data: dict[str, Any]) -> str:
    return "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in data.items())


def main(arguments: Sequence[str]) -> Outcome:
    """Run the verb."""
    return parse_subcommand({"merge": merge, "convert": convert, "check": check}, "weights", arguments)

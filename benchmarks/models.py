"""Time, peak memory and FLOPs of one forward pass of each model: `python benchmarks/models.py [--variant vggt:base]`.

Without --variant, a tiny variant of every architecture, so that it runs anywhere in under a minute. Weights are fresh
ones, which changes no cost. Every model is measured in a process of its own: the high-water mark of memory never falls.

time      the median of --repeats passes after a first one (fewer where they are slow).
peak      CUDA: what the pass takes beyond the weights (max_memory_allocated). CPU: growth of the process's largest
          resident size during the first pass, beyond libraries and weights; for tiny models mostly one-off buffers.
GFLOPs    torch.utils.flop_counter, two per multiplication and addition; matrix products, convolutions and attention.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distill3d import models

COLUMNS = ("model", "variant", "parameters", "views", "size", "device", "seconds", "peak_mb", "gflops")
MEGABYTE = 2**20
PATIENCE_SECONDS = 3.0
"""No further repeat of a pass after this long."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--variant",
        nargs="+",
        metavar="MODEL[:VARIANT]",
        help="which models: vggt:base, or vggt for its default variant; without it, a tiny one of each",
    )
    parser.add_argument("--views", type=int, default=2, help="pair models take two of them, others all")
    parser.add_argument("--size", type=int, nargs=2, default=(112, 112), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast")
    parser.add_argument("--head-chunk", type=int, default=None, help="views per pass of the heads")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.variant[0].split(":"), arguments)))
        return 0

    results, failed = [], 0
    for choice in arguments.variant or tiny_variants():
        name, _, variant = choice.partition(":")
        variant = variant or next(iter(models.get(name).variants))
        # Its own process, told the same; only the choice of models differs.
        same = ("views", "device", "precision", "repeats", "threads")
        options = [f"--{key}={getattr(arguments, key)}" for key in same]
        options += ["--size", *map(str, arguments.size)]
        options += [] if arguments.head_chunk is None else [f"--head-chunk={arguments.head_chunk}"]
        command = [sys.executable, str(Path(__file__)), "--one", *options, "--variant", f"{name}:{variant}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}, out of memory perhaps"]
            print(f"{name}:{variant} could not be measured: {reason[0]}", file=sys.stderr)
            failed += 1
        else:
            results.append(json.loads(done.stdout.splitlines()[-1]))
    print(json.dumps(results, indent=2) if arguments.json else as_table(results))
    return int(failed > 0)


def tiny_variants() -> list[str]:
    """The first tiny variant of every architecture that has one."""
    tiny = {name: [key for key in models.get(name).variants if key.startswith("tiny")] for name in models.names()}
    return [f"{name}:{keys[0]}" for name, keys in tiny.items() if keys]


def measure(name: str, variant: str, arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    spec = models.get(name)
    # Without gradients: the counter's hooks want a graph that inference does not make.
    model = spec.build(spec.variant(variant)).eval().requires_grad_(False).to(device)
    views = min(arguments.views, 2) if spec.views == "pair" else arguments.views
    height, width = arguments.size
    images = torch.rand(1, views, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)

    def forward() -> None:
        bf16 = arguments.precision == "bf16"
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            model(images, head_chunk=arguments.head_chunk)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    before = reset_peak(device)
    forward()
    peak = peak_bytes(device) - before
    seconds: list[float] = []
    while len(seconds) < arguments.repeats and sum(seconds) < PATIENCE_SECONDS:
        start = time.perf_counter()
        forward()
        seconds.append(time.perf_counter() - start)
    # The counter does not know every fused attention; the plain one is made of matrix products that it knows.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward()
    return {
        "model": name,
        "variant": variant,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "views": views,
        "size": [height, width],
        "device": device.type,
        "precision": arguments.precision,
        "head_chunk": arguments.head_chunk,
        "threads": arguments.threads,
        "seconds": median(seconds),
        "peak_mb": max(peak, 0) / MEGABYTE,
        "gflops": counter.get_total_flops() / 1e9,
    }


def reset_peak(device: torch.device) -> int:
    """Start a new high-water mark where the system allows it; the bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    # Elsewhere than on Linux the mark is that of the process's whole life, most of it importing.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes(device)


def peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # A process begins with getrusage's mark of its parent, so the kernel's own figure is the better one.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def as_table(results: list[dict[str, Any]]) -> str:
    rows = [COLUMNS]
    for result in results:
        shown = {
            "parameters": f"{result['parameters']:,}",
            "size": "x".join(map(str, result["size"])),
            "seconds": f"{result['seconds']:.3f}",
            "peak_mb": f"{result['peak_mb']:.1f}",
            "gflops": f"{result['gflops']:.2f}",
        }
        rows.append(tuple(str(shown.get(column, result[column])) for column in COLUMNS))
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) if index < 2 else cell.rjust(width) for index, (cell, width) in cells).rstrip()
        for cells in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
    )


if __name__ == "__main__":
    sys.exit(main())

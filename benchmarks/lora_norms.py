"""What the norm of an adapted layer costs in training: the low-rank expansion against forming W + B A.

    python benchmarks/lora_norms.py [--tokens 1374] [--dim 1024] [--rank 8]

One fused qkv layer of a ViT-L on the tokens of one photo, forward and backward, ratios to the frozen layer alone (with
the gradient of its input). Both ways give the same numbers; the largest difference is told.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

from distill3d.adapters import RULES, add_lora, merge

CLOCK = time.process_time
"""One thread: its own time, which other programs disturb least. Use perf_counter on an accelerator."""


def formed(layer, tokens):
    """The frobenius rule with the sum formed at every step."""
    total = layer.weight + layer.scaling * layer.lora_B @ layer.lora_A
    return F.linear(tokens, total * (layer.weight.norm() / total.norm()), layer.bias)


def seconds(run, tokens, repeats):
    """Median of forward and backward."""
    taken = []
    for _ in range(repeats):
        began = CLOCK()
        run(tokens).square().sum().backward()
        taken.append(CLOCK() - began)
    return statistics.median(taken[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1374)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokens = torch.randn(1, arguments.tokens, arguments.dim, device=arguments.device, requires_grad=True)

    def adapted(rule):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(arguments.dim, 3 * arguments.dim)).to(arguments.device)
        add_lora(model, "0", arguments.rank, arguments.rank, rule)
        nn.init.normal_(model[0].lora_B, std=0.1)
        return model

    frozen = adapted("none")
    merge(frozen)
    base = seconds(frozen, tokens, arguments.repeats)
    print(f"frozen layer: {1e3 * base:.1f} ms (1.00)")
    for rule in RULES:
        print(f"{rule:<18}{seconds(adapted(rule), tokens, arguments.repeats) / base:.2f}")
    model = adapted("frobenius")
    taken = seconds(lambda inputs: formed(model[0], inputs), tokens, arguments.repeats)
    print(f"{'frobenius, formed':<18}{taken / base:.2f}")
    with torch.no_grad():
        difference = (model(tokens) - formed(model[0], tokens)).abs().max() / model(tokens).abs().max()
        merged = adapted("frobenius")
        merge(merged)
        share = seconds_of(merged, tokens) / seconds_of(frozen, tokens)
        print(f"largest difference of both ways: {difference:.1e}; merged, at inference: {share:.2f}")


@torch.no_grad()
def seconds_of(model, tokens):
    """Median of a forward pass without gradients."""
    taken = []
    for _ in range(5):
        began = CLOCK()
        model(tokens)
        taken.append(CLOCK() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()

"""Compiles an adapted encoder as one graph under every rule, without the checks of a test run, which break graphs."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from distill3d.adapters import RULES, adapter_state
from tests.adapters.helpers import adapted_encoder, some_tokens


def largest_difference(rule: str) -> float:
    """Between eager and compiled outputs and gradients."""
    found = []
    for compiled in (False, True):
        model = adapted_encoder(rule)
        run = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
        out = run(some_tokens())
        out.square().sum().backward()
        found.append([out.detach(), *(tensor.grad for tensor in adapter_state(model).values())])
    return max(float((one - two).abs().max()) for one, two in zip(*found, strict=True))


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump({rule: largest_difference(rule) for rule in RULES}, sys.stdout)

"""Adapters under torch.compile, DDP and FSDP2: the same numbers as one plain process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill3d.adapters import RULES
from tests.adapters.helpers import some_tokens
from tests.adapters.run_parallel import trained

HERE = Path(__file__).parent


def run(*words):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    }
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_rule_compiles_to_one_graph_of_the_same_numbers():
    found = json.loads(run(HERE / "run_compiled.py"))
    assert set(found) == set(RULES)
    assert max(found.values()) < 1e-5, found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns_from_both_shares(kind, tmp_path):
    launch = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--nnodes=1", "--rdzv-backend=c10d",
              "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1")  # fmt: skip
    run(*launch, HERE / "run_parallel.py", kind, tmp_path / "found.safetensors")
    found = load_file(tmp_path / "found.safetensors")
    tokens = torch.cat([some_tokens(2), some_tokens(3)])
    for rule in RULES:
        for name, value in trained(rule, "alone", tokens).items():
            # AdamW divides by the gradient's size, so rounding shows where a gradient is nearly zero.
            assert torch.allclose(found[f"{rule}/{name}"], value, atol=2e-4), (rule, name)

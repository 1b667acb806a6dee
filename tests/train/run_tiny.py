"""A run in a process of its own, for tests that kill it or start several: CACHE[,CACHE...] OUT SETTINGS-AS-JSON."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from distill3d.train.config import CheckpointConfig, OptimConfig, SamplingConfig
from distill3d.train.distil import train
from tests.train.helpers import tiny_config

PARTS = {"optim": OptimConfig, "data": SamplingConfig, "checkpoint": CheckpointConfig}


def config_from(changes):
    return tiny_config(**{name: PARTS[name](**value) if name in PARTS else value for name, value in changes.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    caches, out, settings = sys.argv[1:4]
    try:
        train(config_from(json.loads(settings)), caches.split(","), out, resume=out if Path(out).exists() else None)
    except KeyboardInterrupt:
        sys.exit(130)

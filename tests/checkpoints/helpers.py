"""A small student and files of it."""

import json

import safetensors.torch
import torch

from distill3d import models

SPEC = models.get("distill3r")
TINY = SPEC.variants["tiny"]


def tiny_student():
    return SPEC.build(TINY).eval()


def write_shards(folder, weights, name):
    """Two shards and their index, as the hub's libraries write them; `name` is model.safetensors or a .bin."""
    folder.mkdir()
    stem, suffix = name.rsplit(".", 1)
    weight_map = {}
    for number in (0, 1):
        shard = f"{stem}-0000{number + 1}-of-00002.{suffix}"
        part = {key: weights[key].contiguous() for key in list(weights)[number::2]}
        if suffix == "safetensors":
            safetensors.torch.save_file(part, folder / shard)
        else:
            torch.save(part, folder / shard)
        weight_map.update(dict.fromkeys(part, shard))
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index

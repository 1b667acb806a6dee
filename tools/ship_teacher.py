"""Write a run's student as weights that ship with the package: half precision, our licence, no paths."""

import sys

import torch

from distill3d.checkpoints import load_saved, save_model


def main(run: str, out: str) -> None:
    model, info = load_saved(run)
    training = info.meta["training"]
    meta = {
        "licence": "Apache-2.0",
        "cache": info.meta["cache"],
        "made_by": "tools/place_teacher.sh",
        "knows": "one rendered apartment (distill3d render place), and nothing else",
        "validation": info.meta["validation"],
        "training": {"settings": training["settings"], "versions": training["versions"]},
    }
    path = save_model(out, model, model_name=info.model, config=info.config, meta=meta, dtype=torch.float16)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])

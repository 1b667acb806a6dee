"""The whole chain, made once: render, manifest, cache, train, evaluate, reconstruct."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calls import SIZE, build_cache, evaluate, succeed, train


@dataclass(frozen=True)
class Chain:
    """Folders that every test may read and none may change, and what the commands said."""

    scene: Path
    manifest: Path
    cache: Path
    run: Path
    evaluation: Path
    reconstruction: Path
    said: dict[str, Any]


@pytest.fixture(scope="session")
def chain(tmp_path_factory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    made = Chain(*(folder / name for name in ("place", "m.parquet", "cache", "run", "evaluation", "points")), said={})
    said = made.said
    counts = ("--num-train", 12, "--num-test", 6)
    said["render"] = succeed("render", "place", "--out", made.scene, "--size", SIZE, SIZE, *counts)
    said["manifest"] = succeed("manifest", "build", made.scene, "--out", made.manifest)
    for name, called in (
        ("cache", build_cache(made.manifest, made.cache)),
        ("train", train(made.cache, made.run)),
        ("evaluate", evaluate(made.run, made.manifest, made.evaluation)),
    ):
        assert called.code == 0, called.err
        said[name] = called.data
    said["reconstruct"] = succeed("reconstruct", made.scene, "--model", made.run, "--out", made.reconstruction)
    return made

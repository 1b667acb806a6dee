"""A manifest of annotated scenes small enough for tests; photo k is red by its number (tests/infer/exact)."""

from pathlib import Path

import torch

from distill3d.data.datasets.annotated import write_annotated_scene
from distill3d.data.fit import ImageFit
from distill3d.data.manifest import build_manifest
from distill3d.data.sampling import ViewGroup
from distill3d.data.table import Manifest
from distill3d.types import Prediction, Views
from tests.infer.exact import ExactModel, Place

FIT = ImageFit(long_side=16, multiple=4)
PLACE = Place(8)
GROUPS = [ViewGroup("known", (0, 3, 5)), ViewGroup("known", (2, 1, 7, 4)), ViewGroup("unknown", (0, 1))]


def write_scenes(root: Path) -> Manifest:
    """Two scenes of the same photos: one with truth, one without depth and cameras."""
    images = PLACE.views().images[0]
    write_annotated_scene(
        root / "known",
        images,
        intrinsics=PLACE.intrinsics[0],
        world_from_camera=PLACE.world_from_camera[0],
        depth=PLACE.depth[0],
        split="test",
    )
    write_annotated_scene(root / "unknown", images, split="test")
    return build_manifest(root)[0]


def exact(views: Views) -> Prediction:
    """Say the truth, at twice the size."""
    with torch.inference_mode():
        return ExactModel(PLACE, sizes=(2.0,)).eval()(views.images)

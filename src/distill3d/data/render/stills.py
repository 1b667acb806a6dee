"""Endless things on a table, photographed from all around: one still life for every seed."""

import math
import random

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.render.cameras import look_poses, random_pinholes
from distill3d.data.render.palette import Palette, hsv
from distill3d.data.render.scene import Material, Scene, SceneBuilder

_TABLE_M = 0.75
_RADIUS_M = (1.1, 1.7)
_STEP_DEG = 24.0


def random_still(seed: int) -> Scene:
    """Build the still life of a seed: a round table on a floor, and boxes, balls and cylinders that stand on it."""
    rng = random.Random(seed)
    palette = Palette.draw(rng)
    build = SceneBuilder()
    build.box((0, 0, -0.05), (14, 14, 0.1), palette.floor())
    build.cylinder((0, 0, _TABLE_M - 0.02), 1.5, 0.04, palette.wood())
    build.cylinder((0, 0, _TABLE_M / 2), 0.12, _TABLE_M, palette.wood())
    for place in range(rng.randint(5, 9)):
        angle, distance = 2.4 * place + rng.uniform(-0.3, 0.3), 0.5 * math.sqrt((place + 0.3) / 9)
        with build.at(distance * math.cos(angle), distance * math.sin(angle), _TABLE_M, rng.uniform(0, 360)):
            _thing(build, rng, palette)
    light = rng.uniform(0.3, 0.5)
    build.light((rng.uniform(-2, 2), rng.uniform(-2, 2), 3.2), (5.0, 4.8, 4.4), 3.0)
    return build.build(
        ambient=(light, light, light),
        ambient_direction=(0.0, 0.0, 0.5),
        sky=(hsv(0.6, 0.05, 0.85), hsv(0.6, 0.1, 0.95)),
    )


def still_cameras(
    views: int, size: tuple[int, int], seed: int
) -> tuple[Float[Tensor, "views 4 4"], Float[Tensor, "views 3 3"]]:
    """Poses and intrinsics of photos on a ring around the table, a step of 24 degrees apart, give or take."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.deg2rad(_STEP_DEG * (torch.arange(views) + 0.4 * (torch.rand(views, generator=generator) - 0.5)))
    angle = angle + 2 * math.pi * torch.rand(1, generator=generator)
    radius = _RADIUS_M[0] + (_RADIUS_M[1] - _RADIUS_M[0]) * torch.rand(views, generator=generator)
    height = _TABLE_M + 0.35 + 0.5 * torch.rand(views, generator=generator)
    eye = torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=-1)
    target = torch.tensor([0.0, 0.0, _TABLE_M + 0.12]) + 0.05 * torch.randn(views, 3, generator=generator)
    return look_poses(eye, target), random_pinholes(views, size, generator)


def _thing(build: SceneBuilder, rng: random.Random, palette: Palette) -> None:
    material = rng.choice((palette.cloth, palette.wood, lambda: Material(colours=palette.three(), texture="books")))()
    width, height = rng.uniform(0.08, 0.22), rng.uniform(0.08, 0.38)
    kind = rng.choice(("box", "box", "ball", "cylinder", "stack"))
    if kind == "ball":
        build.ball((0, 0, width / 2), (width, width, width), material)
    elif kind == "cylinder":
        build.cylinder((0, 0, height / 2), width, height, material)
    else:
        build.box((0, 0, height / 2), (width, rng.uniform(0.06, 0.2), height), material)
        if kind == "stack":
            build.ball((0, 0, height + width / 3), (width * 2 / 3, width * 2 / 3, width * 2 / 3), palette.cloth())

"""Endless places out of doors: houses, trees and parked cars under the sun, one for every seed."""

import random

from distill3d.data.render.palette import Palette, hsv
from distill3d.data.render.rooms import Room
from distill3d.data.render.scene import Material, SceneBuilder

_REACH_M = 22.0


def random_street(seed: int) -> Room:
    """Build the place of a seed, and the box of air over its square that cameras may stand in."""
    rng = random.Random(seed)
    palette = Palette.draw(rng)
    build = SceneBuilder()
    ground = Material(
        colours=((0.42, 0.42, 0.4), (0.5, 0.49, 0.47), (0.35, 0.36, 0.36)), texture="terrazzo", period=3.0
    )
    build.box((0, 0, -0.1), (120, 120, 0.2), ground)
    for side in range(4):
        with build.at(0, 0, 0, 90 * side + rng.uniform(-8, 8)):
            _houses(build, rng, palette)
    for _ in range(rng.randint(4, 8)):
        with build.at(rng.uniform(-9, 9), rng.uniform(-9, 9), 0, rng.uniform(0, 360)):
            rng.choice((_tree, _tree, _car, _kiosk))(build, rng, palette)
    build.light((rng.uniform(-40, 40), rng.uniform(-40, 40), 60.0), (1.6, 1.5, 1.35))
    return Room(
        build.build(
            ambient=(0.42, 0.45, 0.5),
            ambient_direction=(0.0, 0.0, 0.6),
            sky=(hsv(0.58, rng.uniform(0.05, 0.2), 0.95), hsv(0.6, rng.uniform(0.3, 0.6), 0.9)),
        ),
        (-9.0, -9.0, 0.0),
        (9.0, 9.0, 3.0),
        (rng.uniform(-3, 3), rng.uniform(-3, 3), 1.2),
    )


def _houses(build: SceneBuilder, rng: random.Random, palette: Palette) -> None:
    """A row along one side of the square, with gaps to look through."""
    along = -16.0
    while along < 14:
        width, depth, height = rng.uniform(4, 8), rng.uniform(5, 9), rng.uniform(3.5, 9)
        wall = Material(colours=(palette.pale(), palette.strong(), palette.pale()), texture="bricks", period=1.6)
        middle = (along + width / 2, _REACH_M / 2 + 1.5 + depth / 2)
        build.box((*middle, height / 2), (width, depth, height), wall)
        glass = Material(colours=((0.2, 0.25, 0.32), (0.85, 0.85, 0.83)), texture="panes", period=0)
        for floor in range(int(height // 2.8)):
            for place in range(int(width // 1.8)):
                x = along + 1.1 + 1.8 * place
                build.box((x, _REACH_M / 2 + 1.48, 1.5 + 2.8 * floor), (0.9, 0.1, 1.2), glass)
        along += width + rng.choice((0.0, 0.0, rng.uniform(1, 3)))


def _tree(build: SceneBuilder, rng: random.Random, palette: Palette) -> None:
    height, width = rng.uniform(1.8, 3.0), rng.uniform(1.4, 2.6)
    bark = Material(colours=((0.35, 0.26, 0.18), (0.45, 0.34, 0.25)), texture="grain", period=0.6)
    green = hsv(rng.uniform(0.24, 0.36), 0.55, rng.uniform(0.3, 0.55))
    leaves = Material(colours=(green, hsv(0.3, 0.5, 0.25), hsv(0.25, 0.5, 0.6)), texture="leaves", period=1.2)
    build.cylinder((0, 0, height / 2), 0.28, height, bark)
    build.ball((0, 0, height + width / 3), (width, width, width * 1.1), leaves)
    build.ball((width / 4, 0.2, height + width * 0.7), (width * 0.7, width * 0.7, width * 0.7), leaves)


def _car(build: SceneBuilder, rng: random.Random, palette: Palette) -> None:
    paint, glass = Material(colours=(palette.strong(),)), Material(colours=((0.12, 0.14, 0.18),))
    tyre = Material(colours=((0.08, 0.08, 0.08), (0.3, 0.3, 0.3)), texture="circles", period=0)
    build.box((0, 0, 0.62), (4.2, 1.7, 0.6), paint)
    build.box((-0.2, 0, 1.15), (2.2, 1.5, 0.5), glass)
    build.box((-0.2, 0, 1.42), (2.0, 1.5, 0.06), paint)
    for x in (-1.3, 1.3):
        for y in (-0.8, 0.8):
            build.cylinder((x, y, 0.32), 0.64, 0.2, tyre, axis="y")


def _kiosk(build: SceneBuilder, rng: random.Random, palette: Palette) -> None:
    poster = Material(colours=palette.three(), texture=rng.choice(("blocks", "landscape", "portrait")), period=0)
    build.cylinder((0, 0, 1.3), 1.1, 2.6, poster)
    build.cylinder((0, 0, 2.65), 1.35, 0.14, Material(colours=(palette.strong(),)))

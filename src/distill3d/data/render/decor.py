"""Smaller things that make a room a room: lamps, plants, pictures, rugs, books, doors and windows."""

import math
import random

from distill3d.data.render.furniture import cloth, paint, wood
from distill3d.data.render.palette import shade
from distill3d.data.render.scene import Colour, Material, SceneBuilder

PICTURES = ("landscape", "circles", "blocks", "portrait")
RUGS = ("medallion", "rings", "kilim", "gingham", "stripes", "diamonds")


def floor_lamp(build: SceneBuilder, shade: Colour, *, height: float = 1.6) -> None:
    """A standing lamp with a glowing shade."""
    metal = paint((0.25, 0.24, 0.23))
    build.cylinder((0, 0, 0.015), 0.3, 0.03, metal)
    build.cylinder((0, 0, height / 2), 0.03, height, metal)
    build.cylinder((0, 0, height), 0.4, 0.3, Material(colours=(shade,), texture="fabric", period=0.4, emission=0.55))


def table_lamp(build: SceneBuilder, base: Colour, shade: Colour) -> None:
    """A lamp for tables and sideboards."""
    build.ball((0, 0, 0.1), (0.16, 0.16, 0.2), paint(base))
    build.cylinder((0, 0, 0.22), 0.02, 0.1, paint((0.3, 0.28, 0.25)))
    build.cylinder((0, 0, 0.34), 0.26, 0.2, Material(colours=(shade,), emission=0.6))


def ceiling_lamp(build: SceneBuilder, ceiling: float, shade: Colour, *, drop: float = 0.5) -> None:
    """A pendant; its light hangs just below the shade so that the shade does not shadow the room."""
    build.cylinder((0, 0, ceiling - drop / 2), 0.02, drop, paint((0.2, 0.2, 0.2)))
    build.ball((0, 0, ceiling - drop), (0.36, 0.36, 0.26), Material(colours=(shade,), emission=0.8))


def plant(build: SceneBuilder, pot: Colour, leaf: Colour, rng: random.Random, *, height: float = 1.1) -> None:
    """A pot plant with a bunch of long leaves."""
    build.cylinder((0, 0, 0.15), 0.3, 0.3, Material(colours=(pot, shade(pot, 0.7)), texture="plaster", period=0.5))
    build.cylinder((0, 0, 0.31), 0.26, 0.02, paint((0.2, 0.14, 0.1)))
    build.cylinder((0, 0, 0.3 + height * 0.2), 0.035, height * 0.4, paint((0.35, 0.26, 0.16)))
    green = Material(colours=(leaf, shade(leaf, 1.35), shade(leaf, 0.6)), texture="leaves", period=0.3)
    for number in range(9):
        yaw = number * 137.5 + rng.uniform(-20, 20)
        lift = rng.uniform(15, 65)
        length = height * rng.uniform(0.42, 0.62)
        out = math.cos(math.radians(lift)) * length / 2
        up = 0.3 + height * rng.uniform(0.22, 0.4) + math.sin(math.radians(lift)) * length / 2
        x, y = -math.sin(math.radians(yaw)) * out, math.cos(math.radians(yaw)) * out
        build.ball((x, y, up), (0.15, length, 0.04), green, yaw_deg=yaw, tilt_deg=lift)


def bush(build: SceneBuilder, pot: Colour, leaf: Colour, *, height: float = 0.8) -> None:
    """A small round tree in a pot."""
    build.box((0, 0, 0.14), (0.3, 0.3, 0.28), Material(colours=(pot, shade(pot, 0.8)), texture="plaster", period=0.5))
    build.cylinder((0, 0, height * 0.45), 0.04, height * 0.5, paint((0.4, 0.3, 0.2)))
    green = Material(colours=(leaf, shade(leaf, 1.35), shade(leaf, 0.6)), texture="leaves", period=0.35)
    build.ball((0, 0, height * 0.85), (0.5, 0.5, 0.5), green)
    build.ball((0.1, 0.05, height * 1.1), (0.32, 0.32, 0.32), green)


def picture(
    build: SceneBuilder, motif: str, colours: tuple[Colour, Colour, Colour], frame: Colour, size: tuple[float, float]
) -> None:
    """A framed picture around the origin, hanging on a wall at +y."""
    width, height = size
    build.box((0, -0.012, 0), (width, 0.024, height), wood(frame, period=0.3))
    inner = Material(colours=((0.95, 0.94, 0.9),))
    build.box((0, -0.022, 0), (width - 0.07, 0.012, height - 0.07), inner)
    build.box((0, -0.026, 0), (width * 0.78, 0.012, height * 0.78), Material(colours=colours, texture=motif, period=0))


def clock(build: SceneBuilder, face: Colour) -> None:
    """A wall clock around the origin, on a wall at +y."""
    build.cylinder((0, -0.02, 0), 0.34, 0.04, paint((0.12, 0.12, 0.12)), axis="y")
    build.cylinder((0, -0.03, 0), 0.29, 0.03, paint(face), axis="y")
    build.box((0, -0.047, 0.05), (0.015, 0.006, 0.1), paint((0.1, 0.1, 0.1)))
    build.box((0.035, -0.047, 0), (0.07, 0.006, 0.015), paint((0.1, 0.1, 0.1)))


def mirror(build: SceneBuilder, frame: Colour) -> None:
    """A tall mirror that shows only a pale sheen, around the origin on a wall at +y."""
    build.box((0, -0.015, 0), (0.5, 0.03, 1.3), wood(frame))
    sheen = Material(colours=((0.78, 0.83, 0.86), (0.66, 0.72, 0.76)), texture="plaster", period=0)
    build.box((0, -0.028, 0), (0.42, 0.01, 1.22), sheen)


def rug(
    build: SceneBuilder,
    motif: str,
    colours: tuple[Colour, Colour, Colour],
    size: tuple[float, float],
    *,
    round_shape: bool = False,
) -> None:
    """A rug on the floor."""
    if round_shape:
        build.cylinder((0, 0, 0.006), size[0], 0.012, Material(colours=colours, texture=motif, period=0))
        return
    repeat = 0.0 if motif in ("medallion", "rings") else min(size) / 1.5
    build.box((0, 0, 0.006), (*size, 0.012), Material(colours=colours, texture=motif, period=repeat))


def door(build: SceneBuilder, leaf: Colour, frame: Colour) -> None:
    """A closed door standing in front of a wall at +y."""
    build.box((0, -0.02, 1.03), (0.98, 0.05, 2.1), paint(frame))
    panels = Material(colours=(shade(leaf, 1.05), shade(leaf, 0.88)), texture="door", period=0)
    build.box((0, -0.035, 1.0), (0.84, 0.05, 2.0), panels)
    build.ball((0.34, -0.085, 1.0), (0.06, 0.06, 0.06), paint((0.75, 0.65, 0.35)))


def window_frame(build: SceneBuilder, width: float, height: float, frame: Colour, *, bars: int = 2) -> None:
    """Frame, bars and sill of a window opening centred at the origin in a wall at +y."""
    white = paint(frame)
    for side in (-1, 1):
        build.box((side * (width / 2 - 0.03), 0.05, 0), (0.06, 0.1, height), white)
        build.box((0, 0.05, side * (height / 2 - 0.03)), (width, 0.1, 0.06), white)
    for number in range(1, bars):
        build.box((width * (number / bars - 0.5), 0.06, 0), (0.05, 0.05, height), white)
    build.box((0, -0.05, -height / 2 - 0.02), (width + 0.16, 0.26, 0.04), white)


def curtains(build: SceneBuilder, width: float, height: float, colour: Colour, second: Colour) -> None:
    """Two curtains and their rod, beside a window centred at the origin in a wall at +y."""
    material = Material(colours=(colour, second), texture="curtain", period=0.45)
    for side in (-1, 1):
        build.box((side * (width / 2 + 0.16), -0.08, -0.12), (0.42, 0.07, height + 0.6), material)
    build.cylinder((0, -0.08, height / 2 + 0.2), 0.03, width + 0.9, paint((0.3, 0.25, 0.2)), axis="x")


def radiator(build: SceneBuilder, *, width: float = 1.0) -> None:
    """A radiator before a wall at +y."""
    ribs = Material(colours=((0.93, 0.93, 0.91), (0.75, 0.75, 0.74)), texture="stripes", period=0.24)
    build.box((0, -0.07, 0.42), (width, 0.09, 0.56), ribs)


def table_things(build: SceneBuilder, rng: random.Random, colours: tuple[Colour, ...]) -> None:
    """A bowl with fruit, a vase and a pair of books around the origin, standing at z = 0."""
    build.cylinder((0, 0, 0.03), 0.28, 0.06, paint(colours[0]))
    for number in range(3):
        angle = number * 2.1 + rng.uniform(0, 1)
        x, y = 0.06 * math.cos(angle), 0.06 * math.sin(angle)
        build.ball((x, y, 0.08), (0.09, 0.09, 0.09), paint(colours[1 + number % 2]))
    build.ball((0.34, 0.08, 0.11), (0.13, 0.13, 0.22), paint(colours[2]))
    build.cylinder((0.34, 0.08, 0.24), 0.05, 0.1, paint(colours[2]))
    build.box((-0.33, -0.03, 0.02), (0.24, 0.17, 0.04), cloth(colours[3]), yaw_deg=rng.uniform(-30, 30))
    build.box((-0.32, -0.02, 0.055), (0.2, 0.15, 0.03), cloth(colours[1]), yaw_deg=rng.uniform(-50, 50))

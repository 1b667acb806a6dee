"""Pieces of furniture made of boxes, cylinders and balls.

Each function adds one piece to a builder, standing on the floor (z = 0) around the origin of the builder's present
frame, with its front toward -y and its back toward +y (so that `yaw_deg = 0` puts its back to a wall at +y).
Lengths are in metres.
"""

import math

from distill3d.data.render.palette import shade
from distill3d.data.render.scene import Colour, Material, SceneBuilder


def wood(colour: Colour, *, period: float = 0.8) -> Material:
    """Sawn wood of about this colour."""
    return Material(colours=(shade(colour, 1.12), shade(colour, 0.8)), texture="grain", period=period)


def cloth(colour: Colour, texture: str = "fabric", second: Colour | None = None, *, period: float = 0.5) -> Material:
    """Upholstery; a second colour for patterns."""
    return Material(colours=(colour, second or shade(colour, 0.85)), texture=texture, period=period)


def paint(colour: Colour) -> Material:
    """One plain colour."""
    return Material(colours=(colour,))


def table(
    build: SceneBuilder, top: Material, legs: Material, *, size: tuple[float, float] = (1.5, 0.85), height: float = 0.74
) -> None:
    """A table with four legs."""
    width, depth = size
    build.box((0, 0, height - 0.02), (width, depth, 0.04), top)
    build.box((0, 0, height - 0.08), (width - 0.16, depth - 0.16, 0.08), legs)
    for x in (-1, 1):
        for y in (-1, 1):
            build.box(
                (x * (width / 2 - 0.07), y * (depth / 2 - 0.07), height / 2 - 0.03), (0.06, 0.06, height - 0.06), legs
            )


def round_table(
    build: SceneBuilder, top: Material, foot: Material, *, diameter: float = 1.0, height: float = 0.74
) -> None:
    """A round table on one foot."""
    build.cylinder((0, 0, height - 0.02), diameter, 0.04, top)
    build.cylinder((0, 0, height / 2), 0.09, height - 0.05, foot)
    build.cylinder((0, 0, 0.02), diameter * 0.55, 0.04, foot)


def chair(build: SceneBuilder, frame: Material, seat: Material) -> None:
    """A dining chair."""
    build.box((0, 0, 0.45), (0.44, 0.44, 0.05), seat)
    for x in (-0.19, 0.19):
        build.box((x, -0.19, 0.22), (0.04, 0.04, 0.44), frame)
        build.box((x, 0.2, 0.45), (0.04, 0.04, 0.9), frame)
    build.box((0, 0.2, 0.8), (0.36, 0.03, 0.16), frame)
    build.box((0, 0.2, 0.6), (0.36, 0.03, 0.07), frame)


def stool(build: SceneBuilder, frame: Material, seat: Material) -> None:
    """A round stool."""
    build.cylinder((0, 0, 0.46), 0.36, 0.07, seat)
    for x, y in ((-0.11, -0.11), (0.11, -0.11), (-0.11, 0.11), (0.11, 0.11)):
        build.cylinder((x, y, 0.21), 0.035, 0.43, frame)


def sofa(
    build: SceneBuilder, cover: Material, cushions: tuple[Material, ...], *, width: float = 2.0, depth: float = 0.9
) -> None:
    """A sofa with round armrests, seat cushions and throw pillows."""
    build.box((0, 0, 0.2), (width, depth, 0.28), cover)
    build.box((0, depth / 2 - 0.11, 0.55), (width, 0.22, 0.55), cover)
    seat_width = (width - 0.4) / 2
    for side in (-1, 1):
        x = side * (width / 2 - 0.1)
        build.box((x, 0, 0.4), (0.2, depth, 0.3), cover)
        build.cylinder((x, 0, 0.55), 0.22, depth, cover, axis="y")
        build.box((side * seat_width / 2, -0.1, 0.4), (seat_width - 0.02, depth - 0.22, 0.14), cover)
        build.box((side * seat_width / 2, 0.2, 0.64), (seat_width - 0.04, 0.16, 0.36), cover, tilt_deg=-12)
    for number, cushion in enumerate(cushions):
        x = (width / 2 - 0.45) * (-1 if number % 2 else 1) * (1 if number < 2 else 0.2)
        build.ball((x, 0.05, 0.62), (0.46, 0.2, 0.42), cushion, yaw_deg=15 - 25 * number, tilt_deg=-15)


def armchair(build: SceneBuilder, cover: Material, cushion: Material) -> None:
    """An armchair."""
    build.box((0, 0, 0.22), (0.85, 0.8, 0.3), cover)
    build.box((0, 0.32, 0.6), (0.85, 0.2, 0.6), cover, tilt_deg=-8)
    build.box((0, -0.08, 0.42), (0.52, 0.6, 0.12), cushion)
    for x in (-0.34, 0.34):
        build.box((x, -0.02, 0.45), (0.16, 0.74, 0.24), cover)
        build.cylinder((x, -0.02, 0.57), 0.17, 0.74, cover, axis="y")


def bed(build: SceneBuilder, frame: Material, sheet: Material, blanket: Material, *, width: float = 1.5) -> None:
    """A bed with its headboard at +y."""
    build.box((0, 0, 0.2), (width, 2.05, 0.22), frame)
    build.box((0, 0, 0.4), (width - 0.06, 1.98, 0.2), sheet)
    build.box((0, -0.32, 0.46), (width + 0.03, 1.4, 0.16), blanket)
    build.box((0, 1.03, 0.55), (width + 0.06, 0.07, 1.0), frame)
    for x in (-0.25, 0.25):
        build.ball((x * width, 0.72, 0.55), (0.62 * width / 1.5, 0.42, 0.2), sheet)


def shelf(
    build: SceneBuilder,
    frame: Material,
    books: tuple[Material, ...],
    *,
    width: float = 1.0,
    height: float = 1.9,
    boards: int = 5,
) -> None:
    """A bookshelf; every second gap leaves room for an ornament."""
    depth = 0.3
    build.box((0, depth / 2 - 0.01, height / 2), (width, 0.02, height), frame)
    for x in (-1, 1):
        build.box((x * (width / 2 - 0.015), 0, height / 2), (0.03, depth, height), frame)
    gap = (height - 0.06) / (boards - 1)
    for number in range(boards):
        build.box((0, 0, 0.03 + number * gap), (width, depth, 0.03), frame)
    for number in range(boards - 1):
        share = (0.92, 0.6, 0.75, 0.5)[number % 4]
        length = (width - 0.08) * share
        shift = (width - 0.08 - length) / 2 * (-1 if number % 2 else 1)
        floor, tall = 0.045 + number * gap, gap * 0.78
        build.box((shift, 0.03, floor + tall / 2), (length, 0.2, tall), books[number % len(books)])
        if share < 0.7:
            beside = -math.copysign((width - 0.08) / 2 - abs(shift), shift)
            ornament = paint(books[(number + 1) % len(books)].colours[0])
            build.ball((beside, -0.02, floor + 0.09), (0.15, 0.15, 0.18), ornament)


def cabinet(
    build: SceneBuilder, front: Material, top: Material, *, width: float = 1.2, height: float = 0.8, depth: float = 0.42
) -> None:
    """A chest of drawers or a sideboard."""
    build.box((0, 0, height / 2 + 0.03), (width, depth, height - 0.06), front)
    build.box((0, -0.01, height - 0.015), (width + 0.04, depth + 0.04, 0.03), top)
    build.box((0, 0.02, 0.04), (width - 0.1, depth - 0.1, 0.08), paint((0.15, 0.14, 0.13)))


def wardrobe(build: SceneBuilder, body: Material, knob: Material, *, width: float = 1.2, height: float = 2.05) -> None:
    """A wardrobe with two doors."""
    build.box((0, 0, height / 2), (width, 0.58, height), body)
    for side in (-1, 1):
        build.box((side * width / 4, -0.295, height / 2), (width / 2 - 0.03, 0.02, height - 0.12), body)
        build.ball((side * 0.06, -0.32, height * 0.48), (0.04, 0.04, 0.04), knob)
    build.box((0, -0.02, height - 0.02), (width + 0.06, 0.64, 0.05), body)


def television(build: SceneBuilder, screen: Material, *, width: float = 1.15) -> None:
    """A screen on a foot, standing on whatever is at z = 0."""
    dark = paint((0.1, 0.1, 0.11))
    build.box((0, 0, 0.02), (0.4, 0.2, 0.03), dark)
    build.box((0, 0.02, 0.1), (0.08, 0.04, 0.18), dark)
    build.box((0, 0, 0.16 + width * 0.29), (width, 0.05, width * 0.58), dark)
    build.box((0, -0.024, 0.16 + width * 0.29), (width - 0.04, 0.008, width * 0.58 - 0.04), screen)


def kitchen(build: SceneBuilder, front: Material, top: Material, upper: Material, *, width: float = 2.2) -> None:
    """A kitchen counter with cupboards above, a sink, a hob and a pot."""
    steel = paint((0.72, 0.73, 0.75))
    build.box((0, 0, 0.45), (width, 0.58, 0.82), front)
    build.box((0, -0.01, 0.9), (width + 0.02, 0.62, 0.04), top)
    build.box((0, 0.15, 1.75), (width * 0.7, 0.34, 0.6), upper)
    build.box((-width * 0.25, 0, 0.922), (0.5, 0.4, 0.008), steel)
    build.cylinder((-width * 0.25, 0.2, 1.03), 0.03, 0.22, steel)
    build.cylinder((-width * 0.25, 0.13, 1.14), 0.03, 0.16, steel, axis="y")
    build.box((width * 0.25, 0, 0.924), (0.55, 0.46, 0.01), paint((0.08, 0.08, 0.09)))
    build.cylinder((width * 0.18, 0.05, 1.0), 0.2, 0.14, paint((0.75, 0.16, 0.12)))


def fridge(build: SceneBuilder, body: Material, *, height: float = 1.75) -> None:
    """A fridge with two doors."""
    build.box((0, 0, height / 2), (0.6, 0.6, height), body)
    build.box((0, -0.305, height * 0.32), (0.58, 0.03, height * 0.6), body)
    build.box((0, -0.305, height * 0.815), (0.58, 0.03, height * 0.34), body)
    for z in (height * 0.5, height * 0.75):
        build.box((-0.24, -0.335, z), (0.025, 0.03, 0.3), paint((0.4, 0.4, 0.42)))


def desk(build: SceneBuilder, top: Material, drawers: Material, *, width: float = 1.3) -> None:
    """A desk with drawers on one side and a laptop."""
    build.box((0, 0, 0.73), (width, 0.65, 0.04), top)
    build.box((width / 2 - 0.22, 0.02, 0.36), (0.4, 0.55, 0.7), drawers)
    for y in (-0.27, 0.27):
        build.box((-width / 2 + 0.05, y, 0.36), (0.05, 0.05, 0.71), top)
    grey = paint((0.55, 0.56, 0.58))
    build.box((-0.12, -0.02, 0.76), (0.34, 0.24, 0.02), grey)
    screen = Material(colours=((0.35, 0.6, 0.9), (0.1, 0.25, 0.5), (0.95, 0.8, 0.4)), texture="landscape", period=0)
    build.box((-0.12, 0.13, 0.87), (0.34, 0.015, 0.22), screen, tilt_deg=-12)


def piano(build: SceneBuilder, body: Material) -> None:
    """An upright piano."""
    build.box((0, 0.1, 0.6), (1.45, 0.35, 1.2), body)
    build.box((0, -0.2, 0.66), (1.45, 0.34, 0.12), body)
    build.box(
        (0, -0.24, 0.725),
        (1.25, 0.18, 0.02),
        Material(colours=((0.96, 0.95, 0.9), (0.05, 0.05, 0.05)), texture="stripes", period=0.09),
    )
    for x in (-0.66, 0.66):
        build.box((x, -0.3, 0.3), (0.08, 0.08, 0.6), body)
    build.box((0, 0.08, 1.215), (1.5, 0.42, 0.03), body)

"""Pieces of furniture with random sizes and materials, and the room they take."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from distill3d.data.render import decor, furniture
from distill3d.data.render.palette import Palette, hsv
from distill3d.data.render.scene import Material, SceneBuilder

Add = Callable[[SceneBuilder], None]


@dataclass(frozen=True)
class Piece:
    """Something to put on the floor, with its footprint and height in metres."""

    name: str
    width: float
    depth: float
    height: float
    add: Add


def wall_piece(rng: random.Random, palette: Palette) -> Piece:
    """A piece that stands with its back to a wall."""
    return rng.choice(_WALL_PIECES)(rng, palette)


def centre_piece(rng: random.Random, palette: Palette) -> Piece:
    """A group for the middle of a room."""
    return rng.choice((_dining, _dining, _coffee))(rng, palette)


def corner_piece(rng: random.Random, palette: Palette) -> Piece:
    """Something slim for a corner."""
    return rng.choice((_plant, _plant, _floor_lamp, _bush, _stool))(rng, palette)


def _books(palette: Palette) -> Material:
    return Material(colours=palette.three(), texture="books", period=0)


def _sofa(rng: random.Random, palette: Palette) -> Piece:
    width, cover = rng.uniform(1.6, 2.3), palette.cloth()
    cushions = tuple(palette.cloth() for _ in range(rng.randint(0, 3)))
    return Piece("sofa", width, 0.95, 0.85, lambda build: furniture.sofa(build, cover, cushions, width=width))


def _armchair(rng: random.Random, palette: Palette) -> Piece:
    cover, cushion = palette.cloth(), palette.cloth()
    return Piece("armchair", 0.9, 0.9, 0.9, lambda build: furniture.armchair(build, cover, cushion))


def _bed(rng: random.Random, palette: Palette) -> Piece:
    width, frame, blanket = rng.uniform(0.95, 1.7), palette.wood(), palette.cloth()
    sheet = Material(colours=(palette.pale(),), texture="fabric")
    return Piece("bed", width + 0.1, 2.15, 1.05, lambda build: furniture.bed(build, frame, sheet, blanket, width=width))


def _shelf(rng: random.Random, palette: Palette) -> Piece:
    width, boards = rng.uniform(0.7, 1.3), rng.randint(3, 6)
    height = 0.25 + 0.36 * (boards - 1)
    frame, books = palette.wood(), tuple(_books(palette) for _ in range(3))
    return Piece(
        "shelf", width, 0.32, height,
        lambda build: furniture.shelf(build, frame, books, width=width, height=height, boards=boards),
    )  # fmt: skip


def _cabinet(rng: random.Random, palette: Palette) -> Piece:
    width, height = rng.uniform(0.8, 1.7), rng.uniform(0.6, 1.1)
    front = Material(colours=(palette.timber(), palette.timber(), palette.pale()), texture="panes", period=0)
    top, topping, base, shade = palette.wood(), rng.random(), palette.strong(), palette.pale()
    screen = Material(colours=((0.12, 0.14, 0.18), palette.strong(), palette.pale()), texture="landscape", period=0)
    ornaments = tuple(palette.strong() for _ in range(4))
    seed = rng.random()

    def add(build: SceneBuilder) -> None:
        furniture.cabinet(build, front, top, width=width, height=height)
        with build.at(0, 0, height):
            if topping < 0.35 and height < 0.85:
                furniture.television(build, screen, width=min(width, 1.2))
            elif topping < 0.65:
                with build.at(width * 0.3, 0):
                    decor.table_lamp(build, base, shade)
            else:
                decor.table_things(build, random.Random(seed), ornaments)

    return Piece("cabinet", width, 0.46, height + 0.5, add)


def _wardrobe(rng: random.Random, palette: Palette) -> Piece:
    width, height, body, knob = rng.uniform(0.9, 1.7), rng.uniform(1.8, 2.2), palette.wood(), palette.wood()
    return Piece(
        "wardrobe", width + 0.08, 0.68, height,
        lambda build: furniture.wardrobe(build, body, knob, width=width, height=height),
    )  # fmt: skip


def _desk(rng: random.Random, palette: Palette) -> Piece:
    width, top, drawers, frame, seat = (
        rng.uniform(1.1, 1.6),
        palette.wood(),
        palette.wood(),
        palette.wood(),
        palette.cloth(),
    )
    turn = rng.uniform(150, 210)

    def add(build: SceneBuilder) -> None:
        with build.at(0, 0.38):
            furniture.desk(build, top, drawers, width=width)
        with build.at(-0.12, -0.38, 0, turn):
            furniture.chair(build, frame, seat)

    return Piece("desk", width, 1.4, 1.0, add)


def _kitchen(rng: random.Random, palette: Palette) -> Piece:
    width = rng.uniform(1.6, 2.6)
    front = Material(colours=(palette.strong(), palette.strong(), palette.pale()), texture="panes", period=0)
    top = Material(colours=(palette.pale(), palette.timber()), texture="marble", period=1.2)
    return Piece("kitchen", width, 0.64, 2.1, lambda build: furniture.kitchen(build, front, top, front, width=width))


def _fridge(rng: random.Random, palette: Palette) -> Piece:
    body = Material(colours=(palette.strong() if rng.random() < 0.4 else (0.9, 0.9, 0.9),))
    height = rng.uniform(1.5, 1.9)
    return Piece("fridge", 0.62, 0.68, height, lambda build: furniture.fridge(build, body, height=height))


def _piano(rng: random.Random, palette: Palette) -> Piece:
    body = palette.wood()
    return Piece("piano", 1.5, 0.75, 1.25, lambda build: furniture.piano(build, body))


def _dining(rng: random.Random, palette: Palette) -> Piece:
    top, legs, frame, seat = palette.wood(), palette.wood(), palette.wood(), palette.cloth()
    ornaments = tuple(palette.strong() for _ in range(4))
    round_one, width, seed = rng.random() < 0.35, rng.uniform(1.1, 1.9), rng.random()
    depth = 1.05 if round_one else rng.uniform(0.75, 0.95)
    places = [(-0.25 * width, -depth / 2 - 0.12, 180.0), (0.25 * width, depth / 2 + 0.12, 0.0),
              (0.25 * width, -depth / 2 - 0.15, 170.0), (-0.25 * width, depth / 2 + 0.15, 8.0)]  # fmt: skip
    places = places[: rng.randint(2, 4)]

    def add(build: SceneBuilder) -> None:
        if round_one:
            furniture.round_table(build, top, legs, diameter=1.05)
        else:
            furniture.table(build, top, legs, size=(width, depth))
        with build.at(0, 0, 0.74):
            decor.table_things(build, random.Random(seed), ornaments)
        for x, y, yaw in places:
            with build.at(x, y, 0, yaw):
                furniture.chair(build, frame, seat)

    return Piece("dining table", max(width, 1.1), depth + 0.8, 0.95, add)


def _coffee(rng: random.Random, palette: Palette) -> Piece:
    top, legs, width = palette.wood(), palette.wood(), rng.uniform(0.8, 1.2)
    ornaments, seed = tuple(palette.strong() for _ in range(4)), rng.random()

    def add(build: SceneBuilder) -> None:
        furniture.table(build, top, legs, size=(width, 0.6), height=0.42)
        with build.at(0, 0, 0.42):
            decor.table_things(build, random.Random(seed), ornaments)

    return Piece("coffee table", width, 0.6, 0.65, add)


def _plant(rng: random.Random, palette: Palette) -> Piece:
    height, pot, leaf, seed = rng.uniform(0.8, 1.4), palette.strong(), _leaf(rng), rng.random()
    return Piece(
        "plant", 0.55, 0.55, height, lambda build: decor.plant(build, pot, leaf, random.Random(seed), height=height)
    )


def _bush(rng: random.Random, palette: Palette) -> Piece:
    height, pot, leaf = rng.uniform(0.6, 1.0), palette.strong(), _leaf(rng)
    return Piece("bush", 0.5, 0.5, height, lambda build: decor.bush(build, pot, leaf, height=height))


def _leaf(rng: random.Random) -> tuple[float, float, float]:
    return hsv(rng.uniform(0.22, 0.38), rng.uniform(0.4, 0.7), rng.uniform(0.3, 0.55))


def _floor_lamp(rng: random.Random, palette: Palette) -> Piece:
    shade, height = palette.pale(), rng.uniform(1.4, 1.75)
    return Piece("floor lamp", 0.45, 0.45, height, lambda build: decor.floor_lamp(build, shade, height=height))


def _stool(rng: random.Random, palette: Palette) -> Piece:
    frame, seat = palette.wood(), palette.cloth()
    return Piece("stool", 0.45, 0.45, 0.5, lambda build: furniture.stool(build, frame, seat))


_WALL_PIECES = (
    _sofa,
    _sofa,
    _armchair,
    _bed,
    _shelf,
    _shelf,
    _cabinet,
    _cabinet,
    _wardrobe,
    _desk,
    _kitchen,
    _fridge,
    _piano,
)

"""Colours that go together, drawn at random: pale walls, wooden floors, stronger colours for furniture."""

import colorsys
import random
from dataclasses import dataclass

from distill3d.data.render.scene import Colour, Material

WOODS: tuple[Colour, ...] = (
    (0.74, 0.56, 0.37), (0.4, 0.26, 0.17), (0.86, 0.72, 0.5), (0.55, 0.36, 0.22), (0.32, 0.2, 0.14), (0.9, 0.88, 0.84),
    (0.62, 0.52, 0.42), (0.2, 0.19, 0.19),
)  # fmt: skip

_ACCENTS: tuple[Colour, ...] = (
    (0.16, 0.4, 0.43), (0.87, 0.66, 0.24), (0.78, 0.43, 0.3), (0.17, 0.23, 0.4), (0.53, 0.62, 0.5),
    (0.46, 0.14, 0.2), (0.91, 0.87, 0.78), (0.24, 0.25, 0.27), (0.67, 0.32, 0.16), (0.42, 0.43, 0.24),
    (0.82, 0.6, 0.58), (0.5, 0.67, 0.78), (0.17, 0.32, 0.24), (0.45, 0.29, 0.2), (0.92, 0.92, 0.9),
    (0.6, 0.54, 0.66), (0.75, 0.2, 0.18), (0.56, 0.57, 0.58), (0.93, 0.78, 0.5), (0.3, 0.5, 0.7),
    (0.85, 0.45, 0.42), (0.35, 0.6, 0.55), (0.7, 0.62, 0.5), (0.4, 0.3, 0.45),
)  # fmt: skip
"""Teal, mustard, terracotta, navy, sage, burgundy, cream, charcoal, rust, olive, rose, sky and so on."""

_FLOORS = (("planks", 1.2, 2.2), ("herringbone", 0.8, 1.4), ("tiles", 1.0, 2.0), ("checker", 1.0, 2.0),
           ("carpet", 0.8, 1.2), ("terrazzo", 0.7, 1.2), ("marble", 1.5, 2.5))  # fmt: skip
_WALLPAPERS = (
    ("diamonds", 0.7, 1.4),
    ("stripes", 0.6, 1.2),
    ("dots", 0.6, 1.2),
    ("bricks", 0.9, 1.2),
    ("tiles", 0.8, 1.4),
)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """SRGB colour of a hue in turns."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value)))


@dataclass(frozen=True)
class Palette:
    """Draws the materials of one room from a random source."""

    rng: random.Random
    accents: tuple[Colour, ...]
    """The few stronger colours that come back in this room."""
    wall_hue: float

    @staticmethod
    def draw(rng: random.Random) -> "Palette":
        """Choose the colours of a room."""
        # Walls are warm (cream, rose, yellow), green or blue; magenta is rare in rooms.
        hue = rng.choice(
            (rng.uniform(0.0, 0.17), rng.uniform(0.05, 0.15), rng.uniform(0.25, 0.45), rng.uniform(0.5, 0.65))
        )
        return Palette(rng, tuple(rng.sample(_ACCENTS, 5)), hue)

    def strong(self) -> Colour:
        """A colour for upholstery, lacquer and ornaments."""
        red, green, blue = self.rng.choice(self.accents)
        light = self.rng.uniform(0.85, 1.15)
        jittered = [channel * light + self.rng.gauss(0, 0.025) for channel in (red, green, blue)]
        return shade((jittered[0], jittered[1], jittered[2]), 1.0)

    def pale(self) -> Colour:
        """A colour for walls and linen."""
        return hsv(self.wall_hue + self.rng.gauss(0, 0.05), self.rng.uniform(0.03, 0.26), self.rng.uniform(0.78, 0.95))

    def three(self) -> tuple[Colour, Colour, Colour]:
        """Colours of a picture or a rug."""
        return self.strong() if self.rng.random() < 0.5 else self.pale(), self.strong(), self.strong()

    def timber(self) -> Colour:
        """The colour of some wood."""
        return self.rng.choice(WOODS)

    def cloth(self) -> Material:
        """Upholstery, sometimes with a pattern."""
        rng, colour = self.rng, self.strong()
        texture = rng.choice(("fabric", "fabric", "fabric", "plain", "dots", "stripes", "gingham"))
        second = self.pale() if texture in ("dots", "stripes", "gingham") else shade(colour, 0.8)
        return Material(colours=(colour, second), texture=texture, period=rng.uniform(0.35, 0.7))

    def wood(self) -> Material:
        """Furniture wood, or lacquer in one case of five."""
        if self.rng.random() < 0.2:
            return Material(colours=(self.strong(),))
        colour = self.timber()
        return Material(
            colours=(shade(colour, 1.12), shade(colour, 0.8)), texture="grain", period=self.rng.uniform(0.6, 1.2)
        )

    def wall(self) -> Material:
        """Plaster, or in one case of four a pattern of low contrast."""
        rng, colour = self.rng, self.pale()
        if rng.random() < 0.72:
            return Material(colours=(colour, shade(colour, 0.93)), texture="plaster", period=rng.uniform(1.5, 3.0))
        texture, low, high = rng.choice(_WALLPAPERS)
        if texture == "bricks":
            colour = hsv(rng.uniform(0.0, 0.09), rng.uniform(0.25, 0.65), rng.uniform(0.5, 0.85))
            return Material(
                colours=(colour, shade(colour, 0.82), (0.8, 0.77, 0.72)), texture=texture, period=rng.uniform(low, high)
            )
        return Material(
            colours=(colour, shade(colour, rng.uniform(0.8, 0.92)), shade(colour, 1.1)),
            texture=texture,
            period=rng.uniform(low, high),
        )

    def floor(self) -> Material:
        """Planks, herringbone, tiles, checker, carpet, terrazzo or marble."""
        rng = self.rng
        texture, low, high = rng.choice(_FLOORS[:2] if rng.random() < 0.55 else _FLOORS[2:])
        period = rng.uniform(low, high)
        if texture in ("planks", "herringbone"):
            colour = rng.choice(WOODS[:5] + WOODS[6:7])
            return Material(colours=(shade(colour, 1.1), shade(colour, 0.72)), texture=texture, period=period)
        colour = self.pale() if rng.random() < 0.6 else self.strong()
        second = shade(colour, rng.uniform(0.45, 0.75)) if texture in ("checker", "terrazzo") else shade(colour, 0.85)
        third = self.strong() if texture == "terrazzo" else shade(colour, 0.6)
        return Material(colours=(colour, second, third), texture=texture, period=period)


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, scaled and kept within [0, 1]."""
    red, green, blue = (min(1.0, max(0.0, channel * factor)) for channel in colour)
    return red, green, blue

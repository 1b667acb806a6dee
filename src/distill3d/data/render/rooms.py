"""Endless furnished rooms, one for every seed."""

import math
import random
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.render import catalogue, decor
from distill3d.data.render.cameras import look_poses, random_pinholes, scattered
from distill3d.data.render.palette import Palette, hsv, shade
from distill3d.data.render.scene import Colour, Material, Scene, SceneBuilder, Vector
from distill3d.data.render.shell import YAW_DEG, Opening, Wall, on_wall, room_shell

SIDES = ("north", "east", "south", "west")
_MAX_SHARE_FURNISHED = 0.45
_SPARE_M = 0.06


@dataclass(frozen=True)
class Room:
    """One room and the box of air that cameras may stand in."""

    scene: Scene
    low: Vector
    high: Vector
    focus: Vector
    """Roughly where its furniture gathers."""


def random_room(seed: int) -> Room:
    """Build the room of a seed: size, colours, window, door, furniture and light all differ."""
    rng = random.Random(seed)
    palette = Palette.draw(rng)
    low = (0.0, 0.0, 0.0)
    high = (rng.uniform(3.6, 6.8), rng.uniform(3.3, 5.8), rng.uniform(2.35, 3.0))
    build = SceneBuilder()
    plan = _Plan(rng, low, high)
    window_side = rng.choice(SIDES)
    openings = _windows(build, plan, palette, window_side)
    _shell(build, plan, palette, openings)
    _door(build, plan, palette, rng.choice([side for side in SIDES if side != window_side]))
    _furnish(build, plan, palette)
    _hang_pictures(build, plan, palette)
    _light(build, plan, palette, window_side)
    daylight = rng.uniform(0.28, 0.5)
    warm = rng.uniform(-0.04, 0.04)
    toward_window = {"north": (0.0, 1.0), "south": (0.0, -1.0), "east": (1.0, 0.0), "west": (-1.0, 0.0)}[window_side]
    scene = build.build(
        ambient=(daylight + warm, daylight, daylight - warm),
        ambient_direction=(0.8 * toward_window[0], 0.8 * toward_window[1], 0.0),
        sky=(hsv(0.58, rng.uniform(0.05, 0.25), 0.95), hsv(rng.uniform(0.55, 0.62), rng.uniform(0.2, 0.7), 0.9)),
    )
    return Room(scene, low, high, plan.focus())


def room_cameras(
    room: Room, views: int, size: tuple[int, int], seed: int
) -> tuple[Float[Tensor, "views 4 4"], Float[Tensor, "views 3 3"]]:
    """Poses and intrinsics of overlapping photos at eye level, none of them inside or close to anything.

    Raises:
        GeometryError: the room is too full to stand in.
    """
    generator = torch.Generator().manual_seed(seed)
    eye, target = scattered(room.scene, room.low, room.high, views, generator, focus=room.focus)
    return look_poses(eye, target), random_pinholes(views, size, generator)


@dataclass
class _Plan:
    """The floor plan while it is being filled: rectangles on the floor and spans of the walls that are taken."""

    rng: random.Random
    low: Vector
    high: Vector
    floor: list[tuple[float, float, float, float]] = field(default_factory=list)
    walls: dict[str, list[tuple[float, float, float]]] = field(default_factory=lambda: {side: [] for side in SIDES})
    """Start, end and height of what stands or hangs along each wall."""

    def span(self, side: str) -> tuple[float, float]:
        return (self.low[0], self.high[0]) if side in ("north", "south") else (self.low[1], self.high[1])

    def is_free(self, low_x: float, low_y: float, high_x: float, high_y: float) -> bool:
        inside = low_x >= self.low[0] and low_y >= self.low[1] and high_x <= self.high[0] and high_y <= self.high[1]
        return inside and not any(
            low_x < taken[2] and taken[0] < high_x and low_y < taken[3] and taken[1] < high_y for taken in self.floor
        )

    def share_taken(self) -> float:
        area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in self.floor)
        return area / ((self.high[0] - self.low[0]) * (self.high[1] - self.low[1]))

    def wall_is_free(self, side: str, start: float, end: float, height: float) -> bool:
        """Whether something as high as `height` may stand there; windows begin above the floor."""
        return not any(start < taken[1] and taken[0] < end and height > taken[2] for taken in self.walls[side])

    def focus(self) -> Vector:
        x = (self.low[0] + self.high[0]) / 2 + self.rng.uniform(-0.5, 0.5)
        y = (self.low[1] + self.high[1]) / 2 + self.rng.uniform(-0.5, 0.5)
        return x, y, 0.8


def _windows(build: SceneBuilder, plan: _Plan, palette: Palette, side: str) -> tuple[Opening, ...]:
    rng = plan.rng
    start, end = plan.span(side)
    width = min(rng.uniform(1.0, 2.4), end - start - 1.2)
    along = rng.uniform(start + width / 2 + 0.5, end - width / 2 - 0.5)
    bottom = rng.uniform(0.75, 1.0)
    top = min(bottom + rng.uniform(1.0, 1.4), plan.high[2] - 0.2)
    x, y, yaw = on_wall(plan.low, plan.high, side, along)
    with build.at(x, y, (bottom + top) / 2, yaw):
        decor.window_frame(build, width, top - bottom, (0.93, 0.92, 0.9), bars=rng.randint(1, 3))
        if rng.random() < 0.6:
            colour = palette.strong()
            decor.curtains(build, width, top - bottom, colour, shade(colour, 0.7))
    if rng.random() < 0.5:
        with build.at(x, y, 0, yaw):
            decor.radiator(build, width=min(width, 1.2))
        plan.floor.append(_footprint(x, y, yaw, min(width, 1.2), 0.3))
    plan.walls[side].append((along - width / 2 - 0.4, along + width / 2 + 0.4, bottom - 0.05))
    return (Opening(along=along, width=width, bottom=bottom, top=top),)


def _shell(build: SceneBuilder, plan: _Plan, palette: Palette, openings: tuple[Opening, ...]) -> None:
    window_side = next(side for side in SIDES if plan.walls[side])
    main = palette.wall()
    walls = {}
    for side in SIDES:
        material = palette.wall() if plan.rng.random() < 0.55 else main
        walls[side] = Wall(material=material, openings=openings if side == window_side else ())
    ceiling = Material(colours=((0.95, 0.95, 0.93), (0.9, 0.9, 0.89)), texture="plaster", period=3.0)
    board = Material(colours=((0.93, 0.92, 0.9) if plan.rng.random() < 0.7 else palette.timber(),))
    room_shell(build, plan.low, plan.high, floor=palette.floor(), ceiling=ceiling, walls=walls, skirting=board)


def _door(build: SceneBuilder, plan: _Plan, palette: Palette, side: str) -> None:
    start, end = plan.span(side)
    along = plan.rng.uniform(start + 0.6, end - 0.6)
    x, y, yaw = on_wall(plan.low, plan.high, side, along)
    leaf = palette.strong() if plan.rng.random() < 0.4 else palette.timber()
    with build.at(x, y, 0, yaw):
        decor.door(build, leaf, (0.92, 0.91, 0.89))
    plan.walls[side].append((along - 0.55, along + 0.55, 0.0))
    plan.floor.append(_footprint(x, y, yaw, 0.9, 0.8))


def _furnish(build: SceneBuilder, plan: _Plan, palette: Palette) -> None:
    rng = plan.rng
    used: set[str] = set()
    for _ in range(rng.randint(3, 7) * 4):
        piece = catalogue.wall_piece(rng, palette)
        if plan.share_taken() > _MAX_SHARE_FURNISHED or piece.name in used:
            continue
        side = rng.choice(SIDES)
        start, end = plan.span(side)
        if piece.width + 0.1 > end - start:
            continue
        along = rng.uniform(start + piece.width / 2 + 0.05, end - piece.width / 2 - 0.05)
        if _stand(build, plan, piece, side, along):
            used.add(piece.name)
    for x in (plan.low[0] + 0.33, plan.high[0] - 0.33):
        for y in (plan.low[1] + 0.33, plan.high[1] - 0.33):
            if rng.random() < 0.45:
                _put(build, plan, catalogue.corner_piece(rng, palette), x, y, rng.choice((0.0, 90.0, 180.0)))
    if plan.share_taken() < _MAX_SHARE_FURNISHED and rng.random() < 0.8:
        piece = catalogue.centre_piece(rng, palette)
        for _ in range(12):
            x = rng.uniform(plan.low[0] + 1.0, plan.high[0] - 1.0)
            y = rng.uniform(plan.low[1] + 1.0, plan.high[1] - 1.0)
            if _put(build, plan, piece, x, y, rng.choice((0.0, 90.0))):
                break
    if rng.random() < 0.65:
        size = (rng.uniform(1.4, 2.4), rng.uniform(1.0, 1.7))
        x, y, _ = plan.focus()
        with build.at(x, y, 0, rng.choice((0.0, 90.0, rng.uniform(-20, 20)))):
            motif, round_shape = rng.choice(decor.RUGS), rng.random() < 0.2
            decor.rug(build, motif, palette.three(), size, round_shape=round_shape)


def _stand(build: SceneBuilder, plan: _Plan, piece: catalogue.Piece, side: str, along: float) -> bool:
    """Put a piece with its back to a wall, if there is room."""
    half = piece.width / 2
    if not plan.wall_is_free(side, along - half, along + half, piece.height):
        return False
    x, y, yaw = on_wall(plan.low, plan.high, side, along)
    back = piece.depth / 2 + 0.02
    toward = math.radians(yaw)
    if not _put(build, plan, piece, x + math.sin(toward) * back, y - math.cos(toward) * back, yaw):
        return False
    plan.walls[side].append((along - half, along + half, 0.0))
    return True


def _put(build: SceneBuilder, plan: _Plan, piece: catalogue.Piece, x: float, y: float, yaw: float) -> bool:
    wide, deep = (piece.width, piece.depth) if round(yaw / 90) % 2 == 0 else (piece.depth, piece.width)
    rectangle = (x - wide / 2, y - deep / 2, x + wide / 2, y + deep / 2)
    if not plan.is_free(*rectangle):
        return False
    plan.floor.append(
        (rectangle[0] - _SPARE_M, rectangle[1] - _SPARE_M, rectangle[2] + _SPARE_M, rectangle[3] + _SPARE_M)
    )
    with build.at(x, y, 0, yaw):
        piece.add(build)
    return True


def _footprint(x: float, y: float, yaw: float, width: float, depth: float) -> tuple[float, float, float, float]:
    """The floor in front of something on a wall that must stay free."""
    toward = math.radians(yaw)
    middle_x, middle_y = x + math.sin(toward) * depth / 2, y - math.cos(toward) * depth / 2
    wide, deep = (width, depth) if round(yaw / 90) % 2 == 0 else (depth, width)
    return middle_x - wide / 2, middle_y - deep / 2, middle_x + wide / 2, middle_y + deep / 2


def _hang_pictures(build: SceneBuilder, plan: _Plan, palette: Palette) -> None:
    rng = plan.rng
    for side in SIDES:
        for _ in range(rng.randint(0, 3)):
            size = (rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.8))
            start, end = plan.span(side)
            along = rng.uniform(start + 0.7, end - 0.7)
            # Pictures hang at 1.3 m and above; whatever is lower may stand below them.
            if any(along - size[0] / 2 < taken[1] and taken[0] < along + size[0] / 2 for taken in plan.walls[side]):
                continue
            x, y, _ = on_wall(plan.low, plan.high, side, along)
            with build.at(x, y, rng.uniform(1.5, 1.75), YAW_DEG[side]):
                kind = rng.random()
                if kind < 0.1:
                    decor.clock(build, palette.pale())
                elif kind < 0.17:
                    decor.mirror(build, palette.timber())
                else:
                    decor.picture(build, rng.choice(decor.PICTURES), palette.three(), palette.timber(), size)
            plan.walls[side].append((along - size[0] / 2 - 0.1, along + size[0] / 2 + 0.1, 1.2))


def _light(build: SceneBuilder, plan: _Plan, palette: Palette, window_side: str) -> None:
    """A lamp on the ceiling, and the sun through the window on most days."""
    rng = plan.rng
    x = (plan.low[0] + plan.high[0]) / 2 + rng.uniform(-0.6, 0.6)
    y = (plan.low[1] + plan.high[1]) / 2 + rng.uniform(-0.6, 0.6)
    drop = rng.uniform(0.25, 0.45)
    with build.at(x, y):
        decor.ceiling_lamp(build, plan.high[2], palette.pale(), drop=drop)
    strength, warmth = rng.uniform(0.35, 0.75), rng.uniform(0.0, 0.12)
    lamp: Colour = (strength * (1 + warmth), strength, strength * (1 - warmth))
    build.light((x, y, plan.high[2] - drop - 0.2), lamp, reach=rng.uniform(2.5, 4.0))
    outward = {"north": 90.0, "south": -90.0, "east": 0.0, "west": 180.0}[window_side] + rng.uniform(-50, 50)
    elevation, bright = math.radians(rng.uniform(20, 55)), rng.choice((0.0, 1.2, 1.7, 2.0))
    azimuth = math.radians(outward)
    far = (
        x + 50 * math.cos(azimuth) * math.cos(elevation),
        y + 50 * math.sin(azimuth) * math.cos(elevation),
        50 * math.sin(elevation),
    )
    build.light(far, (bright, bright * 0.9, bright * 0.75))

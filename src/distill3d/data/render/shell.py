"""Floors, ceilings and walls with openings for doors and windows."""

from dataclasses import dataclass, field

from distill3d.data.render.furniture import paint
from distill3d.data.render.scene import Material, SceneBuilder, Vector

THICKNESS = 0.08
_SKIRTING_HEIGHT = 0.09

# Turning angle that brings the back (+y) of a piece of furniture to the wall of that side.
YAW_DEG = {"north": 0.0, "west": 90.0, "south": 180.0, "east": -90.0}


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A hole in a wall."""

    along: float
    """Middle of the hole, in the world's x (north, south) or y (east, west)."""
    width: float
    bottom: float
    top: float


@dataclass(frozen=True, kw_only=True)
class Wall:
    """One wall of a room."""

    material: Material
    openings: tuple[Opening, ...] = field(default=())


def room_shell(
    build: SceneBuilder,
    low: Vector,
    high: Vector,
    *,
    floor: Material,
    ceiling: Material,
    walls: dict[str, Wall],
    skirting: Material | None = None,
) -> None:
    """Enclose the air between two corners; the walls stand outside of it."""
    middle = ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2)
    span = (high[0] - low[0] + 2 * THICKNESS, high[1] - low[1] + 2 * THICKNESS)
    build.box((*middle, low[2] - 0.05), (*span, 0.1), floor, continuous=True)
    build.box((*middle, high[2] + 0.05), (*span, 0.1), ceiling, continuous=True)
    for side, wall in walls.items():
        _wall(build, low, high, side, wall, skirting or paint((0.93, 0.92, 0.9)))
    build.room(low, high)


def on_wall(low: Vector, high: Vector, side: str, along: float) -> tuple[float, float, float]:
    """(x, y, yaw_deg) of a frame on the inner face of a wall whose +y points into the wall."""
    x, y = {"north": (along, high[1]), "south": (along, low[1]), "west": (low[0], along), "east": (high[0], along)}[
        side
    ]
    return x, y, YAW_DEG[side]


def _wall(build: SceneBuilder, low: Vector, high: Vector, side: str, wall: Wall, skirting: Material) -> None:
    upright = side in ("west", "east")
    start, end = (low[1], high[1]) if upright else (low[0], high[0])
    start, end = start - THICKNESS, end + THICKNESS
    holes = sorted(wall.openings, key=lambda hole: hole.along)
    edges = [
        start,
        *(edge for hole in holes for edge in (hole.along - hole.width / 2, hole.along + hole.width / 2)),
        end,
    ]
    for left, right in zip(edges[::2], edges[1::2], strict=True):
        _piece(build, low, high, side, (left, right), (low[2], high[2]), wall.material)
        _piece(build, low, high, side, (left, right), (low[2], low[2] + _SKIRTING_HEIGHT), skirting, inward=0.015)
    for hole in holes:
        across = (hole.along - hole.width / 2, hole.along + hole.width / 2)
        if hole.bottom > low[2]:
            _piece(build, low, high, side, across, (low[2], hole.bottom), wall.material)
            _piece(build, low, high, side, across, (low[2], low[2] + _SKIRTING_HEIGHT), skirting, inward=0.015)
        if hole.top < high[2]:
            _piece(build, low, high, side, across, (hole.top, high[2]), wall.material)


def _piece(
    build: SceneBuilder,
    low: Vector,
    high: Vector,
    side: str,
    across: tuple[float, float],
    upward: tuple[float, float],
    material: Material,
    *,
    inward: float = 0.0,
) -> None:
    """A slab of a wall; with `inward` a thin board on its inner face instead."""
    length, height = across[1] - across[0], upward[1] - upward[0]
    thickness = inward or THICKNESS
    outward = -inward / 2 if inward else THICKNESS / 2
    x, y, _ = on_wall(low, high, side, (across[0] + across[1]) / 2)
    z = (upward[0] + upward[1]) / 2
    if side in ("west", "east"):
        x += outward if side == "east" else -outward
        build.box((x, y, z), (thickness, length, height), material, continuous=True)
    else:
        y += outward if side == "north" else -outward
        build.box((x, y, z), (length, thickness, height), material, continuous=True)

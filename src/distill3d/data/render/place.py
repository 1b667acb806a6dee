"""The place of the demo: one apartment, always the same, with cameras to train on and others held out."""

import functools
import random
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.render import decor, furniture
from distill3d.data.render.cameras import around, look_poses, random_pinholes, walk
from distill3d.data.render.furniture import cloth, paint, wood
from distill3d.data.render.scene import Material, Scene, SceneBuilder
from distill3d.data.render.shell import Opening, Wall, on_wall, room_shell

LIVING = ((0.0, 0.0, 0.0), (6.0, 5.0, 2.6))
KITCHEN = ((6.16, 0.6, 0.0), (9.6, 4.6, 2.6))

_WALK_SHARE = 0.4
_WALK_FRAMES = 40
_ROUND_FRAMES = 12

_OAK, _WALNUT, _PINE, _WHITE = (0.72, 0.54, 0.36), (0.38, 0.25, 0.17), (0.85, 0.7, 0.48), (0.92, 0.91, 0.88)


@dataclass(frozen=True)
class PlaceCameras:
    """Cameras in the apartment, in time order."""

    world_from_camera: Float[Tensor, "views 4 4"]
    intrinsics: Float[Tensor, "views 3 3"]
    splits: list[str]
    """"train" or "test", one per view."""


def place_cameras(size: tuple[int, int], *, num_train: int, num_test: int, seed: int) -> PlaceCameras:
    """Cameras at eye level in the living room: walks and rounds of photos for training, then others held out.

    A round has twelve photos that look at one spot from around it, so neighbouring frames overlap everywhere.

    Raises:
        GeometryError: never for the apartment as it stands; see `walk`.
    """
    generator = torch.Generator().manual_seed(seed)
    eyes: list[Tensor] = []
    targets: list[Tensor] = []
    for count in (num_train, num_test):
        walks = int(count * _WALK_SHARE) // _WALK_FRAMES
        stretches = [walk(place_scene(), *LIVING, _WALK_FRAMES, generator) for _ in range(walks)]
        rounds = range(walks * _WALK_FRAMES, count, _ROUND_FRAMES)
        stretches += [around(place_scene(), *LIVING, min(_ROUND_FRAMES, count - start), generator) for start in rounds]
        eyes.extend(eye for eye, _ in stretches)
        targets.extend(target for _, target in stretches)
    return PlaceCameras(
        look_poses(torch.cat(eyes), torch.cat(targets)),
        random_pinholes(num_train + num_test, size, generator),
        ["train"] * num_train + ["test"] * num_test,
    )


@functools.cache
def place_scene() -> Scene:
    """The apartment: a living room and a kitchen behind a wide opening (a batch of one scene)."""
    build = SceneBuilder()
    _shells(build)
    _living_room(build)
    _kitchen(build)
    build.light((3.0, 2.5, 2.0), (0.62, 0.57, 0.5), reach=3.2)
    build.light((7.9, 2.4, 2.0), (0.6, 0.55, 0.45), reach=2.6)
    build.light((-14.0, -34.0, 27.0), (1.75, 1.55, 1.25))
    return build.build(
        ambient=(0.4, 0.41, 0.43), ambient_direction=(0.1, -0.8, 0.0), sky=((0.82, 0.9, 0.97), (0.3, 0.55, 0.9))
    )


def _shells(build: SceneBuilder) -> None:
    passage = Opening(along=2.6, width=2.2, bottom=0.0, top=2.25)
    ceiling = Material(colours=((0.95, 0.95, 0.93), (0.91, 0.91, 0.9)), texture="plaster", period=3.0)
    room_shell(
        build,
        *LIVING,
        ceiling=ceiling,
        floor=Material(colours=((0.68, 0.5, 0.33), (0.48, 0.33, 0.21)), texture="planks", period=1.6),
        walls={
            "north": Wall(
                material=Material(colours=((0.62, 0.71, 0.6), (0.56, 0.66, 0.55)), texture="plaster", period=2.2)
            ),
            "south": Wall(
                material=Material(colours=((0.93, 0.86, 0.74), (0.9, 0.81, 0.68)), texture="plaster", period=2.2),
                openings=(Opening(along=2.3, width=2.2, bottom=0.85, top=2.25),),
            ),
            "west": Wall(
                material=Material(colours=((0.55, 0.66, 0.78), (0.66, 0.75, 0.84)), texture="diamonds", period=1.0)
            ),
            "east": Wall(
                material=Material(
                    colours=((0.72, 0.4, 0.3), (0.6, 0.31, 0.24), (0.82, 0.78, 0.72)), texture="bricks", period=1.0
                ),
                openings=(passage,),
            ),
        },
    )
    yellow = Material(colours=((0.95, 0.84, 0.5), (0.92, 0.79, 0.45)), texture="plaster", period=2.0)
    room_shell(
        build,
        *KITCHEN,
        ceiling=ceiling,
        floor=Material(colours=((0.83, 0.83, 0.8), (0.35, 0.45, 0.5)), texture="checker", period=1.6),
        walls={
            "north": Wall(material=yellow),
            "south": Wall(
                material=Material(colours=((0.85, 0.66, 0.62), (0.92, 0.9, 0.85)), texture="stripes", period=0.9)
            ),
            "west": Wall(material=yellow, openings=(passage,)),
            "east": Wall(
                material=Material(
                    colours=((0.55, 0.74, 0.74), (0.5, 0.7, 0.72), (0.93, 0.93, 0.9)), texture="tiles", period=0.8
                ),
                openings=(Opening(along=1.5, width=1.0, bottom=1.0, top=2.1),),
            ),
        },
    )


def _living_room(build: SceneBuilder) -> None:
    low, high = LIVING
    rng = random.Random(7)
    books = tuple(
        Material(colours=colours, texture="books", period=0)
        for colours in (
            ((0.7, 0.22, 0.18), (0.2, 0.35, 0.55), (0.9, 0.82, 0.6)),
            ((0.22, 0.42, 0.32), (0.85, 0.6, 0.2), (0.5, 0.2, 0.3)),
            ((0.25, 0.25, 0.4), (0.8, 0.8, 0.75), (0.75, 0.35, 0.25)),
        )
    )
    # Middle: a rug, a low table, a sofa and an armchair around it.
    with build.at(2.35, 3.2):
        decor.rug(build, "medallion", ((0.62, 0.16, 0.17), (0.9, 0.8, 0.6), (0.14, 0.2, 0.36)), (2.6, 1.9))
    with build.at(2.3, 3.15):
        furniture.table(build, wood(_OAK), wood(_WALNUT), size=(1.05, 0.6), height=0.42)
        with build.at(-0.1, 0.02, 0.42, 20):
            decor.table_things(build, rng, ((0.9, 0.9, 0.88), (0.86, 0.3, 0.16), (0.2, 0.45, 0.6), (0.9, 0.75, 0.3)))
    with build.at(2.35, 4.45):
        teal = cloth((0.16, 0.4, 0.43))
        furniture.sofa(
            build, teal, (cloth((0.93, 0.68, 0.2)), cloth((0.9, 0.87, 0.8), "dots", (0.7, 0.25, 0.2))), width=2.1
        )
    with build.at(0.75, 3.0, 0, 65):
        furniture.armchair(build, cloth((0.83, 0.45, 0.22)), cloth((0.88, 0.8, 0.66), "gingham", (0.62, 0.3, 0.2)))
    with build.at(0.5, 4.5):
        decor.plant(build, (0.75, 0.42, 0.3), (0.2, 0.45, 0.18), rng, height=1.35)
    with build.at(3.75, 4.55):
        decor.floor_lamp(build, (0.98, 0.86, 0.62))
    # North wall: pictures over the sofa, a wardrobe in the corner.
    for along, height, motif, colours, size in (
        (1.75, 1.65, "landscape", ((0.62, 0.78, 0.9), (0.25, 0.42, 0.3), (0.9, 0.75, 0.3)), (0.85, 0.62)),
        (2.9, 1.7, "circles", ((0.94, 0.9, 0.82), (0.8, 0.25, 0.2), (0.15, 0.25, 0.45)), (0.55, 0.72)),
    ):
        x, y, yaw = on_wall(low, high, "north", along)
        with build.at(x, y, height, yaw):
            decor.picture(build, motif, colours, _WALNUT, size)
    with build.at(5.15, 4.69):
        furniture.wardrobe(build, wood((0.5, 0.3, 0.2)), paint((0.85, 0.75, 0.4)), width=1.25)
    # West wall: two bookshelves of different height, a door, a clock.
    x, y, yaw = on_wall(low, high, "west", 1.55)
    with build.at(x + 0.16, y, 0, yaw):
        furniture.shelf(build, wood(_PINE), books, width=1.0, height=2.0)
    with build.at(x + 0.16, y - 0.95, 0, yaw):
        furniture.shelf(build, wood(_PINE), books[::-1], width=0.8, height=1.25, boards=4)
        with build.at(0, 0, 1.25):
            decor.table_lamp(build, (0.25, 0.4, 0.6), (0.97, 0.9, 0.75))
    x, y, yaw = on_wall(low, high, "west", 3.95)
    with build.at(x, y, 1.75, yaw):
        decor.picture(
            build, "portrait", ((0.55, 0.3, 0.22), (0.18, 0.22, 0.35), (0.9, 0.74, 0.6)), (0.8, 0.62, 0.25), (0.6, 0.8)
        )
    # South wall: the window, a radiator below, a desk to its right.
    x, y, yaw = on_wall(low, high, "south", 2.3)
    with build.at(x, y, 1.55, yaw):
        decor.window_frame(build, 2.2, 1.4, _WHITE, bars=3)
        decor.curtains(build, 2.2, 1.4, (0.78, 0.32, 0.3), (0.62, 0.2, 0.22))
    with build.at(x, y, 0, yaw):
        decor.radiator(build, width=1.2)
    x, y, yaw = on_wall(low, high, "south", 4.6)
    with build.at(x, y + 0.36, 0, yaw):
        furniture.desk(build, wood(_WHITE, period=1.5), paint((0.25, 0.5, 0.45)), width=1.4)
        with build.at(-0.5, 0.15, 0.75):
            decor.table_lamp(build, (0.8, 0.3, 0.3), (0.98, 0.95, 0.85))
    with build.at(4.55, 1.15, 0, 20):
        furniture.chair(build, paint((0.2, 0.2, 0.22)), cloth((0.3, 0.5, 0.75)))
    with build.at(x + 0.2, y, 1.65, yaw):
        decor.picture(
            build, "blocks", ((0.93, 0.9, 0.85), (0.82, 0.2, 0.15), (0.15, 0.3, 0.6)), (0.15, 0.15, 0.15), (0.75, 0.75)
        )
    # East wall: a sideboard with a television before the bricks, north of the passage.
    x, y, yaw = on_wall(low, high, "east", 0.75)
    with build.at(x, y, 0, yaw):
        decor.door(build, (0.3, 0.48, 0.36), _WHITE)
    x, y, yaw = on_wall(low, high, "east", 4.0)
    with build.at(x, y, 1.75, yaw):
        decor.clock(build, (0.95, 0.93, 0.86))
    with build.at(3.0, 2.5):
        decor.ceiling_lamp(build, 2.6, (0.98, 0.94, 0.82), drop=0.35)


def _kitchen(build: SceneBuilder) -> None:
    low, high = KITCHEN
    x, y, yaw = on_wall(low, high, "east", 3.2)
    with build.at(x - 0.3, y, 0, yaw):
        marble = Material(colours=((0.88, 0.87, 0.84), (0.5, 0.5, 0.5)), texture="marble", period=1.2)
        fronts = Material(colours=((0.3, 0.42, 0.55), (0.26, 0.37, 0.5), (0.85, 0.8, 0.6)), texture="panes", period=0)
        furniture.kitchen(build, fronts, marble, fronts, width=2.0)
    x, y, yaw = on_wall(low, high, "east", 1.5)
    with build.at(x, y, 1.55, yaw):
        decor.window_frame(build, 1.0, 1.1, _WHITE)
    x, y, yaw = on_wall(low, high, "north", 8.0)
    with build.at(x, y - 0.33, 0, yaw):
        furniture.fridge(build, paint((0.86, 0.3, 0.24)))
    with build.at(7.1, y - 0.22, 0, yaw):
        furniture.cabinet(
            build,
            Material(colours=(_PINE, (0.75, 0.6, 0.4), _WALNUT), texture="panes", period=0),
            wood(_WALNUT),
            width=1.0,
        )
        with build.at(0.1, 0, 0.8):
            decor.bush(build, (0.9, 0.9, 0.9), (0.3, 0.55, 0.2), height=0.45)
    with build.at(8.0, 1.75):
        furniture.round_table(build, wood(_OAK, period=1.2), paint((0.2, 0.2, 0.2)), diameter=1.0)
        with build.at(0, 0, 0.74):
            decor.table_things(
                build, random.Random(3), ((0.2, 0.5, 0.5), (0.95, 0.75, 0.2), (0.85, 0.85, 0.8), (0.6, 0.2, 0.3))
            )
    for x, y, yaw in ((7.3, 1.5, 105.0), (8.75, 1.9, -80.0), (8.1, 0.98, 170.0)):
        with build.at(x, y, 0, yaw):
            furniture.chair(build, wood(_PINE), cloth((0.8, 0.25, 0.25), "gingham", (0.95, 0.92, 0.88)))
    x, y, yaw = on_wall(low, high, "south", 7.5)
    with build.at(x, y, 1.6, yaw):
        decor.picture(build, "rings", ((0.95, 0.9, 0.8), (0.2, 0.5, 0.45), (0.9, 0.5, 0.2)), _OAK, (0.7, 0.7))
    with build.at(9.2, 0.95):
        decor.plant(build, (0.3, 0.35, 0.5), (0.3, 0.5, 0.2), random.Random(5), height=0.9)
    with build.at(7.9, 2.4):
        decor.ceiling_lamp(build, 2.6, (0.95, 0.85, 0.6), drop=0.35)

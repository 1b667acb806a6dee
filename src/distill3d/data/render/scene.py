"""Scenes as padded tensors, and the builder that fills them.

Worlds are in metres with z up. A scene is a list of primitives, a few point lights (the sun is one, far away), an
ambient light, a sky and the inner boxes of its rooms (for the darkening of corners). Scenes of different size stack
into one batch because a primitive of kind `EMPTY` is never hit.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from distill3d.data.render.primitives import BOX, CYLINDER, ELLIPSOID
from distill3d.data.render.textures import texture_index

Colour = tuple[float, float, float]
Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A batch of scenes: primitives with their materials, lights and surroundings."""

    kind: Int[Tensor, "scenes prims"]
    """EMPTY, BOX, ELLIPSOID or CYLINDER."""
    world_from_local: Float[Tensor, "scenes prims 3 4"]
    """Affine map of the unit shape into the world: three half axes and the centre."""
    local_from_world: Float[Tensor, "scenes prims 3 4"]
    texture: Int[Tensor, "scenes prims"]
    colours: Float[Tensor, "scenes prims 3 3"]
    """Three linear RGB colours that the texture mixes."""
    texture_period: Float[Tensor, "scenes prims"]
    """Metres after which the texture repeats; 0 stretches it once over each face."""
    texture_offset: Float[Tensor, "scenes prims 3"]
    """Metres by which the local coordinates are shifted before the lookup."""
    emission: Float[Tensor, "scenes prims"]
    light_position: Float[Tensor, "scenes lights 3"]
    light_colour: Float[Tensor, "scenes lights 3"]
    """Linear RGB irradiance at one metre, or at any distance where `light_reach` is infinite."""
    light_reach: Float[Tensor, "scenes lights"]
    """Distance in metres at which a lamp has half its strength; infinite for the sun."""
    ambient: Float[Tensor, "scenes 3"]
    ambient_direction: Float[Tensor, "scenes 3"]
    """Where more of the ambient light comes from (a window, say); length up to 1."""
    sky: Float[Tensor, "scenes 2 3"]
    """Linear RGB at the horizon and at the zenith."""
    rooms: Float[Tensor, "scenes rooms 2 3"]
    """Lower and upper corner of each room's air."""

    def __len__(self) -> int:
        return self.kind.shape[0]

    def to(self, device: torch.device | str) -> "Scene":
        """The same scenes on another device."""
        return Scene(**{item.name: getattr(self, item.name).to(device) for item in dataclasses.fields(self)})

    def __getitem__(self, index: slice) -> "Scene":
        """Some of the scenes of the batch."""
        return Scene(**{item.name: getattr(self, item.name)[index] for item in dataclasses.fields(self)})


def per_item(values: Shaped[Tensor, "scenes *rest"], scene: Int[Tensor, " items"]) -> Shaped[Tensor, "items *rest"]:
    """Look up a property of scenes for items that belong to them; without copies where there is but one scene."""
    if len(values) == 1:
        return values.expand(len(scene), *values.shape[1:])
    return values[scene]


def stack_scenes(scenes: Sequence[Scene]) -> Scene:
    """Join batches of scenes into one, padding the shorter lists of primitives, lights and rooms."""
    joined: dict[str, Tensor] = {}
    for item in dataclasses.fields(Scene):
        values = [getattr(scene, item.name) for scene in scenes]
        # Only the axis behind the scenes differs; zeros are an EMPTY primitive, a black light, a room without air.
        longest = max(value.shape[1] for value in values)
        padded = [_pad(value, longest) for value in values]
        joined[item.name] = torch.cat(padded)
    return Scene(**joined)


def _pad(values: Tensor, length: int) -> Tensor:
    missing = length - values.shape[1]
    if not missing:
        return values
    return torch.cat([values, values.new_zeros(len(values), missing, *values.shape[2:])], dim=1)


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a primitive looks like: a texture pattern and the sRGB colours it mixes."""

    colours: tuple[Colour, ...]
    """One to three sRGB colours in [0, 1]; a missing one repeats the last."""
    texture: str = "plain"
    period: float = 1.0
    """Metres per repeat; 0 stretches the pattern once over each face."""
    emission: float = 0.0


@dataclass
class SceneBuilder:
    """Collects primitives in nested frames and makes a `Scene` of them."""

    _kinds: list[int] = field(default_factory=list)
    _poses: list[np.ndarray] = field(default_factory=list)
    _materials: list[Material] = field(default_factory=list)
    _offsets: list[Vector] = field(default_factory=list)
    _lights: list[tuple[Vector, Colour, float]] = field(default_factory=list)
    _rooms: list[tuple[Vector, Vector]] = field(default_factory=list)
    _frame: np.ndarray = field(default_factory=lambda: np.eye(4))

    @contextmanager
    def at(self, x: float, y: float, z: float = 0.0, yaw_deg: float = 0.0) -> Iterator[None]:
        """Everything added inside stands in a frame at (x, y, z), turned about the vertical axis."""
        outer = self._frame
        self._frame = outer @ _pose((x, y, z), yaw_deg)
        try:
            yield
        finally:
            self._frame = outer

    def box(
        self,
        centre: Vector,
        size: Vector,
        material: Material,
        *,
        yaw_deg: float = 0.0,
        tilt_deg: float = 0.0,
        continuous: bool = False,
    ) -> None:
        """Add a box of full size (x, y, z); tilt turns it about its own x axis.

        Where `continuous`, the texture goes on over neighbouring boxes (the pieces of a wall).
        """
        self._add(BOX, centre, size, material, yaw_deg, tilt_deg, centre if continuous else None)

    def ball(
        self, centre: Vector, size: Vector, material: Material, *, yaw_deg: float = 0.0, tilt_deg: float = 0.0
    ) -> None:
        """Add an ellipsoid of full size (x, y, z)."""
        self._add(ELLIPSOID, centre, size, material, yaw_deg, tilt_deg, None)

    def cylinder(self, centre: Vector, diameter: float, length: float, material: Material, *, axis: str = "z") -> None:
        """Add a capped cylinder along the x, y or z axis of the present frame."""
        turn = {"x": (90.0, 90.0), "y": (0.0, 90.0), "z": (0.0, 0.0)}[axis]
        self._add(CYLINDER, centre, (diameter, diameter, length), material, *turn, None)

    def light(self, position: Vector, colour: Colour, reach: float = math.inf) -> None:
        """Add a point light of linear RGB strength; an infinite reach makes it a sun."""
        place = self._frame @ np.array([*position, 1.0])
        self._lights.append(((place[0], place[1], place[2]), colour, reach))

    def room(self, low: Vector, high: Vector) -> None:
        """Declare the air of a room, whose corners get a little darker."""
        self._rooms.append((low, high))

    def _add(
        self,
        kind: int,
        centre: Vector,
        size: Vector,
        material: Material,
        yaw_deg: float,
        tilt_deg: float,
        offset: Vector | None,
    ) -> None:
        pose = self._frame @ _pose(centre, yaw_deg, tilt_deg)
        pose[:3, :3] *= np.maximum(np.asarray(size) / 2, 1e-4)
        self._kinds.append(kind)
        self._poses.append(pose[:3])
        self._materials.append(material)
        # Pieces of furniture made of the same wood should not show the same grain.
        number = len(self._kinds)
        x, y, z = (math.fmod(number * step, 1.0) * material.period for step in (0.618, 0.324, 0.755))
        self._offsets.append(offset if offset is not None else (x, y, z))

    def build(self, *, ambient: Colour, ambient_direction: Vector, sky: tuple[Colour, Colour]) -> Scene:
        """Freeze what was collected into a batch of one scene."""
        poses = np.stack(self._poses)
        inverse = np.linalg.inv(poses[:, :, :3])
        local = np.concatenate([inverse, -inverse @ poses[:, :, 3:]], axis=2)
        colours = [(material.colours + material.colours[-1:] * 2)[:3] for material in self._materials]
        fields = {
            "world_from_local": poses,
            "local_from_world": local,
            "colours": linear_from_srgb(np.array(colours)),
            "texture_period": [material.period for material in self._materials],
            "texture_offset": self._offsets,
            "emission": [material.emission for material in self._materials],
            "light_position": [light[0] for light in self._lights],
            "light_colour": [light[1] for light in self._lights],
            "light_reach": [light[2] for light in self._lights],
            "ambient": ambient,
            "ambient_direction": ambient_direction,
            "sky": sky,
            # Out of doors: one room without air, which darkens nothing.
            "rooms": self._rooms or [((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))],
        }
        tensors = {name: torch.tensor(np.asarray(values), dtype=torch.float32)[None] for name, values in fields.items()}
        return Scene(
            kind=torch.tensor(self._kinds)[None],
            texture=torch.tensor([texture_index(material.texture) for material in self._materials])[None],
            **tensors,
        )


def linear_from_srgb(colour: np.ndarray) -> np.ndarray:
    """Undo the display gamma (plain 2.2, as the shader applies it)."""
    return np.asarray(colour) ** 2.2


def _pose(centre: Vector, yaw_deg: float, tilt_deg: float = 0.0) -> np.ndarray:
    yaw, tilt = math.radians(yaw_deg), math.radians(tilt_deg)
    about_z = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    pose = np.eye(4)
    pose[:3, :3] = about_z @ about_x
    pose[:3, 3] = centre
    return pose

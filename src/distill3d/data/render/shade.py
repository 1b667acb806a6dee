"""From hits to colours: normals, texture coordinates, lamps with shadows, ambient light, sky."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from distill3d.data.render.primitives import CYLINDER, ELLIPSOID
from distill3d.data.render.scene import Scene, per_item
from distill3d.data.render.textures import TextureBank

_DISPLAY_GAMMA = 2.2
_CORNER_DARKENING = 0.42
_CORNER_SIZE_M = 0.35


@dataclass(frozen=True)
class Surface:
    """What the rays of a list hit; everything in world coordinates."""

    point: Float[Tensor, "points 3"]
    normal: Float[Tensor, "points 3"]
    uv: Float[Tensor, "points 2"]
    """Texture coordinates in repeats."""
    repeats_per_metre: Float[Tensor, " points"]
    primitive: Int[Tensor, " points"]


def surface_at(scene: Scene, primitive: Int[Tensor, " points"], point: Float[Tensor, "points 3"]) -> Surface:
    """Normal and texture coordinates of points on their primitives."""
    local_from_world = scene.local_from_world.flatten(0, 1)[primitive]
    half_sizes = scene.world_from_local[..., :3].square().sum(dim=2).sqrt().flatten(0, 1)[primitive]
    kind = scene.kind.flatten()[primitive]
    local = (local_from_world[:, :, :3] @ point[:, :, None])[:, :, 0] + local_from_world[:, :, 3]

    is_ball = kind == ELLIPSOID
    is_cylinder = kind == CYLINDER
    radial = local[:, :2].square().sum(dim=1).sqrt()
    on_cap = is_cylinder & (local[:, 2].abs() >= radial)
    on_side = is_cylinder & ~on_cap
    # Boxes and caps: the face is the axis with the largest coordinate.
    axis = local.abs().argmax(dim=1)
    axis = torch.where(on_cap, 2, axis)
    local_normal = functional.one_hot(axis, 3) * local.sign()
    side_normal = local * local.new_tensor([1.0, 1.0, 0.0])
    local_normal = torch.where(on_side[:, None], side_normal, local_normal)
    local_normal = torch.where(is_ball[:, None], local, local_normal)
    # A normal is a gradient: it transforms with the transposed inverse.
    normal = functional.normalize((local_normal[:, None] @ local_from_world[:, :, :3])[:, 0], dim=1)

    period = scene.texture_period.flatten()[primitive]
    metres = local * half_sizes + scene.texture_offset.flatten(0, 1)[primitive]
    # u runs along the floor and v upward on upright faces; on level faces both lie in the plane.
    u_axis = torch.where(axis == 0, 1, 0)
    v_axis = torch.where(axis == 2, 1, 2)
    pick = torch.stack([u_axis, v_axis], dim=1)
    uv_metres = metres.gather(1, pick)
    uv_face = local.gather(1, pick) * 0.5 + 0.5
    around = torch.atan2(local[:, 1], local[:, 0])
    round_metres = torch.stack([around * half_sizes[:, 0], metres[:, 2]], dim=1)
    round_face = torch.stack([around / (2 * torch.pi) + 0.5, local[:, 2] * 0.5 + 0.5], dim=1)
    is_round = (is_ball | on_side)[:, None]
    uv_metres = torch.where(is_round, round_metres, uv_metres)
    uv_face = torch.where(is_round, round_face, uv_face)
    stretched = period <= 0
    per_metre = torch.where(stretched, 0.5 / half_sizes.gather(1, pick).amin(dim=1), 1 / period.clamp(min=1e-6))
    uv = torch.where(stretched[:, None], uv_face, uv_metres * per_metre[:, None])
    return Surface(point, normal, uv, per_metre, primitive)


def albedo(
    scene: Scene, surface: Surface, bank: TextureBank, footprint_m: Float[Tensor, " points"]
) -> Float[Tensor, "points 3"]:
    """Linear RGB reflectance; `footprint_m` is the size of the pixel on the surface."""
    texture = scene.texture.flatten()[surface.primitive]
    footprint = footprint_m * surface.repeats_per_metre
    mix = bank.sample(texture, surface.uv[:, 0], surface.uv[:, 1], footprint)
    first, second, third = scene.colours.flatten(0, 1)[surface.primitive].unbind(dim=1)
    colour = first + mix[:, :1] * (second - first)
    colour = colour + mix[:, 1:2] * (third - colour)
    return colour * mix[:, 2:]


def light_on(
    position: Float[Tensor, "points 3"],
    colour: Float[Tensor, "points 3"],
    reach: Float[Tensor, " points"],
    surface: Surface,
) -> Float[Tensor, "points 3"]:
    """Irradiance from one light if nothing stands between (Lambert, soft distance fall-off)."""
    to_light = position - surface.point
    squared = to_light.square().sum(dim=1)
    cosine = (to_light * surface.normal).sum(dim=1) * squared.clamp(min=1e-12).rsqrt()
    falloff = 1 / (1 + squared / reach.square())
    return colour * (cosine.clamp(min=0) * falloff)[:, None]


def ambient_on(scene: Scene, index: Int[Tensor, " points"], surface: Surface) -> Float[Tensor, "points 3"]:
    """Ambient light with a direction, darker in the corners of rooms."""
    toward = (surface.normal * per_item(scene.ambient_direction, index)).sum(dim=1)
    upward = surface.normal[:, 2]
    shape = 1 + 0.35 * toward + 0.12 * upward
    return per_item(scene.ambient, index) * (shape * _corner_light(scene, index, surface))[:, None]


def _corner_light(scene: Scene, index: Tensor, surface: Surface) -> Tensor:
    """Share of the ambient light that reaches a point past the planes of its room."""
    rooms = per_item(scene.rooms, index)  # (points, rooms, 2, 3)
    above = surface.point[:, None] - rooms[:, :, 0]
    below = rooms[:, :, 1] - surface.point[:, None]
    inside = ((above > -0.02) & (below > -0.02)).all(dim=2)
    # A wall does not darken itself, only what faces across it: weigh by the sine between normal and plane.
    facing = (1 - surface.normal.square()).clamp(min=0)[:, None]
    loss = facing * ((-above.clamp(min=0) / _CORNER_SIZE_M).exp() + (-below.clamp(min=0) / _CORNER_SIZE_M).exp())
    light = (1 - _CORNER_DARKENING * loss.clamp(max=1)).prod(dim=2)
    return torch.where(inside, light, 1.0).amin(dim=1)


def sky_colour(
    scene: Scene, index: Int[Tensor, " points"], direction: Float[Tensor, "points 3"]
) -> Float[Tensor, "points 3"]:
    """Linear RGB of rays that leave the scene."""
    height = functional.normalize(direction, dim=1)[:, 2]
    horizon, zenith = per_item(scene.sky, index).unbind(dim=1)
    sky = torch.lerp(horizon, zenith, height.clamp(0, 1).sqrt()[:, None])
    ground = horizon * horizon.new_tensor([0.45, 0.55, 0.35])
    return torch.where((height < 0)[:, None], ground, sky)


def display(linear: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Linear light to sRGB-like values in [0, 1], with a soft shoulder for the highlights."""
    knee = 0.75
    bright = knee + (1 - knee) * (1 - (-(linear - knee).clamp(min=0) / (1 - knee)).exp())
    return torch.where(linear > knee, bright, linear).clamp(0, 1) ** (1 / _DISPLAY_GAMMA)


def soften(
    visible: Float[Tensor, "images height width"], primitive: Int[Tensor, "images height width"], radius: int
) -> Float[Tensor, "images height width"]:
    """Give shadows a soft rim: a binomial blur (radius 1 to 3 pixels) that never mixes two primitives."""
    weights = {1: (2.0, 1.0), 2: (6.0, 4.0, 1.0), 3: (20.0, 15.0, 6.0, 1.0)}[radius]
    for axis in (1, 2):
        total = visible * weights[0]
        norm = torch.full_like(visible, weights[0])
        for distance, weight in enumerate(weights[1:], start=1):
            length = visible.shape[axis] - distance
            here = [slice(None)] * 3
            there = [slice(None)] * 3
            here[axis], there[axis] = slice(0, length), slice(distance, None)
            first, second = tuple(here), tuple(there)
            same = (primitive[first] == primitive[second]).to(visible.dtype).mul_(weight)
            total[first] += same * visible[second]
            total[second] += same * visible[first]
            norm[first] += same
            norm[second] += same
        visible = total / norm
    return visible

"""Maps of a made-up scene, and a student that is near it."""

import dataclasses
import math

import torch

from distill3d.geometry.poses import pose_from_rt, project_to_rotation, transform_points
from distill3d.types import Prediction

MAPS = ("pointmap_world", "pointmap_camera", "confidence_world", "confidence_camera")


def turn(degrees, axis=1):
    """A rotation about one axis."""
    angle = math.radians(degrees)
    rotation = torch.eye(3)
    one, two = [other for other in range(3) if other != axis]
    rotation[one, one] = rotation[two, two] = math.cos(angle)
    rotation[one, two], rotation[two, one] = -math.sin(angle), math.sin(angle)
    return rotation


def scene(batch=2, views=3, height=6, width=8, seed=0):
    """Consistent maps and poses of a teacher; the world is the frame of view 0."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.linspace(-0.4, 0.4, height), torch.linspace(-0.5, 0.5, width), indexing="ij")
    depth = 2 + torch.rand(batch, views, height, width, generator=generator)
    camera = torch.stack([columns * depth, rows * depth, depth], dim=-1)
    near = torch.eye(3) + 0.2 * torch.randn(batch, views, 3, 3, generator=generator)
    pose = pose_from_rt(project_to_rotation(near), 0.5 * torch.randn(batch, views, 3, generator=generator))
    pose[:, 0] = torch.eye(4)
    confidence = 1 + 5 * torch.rand(2, batch, views, height, width, generator=generator)
    return Prediction(
        pointmap_world=transform_points(pose, camera),
        pointmap_camera=camera,
        confidence_world=confidence[0],
        confidence_camera=confidence[1],
        world_from_camera=pose,
    )


def near(target, size=0.1, seed=1):
    """A student that is wrong by about `size`, with gradients to take."""
    generator = torch.Generator().manual_seed(seed)
    maps = {}
    for name in MAPS:
        value = getattr(target, name)
        noise = torch.randn(value.shape, generator=generator)
        maps[name] = (
            value + size * noise if "pointmap" in name else value * (size * noise).exp() + 0.1
        ).requires_grad_()
    return Prediction(**maps)


def gradients(prediction):
    """Gradients of the maps, zero where there is none."""
    found = {}
    for name in MAPS:
        value = getattr(prediction, name)
        found[name] = torch.zeros_like(value) if value.grad is None else value.grad
    return found


def spoiled(record, valid, value=float("nan")):
    """The same record with `value` wherever the mask is off."""
    changed = {}
    for name in MAPS:
        tensor = getattr(record, name).detach().clone()
        tensor[~valid] = value
        changed[name] = tensor.requires_grad_(getattr(record, name).requires_grad)
    return dataclasses.replace(record, **changed)


def partial_mask(shape, seed=2):
    """About two thirds of the pixels, and one view with none at all."""
    valid = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.66
    valid[0, -1] = False
    return valid

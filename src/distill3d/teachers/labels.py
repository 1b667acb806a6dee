"""What teachers share: labels that depend on nothing but the views, and maps that agree with each other."""

import hashlib
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.geometry.align import align_maps
from distill3d.types import Prediction


def content_seed(images: Float[Tensor, "views 3 height width"], seed: int) -> int:
    """A seed for the randomness of one view group, from the photos themselves (8 bits a channel) and `seed`.

    It is the same on every machine, in every batch and after every restart.
    """
    levels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous()
    digest = hashlib.blake2b(f"{seed}:{tuple(levels.shape)}".encode(), digest_size=8)
    digest.update(levels.numpy().tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1  # torch takes 63 bits


def world_from_local(prediction: Prediction, *, robust: bool = True) -> Prediction:
    """Replace each world map by the similarity of the local map that comes nearest to it, view by view.

    This is what the cache of Distill3R holds: the local map is the better one, the world map says where it belongs.
    The fits weigh points by `confidence_world` and give `world_from_camera` as well (in units of the world). A view
    whose points fix no similarity keeps its world map.
    """
    local, world = prediction.pointmap_camera, prediction.pointmap_world
    if local is None or world is None:
        return prediction
    confidence = prediction.confidence_world
    # Confidence is 1 + exp(x): what counts is how far it stands above 1.
    weight = None if confidence is None else (confidence - 1).clamp(min=1e-3, max=1e3)
    fit = align_maps(local, world, weight, prediction.valid, robust=robust, degenerate="identity")
    exact = (value.double() for value in (fit.scale, fit.rotation, fit.translation))
    scale, rotation, translation = exact
    turned = local.double() @ rotation[:, :, None].transpose(-1, -2)
    moved = (scale[..., None, None, None] * turned + translation[:, :, None, None]).to(world.dtype)
    determined = torch.ones_like(fit.scale, dtype=torch.bool) if fit.determined is None else fit.determined
    pose = torch.eye(4, dtype=world.dtype, device=world.device).repeat(*scale.shape, 1, 1)
    pose[..., :3, :3], pose[..., :3, 3] = rotation.to(world.dtype), translation.to(world.dtype)
    return replace(
        prediction,
        pointmap_world=torch.where(determined[..., None, None, None], moved, world),
        world_from_camera=pose if prediction.world_from_camera is None else prediction.world_from_camera,
    )

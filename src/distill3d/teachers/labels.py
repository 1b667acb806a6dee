"""What teachers share: labels that depend on nothing but the views, and maps that agree with each other."""

import hashlib
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.geometry.align import robust_similarity
from distill3d.geometry.poses import pose_from_rt
from distill3d.types import Prediction

FIT_PIXELS = 2048
"""Pixels of a view that decide its similarity."""


def content_seed(images: Float[Tensor, "views 3 height width"], seed: int) -> int:
    """A seed for the randomness of one view group, from the photos themselves (8 bits a channel) and `seed`.

    It is the same on every machine, in every batch and after every restart.
    """
    levels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous()
    digest = hashlib.blake2b(f"{seed}:{tuple(levels.shape)}".encode(), digest_size=8)
    digest.update(levels.numpy().tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1  # torch takes 63 bits


def world_from_local(
    prediction: Prediction, valid: Bool[Tensor, "batch views height width"] | None = None
) -> Prediction:
    """Replace each world map by the similarity of the local map that comes nearest to it, view by view.

    This is what the cache of Distill3R holds: the local map is the better one, the world map says where it belongs.
    The fits are robust, weigh points by how far `confidence_world` stands above 1, use the pixels that are `valid` and
    that the prediction calls so, and give `world_from_camera` as well (in units of the world). A view whose points fix
    no similarity keeps its world map.
    """
    local, world = prediction.pointmap_camera, prediction.pointmap_world
    if local is None or world is None:
        return prediction
    usable = (local.isfinite() & world.isfinite()).all(dim=-1)
    for mask in (valid, prediction.valid):
        if mask is not None:
            usable = usable & mask
    weight = torch.ones_like(local[..., 0])
    if prediction.confidence_world is not None:
        weight = (prediction.confidence_world - 1).clamp(min=1e-3, max=1e3)
    weight = torch.where(usable & weight.isfinite(), weight, 0.0)
    # Scattered pixels, always the same ones: a few thousand fix a similarity as well as all do.
    count = local.shape[2] * local.shape[3]
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:FIT_PIXELS].to(local.device)
    fit = robust_similarity(
        local.flatten(2, 3)[:, :, chosen].double(),
        world.flatten(2, 3)[:, :, chosen].double(),
        weight.flatten(2)[:, :, chosen].double(),
        degenerate="identity",
    )
    moved = fit.apply(local.flatten(2, 3).double()).reshape(local.shape).to(world.dtype)
    determined = torch.ones_like(fit.scale, dtype=torch.bool) if fit.determined is None else fit.determined
    poses = pose_from_rt(fit.rotation, fit.translation).to(world.dtype)
    return replace(
        prediction,
        pointmap_world=torch.where(determined[..., None, None, None], moved, world),
        world_from_camera=poses if prediction.world_from_camera is None else prediction.world_from_camera,
    )

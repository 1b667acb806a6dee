"""Pairs of views: which ones to compare, what a pair network says about them, and the cameras of a single pair."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.geometry.cameras import centred_intrinsics
from distill3d.geometry.poses import invert_pose, transform_points
from distill3d.geometry.solve import focal_from_pointmap, pose_from_pointmap
from distill3d.models._pair import Encoded, PairModel
from distill3d.progress import ProgressBar
from distill3d.types import Prediction, collate, collate_views, map_tensors

PairGraph = Literal["complete", "window", "reference"]
"""Every view with every other, with its next neighbours in the given order, or with one reference view."""

Pair = tuple[int, int]
"""(first, second): both maps of a pair are in the camera frame of the first."""


def make_pairs(count: int, graph: PairGraph = "complete", *, window: int = 3, reference: int = 0) -> list[Pair]:
    """The pairs to compare among `count` views: each in one order, later view first, then all of them swapped.

    Args:
        count: number of views.
        graph: see `PairGraph`.
        window: with "window", neighbours on each side.
        reference: with "reference", the view that all others are compared with.

    Raises:
        ConfigError: fewer than two views, no such graph, a window below 1, or a reference that is none of the views.
    """
    if count < 2:
        raise ConfigError(f"pairs need at least two views, there are {count}")
    if graph == "complete":
        chosen = [(i, j) for i in range(count) for j in range(i)]
    elif graph == "window":
        if window < 1:
            raise ConfigError(f"a window of {window} neighbours leaves the views apart; choose at least 1")
        chosen = [(i, j) for i in range(count) for j in range(max(0, i - window), i)]
    elif graph == "reference":
        if not 0 <= reference < count:
            raise ConfigError(f"the reference is view {reference}, but the views are 0 .. {count - 1}")
        chosen = [(max(i, reference), min(i, reference)) for i in range(count) if i != reference]
    else:
        raise ConfigError(f"there is no pair graph {graph!r}; choose complete, window or reference")
    return chosen + [(j, i) for i, j in chosen]


@torch.no_grad()
def predict_pairs(
    model: PairModel,
    images: Float[Tensor, "views 3 height width"],
    pairs: Sequence[Pair],
    *,
    batch_size: int = 4,
    head_chunk: int | None = None,
) -> Prediction:
    """What a pair network says about every pair: a batch with one row of two views per pair, without descriptors.

    Every image goes through the encoder once, however many pairs it is in. The network is called in the mode that it is
    in (`eval()` it first); the result is on the device of `images`.

    Args:
        model: DUSt3R, MASt3R or one of their kind.
        images: RGB in [0, 1].
        pairs: e.g. from `make_pairs`.
        batch_size: images and pairs per pass; bounds the memory and changes no value.
        head_chunk: see the model.
    """
    device = next(model.parameters()).device
    with ProgressBar("comparing pairs", total=len(pairs), unit="pairs") as bar:
        encoded = [model.encode(part.to(device)) for part in torch.split(images, batch_size)]
        everything = Encoded.join(encoded)
        found = []
        for start in range(0, len(pairs), batch_size):
            some = torch.tensor(pairs[start : start + batch_size], device=device)
            views = model.decode(everything.rows(some[:, 0]), everything.rows(some[:, 1]), head_chunk=head_chunk)
            kept = [dataclasses.replace(view, descriptors=None, confidence_descriptors=None) for view in views]
            found.append(map_tensors(collate_views(kept), lambda value: value.to(images.device)))
            bar.advance(len(some))
    return collate(found)


@torch.no_grad()
def solve_pair(
    forward: Prediction,
    swapped: Prediction,
    *,
    valid: Bool[Tensor, "2 height width"] | None = None,
    intrinsics: Float[Tensor, "2 3 3"] | None = None,
    confidence_threshold: float = 3.0,
    seed: int = 0,
) -> Prediction:
    """Cameras of two views from both orders of the pair, as DUSt3R's viewer finds them.

    Of the two orders the one with the larger product of mean confidences gives the maps. A view's focal length comes
    from the order in which it is the first, its pose by PnP with that focal length from its map in the other's frame
    (the identity where PnP fails). The world is the camera frame of view 0 whichever order won.

    Args:
        forward: views (0, 1), a batch of 1.
        swapped: views (1, 0), a batch of 1.
        valid: pixels that may be used, of views 0 and 1; None for all.
        intrinsics: cameras that are known; None to find them.
        confidence_threshold: of the points for PnP; where too few reach it, the upper half is taken.
        seed: for PnP.
    """
    orders = (forward, swapped)
    scores = [_maps(order)[1].flatten(1).mean(dim=1).prod() for order in orders]
    best = 0 if scores[0] >= scores[1] else 1
    mask = torch.ones_like(_maps(forward)[1], dtype=torch.bool) if valid is None else valid
    height, width = mask.shape[1:]
    if intrinsics is None:
        focal = torch.stack([focal_from_pointmap(_maps(orders[view])[0][0], mask[view]) for view in (0, 1)])
        intrinsics = centred_intrinsics(focal, height, width)

    points, confidence = _maps(orders[best])
    other = 1 - best
    sure = mask[other] & (confidence[1] > confidence_threshold)
    if sure.sum() < 4:
        sure = mask[other] & (confidence[1] >= confidence[1].median())
    found = pose_from_pointmap(points[1], intrinsics[other], sure, seed=seed)
    in_order = torch.stack([torch.eye(4).to(points), found.world_from_camera])  # world: the first of this order
    view0_from_order = invert_pose(in_order[best])
    pose = view0_from_order @ in_order
    maps = transform_points(view0_from_order.expand(2, 4, 4), points)
    if best == 1:
        pose, maps, confidence = pose.flip(0), maps.flip(0), confidence.flip(0)
    return dataclasses.replace(
        forward,
        pointmap_world=maps[None],
        confidence_world=confidence[None],
        world_from_camera=pose[None],
        intrinsics=intrinsics[None],
    )


def _maps(prediction: Prediction) -> tuple[Float[Tensor, "2 height width 3"], Float[Tensor, "2 height width"]]:
    """Points and confidences of the one pair of a prediction."""
    points, confidence = prediction.pointmap_world, prediction.confidence_world
    assert points is not None
    assert confidence is not None
    assert points.shape[:2] == (1, 2)
    return points[0], confidence[0]

"""Many views from pairs: one world that agrees with all pairs as well as it can (DUSt3R, section 3.4)."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from distill3d.errors import ConfigError
from distill3d.geometry.cameras import camera_rays, unproject_depth
from distill3d.geometry.poses import (
    invert_pose,
    pose_from_rt,
    quaternion_from_rotation,
    rebase_poses,
    rotation_from_quaternion,
    transform_points,
)
from distill3d.infer.pairs import Pair, PairGraph, make_pairs, predict_pairs, solve_pair
from distill3d.infer.spanning import focal_lengths, own_maps, pair_similarity, place_views
from distill3d.models._pair import PairModel
from distill3d.progress import ProgressBar
from distill3d.types import Prediction, Views, map_tensors, to_device

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """How pairs are brought into one world."""

    iterations: int = 300
    """Steps of gradient descent after the start along a spanning tree; 0 keeps that start."""
    learning_rate: float = 0.01
    """Of Adam at the first step; it falls to nothing along a cosine. Lengths are in mean distances of the scene."""
    shared_focal: bool = False
    """One focal length for all views: photos of one camera and zoom."""
    max_pixels: int = 20_000
    """Pixels of a view that take part, on an even grid; with more, depths of all are the pairs' weighted means."""

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.learning_rate <= 0 or self.max_pixels < 16:
            raise ConfigError(
                f"iterations={self.iterations} must be at least 0, learning_rate={self.learning_rate} above 0, "
                f"and max_pixels={self.max_pixels} at least 16"
            )


def predict_views(
    model: PairModel,
    views: Views,
    *,
    graph: PairGraph = "complete",
    window: int = 3,
    reference: int = 0,
    config: AlignmentConfig | None = None,
    batch_size: int = 4,
    head_chunk: int | None = None,
) -> Prediction:
    """All views of one place through a pair network: maps and cameras in the frame of view 0.

    Intrinsics of the views, where they are known, are kept. Two views need no alignment: see `solve_pair`.

    Args:
        model: DUSt3R, MASt3R or one of their kind, in eval mode.
        views: batch of 1; pixels that are not `valid` do not count.
        graph, window, reference: which pairs are compared; see `make_pairs`.
        config: of the alignment; None for the defaults, and for no alignment of two views.
        batch_size, head_chunk: see `predict_pairs`.

    Raises:
        ConfigError: fewer than two views, or no such pairs.
        GeometryError: the pairs do not hang together.
    """
    pairs = make_pairs(views.images.shape[1], graph, window=window, reference=reference)
    # The alignment, too, runs where the network is.
    device = next(model.parameters()).device
    found = predict_pairs(model, views.images[0].to(device), pairs, batch_size=batch_size, head_chunk=head_chunk)
    valid = None if views.valid is None else views.valid[0].to(device)
    intrinsics = None if views.intrinsics is None else views.intrinsics[0].to(device)
    if config is None and pairs == [(1, 0), (0, 1)]:
        swapped = map_tensors(found, lambda value: value[:1])
        forward = map_tensors(found, lambda value: value[1:])
        solved = solve_pair(forward, swapped, valid=valid, intrinsics=intrinsics)
    else:
        solved = align_pairs(pairs, found, valid=valid, intrinsics=intrinsics, config=config or AlignmentConfig())
    return to_device(solved, views.images.device)


def align_pairs(
    pairs: Sequence[Pair],
    prediction: Prediction,
    *,
    valid: Bool[Tensor, "views height width"] | None = None,
    intrinsics: Float[Tensor, "views 3 3"] | None = None,
    config: AlignmentConfig,
) -> Prediction:
    """Find depths, cameras and a similarity per pair so that all pairs say the same about the world.

    The confidence-weighted distances (not squared) between each pair's moved points and the views' own are minimised;
    weights are the logarithms of the confidences. The mean logarithm of the pairs' scales is 0, so that a metric
    network's world stays metric.

    Args:
        pairs: (first, second) of every row of the prediction; every view is the first of one at least.
        prediction: points and confidences, one row of two views per pair, in the frame of the first.
        valid: pixels that count; None for all.
        intrinsics: cameras that are known; None to find focal lengths, with the principal point at the centre.
        config: how.

    Returns:
        One sample with all views: both pointmaps, depth (0 where no pair says anything), the largest confidence of each
        pixel over its pairs, poses and intrinsics. The world is the camera frame of view 0.

    Raises:
        GeometryError: a view is in no pair as the first one, or the pairs fall into groups that share no view.
    """
    assert prediction.pointmap_world is not None
    assert prediction.confidence_world is not None
    with torch.inference_mode(False), torch.enable_grad():
        # Copies, because tensors of inference mode would refuse to take part.
        points = prediction.pointmap_world.detach().clone()
        confidence = prediction.confidence_world.detach().clone()
        index = torch.tensor(pairs, device=points.device)
        usable = torch.isfinite(points).all(dim=-1) & torch.isfinite(confidence)
        if valid is not None:
            usable = usable & valid[index]
        weight = torch.where(usable, confidence.clamp(min=1).log(), 0.0)
        if not bool((weight > 0).any()):
            weight = usable.float()
        points = torch.where(usable[..., None], points, 0.0)
        height, width = confidence.shape[2:]
        stride = math.ceil(math.sqrt(height * width / config.max_pixels))
        grid = (slice(None), slice(None), slice(None, None, stride), slice(None, None, stride))
        centre = ((width - 1) / 2 / stride, (height - 1) / 2 / stride)
        scaled = None if intrinsics is None else _scale_intrinsics(intrinsics, 1 / stride)
        world = _World(pairs, index, points[grid], weight[grid], centre, scaled, config)
        loss = world.fit(config)
    logger.info("%d pairs agree to %.2g of the mean distance of the scene", len(pairs), loss)
    with torch.no_grad():
        cameras = world.poses()
        # Usable pixels that no pair is sure of get the plain mean of the depths.
        depth = (
            world.log_depth.exp() if stride == 1 else _mean_depth(index, points, weight + 1e-6 * usable, world, cameras)
        )
        covered = _largest(index, usable.float(), len(cameras)) > 0
        # The mean logarithm of the pairs' scales becomes 0.
        unit = math.exp(-world.mean_log_scale)
        pose = rebase_poses(cameras[None], 0)[0]
        pose = pose_from_rt(pose[:, :3, :3], pose[:, :3, 3] * unit)
        found = _scale_intrinsics(world.intrinsics(), stride) if intrinsics is None else intrinsics.clone()
        local = unproject_depth(torch.where(covered, unit * depth, 0.0), found)
        best = _largest(index, torch.where(usable, confidence, 0.0), len(cameras))
        return Prediction(
            pointmap_world=transform_points(pose, local)[None],
            pointmap_camera=local[None],
            depth=local[None, ..., 2],
            confidence_world=best[None],
            world_from_camera=pose[None],
            intrinsics=found[None],
            metric_scale=None if prediction.metric_scale is None else prediction.metric_scale[:1],
        )


def _scale_intrinsics(intrinsics: Float[Tensor, "views 3 3"], factor: float) -> Float[Tensor, "views 3 3"]:
    """Intrinsics for every k-th pixel from the first one on (or back): no half pixels, unlike a resize."""
    return intrinsics * intrinsics.new_tensor([factor, factor, 1.0])[:, None]


def _largest(
    index: Int[Tensor, "pairs 2"], values: Float[Tensor, "pairs 2 height width"], count: int
) -> Float[Tensor, "views height width"]:
    """For every view the largest of what its pairs say, at least 0."""
    best = values.new_zeros(count, *values.shape[2:])
    for row, pair in enumerate(index.tolist()):
        for side, view in enumerate(pair):
            best[view] = torch.maximum(best[view], values[row, side])
    return best


class _World(nn.Module):
    """Depths, cameras and pair similarities that are being fitted; lengths in mean distances of the scene."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        index: Int[Tensor, "pairs 2"],
        points: Float[Tensor, "pairs 2 height width 3"],
        weight: Float[Tensor, "pairs 2 height width"],
        centre: tuple[float, float],
        intrinsics: Float[Tensor, "views 3 3"] | None,
        config: AlignmentConfig,
    ):
        """Start along the spanning tree; `centre` (x, y) is the principal point where cameras are not known."""
        super().__init__()
        self.index, self.points, self.weight = index, points, weight
        self.size = (points.shape[2], points.shape[3])
        self.centre = centre
        local, local_weight = own_maps(pairs, points, weight)
        placed = place_views(pairs, points, weight, local, local_weight)
        self.known = intrinsics
        focal = focal_lengths(local, local_weight > 0, centre)
        self.log_focal = nn.Parameter((focal.log().mean()[None] if config.shared_focal else focal.log()).clone())
        self.log_focal.requires_grad_(intrinsics is None)

        maps = torch.stack([fit.apply(view.flatten(0, 1)) for fit, view in zip(placed, local, strict=True)])
        fits = [pair_similarity(maps, pair, points[row], weight[row]) for row, pair in enumerate(pairs)]
        scale = torch.stack([fit.scale for fit in fits])
        unit = float(torch.linalg.vector_norm(maps, dim=-1).mean()) or 1.0
        depth = torch.stack([fit.scale * view[..., 2] for fit, view in zip(placed, local, strict=True)]) / unit
        typical = depth[depth > 0].median() if bool((depth > 0).any()) else torch.ones(())
        self.log_depth = nn.Parameter(torch.where(depth > 1e-3 * typical, depth, typical).log())
        self.turn = nn.Parameter(torch.stack([quaternion_from_rotation(fit.rotation) for fit in placed]))
        self.shift = nn.Parameter(torch.stack([fit.translation for fit in placed]) / unit)
        self.pair_turn = nn.Parameter(torch.stack([quaternion_from_rotation(fit.rotation) for fit in fits]))
        self.pair_shift = nn.Parameter(torch.stack([fit.translation for fit in fits]) / unit)
        self.pair_log_scale = nn.Parameter((scale / unit).log())
        self.mean_log_scale = float(self.pair_log_scale.detach().mean())

    def intrinsics(self) -> Float[Tensor, "views 3 3"]:
        if self.known is not None:
            return self.known
        focal = self.log_focal.exp().expand(len(self.turn))
        x, y = (torch.full_like(focal, value) for value in self.centre)
        zero, one = torch.zeros_like(focal), torch.ones_like(focal)
        return torch.stack([focal, zero, x, zero, focal, y, zero, zero, one], dim=-1).view(-1, 3, 3)

    def local_maps(self) -> Float[Tensor, "views height width 3"]:
        return camera_rays(self.intrinsics(), *self.size) * self.log_depth.exp()[..., None]

    def poses(self) -> Float[Tensor, "views 4 4"]:
        return pose_from_rt(rotation_from_quaternion(self.turn), self.shift)

    def pair_scales(self) -> Float[Tensor, " pairs"]:
        # Their mean stays where it is, or everything would shrink to a point.
        return (self.pair_log_scale - self.pair_log_scale.mean() + self.mean_log_scale).exp()

    def move(self, points: Float[Tensor, "pairs 2 height width 3"]) -> Float[Tensor, "pairs 2 height width 3"]:
        """Take the pairs' points to the world."""
        turned = self.pair_scales()[:, None, None] * rotation_from_quaternion(self.pair_turn)
        return torch.einsum("pij,pvhwj->pvhwi", turned, points) + self.pair_shift[:, None, None, None]

    def disagreement(self) -> Float[Tensor, ""]:
        """The weighted mean distance between the pairs' points and the views' own."""
        maps = transform_points(self.poses(), self.local_maps())
        moved = self.move(self.points)
        distance = torch.linalg.vector_norm(moved - maps[self.index], dim=-1)
        mean: Tensor = (self.weight * distance).sum() / self.weight.sum().clamp(min=1e-12)
        return mean

    def fit(self, config: AlignmentConfig) -> float:
        adam = torch.optim.Adam([value for value in self.parameters() if value.requires_grad], betas=(0.9, 0.9))
        with ProgressBar("aligning pairs", total=config.iterations, unit="steps") as bar:
            for step in range(config.iterations):
                for group in adam.param_groups:
                    group["lr"] = config.learning_rate * (1 + math.cos(math.pi * step / config.iterations)) / 2
                adam.zero_grad()
                loss = self.disagreement()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
                bar.advance(note=f"disagreement {float(loss.detach()):.4f}")
        with torch.no_grad():
            return float(self.disagreement())


def _mean_depth(
    index: Int[Tensor, "pairs 2"],
    points: Float[Tensor, "pairs 2 height width 3"],
    weight: Float[Tensor, "pairs 2 height width"],
    world: _World,
    poses: Float[Tensor, "views 4 4"],
) -> Float[Tensor, "views height width"]:
    """The weighted mean over its pairs of every pixel's depth, with cameras and pairs where they are."""
    camera_from_world = invert_pose(poses)[index]
    depth = transform_points(camera_from_world, world.move(points))[..., 2]
    total = points.new_zeros(len(poses), *points.shape[2:4])
    mass = torch.zeros_like(total)
    for side in (0, 1):
        total.index_add_(0, index[:, side], (weight * depth)[:, side])
        mass.index_add_(0, index[:, side], weight[:, side])
    return (total / mass.clamp(min=1e-12)).clamp(min=0)

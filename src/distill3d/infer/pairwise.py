"""Many views from pairs: one world that agrees with all pairs as well as it can (DUSt3R, section 3.4)."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from distill3d.errors import ConfigError, GeometryError
from distill3d.geometry.align import Similarity, robust_similarity
from distill3d.geometry.cameras import camera_rays, centred_intrinsics
from distill3d.geometry.poses import (
    pose_from_rt,
    quaternion_from_rotation,
    rebase_poses,
    rotation_from_quaternion,
    transform_points,
)
from distill3d.geometry.solve import focal_from_pointmap
from distill3d.infer.pairs import Pair, PairGraph, make_pairs, predict_pairs, solve_pair
from distill3d.models._pair import PairModel
from distill3d.progress import ProgressBar
from distill3d.types import Prediction, Views, map_tensors

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

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.learning_rate <= 0:
            raise ConfigError(
                f"iterations={self.iterations} must be at least 0 and learning_rate={self.learning_rate} above 0"
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
    found = predict_pairs(model, views.images[0], pairs, batch_size=batch_size, head_chunk=head_chunk)
    valid = None if views.valid is None else views.valid[0]
    intrinsics = None if views.intrinsics is None else views.intrinsics[0]
    if config is None and pairs == [(1, 0), (0, 1)]:
        swapped = map_tensors(found, lambda value: value[:1])
        forward = map_tensors(found, lambda value: value[1:])
        return solve_pair(forward, swapped, valid=valid, intrinsics=intrinsics)
    return align_pairs(pairs, found, valid=valid, intrinsics=intrinsics, config=config or AlignmentConfig())


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
        One sample with all views: both pointmaps, depth, the largest confidence of each pixel over its pairs, poses and
        intrinsics. The world is the camera frame of view 0.

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
        world = _World(pairs, index, points, weight, intrinsics, config)
        loss = world.fit(config)
    logger.info("%d pairs agree to %.2g of the mean distance of the scene", len(pairs), loss)
    return world.prediction(confidence, prediction)


class _World(nn.Module):
    """Depths, cameras and pair similarities that are being fitted; lengths in mean distances of the scene."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        index: Int[Tensor, "pairs 2"],
        points: Float[Tensor, "pairs 2 height width 3"],
        weight: Float[Tensor, "pairs 2 height width"],
        intrinsics: Float[Tensor, "views 3 3"] | None,
        config: AlignmentConfig,
    ):
        super().__init__()
        self.index, self.points, self.weight = index, points, weight
        height, width = points.shape[2:4]
        local, local_weight = _own_maps(pairs, points, weight)
        placed = _place_views(pairs, points, weight, local, local_weight)
        self.known = intrinsics
        focal = _focal_lengths(local, local_weight > 0)
        self.log_focal = nn.Parameter((focal.log().mean()[None] if config.shared_focal else focal.log()).clone())
        self.log_focal.requires_grad_(intrinsics is None)

        maps = torch.stack([fit.apply(view.flatten(0, 1)) for fit, view in zip(placed, local, strict=True)])
        fits = [_pair_fit(maps, pair, points[row], weight[row]) for row, pair in enumerate(pairs)]
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
        self.size = (height, width)

    def intrinsics(self) -> Float[Tensor, "views 3 3"]:
        if self.known is not None:
            return self.known
        return centred_intrinsics(self.log_focal.exp().expand(len(self.turn)), *self.size)

    def local_maps(self) -> Float[Tensor, "views height width 3"]:
        return camera_rays(self.intrinsics(), *self.size) * self.log_depth.exp()[..., None]

    def poses(self) -> Float[Tensor, "views 4 4"]:
        return pose_from_rt(rotation_from_quaternion(self.turn), self.shift)

    def pair_scales(self) -> Float[Tensor, " pairs"]:
        # Their mean stays where it is, or everything would shrink to a point.
        return (self.pair_log_scale - self.pair_log_scale.mean() + self.mean_log_scale).exp()

    def disagreement(self) -> Float[Tensor, ""]:
        """The weighted mean distance between the pairs' points and the views' own."""
        maps = transform_points(self.poses(), self.local_maps())
        turned = self.pair_scales()[:, None, None] * rotation_from_quaternion(self.pair_turn)
        moved = torch.einsum("pij,pvhwj->pvhwi", turned, self.points) + self.pair_shift[:, None, None, None]
        distance = torch.linalg.vector_norm(moved - maps[self.index], dim=-1)
        mean: Tensor = (self.weight * distance).sum() / self.weight.sum()
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

    @torch.no_grad()
    def prediction(self, confidence: Float[Tensor, "pairs 2 height width"], source: Prediction) -> Prediction:
        unit = math.exp(-self.mean_log_scale)  # makes the mean logarithm of the pairs' scales 0
        pose = rebase_poses(self.poses()[None], 0)[0]
        pose = pose_from_rt(pose[:, :3, :3], pose[:, :3, 3] * unit)
        local = self.local_maps() * unit
        count = len(local)
        best = confidence.new_zeros(count, *self.size)
        for row, pair in enumerate(self.index.tolist()):
            for side, view in enumerate(pair):
                best[view] = torch.maximum(best[view], confidence[row, side].nan_to_num())
        return Prediction(
            pointmap_world=transform_points(pose, local)[None],
            pointmap_camera=local[None],
            depth=local[None, ..., 2],
            confidence_world=best[None],
            world_from_camera=pose[None],
            intrinsics=self.intrinsics().detach().clone()[None],
            metric_scale=None if source.metric_scale is None else source.metric_scale[:1],
        )


def _score(weight: Float[Tensor, "2 height width"]) -> float:
    """How sure a pair is of both its maps."""
    return float(weight.flatten(1).mean(dim=1).prod())


def _own_maps(
    pairs: Sequence[Pair],
    points: Float[Tensor, "pairs 2 height width 3"],
    weight: Float[Tensor, "pairs 2 height width"],
) -> tuple[Float[Tensor, "views height width 3"], Float[Tensor, "views height width"]]:
    """Each view in its own camera frame, from the surest pair in which it is the first."""
    count = 1 + max(view for pair in pairs for view in pair)
    chosen = []
    for view in range(count):
        rows = [row for row, (first, _) in enumerate(pairs) if first == view]
        if not rows:
            raise GeometryError(f"view {view} is the first of no pair, so its camera cannot be told; add a pair for it")
        chosen.append(max(rows, key=lambda row: float(weight[row, 0].mean())))
    return points[chosen, 0], weight[chosen, 0]


def _place_views(
    pairs: Sequence[Pair],
    points: Float[Tensor, "pairs 2 height width 3"],
    weight: Float[Tensor, "pairs 2 height width"],
    local: Float[Tensor, "views height width 3"],
    local_weight: Float[Tensor, "views height width"],
) -> list[Similarity]:
    """A similarity from each view's own map to the world, along the tree of the surest pairs that starts at view 0."""
    identity = Similarity(scale=points.new_ones(()), rotation=torch.eye(3).to(points), translation=points.new_zeros(3))
    placed = {0: identity}
    while len(placed) < len(local):
        edges = [row for row, pair in enumerate(pairs) if (pair[0] in placed) != (pair[1] in placed)]
        if not edges:
            apart = sorted(set(range(len(local))) - set(placed))
            raise GeometryError(f"no chain of pairs leads from view 0 to views {apart}; choose another pair graph")
        row = max(edges, key=lambda row: _score(weight[row]))
        known, new = (0, 1) if pairs[row][0] in placed else (1, 0)
        old_view, new_view = pairs[row][known], pairs[row][new]
        world_from_old = placed[old_view]
        old_from_pair = _similarity(points[row, known], local[old_view], weight[row, known] * local_weight[old_view])
        pair_from_new = _similarity(local[new_view], points[row, new], weight[row, new] * local_weight[new_view])
        placed[new_view] = world_from_old.compose(old_from_pair).compose(pair_from_new)
    return [placed[view] for view in range(len(local))]


def _similarity(source: Tensor, target: Tensor, weight: Tensor) -> Similarity:
    return robust_similarity(source.flatten(0, 1), target.flatten(0, 1), weight.flatten(), degenerate="identity")


def _pair_fit(
    maps: Float[Tensor, "views pixels 3"],
    pair: Pair,
    points: Float[Tensor, "2 height width 3"],
    weight: Float[Tensor, "2 height width"],
) -> Similarity:
    """The similarity from a pair's frame to the world that suits both its views."""
    target = torch.cat([maps[pair[0]], maps[pair[1]]])
    return robust_similarity(points.flatten(0, 2), target, weight.flatten(), degenerate="identity")


def _focal_lengths(
    local: Float[Tensor, "views height width 3"], usable: Bool[Tensor, "views height width"]
) -> Float[Tensor, " views"]:
    """In pixels; views that tell none get the others' median."""
    height, width = local.shape[1:3]
    focal = focal_from_pointmap(local, usable)
    good = torch.isfinite(focal) & (focal > 0.1 * max(height, width)) & (focal < 20 * max(height, width))
    typical = focal[good].median() if bool(good.any()) else focal.new_tensor(float(max(height, width)))
    return torch.where(good, focal, typical)

"""Cameras out of pointmaps: the focal length of a local map, and the pose that a world map implies."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.geometry.align import Degenerate, Similarity, align_maps
from distill3d.geometry.cameras import pixel_grid
from distill3d.geometry.poses import invert_pose, pose_from_rt


def focal_from_pointmap(
    pointmap_camera: Float[Tensor, "*batch height width 3"],
    valid: Bool[Tensor, "*batch height width"] | None = None,
    principal_point: tuple[float, float] | None = None,
    iterations: int = 10,
) -> Float[Tensor, "*batch"]:
    """Find the focal length in pixels that explains where a local pointmap's points are seen (Weiszfeld).

    Minimises the sum of distances (not squared, so outliers weigh little) between the pixels and
    `focal * (x / z, y / z)`. NaN where nothing can be said: no valid point in front of the camera, or all of them on
    the optical axis. Points far off to the side weigh more; if those may be wrong, take `median_focal_from_pointmap`.

    Args:
        valid: None takes every pixel; points that are not finite or not in front of the camera never count.
        principal_point: (x, y) in pixels; None is the centre ((W - 1) / 2, (H - 1) / 2). The reference code of the
            DUSt3R family uses (W / 2, H / 2).
        iterations: reweighted fits after the first one by least squares.
    """
    pixels, directions, use = _pixels_and_directions(pointmap_camera, valid, principal_point)
    mixed = torch.where(use, (directions * pixels).sum(dim=-1), 0.0)
    squared = torch.where(use, directions.square().sum(dim=-1), 0.0)

    focal = mixed.sum(dim=(-1, -2)) / squared.sum(dim=(-1, -2))  # 0 / 0 is the NaN we promise
    for _ in range(iterations):
        residual = torch.linalg.vector_norm(pixels - focal[..., None, None, None] * directions, dim=-1)
        weight = 1 / residual.clamp(min=1e-8)
        focal = (weight * mixed).sum(dim=(-1, -2)) / (weight * squared).sum(dim=(-1, -2))
    return focal.to(pointmap_camera.dtype)


def median_focal_from_pointmap(
    pointmap_camera: Float[Tensor, "*batch height width 3"],
    valid: Bool[Tensor, "*batch height width"] | None = None,
    principal_point: tuple[float, float] | None = None,
) -> Float[Tensor, "*batch"]:
    """Find the focal length in pixels as the median of what every pixel's column and row say; bears half wrong points.

    Arguments and NaN as for `focal_from_pointmap`; noisier than that where most points are right.
    """
    pixels, directions, use = _pixels_and_directions(pointmap_camera, valid, principal_point)
    votes = pixels / directions
    votes = torch.where(use[..., None] & torch.isfinite(votes), votes, torch.nan)
    return votes.flatten(-3).nanmedian(dim=-1).values.to(pointmap_camera.dtype)


def _pixels_and_directions(
    pointmap_camera: Tensor, valid: Tensor | None, principal_point: tuple[float, float] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels seen from the principal point, (x / z, y / z) of every point, and which of them count; in float64."""
    height, width = pointmap_camera.shape[-3:-1]
    points = pointmap_camera.double()
    use = torch.isfinite(points).all(dim=-1) & (points[..., 2] > 0)
    use = use if valid is None else use & valid
    points = torch.where(use[..., None], points, 1.0)
    centre = torch.tensor(principal_point or ((width - 1) / 2, (height - 1) / 2), dtype=points.dtype)
    pixels = pixel_grid(height, width, points.device, points.dtype) - centre.to(points.device)
    return pixels, points[..., :2] / points[..., 2:], use


@dataclass(frozen=True, kw_only=True)
class PoseEstimate:
    """A camera pose found by PnP."""

    world_from_camera: Float[Tensor, "4 4"]
    """The identity where none was found."""
    inlier_share: float
    """Share of the points used that the pose explains within the threshold; 0 where none was found."""
    found: bool


def pose_from_pointmap(
    pointmap_world: Float[Tensor, "height width 3"],
    intrinsics: Float[Tensor, "3 3"],
    valid: Bool[Tensor, "height width"] | None = None,
    threshold_px: float | None = None,
    seed: int = 0,
    *,
    iterations: int = 100,
    max_points: int = 20_000,
) -> PoseEstimate:
    """Find the camera that sees a world pointmap's points at their pixels: SQPnP inside RANSAC, then refined.

    Args:
        valid: None takes every pixel; points that are not finite never count.
        threshold_px: largest reprojection error of an inlier; None is 1 % of the longer side, at least 2 pixels. (The
            5 pixels of the reference code, whatever the image's size, are far too wide on small images.)
        seed: for OpenCV's generator and the choice of points.
        iterations: RANSAC trials.
        max_points: a random subset of this size is used when there are more.
    """
    import cv2  # slow to import, and only needed here

    height, width = pointmap_world.shape[:2]
    use = torch.isfinite(pointmap_world).all(dim=-1).cpu()
    use = use if valid is None else use & valid.cpu()
    points = pointmap_world.detach().cpu().double()[use]
    pixels = pixel_grid(height, width, dtype=torch.float64)[use]
    nothing = PoseEstimate(
        world_from_camera=torch.eye(4, dtype=pointmap_world.dtype, device=pointmap_world.device),
        inlier_share=0.0,
        found=False,
    )
    if len(points) > max_points:
        chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:max_points].sort().values
        points, pixels = points[chosen], pixels[chosen]
    if len(points) < 4 or not bool(torch.isfinite(intrinsics).all()):
        return nothing
    threshold = threshold_px if threshold_px is not None else max(2.0, 0.01 * max(height, width))
    camera = intrinsics.detach().cpu().double().numpy()
    cv2.setRNGSeed(seed)
    try:
        found, rotation_vector, translation, inliers = cv2.solvePnPRansac(
            points.numpy(), pixels.numpy(), camera, None,
            iterationsCount=iterations, reprojectionError=threshold, flags=cv2.SOLVEPNP_SQPNP,
        )  # fmt: skip
        if not found or inliers is None or len(inliers) < 4:
            return nothing
        inside = inliers[:, 0]
        rotation_vector, translation = cv2.solvePnPRefineLM(
            points.numpy()[inside], pixels.numpy()[inside], camera, None, rotation_vector, translation
        )
    except cv2.error:  # degenerate points (all equal, on a line) make some of OpenCV's solvers throw
        return nothing
    rotation = torch.from_numpy(cv2.Rodrigues(rotation_vector)[0])
    camera_from_world = pose_from_rt(rotation, torch.from_numpy(translation[:, 0]))
    if not bool(torch.isfinite(camera_from_world).all()):
        return nothing
    return PoseEstimate(
        world_from_camera=invert_pose(camera_from_world).to(pointmap_world),
        inlier_share=len(inside) / len(points),
        found=True,
    )


def focal_and_pose_from_inliers(
    pointmap_world: Float[Tensor, "height width 3"],
    valid: Bool[Tensor, "height width"] | None = None,
    *,
    principal_point: tuple[float, float] | None = None,
    threshold_px: float = 5.0,
    num_candidates: int = 100,
    seed: int = 0,
) -> tuple[float, PoseEstimate]:
    """Try focal lengths and keep the one whose pose explains most points, the shortest on ties (Fast3R, "individual").

    For a camera of which nothing is known. Strongly biased on small images, where many focal lengths lie within
    5 pixels: prefer `focal_from_pointmap` wherever a pointmap in the camera's own frame is at hand.

    Args:
        valid: None takes every pixel; points that are not finite never count.
        principal_point: (x, y) in pixels; None for the middle of the image.
        threshold_px: largest reprojection error of an inlier.
        num_candidates: spread evenly in the logarithm from 1/2 to 3 times the longer side.
        seed: see `pose_from_pointmap`.
    """
    height, width = pointmap_world.shape[:2]
    x, y = principal_point or ((width - 1) / 2, (height - 1) / 2)
    side = math.log(max(height, width))
    best_focal, best = float("nan"), None
    for focal in torch.linspace(side - math.log(2), side + math.log(3), num_candidates, dtype=torch.float64).exp():
        intrinsics = torch.tensor([[focal, 0, x], [0, focal, y], [0, 0, 1]], dtype=torch.float32)
        estimate = pose_from_pointmap(pointmap_world, intrinsics, valid, threshold_px, seed)
        if best is None or estimate.inlier_share > best.inlier_share:
            best_focal, best = float(focal), estimate
    assert best is not None
    return best_focal, best


def poses_from_maps(
    pointmap_camera: Float[Tensor, "batch views height width 3"],
    pointmap_world: Float[Tensor, "batch views height width 3"],
    weight: Float[Tensor, "batch views height width"] | None = None,
    valid: Bool[Tensor, "batch views height width"] | None = None,
    *,
    robust: bool = True,
    degenerate: Degenerate = "identity",
) -> tuple[Float[Tensor, "batch views 4 4"], Similarity]:
    """Read every view's `world_from_camera` off the similarity between its local and its world pointmap.

    The similarity's scale is what brings the local map to the world's size. See `align_maps` for the arguments; with
    `robust=False` gradients pass.
    """
    world_from_local = align_maps(pointmap_camera, pointmap_world, weight, valid, robust=robust, degenerate=degenerate)
    return pose_from_rt(world_from_local.rotation, world_from_local.translation), world_from_local

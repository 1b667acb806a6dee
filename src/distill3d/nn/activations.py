"""From the raw channels of a head to points and confidences; always in float32."""

import torch
from jaxtyping import Float
from torch import Tensor


def exp_points(raw: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Points in the raw direction at a distance of exp(|raw|) - 1 (DUSt3R, depth mode "exp")."""
    length = raw.norm(dim=-1, keepdim=True)
    points: Tensor = raw / length.clamp(min=1e-8) * torch.expm1(length)
    return points


def log_points(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """The raw channels that `exp_points` would turn into `points`."""
    length = points.norm(dim=-1, keepdim=True)
    raw: Tensor = points / length.clamp(min=1e-8) * torch.log1p(length)
    return raw


def signed_expm1(raw: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """sign(x) (exp(|x|) - 1) for each coordinate on its own (VGGT's "inverse log")."""
    return raw.sign() * torch.expm1(raw.abs())


def ray_grid(height: int, width: int, device: torch.device | None = None) -> Float[Tensor, "{height} {width} 2"]:
    """Pixel centres relative to the middle of the image, in halves of its longer side: x and y within [-1, 1]."""
    half = max(height, width) / 2
    y = (torch.arange(height, device=device, dtype=torch.float32) - (height - 1) / 2) / half
    x = (torch.arange(width, device=device, dtype=torch.float32) - (width - 1) / 2) / half
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def ray_depth_points(
    raw: Float[Tensor, "*batch height width 3"], tan_half_fov: Float[Tensor, ""]
) -> Float[Tensor, "*batch height width 3"]:
    """Points on the rays of a centred pinhole, from channels (du, dv, log z): z (u tan + du), z (v tan + dv), z.

    `tan_half_fov` belongs to the longer side. With du = dv = 0 the map is that of an ideal camera, so an untrained
    network starts at a sensible shape. The logarithm is cut at +-20 against overflow.
    """
    height, width = raw.shape[-3:-1]
    rays = ray_grid(height, width, raw.device) * tan_half_fov + raw[..., :2]
    depth = raw[..., 2:].clamp(-20, 20).exp()
    return torch.cat([rays * depth, depth], dim=-1)


def one_plus_exp(raw: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Confidence 1 + exp(raw): always above 1, so a threshold below 1 keeps every pixel."""
    return 1 + raw.exp()


def exp_depth_points(raw: Float[Tensor, "*batch 3"], *, largest: float | None = None) -> Float[Tensor, "*batch 3"]:
    """Points (x z, y z, z) with z = exp of the last channel (MoGe, Pi3).

    Args:
        raw: channels (x, y, log z), in float32.
        largest: log z is cut off here against overflow (Pi3X); None for no limit.
    """
    log_depth = raw[..., 2:] if largest is None else raw[..., 2:].clamp(max=largest)
    depth = log_depth.exp()
    return torch.cat([raw[..., :2] * depth, depth], dim=-1)

"""Pinhole cameras: rays, projection, and what happens to intrinsics when an image changes size.

Intrinsics `[[fx, s, cx], [0, fy, cy], [0, 0, 1]]` are in pixels of the very map they come with, and pixel (0, 0) is the
*centre* of the top-left pixel (OpenCV). COLMAP, nerfstudio, MoGe and CO3D put (0, 0) at the image's corner: convert
once, at the boundary, with `intrinsics_from_corner_convention`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.errors import GeometryError


def pixel_grid(
    height: int, width: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "height width 2"]:
    """Give the (x, y) coordinates of every pixel centre; the top-left one is (0, 0)."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype), torch.arange(width, device=device, dtype=dtype), indexing="ij"
    )
    return torch.stack([x, y], dim=-1)


def camera_rays(
    intrinsics: Float[Tensor, "*batch 3 3"], height: int, width: int
) -> Float[Tensor, "*batch height width 3"]:
    """Give the viewing ray of every pixel in the camera's own frame, scaled to z = 1; skew is honoured."""
    pixels = pixel_grid(height, width, intrinsics.device, intrinsics.dtype)
    k = intrinsics[..., None, None, :, :]
    y = (pixels[..., 1] - k[..., 1, 2]) / k[..., 1, 1]
    x = (pixels[..., 0] - k[..., 0, 2] - k[..., 0, 1] * y) / k[..., 0, 0]
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def unproject_depth(
    depth: Float[Tensor, "*batch height width"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch height width 3"]:
    """Lift planar z-depth to a pointmap in the camera's own frame; depth 0 (unknown) becomes the origin."""
    return camera_rays(intrinsics, depth.shape[-2], depth.shape[-1]) * depth[..., None]


def project_points(
    points_camera: Float[Tensor, "*batch height width 3"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> tuple[Float[Tensor, "*batch height width 2"], Float[Tensor, "*batch height width"]]:
    """Project points of the camera's own frame to pixels, and give their z-depth.

    A point counts as seen only where the depth is positive; with depth 0 its pixel is not finite.
    """
    k = intrinsics[..., None, None, :, :]
    depth = points_camera[..., 2]
    x = points_camera[..., 0] / depth
    y = points_camera[..., 1] / depth
    column = k[..., 0, 0] * x + k[..., 0, 1] * y + k[..., 0, 2]
    row = k[..., 1, 1] * y + k[..., 1, 2]
    return torch.stack([column, row], dim=-1), depth


def _map_pixels(
    intrinsics: Float[Tensor, "*batch 3 3"], scale_x: float, scale_y: float, shift_x: float, shift_y: float
) -> Float[Tensor, "*batch 3 3"]:
    """Intrinsics after every pixel (x, y) moved to (scale_x * x + shift_x, scale_y * y + shift_y)."""
    rows = [[scale_x, 0.0, shift_x], [0.0, scale_y, shift_y], [0.0, 0.0, 1.0]]
    # float64 inside: a factor that is not a binary fraction would cost float32's last digits twice.
    mapping = torch.tensor(rows, dtype=torch.float64, device=intrinsics.device)
    return (mapping @ intrinsics.double()).to(intrinsics.dtype)


def resize_intrinsics(
    intrinsics: Float[Tensor, "*batch 3 3"], old_size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "*batch 3 3"]:
    """Follow an image from `old_size` to `new_size`, each (height, width); the axes may shrink differently.

    The borders of the image stay the borders: pixel centres move by half a pixel less half a new pixel.
    """
    scale_y, scale_x = new_size[0] / old_size[0], new_size[1] / old_size[1]
    return _map_pixels(intrinsics, scale_x, scale_y, (scale_x - 1) / 2, (scale_y - 1) / 2)


def crop_intrinsics(intrinsics: Float[Tensor, "*batch 3 3"], top: float, left: float) -> Float[Tensor, "*batch 3 3"]:
    """Follow a crop whose top-left pixel was at (top, left); negative numbers are padding."""
    return _map_pixels(intrinsics, 1.0, 1.0, -left, -top)


def transpose_intrinsics(intrinsics: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Follow an image whose rows became its columns; camera x and y trade places with them.

    Raises:
        GeometryError: the camera has skew, which a transposed image cannot express as an upper triangle.
    """
    if bool((intrinsics[..., 0, 1] != 0).any()):
        raise GeometryError("cannot transpose intrinsics with skew: set the skew to 0, or rotate the image instead")
    order = torch.tensor([1, 0, 2], device=intrinsics.device)
    return intrinsics.index_select(-1, order).index_select(-2, order)


def turn_camera(
    intrinsics: Float[Tensor, "3 3"], world_from_camera: Float[Tensor, "4 4"], size: tuple[int, int], turns: int
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "4 4"]]:
    """Follow an image of `size` (height, width) that is turned counter-clockwise by quarter turns, as `np.rot90` does.

    The camera turns about its axis with the image, so that every pixel keeps its point in the world.

    Raises:
        GeometryError: the camera has skew, which an image turned by 90 degrees cannot express as an upper triangle.
    """
    if turns % 2 and bool(intrinsics[0, 1] != 0):
        raise GeometryError("cannot turn intrinsics with skew by 90 degrees: set the skew to 0 first")
    turned_from_camera = intrinsics.new_tensor([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    world_from_camera = world_from_camera.clone()
    height, width = size
    for _ in range(turns % 4):
        moved = intrinsics.new_tensor([[0, 1, 0], [-1, 0, width - 1], [0, 0, 1]])  # pixel (x, y) to (y, W - 1 - x)
        intrinsics = moved @ intrinsics @ turned_from_camera.T
        world_from_camera[:3, :3] = world_from_camera[:3, :3] @ turned_from_camera.T.to(world_from_camera)
        height, width = width, height
    return intrinsics, world_from_camera


def turns_to_upright(world_from_camera: Float[Tensor, "views 4 4"], up: Float[Tensor, "3"]) -> int:
    """Quarter turns, counter-clockwise, after which most of a film stands upright: 0 to 3.

    Args:
        world_from_camera: of its pictures, OpenCV axes.
        up: direction in the world.
    """
    right, down, _ = (up.to(world_from_camera) @ world_from_camera[:, :3, :3]).mean(dim=0).tolist()
    # Which border of the picture lies towards the sky: the top, the right, the bottom or the left one.
    return max(range(4), key=[-down, right, down, -right].__getitem__)


def centred_intrinsics(focal: Float[Tensor, "*batch"], height: int, width: int) -> Float[Tensor, "*batch 3 3"]:
    """Build square-pixel intrinsics with the principal point at the image's centre, ((W - 1) / 2, (H - 1) / 2)."""
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    rows = [focal, zero, one * ((width - 1) / 2), zero, focal, one * ((height - 1) / 2), zero, zero, one]
    return torch.stack(rows, dim=-1).reshape(*focal.shape, 3, 3)


def intrinsics_from_fov(fov_x_rad: Float[Tensor, "*batch"], height: int, width: int) -> Float[Tensor, "*batch 3 3"]:
    """Build centred intrinsics from the horizontal opening between the image's left and right borders, in radians."""
    return centred_intrinsics(width / 2 / torch.tan(fov_x_rad / 2), height, width)


def fov_from_intrinsics(intrinsics: Float[Tensor, "*batch 3 3"], height: int, width: int) -> Float[Tensor, "*batch 2"]:
    """Give the horizontal and vertical opening between the image's borders, in radians; any principal point."""
    size = torch.tensor([width, height], dtype=intrinsics.dtype, device=intrinsics.device)
    focal = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], dim=-1)
    to_first_border = intrinsics[..., :2, 2] + 0.5
    return torch.atan(to_first_border / focal) + torch.atan((size - to_first_border) / focal)


def intrinsics_from_corner_convention(intrinsics: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Take intrinsics whose (0, 0) is the image's corner (COLMAP, MoGe, CO3D) to ours, whose (0, 0) is a centre."""
    return _map_pixels(intrinsics, 1.0, 1.0, -0.5, -0.5)


def intrinsics_to_corner_convention(intrinsics: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Undo `intrinsics_from_corner_convention`."""
    return _map_pixels(intrinsics, 1.0, 1.0, 0.5, 0.5)

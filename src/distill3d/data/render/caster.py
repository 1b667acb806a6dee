"""From scenes and cameras to images with exact depth."""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from distill3d.data.render.cull import RayTiles
from distill3d.data.render.scene import Scene, per_item
from distill3d.data.render.shade import (
    albedo,
    ambient_on,
    display,
    light_on,
    sky_colour,
    soften,
    surface_at,
)
from distill3d.data.render.textures import texture_bank
from distill3d.data.render.trace import Hits, blocked, nearest_hits
from distill3d.types import Views

_TILE = 14
# A lit point must not be shadowed by the surface it lies on: stop the shadow ray this many metres short of it.
_SHADOW_MARGIN_M = 2e-3
# Linear light that is not worth a shadow ray: a third of a step of an 8-bit image at mid grey.
_DIMMEST = 2e-3


def render(
    scene: Scene,
    world_from_camera: Float[Tensor, "scenes views 4 4"],
    intrinsics: Float[Tensor, "scenes views 3 3"],
    size: tuple[int, int],
    *,
    supersample: bool = False,
    rays_in_flight: int = 1 << 18,
) -> Views:
    """Photograph every scene of a batch from its own cameras.

    The depth is analytic and belongs to the pixel centres, 0 where the sky is seen; `is_metric` is true. With
    `supersample` the colours (never the depth) are the mean of four rays a pixel, at about four times the cost.
    `rays_in_flight` bounds the memory (about 600 bytes a ray) and changes nothing else.
    """
    scenes, views = world_from_camera.shape[:2]
    owner = torch.arange(scenes, device=scene.kind.device).repeat_interleave(views)
    poses, cameras = world_from_camera.flatten(0, 1), intrinsics.flatten(0, 1)
    height, width = size
    step = max(1, rays_in_flight // (height * width * (4 if supersample else 1)))
    images, depths = [], []
    for start in range(0, len(poses), step):
        part = slice(start, start + step)
        batch = _Cameras(owner[part], poses[part], cameras[part], size)
        tiles = batch.ray_tiles()
        hits = nearest_hits(scene, tiles, rays_in_flight=rays_in_flight)
        depths.append(batch.untile(torch.where(torch.isfinite(hits.t), hits.t, 0.0)))
        if supersample:
            batch = batch.doubled()
            tiles = batch.ray_tiles()
            hits = nearest_hits(scene, tiles, rays_in_flight=rays_in_flight)
        colour = _colours(scene, batch, tiles, hits, rays_in_flight)
        images.append(functional.avg_pool2d(colour, 2) if supersample else colour)
    depth = torch.cat(depths).reshape(scenes, views, height, width)
    return Views(
        images=display(torch.cat(images)).reshape(scenes, views, 3, height, width),
        depth=depth,
        valid=depth > 0,
        intrinsics=intrinsics,
        world_from_camera=world_from_camera,
        is_metric=torch.ones(scenes, dtype=torch.bool, device=depth.device),
    )


def cast_depth(
    scene: Scene,
    world_from_camera: Float[Tensor, "scenes views 4 4"],
    intrinsics: Float[Tensor, "scenes views 3 3"],
    size: tuple[int, int],
    *,
    rays_in_flight: int = 1 << 18,
) -> Float[Tensor, "scenes views height width"]:
    """Only the depth of `render`, for choosing cameras."""
    scenes, views = world_from_camera.shape[:2]
    owner = torch.arange(scenes, device=scene.kind.device).repeat_interleave(views)
    batch = _Cameras(owner, world_from_camera.flatten(0, 1), intrinsics.flatten(0, 1), size)
    t = nearest_hits(scene, batch.ray_tiles(), rays_in_flight=rays_in_flight).t
    return batch.untile(torch.where(torch.isfinite(t), t, 0.0)).reshape(scenes, views, *size)


@dataclasses.dataclass(frozen=True)
class _Cameras:
    """Cameras of equal image size, and the way between images and tiles of rays."""

    owner: Int[Tensor, " cameras"]
    """Scene that each camera stands in."""
    world_from_camera: Float[Tensor, "cameras 4 4"]
    intrinsics: Float[Tensor, "cameras 3 3"]
    size: tuple[int, int]

    def doubled(self) -> "_Cameras":
        """Cameras whose 2x2 blocks of pixels cover one pixel each of these."""
        # Centre c of a pixel becomes 2c + 0.5, the middle between its two halves.
        wider = self.intrinsics.new_tensor([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])
        return dataclasses.replace(self, intrinsics=wider @ self.intrinsics, size=(2 * self.size[0], 2 * self.size[1]))

    def _grid(self) -> tuple[int, int]:
        return -(-self.size[0] // _TILE), -(-self.size[1] // _TILE)

    def ray_tiles(self) -> RayTiles:
        """Rays through the pixel centres; their z in the camera is 1, so the ray parameter is the depth."""
        rows, columns = self._grid()
        device = self.intrinsics.device
        # Tiles that stick out repeat the last row and column; `untile` cuts them off.
        y = torch.arange(rows * _TILE, device=device).clamp(max=self.size[0] - 1)
        x = torch.arange(columns * _TILE, device=device).clamp(max=self.size[1] - 1)
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"))  # (2, height, width)
        pixel = torch.cat([grid, torch.ones_like(grid[:1])]).to(self.intrinsics.dtype)
        pixel = pixel.view(3, rows, _TILE, columns, _TILE).permute(1, 3, 0, 2, 4).reshape(rows * columns, 3, -1)
        world_from_pixel = self.world_from_camera[:, :3, :3] @ torch.linalg.inv(self.intrinsics)
        direction = (world_from_pixel[:, None] @ pixel).flatten(0, 1)
        tiles = rows * columns
        return RayTiles(
            self.owner.repeat_interleave(tiles),
            self.world_from_camera[:, :3, 3].repeat_interleave(tiles, dim=0),
            direction,
        )

    def untile(self, values: Float[Tensor, "tiles rays"] | Int[Tensor, "tiles rays"]) -> Tensor:
        """Tiles of one number a ray -> images (cameras, height, width)."""
        rows, columns = self._grid()
        image = values.view(-1, rows, columns, _TILE, _TILE).permute(0, 1, 3, 2, 4)
        return image.reshape(-1, rows * _TILE, columns * _TILE)[:, : self.size[0], : self.size[1]]

    def tile(self, images: Float[Tensor, "cameras height width"]) -> Float[Tensor, "tiles rays"]:
        """The way back, for images of one channel."""
        rows, columns = self._grid()
        missing = (0, columns * _TILE - self.size[1], 0, rows * _TILE - self.size[0])
        if any(missing):
            images = functional.pad(images[:, None], missing, mode="replicate")[:, 0]
        tiled = images.view(-1, rows, _TILE, columns, _TILE).permute(0, 1, 3, 2, 4)
        return tiled.reshape(len(images) * rows * columns, -1)


def _colours(
    scene: Scene, cameras: _Cameras, tiles: RayTiles, hits: Hits, rays_in_flight: int
) -> Float[Tensor, "cameras 3 height width"]:
    """Linear RGB of the rays that were traced."""
    bank = texture_bank(scene.kind.device)
    rays = hits.t.shape[1]
    hit = torch.isfinite(hits.t)
    t = torch.where(hit, hits.t, 1.0)
    points = tiles.origin[:, :, None] + t[:, None] * tiles.direction  # (tiles, 3, rays)
    flat_points = points.transpose(1, 2).reshape(-1, 3)
    flat_direction = tiles.direction.transpose(1, 2).reshape(-1, 3)
    index = tiles.scene.repeat_interleave(rays)
    surface = surface_at(scene, hits.primitive.flatten(), flat_points)

    focal = cameras.intrinsics[:, [0, 1], [0, 1]].mean(dim=1)
    pixel_m = t / focal.repeat_interleave(len(tiles.origin) // len(focal))[:, None]
    cosine = functional.cosine_similarity(surface.normal, flat_direction).abs().clamp(min=0.05)
    # Between the short and the long side of the slanted pixel's footprint.
    colour = albedo(scene, surface, bank, pixel_m.flatten() * cosine.rsqrt())

    light = ambient_on(scene, index, surface)
    for number in range(scene.light_position.shape[1]):
        position = scene.light_position[:, number]
        strength, reach = scene.light_colour[:, number], scene.light_reach[:, number].clamp(min=1e-6)
        received = light_on(per_item(position, index), per_item(strength, index), per_item(reach, index), surface)
        lit = (received.amax(dim=1) > _DIMMEST).view_as(hit) & hit
        dark = _shadow(scene, tiles.scene, points, per_item(position, tiles.scene), lit, rays_in_flight)
        visible = _soft_rims(cameras, dark, hits.primitive)
        light = light + received * visible.reshape(-1, 1)

    emission = scene.emission.flatten()[hits.primitive.flatten()]
    radiance = colour * (light + emission[:, None])
    radiance = torch.where(hit.reshape(-1, 1), radiance, sky_colour(scene, index, flat_direction))
    channels = [cameras.untile(channel.view(-1, rays)) for channel in radiance.unbind(dim=1)]
    return torch.stack(channels, dim=1)


def _shadow(
    scene: Scene,
    scene_of_tile: Int[Tensor, " tiles"],
    points: Float[Tensor, "tiles 3 rays"],
    source: Float[Tensor, "tiles 3"],
    lit: Bool[Tensor, "tiles rays"],
    rays_in_flight: int,
) -> Bool[Tensor, "tiles rays"]:
    """Which of the points that face a light are hidden from it; tiles that face away cost nothing."""
    dark = torch.zeros_like(lit)
    chosen = lit.any(dim=1).nonzero()[:, 0]
    direction = points[chosen] - source[chosen, :, None]
    distance = direction.square().sum(dim=1).sqrt()
    beams = RayTiles(scene_of_tile[chosen], source[chosen], direction, lit[chosen])
    margin = _SHADOW_MARGIN_M / distance.clamp(min=_SHADOW_MARGIN_M)
    dark[chosen] = blocked(scene, beams, margin, rays_in_flight=rays_in_flight)
    return dark


def _soft_rims(
    cameras: _Cameras, dark: Bool[Tensor, "tiles rays"], primitive: Int[Tensor, "tiles rays"]
) -> Float[Tensor, "tiles rays"]:
    """Visibility of a light per ray, with rims blurred over a pixel or two of the image."""
    radius = 1 if min(cameras.size) < 160 else 2 if min(cameras.size) < 400 else 3
    return cameras.tile(soften(cameras.untile((~dark).float()), cameras.untile(primitive), radius))

"""A model that knows the truth: it reads what it needs from the images, so windows and orders can be tried exactly."""

import torch
from torch import Tensor, nn

from distill3d.geometry.cameras import centred_intrinsics, unproject_depth
from distill3d.geometry.poses import rebase_poses, transform_points
from distill3d.types import Prediction, Views
from tests.geometry.cases import generator, random_rotation

HEIGHT, WIDTH, FOCAL = 12, 16, 14.0


class Place:
    """`num_views` photos of random depth; the red channel of a photo is its number."""

    def __init__(self, num_views: int, seed: int = 0, turn: float = 0.3) -> None:
        rng = generator(seed)
        self.depth = 1 + 2 * torch.rand(1, num_views, HEIGHT, WIDTH, generator=rng)
        self.intrinsics = centred_intrinsics(torch.full((1, num_views), FOCAL), HEIGHT, WIDTH)
        pose = torch.eye(4).repeat(1, num_views, 1, 1)
        pose[..., :3, :3] = random_rotation(rng, 1, num_views, dtype=torch.float32)
        pose[..., :3, 3] = torch.randn(1, num_views, 3, generator=rng)
        self.world_from_camera = rebase_poses(pose, 0)
        self.local = unproject_depth(self.depth, self.intrinsics)

    def views(self) -> Views:
        num_views = self.depth.shape[1]
        images = torch.zeros(1, num_views, 3, HEIGHT, WIDTH)
        images[:, :, 0] = (torch.arange(num_views) / 255)[None, :, None, None]
        return Views(images=images)


class ExactModel(nn.Module):
    """Gives the truth, in the frame of the first view it sees, at a size that changes from call to call."""

    def __init__(self, place: Place, sizes: tuple[float, ...] = (1.0,), local_size: float = 1.0, **drop: bool) -> None:
        super().__init__()
        self.place, self.sizes, self.local_size, self.drop = place, sizes, local_size, drop
        self.calls: list[list[int]] = []

    def forward(self, images: Tensor, *, head_chunk: int | None = None) -> Prediction:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        views = (images[0, :, 0, 0, 0] * 255).round().long().tolist()
        size = self.sizes[len(self.calls) % len(self.sizes)]
        self.calls.append(views)
        pose = rebase_poses(self.place.world_from_camera[:, views], 0)
        local = self.place.local[:, views]
        confidence = torch.linspace(1, 2, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).expand(local.shape[:-1])
        return Prediction(
            pointmap_world=None if self.drop.get("world") else size * transform_points(pose, local),
            pointmap_camera=None if self.drop.get("camera") else self.local_size * local,
            confidence_world=None if self.drop.get("confidence") else confidence.clone(),
        )

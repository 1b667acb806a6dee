"""Random but valid cameras, poses and points, for the property tests."""

import torch
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from distill3d.geometry.poses import pose_from_rt, project_to_rotation

seeds = st.integers(0, 2**31 - 1)
sizes = st.tuples(st.integers(2, 9), st.integers(2, 9))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_rotation(rng: torch.Generator, *batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return project_to_rotation(torch.randn(*batch, 3, 3, generator=rng, dtype=torch.float64)).to(dtype)


def random_pose(rng: torch.Generator, *batch: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "*batch 4 4"]:
    translation = torch.randn(*batch, 3, generator=rng, dtype=torch.float64)
    return pose_from_rt(random_rotation(rng, *batch), translation).to(dtype)


def random_intrinsics(rng: torch.Generator, height: int, width: int, *batch: int, skew: bool = True) -> Tensor:
    """Different focal lengths, skew and a principal point off the centre."""
    draw = torch.rand(*batch, 5, generator=rng, dtype=torch.float64)
    k = torch.zeros(*batch, 3, 3, dtype=torch.float64)
    k[..., 0, 0], k[..., 1, 1] = (0.5 + draw[..., 0]) * width, (0.5 + draw[..., 1]) * height
    k[..., 0, 1] = (draw[..., 2] - 0.5) * (1 if skew else 0)
    k[..., 0, 2], k[..., 1, 2], k[..., 2, 2] = draw[..., 3] * width, draw[..., 4] * height, 1
    return k

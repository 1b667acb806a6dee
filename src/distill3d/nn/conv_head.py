"""Convolutional heads and necks that grow a token grid to an image, in the forms of MoGe-1, MoGe-2 and Pi3X."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from distill3d.geometry.shift import view_plane_grid
from distill3d.nn.dpt import ResidualUnit

RESIDUAL_RENAMES: tuple[tuple[str, str], ...] = (
    (".layers.0.", ".group_norm1."),
    (".layers.2.", ".conv1."),
    (".layers.3.", ".group_norm2."),
    (".layers.5.", ".conv2."),
)
"""How MoGe and Pi3X number the layers of a residual unit, and our names."""


def append_grid(
    x: Float[Tensor, "batch dim height width"], aspect: float
) -> Float[Tensor, "batch dim_and_two height width"]:
    """Add two channels that tell each cell where it lies in an image of this aspect (width over height)."""
    height, width = x.shape[-2:]
    grid = view_plane_grid(height, width, aspect, device=x.device).to(x.dtype).permute(2, 0, 1)
    return torch.cat([x, grid.expand(len(x), -1, -1, -1)], dim=1)


def doubling(in_channels: int, out_channels: int, kind: Literal["transposed", "bilinear"]) -> nn.Sequential:
    """Layers that double the size of a map, then smooth it with a convolution that repeats the border."""
    transposed = kind == "transposed"
    grow = (
        nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        if transposed
        else nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    )
    smooth = nn.Conv2d(
        out_channels if transposed else in_channels, out_channels, 3, padding=1, padding_mode="replicate"
    )
    return nn.Sequential(grow, smooth)


class ConvHead(nn.Module):
    """Token maps of one size in, dense maps of any size out: three doublings, a resize, one branch per output."""

    def __init__(
        self,
        in_dims: Sequence[int],
        *,
        out_channels: Sequence[int],
        project: int | None = None,
        widths: Sequence[int] = (256, 128, 64),
        num_res_blocks: int = 2,
        hidden_ratio: int = 2,
        last_channels: int = 32,
    ):
        """Set up the head.

        Args:
            in_dims: channels of the maps that come in; without `project` only one may.
            out_channels: channels of each map that goes out.
            project: every incoming map gets its own 1x1 convolution to this many channels, and their sum is used
                (MoGe-1); None takes the one map as it is (Pi3X).
            widths: channels after each doubling.
            num_res_blocks: residual units after each doubling.
            hidden_ratio: channels inside of a residual unit, over those outside.
            last_channels: channels before the last layer of each branch.
        """
        super().__init__()
        if project is None and len(in_dims) != 1:
            raise ValueError(f"{len(in_dims)} maps can only be summed after a projection; give its width")
        self.last_width = widths[-1]
        self.projects = nn.ModuleList(nn.Conv2d(dim, project, 1) for dim in in_dims if project is not None)
        ins = [project or in_dims[0], *widths]
        self.upsample_blocks = nn.ModuleList(
            nn.Sequential(
                doubling(before + 2, width, "transposed"),
                *(
                    ResidualUnit(width, hidden=hidden_ratio * width, group_norm=True, padding="replicate")
                    for _ in range(num_res_blocks)
                ),
            )
            for before, width in zip(ins[:-1], widths, strict=True)
        )
        self.output_block = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(widths[-1] + 2, last_channels, 3, padding=1, padding_mode="replicate"),
                nn.ReLU(),
                nn.Conv2d(last_channels, channels, 1),
            )
            for channels in out_channels
        )

    def bytes_per_view(self, size: tuple[int, int]) -> int:
        """Memory of one view without gradients, an upper bound for patches of 14; see `nn.chunks.DenseModule`."""
        return 4 * 4 * self.last_width * size[0] * size[1]

    def forward(
        self, maps: Sequence[Float[Tensor, "batch _ rows columns"]], size: tuple[int, int]
    ) -> list[Float[Tensor, "batch _ height width"]]:
        """The raw maps at `size` = (height, width), whose aspect also places the cells of the token grid."""
        aspect = size[1] / size[0]
        x = maps[0]
        if len(self.projects):
            x = torch.stack([project(one) for project, one in zip(self.projects, maps, strict=True)]).sum(dim=0)
        for block in self.upsample_blocks:
            x = block(append_grid(x, aspect))
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        x = append_grid(x, aspect)
        return [branch(x) for branch in self.output_block]


class ConvPyramid(nn.Module):
    """Five levels in, five levels out: from the token grid, each level twice as large as the one before (MoGe-2)."""

    def __init__(
        self,
        in_dims: Sequence[int],
        widths: Sequence[int],
        num_res_blocks: Sequence[int],
        *,
        out_channels: int | None = None,
    ):
        """Set up the pyramid.

        Args:
            in_dims: channels that come in at each level.
            widths: channels inside at each level.
            num_res_blocks: residual units at each level.
            out_channels: a 1x1 convolution to this many channels at the last level, which alone is then given out
                (a head); None gives all levels as they are (a neck).
        """
        super().__init__()
        last = len(widths) - 1
        self.input_blocks = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(in_dims, widths, strict=True))
        self.res_blocks = nn.ModuleList(
            nn.Sequential(*(ResidualUnit(width, padding="replicate") for _ in range(count)))
            for width, count in zip(widths, num_res_blocks, strict=True)
        )
        self.resamplers = nn.ModuleList(
            doubling(widths[level], widths[level + 1], "bilinear" if level + 1 == last else "transposed")
            for level in range(last)
        )
        self.output_blocks = nn.ModuleList(nn.Identity() for _ in widths)
        if out_channels is not None:
            self.output_blocks[last] = nn.Conv2d(widths[-1], out_channels, 1)
        self.is_head = out_channels is not None

    def forward(self, levels: Sequence[Float[Tensor, "batch _ _ _"]]) -> list[Float[Tensor, "batch _ _ _"]]:
        """All levels, smallest first; a head gives its last one only."""
        outputs: list[Tensor] = []
        x = self.input_blocks[0](levels[0])
        for level, (block, output) in enumerate(zip(self.res_blocks, self.output_blocks, strict=True)):
            if level:
                x = self.resamplers[level - 1](x) + self.input_blocks[level](levels[level])
            x = block(x)
            outputs.append(output(x))
        return outputs[-1:] if self.is_head else outputs

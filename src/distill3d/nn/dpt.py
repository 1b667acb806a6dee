"""The dense prediction head of DPT, in the form that DUSt3R, Fast3R and Distill3R use."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

DPT_RENAMES: tuple[tuple[str, str], ...] = (
    (".act_postprocess.", ".reassemble."),
    (".scratch.layer_rn.", ".levels."),
    (".scratch.refinenet1.", ".fuse.0."),
    (".scratch.refinenet2.", ".fuse.1."),
    (".scratch.refinenet3.", ".fuse.2."),
    (".scratch.refinenet4.", ".fuse.3."),
    (".resConfUnit1.", ".unit_level."),
    (".resConfUnit2.", ".unit_out."),
    (".head.", ".output."),
)
"""Key parts of the field's DPT checkpoints, and ours."""

DPT_ALIASES: tuple[tuple[str, str], ...] = tuple(
    (f".scratch.layer{index + 1}_rn.", f".scratch.layer_rn.{index}.") for index in range(4)
)
"""Second names that those checkpoints hold for one tensor: (alias, the name in `DPT_RENAMES`)."""


class ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Refine a map; the skip carries the map before its ReLU."""
        out: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return out


class FusionUnit(nn.Module):
    """Adds a finer level to the running map, refines it and doubles its size."""

    def __init__(self, features: int, *, level: bool, unused: bool = False):
        """Set up the unit.

        Args:
            features: channels.
            level: whether a level is added (not in the coarsest unit).
            unused: without a level, carry its weights all the same (never read, no gradient), as upstream files do.
        """
        super().__init__()
        self.level = level
        if level or unused:
            self.unit_level = ResidualUnit(features).requires_grad_(level)
        self.unit_out = ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(
        self, running: Float[Tensor, "batch dim height width"], level: Float[Tensor, "batch dim height width"] | None
    ) -> Float[Tensor, "batch dim height2 width2"]:
        """The fused map at twice the size (bilinear, corners aligned)."""
        if level is not None:
            running = running + self.unit_level(level)
        running = self.unit_out(running)
        running = F.interpolate(running, scale_factor=2, mode="bilinear", align_corners=True)
        out: Tensor = self.out_conv(running)
        return out


class DPTHead(nn.Module):
    """Four levels of tokens in, one dense map out."""

    def __init__(
        self,
        in_dims: Sequence[int],
        *,
        patch_size: int,
        out_channels: int = 4,
        level_channels: Sequence[int] = (96, 192, 384, 768),
        features: int = 256,
        hidden: int = 128,
        unused_weights: bool = False,
    ):
        """Set up the head.

        Args:
            in_dims: widths of the four token levels, shallowest first.
            patch_size: side of a patch: the map has that many pixels per token.
            out_channels: channels of the map.
            level_channels: widths after reassembly, at 4, 2, 1 and 1/2 times the token grid.
            features: width of the fusion.
            hidden: width of the last convolutions.
            unused_weights: carry the weights that upstream files hold and never use.
        """
        super().__init__()
        self.patch_size = patch_size
        a, b, c, d = level_channels
        self.reassemble = nn.ModuleList([
            nn.Sequential(nn.Conv2d(in_dims[0], a, 1), nn.ConvTranspose2d(a, a, 4, stride=4)),
            nn.Sequential(nn.Conv2d(in_dims[1], b, 1), nn.ConvTranspose2d(b, b, 2, stride=2)),
            nn.Sequential(nn.Conv2d(in_dims[2], c, 1)),
            nn.Sequential(nn.Conv2d(in_dims[3], d, 1), nn.Conv2d(d, d, 3, stride=2, padding=1)),
        ])  # fmt: skip
        self.levels = nn.ModuleList(nn.Conv2d(width, features, 3, padding=1, bias=False) for width in level_channels)
        self.fuse = nn.ModuleList(
            FusionUnit(features, level=index < 3, unused=unused_weights) for index in range(len(level_channels))
        )
        self.output = nn.Sequential(
            nn.Conv2d(features, features // 2, 3, padding=1),
            nn.Identity(),  # the resize to full size, which needs the size: see `forward`
            nn.Conv2d(features // 2, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, out_channels, 1),
        )

    @property
    def last(self) -> nn.Conv2d:
        """The layer that writes the raw channels."""
        layer = self.output[-1]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def forward(
        self, levels: Sequence[Float[Tensor, "batch patches _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "batch channels height width"]:
        """The raw map in float32, `patch_size` times the token grid of (rows, columns)."""
        rows, columns = grid
        maps = [tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns) for tokens in levels]
        maps = [conv(shape(x)) for conv, shape, x in zip(self.levels, self.reassemble, maps, strict=True)]
        # The coarsest level has ceil(rows / 2) rows, so its double may be one too many.
        running = self.fuse[3](maps[3], None)[..., :rows, :columns]
        for index in (2, 1, 0):
            running = self.fuse[index](running, maps[index])
        running = self.output[0](running)
        size = (rows * self.patch_size, columns * self.patch_size)
        running = F.interpolate(running, size=size, mode="bilinear", align_corners=True)
        running = F.relu(self.output[2](running))
        # The last layer feeds an exponential: three digits of bfloat16 would show as waves in the points.
        with torch.autocast(running.device.type, enabled=False):
            raw: Tensor = self.last(running.float())
        return raw

"""The dense prediction head of DPT, in the forms that DUSt3R, Fast3R and Distill3R, and VGGT use."""

from collections.abc import Sequence
from typing import Literal

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

VGGT_DPT_RENAMES: tuple[tuple[str, str], ...] = (
    *((f".projects.{index}.", f".reassemble.{index}.0.") for index in range(4)),
    *((f".resize_layers.{index}.", f".reassemble.{index}.1.") for index in (0, 1, 3)),
    *((f".scratch.layer{index + 1}_rn.", f".levels.{index}.") for index in range(4)),
    *((f".scratch.refinenet{index + 1}.", f".fuse.{index}.") for index in range(4)),
    (".resConfUnit1.", ".unit_level."),
    (".resConfUnit2.", ".unit_out."),
    (".scratch.output_conv1.", ".output.0."),
    (".scratch.output_conv2.0.", ".output.2."),
    (".scratch.output_conv2.2.", ".output.4."),
)
"""Key parts of VGGT's heads, and ours."""

WORKING_MAPS = 4
"""Float32 maps of full size and of the last convolutions' width that a pass holds at once (measured: 3.1 to 3.3)."""

DPTForm = Literal["dust3r", "vggt"]
"""VGGT norms the tokens, resizes each map to exactly the size of the next, and its skips carry rectified maps."""


def uv_embedding(
    channels: int, height: int, width: int, aspect: float, device: torch.device | None = None
) -> Float[Tensor, "{channels} {height} {width}"]:
    """Sines and cosines of where a pixel is: the first half of the channels knows its column, the second its row.

    Args:
        channels: a multiple of 4.
        height: of the map.
        width: of the map.
        aspect: width over height of the image; its half diagonal has length 1, whatever the size of the map.
        device: where to put it.
    """
    diagonal = (1 + aspect**2) ** 0.5
    quarter = channels // 4
    frequencies = 100.0 ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    waves = []
    for count, span in ((width, aspect / diagonal), (height, 1 / diagonal)):
        end = span * (count - 1) / count
        angles = frequencies[:, None] * torch.linspace(-end, end, count, device=device, dtype=torch.float32)
        waves.append(torch.cat([angles.sin(), angles.cos()]))  # (channels / 2, count)
    columns, rows = waves[0][:, None, :], waves[1][:, :, None]
    return torch.cat([columns.expand(-1, height, -1), rows.expand(-1, -1, width)])


class ResidualUnit(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), where the norms may be absent (they are in every DPT)."""

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        group_norm: bool = False,
        padding: Literal["zeros", "replicate"] = "zeros",
        rectified_skip: bool = False,
    ):
        """Set up the unit.

        Args:
            features: channels.
            hidden: channels between the convolutions; None for as many as `features`.
            group_norm: norm the input in one group and what lies between in groups of 32 channels (MoGe-1, Pi3X).
            padding: what the convolutions see beyond the border.
            rectified_skip: the skip carries relu(x) instead of x, as where a ReLU works in place (VGGT).
        """
        super().__init__()
        hidden = hidden or features
        self.rectified_skip = rectified_skip
        self.group_norm1 = nn.GroupNorm(1, features) if group_norm else nn.Identity()
        self.conv1 = nn.Conv2d(features, hidden, 3, padding=1, padding_mode=padding)
        self.group_norm2 = nn.GroupNorm(max(1, hidden // 32), hidden) if group_norm else nn.Identity()
        self.conv2 = nn.Conv2d(hidden, features, 3, padding=1, padding_mode=padding)

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Refine a map; unless rectified, the skip carries the map as it came, before norm and ReLU."""
        between = self.conv1(F.relu(self.group_norm1(x)))
        skip = F.relu(x) if self.rectified_skip else x
        out: Tensor = skip + self.conv2(F.relu(self.group_norm2(between)))
        return out


class FusionUnit(nn.Module):
    """Adds a finer level to the running map, refines it and makes it larger."""

    def __init__(self, features: int, *, level: bool, unused: bool = False, rectified_skip: bool = False):
        """Set up the unit.

        Args:
            features: channels.
            level: whether a level is added (not in the coarsest unit).
            unused: without a level, carry its weights all the same (never read, no gradient), as upstream files do.
            rectified_skip: of both residual units.
        """
        super().__init__()
        self.level = level
        if level or unused:
            self.unit_level = ResidualUnit(features, rectified_skip=rectified_skip).requires_grad_(level)
        self.unit_out = ResidualUnit(features, rectified_skip=rectified_skip)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(
        self,
        running: Float[Tensor, "batch dim height width"],
        level: Float[Tensor, "batch dim height width"] | None,
        size: tuple[int, int] | None = None,
    ) -> Float[Tensor, "batch dim height2 width2"]:
        """The fused map at twice the size, or at the size asked for (bilinear, corners aligned)."""
        if level is not None:
            running = running + self.unit_level(level)
        running = self.unit_out(running)
        size = size or (2 * running.shape[-2], 2 * running.shape[-1])
        running = F.interpolate(running, size=size, mode="bilinear", align_corners=True)
        out: Tensor = self.out_conv(running)
        return out


class DPTHead(nn.Module):
    """Four levels of tokens in, one dense map out."""

    def __init__(
        self,
        in_dims: Sequence[int],
        *,
        patch_size: int,
        out_channels: int | None = 4,
        level_channels: Sequence[int] = (96, 192, 384, 768),
        features: int = 256,
        hidden: int = 128,
        unused_weights: bool = False,
        form: DPTForm = "dust3r",
        positions: bool = False,
    ):
        """Set up the head.

        Args:
            in_dims: widths of the four token levels, shallowest first.
            patch_size: side of a patch: the map has that many pixels per token.
            out_channels: channels of the map; None for the `features` themselves, as refined by one convolution.
            level_channels: widths after reassembly, at 4, 2, 1 and 1/2 times the token grid.
            features: width of the fusion.
            hidden: width of the last convolutions.
            unused_weights: carry the weights that upstream files hold and never use.
            form: see `DPTForm`; "vggt" needs levels of one width.
            positions: add a tenth of `uv_embedding` to every level and to the map before the last convolutions (VGGT).
        """
        super().__init__()
        self.patch_size = patch_size
        self.features = features
        self.form: DPTForm = form
        self.positions = positions
        # One norm for all levels.
        self.norm = nn.LayerNorm(in_dims[0], eps=1e-5) if form == "vggt" else nn.Identity()
        a, b, c, d = level_channels
        self.reassemble = nn.ModuleList([
            nn.Sequential(nn.Conv2d(in_dims[0], a, 1), nn.ConvTranspose2d(a, a, 4, stride=4)),
            nn.Sequential(nn.Conv2d(in_dims[1], b, 1), nn.ConvTranspose2d(b, b, 2, stride=2)),
            nn.Sequential(nn.Conv2d(in_dims[2], c, 1)),
            nn.Sequential(nn.Conv2d(in_dims[3], d, 1), nn.Conv2d(d, d, 3, stride=2, padding=1)),
        ])  # fmt: skip
        self.levels = nn.ModuleList(nn.Conv2d(width, features, 3, padding=1, bias=False) for width in level_channels)
        self.fuse = nn.ModuleList(
            FusionUnit(features, level=index < 3, unused=unused_weights, rectified_skip=form == "vggt")
            for index in range(len(level_channels))
        )
        if out_channels is None:
            self.output = nn.Sequential(nn.Conv2d(features, features, 3, padding=1))
            return
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

    def bytes_per_view(self, size: tuple[int, int]) -> int:
        """Memory of one view without gradients, an upper bound; see `nn.chunks.DenseModule`."""
        channels = self.features // 2 if len(self.output) > 1 else self.features
        return 4 * WORKING_MAPS * channels * size[0] * size[1]

    def forward(
        self, levels: Sequence[Float[Tensor, "batch patches _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "batch channels height width"]:
        """The raw map in float32, `patch_size` times the token grid of (rows, columns)."""
        rows, columns = grid
        maps = [self.norm(tokens).transpose(1, 2).reshape(len(tokens), -1, rows, columns) for tokens in levels]
        maps = [
            conv(self._reassemble(shape, x)) for conv, shape, x in zip(self.levels, self.reassemble, maps, strict=True)
        ]
        running = maps[3]
        for index in (3, 2, 1, 0):
            # The coarsest level has ceil(rows / 2) rows: its double may be one too many, and is cut or never made.
            next_size = (maps[index - 1].shape[-2], maps[index - 1].shape[-1]) if index else None
            exact = next_size if self.form == "vggt" else None
            running = self.fuse[index](running, maps[index] if index < 3 else None, exact)
            if next_size:
                running = running[..., : next_size[0], : next_size[1]]
        running = self.output[0](running)
        size = (rows * self.patch_size, columns * self.patch_size)
        running = F.interpolate(running, size=size, mode="bilinear", align_corners=True)
        running = self._placed(running, columns / rows)
        if len(self.output) == 1:
            return running.float()
        running = F.relu(self.output[2](running))
        # The last layer feeds an exponential: three digits of bfloat16 would show as waves in the points.
        with torch.autocast(running.device.type, enabled=False):
            raw: Tensor = self.last(running.float())
        return raw

    def _reassemble(self, shape: nn.Module, x: Float[Tensor, "batch dim rows columns"]) -> Tensor:
        if not self.positions:
            out: Tensor = shape(x)
            return out
        aspect = x.shape[-1] / x.shape[-2]
        project, *resize = shape.children()
        x = self._placed(project(x), aspect)
        for layer in resize:
            x = layer(x)
        return x

    def _placed(
        self, x: Float[Tensor, "batch dim height width"], aspect: float
    ) -> Float[Tensor, "batch dim height width"]:
        if not self.positions:
            return x
        channels, height, width = x.shape[1:]
        return x + 0.1 * uv_embedding(channels, height, width, aspect, x.device).to(x.dtype)

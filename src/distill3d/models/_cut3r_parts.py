"""Parts that only CUT3R has: the pose memory, and the heads around one pose token."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.models._cut3r_config import CUT3RConfig
from distill3d.nn.block import Mlp
from distill3d.nn.croco_vit import DecoderBlock
from distill3d.nn.dpt import DPTHead
from distill3d.nn.heads import LinearHead
from distill3d.nn.modulation import ModulatedBlock
from distill3d.nn.rope import Rotary


class PoseMemory(nn.Module):
    """Pairs (what a view looked like, its pose token), read and written by attention."""

    def __init__(self, config: CUT3RConfig):
        super().__init__()
        dim, width = config.decoder_dim, 2 * config.decoder_dim
        self.mem = nn.Parameter(torch.zeros(1, config.memory_size, width))
        self.masked_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.proj_q = nn.Linear(config.encoder_dim, dim)

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(
                DecoderBlock(width, config.decoder_heads, mlp_ratio=config.mlp_ratio)
                for _ in range(config.memory_depth)
            )

        self.read_blocks, self.write_blocks = blocks(), blocks()

    def read(
        self, look: Float[Tensor, "batch 1 dim"], memory: Float[Tensor, "batch entries width"]
    ) -> Float[Tensor, "batch 1 dim"]:
        """A first guess of the pose token of a view that looks like `look` (from `proj_q`)."""
        tokens = torch.cat([look, self.masked_token.expand_as(look)], dim=-1)
        for block in self.read_blocks:
            tokens = block(tokens, memory)
        return tokens[..., look.shape[-1] :]

    def write(
        self,
        look: Float[Tensor, "batch 1 dim"],
        pose: Float[Tensor, "batch 1 dim"],
        memory: Float[Tensor, "batch entries width"],
    ) -> Float[Tensor, "batch entries width"]:
        """The memory after it has seen the pose token of a view."""
        entry = torch.cat([look, pose], dim=-1)
        for block in self.write_blocks:
            memory = block(memory, entry)
        return memory


class RawOutput(NamedTuple):
    """What the heads write, before any activation."""

    camera: Float[Tensor, "maps 4 height width"]
    world: Float[Tensor, "maps 4 height width"]
    colour: Float[Tensor, "maps 3 height width"]
    pose: Float[Tensor, "maps 7"]


class CUT3RHeads(nn.Module):
    """Maps in the camera's frame and colours from the tokens; maps in the world from tokens that know the pose."""

    def __init__(self, config: CUT3RConfig):
        super().__init__()
        dim, hidden = config.decoder_dim, int(config.decoder_dim * 4)
        self.pose = Mlp(dim, hidden, 7)
        self.to_world = nn.ModuleList(
            ModulatedBlock(dim, config.decoder_heads, mlp_ratio=config.mlp_ratio) for _ in range(2)
        )
        self.camera = _dense_head(config, 4)
        self.world = _dense_head(config, 4)
        self.colour = _dense_head(config, 3)

    def forward(
        self,
        levels: Sequence[Float[Tensor, "maps patches _"]],
        pose: Float[Tensor, "maps dim"],
        rotary: Rotary,
        grid: tuple[int, int],
    ) -> RawOutput:
        """Raw maps in float32.

        Args:
            levels: four levels of patch tokens, the encoder's first.
            pose: the pose token of each view, after the decoder.
            rotary: of the patches.
            grid: rows and columns of the patches.
        """
        tokens = levels[-1]
        for block in self.to_world:
            tokens = block(tokens, pose, rotary)
        return RawOutput(
            camera=self.camera(levels, grid),
            world=self.world([*levels[:-1], tokens], grid),
            colour=self.colour(levels, grid),
            pose=self.pose(pose),
        )


def _dense_head(config: CUT3RConfig, channels: int) -> DPTHead | LinearHead:
    dim = config.decoder_dim
    if config.head == "linear":
        return LinearHead(dim, patch_size=config.patch_size, out_channels=channels, hidden=4 * dim)
    return DPTHead(
        (config.encoder_dim, dim, dim, dim),
        patch_size=config.patch_size,
        out_channels=channels,
        level_channels=config.dpt_channels,
        features=config.dpt_features,
        hidden=config.dpt_hidden,
        unused_weights=True,
    )

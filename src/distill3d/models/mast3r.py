"""MASt3R: DUSt3R in metres, with a descriptor for every pixel to match the two images by (Leroy et al., 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from distill3d.models import ModelSpec
from distill3d.models._pair import PAIR_IGNORED, PAIR_RENAMES, PAIR_STAND_INS, PAIR_TINY, PairConfig, PairModel
from distill3d.models.dust3r import dpt_head
from distill3d.nn.activations import exp_points, one_plus_exp
from distill3d.nn.block import Mlp
from distill3d.nn.dpt import DPT_ALIASES, DPT_RENAMES
from distill3d.types import Prediction


@dataclass(frozen=True, kw_only=True)
class Mast3RConfig(PairConfig):
    """The dimensions of MASt3R."""

    descriptor_dim: int = 24
    """Channels of a descriptor."""
    descriptor_mlp_ratio: float = 4.0
    """Hidden width of the descriptors' MLP over its input, the tokens of encoder and decoder together."""
    metric: bool = True
    """The weights were trained on metres."""


class MatchingHead(nn.Module):
    """The dense head of DUSt3R, and an MLP per token that writes the descriptors of its patch."""

    def __init__(self, config: Mast3RConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.dpt = dpt_head(config)
        width = config.encoder_dim + config.decoder_dim
        channels = (config.descriptor_dim + 1) * config.patch_size**2
        self.local_features = Mlp(width, int(width * config.descriptor_mlp_ratio), channels)

    def forward(
        self, levels: Sequence[Float[Tensor, "batch patches _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "batch channels height width"]:
        """Raw channels: x, y, z, confidence, the descriptor and its confidence."""
        local = self.local_features(torch.cat([levels[0], levels[-1]], dim=-1))
        local = F.pixel_shuffle(local.transpose(1, 2).unflatten(2, grid), self.patch_size)
        return torch.cat([self.dpt(levels, grid), local], dim=1)


class Mast3R(PairModel):
    """Points in metres with confidences 1 + exp(x), and unit descriptors with confidences exp(x)."""

    config: Mast3RConfig

    def _make_head(self) -> nn.Module:
        return MatchingHead(self.config)

    def _prediction(self, raw: Float[Tensor, "batch channels height width"]) -> Prediction:
        channels = raw.permute(0, 2, 3, 1)[:, None]  # (batch, one view, height, width, channels)
        return Prediction(
            pointmap_world=exp_points(channels[..., :3]),
            confidence_world=one_plus_exp(channels[..., 3]),
            descriptors=F.normalize(channels[..., 4:-1], dim=-1),
            confidence_descriptors=channels[..., -1].exp(),
            metric_scale=channels.new_ones(len(channels)) if self.config.metric else None,
        )


SPEC = ModelSpec(
    build=Mast3R,
    config=Mast3RConfig,
    views="pair",
    variants={"base": Mast3RConfig(), "tiny": Mast3RConfig(**PAIR_TINY, descriptor_mlp_ratio=0.5)},
    renames=(
        *DPT_RENAMES,
        *PAIR_RENAMES,
        ("downstream_head1.", "heads.0."),
        ("downstream_head2.", "heads.1."),
        (".head_local_features.", ".local_features."),
    ),
    aliases=DPT_ALIASES,
    stand_ins=PAIR_STAND_INS,
    prefixes=("module.",),
    ignored=PAIR_IGNORED,
    lora_targets=r"encoder\.blocks\.\d+\.attn\.qkv",
    patch_size=16,
    reference_licence="CC BY-NC-SA 4.0",
    licences={
        "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric": "CC BY-NC-SA 4.0 (non-commercial); "
        "data-set terms apply, Map-free's are the strictest (CHECKPOINTS_NOTICE)",
    },
)

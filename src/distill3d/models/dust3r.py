"""DUSt3R: two images in, for each a map of points in the first camera's frame and a confidence (Wang et al., 2024)."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from distill3d.models import ModelSpec
from distill3d.models._pair import PAIR_IGNORED, PAIR_RENAMES, PAIR_STAND_INS, PAIR_TINY, PairConfig, PairModel
from distill3d.nn.activations import exp_points, one_plus_exp
from distill3d.nn.dpt import DPT_ALIASES, DPT_RENAMES, DPTHead
from distill3d.nn.heads import LinearHead
from distill3d.types import Prediction


@dataclass(frozen=True, kw_only=True)
class Dust3RConfig(PairConfig):
    """The dimensions of DUSt3R."""

    head: Literal["dpt", "linear"] = "dpt"
    """Convolutions over four levels of tokens, or one linear layer per token."""


class Dust3R(PairModel):
    """Points and confidences of a pair, up to one unknown scale; a confidence is 1 + exp(x)."""

    config: Dust3RConfig

    def _make_head(self) -> nn.Module:
        if self.config.head == "linear":
            return LinearHead(self.config.decoder_dim, patch_size=self.config.patch_size)
        return dpt_head(self.config)

    def _prediction(self, raw: Float[Tensor, "batch 4 height width"]) -> Prediction:
        channels = raw.permute(0, 2, 3, 1)[:, None]  # (batch, one view, height, width, channels)
        return Prediction(pointmap_world=exp_points(channels[..., :3]), confidence_world=one_plus_exp(channels[..., 3]))


def dpt_head(config: PairConfig) -> DPTHead:
    """The dense head of DUSt3R and MASt3R: three coordinates and a confidence."""
    decoder = config.decoder_dim
    return DPTHead(
        (config.encoder_dim, decoder, decoder, decoder),
        patch_size=config.patch_size,
        level_channels=config.dpt_channels,
        features=config.dpt_features,
        hidden=config.dpt_hidden,
        unused_weights=config.unused_weights,
    )


SPEC = ModelSpec(
    build=Dust3R,
    config=Dust3RConfig,
    views="pair",
    # "linear" are the files 512_linear and 224_linear, which differ in the size of the images they were trained on.
    variants={
        "base": Dust3RConfig(),
        "linear": Dust3RConfig(head="linear"),
        "tiny": Dust3RConfig(**PAIR_TINY),
    },
    renames=(
        *DPT_RENAMES,
        *PAIR_RENAMES,
        ("downstream_head1.dpt.", "heads.0."),
        ("downstream_head2.dpt.", "heads.1."),
        ("downstream_head1.proj.", "heads.0.proj."),
        ("downstream_head2.proj.", "heads.1.proj."),
    ),
    aliases=DPT_ALIASES,
    stand_ins=PAIR_STAND_INS,
    prefixes=("module.",),
    ignored=PAIR_IGNORED,
    lora_targets=r"encoder\.blocks\.\d+\.attn\.qkv",
    patch_size=16,
    reference_licence="CC BY-NC-SA 4.0",
    licences={
        "naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt": "CC BY-NC-SA 4.0 (non-commercial)",
        "naver/DUSt3R_ViTLarge_BaseDecoder_512_linear": "CC BY-NC-SA 4.0 (non-commercial)",
        "naver/DUSt3R_ViTLarge_BaseDecoder_224_linear": "CC BY-NC-SA 4.0 (non-commercial)",
    },
)

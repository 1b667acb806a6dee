"""What DUSt3R and MASt3R share: all but the heads."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distill3d.errors import ConfigError
from distill3d.nn.chunks import in_chunks
from distill3d.nn.croco_pair import PairDecoder
from distill3d.nn.croco_vit import CrocoEncoder, CrocoTokens
from distill3d.nn.images import ImageNormalisation, patch_grid
from distill3d.nn.initialise import InitScheme, initialise_
from distill3d.nn.portrait import in_orientations
from distill3d.types import Prediction, collate_views

FRESH_SEED = 0
"""Draws the fresh weights where no generator is given."""

PAIR_RENAMES: tuple[tuple[str, str], ...] = (
    ("patch_embed.", "encoder.patch_embed."),
    ("enc_blocks.", "encoder.blocks."),
    ("enc_norm.", "encoder.norm."),
    ("decoder_embed.", "decoder.embed."),
    ("dec_blocks.", "decoder.first."),
    ("dec_blocks2.", "decoder.second."),
    ("dec_norm.", "decoder.norm."),
)
"""Official key parts of encoder and decoder, and ours."""
PAIR_TINY: dict[str, Any] = {
    "encoder_dim": 32, "encoder_depth": 2, "encoder_heads": 2, "decoder_dim": 32, "decoder_depth": 4,
    "decoder_heads": 2, "dpt_channels": (8, 12, 16, 24), "dpt_features": 16, "dpt_hidden": 8, "initialisation": "muon",
}  # fmt: skip
"""Dimensions of variants for tests."""
PAIR_STAND_INS = (("dec_blocks2.", "dec_blocks."),)
"""CroCo v2 files, from which such models start, hold one decoder; both streams then take it."""
PAIR_IGNORED = ("mask_token", "scratch.refinenet4.resConfUnit1.")
"""Left from pre-training and from DPT; carried along by configurations with `unused_weights`, never read."""


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """The dimensions of a pair network; the defaults are those of the official files at 512 pixels."""

    patch_size: int = 16
    """Side of a patch in pixels."""
    encoder_dim: int = 1024
    """Width of the encoder's tokens."""
    encoder_depth: int = 24
    """Blocks of the encoder."""
    encoder_heads: int = 16
    """Attention heads of the encoder."""
    decoder_dim: int = 768
    """Width of the decoder's tokens."""
    decoder_depth: int = 12
    """Blocks of each of the two decoder streams; the heads look at levels 0, 1/2, 3/4 and 1 of it."""
    decoder_heads: int = 12
    """Attention heads of the decoder."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs over that of the tokens."""
    rope_base: float = 100.0
    """Base of the rotary positions."""
    dpt_channels: tuple[int, int, int, int] = (96, 192, 384, 768)
    """Widths after reassembly in the DPT heads."""
    dpt_features: int = 256
    """Width of the fusion in the DPT heads."""
    dpt_hidden: int = 128
    """Width of their last convolutions."""
    unused_weights: bool = True
    """Carry the weights that official files hold and never use, so that export gives every entry back."""
    gradient_checkpointing: bool = False
    """Recompute blocks and heads in the backward pass instead of keeping their activations."""
    initialisation: InitScheme = "normal_002"
    """How fresh weights are drawn."""

    def __post_init__(self) -> None:
        for part in ("encoder", "decoder"):
            dim, heads = getattr(self, f"{part}_dim"), getattr(self, f"{part}_heads")
            if dim % (4 * heads):
                raise ConfigError(
                    f"{part}_dim={dim} over {part}_heads={heads} gives heads that rows and columns cannot share; "
                    f"choose a width that is a multiple of {4 * heads}."
                )

    @property
    def hooks(self) -> tuple[int, int, int, int]:
        """Levels that the heads look at."""
        depth = self.decoder_depth
        return (0, depth // 2, depth * 3 // 4, depth)


class Encoded(NamedTuple):
    """Images after the encoder; worth keeping where one image is in several pairs."""

    tokens: CrocoTokens
    grid: tuple[int, int]
    """Rows and columns of patches, as the images are stored."""
    portrait: Bool[Tensor, " batch"] | None = None
    """See `PairModel.forward`."""

    def rows(self, index: slice | Tensor) -> "Encoded":
        """Some of the images."""
        tokens = CrocoTokens(self.tokens.tokens[index], self.tokens.positions[index])
        return Encoded(tokens, self.grid, None if self.portrait is None else self.portrait[index])

    @staticmethod
    def join(parts: "Sequence[Encoded]") -> "Encoded":
        """Images that were encoded one after the other, all stored alike and none of them transposed."""
        tokens = torch.cat([part.tokens.tokens for part in parts])
        positions = torch.cat([part.tokens.positions for part in parts])
        return Encoded(CrocoTokens(tokens, positions), parts[0].grid)


class PairModel(nn.Module, abc.ABC):
    """Two images of one scene in, and for each a map of points in the frame of the first."""

    config: PairConfig

    def __init__(self, config: PairConfig, *, generator: torch.Generator | None = None):
        """Make the network with fresh weights, drawn from `generator` (default: a fixed seed)."""
        super().__init__()
        self.config = config
        self.normalise = ImageNormalisation("half")
        if config.unused_weights:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_dim), requires_grad=False)
        self.encoder = CrocoEncoder(
            dim=config.encoder_dim,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            patch_size=config.patch_size,
            mlp_ratio=config.mlp_ratio,
            rope_base=config.rope_base,
        )
        self.decoder = PairDecoder(
            config.encoder_dim,
            config.decoder_dim,
            depth=config.decoder_depth,
            num_heads=config.decoder_heads,
            mlp_ratio=config.mlp_ratio,
            rope_base=config.rope_base,
        )
        self.heads = nn.ModuleList(self._make_head() for _ in range(2))
        self.encoder.gradient_checkpointing = config.gradient_checkpointing
        self.decoder.gradient_checkpointing = config.gradient_checkpointing
        initialise_(self, config.initialisation, generator or torch.Generator().manual_seed(FRESH_SEED))

    @abc.abstractmethod
    def _make_head(self) -> nn.Module:
        """A head: levels of tokens and a grid in, raw channels out."""

    @abc.abstractmethod
    def _prediction(self, raw: Float[Tensor, "batch channels height width"]) -> Prediction:
        """The raw channels of one view as a prediction of one view; always in float32."""

    def forward(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        *,
        portrait: Bool[Tensor, "batch views"] | None = None,
        head_chunk: int | None = None,
    ) -> Prediction:
        """Maps of one or two views; the world is the camera frame of view 0.

        Args:
            images: RGB in [0, 1]; both sides are multiples of the patch size. A single view is paired with itself,
                which makes the network a monocular one.
            portrait: views that are stored transposed (training batches mix both orientations that way). The network
                sees them upright; their maps come back transposed like the images, the points unchanged.
            head_chunk: images per pass of the heads, to bound the memory; None for all at once. It changes no value.

        Raises:
            ConfigError: sides that are no multiples, or more than two views.
        """
        views = images.shape[1]
        if views not in (1, 2):
            raise ConfigError(
                f"{type(self).__name__} looks at one or two views at a time, not {views}. "
                "Reconstruct more of them pair by pair (`distill3d.reconstruct` does)."
            )
        flat = None if portrait is None else portrait.flatten()
        encoded = self.encode(images.flatten(0, 1), flat)
        first = encoded.rows(slice(0, None, views))
        second = encoded.rows(slice(views - 1, None, views))
        return collate_views(self.decode(first, second, head_chunk=head_chunk)[:views])

    def compare(
        self,
        first: Float[Tensor, "batch 3 height1 width1"],
        second: Float[Tensor, "batch 3 height2 width2"],
        *,
        head_chunk: int | None = None,
    ) -> tuple[Prediction, Prediction]:
        """`forward` for images of two sizes: one prediction of one view for each, both in the frame of the first."""
        return self.decode(self.encode(first), self.encode(second), head_chunk=head_chunk)

    def encode(
        self, images: Float[Tensor, "batch 3 height width"], portrait: Bool[Tensor, " batch"] | None = None
    ) -> Encoded:
        """Encode every image on its own; arguments as for `forward`."""
        grid = patch_grid(images, self.config.patch_size)
        return Encoded(self.encoder(self.normalise(images), portrait), grid, portrait)

    def decode(
        self, first: Encoded, second: Encoded, *, head_chunk: int | None = None
    ) -> tuple[Prediction, Prediction]:
        """Compare encoded images row by row: one prediction of one view for each, both in the frame of the first."""
        levels = self.decoder(first.tokens, second.tokens)
        found = []
        for head, side, encoded in zip(self.heads, levels, (first, second), strict=True):
            hooked = [side[index].float() for index in self.config.hooks]
            # Points leave through an exponential: all of the head runs in float32.
            with torch.autocast(hooked[0].device.type, enabled=False):
                found.append(self._prediction(self._run_head(head, hooked, encoded, head_chunk)))
        return found[0], found[1]

    def _run_head(
        self, head: nn.Module, levels: list[Tensor], encoded: Encoded, chunk: int | None
    ) -> Float[Tensor, "batch channels height width"]:
        def run(some: list[Tensor], grid: tuple[int, int]) -> Tensor:
            return in_chunks(head, some, grid, chunk, recompute=self.config.gradient_checkpointing)

        return in_orientations(run, levels, encoded.grid, encoded.portrait)

"""VGGT's tracker: where chosen points of view 0 are in every other view, refined in a few rounds (after CoTracker)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from distill3d.errors import ConfigError
from distill3d.nn.block import Mlp

STRIDE = 2
"""Pixels per cell of the feature maps."""
FLOW_SCALE = 518
"""Pixels by which displacements are divided before they are shown to the network."""


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """Points of view 0 in all views."""

    rounds: tuple[Float[Tensor, "batch views points 2"], ...]
    """Pixels (x, y) after each round of refinement; in view 0 always the points that were asked for."""
    visibility: Float[Tensor, "batch views points"]
    """Between 0 and 1, after the last round."""
    confidence: Float[Tensor, "batch views points"]
    """Between 0 and 1, after the last round."""

    @property
    def points(self) -> Float[Tensor, "batch views points 2"]:
        """Pixels (x, y) after the last round."""
        return self.rounds[-1]


class SelfBlock(nn.Module):
    """x = LN(x); x + attention(x); x + MLP(LN(x)). The residual starts from the normed tokens, as upstream does."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Mix the tokens of each row."""
        tokens = self.norm1(tokens)
        tokens = tokens + self.attn(tokens, tokens, tokens, need_weights=False)[0]
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class CrossBlock(nn.Module):
    """As `SelfBlock`, but the tokens read a context."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.cross_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(
        self, tokens: Float[Tensor, "batch tokens dim"], context: Float[Tensor, "batch context dim"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """What each token reads from the context."""
        tokens, context = self.norm1(tokens), self.norm_context(context)
        tokens = tokens + self.cross_attn(tokens, context, context, need_weights=False)[0]
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class UpdateFormer(nn.Module):
    """Attention along each track and, through a few virtual tracks, between tracks."""

    def __init__(self, in_dim: int, dim: int, out_dim: int, *, depth: int, num_heads: int, num_virtual: int):
        """Set up the blocks of width `dim`."""
        super().__init__()
        self.input_norm = nn.LayerNorm(in_dim)
        self.input_transform = nn.Linear(in_dim, dim)
        self.virtual_tracks = nn.Parameter(torch.zeros(1, num_virtual, 1, dim))
        self.time_blocks = nn.ModuleList(SelfBlock(dim, num_heads) for _ in range(depth))
        self.space_virtual2point_blocks = nn.ModuleList(CrossBlock(dim, num_heads) for _ in range(depth))
        self.space_virtual_blocks = nn.ModuleList(SelfBlock(dim, num_heads) for _ in range(depth))
        self.space_point2virtual_blocks = nn.ModuleList(CrossBlock(dim, num_heads) for _ in range(depth))
        self.output_norm = nn.LayerNorm(dim)
        self.flow_head = nn.Linear(dim, out_dim)

    def forward(self, tokens: Float[Tensor, "batch points views in_dim"]) -> Float[Tensor, "batch points views out"]:
        """One update for every point in every view."""
        points, views = tokens.shape[1:3]
        start = self.input_transform(self.input_norm(tokens))
        running = torch.cat([start, self.virtual_tracks.expand(len(tokens), -1, views, -1)], dim=1)
        rounds = zip(
            self.time_blocks,
            self.space_virtual2point_blocks,
            self.space_virtual_blocks,
            self.space_point2virtual_blocks,
            strict=True,
        )
        for along_track, to_virtual, among_virtual, to_points in rounds:
            running = along_track(running.flatten(0, 1)).view(running.shape)
            per_view = running.transpose(1, 2).flatten(0, 1)  # (batch * views, points + virtual, dim)
            point, virtual = per_view[:, :points], per_view[:, points:]
            virtual = among_virtual(to_virtual(virtual, point))
            per_view = torch.cat([to_points(point, virtual), virtual], dim=1)
            running = per_view.view(len(tokens), views, -1, per_view.shape[-1]).transpose(1, 2)
        out: Tensor = self.flow_head(self.output_norm(running[:, :points] + start))
        return out


class Tracker(nn.Module):
    """Compares the features around the present guess with those of the point, and mends both guess and features."""

    def __init__(
        self, features: nn.Module, dim: int, *, hidden: int, depth: int, num_heads: int, levels: int, radius: int,
        num_virtual: int,
    ):  # fmt: skip
        """Set up the tracker.

        Args:
            features: from levels of tokens to feature maps of `dim` channels.
            dim: width of the features, a multiple of 4.
            hidden: width inside the updates.
            depth: rounds of attention in each update.
            num_heads: attention heads.
            levels: of the pyramid in which windows are compared; each halves the size.
            radius: half the side of a window, in cells.
            num_virtual: virtual tracks.
        """
        super().__init__()
        self.dim, self.num_levels, self.radius = dim, levels, radius
        self.features = features
        self.fmap_norm = nn.LayerNorm(dim)
        self.corr_mlp = Mlp(levels * (2 * radius + 1) ** 2, hidden, out_dim=dim)
        in_dim = 3 * dim + 4  # flow embedding, correlation, features
        self.query_ref_token = nn.Parameter(torch.zeros(1, 2, in_dim))
        self.update = UpdateFormer(in_dim, hidden, dim + 2, depth=depth, num_heads=num_heads, num_virtual=num_virtual)
        self.ffeat_norm = nn.GroupNorm(1, dim)
        self.ffeat_updater = nn.Sequential(nn.Linear(dim, dim), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(dim, 1))
        self.conf_predictor = nn.Sequential(nn.Linear(dim, 1))

    def forward(
        self,
        maps: Float[Tensor, "batch views dim rows columns"],
        queries: Float[Tensor, "batch points 2"],
        *,
        iterations: int,
    ) -> Tracks:
        """Follow points of view 0.

        Args:
            maps: features of all views.
            queries: pixels (x, y) of view 0.
            iterations: rounds of refinement.

        Raises:
            ConfigError: maps too small for the pyramid.
        """
        _, views, _, rows, columns = maps.shape
        needed = 2 ** (self.num_levels - 1)
        if min(rows, columns) < needed:
            raise ConfigError(
                f"The images are {rows * STRIDE}x{columns * STRIDE} pixels, too small to track in: both sides need at "
                f"least {needed * STRIDE}. Enlarge them."
            )
        maps = self.fmap_norm(maps.movedim(2, -1)).movedim(-1, 2)
        pyramid = [maps.flatten(0, 1)]
        for _ in range(self.num_levels - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        start = (queries / STRIDE)[:, None].expand(-1, views, -1, -1)  # (batch, views, points, 2), in cells
        sampled = _sample(maps[:, 0], start[:, 0, :, None], "border")[..., 0]  # (batch, dim, points)
        features = sampled.transpose(1, 2)[:, None].expand(-1, views, -1, -1)
        place = _place_embedding(start[:, :1], rows, columns, self.query_ref_token.shape[-1])
        role = torch.cat([self.query_ref_token[:, :1], self.query_ref_token[:, 1:].expand(-1, views - 1, -1)], dim=1)
        found, rounds = start, []
        for _ in range(iterations):
            # Each round learns to mend what it is given, not to steer the rounds before it.
            found = found.detach()
            flow = found - found[:, :1]
            similarity = self.corr_mlp(self._correlations(pyramid, features, found))
            scaled = flow / FLOW_SCALE
            tokens = torch.cat([_flow_embedding(flow, self.dim // 2), scaled, scaled, similarity, features], dim=-1)
            change = self.update((tokens + place + role[:, :, None]).transpose(1, 2)).transpose(1, 2)
            found = found + change[..., :2]
            found = torch.cat([start[:, :1], found[:, 1:]], dim=1)
            mended = self.ffeat_norm(change[..., 2:].reshape(-1, self.dim)).view(features.shape)
            features = features + self.ffeat_updater(mended)
            rounds.append(found * STRIDE)
        return Tracks(
            rounds=tuple(rounds),
            visibility=self.vis_predictor(features)[..., 0].sigmoid(),
            confidence=self.conf_predictor(features)[..., 0].sigmoid(),
        )

    def _correlations(
        self,
        pyramid: Sequence[Float[Tensor, "maps dim _ _"]],
        features: Float[Tensor, "batch views points dim"],
        cells: Float[Tensor, "batch views points 2"],
    ) -> Float[Tensor, "batch views points windows"]:
        """Similarity of the features to the maps in a window around each guess, level by level, column by column."""
        offsets = torch.arange(-self.radius, self.radius + 1, device=cells.device, dtype=cells.dtype)
        window = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1).view(-1, 2)
        wanted, flat = features.flatten(0, 1), cells.flatten(0, 1)[:, :, None]
        found = []
        for index, level in enumerate(pyramid):
            # Sampling is linear: comparing what was sampled is sampling what was compared, for far less memory.
            around = _sample(level, flat / 2**index + window, "zeros")  # (maps, dim, points, window)
            found.append(torch.einsum("mdpw,mpd->mpw", around, wanted) / self.dim**0.5)
        return torch.cat(found, dim=-1).view(*cells.shape[:3], -1)


def _sample(
    maps: Float[Tensor, "maps dim rows columns"], cells: Float[Tensor, "maps points window 2"], padding: str
) -> Float[Tensor, "maps dim points window"]:
    """Values at (x, y), bilinearly; cell (0, 0) is the centre of the first one."""
    rows, columns = maps.shape[-2:]
    last = cells.new_tensor([max(columns - 1, 1), max(rows - 1, 1)])
    return F.grid_sample(maps, cells / last * 2 - 1, padding_mode=padding, align_corners=True)


def _flow_embedding(flow: Float[Tensor, "*batch 2"], width: int) -> Float[Tensor, "*batch waves"]:
    """For x, then y: sines (even places) and cosines (odd places) of the displacement times 0, 2000 / width, ..."""
    factors = torch.arange(0, width, 2, device=flow.device, dtype=flow.dtype) * (1000 / width)
    angles = flow[..., None] * factors
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)


def _place_embedding(
    cells: Float[Tensor, "batch 1 points 2"], rows: int, columns: int, dim: int
) -> Float[Tensor, "batch 1 points {dim}"]:
    """Sines and cosines of x, then of y, interpolated between whole cells, as if sampled from a map of them."""
    exponents = torch.arange(dim // 4, device=cells.device, dtype=torch.float32) / (dim // 4)
    waves = []
    for axis, count in ((0, columns), (1, rows)):
        angles = torch.arange(count, device=cells.device, dtype=torch.float32)[:, None] * 10000.0**-exponents
        table = torch.cat([angles.sin(), angles.cos()], dim=1)
        place = cells[..., axis].clamp(0, count - 1)
        low = place.floor().long().clamp(max=max(count - 2, 0))
        waves.append(torch.lerp(table[low], table[(low + 1).clamp(max=count - 1)], (place - low)[..., None]))
    return torch.cat(waves, dim=-1)

"""Where the alignment of pairs starts: views placed one after the other along the tree of the surest pairs."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.errors import GeometryError
from distill3d.geometry.align import Similarity, robust_similarity
from distill3d.geometry.solve import focal_from_pointmap
from distill3d.infer.pairs import Pair


def _score(weight: Float[Tensor, "2 height width"]) -> float:
    """How sure a pair is of both its maps."""
    return float(weight.flatten(1).mean(dim=1).prod())


def own_maps(
    pairs: Sequence[Pair],
    points: Float[Tensor, "pairs 2 height width 3"],
    weight: Float[Tensor, "pairs 2 height width"],
) -> tuple[Float[Tensor, "views height width 3"], Float[Tensor, "views height width"]]:
    """Each view in its own camera frame, from the surest pair in which it is the first."""
    count = 1 + max(view for pair in pairs for view in pair)
    chosen = []
    for view in range(count):
        rows = [row for row, (first, _) in enumerate(pairs) if first == view]
        if not rows:
            raise GeometryError(f"view {view} is the first of no pair, so its camera cannot be told; add a pair for it")
        chosen.append(max(rows, key=lambda row: float(weight[row, 0].mean())))
    return points[chosen, 0], weight[chosen, 0]


def place_views(
    pairs: Sequence[Pair],
    points: Float[Tensor, "pairs 2 height width 3"],
    weight: Float[Tensor, "pairs 2 height width"],
    local: Float[Tensor, "views height width 3"],
    local_weight: Float[Tensor, "views height width"],
) -> list[Similarity]:
    """A similarity from each view's own map to the world, along the tree of the surest pairs that starts at view 0."""
    identity = Similarity(scale=points.new_ones(()), rotation=torch.eye(3).to(points), translation=points.new_zeros(3))
    placed = {0: identity}
    while len(placed) < len(local):
        edges = [row for row, pair in enumerate(pairs) if (pair[0] in placed) != (pair[1] in placed)]
        if not edges:
            apart = sorted(set(range(len(local))) - set(placed))
            raise GeometryError(f"no chain of pairs leads from view 0 to views {apart}; choose another pair graph")
        row = max(edges, key=lambda row: _score(weight[row]))
        known, new = (0, 1) if pairs[row][0] in placed else (1, 0)
        old_view, new_view = pairs[row][known], pairs[row][new]
        world_from_old = placed[old_view]
        old_from_pair = _similarity(points[row, known], local[old_view], weight[row, known] * local_weight[old_view])
        pair_from_new = _similarity(local[new_view], points[row, new], weight[row, new] * local_weight[new_view])
        placed[new_view] = world_from_old.compose(old_from_pair).compose(pair_from_new)
    return [placed[view] for view in range(len(local))]


def _similarity(source: Tensor, target: Tensor, weight: Tensor) -> Similarity:
    return robust_similarity(source.flatten(0, 1), target.flatten(0, 1), weight.flatten(), degenerate="identity")


def pair_similarity(
    maps: Float[Tensor, "views pixels 3"],
    pair: Pair,
    points: Float[Tensor, "2 height width 3"],
    weight: Float[Tensor, "2 height width"],
) -> Similarity:
    """The similarity from a pair's frame to the world that suits both its views."""
    target = torch.cat([maps[pair[0]], maps[pair[1]]])
    return robust_similarity(points.flatten(0, 2), target, weight.flatten(), degenerate="identity")


def focal_lengths(
    local: Float[Tensor, "views height width 3"],
    usable: Bool[Tensor, "views height width"],
    centre: tuple[float, float],
) -> Float[Tensor, " views"]:
    """In pixels; views that tell none get the others' median."""
    height, width = local.shape[1:3]
    focal = focal_from_pointmap(local, usable, centre)
    good = torch.isfinite(focal) & (focal > 0.1 * max(height, width)) & (focal < 20 * max(height, width))
    typical = focal[good].median() if bool(good.any()) else focal.new_tensor(float(max(height, width)))
    return torch.where(good, focal, typical)

"""Nearest neighbours between point clouds: a KD-tree on the processor, plain distances on a GPU, the same answer."""

import numpy as np
import torch
from jaxtyping import Float, Int

Cloud = Float[np.ndarray, "count 3"]
_PAIRS_AT_ONCE = 2**28


def nearest_points(
    queries: Float[np.ndarray, "queries 3"],
    points: Float[np.ndarray, "points 3"],
    *,
    max_distance: float = np.inf,
    device: torch.device | str = "cpu",
) -> tuple[Float[np.ndarray, " queries"], Int[np.ndarray, " queries"]]:
    """Give the distance to the nearest of `points`, and its index; infinite and `len(points)` beyond `max_distance`.

    Exact, in float64 whatever the device. Of points at the very same distance the processor and the GPU may name
    different ones.

    Args:
        queries: looked for.
        points: at least one.
        max_distance: nearest points at or beyond it do not count.
        device: cpu uses a KD-tree and all cores.
    """
    if torch.device(device).type == "cpu":
        from scipy.spatial import KDTree  # slow to import

        # Splitting at the middle instead of the median: a third of the time to build, queries as quick.
        tree = KDTree(points, balanced_tree=False, compact_nodes=False)
        distance, index = tree.query(queries, distance_upper_bound=max_distance, workers=-1)
        return distance, index
    distance, index = brute_force(torch.as_tensor(queries, device=device), torch.as_tensor(points, device=device))
    beyond = distance >= max_distance
    return (
        torch.where(beyond, torch.inf, distance).cpu().numpy(),
        torch.where(beyond, len(points), index).cpu().numpy(),
    )


def brute_force(
    queries: Float[torch.Tensor, "queries 3"], points: Float[torch.Tensor, "points 3"]
) -> tuple[Float[torch.Tensor, " queries"], Int[torch.Tensor, " queries"]]:
    """Distance to and index of the nearest point by all distances, in blocks; for devices that are made for it."""
    queries, points = queries.double(), points.double()
    distances, indices = [], []
    for block in torch.split(queries, max(1, _PAIRS_AT_ONCE // max(len(points), 1))):
        squared = torch.zeros(len(block), len(points), dtype=torch.float64, device=block.device)
        for axis in range(3):  # differences, not the expanded square: that would lose the digits of near points
            squared += (block[:, None, axis] - points[None, :, axis]).square_()
        best = squared.min(dim=1)
        distances.append(best.values.sqrt())
        indices.append(best.indices)
    return torch.cat(distances), torch.cat(indices)

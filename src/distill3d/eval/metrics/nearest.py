"""Nearest neighbours between point clouds: a KD-tree on the processor, plain distances on a GPU, the same answer."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int

_PAIRS_AT_ONCE = 2**28
_CELLS = 64
_SAMPLE, _FEW_COPIES = 2000, 0.99


class NearestPoints:
    """A cloud that can be asked for its nearest points again and again.

    Exact, in float64 whatever the device. Of points at the very same distance the processor and the GPU may name
    different ones.
    """

    def __init__(
        self, points: Float[np.ndarray, "points 3"], *, device: torch.device | str = "cpu", most: int = 1
    ) -> None:
        """Take at least one point; cpu uses a KD-tree and all cores.

        Args:
            points: the cloud.
            device: where distances are computed.
            most: neighbours that will be asked for.
        """
        self._points = points
        self._device = torch.device(device)
        if self._device.type == "cpu":
            from scipy.spatial import KDTree  # slow to import

            self._kept = _without_copies(points, most)
            self._tree = KDTree(points[self._kept])

    def query(
        self, queries: Float[np.ndarray, "queries 3"], *, max_distance: float = np.inf
    ) -> tuple[Float[np.ndarray, " queries"], Int[np.ndarray, " queries"]]:
        """Distance to the nearest point, and its index; infinite and the number of points from `max_distance` on."""
        if self._device.type != "cpu":
            far, place = brute_force(
                torch.as_tensor(queries, device=self._device), torch.as_tensor(self._points, device=self._device)
            )
            beyond = far >= max_distance
            return (
                torch.where(beyond, torch.inf, far).cpu().numpy(),
                torch.where(beyond, len(self._points), place).cpu().numpy(),
            )
        order = _neighbours_together(queries)
        distance, index = np.empty(len(queries)), np.empty(len(queries), dtype=np.int64)
        found = self._tree.query(queries[order], distance_upper_bound=max_distance, workers=-1)
        distance[order], index[order] = found[0], np.append(self._kept, len(self._points))[found[1]]
        return distance, index

    def neighbours(
        self, count: int, at_once: int = 2**18
    ) -> Iterator[tuple[Int[np.ndarray, " some"], Int[np.ndarray, "some neighbours"]]]:
        """The nearest points of every point, itself included, block by block; on the processor only.

        Gives indices of some points and of their neighbours, in an order of its own, until every point was there. As
        many must have been announced (`most`).
        """
        order = _neighbours_together(self._points)
        for start in range(0, len(order), at_once):
            some = order[start : start + at_once]
            found = self._tree.query(self._points[some], k=count, workers=-1)[1].reshape(len(some), count)
            yield some, self._kept[found]


def nearest_points(
    queries: Float[np.ndarray, "queries 3"],
    points: Float[np.ndarray, "points 3"],
    *,
    max_distance: float = np.inf,
    device: torch.device | str = "cpu",
) -> tuple[Float[np.ndarray, " queries"], Int[np.ndarray, " queries"]]:
    """Ask a cloud once; see `NearestPoints`."""
    return NearestPoints(points, device=device).query(queries, max_distance=max_distance)


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


def _without_copies(points: Float[np.ndarray, "points 3"], most: int) -> Int[np.ndarray, " kept"]:
    """Indices of points that a tree needs: of many at the very same place, as many as can be neighbours.

    A tree cannot part equal points, and looks at all of them again and again: the cloud of a network that says one
    thing everywhere would take the square of its size. A sample tells whether there are any to speak of.
    """
    sample = points[:: max(1, len(points) // _SAMPLE)]
    if len(np.unique(sample, axis=0)) > _FEW_COPIES * len(sample):
        return np.arange(len(points))
    same = np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(same, kind="stable")
    starts = np.searchsorted(same[order], same[order])
    kept: Int[np.ndarray, " kept"] = np.sort(order[np.arange(len(points)) - starts < most])
    return kept


def _neighbours_together(points: Float[np.ndarray, "points 3"]) -> Int[np.ndarray, " points"]:
    """An order in which points of one cell follow each other.

    Their paths through the tree are then in the processor's cache, which makes the queries of a cloud in random order
    four times as fast. The answers do not depend on it.
    """
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    low = points.min(axis=0)
    extent = float((points.max(axis=0) - low).max()) or 1.0
    cells = ((points - low) * ((_CELLS - 1) / extent)).astype(np.int64)
    order: Int[np.ndarray, " points"] = np.argsort(
        (cells[:, 0] * _CELLS + cells[:, 1]) * _CELLS + cells[:, 2], kind="stable"
    )
    return order

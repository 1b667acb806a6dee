"""Camera files that several data sets share: 4x4 matrices, trajectories and MVSNet's cameras, as text."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from distill3d.errors import DataError
from distill3d.geometry.poses import invert_pose


def read_numbers(path: Path) -> Float[np.ndarray, "rows columns"]:
    """A table of numbers, separated by blanks or commas; lines that start with `#` are left aside.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is empty, or holds anything else.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = [line.replace(",", " ").split() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"{path} holds {len(rows)} lines of unlike length, expected a table of numbers")
    return np.array(rows, dtype=np.float64)


def read_pose(path: Path) -> Float[Tensor, "4 4"]:
    """One 4x4 matrix, float64, as it is written.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds anything else.
    """
    numbers = read_numbers(path)
    if numbers.shape != (4, 4):
        raise ValueError(f"{path} holds {numbers.shape[0]}x{numbers.shape[1]} numbers, expected a 4x4 matrix")
    return torch.from_numpy(numbers)


def poses_from_quaternions(numbers: Float[np.ndarray, "poses 7"]) -> Float[Tensor, "poses 4 4"]:
    """Poses from lines of `tx ty tz qx qy qz qw`, in whatever direction they are written."""
    poses = np.tile(np.eye(4), (len(numbers), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(numbers[:, 3:]).as_matrix()
    poses[:, :3, 3] = numbers[:, :3]
    return torch.from_numpy(poses)


@dataclass(frozen=True)
class Trajectory:
    """Poses at moments of a clock, ascending."""

    times: Float[np.ndarray, " moments"]
    """Seconds."""
    world_from_camera: Float[np.ndarray, "moments 4 4"]

    def at(self, time: float, *, widest: float) -> Float[Tensor, "4 4"]:
        """The pose at a moment: turned evenly and moved in a straight line between the two moments around it.

        Args:
            time: seconds.
            widest: two moments further apart than this have nothing known between them.

        Raises:
            DataError: the moment is outside of the trajectory or in such a hole.
        """
        exact = nearest_time(self.times, time, 0.0)
        if exact is not None:
            return torch.from_numpy(self.world_from_camera[exact])
        after = int(np.searchsorted(self.times, time))
        if after in (0, len(self.times)) or self.times[after] - self.times[after - 1] > widest:
            raise DataError(f"The trajectory says nothing about {time:.3f} s: no poses within {widest:g} s around it.")
        pair = self.world_from_camera[after - 1 : after + 1]
        start, end = self.times[after - 1 : after + 1]
        pose = np.eye(4)
        # Counted from the first: a clock of many digits would lose the small ones.
        pose[:3, :3] = Slerp([0.0, end - start], Rotation.from_matrix(pair[:, :3, :3]))(time - start).as_matrix()
        share = (time - start) / (end - start)
        pose[:3, 3] = (1 - share) * pair[0, :3, 3] + share * pair[1, :3, 3]
        return torch.from_numpy(pose)

    def nearest(self, time: float, *, within: float) -> Float[Tensor, "4 4"]:
        """The pose of the nearest moment.

        Raises:
            DataError: there is none within so many seconds.
        """
        place = nearest_time(self.times, time, within)
        if place is None:
            raise DataError(f"The trajectory says nothing about {time:.3f} s: no pose within {within:g} s of it.")
        return torch.from_numpy(self.world_from_camera[place])


def nearest_time(times: Float[np.ndarray, " moments"], time: float, within: float) -> int | None:
    """Place of the nearest of ascending moments, if one is within so many seconds."""
    after = int(np.searchsorted(times, time))
    around = [place for place in (after - 1, after) if 0 <= place < len(times)]
    best = min(around, key=lambda place: abs(times[place] - time), default=None)
    # A thousandth of a millisecond more: decimal fractions are not exact.
    return best if best is not None and abs(times[best] - time) <= within + 1e-6 else None


def read_mvsnet_camera(path: Path) -> tuple[Float[Tensor, "4 4"], Float[Tensor, "3 3"]]:
    """`world_from_camera` and intrinsics of a `cam.txt` (MVSNet, BlendedMVS, DTU), in the units of the file.

    The file: the word `extrinsic` and 4x4 numbers (camera from world, OpenCV axes), the word `intrinsic` and 3x3, and
    two to four numbers about depth planes, of which nothing is taken (the least depth is below 0 in some).

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds anything else.
    """
    words = path.read_text(encoding="utf-8", errors="replace").split()
    if len(words) not in (29, 30, 31) or words[0] != "extrinsic" or words[17] != "intrinsic":
        raise ValueError(f"{path} is no camera of MVSNet: {len(words)} words, expected 29 to 31")
    camera_from_world = torch.tensor([float(word) for word in words[1:17]], dtype=torch.float64).reshape(4, 4)
    intrinsics = torch.tensor([float(word) for word in words[18:27]], dtype=torch.float64).reshape(3, 3)
    return invert_pose(camera_from_world), intrinsics

"""Which way is up, and the step from our axes (OpenCV: y down, z forward) to those of viewers (glTF: y up, z back)."""

import numpy as np
from jaxtyping import Float

OPENCV_TO_GLTF: Float[np.ndarray, "3 3"] = np.diag([1.0, -1.0, -1.0])
"""Half a turn about x: x right stays, y down becomes y up, z forward becomes z back."""


def estimate_up(world_from_camera: Float[np.ndarray, "views 4 4"]) -> Float[np.ndarray, "3"]:
    """Find the upward direction of the world, a unit vector, from how people hold cameras.

    A camera is seldom rolled, so its x axis lies in the horizontal plane: up is the direction most nearly orthogonal
    to all x axes. Where the x axes do not span that plane (few views, all looking one way) this says nothing, and the
    mean of the cameras' own up directions stands instead.
    """
    right, down = world_from_camera[:, :3, 0], world_from_camera[:, :3, 1]
    finite = np.isfinite(world_from_camera).all(axis=(1, 2))
    mean_up = -down[finite].mean(axis=0) if finite.any() else np.array([0.0, -1.0, 0.0])
    length = float(np.linalg.norm(mean_up))
    mean_up = mean_up / length if length > 1e-6 else np.array([0.0, -1.0, 0.0])
    if finite.sum() < 2:
        return np.asarray(mean_up, dtype=np.float64)
    values, vectors = np.linalg.eigh(right[finite].T @ right[finite] / finite.sum())  # ascending
    up = vectors[:, 0] * np.sign(vectors[:, 0] @ mean_up or 1.0)
    # The middle eigenvalue is how much the x axes turn: about 0.03 for a fan of 20 degrees. The result must also
    # agree with the mean: photos turned by 90 degrees (portrait without EXIF) break the assumption.
    trusted = values[1] > 0.02 and values[0] < 0.25 * values[1] and up @ mean_up > 0.8
    return np.asarray(up if trusted else mean_up, dtype=np.float64)


def gltf_from_world(
    world_from_camera: Float[np.ndarray, "views 4 4"], *, level: bool = True
) -> Float[np.ndarray, "4 4"]:
    """Rotate the world to glTF axes (y up, z towards the viewer), so that it opens upright and seen from view 0's side.

    With `level` the estimated up direction becomes +y; without, the first camera's axes are kept and only renamed.
    It is a rotation: nothing is mirrored, scaled or moved.
    """
    rotation = OPENCV_TO_GLTF
    if level:
        up = estimate_up(world_from_camera)
        forward = world_from_camera[0, :3, 2]
        forward = forward - (forward @ up) * up
        if not np.isfinite(forward).all() or np.linalg.norm(forward) < 1e-3:  # view 0 looks straight up or down
            forward = np.cross(up, [1.0, 0.0, 0.0])
        forward = forward / np.linalg.norm(forward)
        rotation = np.stack([np.cross(forward, up), up, -forward])
    pose = np.eye(4)
    pose[:3, :3] = rotation
    return pose

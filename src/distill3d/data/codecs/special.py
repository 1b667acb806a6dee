"""Encodings that one public data set alone has."""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from distill3d.data.codecs.containers import read_hdf5
from distill3d.data.codecs.masks import mask
from distill3d.data.codecs.png import png16
from distill3d.data.refs import Span
from distill3d.geometry.cameras import resize_intrinsics
from distill3d.geometry.registration import register_depth

Depth = Float[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]
Picture = UInt8[np.ndarray, "height width 3"]

SEVENSCENES_SIZE = (480, 640)
SEVENSCENES_COLOUR = ((525.0, 0.0, 320.0), (0.0, 525.0, 240.0), (0.0, 0.0, 1.0))
# The usual registration measures from pixel centres here, and counts in whole numbers where the points arrive.
_SEVENSCENES_INFRARED = ((585.0, 0.0, 319.5), (0.0, 585.0, 239.5), (0.0, 0.0, 1.0))
SEVENSCENES_COLOUR_FROM_INFRARED = (
    (0.99996518, 0.00267651, -0.0079041, -0.02555894),
    (-0.00274093, 0.9999630, -0.00815045, 0.0001010964),
    (0.00788199, 0.00817183, 0.99993555, 0.00203183),
    (0.0, 0.0, 0.0, 1.0),
)
"""The transform between the two cameras of the Kinect that every published evaluation uses."""


def sevenscenes(span: Span) -> Depth:
    """Millimetres of the infrared camera, moved into the pixels of the colour camera; 0 and 65535 are unknown."""
    measured = torch.from_numpy(png16(span, scale=0.001, invalid=65535)).double()
    size = (measured.shape[0], measured.shape[1])
    infrared, colour = (
        resize_intrinsics(torch.tensor(camera, dtype=torch.float64), SEVENSCENES_SIZE, size)
        for camera in (_SEVENSCENES_INFRARED, SEVENSCENES_COLOUR)
    )
    colour_from_infrared = torch.tensor(SEVENSCENES_COLOUR_FROM_INFRARED, dtype=torch.float64)
    return np.asarray(register_depth(measured, infrared, colour, colour_from_infrared, size).float())


def nyuv2_image(span: Span, *, index: int | None = None) -> Picture:
    """Picture `index` of NYUv2's MATLAB file, whose axes are reversed (3, width, height), or that of a file of its own.

    The files of FastDepth hold `rgb` (3, height, width).
    """
    key = "rgb" if index is None else "images"
    stored = read_hdf5(span, key, index)
    if stored.dtype != np.uint8 or stored.ndim != 3 or stored.shape[0] != 3:
        raise ValueError(f"{key} holds {stored.dtype} of shape {stored.shape}, expected 8 bits and 3 channels first")
    return np.ascontiguousarray(stored.transpose((1, 2, 0) if index is None else (2, 1, 0)))


def hypersim(span: Span, *, entity: str) -> Picture:
    """A linear picture of Hypersim under the official tone curve: its 90th percentile of brightness becomes 0.8.

    Args:
        span: `frame.IIII.color.hdf5`.
        entity: path of `frame.IIII.render_entity_id.hdf5` from the folder of the picture; where it is -1 nothing was
            hit, and these pixels do not count for the brightness. May be absent.
    """
    linear = read_hdf5(span, "dataset").astype(np.float64)
    if linear.ndim != 3 or linear.shape[2] != 3:
        raise ValueError(f"it has shape {linear.shape}, expected [height, width, 3]")
    linear = np.nan_to_num(linear, nan=0.0, posinf=0.0, neginf=0.0)
    beside = span.path.parent / entity
    hit = np.ones(linear.shape[:2], dtype=bool)
    if beside.is_file():
        hit = read_hdf5(Span(beside), "dataset") != -1
    return tone_mapped(linear, hit)


def tone_mapped(linear: Float[np.ndarray, "height width 3"], hit: Mask) -> Picture:
    """Hypersim's tone curve: a gain that brings the 90th percentile of brightness to 0.8, then a gamma of 2.2."""
    gain = 1.0
    if hit.any():
        brightest = float(np.percentile((linear @ np.array([0.3, 0.59, 0.11]))[hit], 90))
        gain = 0.8**2.2 / brightest if brightest >= 1e-4 else 0.0
    shown = np.clip(np.maximum(gain * linear, 0) ** (1 / 2.2), 0, 1)
    return np.rint(shown * 255).astype(np.uint8)


def all_masks(span: Span, *, beside: str, above: float = 0.0) -> Mask:
    """A mask and others of the same size, named by `beside` from its folder, separated by "|": True where all are."""
    others = [mask(Span(span.path.parent / name), above=above) for name in beside.split("|")]
    return np.asarray(np.logical_and.reduce([mask(span, above=above), *others]))


def eroded_mask(span: Span, *, above: float, square: int, height: int, width: int) -> Mask:
    """A mask at the size of a depth map (nearest pixel), less a rim: a square around each kept pixel must be inside."""
    inside = mask(span, above=above)
    if inside.shape != (height, width):
        picture = Image.fromarray(inside.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        inside = np.asarray(picture) > 0
    # As OpenCV does it: an even square reaches one pixel further up and left, and the border is no rim.
    return np.asarray(ndimage.minimum_filter(inside, size=square, mode="constant", cval=True))


IMAGE_CODECS = {"nyuv2": nyuv2_image, "hypersim": hypersim}
DEPTH_CODECS = {"sevenscenes": sevenscenes}
MASK_CODECS = {"all-masks": all_masks, "eroded-mask": eroded_mask}

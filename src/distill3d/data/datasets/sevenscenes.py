"""7-Scenes: seven rooms filmed with a Kinect, the usual test of dense reconstruction.

<scene>/{TrainSplit.txt,TestSplit.txt}                     lines like `sequence1`
<scene>/seq-01/frame-000000.{color.png,depth.png,pose.txt}

The depth (millimetres, 65535 = none) and the pose belong to the infrared camera, the pictures to the colour camera
beside it. Depth is registered to the colour camera when it is read, by the transform that every published evaluation
uses; where `frame-*.depth.proj.png` (the same, made beforehand) lies beside it, that is read instead.

The pose of a row is that of the colour camera, so that points agree. Published evaluations take the pose of the
infrared camera for it, a shift of 2.6 cm that all their methods share: `infrared_pose` gives it back.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from distill3d.data.camera_files import read_pose
from distill3d.data.codecs.special import (
    SEVENSCENES_COLOUR,
    SEVENSCENES_COLOUR_FROM_INFRARED,
    SEVENSCENES_SIZE,
)
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, required, scaled_pinhole
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, Matrix, OnSkip, natural_key
from distill3d.data.walk import scene_name

_LICENCE = "Microsoft Research licence, non-commercial"


def find(root: Path) -> Sequence[Path]:
    """The folders of sequences."""
    return [folder for folder in below(root, "seq-[0-9]*", itself=True) if any(folder.glob("frame-*.color.png"))]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one sequence, numbered as their files."""
    scene = scene_name(part.relative_to(root), root)
    common: dict[str, Any] = {"scene": scene, "split": _split(part), "licence": _LICENCE}

    def row(photo: Path) -> ManifestRow:
        stem = photo.name.removesuffix(".color.png")
        frame = int(stem.removeprefix("frame-"))
        if options.mode == "images_only":
            return photo_row(photo, root, dataset="sevenscenes", frame=frame, **common)
        size = photo_size(photo, upright=False)
        (fx, _, cx), (_, fy, cy), _ = SEVENSCENES_COLOUR
        world_from_infrared = read_pose(required(part / f"{stem}.pose.txt", "pose"))
        infrared_from_colour = torch.linalg.inv(torch.tensor(SEVENSCENES_COLOUR_FROM_INFRARED, dtype=torch.float64))
        return photo_row(
            photo,
            root,
            dataset="sevenscenes",
            frame=frame,
            size=size,
            intrinsics=scaled_pinhole(fx, fy, cx, cy, SEVENSCENES_SIZE, size),
            world_from_camera=as_matrix(world_from_infrared @ infrared_from_colour),
            depth=_depth(part / stem, root),
            scale="metric",
            **common,
        )

    photos = sorted(part.glob("frame-*.color.png"), key=natural_key)
    return each_frame(photos, row, lambda photo: inside(photo, root), on_skip)


def infrared_pose(world_from_camera: Matrix) -> Matrix:
    """The pose as it is written in the files: of the infrared camera, in place of the colour camera that a row has."""
    colour_from_infrared = torch.tensor(SEVENSCENES_COLOUR_FROM_INFRARED, dtype=torch.float64)
    return as_matrix(torch.tensor(world_from_camera, dtype=torch.float64) @ colour_from_infrared)


def _depth(stem: Path, root: Path) -> Ref:
    registered = stem.with_name(f"{stem.name}.depth.proj.png")
    if registered.is_file():
        return Ref(inside(registered, root), codec("png16", scale=0.001, invalid=65535))
    return Ref(inside(required(stem.with_name(f"{stem.name}.depth.png"), "depth map"), root), "sevenscenes")


def _split(part: Path) -> str:
    for split, name in (("train", "TrainSplit.txt"), ("test", "TestSplit.txt")):
        listed = part.parent / name
        if listed.is_file():
            numbers = (line.strip().removeprefix("sequence") for line in listed.read_text().splitlines())
            if int(part.name.removeprefix("seq-")) in {int(number) for number in numbers if number.isdecimal()}:
                return split
    return ""


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="7-Scenes",
    role="evaluation",
    url="https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/",
    size="about 20 GB (not verified): one zip per scene with one zip per sequence inside",
    licence=_LICENCE + " (not verified)",
    sharing="no redistribution",
)

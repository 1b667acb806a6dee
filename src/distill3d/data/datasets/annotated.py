"""Scene folders that carry the truth: photos with depth, intrinsics and poses, listed in a `scene.json`.

    <scene>/scene.json        {"format": "distill3d-scene", "version": 1, "is_metric": true, "licence": "CC0-1.0",
                               "depth_unit": 1.0, "info": {...}, "frames": [FRAME, ...]}
    FRAME                     {"image": "images/000000.png", "width": 224, "height": 168, "split": "train",
                               "depth": "depth/000000.npy", "intrinsics": [[...] * 3], "world_from_camera": [[...] * 4]}

Only `format`, `version`, `frames` and each frame's `image` must be there. Depth is planar z-depth, 0 = unknown: `.npy`
(float16, 32 or 64) or 16-bit `.png`, times `depth_unit` = scene units. Cameras speak of the pixels as stored
(integer pixel centres, OpenCV axes), so EXIF orientation is not applied.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from distill3d.data.datasets import DatasetSpec, ScanOptions, counted
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, Skipped, matrix
from distill3d.data.walk import scene_name, visible_files
from distill3d.errors import DataError
from distill3d.files import PathLike, atomic_write_bytes, read_json, write_json

SCENE_FILE = "scene.json"
FORMAT = "distill3d-scene"
VERSION = 1


def write_annotated_scene(
    folder: PathLike,
    images: Float[Tensor, "frames 3 height width"],
    *,
    intrinsics: Float[Tensor, "frames 3 3"] | None = None,
    world_from_camera: Float[Tensor, "frames 4 4"] | None = None,
    depth: Float[Tensor, "frames height width"] | None = None,
    split: str | Sequence[str] = "",
    is_metric: bool = False,
    licence: str = "",
    image_format: Literal["png", "jpg"] = "png",
    depth_unit: float | None = None,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Write one scene folder; `scene.json` comes last, so a folder that has it is complete.

    Args:
        folder: made if absent; files of the same name are replaced.
        images: RGB in [0, 1]; rounded to 8 bits.
        intrinsics: in pixels of these images, integer pixel centres.
        world_from_camera: OpenCV axes, in the world of the scene.
        depth: planar z-depth, 0 (or anything not finite) where unknown.
        split: one word for all frames, or one per frame.
        is_metric: whether lengths are metres.
        licence: of the images, e.g. "CC0-1.0".
        image_format: "png" is exact, "jpg" (quality 95) is about eight times smaller.
        depth_unit: `None` writes exact float32 `.npy`; a number writes 16-bit PNG in steps of that many scene units.
        info: anything else worth keeping about the scene, ready for JSON.

    Returns:
        The path of `scene.json`.

    Raises:
        DataError: one split per frame was expected, or a depth does not fit into 16 bits of `depth_unit`.
        OutputError: the folder cannot be written to.
    """
    folder = Path(folder)
    count = len(images)
    splits = [split] * count if isinstance(split, str) else list(split)
    if len(splits) != count:
        raise DataError(f"{folder}: got {len(splits)} splits for {count} images, expected one for each or one word.")
    frames: list[dict[str, Any]] = []
    for index in range(count):
        name = f"{index:06d}"
        frame: dict[str, Any] = {"image": f"images/{name}.{image_format}", "split": splits[index]}
        frame["height"], frame["width"] = images.shape[-2:]
        atomic_write_bytes(folder / frame["image"], _encode_image(images[index], image_format))
        if depth is not None:
            frame["depth"] = f"depth/{name}.{'npy' if depth_unit is None else 'png'}"
            atomic_write_bytes(folder / frame["depth"], _encode_depth(depth[index], depth_unit))
        if intrinsics is not None:
            frame["intrinsics"] = intrinsics[index].double().tolist()
        if world_from_camera is not None:
            frame["world_from_camera"] = world_from_camera[index].double().tolist()
        frames.append(frame)
    scene = {
        "format": FORMAT,
        "version": VERSION,
        "is_metric": is_metric,
        "licence": licence,
        "depth_unit": 1.0 if depth_unit is None else depth_unit,
        "info": dict(info or {}),
        "frames": frames,
    }
    write_json(folder / SCENE_FILE, scene)
    return folder / SCENE_FILE


def find(root: Path) -> Sequence[Path]:
    """The annotated scene folders at or below `root`, in natural order."""
    if root.name == SCENE_FILE:
        return [root.parent]
    return [path.parent for path in visible_files(root) if path.name == SCENE_FILE]


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """Every frame of one scene; frames whose files are missing are left out.

    Raises:
        DataError: `scene.json` is damaged or was written by a newer version.
    """
    scene = read_scene(part)
    inside = part.relative_to(root)
    name = scene_name(inside, root)
    for index, frame in enumerate(scene["frames"]):
        try:
            row = _row(scene, frame, part, inside, name, index)
        except (OSError, ValueError, TypeError) as error:
            on_skip(Skipped((inside / frame["image"]).as_posix(), str(error)))
        else:
            yield row if options.mode == "full" else row.images_only()


def _row(
    scene: Mapping[str, Any], frame: Mapping[str, Any], folder: Path, inside: Path, name: str, index: int
) -> ManifestRow:
    image, depth = frame["image"], frame.get("depth")
    for path in (image, depth):
        if path is not None and not (folder / path).is_file():
            raise ValueError(f"{SCENE_FILE} names {path}, which is not there")
    width, height = _frame_size(folder, frame)
    return ManifestRow(
        dataset="annotated",
        scene=name,
        frame=index,
        image=Ref((inside / image).as_posix()),
        width=width,
        height=height,
        intrinsics=matrix(frame.get("intrinsics"), 3),
        world_from_camera=matrix(frame.get("world_from_camera"), 4),
        depth=None if depth is None else _depth_ref(inside / depth, float(scene.get("depth_unit", 1.0))),
        split=str(frame.get("split", "")),
        scale="metric" if scene.get("is_metric") else "",
        licence=str(scene.get("licence", "")),
    )


def _depth_ref(path: Path, unit: float) -> Ref:
    return Ref(path.as_posix(), codec("npy" if path.suffix == ".npy" else "png16", scale=unit))


def read_scene(folder: PathLike) -> dict[str, Any]:
    """Read and check a `scene.json`.

    Raises:
        DataError: it is damaged, of another kind, or from a newer version.
    """
    path = Path(folder) / SCENE_FILE
    try:
        scene = read_json(path)
    except ValueError as error:
        raise DataError(f"{error}. Write the scene again.") from error
    if not isinstance(scene, dict) or scene.get("format") != FORMAT or not isinstance(scene.get("frames"), list):
        raise DataError(f'{path} is not an annotated scene: expected "format": "{FORMAT}" and a list of "frames".')
    if scene.get("version") != VERSION:
        raise DataError(
            f"{path} has version {scene.get('version')!r}; this distill3d knows version {VERSION}. "
            "Use the distill3d that wrote it, or a newer one."
        )
    broken = [
        index for index, frame in enumerate(scene["frames"]) if not isinstance(frame, dict) or "image" not in frame
    ]
    if broken:
        raise DataError(f'{path}: frames {broken[:5]} have no "image", expected the path of a photo in each.')
    return scene


def _frame_size(folder: Path, frame: Mapping[str, Any]) -> tuple[int, int]:
    """(width, height) as stored; opened only where the scene file does not say."""
    if "width" in frame and "height" in frame:
        return int(frame["width"]), int(frame["height"])
    with Image.open(folder / frame["image"]) as image:
        return image.size


def _encode_image(image: Float[Tensor, "3 height width"], image_format: str) -> bytes:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    # Level 1 writes twice as fast as the default and costs a few per cent of size on renderings.
    options: dict[str, Any] = {"compress_level": 1} if image_format == "png" else {"quality": 95, "subsampling": 0}
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG" if image_format == "png" else "JPEG", **options)
    return buffer.getvalue()


def _encode_depth(depth: Float[Tensor, "height width"], depth_unit: float | None) -> bytes:
    values = depth.double().cpu().numpy()
    values = np.where(np.isfinite(values), values, 0.0)
    buffer = io.BytesIO()
    if depth_unit is None:
        np.save(buffer, values.astype(np.float32), allow_pickle=False)
        return buffer.getvalue()
    steps = np.rint(values / depth_unit)
    if steps.max(initial=0) > 65535:
        raise DataError(
            f"A depth of {values.max():.4g} is more than 65535 steps of {depth_unit:g}; "
            f"expected at most {65535 * depth_unit:.4g}. Choose a larger depth_unit, or None for exact .npy files."
        )
    Image.fromarray(steps.clip(0).astype(np.uint16)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


DATASET = DatasetSpec(
    find=find,
    read=read,
    title=f"scenes with their truth in a {SCENE_FILE}, as `distill3d render` writes them",
    role="own",
    count=lambda parts: f"{counted(len(parts), 'scene')} with annotations",
)

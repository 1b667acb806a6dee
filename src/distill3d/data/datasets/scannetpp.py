"""ScanNet++ (v1 and v2): rooms photographed with a fisheye camera, filmed with a phone and scanned with a laser.

data/<room>/dslr/resized_images/DSC01234.JPG  resized_anon_masks/DSC01234.png       255 = may be used
data/<room>/iphone/{rgb/frame_000000.jpg or rgb.mkv}  {depth.bin or depth/frame_000000.png}
data/<room>/{dslr,iphone}/colmap/{cameras,images}.txt       poses in the frame of the mesh, metres
splits/nvs_sem_{train,val}.txt, splits/nvs_test.txt         optional

A room is two scenes, `dslr` and `iphone`. The photos keep their lens; there is no depth of them (the makers render it
from the mesh). Frames of the phone have depth of 192 x 256 in any of the three encodings that are about. Only frames of
the COLMAP model have poses: those of ARKit beside them are in another world and are not read, nor are the matrices of
`transforms.json`, of which only the flag `is_bad` is used.
"""

from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import torch

from distill3d.data.colmap_model import ColmapModel, read_model
from distill3d.data.datasets import DatasetSpec, ScanOptions
from distill3d.data.decode import photo_size
from distill3d.data.depth_stack import index_depth_stack
from distill3d.data.listing import as_matrix, below, each_frame, inside, photo_row, read_part, required
from distill3d.data.refs import Ref, codec
from distill3d.data.rows import ManifestRow, OnSkip, Skipped, natural_key
from distill3d.data.video import choose_frames, video_info
from distill3d.errors import DataError
from distill3d.files import read_json
from distill3d.geometry.cameras import resize_intrinsics

_LICENCE = "ScanNet++ terms of use (signed)"
_PICTURES = {"dslr": "resized_images", "iphone": "rgb"}


def find(root: Path) -> Sequence[Path]:
    """The folders `dslr` and `iphone` of rooms."""
    found = below(root, *(f"{device}/{pictures}" for device, pictures in _PICTURES.items()), "iphone/rgb.mkv")
    return sorted({path.parent for path in found}, key=natural_key)


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The frames of one device in one room, numbered as their files."""
    room, device = part.resolve().parts[-2:]
    common = {"scene": f"{room}/{device}", "split": _split(part, root), "licence": _LICENCE}
    model = read_model(part / "colmap", points=False) if options.mode == "full" else None
    truth = _Truth(part, root, model) if model is not None else None
    film = part / "rgb.mkv"
    from_film = device == "iphone" and not (part / "rgb").is_dir()
    if from_film:
        yield from _read_film(film, root, truth, options, on_skip, common)
        return

    def row(photo: Path) -> ManifestRow:
        frame = _number(photo.name)
        size = photo_size(photo, upright=False) if truth is not None else None
        known = truth.of(photo.name, frame, size) if truth is not None and size is not None else {}
        return photo_row(photo, root, dataset="scannetpp", frame=frame, size=size, **common, **known)

    photos = [photo for photo in (part / _PICTURES[device]).iterdir() if photo.suffix.lower() == ".jpg"]
    if truth is not None:
        registered = [photo for photo in photos if photo.name in truth.names]
        if len(registered) < len(photos):
            missing = f"{len(photos) - len(registered)} of {len(photos)} frames are not registered in the COLMAP model"
            on_skip(Skipped(inside(part, root), f"{inside(part, root)}: {missing}, so they have no pose."))
        photos = registered
    yield from each_frame(sorted(photos, key=natural_key), row, lambda photo: inside(photo, root), on_skip)


def _read_film(
    film: Path, root: Path, truth: "_Truth | None", options: ScanOptions, on_skip: OnSkip, common: dict[str, str]
) -> Iterator[ManifestRow]:
    """Frames of a film that was not cut into pictures: those with poses, or so many a second."""
    info = video_info(film)
    frames = choose_frames(info, rate=options.rate, max_frames=options.max_frames)
    if truth is not None:
        frames = tuple(sorted(number for number in map(_number, truth.names) if number < info.num_frames))

    def row(frame: int) -> ManifestRow:
        size = (info.height, info.width)
        known = truth.of(f"frame_{frame:06d}.jpg", frame, size) if truth is not None else {}
        image = Ref(inside(film, root), "image", offset=frame, store="video")
        whole: dict[str, Any] = {"dataset": "scannetpp", "frame": frame, "image": image, **common, **known}
        return ManifestRow(height=info.height, width=info.width, **whole)

    yield from each_frame(frames, row, lambda frame: f"{inside(film, root)} frame {frame}", on_skip)


class _Truth:
    """What is known of the frames of one device."""

    def __init__(self, part: Path, root: Path, model: ColmapModel) -> None:
        self._part, self._root, self._model = part, root, model
        # Names may start with `video/` or `iphone/`.
        self._images = {Path(image.name).name: image for image in model.images}
        self._bad = _bad_frames(part / "nerfstudio/transforms.json")
        self._stack = None
        if part.name == "iphone" and not (part / "depth").is_dir():
            stack = required(part / "depth.bin", "depth of the phone")
            self._stack = index_depth_stack(stack, inside(stack, root))

    @property
    def names(self) -> Set[str]:
        """Registered frames."""
        return self._images.keys()

    def of(self, name: str, frame: int, size: tuple[int, int]) -> dict[str, Any]:
        """Fields of the row of one registered frame; DataError where its pose is bad or it has no depth."""
        image = self._images[name]
        if name in self._bad:
            raise DataError(f"{self._part}/{name} is marked is_bad by the makers.")
        camera = self._model.cameras[image.camera_id]
        intrinsics = torch.tensor(camera.intrinsics, dtype=torch.float64)
        mask = self._part / f"resized_anon_masks/{Path(name).stem}.png"
        return {
            "intrinsics": as_matrix(resize_intrinsics(intrinsics, (camera.height, camera.width), size)),
            "distortion": camera.distortion,
            "world_from_camera": as_matrix(image.world_from_camera),
            "depth": self._depth(name, frame),
            "mask": Ref(inside(mask, self._root), codec("mask", above=254)) if mask.is_file() else None,
            "scale": "metric",
        }

    def _depth(self, name: str, frame: int) -> Ref | None:
        if self._part.name != "iphone":
            return None
        if self._stack is None:
            depth = required(self._part / f"depth/{Path(name).stem}.png", "depth map")
            return Ref(inside(depth, self._root), codec("png16", scale=0.001))
        if frame >= len(self._stack):
            raise DataError(f"{self._part}/{name} has no depth: depth.bin ends after {len(self._stack)} frames.")
        return self._stack[frame]


def _number(name: str) -> int:
    return int("".join(filter(str.isdecimal, Path(name).stem)))


def _bad_frames(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    frames = read_part("flags of bad frames", path, read_json)["frames"]
    return {Path(frame["file_path"]).name for frame in frames if frame.get("is_bad")}


def _split(part: Path, root: Path) -> str:
    """Split of the room, where the lists are in the root or next to it."""
    room = part.resolve().parent.name
    for base in (root, root.parent):
        for split in ("train", "val", "test"):
            for listed in (base / "splits").glob(f"nvs*_{split}.txt"):
                if room in listed.read_text(encoding="utf-8").split():
                    return split
    return ""


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="ScanNet++",
    role="training",
    url="https://kaldir.vc.in.tum.de/scannetpp/",
    size="about 1.5 TB (v2), of which depth of the phones 608 GB; with a signed agreement",
    licence=_LICENCE,
    sharing="with nobody who has not signed: no pictures, depth or caches",
)

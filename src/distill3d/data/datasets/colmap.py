"""COLMAP projects: a model in `sparse/0` (or `sparse`, or beside the photos), and the photos it was made from.

    <scene>/images/*.jpg                    pictures (or `<scene>/*.jpg`)
    <scene>/sparse/0/{cameras,images,points3D}.{bin,txt}
    <scene>/stereo/depth_maps/<image>.geometric.bin     dense depth, where the scene was undistorted and matched

Lenses are passed on as they are: `distill3d manifest undistort` makes pinhole pictures in a step of its own. Several
models of one scene (`sparse/0`, `sparse/1`) are scenes of their own, because nothing says how they lie to each other.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from distill3d.data.colmap_model import ColmapImage, ColmapModel, find_models, read_model
from distill3d.data.datasets import DatasetSpec, ScanOptions, counted
from distill3d.data.refs import Ref
from distill3d.data.rows import ManifestRow, OnSkip, Skipped, matrix
from distill3d.data.walk import scene_name


def find(root: Path) -> Sequence[Path]:
    """The folders that hold a model."""
    return find_models(root) if root.is_dir() else []


def read(part: Path, root: Path, options: ScanOptions, on_skip: OnSkip) -> Iterator[ManifestRow]:
    """The registered images of one model; frames count in natural order of all names, registered or not on disk.

    Raises:
        DataError: the model is damaged.
    """
    model = read_model(part, points=False)
    scene = _scene_folder(part, root)
    pictures = _picture_folder(scene, model)
    name = scene_name(scene.relative_to(root), root)
    if part.name.isdecimal() and any(other != part for other in find(part.parent)):
        name = f"{name}/{part.name}"
    for frame, image in enumerate(model.images):
        path = pictures / image.name
        inside = path.relative_to(root).as_posix()
        if not path.is_file():
            on_skip(Skipped(inside, f"{part.relative_to(root)} names {image.name}, which is not in {pictures}"))
            continue
        camera = model.cameras[image.camera_id]
        row = ManifestRow(
            dataset="colmap",
            scene=name,
            frame=frame,
            image=Ref(inside),
            width=camera.width,
            height=camera.height,
            intrinsics=matrix(camera.intrinsics, 3),
            distortion=camera.distortion,
            world_from_camera=matrix(image.world_from_camera, 4),
            depth=_dense_depth(scene, root, image),
            scale="sfm",
        )
        yield row if options.mode == "full" else row.images_only()


def _scene_folder(part: Path, root: Path) -> Path:
    """The folder above `sparse/0`, but never one above `root`."""
    folder = part
    for _ in range(2):
        if folder != root and (folder.name.isdecimal() or folder.name in ("sparse", "colmap", "dense")):
            folder = folder.parent
    return folder


def _picture_folder(scene: Path, model: ColmapModel) -> Path:
    """Where the pictures are: the first usual place that has one of the first few."""
    places = [scene / "images", scene, scene / "dslr/resized_images", scene.parent / "images"]
    names = [image.name for image in model.images[:20]]
    return next((place for place in places if any((place / name).is_file() for name in names)), places[0])


def _dense_depth(scene: Path, root: Path, image: ColmapImage) -> Ref | None:
    path = scene / "stereo/depth_maps" / f"{image.name}.geometric.bin"
    return Ref(path.relative_to(root).as_posix(), "colmap") if path.is_file() else None


DATASET = DatasetSpec(
    find=find,
    read=read,
    title="COLMAP projects, text or binary, with any of its camera models",
    role="own",
    general=1,
    count=lambda parts: counted(len(parts), "COLMAP model"),
)

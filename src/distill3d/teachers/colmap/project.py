"""A COLMAP project that was made elsewhere: which of its models is of which scene of a manifest."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from distill3d.data.colmap_model import ColmapImage, ColmapModel, find_models, read_model
from distill3d.data.rows import ManifestRow
from distill3d.data.table import Manifest
from distill3d.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneModel:
    """A reconstruction, and which of its images each frame of a scene is."""

    model: ColmapModel
    images: Mapping[int, ColmapImage]
    """By the frame's number; frames that were not registered are absent."""


class ColmapProject:
    """The models at or below a folder.

    Raises:
        DataError: there is none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._parts = find_models(self.folder)
        if not self._parts:
            raise DataError(f"{folder} holds no COLMAP model: expected cameras and images, both .bin or both .txt.")

    def digest(self) -> str:
        """SHA-256 of all models."""
        digest = hashlib.sha256()
        for part in self._parts:
            for path in sorted(part.glob("*.bin")) or sorted(part.glob("*.txt")):
                digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def find(self, manifest: Manifest, scene: str) -> SceneModel:
        """The model that knows most frames of a scene; of equals the one whose folder says that it is of the scene.

        Raises:
            DataError: no model knows any of them, or it has no points.
        """
        rows = {frame: manifest.row(scene, frame) for frame in manifest.frames(scene)}
        ranked = []
        for part, model in self._cameras.items():
            inside = part.relative_to(self.folder).parts
            shared = max((_shared(inside, row.image.path) for row in rows.values()), default=0)
            ranked.append((len(match_images(model, rows)), shared, scene.endswith(f"/{part.name}"), part))
        count, _, _, part = max(ranked, key=lambda entry: entry[:3])
        if not count:
            example = next(iter(rows.values())).image.path
            raise DataError(f"no COLMAP model in {self.folder} names a photo of scene {scene}, such as {example}")
        logger.info("scene %s: %d of %d frames are in %s", scene, count, len(rows), part)
        model = read_model(part)
        if not len(model.points.ids):
            raise DataError(f"{part} has no points3D file, or an empty one: cameras alone are no labels")
        return SceneModel(model, match_images(model, rows))

    @cached_property
    def _cameras(self) -> dict[Path, ColmapModel]:
        """The models without their points."""
        return {part: read_model(part, points=False) for part in self._parts}


def match_images(model: ColmapModel, rows: Mapping[int, ManifestRow]) -> dict[int, ColmapImage]:
    """Images by frame: those whose name is the end of the frame's path, and whose shape is the frame's."""
    by_name: dict[str, list[ColmapImage]] = {}
    for image in model.images:
        by_name.setdefault(Path(image.name).name, []).append(image)
    found = {}
    for frame, row in rows.items():
        for image in by_name.get(Path(row.image.path).name, []):
            camera = model.cameras[image.camera_id]
            stretch = camera.width * row.height / (camera.height * row.width)
            if f"/{row.image.path}".endswith(f"/{image.name}") and 0.99 < stretch < 1.01:
                found[frame] = image
    return found


def _shared(folder: Sequence[str], path: str) -> int:
    """How many folders two paths have in common at their beginning."""
    same = [first == second for first, second in zip(folder, path.split("/"), strict=False)]
    return same.index(False) if False in same else len(same)

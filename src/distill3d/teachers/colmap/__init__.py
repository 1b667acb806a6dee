"""Structure from motion as a teacher: cameras of every view, and the depth of a few thousand points that were matched.

It supervises sparsely and says so: `valid` is True only at pixels where a point was observed. Labels are as good as the
matches; they need no network and no GPU, and say nothing of walls without texture. The models come from a COLMAP
project (`project`), or are made from the bare photos with pycolmap (`sfm`). COLMAP's dense matching needs CUDA and is
not run here; where a project brings dense depth maps, the manifest lists them and the ground-truth teacher takes them.
"""

import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.colmap_model import ColmapImage, ColmapModel, read_model
from distill3d.data.fit import ImageFit
from distill3d.data.placement import Placement, find_placement
from distill3d.data.sampling import ViewGroup
from distill3d.data.table import Manifest
from distill3d.errors import ConfigError, DataError
from distill3d.geometry.cameras import resize_intrinsics
from distill3d.geometry.poses import invert_pose, transform_points
from distill3d.teachers import TeacherSpec
from distill3d.teachers.colmap import sfm
from distill3d.teachers.colmap.project import ColmapProject, SceneModel
from distill3d.types import Prediction, Views

KEPT_MODELS = 8
"""Scenes whose model stays in memory."""


class Colmap:
    """Labels from COLMAP models; a `SceneTeacher`.

    The unit of length is the model's, the same for all groups of a scene. Where a lens is distorted, the points are
    still right at the pixels where they were observed; `intrinsics` are the lens without its distortion.
    """

    name = "colmap"
    licence = "that of the photos"

    def __init__(
        self,
        *,
        project: str | Path | None = None,
        work: str | Path | None = None,
        seed: int = 0,
        long_side: int = 1600,
        min_track: int = 3,
        max_error_px: float = 2.0,
    ) -> None:
        """Where models come from, and which points count.

        Args:
            project: folder with COLMAP models of the photos; `None` makes models from the photos.
            work: where models that are made are kept, one a scene; `None` makes them anew for each run.
            seed: of structure from motion.
            long_side: pixels of the longer side of photos that are matched; smaller ones stay as they are.
            min_track: views that must have observed a point.
            max_error_px: greatest mean reprojection error of a point, in pixels of the photos that were matched.

        Raises:
            DataError: the project holds no model.
            ConfigError: pycolmap is needed and not installed, or both folders are given.
        """
        if project is not None and work is not None:
            raise ConfigError("a COLMAP project is read, the work folder is written: give one of them, not both")
        self._project = None if project is None else ColmapProject(project)
        self._sfm = None if project is not None else sfm.SfmSettings(long_side=long_side, seed=seed)
        self._work = None if work is None else Path(work)
        self._min_track, self._max_error_px = min_track, max_error_px
        self._kept: OrderedDict[str, SceneModel | DataError] = OrderedDict()
        self.weights_hash = None if self._project is None else self._project.digest()
        if self._sfm is not None:
            sfm.import_pycolmap()

    def settings(self) -> dict[str, Any]:
        """Everything that decides the labels, besides the project."""
        made = {"source": "project"} if self._sfm is None else {"source": "photos", **self._sfm.plain()}
        return {**made, "min_track": self._min_track, "max_error_px": self._max_error_px}

    def predict(self, views: Views) -> Prediction:
        """Not from the views alone.

        Raises:
            DataError: always; a scene is more than one group of views.
        """
        raise DataError("the colmap teacher needs the whole scene; call predict_group with the manifest")

    def predict_group(self, views: Views, manifest: Manifest, group: ViewGroup, fit: ImageFit) -> Prediction:
        """Both pointmaps, poses, intrinsics; `valid` and a confidence above 1 where points were observed.

        The confidence is 1 + track length / (1 + reprojection error in pixels): a ranking, not a calibrated error.

        Raises:
            DataError: the scene has no model, or a view is not part of it or observes nothing of it.
        """
        scene = self._scene(manifest, group.scene)
        if missing := [frame for frame in group.frames if frame not in scene.images]:
            raise DataError(
                f"frames {missing} are not in the COLMAP model of scene {group.scene}, which has {len(scene.images)} "
                f"of its {len(manifest.frames(group.scene))} frames"
            )
        rows = [manifest.row(group.scene, frame) for frame in group.frames]
        height, width = views.images.shape[-2:]
        places = [find_placement((row.height, row.width), fit, (height, width)) for row in rows]
        images = [scene.images[frame] for frame in group.frames]
        poses = torch.from_numpy(np.stack([image.world_from_camera for image in images]))
        world_from_camera = invert_pose(poses[:1]) @ poses
        parts = [
            splat(scene.model, image, place, min_track=self._min_track, max_error_px=self._max_error_px)
            for image, place in zip(images, places, strict=True)
        ]
        local = torch.stack([part[0] for part in parts])
        confidence = torch.stack([part[1] for part in parts])[None]
        valid = confidence > 1
        if views.valid is not None:
            valid &= views.valid
        if empty := [frame for frame, seen in zip(group.frames, valid[0], strict=True) if not seen.any()]:
            raise DataError(f"frames {empty} of scene {group.scene} show no point that is good enough")
        intrinsics = [_intrinsics(scene.model, image, place) for image, place in zip(images, places, strict=True)]
        return Prediction(
            pointmap_world=transform_points(world_from_camera, local)[None].float(),
            pointmap_camera=local[None].float(),
            confidence_world=confidence,
            confidence_camera=confidence,
            world_from_camera=world_from_camera[None].float(),
            intrinsics=torch.stack(intrinsics)[None].float(),
            valid=valid,
        )

    def _scene(self, manifest: Manifest, scene: str) -> SceneModel:
        """The model of a scene, found or made once; a scene that has none is not tried again for every group."""
        if scene not in self._kept:
            try:
                made = self._make(manifest, scene) if self._project is None else self._project.find(manifest, scene)
            except DataError as error:
                self._kept[scene] = error
            else:
                self._kept[scene] = made
        self._kept.move_to_end(scene)
        while len(self._kept) > KEPT_MODELS:
            self._kept.popitem(last=False)
        found = self._kept[scene]
        if isinstance(found, DataError):
            raise DataError(str(found))
        return found

    def _make(self, manifest: Manifest, scene: str) -> SceneModel:
        assert self._sfm is not None
        with tempfile.TemporaryDirectory() as scratch:
            folder = sfm.model_folder(self._work or Path(scratch), scene)
            sfm.reconstruct_scene(manifest, scene, folder, self._sfm)
            model = read_model(folder)
        return SceneModel(model, {sfm.frame_of(image.name): image for image in model.images})


def splat(
    model: ColmapModel, image: ColmapImage, place: Placement, *, min_track: int, max_error_px: float
) -> tuple[Float[Tensor, "height width 3"], Float[Tensor, "height width"]]:
    """Points in the camera of an image (float64) at the pixels where they were observed, and confidences.

    Elsewhere the confidence is 1 and the point the camera. Of several points in a pixel the nearest stays.
    """
    row = np.searchsorted(model.points.ids, image.point_ids)
    known = np.flatnonzero((image.point_ids >= 0) & (row < len(model.points.ids)))
    known = known[model.points.ids[row[known]] == image.point_ids[known]]
    lengths, errors = model.points.track_lengths[row[known]], model.points.error[row[known]]
    known = known[(lengths >= min_track) & (errors <= max_error_px)]
    camera_from_world = invert_pose(torch.from_numpy(image.world_from_camera))
    local = transform_points(camera_from_world, torch.from_numpy(model.points.xyz[row[known]])[None])[0]
    camera = model.cameras[image.camera_id]
    # From the model's pictures to the canvas, which may both be resized photos; pixel centres are integers on each.
    scale = np.array([place.resized[1] / camera.width, place.resized[0] / camera.height])
    pixels = np.rint((image.pixels[known] + 0.5) * scale - 0.5 + np.array(place.offset[::-1])).astype(np.int64)
    column, line = torch.from_numpy(pixels).unbind(dim=1)
    height, width = place.canvas
    inside = (column >= 0) & (column < width) & (line >= 0) & (line < height) & (local[:, 2] > 0)
    confidence = 1 + torch.from_numpy(model.points.track_lengths / (1 + model.points.error))[row[known]]
    # The first of each pixel after sorting by depth: an assignment with repeated indices would keep any of them.
    order = torch.argsort(local[inside, 2], stable=True)
    flat, local, confidence = ((line * width + column)[inside][order], local[inside][order], confidence[inside][order])
    _, first = np.unique(flat.numpy(), return_index=True)
    points, sure = torch.zeros(height * width, 3, dtype=torch.float64), torch.ones(height * width)
    points[flat[first]], sure[flat[first]] = local[first], confidence[first].float()
    return points.reshape(height, width, 3), sure.reshape(height, width)


def _intrinsics(model: ColmapModel, image: ColmapImage, place: Placement) -> torch.Tensor:
    camera = model.cameras[image.camera_id]
    matrix = torch.tensor(camera.intrinsics, dtype=torch.float64)
    return place.to_canvas(resize_intrinsics(matrix, (camera.height, camera.width), place.source))


TEACHER = TeacherSpec(
    build=Colmap,
    description="structure from motion: exact cameras and sparse depth, from a COLMAP project or from bare photos",
)

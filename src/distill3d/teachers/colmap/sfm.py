"""Structure from motion of bare photos through pycolmap, on the CPU: one COLMAP model a scene.

The same photos give the same model, bit for bit, with the same version of pycolmap: what is drawn is drawn from a seed,
and the mapping runs in one thread. Needs the extra: pip install 'distill3d[colmap]'.
"""

import importlib
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from distill3d.data.fit import long_side_size
from distill3d.data.frames import read_picture
from distill3d.data.rows import ManifestRow
from distill3d.data.table import Manifest
from distill3d.data.video import VideoPool
from distill3d.errors import ConfigError, DataError
from distill3d.files import output_errors
from distill3d.progress import track

logger = logging.getLogger(__name__)
ALL_PAIRS_UP_TO = 100
"""Photos of a scene of which every two are compared; in longer sequences each is compared with its neighbours."""
NEIGHBOURS = 15
LEAST_IMAGES = 3
"""A model of fewer is none: two views fix no scale that a third one could check."""


@dataclass(frozen=True, kw_only=True)
class SfmSettings:
    """What decides a model besides the photos."""

    long_side: int = 1600
    """Pixels of the longer side of photos that are matched; smaller ones are not enlarged."""
    seed: int = 0

    def plain(self) -> dict[str, Any]:
        """With the version of pycolmap, as JSON values."""
        return {**asdict(self), "pycolmap": import_pycolmap().__version__}


def import_pycolmap() -> Any:
    """The package, told to be quiet.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        pycolmap: Any = importlib.import_module("pycolmap")
    except ImportError:
        raise ConfigError(
            "Structure from motion needs the package pycolmap: pip install 'distill3d[colmap]'. "
            "Or give a COLMAP project that was made elsewhere (--project)."
        ) from None
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    return pycolmap


def model_folder(work: Path, scene: str) -> Path:
    """Where the model of a scene is kept."""
    return work / scene / "sparse" / "0"


def frame_name(frame: int) -> str:
    """What an image of a model that was made here is called."""
    return f"{frame:06d}.png"


def frame_of(name: str) -> int:
    """The inverse of `frame_name`."""
    return int(name.removesuffix(".png"))


def reconstruct_scene(manifest: Manifest, scene: str, out: Path, settings: SfmSettings) -> None:
    """Make the model of a scene from all of its photos that can be read, unless `out` holds it already.

    Raises:
        DataError: the photos do not overlap enough, or too few can be read.
        OutputError: `out` cannot be written to.
    """
    if (out / "cameras.bin").exists():
        return
    pycolmap = import_pycolmap()
    rows = [manifest.row(scene, frame) for frame in manifest.frames(scene)]
    with output_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".making-") as scratch:
            folder = Path(scratch)
            (folder / "images").mkdir()
            written = _write_pictures(manifest, rows, folder / "images", settings.long_side)
            begun = time.monotonic()
            logger.info("structure from motion of scene %s, %d photos", scene, len(written))
            model = _reconstruct(pycolmap, folder, written, settings.seed) if len(written) >= LEAST_IMAGES else None
            if model is None:
                raise DataError(
                    f"structure from motion found no model of scene {scene}: its {len(written)} readable photos "
                    "overlap too little, or are too few or too blurred. Give photos that overlap by two thirds."
                )
            seconds, count = time.monotonic() - begun, model.num_reg_images()
            logger.info("scene %s: %d of %d photos registered in %.0f s", scene, count, len(written), seconds)
            (folder / "model").mkdir()
            model.write_binary(folder / "model")
            if not (out / "cameras.bin").exists():  # another worker may have been quicker, with the same bytes
                os.replace(folder / "model", out)  # noqa: PTH105 (replaces an empty folder as well)


def _write_pictures(manifest: Manifest, rows: Sequence[ManifestRow], folder: Path, long_side: int) -> list[ManifestRow]:
    written = []
    with VideoPool() as videos:
        for row in track(rows, "reading photos", unit="photos"):
            size = long_side_size((row.height, row.width), min(long_side, max(row.height, row.width)))
            try:
                pixels = read_picture(row, manifest.root, size, videos)
            except DataError as error:
                logger.info("left out of structure from motion: %s", error)
                continue
            Image.fromarray(pixels).save(folder / frame_name(row.frame), compress_level=1)
            written.append(row)
    return written


def _reconstruct(pycolmap: Any, folder: Path, rows: Sequence[ManifestRow], seed: int) -> Any:
    """The largest model of the images in `folder`, or `None`."""
    database, images = folder / "database.db", folder / "images"
    cpu = pycolmap.Device.cpu
    pycolmap.set_random_seed(seed)
    alike = len({(row.height, row.width) for row in rows}) == 1
    mode = pycolmap.CameraMode.SINGLE if alike else pycolmap.CameraMode.PER_IMAGE
    pycolmap.extract_features(database, images, camera_mode=mode, device=cpu)
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    if len(rows) <= ALL_PAIRS_UP_TO or not all(row.ordered for row in rows):
        pycolmap.match_exhaustive(database, verification_options=verification, device=cpu)
    else:
        pairing = pycolmap.SequentialPairingOptions()
        pairing.overlap = NEIGHBOURS
        pycolmap.match_sequential(database, pairing_options=pairing, verification_options=verification, device=cpu)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = 1, seed
    options.min_model_size = LEAST_IMAGES
    models = pycolmap.incremental_mapping(database, images, folder / "models", options=options).values()
    # What COLMAP keeps as the first model may be smaller than `min_model_size` all the same.
    large = [model for model in models if model.num_reg_images() >= LEAST_IMAGES]
    return max(large, key=lambda model: (model.num_reg_images(), model.num_points3D()), default=None)

"""First step of the evaluation: what a method says about held-out groups, one file per group on disk."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from distill3d.data.fit import ImageFit
from distill3d.data.groups import load_group
from distill3d.data.manifest import Manifest
from distill3d.data.sampling import ViewGroup
from distill3d.errors import ConfigError, DataError
from distill3d.files import atomic_write_bytes, read_json, write_json
from distill3d.progress import ProgressBar
from distill3d.types import Prediction, Views

logger = logging.getLogger(__name__)

FORMAT = 1
"""Number of the folder's format."""
SETTINGS = "settings.json"
STORED = (
    "pointmap_world", "pointmap_camera", "depth", "confidence_world", "confidence_camera", "confidence_depth",
    "world_from_camera", "intrinsics", "valid", "metric_scale",
)  # fmt: skip
"""Fields of a prediction that are kept; normals and descriptors are not scored here."""

_NAMED = 6
"""At most so many differing settings are spelt out."""
Predictor = Callable[[Views], Prediction]
"""Anything that looks at views (batch of 1) and gives a prediction: a model, a teacher, a baseline."""


@dataclass(frozen=True, kw_only=True)
class PredictSummary:
    """What a prediction pass did."""

    folder: Path
    written: int
    present: int
    """Groups that an earlier run had done."""
    skipped: tuple[tuple[str, str], ...]
    """(group key, reason) of groups that could not be read."""


def group_settings(fit: ImageFit, canvas: tuple[int, int] | None) -> dict[str, Any]:
    """Describe what decides the pixels that a method sees; predictions for other pixels cannot be scored together."""
    return {"fit": dataclasses.asdict(fit), "canvas": list(canvas) if canvas is not None else None}


def predict_heldout(
    predict: Predictor,
    manifest: Manifest,
    groups: Sequence[ViewGroup],
    fit: ImageFit,
    folder: str | Path,
    *,
    canvas: tuple[int, int] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> PredictSummary:
    """Write one method's predictions for all groups to `folder`; run it again and it goes on where it stopped.

    The photos are given to `predict` without depth, intrinsics and poses, so nothing can leak. A group whose photos
    cannot be read is skipped, counted and listed.

    Args:
        predict: called with batches of 1; see `Predictor`. A teacher that needs the truth (ground truth itself) is not
            an ordinary method: see `predict_with_truth`.
        canvas: (height, width) shared by all groups; None finds it for each group.
        settings: whatever decides the result (weights hash, model name, options), ready for JSON.

    Raises:
        ConfigError: the folder holds predictions made with other settings.
        OutputError: the folder takes no files.
    """

    def blind(views: Views) -> Prediction:
        return predict(Views(images=views.images, valid=views.valid))

    return predict_with_truth(blind, manifest, groups, fit, folder, canvas=canvas, settings=settings)


def predict_with_truth(
    predict: Predictor,
    manifest: Manifest,
    groups: Sequence[ViewGroup],
    fit: ImageFit,
    folder: str | Path,
    *,
    canvas: tuple[int, int] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> PredictSummary:
    """Do as `predict_heldout`, but let the method see depth and cameras: for teachers that are made from the truth."""
    folder = Path(folder)
    claim_folder(folder, {"format": FORMAT, **group_settings(fit, canvas), "method": dict(settings or {})})
    written, present, skipped = 0, 0, []
    with ProgressBar(f"predicting {folder.name}", total=len(groups), unit="groups") as bar:
        for group in groups:
            path = prediction_path(folder, group)
            if path.exists():
                present += 1
            else:
                try:
                    views = load_group(manifest, group, fit, canvas=canvas)
                except DataError as error:
                    logger.warning("group %s is skipped: %s", group.key, error)
                    skipped.append((group.key, str(error)))
                    bar.advance()
                    continue
                save_prediction(path, predict(views))
                written += 1
            bar.advance()
    return PredictSummary(folder=folder, written=written, present=present, skipped=tuple(skipped))


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a new folder, or make sure that those already there are the same.

    Raises:
        ConfigError: they differ; the message names where.
    """
    wanted = json.loads(json.dumps(settings))
    path = folder / SETTINGS
    if not path.exists():
        write_json(path, wanted)
        return
    refuse_other_settings(folder, wanted, read_settings(folder))


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of a folder of predictions.

    Raises:
        ConfigError: there are none, or of an unknown format.
    """
    try:
        found = read_json(folder / SETTINGS)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no predictions ({error}); run the prediction step first") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        number = found.get("format") if isinstance(found, dict) else None
        raise ConfigError(f"{folder} has predictions of format {number}, this version reads {FORMAT}; predict again")
    return found


def refuse_other_settings(folder: Path, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Compare settings entry by entry.

    Raises:
        ConfigError: at least one differs.
    """
    ours, theirs = _flat(wanted), _flat(found)
    differing = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    if differing:
        shown = "; ".join(f"{name}: {theirs.get(name)} there, {ours.get(name)} now" for name in differing[:_NAMED])
        shown += f"; and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        raise ConfigError(
            f"{folder} holds predictions made with other settings ({shown}). "
            "Choose another folder, or delete this one to predict again."
        )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Entries of nested settings under dotted names; numbers and lists as JSON has them."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {prefix + name: value}
        found.update(nested)
    return found


def prediction_path(folder: Path, group: ViewGroup) -> Path:
    """Give the file of a group."""
    return folder / f"{group.key}.safetensors"


def save_prediction(path: Path, prediction: Prediction) -> None:
    """Write a prediction in one step, as float32."""
    tensors = {name: getattr(prediction, name) for name in STORED}
    # Copies: teachers give one tensor under two names, which safetensors refuses.
    plain = {
        name: value.detach()
        .to("cpu", torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        .contiguous()
        for name, value in tensors.items()
        if value is not None
    }
    atomic_write_bytes(path, save(plain))


def load_prediction(path: Path) -> Prediction:
    """Read what `save_prediction` wrote.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return Prediction(**load_file(path))
    except (SafetensorError, OSError, TypeError) as error:
        raise DataError(f"{path} is not a prediction of ours ({error}); delete it and predict again") from error

"""What people want: photos in, one coherent reconstruction out."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distill3d.devices import Precision, autocast
from distill3d.errors import ConfigError, DataError, GeometryError
from distill3d.geometry.monocular import solve_affine
from distill3d.infer.cameras import PointSource, PoseMethod, complete_with_info
from distill3d.infer.pairs import PairGraph
from distill3d.infer.pairwise import predict_views
from distill3d.infer.stream import predict_stream
from distill3d.infer.windows import Window, join_windows, plan_windows
from distill3d.models._pair import PairModel
from distill3d.models.cut3r import CUT3R
from distill3d.nn.chunks import HEAD_MEMORY, max_views_per_chunk
from distill3d.progress import ProgressBar
from distill3d.types import Prediction, Reconstruction, Views, map_tensors

logger = logging.getLogger(__name__)

MOST_COMPLETE_VIEWS = 10
"""A pair network compares all views with all up to this many, and only neighbours in the given order beyond."""


def reconstruct(
    model: nn.Module,
    views: Views,
    *,
    names: Sequence[str] | None = None,
    confidence_percentile: float = 20.0,
    head_chunk: int | None = None,
    head_memory: int = HEAD_MEMORY,
    precision: Precision = "auto",
    max_views: int | None = 64,
    num_anchors: int | None = None,
    pose_method: PoseMethod = "auto",
    points: PointSource = "world",
    seed: int = 0,
) -> Reconstruction:
    """Reconstruct one place from any number of views, in the camera frame of view 0.

    The model is called in eval mode on its own device; the result is float32, on the device of `views`.

    Args:
        model: called as `model(images, head_chunk=...)`, gives a `Prediction`. One that sees pairs (DUSt3R, MASt3R) is
            asked about many pairs, which are then brought into one world: see `infer.pairwise`.
        views: batch of 1; pixels that are not `valid` (padding) never count. One view is allowed.
        names: one per view, for files and reports.
        confidence_percentile: this share of all usable pixels, the least certain, is not kept; 0 keeps all. (A
            threshold on the value would mean something else for every model.)
        head_chunk: views per pass of the heads; None for as many as stay within `head_memory`. It changes no value.
        head_memory: bytes that a pass of the heads may take.
        precision: what the layers compute in; points and poses are float32 in each.
        max_views: more views than this go through the model in windows that share anchor views; so do views that do
            not fit into the device's memory. None never splits unless the memory demands it. A model that streams
            (CUT3R) takes its views one by one and needs no windows.
        num_anchors: views that all windows share; see `plan_windows`.
        pose_method: see `PoseMethod`.
        points: see `PointSource`.
        seed: for PnP.

    Raises:
        DataError: no view, a batch, or names that do not fit.
        ConfigError: settings out of range.
        GeometryError: the model's output does not determine a reconstruction.
    """
    batch, count = views.images.shape[:2]
    if batch != 1:
        raise DataError(f"reconstruct takes the views of one place (a batch of 1), found a batch of {batch}")
    if count < 1:
        raise DataError("there is no view to reconstruct from; give at least one photo, better two or more")
    labels = tuple(names) if names is not None else tuple(f"view-{view:03d}" for view in range(count))
    if len(labels) != count:
        raise DataError(f"there are {count} views but {len(labels)} names; give one name per view")
    if not 0 <= confidence_percentile < 100:
        raise ConfigError(f"confidence_percentile is {confidence_percentile}; it must be at least 0 and below 100")
    if count == 1:
        logger.warning("only one view: the result is a single relief, not a reconstruction from several sides")

    start = time.perf_counter()
    chunk = head_chunk or max_views_per_chunk(model, (views.images.shape[-2], views.images.shape[-1]), head_memory)
    with _evaluating(model), autocast(precision, _device_of(model, views.images)):
        windows, prediction, scales = _predict_all(model, views, max_views, num_anchors, chunk)
    predicted = time.perf_counter()
    if getattr(model, "affine", False):
        prediction = solve_affine(prediction)
    completed = complete_with_info(prediction, views, pose_method=pose_method, points=points, seed=seed)
    keep, level = keep_mask(completed.prediction, views, confidence_percentile)
    if not bool(keep.any()):
        raise GeometryError(
            f"not one of {keep.numel()} pixels is usable: all are padding, masked or not finite. "
            "Check that the weights fit the model and that the photos show something."
        )
    info: dict[str, Any] = {
        "model": type(model).__name__,
        "num_views": count,
        "size": list(views.images.shape[-2:]),
        **completed.info,
        "confidence_percentile": confidence_percentile,
        "confidence_threshold": level,
        "kept_share": round(float(keep.float().mean()), 6),
        "windows": [list(window.views) for window in windows],
        "window_scales": scales,
        "head_chunk": chunk,
        "precision": precision,
        "seconds_model": round(predicted - start, 3),
        "seconds_cameras": round(time.perf_counter() - predicted, 3),
    }
    return Reconstruction(views=views, prediction=completed.prediction, keep=keep, names=labels, info=info)


def predict(
    model: nn.Module,
    views: Views,
    *,
    head_chunk: int | None = None,
    head_memory: int = HEAD_MEMORY,
    precision: Precision = "fp32",
) -> Prediction:
    """Give what the model itself says about views of any batch: eval mode, nothing estimated or aligned.

    This is what evaluation stores; `reconstruct` is what people want. Arguments as there; maps come back in float32.
    """
    chunk = head_chunk or max_views_per_chunk(model, (views.images.shape[-2], views.images.shape[-1]), head_memory)
    with _evaluating(model), autocast(precision, _device_of(model, views.images)):
        return _predict(model, views.images, chunk)


def keep_mask(
    prediction: Prediction, views: Views, confidence_percentile: float
) -> tuple[Bool[Tensor, "1 views height width"], float | None]:
    """Choose the points to show: photo, finite, in front of the camera, and at or above the confidence percentile.

    The percentile is taken over the usable pixels of all views together, so a bad view may go as a whole.

    Returns:
        The mask, and the confidence at the threshold (None if the model gave none).
    """
    assert prediction.pointmap_world is not None
    assert prediction.depth is not None
    usable = torch.isfinite(prediction.pointmap_world).all(dim=-1) & (prediction.depth > 0)
    for mask in (views.valid, prediction.valid):
        if mask is not None:
            usable = usable & mask.to(usable.device)
    confidence = prediction.confidence_world
    if confidence is None or confidence_percentile <= 0:
        return usable, None
    usable = usable & torch.isfinite(confidence)
    if not bool(usable.any()):
        return usable, None
    level = _percentile(confidence[usable], confidence_percentile)
    return usable & (confidence >= level), level


def _percentile(values: Float[Tensor, " points"], percentile: float) -> float:
    """The smallest value with at least `percentile` % of the values below it (torch.quantile refuses long inputs)."""
    rank = min(int(len(values) * percentile / 100), len(values) - 1)
    return float(values.sort().values[rank])


def _predict_all(
    model: nn.Module, views: Views, max_views: int | None, num_anchors: int | None, head_chunk: int | None
) -> tuple[list[Window], Prediction, list[float]]:
    """Run the model over all views, in smaller and smaller windows while the device's memory does not hold them."""
    count = views.images.shape[1]
    if isinstance(model, PairModel) and count > 1:
        # Windows of neighbours where comparing all with all would take minutes and gigabytes.
        graph: PairGraph = "complete" if count <= MOST_COMPLETE_VIEWS else "window"
        return [], predict_views(model, views, graph=graph, head_chunk=head_chunk), []
    if isinstance(model, CUT3R):
        return [], predict_stream(model, views.images)[0], []
    usable = views.valid if views.valid is not None else torch.ones_like(views.images[:, :, 0], dtype=torch.bool)
    limit = min(count, max_views or count)
    while True:
        windows = plan_windows(count, limit, num_anchors)
        try:
            with ProgressBar("reconstructing", total=len(windows), unit="windows") as bar:
                predictions = []
                for window in windows:
                    predictions.append(_predict(model, views.images[:, list(window.views)], head_chunk))
                    bar.advance()
            break
        except torch.OutOfMemoryError:
            if limit <= 4:
                raise
            limit = max(4, limit // 2)
            logger.warning("the device's memory does not hold that many views; windows of %d views now", limit)
    if len(windows) == 1:
        return windows, predictions[0], []
    logger.info("%d views in %d windows that share %d", count, len(windows), len(windows[0].anchors))
    prediction, fits = join_windows(windows, predictions, usable)
    return windows, prediction, [round(float(fit.scale[0]), 6) for fit in fits]


def _predict(
    model: nn.Module, images: Float[Tensor, "batch views 3 height width"], head_chunk: int | None
) -> Prediction:
    """One call of the model; what comes back are ordinary float32 tensors on the device of the images."""
    device = _device_of(model, images)
    with torch.inference_mode():
        prediction: Prediction = model(images.to(device, torch.float32), head_chunk=head_chunk)

    # Copied outside of inference mode: its tensors would refuse to take part in anything that needs gradients.
    def plain(value: Tensor) -> Tensor:
        return value.to(images.device, torch.float32 if value.is_floating_point() else value.dtype, copy=True)

    # Descriptors are large, and nothing downstream reads them.
    return map_tensors(dataclasses.replace(prediction, descriptors=None, confidence_descriptors=None), plain)


def _device_of(model: nn.Module, images: Tensor) -> torch.device:
    return next(iter([*model.parameters(), *model.buffers()]), images).device


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, and back to whatever it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)

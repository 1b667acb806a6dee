"""What refining has to know of each network: its image encoder, and which of its maps answer for depth and points."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from distill3d.errors import ConfigError
from distill3d.train.rebase import rebase
from distill3d.types import Prediction

DepthSource = Literal["depth", "camera", "first"]
"""The depth head; z of each view's own pointmap; or z of the world map, which is a view's own for view 0 alone."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A network that can be refined. All of it stays frozen and in eval mode; only adapters in its encoder learn."""

    encoder: str = "encoder"
    """The module that sees each image alone: blocks in `blocks`, and a last norm in `norm`."""
    depth: DepthSource = "camera"
    """Where the depth of a single view is."""
    likelihood: bool = True
    """Whether its confidence was trained as beta in beta |e|^2 - lambda log beta, so that it may go on so."""
    world: Literal["view0", "free"] = "view0"
    """Whose frame the world map is in."""
    max_views: int | None = None
    """Most views of a replayed sample."""


BASES: dict[str, Base] = {
    # A single image is paired with itself by these two.
    "dust3r": Base(depth="first", max_views=2),
    "mast3r": Base(depth="first", max_views=2),
    "cut3r": Base(),
    "fast3r": Base(),
    "vggt": Base(depth="depth"),
    # Its confidence is a probability that was trained on its own.
    "pi3": Base(likelihood=False, world="free"),
    "distill3r": Base(),
}
"""By the name in the registry of models. DUSt3R, MASt3R, CUT3R and VGGT as in the paper; the others are ours."""


def base_of(name: str) -> Base:
    """What is known of a network.

    Raises:
        ConfigError: nothing: it cannot be refined.
    """
    if name not in BASES:
        raise ConfigError(f"{name!r} cannot be refined; choose one of: {', '.join(BASES)}.")
    return BASES[name]


def encoder_of(model: nn.Module, base: Base) -> nn.Module:
    """The image encoder of a network."""
    return model.get_submodule(base.encoder)


def view_depth(
    prediction: Prediction, base: Base
) -> tuple[Float[Tensor, "batch views height width"], Float[Tensor, "batch views height width"] | None]:
    """The depth of single views and its confidence; of view 0 alone where the network knows only that.

    Raises:
        ConfigError: the prediction lacks it.
    """
    if base.depth == "depth":
        depth, confidence = prediction.depth, prediction.confidence_depth
    else:
        frame = "camera" if base.depth == "camera" else "world"
        points = getattr(prediction, f"pointmap_{frame}")
        depth, confidence = None if points is None else points[..., 2], getattr(prediction, f"confidence_{frame}")
    if depth is None:
        raise ConfigError(f"The network gives no {base.depth} map to take the depth of a view from.")
    if base.depth == "first":
        depth, confidence = depth[:, :1], None if confidence is None else confidence[:, :1]
    return depth, confidence


def world_points(prediction: Prediction, base: Base) -> Float[Tensor, "batch views height width 3"]:
    """World points in the frame of view 0.

    Raises:
        ConfigError: the prediction lacks them.
    """
    if base.world == "free" and prediction.world_from_camera is not None:
        poses = prediction.world_from_camera
        prediction = rebase(prediction, poses, poses[:, 0])
    if prediction.pointmap_world is None:
        raise ConfigError("The network gives no world points to replay.")
    return prediction.pointmap_world

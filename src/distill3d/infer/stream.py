"""Views one after the other through a network that remembers them (CUT3R): no windows, and no end to the sequence."""

from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.errors import CheckpointError
from distill3d.files import PathLike, atomic_write_bytes
from distill3d.models.cut3r import CUT3R, CUT3RState
from distill3d.progress import track
from distill3d.types import Prediction, collate_views, map_tensors


def predict_stream(
    model: CUT3R, images: Float[Tensor, "batch views 3 height width"], state: CUT3RState | None = None
) -> tuple[Prediction, CUT3RState]:
    """Show views to the network one by one; the network's memory does not grow with their number.

    Args:
        model: called in the mode that it is in, on its own device.
        images: RGB in [0, 1].
        state: where an earlier sequence ended, to go on from there; None to start. The world is the camera of the
            very first view, also after a stop.

    Returns:
        Maps and poses in float32 on the device of `images`, and the state after the last view.
    """
    device = next(model.parameters()).device
    found = []
    with torch.no_grad():
        for image in track(images.unbind(dim=1), "streaming views", unit="views"):
            output, state = model.step(image.to(device, torch.float32), state)
            found.append(map_tensors(output.prediction, lambda value: value.to(images.device)))
    assert state is not None
    return collate_views(found), state


def save_state(path: PathLike, state: CUT3RState) -> None:
    """Write what the network remembers, so that another process can go on with the sequence.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {"tokens": state.tokens, "memory": state.memory, "started": torch.tensor(state.started)}
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_write_bytes(path, safetensors.torch.save(held))


def load_state(path: PathLike, model: CUT3R) -> CUT3RState:
    """Read what `save_state` wrote, onto the device of the network that is to go on.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it is the state of a network of another size.
    """
    path = Path(path)
    try:
        tensors = safetensors.torch.load(path.read_bytes())
        tokens, memory, started = (tensors[name] for name in ("tokens", "memory", "started"))
    except (OSError, safetensors.SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"{path} holds no state of a sequence ({error}); expected a file of `save_state`. Start the sequence again."
        ) from error
    fresh = model.start(1)
    found, expected = (tokens.shape[1:], memory.shape[1:]), (fresh.tokens.shape[1:], fresh.memory.shape[1:])
    if found != expected:
        raise CheckpointError(
            f"{path} is the state of another network: it holds {[list(shape) for shape in found]}, this one has "
            f"{[list(shape) for shape in expected]}. Use the weights that the sequence was begun with."
        )
    device = fresh.tokens.device
    return CUT3RState(tokens=tokens.to(device), memory=memory.to(device), started=bool(started))

"""Fill a model with weights that depend only on each entry's name and shape.

Two implementations of one architecture that use the same state-dict names get
identical weights from `fill_`, so their outputs can be compared without any
trained checkpoint.
"""

import math
import zlib

import numpy as np
import torch

EMBEDDING_WORDS = ("token", "pos_embed", "embedding", "registers")


def seeded_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Return the float32 tensor that belongs to state-dict entry `name` of `shape`."""
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32).reshape(shape))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 1 + 0.1 * noise.abs()
    if leaf in ("bias", "running_mean"):
        return 0.1 * noise
    if len(shape) >= 2 and any(word in name for word in EMBEDDING_WORDS):
        return 0.1 * noise
    if len(shape) >= 2:
        return noise / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * noise


@torch.no_grad()
def fill_(model: torch.nn.Module, seed: int = 0, keep: tuple[str, ...] = ()) -> torch.nn.Module:
    """Overwrite every floating-point entry of `model.state_dict()` in place.

    Entries whose name contains one of `keep` (fixed tables such as rotary or
    sine-cosine embeddings, image mean and standard deviation) stay as the model
    made them.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not any(word in name for word in keep):
            tensor.copy_(seeded_tensor(name, tuple(tensor.shape), seed))
    return model

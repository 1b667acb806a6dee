"""Two processes train an adapted encoder by DDP or FSDP2: `torchrun run_parallel.py ddp|fsdp OUT`."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from distill3d.adapters import RULES, adapter_state
from tests.adapters.helpers import adapted_encoder, some_tokens

STEPS = 3


def trained(rule: str, kind: str, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """The adapters after a few steps on this process's share of the tokens; `kind` "alone" for one process."""
    inner = model = adapted_encoder(rule)
    if kind == "ddp":
        model = DistributedDataParallel(inner)
    elif kind == "fsdp":
        for block in inner.blocks:
            fully_shard(block)
        fully_shard(inner)
    learning = [parameter for parameter in inner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    for _ in range(STEPS):
        model(tokens)[..., :5].square().mean().backward()  # the norm pins the mean over all
        optimizer.step()
        optimizer.zero_grad()
    whole = {}
    for name, tensor in adapter_state(inner).items():
        whole[name] = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
    return whole


if __name__ == "__main__":
    torch.set_num_threads(1)
    kind, out = sys.argv[1:3]
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    tokens = torch.cat([some_tokens(2), some_tokens(3)]).chunk(2)[rank]
    found = {f"{rule}/{name}": tensor for rule in RULES for name, tensor in trained(rule, kind, tokens).items()}
    if rank == 0:
        save_file(found, out)
    dist.barrier()
    dist.destroy_process_group()

"""Small networks with adapters that do something."""

import torch
from torch import nn

from distill3d.adapters import add_lora, lora_layers
from distill3d.nn.block import Block

QKV = r"attn\.qkv"
WEIGHT_RULES = ("frobenius", "per_row", "per_qkv_frobenius", "spectral", "none")


class Encoder(nn.Module):
    """Two blocks and a norm: an encoder without images."""

    def __init__(self, dim: int = 24):
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, 2) for _ in range(2))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens):
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


def make_encoder(seed: int = 0) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Encoder()


def adapted_encoder(rule: str | None, *, size: float = 0.3, targets: str = QKV, **options) -> Encoder:
    """An encoder whose adapters have moved; `size` 0 leaves them at their start."""
    model = make_encoder()
    add_lora(model, targets, 4, 8, rule, **options)
    move(model, size)
    return model


def move(model: nn.Module, size: float) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            layer.lora_B.copy_(size * torch.randn(layer.lora_B.shape, generator=generator))


def some_tokens(seed: int = 2) -> torch.Tensor:
    return torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(seed))

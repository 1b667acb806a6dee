"""How far the features of an adapted encoder have moved from those of its frozen base."""

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from distill3d.adapters.lora import adapters_off


class EncoderWatch:
    """While it is open, listens to the first call of an encoder.

    The features are the tokens after the last block, all of them (class and register tokens too), before and after the
    encoder's last LayerNorm: the norm after it is nearly pinned by that layer, the one before it shows a drift first.
    """

    def __init__(self, encoder: nn.Module) -> None:
        """`encoder`: its blocks are in `blocks`, its last norm is `norm`."""
        self._encoder: Any = encoder
        self._hooks: list[Any] = []
        self._call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._tokens: Tensor | None = None

    def __enter__(self) -> "EncoderWatch":
        self._hooks = [
            self._encoder.register_forward_pre_hook(self._take_call, with_kwargs=True),
            self._encoder.blocks[-1].register_forward_hook(self._take_tokens),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def norms(self) -> dict[str, Tensor]:
        """Mean length of the tokens: "feature_norm" after the last LayerNorm, "feature_norm_pre" before it."""
        assert self._tokens is not None
        return _norms(self._tokens, self._encoder.norm(self._tokens), "")

    @torch.no_grad()
    def against_base(self) -> dict[str, Tensor]:
        """The same for the frozen base on the same images, one more pass of the encoder; and how far both are apart.

        "feature_cosine" is the mean cosine between the tokens (after the norm) of both, 1 where nothing has moved;
        "feature_shift" the mean length of their difference over that of the base.
        """
        assert self._call is not None
        assert self._tokens is not None
        arguments, options = self._call
        with EncoderWatch(self._encoder) as base, adapters_off(self._encoder):
            self._encoder(*arguments, **options)
        assert base._tokens is not None
        ours, theirs = (self._encoder.norm(tokens).float() for tokens in (self._tokens, base._tokens))
        shift = torch.linalg.vector_norm(ours - theirs, dim=-1) / torch.linalg.vector_norm(theirs, dim=-1)
        return {
            **_norms(base._tokens, theirs, "_base"),
            "feature_cosine": torch.cosine_similarity(ours, theirs, dim=-1).mean(),
            "feature_shift": shift.mean(),
        }

    def _take_call(self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self._call is None:
            self._call = arguments, options

    def _take_tokens(self, module: nn.Module, arguments: Any, tokens: Tensor) -> None:
        if self._tokens is None:
            self._tokens = tokens.detach()


def _norms(before: Tensor, after: Tensor, suffix: str) -> dict[str, Tensor]:
    return {
        f"feature_norm{suffix}": torch.linalg.vector_norm(after.float(), dim=-1).mean(),
        f"feature_norm_pre{suffix}": torch.linalg.vector_norm(before.float(), dim=-1).mean(),
    }

"""Prompts encoded at their own length, where the pipeline throws the padding's embeddings away.

Z-Image's pipelines pad every prompt to ``max_sequence_length`` tokens, run the text encoder over all of them, and keep the
rows of the prompt. The encoder is causal, so rows of the prompt do not depend on the padding behind them: only rounding differs.
So float32 is left as diffusers encodes it, to the bit.
Other families feed the padding's rows to the denoiser, and are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Unpadded:
    """A tokenizer that pads a batch to its longest text only; everything else is the wrapped one's."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._tokenizer(*args, **{**kwargs, "padding": "longest"})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@contextmanager
def unpadded(pipeline: Any) -> Iterator[None]:
    """While it lasts, a Z-Image pipeline encodes prompts at their own length."""
    tokenizer = getattr(pipeline, "tokenizer", None)
    right = getattr(tokenizer, "padding_side", None) == "right"  # padding in front would move the positions
    exact = getattr(getattr(pipeline, "text_encoder", None), "dtype", torch.float32) is torch.float32
    if exact or not (type(pipeline).__name__.startswith("ZImage") and right):
        yield
        return
    vars(pipeline)["tokenizer"] = Unpadded(tokenizer)  # past diffusers' registration of components
    try:
        yield
    finally:
        vars(pipeline)["tokenizer"] = tokenizer

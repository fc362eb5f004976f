"""Finite numbers, stage by stage: a NaN or Inf is named where it appears and never becomes a picture.

Knows tensors and the names of stages. A dark picture is finite and passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from starrynight.errors import BrokenNumbers

STAGES = {"prompt": "提示词编码", "latents": "潜变量", "decoder": "解码器", "picture": "画面"}


def finite(value: Any, stage: str, step: int | None = None) -> None:
    """Raise BrokenNumbers, naming the stage and the step (from 0), if any float in ``value`` is NaN or Inf."""
    for tensor in _tensors(value):
        if not torch.isfinite(tensor).all():
            where, wo = ("", "") if step is None else (f" at step {step + 1}", f"第 {step + 1} 步的")
            raise BrokenNumbers(
                f"The numbers broke in the {stage}{where}: NaN or Inf in {str(tensor.dtype)[6:]}, so there is no "
                "picture. Try --precision bfloat16 or float32.",
                f"{wo}{STAGES[stage]}出现 NaN 或 Inf（{str(tensor.dtype)[6:]}），因此没有画面。"
                "请尝试 --precision bfloat16 或 float32。",
            )


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.device.type != "meta":
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def watch_prompt(pipeline: Any, denoiser: torch.nn.Module) -> None:
    """What the text encoders say is looked at, and handed on in the denoiser's format."""
    encode = getattr(pipeline, "encode_prompt", None)
    if encode is None:  # a pipeline without one is still caught at its first step
        return

    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        embeddings = encode(*args, **kwargs)
        finite(embeddings, "prompt")
        return _cast(embeddings, denoiser.dtype)

    pipeline.encode_prompt = encode_prompt


def watch_decoder(pipeline: Any) -> bool:
    """What the decoder draws is looked at, and handed on in float32: nothing after it rounds to 16 bits.

    False for a pipeline that has no decoder we can stand at; its pictures count as not checked.
    """
    decoder = getattr(getattr(pipeline, "vae", None), "decoder", None)
    if decoder is None:
        return False

    def look(_module: torch.nn.Module, _args: Any, drawn: Any) -> Any:
        finite(drawn, "decoder")
        return _cast(drawn, torch.float32)

    decoder.register_forward_hook(look)
    return True


def _cast(value: Any, dtype: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    return type(value)(_cast(item, dtype) for item in value) if isinstance(value, (list, tuple)) else value

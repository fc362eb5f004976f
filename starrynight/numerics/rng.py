"""Noise that depends on the seed alone: drawn on the CPU, in float32, whatever the model runs in and on.

Knows torch's function modes. Pipelines draw noise in their prompt's format, and torch draws other numbers in 16 bits
than in 32; while ``Float32Noise`` is on, a request for 16-bit normal noise is drawn in float32 and rounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from starrynight.numerics.dtypes import HALVES


class Float32Noise(TorchFunctionMode):
    """``draw``: where noise comes from that nobody gave a generator for, as some samplers ask at every step; without it,
    such noise would hang on what the process drew before.
    """

    def __init__(self, draw: torch.Generator | None = None) -> None:
        super().__init__()
        self.draw = draw

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.draw is not None and func is torch.randn_like:
            like = args[0] if args else kwargs["input"]
            return torch.randn(like.shape, generator=self.draw).to(
                like.device, kwargs.get("dtype") or like.dtype
            )
        if func is not torch.randn:
            return func(*args, **kwargs)
        if self.draw is not None and kwargs.get("generator") is None:
            place = kwargs.get("device")
            kwargs = {**kwargs, "generator": self.draw, "device": "cpu"}
            return self.__torch_function__(func, types, args, kwargs).to(place)
        if kwargs.get("dtype") in HALVES:
            return func(*args, **{**kwargs, "dtype": torch.float32}).to(kwargs["dtype"])
        return func(*args, **kwargs)


def generator(seed: int, stream: int = 0) -> torch.Generator:
    """A CPU generator, on every device. Another ``stream`` of the same seed draws other numbers.

    Streams are told apart by a digest, for streams of seeds that stand side by side must not meet.
    """
    heard = _heard(seed)
    if stream:
        heard = int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:4])
    return torch.Generator("cpu").manual_seed(heard)


def _heard(seed: int) -> int:
    """``seed`` as torch's CPU generator can hear it: in 32 bits, for it drops the others without a word (2.13, 2026-11).

    A seed below 2³² stays as it is. Of a longer one the upper half is mixed in, times an odd number (2³² over the golden
    ratio), which maps no two halves to one: seeds that have either half in common, as those of a batch do, never meet.
    """
    upper, lower = divmod(seed, 2**32)
    return lower ^ (upper * 0x9E3779B1 % 2**32)

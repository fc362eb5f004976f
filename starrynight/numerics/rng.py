"""Noise that depends on the seed alone: drawn on the CPU in float32, for every device and number format.

diffusers draws noise in the prompt embeddings' format, and torch draws different numbers in 16 bits than in
float32. Under ``Float32Noise`` 16-bit normal noise is drawn in float32 and rounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from starrynight.numerics.dtypes import HALVES


class Float32Noise(TorchFunctionMode):
    """A function mode that draws 16-bit normal noise in float32.

    ``draw``: the generator for calls that pass none, as some schedulers make at every step. Without it their
    noise depends on what the process drew before.
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
    """A CPU generator for a seed below 2⁶⁴. Each ``stream`` of a seed draws different numbers.

    The streams of neighbouring seeds must differ too, so a stream's seed is taken from a SHA-256 digest.
    """
    short = _to_32_bits(seed)
    if stream:
        short = int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:4])
    return torch.Generator("cpu").manual_seed(short)


def _to_32_bits(seed: int) -> int:
    """Reduce a seed to 32 bits, because torch's CPU generator silently ignores the others (2.13, 2026-11).

    A seed below 2³² is unchanged. The upper half of a longer one is mixed in, multiplied by an odd number
    (2³² divided by the golden ratio, as in Fibonacci hashing). That is a bijection on 32 bits, so seeds that
    share either half, as those of a batch do, never collide.
    """
    upper, lower = divmod(seed, 2**32)
    return lower ^ (upper * 0x9E3779B1 % 2**32)

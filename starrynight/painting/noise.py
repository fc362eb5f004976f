"""Noise that depends on the seed alone: drawn on the CPU, in float32, whatever the model runs in and on.

Knows torch's function modes. Pipelines draw noise in their prompt's format, and torch draws other numbers in 16 bits
than in 32; while ``Float32Noise`` is on, a request for 16-bit normal noise is drawn in float32 and rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

HALVES = (torch.float16, torch.bfloat16)


class Float32Noise(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn and kwargs.get("dtype") in HALVES:
            return func(*args, **{**kwargs, "dtype": torch.float32}).to(kwargs["dtype"])
        return func(*args, **kwargs)


def generator(seed: int, stream: int = 0) -> torch.Generator:
    """A CPU generator, on every device. Another ``stream`` of the same seed draws other numbers."""
    return torch.Generator("cpu").manual_seed((seed + (stream << 63)) % 2**64)

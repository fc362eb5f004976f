"""Groups of number formats, their safetensors names, and one cast for nested values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)

# Every format narrower than float32, the narrowest first.
NARROW = (*FLOAT8, *HALVES)

# The names that a safetensors header uses (https://github.com/huggingface/safetensors, "Format").
SAFETENSORS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
               torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
               torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.bool: "BOOL",
               torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}  # fmt: skip


def cast(
    value: Any, dtype: torch.dtype, sources: Collection[torch.dtype] | None = None, copy: bool = False
) -> Any:
    """Cast the floating-point tensors nested in ``value`` to ``dtype`` and return everything else unchanged.

    Descends into mappings, lists and tuples and keeps their types. With ``sources``, only tensors of these
    formats are cast. With ``copy``, a tensor that has the format already is copied.
    """
    if isinstance(value, Tensor):
        wanted = value.is_floating_point() if sources is None else value.dtype in sources
        return value.to(dtype, copy=copy) if wanted else value
    if isinstance(value, Mapping):
        items = {key: cast(item, dtype, sources, copy) for key, item in value.items()}
        # A diffusers or transformers output is a mapping whose class takes its entries as keywords.
        return items if type(value) is dict else type(value)(**items)
    if isinstance(value, list | tuple):
        parts = [cast(item, dtype, sources, copy) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value

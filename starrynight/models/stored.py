"""How a component's weights are stored: the name of the format, how many numbers it means, and which of them may stay packed.

Reads what headers say (``weights.header``); imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Protocol

from starrynight.models import gguf, mixed


class Summary(Protocol):
    """What is read here of a ``weights.WeightFile``."""

    @property
    def path(self) -> Path: ...
    @property
    def dtypes(self) -> frozenset[str]: ...
    @property
    def names(self) -> tuple[str, ...]: ...


_PLAIN = ("BF16", "F16", "F32", "F64")
_WHOLE = ("I64", "I32", "BOOL")  # index buffers
EIGHT_BITS = ("F8_E4M3", "F8_E5M2", "I8")

# Names of tensors that are no numbers of a model but belong to its quantised weights (``tensors``, ``packed``).
_FOUR_BITS = ".quant_state."
_LIBRARIES = (
    (f"{_FOUR_BITS}bitsandbytes__nf4", "bitsandbytes nf4"),
    (f"{_FOUR_BITS}bitsandbytes__fp4", "bitsandbytes fp4"),
    (".SCB", "bitsandbytes int8"),
    ("_weight_qdata", "torchao"),
    (".weight._data", "quanto"),
)
_COMPANION = re.compile(
    r"\.(absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format|comfy_quant|weight_scale(_inv)?|scale_weight"
    r"|scale_input|input_scale|output_scale)$|\.quant_state\.|scaled_fp8$|_weight_(scale|zero_point)$|\._scale$"
)


def stored_format(files: Iterable[Summary]) -> str:
    """How a component's weights are stored, by the names in their headers: "BF16", "F8_E4M3, F32", "GGUF Q4_K, F32",
    "bitsandbytes nf4 (U8, F32)".
    """
    files = list(files)
    library = next((said for mark, said in _LIBRARIES if any(mark in n for f in files for n in f.names)), "")
    container = "GGUF " if any(gguf.is_gguf(file.path) for file in files) else ""
    # quantised formats first, plain floats last
    names = sorted({name for file in files for name in file.dtypes}, key=lambda n: (n in _PLAIN, n))
    dtypes = ", ".join(names)
    return f"{library} ({dtypes})" if library else container + dtypes


def is_quantised(files: Iterable[Summary]) -> bool:
    """Whether a component's weights are stored in 8 bits or fewer, or in another form than plain floats."""
    return bool({name for file in files for name in file.dtypes} - {*_PLAIN, *_WHOLE})


def holds_other_numbers(files: Iterable[Summary]) -> bool:
    """Whether a component stores blocks, or whole or complex numbers that are no index buffers: libraries would cast them to
    floats.
    """
    others = {"I8", "U8", "I16", "U16", "I32", "U32", "BOOL", "C64", *mixed.BLOCKS}
    return any(file.dtypes & others for file in files)


def are_plain(files: Iterable[Summary]) -> bool:
    """Whether every tensor is stored in the floats that it means, float8 without scales among them."""
    floats = {*_PLAIN, *_WHOLE, "F8_E4M3", "F8_E5M2"}
    return all(
        file.dtypes <= floats and not gguf.is_gguf(file.path) and not any(map(_COMPANION.search, file.names))
        for file in files
    )


def numbers(tensors: Mapping[str, Any]) -> int:
    """How many numbers the tensors mean, without scales; bitsandbytes stores two in a byte."""
    four_bits = {name.partition(_FOUR_BITS)[0] for name in tensors if _FOUR_BITS in name}
    return sum(
        prod(entry["shape"]) * (2 if name in four_bits else 1)
        for name, entry in tensors.items()
        if not _COMPANION.search(name)
    )


def can_stay_packed(name: str, tensors: Mapping[str, Any]) -> bool:
    """Whether a weight is in a format that layers multiply out themselves: float8, scaled or not, ComfyUI's int8, GGUF."""
    dtype, shape = tensors[name]["dtype"], tensors[name]["shape"]
    eight = (
        name.endswith(".weight")
        and dtype in EIGHT_BITS
        and name.removesuffix("weight") + "SCB" not in tensors
    )
    return len(shape) > 1 and (eight or dtype in gguf.ON_DEVICE)

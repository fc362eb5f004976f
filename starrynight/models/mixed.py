"""GGUF's block types inside a .safetensors file, as ``starry fit --format folder`` writes them. Imports no torch.

safetensors has no type for blocks, so such a weight is stored as bytes, U8 [rows, bytes of a row], and the header's
``starry.blocks`` names the type and the shape that are meant: {"x.weight": ["Q5_K", [3840, 3840]]}. ``meant`` puts them in the
place of the bytes, so that every reader of headers sees what it sees of a GGUF file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from starrynight.errors import BadFile, Unfit
from starrynight.models import gguf

KEY = "starry.blocks"
BLOCKS = gguf.READ - frozenset(gguf.PLAIN)


def meant(path: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """The entries of a header with types and shapes as they are meant; the same ones where the file holds no blocks.

    Raises BadFile where the note contradicts the tensors, Unfit for a type that is not read.
    """
    note = entries.get("__metadata__", {}).get(KEY)
    if note is None:
        return entries
    try:
        told = json.loads(note)
        changed = {name: _entry(path, name, entries[name], *told[name]) for name in told}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadFile(
            f"“{path.name}” says of its blocks what its tensors are not ({KEY}: {str(error)[:80]}); write it again: starry fit.",
            f"“{path.name}”对其量化块的说明与张量不符（{KEY}：{str(error)[:80]}）；请用 starry fit 重新写出。",
        ) from error
    return entries | changed


def _entry(path: Path, name: str, stored: Mapping[str, Any], kind: object, shape: object) -> dict[str, Any]:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if kind not in BLOCKS:
        raise Unfit(
            f"“{path.name}” stores {name} in the type {str(kind)[:20]}, which is not read here; update this program.",
            f"“{path.name}”中的 {name} 以类型 {str(kind)[:20]} 存储，这里不能读取；请更新本程序。",
        )
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)):
        raise ValueError(f"{name} {shape}")
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[str(kind)]]
    begin, end = stored["data_offsets"]
    if shape[1] % block or stored["dtype"] != "U8" or end - begin != prod(shape) // block * size:
        raise ValueError(f"{name} {kind} {shape}")
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}

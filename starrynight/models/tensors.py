"""The tensors of a weight file as the numbers they mean: 8-bit weights multiplied by their scales.

Formats with a scale per tensor, per output channel or per block (names as their writers use them):

    weight, scale_weight, scaled_fp8      Kijai's files and ComfyUI before 2025-12
    weight, weight_scale, comfy_quant     ComfyUI; ``comfy_quant`` holds JSON with the format's name (``quantisation``)
    weight, weight_scale_inv              DeepSeek and Qwen: one scale per block of 128 × 128 (a factor, despite its name)

The meant weight is float32(weight) · scale, computed in float32 and rounded once to the format that is asked for. Scales of
activations (``scale_input``, ``input_scale``) serve multiplication in 8 bits and do not change the meant numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from starrynight.errors import Unfit
from starrynight.models import gguf, packed
from starrynight.models.weights import header

SCALES = ("scale_weight", "weight_scale", "weight_scale_inv")
MARKER = "scaled_fp8"
DESCRIPTION = "comfy_quant"
PLAIN_LIMIT = 16.0
# A companion's name ends in one of these, after the stem of its weight.
COMPANIONS = (*SCALES, MARKER, DESCRIPTION)


@dataclass(frozen=True)
class StoredTensors:
    """``names``: of every tensor in the file. ``meant``: name → tensor in the numbers meant. ``companions``: names of
    scales and markers that were applied.
    """

    names: tuple[str, ...]
    meant: dict[str, Tensor]
    companions: frozenset[str]


def read(path: Path, dtype_of: Callable[[str], torch.dtype]) -> StoredTensors:
    """Every tensor of a .safetensors or .gguf file, memory-mapped where its numbers are stored as meant.

    A scaled or packed weight is rounded to ``dtype_of(name)``. Raises Unfit naming the tensor where numbers have no clear
    meaning.
    """
    if gguf.is_gguf(path):
        meant = {
            name: tensor if dtype in gguf.PLAIN else tensor.to(dtype_of(name))
            for name, dtype, tensor in gguf.tensors(path)
        }
        return StoredTensors(tuple(meant), meant, frozenset())
    stored = safetensors.torch.load_file(path)
    names, served = tuple(stored), {}
    if packed.is_packed(names):
        served = packed.unpack(path, stored, header(path).get("__metadata__", {}))
        for weight in set(served.values()):
            stored[weight] = stored[weight].to(dtype_of(weight))
    read = multiply_out(path, stored, dtype_of)
    for name, tensor in read.meant.items():
        if name.endswith(".weight") and not tensor.is_floating_point():
            raise _unclear(path, name, "it is a whole number and has no scale", "为整数且缺少缩放系数")
    # a weight that torchao or quanto stores in parts has no tensor of its own name in the file
    return StoredTensors(names, read.meant, read.companions | served.keys())


def is_scaled(names: Iterable[str]) -> bool:
    """Whether a header holds weights whose scales are stored apart, or packed ones."""
    names = list(names)
    return packed.is_packed(names) or any(name.rpartition(".")[2] in COMPANIONS for name in names)


def multiply_out(
    path: Path, stored: Mapping[str, Tensor], dtype_of: Callable[[str], torch.dtype]
) -> StoredTensors:
    """Replace each weight that has a scale by their product. Raises as ``read``."""
    meant, companions = dict(stored), set()
    scaled = is_scaled(stored)
    for name in stored:
        stem, _, last = name.rpartition(".")
        if last == DESCRIPTION and f"{stem}.weight_scale" not in stored:
            raise _unclear(path, name, "the weight has no weight_scale", "权重缺少 weight_scale")
        if last not in COMPANIONS:
            continue
        companions.add(name)
        del meant[name]
        if last in SCALES:
            weight = f"{stem}.weight" if stem else "weight"
            if weight not in stored:
                raise _unclear(path, name, f"there is no {weight} to scale", f"没有对应的 {weight}")
            if meant[weight] is not stored[weight]:
                raise _unclear(
                    path, name, f"{weight} has another scale besides", f"{weight} 还有另一个缩放系数"
                )
            if stored[weight].dtype.itemsize > 1:
                raise _unclear(path, name, f"{weight} is not in 8 bits", f"{weight} 不是 8 位")
            meant[weight] = scale(path, weight, stored[weight], stored[name]).to(dtype_of(weight))
    kinds = {_kind(name) for name in meant if meant[name] is not stored[name]}
    for name, tensor in meant.items():
        lost = tensor is stored[name] and is_float8(tensor) and (_kind(name) in kinds or _fills_range(tensor))
        if scaled and lost:
            raise _unclear(
                path,
                name,
                "it is in 8 bits and has no scale, while others have one",
                "为 8 位且缺少缩放系数，而其他张量有",
            )
    return StoredTensors(tuple(stored), meant, frozenset(companions))


def is_float8(tensor: Tensor) -> bool:
    return tensor.dtype.itemsize == 1 and tensor.is_floating_point()


def _kind(name: str) -> str:
    """A name without its numbers: the same weight of every layer."""
    return re.sub(r"\d+", "#", name)


def _fills_range(tensor: Tensor) -> bool:
    """Whether 8-bit numbers were divided by a scale. Scaled weights reach the format's limit (448 or 57344); trained
    weights as they are stay below 16.
    """
    return bool(tensor.numel()) and float(tensor.float().abs().max()) >= PLAIN_LIMIT


def scale(path: Path, name: str, weight: Tensor, factor: Tensor) -> Tensor:
    """float32(weight [out, …]) · factor, which has one number, one per output channel, or one per block of a matrix.

    Raises Unfit for any other shape of ``factor``.
    """
    wide, factor = weight.float(), factor.float()
    if factor.numel() == 1:
        return wide * factor.reshape(())
    if factor.numel() == weight.shape[0] and factor.shape[0] == weight.shape[0]:
        return wide * factor.reshape([-1] + [1] * (weight.dim() - 1))
    if factor.dim() == 2 == weight.dim():
        blocks = [_block(size, count) for size, count in zip(weight.shape, factor.shape, strict=True)]
        if all(blocks):
            rows, columns = (b or 1 for b in blocks)
            spread = factor.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
            return wide * spread[: weight.shape[0], : weight.shape[1]]
    shapes = f"{list(factor.shape)} / {list(weight.shape)}"
    raise _unclear(path, name, f"its scale has the shape {shapes}", f"缩放系数的形状为 {shapes}")


def _block(size: int, count: int) -> int | None:
    """The block size of ``count`` blocks along ``size``: 128 where that fits, else an exact division."""
    if math.ceil(size / 128) == count:
        return 128
    return size // count if count and size % count == 0 else None


def _unclear(path: Path, name: str, en: str, zh: str) -> Unfit:
    return Unfit(
        f"The numbers of “{path.name}” cannot be read as they are meant, because of {name}: {en}. Take the bfloat16 or "
        "float16 file of the model.",
        f"无法按原意读取“{path.name}”中的 {name}：{zh}。请改用该模型的 bfloat16 或 float16 文件。",
    )

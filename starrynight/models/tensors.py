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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from starrynight.errors import Unfit
from starrynight.models import gguf, mixed, packed
from starrynight.models.kept import PackedWeight, eight_bits
from starrynight.models.weights import header, shards, unwrapped

SCALES = ("scale_weight", "weight_scale", "weight_scale_inv")
MARKER = "scaled_fp8"
DESCRIPTION = "comfy_quant"
PLAIN_LIMIT = 16.0
# A companion's name ends in one of these, after the stem of its weight.
COMPANIONS = (*SCALES, MARKER, DESCRIPTION)


@dataclass(frozen=True)
class StoredTensors:
    """``names``: of every tensor in the files. ``meant``: name → tensor in the numbers meant. ``companions``: names of
    scales and markers that were applied. ``packed``: name → weight that stays as it is stored.
    """

    names: tuple[str, ...]
    meant: dict[str, Tensor]
    companions: frozenset[str]
    packed: dict[str, PackedWeight] = field(default_factory=dict)

    def within(self, prefix: str) -> StoredTensors:
        """Those whose names begin with ``prefix``."""
        names = tuple(name for name in self.names if name.startswith(prefix))
        meant = {name: tensor for name, tensor in self.meant.items() if name.startswith(prefix)}
        kept = {name: one for name, one in self.packed.items() if name.startswith(prefix)}
        return StoredTensors(names, meant, self.companions, kept)


def never(name: str) -> bool:
    return False


def read(
    paths: Path | Sequence[Path],
    dtype_of: Callable[[str], torch.dtype],
    keep: Callable[[str], bool] = never,
) -> StoredTensors:
    """Every tensor of a .safetensors or .gguf file, or of several that belong together: a weight may lie in one shard and
    its scale in another. Memory-mapped where the numbers are stored as meant.

    A scaled or packed weight is rounded to ``dtype_of(name)``; one that ``keep(name)`` wants stays packed, if its format is
    one of those that ``kept`` multiplies out later. Raises Unfit naming the tensor where numbers have no clear meaning.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    place = paths[0] if len(paths) == 1 else paths[0].parent
    stored: dict[str, Tensor] = {}
    blocks: dict[str, PackedWeight] = {}
    metadata: dict[str, str] = {}
    for path in (file for one in paths for file in shards(one)):
        found, rest = _of_file(path, dtype_of, keep)
        for name in (stored.keys() | blocks.keys()) & (found.keys() | rest.keys()):
            raise _unclear(place, name, "two of its files hold it", "有两个文件都含有它")
        stored |= found
        blocks |= rest
        metadata |= header(path).get("__metadata__", {})
    names, served = (*stored, *blocks), {}
    if packed.is_packed(names):
        served = packed.unpack(place, stored, metadata)
        for weight in set(served.values()):
            stored[weight] = stored[weight].to(dtype_of(weight))
    read = multiply_out(place, stored, dtype_of, keep)
    for name, tensor in read.meant.items():
        if tensor.is_complex():
            raise _unclear(place, name, "its numbers are complex", "为复数")
        if name.endswith(".weight") and not tensor.is_floating_point():
            raise _unclear(place, name, "it is a whole number and has no scale", "为整数且缺少缩放系数")
    # a weight that torchao or quanto stores in parts has no tensor of its own name in the file
    return StoredTensors(names, read.meant, read.companions | served.keys(), read.packed | blocks)


def _of_file(
    path: Path, dtype_of: Callable[[str], torch.dtype], keep: Callable[[str], bool]
) -> tuple[dict[str, Tensor], dict[str, PackedWeight]]:
    """The tensors of one file as safetensors stores them, or the numbers of GGUF's blocks; and the blocks that stay packed."""
    found: dict[str, Tensor] = {}
    blocks: dict[str, PackedWeight] = {}
    if gguf.is_gguf(path):
        records = gguf.stored(path)
    else:
        found = {unwrapped(name): tensor for name, tensor in safetensors.torch.load_file(path).items()}
        records = _blocks_in(path, found)
    for name, dtype, shape, data in records:
        if dtype in gguf.ON_DEVICE and len(shape) > 1 and keep(name) and gguf.fills_rows(dtype, shape):
            blocks[name] = PackedWeight(dtype, torch.Size(shape), data.reshape(shape[0], -1))
        else:
            numbers = gguf.decode(data, dtype).reshape(shape)
            found[name] = numbers if dtype in gguf.PLAIN else numbers.to(dtype_of(name))
    return found, blocks


def _blocks_in(path: Path, found: dict[str, Tensor]) -> Iterator[tuple[str, str, list[int], Tensor]]:
    """Take the blocks out of a safetensors file's tensors (``mixed``), as ``gguf.stored`` gives them."""
    for name, entry in header(path).items():
        if entry.get("dtype") in mixed.BLOCKS:
            yield name, entry["dtype"], entry["shape"], found.pop(name).reshape(-1)


def is_scaled(names: Iterable[str]) -> bool:
    """Whether a header holds weights whose scales are stored apart, or packed ones."""
    names = list(names)
    return packed.is_packed(names) or any(name.rpartition(".")[2] in COMPANIONS for name in names)


def multiply_out(
    path: Path,
    stored: Mapping[str, Tensor],
    dtype_of: Callable[[str], torch.dtype],
    keep: Callable[[str], bool] = never,
) -> StoredTensors:
    """Replace each weight that has a scale by their product; those that ``keep`` wants, and float8 without a scale that it
    wants, are ``packed``. Raises as ``read``.
    """
    scaled: dict[str, PackedWeight] = {}
    companions = [name for name in stored if name.rpartition(".")[2] in COMPANIONS]
    for name in companions:
        stem, _, last = name.rpartition(".")
        if last == DESCRIPTION and f"{stem}.weight_scale" not in stored:
            raise _unclear(path, name, "the weight has no weight_scale", "权重缺少 weight_scale")
        if last in SCALES:
            weight = f"{stem}.weight" if stem else "weight"
            _check_scaled(path, name, weight, stored, scaled)
            scaled[weight] = scale(path, weight, stored[weight], stored[name])
    plain = {name: tensor for name, tensor in stored.items() if name not in scaled and name not in companions}
    _check_plain(path, plain, scaled, bool(companions) or packed.is_packed(stored))
    wide = {name: one.numbers(dtype_of(name)) for name, one in scaled.items() if not keep(name)}
    eight = {name: eight_bits(t) for name, t in plain.items() if is_float8(t) and t.dim() > 1 and keep(name)}
    kept = {name: one for name, one in scaled.items() if name not in wide} | eight
    order = {name: wide.get(name, tensor) for name, tensor in stored.items() if name in plain or name in wide}
    meant = {name: tensor for name, tensor in order.items() if name not in kept}
    return StoredTensors(tuple(stored), meant, frozenset(companions), kept)


def _check_scaled(
    path: Path, name: str, weight: str, stored: Mapping[str, Tensor], scaled: Mapping[str, PackedWeight]
) -> None:
    """Raises Unfit where the scale ``name`` cannot be that of ``weight``."""
    if weight not in stored:
        raise _unclear(path, name, f"there is no {weight} to scale", f"没有对应的 {weight}")
    if weight in scaled:
        raise _unclear(path, name, f"{weight} has another scale besides", f"{weight} 还有另一个缩放系数")
    if not is_float8(stored[weight]) and stored[weight].dtype != torch.int8:
        raise _unclear(path, name, f"{weight} is not in 8 bits", f"{weight} 不是 8 位")


def _check_plain(
    path: Path, plain: Mapping[str, Tensor], scaled: Mapping[str, PackedWeight], has_scales: bool
) -> None:
    """Raises Unfit for a float8 tensor that has lost its scale: others of its kind have one, or it fills the range."""
    kinds = {_kind(name) for name in scaled}
    for name, tensor in plain.items():
        if has_scales and is_float8(tensor) and (_kind(name) in kinds or _fills_range(tensor)):
            raise _unclear(
                path,
                name,
                "it is in 8 bits and has no scale, while others have one",
                "为 8 位且缺少缩放系数，而其他张量有",
            )


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


def scale(path: Path, name: str, weight: Tensor, factor: Tensor) -> PackedWeight:
    """float32(weight [out, …]) · factor, which has one number, one per output channel, or one per block of a matrix.

    Raises Unfit for any other shape of ``factor``, for NaN and Inf in it, and where it makes a weight zero.
    """
    if not factor.is_floating_point():
        raise _unclear(path, name, "its scale is a whole number", "缩放系数为整数")
    factor = factor.float()
    if not bool(torch.isfinite(factor).all()):
        raise _unclear(path, name, "its scale is NaN or Inf", "缩放系数为 NaN 或 Inf")
    if not bool(factor.any()) and bool(weight.float().any()):
        raise _unclear(path, name, "its scale is zero", "缩放系数为零")
    if factor.numel() == 1:
        return eight_bits(weight, factor.reshape(1, 1))
    if weight.dim() and factor.numel() == weight.shape[0] == factor.shape[0]:
        return eight_bits(weight, factor.reshape(-1, 1))
    if factor.dim() == 2 == weight.dim():
        blocks = [_block(size, count) for size, count in zip(weight.shape, factor.shape, strict=True)]
        if all(blocks):
            rows, columns = (b or 1 for b in blocks)
            return eight_bits(weight, factor.repeat_interleave(rows, 0)[: weight.shape[0]], columns)
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

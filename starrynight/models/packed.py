"""Weights that bitsandbytes, torchao and quanto have packed, as the float32 numbers they mean; none of the three is needed.

    x.weight, .absmax, .quant_map, .quant_state.bitsandbytes__nf4 (or fp4)   4 bits: quant_map[nibble] · absmax of its block;
                                             ``absmax`` may itself be in 8 bits (.nested_absmax, .nested_quant_map)
    x.weight, x.SCB                          bitsandbytes' int8: weight · SCB / 127, one SCB a row
    x._weight_qdata, _scale, _zero_point     torchao: (qdata − zero_point) · scale, one scale a block
    x.weight._data, x.weight._scale          quanto in 8 bits: data · scale

Sources: bitsandbytes 0.50 ``functional.QuantState``, torchao 0.18 ``prototype/safetensors``, optimum-quanto 0.2.7
``tensor/weights/qbytes.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from starrynight.errors import Unfit
from starrynight.models.quantisation import INSTEAD

STATE = ".quant_state.bitsandbytes__"
FOUR_BIT_PARTS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
# torchao's tensor classes whose numbers are (qdata − zero_point) · scale.
AFFINE = frozenset({"Int8Tensor", "Float8Tensor", "IntxUnpackedToInt8Tensor"})
MARKS = (STATE, ".SCB", "_weight_qdata", ".weight._data")


def is_packed(names: Iterable[str]) -> bool:
    """Whether a header holds weights of one of these formats."""
    return any(mark in name for name in names for mark in MARKS)


def unpack(path: Path, stored: MutableMapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Replace, in ``stored``, each packed weight by its float32 numbers, and remove its companions.

    Returns companion → the weight that it served. Raises Unfit, naming the tensor, where a part is missing or the packing
    is another.
    """
    served: dict[str, str] = {}
    for name in sorted(stored):
        if name in served:
            continue
        try:
            if STATE in name:
                _four_bits(name, stored, served)
            elif name.endswith(".SCB"):
                _eight_bits(name, stored, served)
            elif name.endswith("_weight_qdata"):
                _affine(name, stored, metadata, served)
            elif name.endswith(".weight._data"):
                _bytes(name, stored, served)
        except (KeyError, ValueError, RuntimeError, IndexError, TypeError) as error:
            raise _unclear(path, name, error) from error
    for name in served:
        stored.pop(name, None)
    return served


def _four_bits(name: str, stored: MutableMapping[str, Tensor], served: dict[str, str]) -> None:
    weight = name.partition(STATE)[0]
    state = json.loads(bytes(stored[name].tolist()))
    part = {mark: stored[weight + mark] for mark in FOUR_BIT_PARTS if weight + mark in stored}
    absmax = part[".absmax"]
    if "nested_blocksize" in state:
        factors = part[".nested_absmax"].repeat_interleave(state["nested_blocksize"])[: absmax.numel()]
        absmax = part[".nested_quant_map"][absmax.long()] * factors + state["nested_offset"]
    packed = stored[weight].reshape(-1).to(torch.uint8)
    nibbles = torch.stack([packed >> 4, packed & 15], 1).reshape(-1).long()  # the high one comes first
    values = part[".quant_map"].float()[nibbles]
    scales = absmax.float().repeat_interleave(state["blocksize"])[: values.numel()]
    count = torch.Size(state["shape"]).numel()
    stored[weight] = (values * scales)[:count].reshape(state["shape"])
    served.update(dict.fromkeys([name, *(weight + mark for mark in part)], weight))


def _eight_bits(name: str, stored: MutableMapping[str, Tensor], served: dict[str, str]) -> None:
    stem = name.removesuffix("SCB")
    weight, layout = stem + "weight", stem + "weight_format"
    if layout in stored and int(stored[layout]) != 0:
        raise ValueError("its columns are reordered for one generation of cards (weight_format)")
    if stored[weight].dtype != torch.int8:
        raise ValueError(f"{weight} is not in 8 bits")
    stored[weight] = stored[weight].float() * (_factor(stored, name) / 127).unsqueeze(1)
    served.update(dict.fromkeys([name, *([layout] if layout in stored else [])], weight))


def _affine(
    name: str, stored: MutableMapping[str, Tensor], metadata: Mapping[str, str], served: dict[str, str]
) -> None:
    stem = name.removesuffix("_weight_qdata")
    weight, scale, zero = stem + "weight", stem + "_weight_scale", stem + "_weight_zero_point"
    told = json.loads(metadata[weight])
    if (kind := told["_type"]) not in AFFINE:
        raise ValueError(f"torchao's {kind} is packed for one kind of card")
    if "zero_point" in told["_tensor_data_names"] and zero not in stored:
        raise KeyError(zero)
    data = stored[name].float()
    if zero in stored:
        data = data - _spread(stored[zero], data.shape)
    stored[weight] = data * _spread(_factor(stored, scale), data.shape)
    served.update(dict.fromkeys([name, scale, *([zero] if zero in stored else [])], weight))


def _factor(stored: Mapping[str, Tensor], name: str) -> Tensor:
    if not stored[name].is_floating_point():
        raise ValueError(f"{name} is a whole number")
    return stored[name].float()


def _spread(blocks: Tensor, shape: torch.Size) -> Tensor:
    """One number a block, repeated over the block."""
    blocks = blocks.float()
    if blocks.dim() != len(shape):
        return blocks.reshape(()) if blocks.numel() == 1 else blocks.reshape(-1, 1)
    for dimension, (size, count) in enumerate(zip(shape, blocks.shape, strict=True)):
        if size % count:
            raise ValueError("its blocks do not divide it")
        blocks = blocks.repeat_interleave(size // count, dimension)
    return blocks


def _bytes(name: str, stored: MutableMapping[str, Tensor], served: dict[str, str]) -> None:
    weight = name.removesuffix("._data")
    scale, stem = weight + "._scale", weight.removesuffix("weight")
    stored[weight] = stored[name].float() * _spread(_factor(stored, scale), stored[name].shape)
    ranges = [stem + mark for mark in ("input_scale", "output_scale") if stem + mark in stored]
    served.update(dict.fromkeys([name, scale, *ranges], weight))


def _unclear(path: Path, name: str, error: Any) -> Unfit:
    reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    return Unfit(
        f"{name} in “{path.name}” is packed in a way that is not read here ({reason}); {INSTEAD.en}.",
        f"“{path.name}”中 {name} 的打包方式不能读取（{reason}）；{INSTEAD.zh}。",
    )

"""Weights that stay as their file stores them, in 8 bits or fewer: each layer multiplies its own out when it is called.

A weight takes its stored bytes on the device, plus one layer at a time in the format that the component computes in. The
numbers are those of a weight multiplied out on loading, bit for bit, because ``PackedWeight.numbers`` makes both. diffusers'
own layers differ: its GGUF linear decodes in float16, and it has none for scaled float8. The precision plan decides
(``packing.keep_packed``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.models import gguf

CHUNK = 2**22  # numbers decoded at a time, so that no layer exists in float32 as a whole


@dataclass(frozen=True)
class PackedWeight:
    """A weight of ``shape`` as its file stores it, one row after another.

    ``data``: uint8 [rows, bytes of a row] of the ``kind``: one of torch's formats of 8 bits, or a GGUF type. ``scale``: None, or
    float32 [1 or rows, 1 or blocks of ``block`` columns], factors of the numbers.
    """

    kind: torch.dtype | str
    shape: torch.Size
    data: Tensor
    scale: Tensor | None = None
    block: int = 1

    @property
    def columns(self) -> int:
        """Numbers of a row."""
        return prod(self.shape[1:])

    def rows(self, index: Tensor) -> PackedWeight:
        """The weight made of these rows, in this order."""
        index = index.to(self.data.device)
        scale = self.scale if self.scale is None or len(self.scale) == 1 else self.scale[index]
        return replace(
            self, shape=torch.Size([len(index), *self.shape[1:]]), data=self.data[index], scale=scale
        )

    def to(self, device: torch.device) -> PackedWeight:
        return replace(
            self, data=self.data.to(device), scale=None if self.scale is None else self.scale.to(device)
        )

    def numbers(self, dtype: torch.dtype) -> Tensor:
        """The numbers meant, computed in float32 and rounded once to ``dtype``."""
        count = len(self.data)
        found = torch.empty(count, self.columns, dtype=dtype, device=self.data.device)
        step = max(1, CHUNK // max(1, self.columns))
        for first in range(0, count, step):
            part = slice(first, first + step)
            found[part] = self._decoded(part)
        return found.reshape(self.shape)

    def _decoded(self, part: slice) -> Tensor:
        data = self.data[part]
        if isinstance(self.kind, str):
            return gguf.decode(data.reshape(-1), self.kind).reshape(len(data), self.columns)
        wide = data.view(self.kind).float()
        if self.scale is None:
            return wide
        scale = self.scale if len(self.scale) == 1 else self.scale[part]
        if scale.shape[1] > 1:
            scale = scale.repeat_interleave(self.block, 1)[:, : self.columns]
        return wide * scale


def eight_bits(weight: Tensor, scale: Tensor | None = None, block: int = 1) -> PackedWeight:
    """A tensor of 8-bit numbers as a packed weight; see there for ``scale``."""
    rows = weight.shape[0] if weight.dim() else 1
    data = weight.contiguous().view(torch.uint8).reshape(rows, prod(weight.shape[1:]))
    return PackedWeight(weight.dtype, weight.shape, data, scale, block)


# -- layers ----------------------------------------------------------------------------------------------------------


class KeptLayer(nn.Module):
    """A layer whose ``weight`` is computed from its packed bytes at every reading.

    ``packed_data`` and ``packed_scale`` are bytes, so that no cast of a network's floats changes them, and parameters, so that
    they are moved and offloaded like any weight. ``rounded`` is the format that the numbers are rounded to; ``held`` the one
    they are given in, wider under a fallback.
    """

    packed: PackedWeight  # its data and scale are those of the parameters
    rounded: torch.dtype
    held: torch.dtype

    @property
    def weight(self) -> Any:
        return self.numbers()

    def numbers(self, rows: Tensor | None = None) -> Tensor:
        """The weight, or these rows of it. As ``fallback`` widens a weight: the rounded numbers in the wider format, those of
        the file where rounding made them infinite.
        """
        packed = self.stored()
        packed = packed if rows is None else packed.rows(rows)
        narrow = packed.numbers(self.rounded)
        if self.held == self.rounded:
            return narrow
        wide = narrow.to(self.held)
        return wide if narrow.is_meta or bool(torch.isfinite(wide).all()) else packed.numbers(self.held)

    def stored(self) -> PackedWeight:
        """The packed weight where it is now."""
        data, scale = (self._parameters.get(name) for name in ("packed_data", "packed_scale"))
        assert data is not None
        return replace(self.packed, data=data, scale=None if scale is None else scale.view(torch.float32))

    def release(self) -> Callable[[torch.device], None]:
        """Let go of the packed bytes; returns what holds them again, on a device."""
        stored = self.stored().to(torch.device("cpu"))
        for name in [name for name in self._parameters if name.startswith("packed_")]:
            del self._parameters[name]
        return lambda device: _hold(self, stored.to(device))


class KeptLinear(KeptLayer, nn.Linear):  # type: ignore[override]
    """A linear layer of packed weights."""


class KeptConv2d(KeptLayer, nn.Conv2d):  # type: ignore[override]
    """A convolution of packed weights."""


class KeptEmbedding(KeptLayer, nn.Embedding):  # type: ignore[override]
    """A table of packed rows; only those that are looked up are multiplied out."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        return self.numbers(input.reshape(-1)).reshape(*input.shape, -1)


KEPT: dict[type[nn.Module], type[KeptLayer]] = {
    nn.Linear: KeptLinear,
    nn.Conv2d: KeptConv2d,
    nn.Embedding: KeptEmbedding,
}


def can_keep(network: nn.Module, name: str) -> bool:
    """Whether the parameter ``name`` is the weight of a layer that can keep it packed: a plain linear layer, convolution or
    embedding, not shared with another.
    """
    path, _, own = name.rpartition(".")
    module = network.get_submodule(path)
    tied = getattr(network, "_tied_weights_keys", None) or {}
    shared = {*tied, *(tied.values() if isinstance(tied, dict) else ())}
    limited = isinstance(module, nn.Embedding) and module.max_norm is not None
    return own == "weight" and type(module) in KEPT and name not in shared and not limited


def keep(network: nn.Module, name: str, packed: PackedWeight, dtype: torch.dtype) -> None:
    """Let the layer whose weight is ``name`` hold it packed, and compute in ``dtype``."""
    module: Any = network.get_submodule(name.rpartition(".")[0])
    del module._parameters["weight"]
    module.__class__ = KEPT[type(module)]
    module.packed = replace(packed, data=torch.empty(0), scale=None)
    module.rounded = module.held = dtype
    _hold(module, packed)


def count_kept(network: nn.Module) -> int:
    """How many weights of a network are packed."""
    return sum(isinstance(module, KeptLayer) for module in network.modules())


def _hold(module: nn.Module, packed: PackedWeight) -> None:
    module.register_parameter("packed_data", nn.Parameter(packed.data.contiguous(), requires_grad=False))
    if packed.scale is not None:
        scale = packed.scale.float().contiguous().view(torch.uint8)
        module.register_parameter("packed_scale", nn.Parameter(scale, requires_grad=False))


def multiply_out(module: KeptLayer) -> Callable[[], None]:
    """Give a layer its weight as a parameter, as if it had been multiplied out on loading; returns what undoes it."""
    kept, numbers = type(module), module.numbers()
    hold_again = module.release()
    module.__class__ = next(plain for plain, one in KEPT.items() if issubclass(kept, one))  # type: ignore[assignment]
    module.register_parameter("weight", nn.Parameter(numbers, requires_grad=False))

    def undo() -> None:
        device = module.weight.device
        del module._parameters["weight"]
        module.__class__ = kept
        hold_again(device)

    return undo


@contextmanager
def multiplied_out(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The kept layers among ``modules`` hold plain weights for as long as the context lasts."""
    with ExitStack() as back:
        for module in dict.fromkeys(modules):
            if isinstance(module, KeptLayer):
                back.callback(multiply_out(module))
        yield


def shape_of(module: nn.Module) -> torch.Size:
    """The shape of a layer's weight, without multiplying it out."""
    weight: Any = module.packed if isinstance(module, KeptLayer) else module.weight
    shape: torch.Size = weight.shape
    return shape

"""Float32 islands: the smallest modules around tensors that no fold brings into float16's range.

Finds islands in a trace and runs them. ``solve`` chooses the exponents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from starrynight.numerics.dtypes import HALVES, cast
from starrynight.numerics.modules import join
from starrynight.numerics.trace import Trace


def inside(name: str, islands: Iterable[str]) -> bool:
    """Whether a module or parameter is one of the islands or lies inside one."""
    return any(name == island or island == "" or name.startswith(island + ".") for island in islands)


def find_islands(
    trace: Trace, exponents: Mapping[Any, int], limit: int, known: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Names of the smallest modules around tensors beyond 2^limit whose inputs and outputs are within it.

    ``known`` islands are kept, or replaced by a larger one if their outputs do not fit. An outermost module
    can be an island whatever the size of its inputs and outputs.
    """

    def too_large(peaks: Mapping[int, float]) -> bool:
        return any(
            peak > 0 and math.log2(peak) + exponents.get(trace.exponents.root(unknown), 0) > limit
            for unknown, peak in peaks.items()
        )

    stuck = [
        s.module for s in trace.sites.values() if s.half and too_large(dict.fromkeys(s.exponents, s.peak))
    ]
    stuck += [
        p.name.rpartition(".")[0]
        for p in trace.parameters.values()
        if p.half and too_large({p.exponent: p.peak})
    ]
    islands = set(known)
    for name in stuck:
        if not inside(name, known):
            islands.add(_smallest_around(trace, name, too_large))
    islands |= {_parent_call(trace, i) for i in known if too_large(trace.outputs[i])}
    return tuple(sorted(i for i in islands if not inside(i, islands - {i})))


def _smallest_around(trace: Trace, name: str, too_large: Callable[[Mapping[int, float]], bool]) -> str:
    """The nearest module at or above ``name`` whose ``forward`` ran and whose inputs and outputs fit."""
    while True:
        called = name in trace.outputs
        if called and not too_large(trace.inputs[name]) and not too_large(trace.outputs[name]):
            return name
        above = _parent_call(trace, name)
        if above == name:
            return name
        name = above


def _parent_call(trace: Trace, name: str) -> str:
    """The nearest module above ``name`` whose ``forward`` ran; ``name`` itself if there is none."""
    parent = name
    while parent:
        parent = parent.rpartition(".")[0]
        if parent in trace.outputs:
            return parent
    return name


def cast_with_islands(
    module: nn.Module, islands: Iterable[str], dtype: torch.dtype, prefix: str = ""
) -> None:
    """Cast ``module`` to ``dtype`` and its islands to float32, with casts at the islands' boundaries.

    ``islands`` are names that start with ``prefix``. Call it on the float32 or bfloat16 original, so that the
    islands lose no bits.
    """
    islands = tuple(islands)
    for name, part in module.named_modules():
        wanted = torch.float32 if inside(join(prefix, name), islands) else dtype
        for tensors in (part._parameters, part._buffers):
            for tensor in tensors.values():
                if tensor is not None and tensor.is_floating_point():
                    tensor.data = tensor.data.to(wanted)
    bridge(module, islands, dtype, prefix)


def bridge(module: nn.Module, islands: Iterable[str], dtype: torch.dtype, prefix: str = "") -> None:
    """Add casts at the boundary of the islands of ``module``, whose parameters are in float32 already."""
    islands = tuple(islands)
    bridged = []
    for name, part in module.named_modules():
        if join(prefix, name) in islands:
            part.register_forward_pre_hook(Enter(), with_kwargs=True)
            part.register_forward_hook(Leave(dtype))
            bridged.append(name)
    if bridged and "" not in bridged:
        # diffusers reports as a model's dtype that of its first parameter outside this list.
        module._keep_in_fp32_modules = [*(getattr(module, "_keep_in_fp32_modules", None) or ()), *bridged]  # type: ignore[assignment]


class Enter:
    """Pre-hook of an island: casts its 16-bit arguments to float32."""

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return cast(args, torch.float32, HALVES), cast(kwargs, torch.float32, HALVES)


class Leave:
    """Forward hook of an island: casts its float32 results back to ``dtype``."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        return cast(output, self.dtype, (torch.float32,))

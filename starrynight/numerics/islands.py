"""Float32 islands: the smallest modules around tensors that no fold brings into float16's range.

Finds islands in a trace and runs them. ``solve`` chooses the exponents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.numerics.dtypes import HALVES, cast
from starrynight.numerics.measured import Trace
from starrynight.numerics.modules import is_container, join, replace_parts

# log2 of the largest number of float16. Weights do not vary with the input, so they need no headroom.
LARGEST_WEIGHT = math.log2(65504)


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

    def too_large(peaks: Mapping[int, float], limit: float = limit) -> bool:
        return any(
            peak > 0 and math.log2(peak) + exponents.get(trace.exponents.root(unknown), 0) > limit
            for unknown, peak in peaks.items()
        )

    stuck = [
        s.module for s in trace.sites.values() if s.half and too_large(dict.fromkeys(s.exponents, s.peak))
    ]
    loud = [
        p
        for p in trace.parameters.values()
        if p.half and too_large({p.exponent: p.peak}, max(limit, LARGEST_WEIGHT))
    ]
    stuck += [p.name.rpartition(".")[0] for p in loud if p.exponent in trace.used]
    # An unused weight reaches no number of the run. Should its module run after all, it runs in float32.
    idle = {p.name.rpartition(".")[0] for p in loud if p.exponent not in trace.used} & trace.idle
    islands = {*known, *idle}
    for name in stuck:
        if not inside(name, known):
            islands.add(_smallest_around(trace, name, too_large))
    islands |= {_parent_call(trace, i) for i in known if too_large(trace.outputs.get(i, {}))}
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
            part.register_forward_hook(Leave(dtype), always_call=True)
            bridged.append(name)
    if bridged and "" not in bridged:
        # diffusers reports as a model's dtype that of its first parameter outside this list.
        module._keep_in_fp32_modules = [*(getattr(module, "_keep_in_fp32_modules", None) or ()), *bridged]  # type: ignore[assignment]


# The attribute in which an island keeps the changes of its calls in progress.
_CHANGES = "_starry_island_calls"


class Changes:
    """The arguments of one call of an island, cast to float32, and the way back."""

    def __init__(self) -> None:
        self._casts: list[tuple[Tensor, Tensor, Tensor]] = []  # original, in float32, a copy to see writes by
        self._containers: list[Any] = []
        self._seen: set[int] = set()
        self._wide: set[int] = set()

    def widen(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._widen_tensor(value)
        if isinstance(value, tuple):
            parts = [self.widen(item) for item in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if is_container(value) and id(value) not in self._seen:
            self._seen.add(id(value))
            self._containers.append(value)
            replace_parts(value, self.widen)
        return value

    def _widen_tensor(self, tensor: Tensor) -> Tensor:
        if tensor.dtype not in HALVES:
            self._wide.add(id(tensor))
            return tensor
        known = next((wide for original, wide, _ in self._casts if original is tensor), None)
        if known is None:
            known = tensor.to(torch.float32)
            self._casts.append((tensor, known, known.clone() if known.is_inference() else known))
        return known

    def undo(self, dtype: torch.dtype) -> None:
        """Give the containers their tensors back, new ones in ``dtype``, and copy what was written in place."""
        for original, wide, before in self._casts:
            written = not torch.equal(wide, before) if wide is not before else wide._version > 0
            if written:
                original.copy_(wide)
        originals = {id(wide): original for original, wide, _ in self._casts}

        def narrow(value: Any) -> Any:
            if isinstance(value, Tensor):
                if value.dtype == torch.float32 and id(value) not in self._wide:
                    return originals[id(value)] if id(value) in originals else value.to(dtype)
                return value
            if isinstance(value, tuple):
                parts = [narrow(item) for item in value]
                return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
            if is_container(value) and id(value) not in narrowed:
                narrowed.add(id(value))
                replace_parts(value, narrow)
            return value

        narrowed: set[int] = set()
        for container in self._containers:
            narrow(container)


class Enter:
    """Pre-hook of an island: casts its 16-bit arguments to float32.

    Tensors in tuples are cast in a new tuple; lists, dictionaries and objects are changed in place, because the module
    may write into them, and ``Leave`` changes them back.
    """

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        changes = Changes()
        vars(module).setdefault(_CHANGES, []).append(changes)
        return tuple(changes.widen(value) for value in args), {k: changes.widen(v) for k, v in kwargs.items()}


class Leave:
    """Forward hook of an island: casts its float32 results, and what it wrote into its arguments, to ``dtype``."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        if open_calls := vars(module).get(_CHANGES):
            open_calls.pop().undo(self.dtype)
        return cast(output, self.dtype, (torch.float32,))

"""Emulate a GPU's float16 on any machine: every op computes in float32 and rounds its result.

A tensor core does the same: float16 operands, float32 accumulation. On a CPU, whose own float16 may be slow
or may accumulate in float16, emulation runs at roughly float32's speed. It also works for bfloat16 and both
float8 formats.

Fused attention counts as one op. Its scores and weights stay in float32, as in flash-attention kernels, and
only its result is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode, _pop_mode, _push_mode
from torch.utils._pytree import tree_leaves, tree_map

from starrynight.numerics.dtypes import FLOAT8, NARROW

# Ops that only cast or copy; exact in every format.
CASTS = frozenset(
    ("_to_copy", "clone", "copy_", "empty_like", "zeros_like", "_local_scalar_dense", "lift_fresh")
)

# Ops that only move values; exact as well, but not implemented for float8.
MOVES = frozenset((
    "_unsafe_view", "cat", "stack", "index", "index_select", "gather", "flip", "roll", "repeat", "embedding", "where",
    "masked_fill", "constant_pad_nd", "ones_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_full", "fill_",
    "zero_", "index_put_", "slice_scatter",
))  # fmt: skip

# Computed in float64: MKL's float32 square root is off by its last bit on some processors (an EPYC with torch
# 2.13, 2026-11), which can change how a tie is rounded. A float64 root rounds to the exact float16 result.
ROOTS = frozenset(("sqrt", "sqrt_"))


class Emulation(TorchDispatchMode):
    """``with Emulation(model): model(x)`` computes on 16-bit and 8-bit tensors as a GPU does.

    Elementwise results equal native float16, as far as float32 libraries agree in their last bit; products
    equal it up to the order of summation. Overflow follows torch's cast: Inf in float16 and e5m2, 448 in
    e4m3.

    ``weights``: a module whose parameters are also kept in float32 (twice their float16 size), so that they
    are not converted in every op. Parameters replaced later (``.data``, a LoRA) are converted in every op,
    with the same result, until the next ``refresh``.
    """

    def __init__(self, weights: nn.Module | None = None) -> None:
        super().__init__()
        self._wide: dict[int, _Kept] = {}
        if weights is not None:
            self.refresh(weights)

    def refresh(self, weights: nn.Module) -> None:
        """Keep float32 copies of the module's current weights and drop those of earlier ones."""
        current: dict[int, _Kept] = {}
        for tensor in filter(is_narrow, (*weights.parameters(), *weights.buffers())):
            key = tensor.untyped_storage()._cdata
            kept = self._wide.get(key)
            if key not in current and not tensor.is_meta:
                valid = kept is not None and kept.version == _version(tensor)
                current[key] = kept if kept is not None and valid else _widened(tensor)
        self._wide = current

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        narrow = [t for t in tree_leaves((args, kwargs)) if is_narrow(t)]
        name = func._schema.name.removeprefix("aten::")
        if not narrow or is_view(func) or name in CASTS:
            return func(*args, **kwargs)
        if name in MOVES and not any(t.dtype in FLOAT8 for t in narrow):
            return func(*args, **kwargs)
        return self._compute(func, args, kwargs)

    def _compute(self, func: Any, args: tuple, kwargs: dict) -> Any:
        target = self._target(args, kwargs)
        wide_args, wide_kwargs = tree_map(self._widen, (args, kwargs))
        if func._schema.name.removeprefix("aten::") in ROOTS:
            wide_args, wide_kwargs = tree_map(_double, (wide_args, wide_kwargs))
        if wide_kwargs.get("dtype") in NARROW:
            wide_kwargs["dtype"] = torch.float32
        result = func(*wide_args, **wide_kwargs)
        written = list(_written(func, args, kwargs, wide_args, wide_kwargs))
        for original, computed in written:
            self._wide.pop(original.untyped_storage()._cdata, None)
            original.copy_(computed)
        originals = {id(computed): original for original, computed in written}
        return tree_map(lambda value: originals.get(id(value), _round(value, target)), result)

    def _target(self, args: tuple, kwargs: dict) -> torch.dtype | None:
        """The format that an op's results are rounded to; None: they stay as they were computed."""
        return _result_dtype(args, kwargs)

    def _widen(self, value: Any) -> Any:
        if not is_narrow(value):
            return value
        kept = self._wide.get(value.untyped_storage()._cdata)
        if kept is None or kept.version != _version(value):  # written outside this mode since
            return value.float()
        return kept.values.as_strided(value.shape, value.stride(), value.storage_offset())


def emulate_module(module: nn.Module, keep: bool = True) -> None:
    """Run ``module`` under ``Emulation`` whenever it is called. ``keep``: keep float32 weights too.

    A trace or ``locate_fault`` still sees 16-bit tensors, even one that started before the call.
    """
    mode = Emulation(module if keep else None)

    def begin(called: nn.Module, *_: Any) -> None:
        with _beneath():
            if keep:
                mode.refresh(called)
            mode.__enter__()

    def end(*_: Any) -> None:
        with _beneath():
            mode.__exit__(None, None, None)

    module.register_forward_pre_hook(begin)
    module.register_forward_hook(end, always_call=True)


@contextmanager
def _beneath() -> Iterator[None]:
    """Pop the dispatch modes above the innermost emulation (all if there is none); push them back at the end."""
    lifted = []
    while (top := _get_current_dispatch_mode()) is not None and not isinstance(top, Emulation):
        lifted.append(top)
        _pop_mode()
    try:
        yield
    finally:
        for mode in reversed(lifted):
            _push_mode(mode)


@dataclass(frozen=True)
class _Kept:
    """Float32 values of a whole storage. The weak reference keeps the storage's address from being reused."""

    storage: StorageWeakRef
    values: Tensor
    version: int


def _widened(tensor: Tensor) -> _Kept:
    """Convert a tensor's whole storage, so that any view of it can be taken from the result."""
    storage = tensor.untyped_storage()
    flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage)
    return _Kept(StorageWeakRef(storage), flat.float(), _version(tensor))


def _version(tensor: Tensor) -> int:
    """How often a tensor or a view of it was written; -1 for inference tensors, which have no counter."""
    return -1 if tensor.is_inference() else tensor._version


def _result_dtype(args: tuple, kwargs: dict) -> torch.dtype | None:
    """The narrow format that results are rounded to; None if type promotion or ``dtype=`` gives a wide one."""
    if kwargs.get("dtype") is not None:
        return kwargs["dtype"] if kwargs["dtype"] in NARROW else None
    floats = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.is_floating_point()]
    deciding = [t for t in floats if t.dim()] or floats  # a 0-dimensional tensor does not promote another
    formats = {t.dtype for t in deciding}
    return formats.pop() if len(formats) == 1 and formats <= set(NARROW) else None


def _round(value: Any, target: torch.dtype | None) -> Any:
    if target is not None and isinstance(value, Tensor) and value.dtype in (torch.float32, torch.float64):
        return value.to(target)
    return value


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype == torch.float32 else value


def _written(
    func: Any, args: tuple, kwargs: dict, wide_args: tuple, wide_kwargs: dict
) -> Iterator[tuple[Tensor, Tensor]]:
    """(original, computed in float32) for every narrow tensor that an in-place op wrote."""
    if not func._schema.is_mutable:
        return
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        source, wide = (args, wide_args) if i < len(args) else (kwargs, wide_kwargs)
        key: Any = i if i < len(args) else argument.name
        if key in range(len(args)) or key in kwargs:
            yield from (
                (o, w)
                for o, w in zip(tree_leaves(source[key]), tree_leaves(wide[key]), strict=True)
                if o is not w
            )


def is_narrow(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in NARROW


def is_view(func: Any) -> bool:
    """Whether the op's outputs share the memory of an input that it does not write."""
    returns = [r.alias_info for r in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returns)

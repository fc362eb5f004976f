"""Cheap checks that numbers are finite, and a slow one that names where they broke.

``find_fault`` looks at one tensor and costs one pass over it, so it can run at every stage of every step. Only when it
finds something is the step run again under ``locate_fault``, which names the module and the op. Knows nothing of
pictures or samplers; what to do about a fault is the painter's affair.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from starrynight.numerics.modules import Modules, tensors_in, watching
from starrynight.numerics.rules import MASK
from starrynight.verdict import Fault

# Ops that put numbers in place rather than compute them: an Inf they bring is a mask.
MASKING = frozenset(("full", "full_like", "new_full", "fill_", "masked_fill", "masked_fill_", "where", "scalar_tensor",
                     "index_put_", "constant_pad_nd", "lift_fresh"))  # fmt: skip

# Ops that round to another format, where a finite number may become Inf. Beyond MASK it was none (finfo.min).
CASTS = frozenset(("_to_copy", "copy_"))

# Ops by which a library hides an overflow.
CLAMPS = frozenset(("clamp", "clamp_", "nan_to_num", "nan_to_num_", "clamp_min", "clamp_max"))


def find_fault(tensor: Tensor, stage: str, step: int | None = None) -> Fault | None:
    """None if every number is finite: one pass over the tensor, one number read back. ``step`` counts from 0."""
    if not tensor.numel() or math.isfinite(torch.linalg.vector_norm(tensor.detach(), math.inf).item()):
        return None
    for kind, broken in (
        ("NaN", tensor.isnan()),
        ("+Inf", tensor == math.inf),
        ("−Inf", tensor == -math.inf),
    ):
        count = int(broken.sum())
        if count:
            return Fault(stage, kind, count, tensor.numel(), step, format=str(tensor.dtype)[6:])
    return None


def locate_fault(modules: Modules, run: Callable[[], object]) -> tuple[str, str] | None:
    """(module, op) where a NaN or Inf first arose from numbers that held none; None if ``run`` makes none.

    Runs ``run`` until then. A −Inf that is written as a mask is no fault. Where a module's own parameter is broken, that
    parameter's name stands in place of the op.
    """
    locator = _Locator()
    try:
        with locator.following(modules), locator, torch.no_grad():
            run()
    except _Found as found:
        return found.module, found.op
    return None


class _Found(Exception):
    def __init__(self, module: str, op: str) -> None:
        super().__init__(module, op)
        self.module, self.op = module, op


class _Following(TorchDispatchMode):
    """A dispatch mode that knows the innermost running module."""

    def __init__(self) -> None:
        super().__init__()
        self._running: list[tuple[str, nn.Module]] = []

    @contextmanager
    def following(self, modules: Modules) -> Iterator[None]:
        """Know which of ``modules`` is running, while this lasts."""

        def enter(name: str, module: nn.Module, inputs: Any) -> None:
            self._running.append((name, module))
            self.entered(module)

        def leave(name: str, module: nn.Module, output: Any) -> None:
            self._running.pop()

        with watching(modules, enter, leave):
            yield

    def entered(self, module: nn.Module) -> None:
        """A module begins; it is now the innermost."""

    @property
    def module(self) -> str:
        return self._running[-1][0] if self._running else ""


class _Locator(_Following):
    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[Any, str] = (None, "")  # the latest result, and the op it came from

    def entered(self, module: nn.Module) -> None:
        for name, parameter in module._parameters.items():
            if parameter is not None and not parameter.is_meta and any(_broken(parameter)):
                raise _Found(self.module, name)

    def _blame_parameter(self, tensor: Tensor) -> None:
        """One that came only after its module was entered: offloaded weights are fetched then."""
        for module, running in self._running[-1:]:
            for name, parameter in running._parameters.items():
                if parameter is tensor:
                    raise _Found(module, name)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        before = []
        for tensor in tensors_in((args, kwargs)):
            before.append(_broken(tensor))
            if any(before[-1]):
                self._blame_parameter(tensor)
        result = func(*args, **kwargs)
        op = func._schema.name.removeprefix("aten::")
        if op.startswith(("empty", "new_empty")):  # memory that is not written yet holds anything
            return result
        for nan, infinite in map(_broken, tensors_in(result)):
            arose_nan = nan and not any(n for n, _ in before)
            arose_infinite = infinite and op not in MASKING and not any(i for _, i in before)
            if op in CASTS:
                source = args[1] if op == "copy_" else args[0]
                arose_infinite = infinite and _overflowed(source, result)
                op = self._last[1] if source is self._last[0] else op  # what was computed does not fit
            if arose_nan or arose_infinite:
                raise _Found(self.module, op)
        self._last = (result, op)
        return result


def _broken(tensor: Tensor) -> tuple[bool, bool]:
    """(holds NaN, holds Inf)"""
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return False, False
    return bool(tensor.isnan().any()), bool(tensor.isinf().any())


def _overflowed(source: Tensor, result: Tensor) -> bool:
    """Whether a cast made Inf of a number that was no mask."""
    return bool((result.isinf() & (source.abs() < MASK)).any())


class ClampCounter(_Following):
    """Counts the numbers that a library's clamps changed: ``with counter.following(model), counter: …``.

    ``counts`` is by (module, op). A clamp that changes nothing counts 0 and is left out; so is the NaN that a clamp
    lets through.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        op = func._schema.name.removeprefix("aten::")
        before = args[0].clone() if op in CLAMPS else None
        result = func(*args, **(kwargs or {}))
        if before is not None:
            changed = int(((result != before) & ~(result.isnan() & before.isnan())).sum())
            if changed:
                self.counts[self.module, op.removesuffix("_")] += changed
        return result

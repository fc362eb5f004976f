"""Find NaN and Inf: a cheap check of one tensor, and a slow search for the module and op that made them.

``find_fault`` reads a tensor once, so it can run at every stage of every sampling step. If it finds a fault,
the step is run again under ``locate_fault``, which names the module and the op. Recovering from a fault is
the caller's task.
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

# Ops that write given numbers instead of computing them: an Inf that they write is an attention mask.
MASKING = frozenset(("full", "full_like", "new_full", "fill_", "masked_fill", "masked_fill_", "where", "scalar_tensor",
                     "index_put_", "constant_pad_nd", "lift_fresh"))  # fmt: skip

# Ops that round to another format, where a finite number may overflow. A number beyond MASK was a mask
# (finfo.min).
CASTS = frozenset(("_to_copy", "copy_"))

# Ops with which libraries hide an overflow.
CLAMPS = frozenset(("clamp", "clamp_", "nan_to_num", "nan_to_num_", "clamp_min", "clamp_max"))


def find_fault(tensor: Tensor, stage: str, step: int | None = None) -> Fault | None:
    """The first kind of non-finite number in ``tensor``, or None. ``step`` counts from 0.

    A finite tensor costs one pass (its max norm) and one number copied to the CPU.
    """
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
    """(module, op) of the first NaN or Inf computed from finite numbers; None if ``run`` makes none.

    Stops ``run`` at that op. A −Inf written as a mask is no fault. If a module's own parameter is not finite,
    its name is returned in place of the op.
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


class _ModuleTracker(TorchDispatchMode):
    """A dispatch mode that knows the innermost running module."""

    def __init__(self) -> None:
        super().__init__()
        self._running: list[tuple[str, nn.Module]] = []

    @contextmanager
    def following(self, modules: Modules) -> Iterator[None]:
        """Track which of ``modules`` is running within this context."""

        def enter(name: str, module: nn.Module, inputs: Any) -> None:
            self._running.append((name, module))
            self.entered(module)

        def leave(name: str, module: nn.Module, output: Any) -> None:
            self._running.pop()

        with watching(modules, enter, leave):
            yield

    def entered(self, module: nn.Module) -> None:
        """Called when a module starts; it is now the innermost one."""

    @property
    def module(self) -> str:
        return self._running[-1][0] if self._running else ""


class _Locator(_ModuleTracker):
    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[Any, str] = (None, "")  # the latest result and its op

    def entered(self, module: nn.Module) -> None:
        for name, parameter in module._parameters.items():
            if parameter is not None and not parameter.is_meta and any(_broken(parameter)):
                raise _Found(self.module, name)

    def _check_parameter(self, tensor: Tensor) -> None:
        """Raise if ``tensor`` is a parameter: offloaded weights arrive only after their module was entered."""
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
                self._check_parameter(tensor)
        result = func(*args, **kwargs)
        op = func._schema.name.removeprefix("aten::")
        if op.startswith(("empty", "new_empty")):  # unwritten memory may hold anything
            return result
        for nan, infinite in map(_broken, tensors_in(result)):
            arose_nan = nan and not any(n for n, _ in before)
            arose_infinite = infinite and op not in MASKING and not any(i for _, i in before)
            if op in CASTS:
                source = args[1] if op == "copy_" else args[0]
                arose_infinite = infinite and _overflowed(source, result)
                op = self._last[1] if source is self._last[0] else op  # name the op whose result does not fit
            if arose_nan or arose_infinite:
                raise _Found(self.module, op)
        self._last = (result, op)
        return result


def _broken(tensor: Tensor) -> tuple[bool, bool]:
    """(holds NaN, holds Inf)"""
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return False, False
    wide = _wide(tensor)
    return bool(wide.isnan().any()), bool(wide.isinf().any())


def _overflowed(source: Tensor, result: Tensor) -> bool:
    """Whether a cast turned a number that was no mask into Inf."""
    return bool((_wide(result).isinf() & (_wide(source).abs() < MASK)).any())


def _wide(tensor: Tensor) -> Tensor:
    """float8 as float32: torch has neither isinf nor abs for it."""
    return tensor.float() if tensor.element_size() == 1 else tensor


class ClampCounter(_ModuleTracker):
    """Counts the numbers that a library's clamps changed: ``with counter.following(model), counter: …``.

    ``counts``: (module, op) → changed numbers. Clamps that change nothing are left out; a NaN that passes a
    clamp is no change.
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

"""Compare a fold with its original op by op, in float32.

A correct fold multiplies the result of every op by a power of two, and nothing else. The outputs alone do not show
that: a gate that is still zero hides what changed behind it. So each op's results are compared up to a power of two,
from a sample of their numbers, and the outputs as they are. Weights may be stored in 16 bits: they are converted to
float32 in the op that uses them, so a model is compared whose float32 does not fit into memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from starrynight.numerics.dtypes import NARROW
from starrynight.numerics.emulate import Emulation, is_narrow, is_view
from starrynight.numerics.fold import fold_modules
from starrynight.numerics.modules import Modules, named_modules, own_tensors, tensors_in, watching
from starrynight.numerics.precision import UNCHANGED
from starrynight.numerics.rules import BLANK
from starrynight.numerics.solve import FoldPlan
from starrynight.numerics.storages import every_op_seen, has_storage

# The largest relative error of one op's result. Larger than ``UNCHANGED``, because where an epsilon stays although its
# quantity is folded (``solve.NEGLIGIBLE``), a difference of two near numbers can enlarge the last bits.
OP_UNCHANGED = 1e-3

# Numbers of each result that are kept.
SAMPLE = 64


@dataclass(frozen=True)
class StepComparison:
    """``ops``: results compared. ``error``: ‖x − r‖ / ‖r‖ of the outputs. ``changed``: the module and op of the first result
    that is not the original's times a power of two, "" if there is none.
    """

    ops: int
    error: float
    changed: str = ""

    @property
    def exact(self) -> bool:
        return not self.changed and self.error <= UNCHANGED


@dataclass(frozen=True)
class _Result:
    """What is kept of one result: where it was made, its root mean square and some of its numbers.

    ``noise``: what the last bits of the op's inputs may change in a number of the result.
    """

    module: str
    op: str
    rms: float
    sample: Tensor
    noise: float

    @property
    def name(self) -> str:
        return f"{self.module}: {self.op}" if self.module else self.op


class Float32(Emulation):
    """Computes on 16-bit tensors in float32 and does not round the results: float32's function of the stored weights."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in NARROW:
            kwargs["dtype"] = torch.float32
        if is_view(func) or not any(map(is_narrow, tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        return self._compute(func, args, kwargs)

    def _target(self, args: tuple, kwargs: dict) -> torch.dtype | None:
        return None


class _Recorder(Float32):
    """Keeps a few numbers of the result of every op that runs inside a module."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[_Result] = []
        self.running: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name in BLANK:
            for tensor in filter(_comparable, tensors_in(result)):
                tensor.zero_()  # unwritten memory differs from run to run
        elif self.running and not is_view(func):
            for tensor in filter(_comparable, tensors_in(result)):
                noise = UNCHANGED * max((_rms(t) for t in _larger((args, kwargs), tensor)), default=0.0)
                self.results.append(_kept(self.running[-1], name, tensor.detach(), noise))
        return result


def _comparable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and has_storage(tensor) and tensor.numel() > 0


def _larger(inputs: Any, result: Tensor) -> list[Tensor]:
    """The inputs of more elements than the result: in a sum of many numbers most of each may cancel."""
    return [t for t in tensors_in(inputs) if _comparable(t) and t.numel() > result.numel()]


def _rms(tensor: Tensor) -> float:
    return torch.linalg.vector_norm(tensor.double()).item() / math.sqrt(tensor.numel())


def _kept(module: str, op: str, tensor: Tensor, noise: float) -> _Result:
    flat = tensor.reshape(-1)
    sample = flat[:: max(1, flat.numel() // SAMPLE)].double().cpu()
    return _Result(module, op, _rms(flat), sample, noise)


def compare_step(modules: Modules, plan: FoldPlan, run: Callable[[], object]) -> StepComparison:
    """Call ``run`` twice, with ``modules`` as they are and folded, and compare every op and the outputs.

    ``run()`` exercises the modules and returns their output. Buffers and the CPU's random state begin alike both times.
    What modules keep from a first call may change the ops of the second, so a difference counts if it is there again.
    The modules are folded in place and unfolded again. Raises ``Unfit`` like ``fold_modules``.
    """
    found = _compare_once(modules, plan, run)
    return found if found.exact else _compare_once(modules, plan, run)


def _compare_once(modules: Modules, plan: FoldPlan, run: Callable[[], object]) -> StepComparison:
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for _, module in named_modules(modules)
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    first, reference = _record(modules, run)
    _restore(buffers)
    fold_modules(modules, plan)
    try:
        second, outputs = _record(modules, run)
    finally:
        _restore(buffers, values=False)
        fold_modules(modules, plan, sign=-1)
        _restore(buffers)
    return StepComparison(len(first), _error(outputs, reference), _first_difference(first, second))


def _record(modules: Modules, run: Callable[[], object]) -> tuple[list[_Result], list[Tensor]]:
    """What is kept of every result, and the outputs of one run."""
    recorder = _Recorder()

    def enter(name: str, module: nn.Module, inputs: Any) -> None:
        recorder.running.append(name)
        narrow.append([(t, t.data) for t in own_tensors(module).values() if t.dtype in NARROW])
        for tensor, stored in narrow[-1]:  # many ops refuse operands of two formats
            tensor.data = stored.float()

    def leave(name: str, module: nn.Module, output: Any) -> None:
        recorder.running.pop()
        for tensor, stored in narrow.pop():
            stored.copy_(tensor.data)
            tensor.data = stored

    narrow: list[list[tuple[Tensor, Tensor]]] = []

    with (
        torch.no_grad(),
        torch.random.fork_rng([]),
        every_op_seen(),
        watching(modules, enter, leave),
        recorder,
    ):
        found = run()
    return recorder.results, [tensor.detach().double().cpu() for tensor in tensors_in(found)]


@torch.no_grad()
def _restore(buffers: list[tuple[nn.Module, str, Tensor, Tensor]], values: bool = True) -> None:
    """Give the modules their own buffers again, if they were replaced, and their ``values``."""
    for module, name, buffer, value in buffers:
        module._buffers[name] = buffer
        if values:
            buffer.copy_(value)


def _error(outputs: list[Tensor], reference: list[Tensor]) -> float:
    """The largest relative error; infinite where the outputs do not correspond, NaN where one is not finite."""
    if [o.shape for o in outputs] != [r.shape for r in reference]:
        return math.inf
    changed = [(o, r) for o, r in zip(outputs, reference, strict=True) if not torch.equal(o, r)]
    errors = [((o - r).norm() / r.norm()).item() for o, r in changed]
    return max(errors, key=lambda error: (math.isnan(error), error), default=0.0)


def _first_difference(first: list[_Result], second: list[_Result]) -> str:
    for one, two in zip(first, second, strict=False):
        if (one.module, one.op, one.sample.shape) != (two.module, two.op, two.sample.shape):
            return one.name
        if not _alike(one, two):
            return one.name
    longer = max(first, second, key=len)
    return longer[min(len(first), len(second))].name if len(first) != len(second) else ""


def _alike(one: _Result, two: _Result) -> bool:
    """Whether the numbers are the same up to a power of two. What is not finite in both says nothing."""
    if not (math.isfinite(one.rms) and math.isfinite(two.rms)):
        return math.isfinite(one.rms) == math.isfinite(two.rms)
    if one.rms <= one.noise or not two.rms:
        return one.rms <= one.noise or one.rms == two.rms
    factor = 2.0 ** round(math.log2(two.rms / one.rms))
    limit = OP_UNCHANGED * one.rms + one.noise
    differences = (two.sample / factor - one.sample).abs()
    return abs(two.rms / factor - one.rms) <= limit and bool(differences.square().mean().sqrt() <= limit)

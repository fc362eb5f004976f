"""Trace a run: record how every tensor's scale depends on the parameters, and how large each tensor gets.

``rules`` gives the relations of one op. This file identifies the tensors, locates each op in the program and
measures its output. It depends on no architecture and chooses no exponents (``solve`` does).

Tensors are identified by weak references to their storage, so the trace keeps no tensor alive. Sampling steps
that run the same op in the same module call are merged into one ``Site``. Memory therefore grows with the
size of the program, not with the number of steps.
"""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from starrynight.errors import Unfit
from starrynight.numerics import rules
from starrynight.numerics.dtypes import HALVES
from starrynight.numerics.effective import reading_parameters
from starrynight.numerics.emulate import is_view
from starrynight.numerics.epsilons import WatchedEpsilons
from starrynight.numerics.exponents import PINNED, Exponents
from starrynight.numerics.measured import Epsilon, Parameter, Site, Trace
from starrynight.numerics.modules import (
    Modules,
    join,
    memory_groups,
    named_modules,
    named_tensors,
    own_tensors,
    refuse_scripts,
    tensors_in,
    unregistered_tensors,
    watching,
)
from starrynight.numerics.rules import Call
from starrynight.numerics.storages import (
    Storages,
    every_op_seen,
    has_storage,
    idle_modules,
    key_of,
    looks_past_attributes,
    peak_and_quantile,
    reading_without_ops,
    untaken_branches,
    watching_threads,
)


def trace_modules(modules: Modules, run: Callable[[], object], into: Trace | None = None) -> Trace:
    """Call ``run`` and return the trace of ``modules`` (one module, or several by name).

    The modules should be in bfloat16; sections that they compute in float32 are then recognised and not
    constrained. Inputs and outputs of the outermost module calls keep their scale. ``into`` continues an
    earlier trace of the same modules and is returned.
    """
    tracer = Tracer(modules, into)
    with torch.no_grad(), tracer.hooks():
        with tracer:
            result = run()
        tracer.pin_survivors()
        del result  # alive until here: the caller reads it at its true scale
    return tracer.trace


@dataclass
class _Frame:
    """A running module. ``key`` identifies the call in the program; the counters number its ops and children. ``attributes``:
    exponents of the parameters that were read as attributes meanwhile.
    """

    module: nn.Module
    name: str
    key: int
    inputs: set[int]
    attributes: set[int] = field(default_factory=set)
    ops: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


class Tracer(TorchDispatchMode):
    """The dispatch mode behind ``trace_modules``."""

    supports_higher_order_operators = True  # to refuse them by name

    def __init__(self, modules: Modules, into: Trace | None = None) -> None:
        super().__init__()
        self.trace = into or Trace()
        self._modules = modules
        self._epsilons = WatchedEpsilons(modules, lambda owner: self.trace.fixed_epsilons.add(owner.name))
        self._claimed: set[float] = set()
        self._constants = Storages()
        self._storages = Storages()
        self._stored = Storages()  # parameters that may be stored as effective weights, and their copies
        self._read: set[int] = set()  # those that the op at hand reads
        self._summable: set[str] = set()
        self._frames: list[_Frame] = []
        self._composite: dict[Any, bool] = {}
        self._elsewhere: list[str] = []  # ops that other threads ran on what this trace knows

    # -- modules ---------------------------------------------------------------------------------------------------

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Track the running module within this context."""
        refuse_scripts(self._modules)
        self._add_parameters()
        with (
            every_op_seen(),
            watching(self._modules, self._enter_module, self._leave_module),
            self._epsilons.watched(),
            reading_without_ops(lambda tensor: self.trace.exponents.pin(self._exponent(tensor))),
            reading_parameters(self._note_attribute, self._note_passed),
            watching_threads(lambda t: self._storages.get(t) is not None, self._elsewhere.append),
        ):
            yield
        if self._elsewhere:
            raise _untraceable(self._elsewhere[0], "in another thread", "在另一线程中")
        self.trace.idle = idle_modules(self._modules, self.trace.inputs, self._is_used)
        self.trace.branches = untaken_branches(self._modules, self.trace.inputs, self._is_used)
        self._measure_sums()

    def _add_parameters(self) -> None:
        """Give every parameter and buffer an exponent, the same to all that lie in one piece of memory."""
        asking = {name for name, module in named_modules(self._modules) if looks_past_attributes(module)}
        for group in memory_groups((name, tensor) for name, tensor, _ in named_tensors(self._modules)):
            if isinstance(group[0][1], nn.Parameter) and len({id(tensor) for _, tensor in group}) == 1:
                self._summable |= {name for name, _ in group if name.rpartition(".")[0] not in asking}
            self.trace.exponents.same(*(self._parameter_exponent(name, tensor) for name, tensor in group))
        for name, tensor, kept in named_tensors(self._modules):
            if name not in self.trace.parameters:
                peak, small = peak_and_quantile(tensor)
                half = tensor.dtype in HALVES
                exponent = self._storages.get(tensor) or PINNED
                self.trace.parameters[name] = Parameter(name, exponent, peak, small, half, kept)
        for _, tensor in unregistered_tensors(self._modules):
            if self._storages.get(tensor) is None:
                self._storages.put(tensor, PINNED)

    def _measure_sums(self) -> None:
        """The range of a parameter that is only read with a number added is that of the sum."""
        for name, tensor, _ in named_tensors(self._modules):
            parameter = self.trace.parameters[name]
            if (number := self.trace.added.get(parameter.exponent)) and not tensor.is_meta:
                parameter.peak, parameter.small = peak_and_quantile(tensor.float() + number)

    def _parameter_exponent(self, name: str, tensor: Tensor) -> int:
        """Known by its storage, which tied parameters share, or by its name, if it was moved to another storage."""
        exponent = self._storages.get(tensor)
        if exponent is None:
            known = self.trace.parameters.get(name)
            exponent = known.exponent if known else self.trace.exponents.new()
            self._storages.put(tensor, exponent)
        if name in self._summable:
            self._stored.put(tensor, exponent)
        return exponent

    def _is_used(self, tensor: Tensor) -> bool:
        return self._storages.get(tensor) in self.trace.used

    def _enter_module(self, name: str, module: nn.Module, inputs: Any) -> None:
        for own, tensor in own_tensors(module).items():
            if has_storage(tensor):  # not a weight that ``vmap`` gives; what it is made of is pinned
                self._parameter_exponent(join(name, own), tensor)
        entering = list(filter(has_storage, tensors_in(inputs)))
        for tensor in entering:
            if self._storages.get(tensor) is None:  # known from now on as an input, which is no constant
                self._storages.put(tensor, PINNED)
        if self._frames:
            parent = self._frames[-1]
            call = (parent.key, name, parent.calls[name])
            parent.calls[name] += 1
            self._meet(parent.name, entering)
        else:
            call = (-1, name, 0)  # every sampling step is the same place of the program
        key = self.trace.places.setdefault(call, len(self.trace.places))
        self._frames.append(_Frame(module, name, key, {key_of(t) for t in entering}))
        self._meet(name, entering)
        self._cross(self.trace.inputs.setdefault(name, {}), entering)

    def _leave_module(self, name: str, module: nn.Module, output: Any) -> None:
        frame = self._frames.pop()
        results = list(filter(has_storage, tensors_in(output)))
        self._cross(self.trace.outputs.setdefault(name, {}), results)
        self._meet(name, results)
        if self._frames:
            self._meet(self._frames[-1].name, results)
        else:
            self.trace.exponents.pin(*map(self._exponent, results))
            self._pin_hidden_outputs(frame)

    def _meet(self, name: str, tensors: Iterable[Tensor]) -> None:
        self.trace.scopes.setdefault(name, set()).update(map(self._exponent, tensors))

    def _pin_hidden_outputs(self, frame: _Frame) -> None:
        """Pin what outlives an outermost call and is neither in a module nor in an argument: a closure, a hook's list.

        What a module or an argument keeps may be a cache between calls; ``pin_survivors`` looks at it in the end.
        """
        kept = [tensor for _, tensor in unregistered_tensors(self._modules)]
        kept += [tensor for _, tensor, _ in named_tensors(self._modules)]
        self._pin_alive(kept, frame.inputs)

    def pin_survivors(self) -> None:
        """Pin what is alive after the run, and no parameter: somebody may read it at its true scale."""
        self._pin_alive([tensor for _, tensor, _ in named_tensors(self._modules)], set())

    def _pin_alive(self, kept: Iterable[Tensor], keys: set[int]) -> None:
        keys = keys | {key_of(tensor) for tensor in kept}
        found = self._storages.alive() - keys
        if any(self._moves(key) for key in found):
            gc.collect()  # a reference cycle may keep what nobody can read
            found = self._storages.alive() - keys
        self.trace.exponents.pin(*(self._storages.by_key(key) for key in sorted(found)))

    def _moves(self, key: int) -> bool:
        return self.trace.exponents.root(self._storages.by_key(key)) != PINNED

    def _cross(self, boundary: dict[int, float], tensors: Iterable[Tensor]) -> None:
        """Record the exponents and peaks of the 16-bit tensors that enter or leave a module."""
        for tensor in tensors:
            if tensor.dtype in HALVES:
                exponent, peak = self._exponent(tensor), self._storages.peak(tensor)
                boundary[exponent] = max(boundary.get(exponent, 0.0), peak)

    # -- one op --------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.HigherOrderOperator):
            raise _untraceable(func.name(), "with whole functions as arguments", "以函数为参数")
        if self._is_composite(func):  # inference mode does not decompose such ops before dispatch
            with self:
                return func.decompose(*args, **kwargs)
        known = {id(t): self._exponent(t) for t in tensors_in((args, kwargs)) if _is_real(t)}
        result = func(*args, **kwargs)
        if not all(map(has_storage, tensors_in((args, kwargs, result)))):
            self._pin_hidden(known)  # numbers that go where no exponent can follow
        if is_view(func):
            self._view(func, known, result)
            return result
        call = Call(self, func, args, kwargs, known)
        call.outputs = [t for t in tensors_in(result) if _is_real(t) and has_storage(t)]
        self._claimed.clear()
        self._read = {e for t in tensors_in(call.arguments) if (e := self._stored.get(t)) is not None}
        if self._frames:
            self._record(call)
        else:
            self._record_outside(call)
        self._fix_epsilons(call)
        return result

    def _pin_hidden(self, known: dict[int, int]) -> None:
        self.trace.used.update(known.values())
        self.trace.exponents.pin(*known.values())

    def _view(self, func: Any, known: dict[int, int], result: Any) -> None:
        """A view has its storage's exponent. Bits read as another type have no scale."""
        if func._overloadname == "dtype":
            self.trace.exponents.pin(*known.values())
        if func._schema.name == "aten::lift_fresh":
            for owner in self._epsilons.owners_of(result):
                self.trace.fixed_epsilons.add(owner.name)

    def _record_outside(self, call: Call) -> None:
        """Outside of every forward an op's tensors keep their scale; copies, such as a move to another device, carry."""
        if call.op in rules.COPIES and call.outputs and not call.inplace:
            exponent = call.tensors()[0] if call.tensors() else PINNED
            if exponent != PINNED:
                self._storages.put(call.outputs[0], exponent)
            return
        self.trace.used.update(call.known.values())
        self.trace.exponents.pin(*call.known.values())

    def _fix_epsilons(self, call: Call) -> None:
        """An epsilon that this op took as another number, such as a factor or a floor, must not change."""
        for value in call.arguments.values():
            owner = self._epsilons.owner(value)
            if owner and value not in self._claimed:
                self.trace.fixed_epsilons.add(owner.name)

    def _is_composite(self, func: Any) -> bool:
        if func not in self._composite:
            self._composite[func] = func._can_decompose()
        return self._composite[func]

    def _record(self, call: Call) -> None:
        """Record the op's range and give its outputs their exponents."""
        frame = self._frames[-1]
        call.place = (frame.key, call.op, frame.ops[call.op])
        frame.ops[call.op] += 1
        self.trace.used.update(call.known.values())
        self.trace.scopes.setdefault(frame.name, set()).update(call.known.values())
        if call.is_blank():
            for output in call.outputs:
                self._storages.put(output, self.unknown_at(call.place))
                if (
                    "empty" in call.op
                ):  # circular padding copies from it before it is written; that is no range
                    output.zero_()
            return
        exponent = rules.apply(call)
        self._note_reads(call)
        if any(call.known.values()) and call.op not in rules.RULES and not call.is_scale_free():
            self.trace.unknown_ops[call.op] += 1
        if not call.outputs:
            return
        site = self.trace.sites.setdefault(call.place, Site(frame.name, call.op))
        if (before := self._storages.get(call.outputs[0])) is not None:
            self.trace.exponents.same(
                before, exponent
            )  # it is memory that others hold, such as after ``set_``
        site.exponents.add(exponent)
        peak = self._measure(site, call.outputs[0])
        self._storages.put(call.outputs[0], exponent, peak)
        if call.op in rules.FULL:
            self._constants.put(call.outputs[0], PINNED)
        self.trace.scopes[frame.name].add(exponent)
        for output, other in zip(call.outputs[1:], rules.beside(call, exponent), strict=True):
            self._storages.put(output, other, peak)

    def _note_reads(self, call: Call) -> None:
        """A copy of a parameter is read as it is by whoever uses the copy; any other op reads the parameter now."""
        if call.op in rules.COPIES and not call.inplace and call.outputs and self._read:
            self._stored.put(call.outputs[0], self._read.pop())
            return
        for exponent in self._read:
            self._note_read(exponent, 0.0)

    def _note_attribute(self, parameter: Tensor) -> None:
        if self._frames and (exponent := self._stored.get(parameter)) is not None:
            self._frames[-1].attributes.add(exponent)

    def _note_passed(self, parameter: Tensor) -> None:
        """A parameter that a forward gets from an iterator is the stored one, whatever the module's attribute shows."""
        exponent = self._stored.get(parameter)
        if self._frames and exponent is not None:
            self._note_read(exponent, 0.0)

    def _note_read(self, exponent: int, number: float) -> None:
        if self.trace.added.setdefault(exponent, number) != number:  # nothing stored can serve both
            self.trace.added[exponent] = 0.0
            self.trace.exponents.pin(exponent)

    def _measure(self, site: Site, output: Tensor) -> float:
        if output.dtype not in HALVES:
            return 0.0
        peak, small = peak_and_quantile(output)
        if math.isnan(peak):
            self.trace.broken.setdefault(site.module, site.op)
            return 0.0
        site.half = True
        site.peak, site.small = max(site.peak, peak), min(site.small, small)
        return peak

    def _exponent(self, tensor: Tensor) -> int:
        """A tensor that no traced op made is an input or a constant and keeps its scale."""
        return self._storages.get(tensor) or PINNED

    # -- the ledger that rules write to (``rules.Ledger``) -----------------------------------------------------------

    @property
    def exponents(self) -> Exponents:
        return self.trace.exponents

    def unknown_at(self, place: tuple) -> int:
        if place not in self.trace.places:
            self.trace.places[place] = self.trace.exponents.new()
        return self.trace.places[place]

    def owned_epsilon(self, value: float) -> bool:
        return self._epsilons.owner(value) is not None

    def epsilon(self, value: float, exponent: int, smallest: float) -> None:
        owner = self._epsilons.owner(value)
        if owner is None:
            self.floor(value, exponent, smallest)
        else:
            self._claimed.add(value)
            self._note(Epsilon(owner.module, owner.attribute, owner.value, exponent, smallest))

    def floor(self, value: float, exponent: int, smallest: float) -> None:
        self._note(Epsilon(self._frames[-1].name, "", value, exponent, smallest))

    def _note(self, found: Epsilon) -> None:
        key = (
            (found.module, found.attribute)
            if found.attribute
            else (found.module, "", found.value, found.exponent)
        )
        known = self.trace.epsilons.setdefault(key, found)
        self.trace.exponents.same(known.exponent, found.exponent)
        known.smallest = min(known.smallest, found.smallest)

    def adds_to_parameter(self, tensor: Tensor, number: float) -> bool:
        exponent = self._stored.get(tensor)
        if exponent is None or exponent not in self._frames[-1].attributes:
            return False  # read past the attribute, which alone a fold can change
        self._read.discard(exponent)
        self._note_read(exponent, number)
        return True

    def is_constant(self, tensor: Tensor) -> bool:
        return self._storages.get(tensor) is None or self._constants.get(tensor) is not None


# -- helpers -----------------------------------------------------------------------------------------------------


def _untraceable(op: str, en: str, zh: str) -> Unfit:
    return Unfit(
        f"The model runs {op} {en}, which a trace cannot follow, so the model is not folded; use bfloat16.",
        f"该模型{zh}运行 {op}，无法追踪，因此不折叠；请使用 bfloat16。",
    )


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()

"""Trace a run: record how every tensor's scale depends on the parameters, and how large each tensor gets.

``rules`` gives the relations of one op. This file identifies the tensors, locates each op in the program and
measures its output. It depends on no architecture and chooses no exponents (``solve`` does).

Tensors are identified by weak references to their storage, so the trace keeps no tensor alive. Sampling steps
that run the same op in the same module call are merged into one ``Site``. Memory therefore grows with the
size of the program, not with the number of steps.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from starrynight.numerics import rules
from starrynight.numerics.dtypes import HALVES
from starrynight.numerics.modules import Modules, named_tensors, tensors_in, watching
from starrynight.numerics.rules import MASK, PINNED, Call, Exponents

# The low quantile is taken from this many elements of a tensor; values below it may become subnormal in
# float16.
SAMPLE, QUANTILE = 2048, 0.1


@dataclass
class Parameter:
    """A parameter or buffer. ``kept``: a checkpoint stores it, which is false for non-persistent buffers.

    ``peak`` is max|x|, ``small`` the low quantile of |x|; ``half``: it is in 16 bits during the run.
    """

    name: str
    exponent: int
    peak: float
    small: float
    half: bool
    kept: bool


@dataclass
class Site:
    """One op at one place of the program, over all steps. ``exponents`` of its output, usually one."""

    module: str
    op: str
    half: bool = False
    peak: float = 0.0
    small: float = math.inf
    exponents: set[int] = field(default_factory=set)


@dataclass
class Epsilon:
    """A constant that a module adds to a quantity with ``exponent``, to keep a quotient finite.

    ``module`` and ``attribute`` name where it can be rescaled; ``attribute`` is "" if no module attribute
    holds it. ``smallest`` is the smallest quantity it was added to.
    """

    module: str
    attribute: str
    value: float
    exponent: int
    smallest: float = math.inf


@dataclass
class Trace:
    """The scale relations and the ranges of a run.

    ``inputs`` and ``outputs``: module name → {exponent: peak} of the 16-bit tensors that cross its boundary.
    ``used``: exponents that some op read; a parameter outside it was never exercised and must not change.
    ``unknown_ops`` counts ops without a rule. ``broken``: module name → the op that made a NaN there.
    ``places`` numbers the module calls and unknowns of the program, so that a later step or run reuses them.
    """

    exponents: Exponents = field(default_factory=Exponents)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    sites: dict[tuple, Site] = field(default_factory=dict)
    epsilons: dict[tuple, Epsilon] = field(default_factory=dict)
    inputs: dict[str, dict[int, float]] = field(default_factory=dict)
    outputs: dict[str, dict[int, float]] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    unknown_ops: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    places: dict[tuple, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Equal traces give equal texts. Infinities are written as ``Infinity``, which only Python reads."""
        return json.dumps({
            "exponents": self.exponents.as_data(),
            "parameters": [asdict(parameter) for parameter in self.parameters.values()],
            "sites": [[key, {**asdict(site), "exponents": sorted(site.exponents)}] for key, site in self.sites.items()],
            "epsilons": [[key, asdict(epsilon)] for key, epsilon in self.epsilons.items()],
            "inputs": _listed(self.inputs),
            "outputs": _listed(self.outputs),
            "used": sorted(self.used),
            "unknown_ops": dict(self.unknown_ops),
            "broken": self.broken,
            "places": [[key, number] for key, number in self.places.items()],
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """Read the output of ``to_json``. Raises ValueError, KeyError or TypeError for anything else."""
        payload = json.loads(text)
        parameters = [Parameter(**entry) for entry in payload["parameters"]]
        return cls(
            exponents=Exponents.from_data(payload["exponents"]),
            parameters={parameter.name: parameter for parameter in parameters},
            sites={
                _tuple(key): Site(**{**entry, "exponents": set(entry["exponents"])})
                for key, entry in payload["sites"]
            },
            epsilons={_tuple(key): Epsilon(**entry) for key, entry in payload["epsilons"]},
            inputs={name: dict(entries) for name, entries in payload["inputs"].items()},
            outputs={name: dict(entries) for name, entries in payload["outputs"].items()},
            used=set(payload["used"]),
            unknown_ops=Counter(payload["unknown_ops"]),
            broken=payload["broken"],
            places={_tuple(key): number for key, number in payload["places"]},
        )


def trace_modules(modules: Modules, run: Callable[[], object], into: Trace | None = None) -> Trace:
    """Call ``run`` and return the trace of ``modules`` (one module, or several by name).

    The modules should be in bfloat16; sections that they compute in float32 are then recognised and not
    constrained. Inputs and outputs of the outermost module calls keep their scale. ``into`` continues an
    earlier trace of the same modules and is returned.
    """
    tracer = Tracer(modules, into)
    with torch.no_grad(), tracer.hooks(), tracer:
        run()
    return tracer.trace


@dataclass
class _Frame:
    """A running module. ``key`` identifies the call in the program; the counters number its ops and children."""

    module: nn.Module
    name: str
    key: int
    ops: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


class Tracer(TorchDispatchMode):
    """The dispatch mode behind ``trace_modules``."""

    def __init__(self, modules: Modules, into: Trace | None = None) -> None:
        super().__init__()
        self.trace = into or Trace()
        self._modules = modules
        self._storages = _Storages()
        self._frames: list[_Frame] = []
        self._composite: dict[Any, bool] = {}

    # -- modules ---------------------------------------------------------------------------------------------------

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Track the running module within this context."""
        self._add_parameters()
        with watching(self._modules, self._enter_module, self._leave_module):
            yield

    def _add_parameters(self) -> None:
        """Give every parameter and buffer an exponent; tied parameters share a storage and so the exponent."""
        for name, tensor, kept in named_tensors(self._modules):
            exponent = self._storages.get(tensor)
            known = self.trace.parameters.get(name)
            if exponent is None:
                exponent = known.exponent if known else self.trace.exponents.new()
                self._storages.put(tensor, exponent)
            if known is None:
                peak, small = peak_and_quantile(tensor)
                half = tensor.dtype in HALVES
                self.trace.parameters[name] = Parameter(name, exponent, peak, small, half, kept)

    def _enter_module(self, name: str, module: nn.Module, inputs: Any) -> None:
        if self._frames:
            parent = self._frames[-1]
            call = (parent.key, name, parent.calls[name])
            parent.calls[name] += 1
        else:
            call = (-1, name, 0)  # every sampling step is the same place of the program
        key = self.trace.places.setdefault(call, len(self.trace.places))
        self._frames.append(_Frame(module, name, key))
        self._cross(self.trace.inputs.setdefault(name, {}), tensors_in(inputs))

    def _leave_module(self, name: str, module: nn.Module, output: Any) -> None:
        self._frames.pop()
        results = list(tensors_in(output))
        self._cross(self.trace.outputs.setdefault(name, {}), results)
        if not self._frames:
            self.trace.exponents.pin(*map(self._exponent, results))

    def _cross(self, boundary: dict[int, float], tensors: Iterable[Tensor]) -> None:
        """Record the exponents and peaks of the 16-bit tensors that enter or leave a module."""
        for tensor in tensors:
            if tensor.dtype in HALVES:
                exponent, peak = self._exponent(tensor), self._storages.peak(tensor)
                boundary[exponent] = max(boundary.get(exponent, 0.0), peak)

    # -- one op --------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not self._frames:
            return func(*args, **kwargs)
        if self._is_composite(func):  # inference mode does not decompose such ops before dispatch
            with self:
                return func.decompose(*args, **kwargs)
        known = {id(t): self._exponent(t) for t in tensors_in((args, kwargs)) if _is_real(t)}
        result = func(*args, **kwargs)
        if not _is_view(func):
            call = Call(self, func, args, kwargs, known)
            call.outputs = [t for t in tensors_in(result) if _is_real(t)]
            self._record(call)
        return result

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
        if call.is_blank():
            for output in call.outputs:
                self._storages.put(output, self.unknown_at(call.place))
            return
        exponent = rules.apply(call)
        if any(call.known.values()) and call.op not in rules.RULES and not call.is_scale_free():
            self.trace.unknown_ops[call.op] += 1
        if not call.outputs:
            return
        site = self.trace.sites.setdefault(call.place, Site(frame.name, call.op))
        site.exponents.add(exponent)
        peak = self._measure(site, call.outputs[0])
        self._storages.put(call.outputs[0], exponent, peak)
        # Further outputs are parts of the same tensor, or statistics that a forward pass does not use.
        beside = exponent if call.op in rules.PARTS else PINNED
        for output in call.outputs[1:]:
            self._storages.put(output, beside, peak)

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

    def owned_epsilon(self, value: float) -> str:
        owned = (name for name, v in vars(self._frames[-1].module).items() if "eps" in name and v == value)
        return next(owned, "")

    def epsilon(self, value: float, exponent: int, smallest: float) -> None:
        frame, attribute = self._frames[-1], self.owned_epsilon(value)
        key = (frame.name, attribute) if attribute else (frame.name, "", exponent)
        known = self.trace.epsilons.get(key)
        if known is None:
            known = self.trace.epsilons[key] = Epsilon(frame.name, attribute, value, exponent)
        self.trace.exponents.same(known.exponent, exponent)
        known.smallest = min(known.smallest, smallest)


class _Storages:
    """Exponent and peak of every live storage, shared by all views of it.

    The weak reference frees the data but keeps the storage's address from being reused, so that a stale entry
    cannot match a new tensor.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[StorageWeakRef, int, float]] = {}
        self._sweep_at = 1024

    def get(self, tensor: Tensor) -> int | None:
        entry = self._entries.get(tensor.untyped_storage()._cdata)
        return entry[1] if entry else None

    def peak(self, tensor: Tensor) -> float:
        entry = self._entries.get(tensor.untyped_storage()._cdata)
        return entry[2] if entry else 0.0

    def put(self, tensor: Tensor, exponent: int, peak: float = 0.0) -> None:
        storage = tensor.untyped_storage()
        old = self._entries.get(storage._cdata)
        self._entries[storage._cdata] = (old[0] if old else StorageWeakRef(storage), exponent, peak)
        if len(self._entries) > self._sweep_at:
            self._entries = {key: entry for key, entry in self._entries.items() if not entry[0].expired()}
            self._sweep_at = max(1024, 2 * len(self._entries))


# -- helpers -----------------------------------------------------------------------------------------------------


def peak_and_quantile(tensor: Tensor) -> tuple[float, float]:
    """(max|x|, low quantile of |x|) without zeros and mask values. The peak is NaN if any value is NaN."""
    if not tensor.numel() or tensor.is_complex():
        return 0.0, math.inf
    peak = torch.linalg.vector_norm(tensor, math.inf).item()
    if peak > MASK:
        rest = tensor.abs()
        peak = rest.masked_fill(rest > MASK, 0).amax().item()
    sample = tensor.reshape(-1)
    if len(sample) > 4 * SAMPLE:
        sample = sample[_sample_indices(len(sample)).to(tensor.device)]
    sample = sample.abs().float()
    sample = sample[(sample > 0) & (sample < MASK)]
    return peak, sample.quantile(QUANTILE).item() if sample.numel() else math.inf


@lru_cache(256)
def _sample_indices(count: int) -> Tensor:
    """Indices of the elements to sample out of ``count``, the same every time.

    Random, because evenly spaced elements may all be in one channel: every 7680th is, at a width of 3840.
    """
    return torch.randint(count, (SAMPLE,), generator=torch.Generator().manual_seed(0))


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _is_view(func: Any) -> bool:
    """Outputs share the memory of an input that is not written."""
    returns = [r.alias_info for r in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returns)


def _listed(boundaries: Mapping[str, Mapping[int, float]]) -> dict[str, list[tuple[int, float]]]:
    """Pairs instead of mappings, because JSON's keys are strings and these are numbers."""
    return {name: list(peaks.items()) for name, peaks in boundaries.items()}


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value

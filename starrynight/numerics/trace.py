"""Watch a run and write down how every tensor's scale depends on the parameters, and how large each tensor gets.

Every tensor t carries an unknown integer exponent e: it is stored as its true value × 2^e. Each aten op relates the
exponents of its inputs and outputs (a product adds them, a sum makes them equal, a norm forgets its input's); what
has no scale symmetry pins them to 0, which is always safe. The table of ops is in ``RULES``.

Knows ops and modules, nothing about any architecture; it chooses no exponent (``solve`` does). Nothing is kept
alive: tensors are known by weak references to their storage, and the steps of a run that pass the same place of
the program are merged, so memory grows with the size of the program and not with the length of the run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

HALF = (torch.float16, torch.bfloat16)

# A mask is written as the lowest number of its format (−3.4e38 in bfloat16, −65504 in float16): it follows the
# format and is no activation. No activation is this large: bfloat16 itself would break one product later.
MASK = 2.0**100

# Elements looked at for the low quantile of a tensor, and that quantile: below it, values may become subnormal.
SAMPLE, QUANTILE = 2048, 0.1

PINNED = 0


class Exponents:
    """Integer unknowns and the linear relations between them. Unknown 0 is the number 0.

    Equal unknowns are merged at once (union-find); what remains are relations Σ coefficient · unknown = 0.
    """

    def __init__(self) -> None:
        self._parent = [PINNED]
        self._relations: dict[tuple[tuple[int, int], ...], None] = {}

    def new(self) -> int:
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def __len__(self) -> int:
        return len(self._parent)

    def root(self, unknown: int) -> int:
        while self._parent[unknown] != unknown:
            self._parent[unknown] = self._parent[self._parent[unknown]]
            unknown = self._parent[unknown]
        return unknown

    def same(self, *unknowns: int) -> None:
        roots = sorted({self.root(unknown) for unknown in unknowns})
        for other in roots[1:]:  # the smallest becomes the root, so that 0 stays 0
            self._parent[other] = roots[0]

    def pin(self, *unknowns: int) -> None:
        self.same(PINNED, *unknowns)

    def relate(self, *terms: tuple[int, int]) -> None:
        """Σ coefficient · unknown = 0 over ``terms`` of (unknown, coefficient)."""
        self._relations[terms] = None

    def relations(self) -> list[dict[int, int]]:
        """The distinct relations between roots, as {root: coefficient}, in the order they were met."""
        distinct: dict[tuple[tuple[int, int], ...], None] = {}
        for terms in self._relations:
            total: Counter[int] = Counter()
            for unknown, coefficient in terms:
                total[self.root(unknown)] += coefficient
            reduced = tuple(sorted((u, c) for u, c in total.items() if c and u != PINNED))
            if reduced:
                distinct[reduced] = None
        return [dict(terms) for terms in distinct]


@dataclass
class Parameter:
    """A parameter or buffer. ``kept``: a checkpoint stores it (a non-persistent buffer it does not).

    ``peak`` is max|x|, ``small`` the low quantile of |x|; ``half``: held in 16 bits during the run.
    """

    name: str
    exponent: int
    peak: float
    small: float
    half: bool
    kept: bool


@dataclass
class Site:
    """One op at one place of the program, all of its runs merged. ``exponents`` had there: usually one."""

    module: str
    op: str
    half: bool = False
    peak: float = 0.0
    small: float = math.inf
    exponents: set[int] = field(default_factory=set)


@dataclass
class Epsilon:
    """A constant that a module adds to a quantity (``exponent``) to keep a quotient finite.

    ``module`` and ``attribute`` say where it is written and can be rescaled; ``attribute`` is "" where no module
    owns it. ``smallest`` is the smallest quantity it was added to.
    """

    module: str
    attribute: str
    value: float
    exponent: int
    smallest: float = math.inf


@dataclass
class Trace:
    """What a run taught: the relations, the ranges, and what crossed the boundary of every module in 16 bits.

    ``inputs`` and ``outputs`` give {exponent: peak} by module name. ``unknown_ops`` counts ops that no rule knows,
    ``broken`` names the modules that made a NaN, and the op. ``places`` numbers the calls and the unknowns of the
    program, so that a later step, or a later run, finds its own again.
    """

    exponents: Exponents = field(default_factory=Exponents)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    sites: dict[tuple, Site] = field(default_factory=dict)
    epsilons: dict[tuple, Epsilon] = field(default_factory=dict)
    inputs: dict[str, dict[int, float]] = field(default_factory=dict)
    outputs: dict[str, dict[int, float]] = field(default_factory=dict)
    unknown_ops: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    places: dict[tuple, int] = field(default_factory=dict)


def trace(
    modules: nn.Module | Mapping[str, nn.Module], run: Callable[[], object], into: Trace | None = None
) -> Trace:
    """Call ``run`` and return what it taught about ``modules`` (a module, or several by name).

    The modules should hold bfloat16: sections that they keep in float32 are then seen as such. Inputs and outputs of
    the outermost module calls keep their scale. ``into`` goes on with an earlier trace of the same modules.
    """
    tracer = Tracer(modules, into)
    with tracer.hooks(), tracer, torch.no_grad():
        run()
    return tracer.trace


@dataclass
class _Frame:
    """A module that is running. ``key`` tells this call from others of the program; counters number its parts."""

    module: nn.Module
    name: str
    key: int
    ops: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


class Tracer(TorchDispatchMode):
    """The dispatch mode behind ``trace``."""

    def __init__(self, modules: nn.Module | Mapping[str, nn.Module], into: Trace | None = None) -> None:
        super().__init__()
        self.trace = into or Trace()
        self._roots = dict(modules) if isinstance(modules, Mapping) else {"": modules}
        self._names = {module: name for name, module in named_modules(self._roots)}
        self._storages = _Storages()
        self._frames: list[_Frame] = []
        self._composite: dict[Any, bool] = {}

    # -- modules ---------------------------------------------------------------------------------------------------

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Know which module is running, while this lasts."""
        self._adopt_parameters()
        handles = []
        for module in self._names:
            handles.append(module.register_forward_pre_hook(self._enter_module, with_kwargs=True))
            handles.append(
                module.register_forward_hook(self._leave_module, with_kwargs=True, always_call=True)
            )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _adopt_parameters(self) -> None:
        """Give every parameter and buffer an unknown. Tied ones share a storage, hence the unknown."""
        for name, tensor, kept in named_tensors(self._roots):
            exponent = self._storages.get(tensor)
            known = self.trace.parameters.get(name)
            if exponent is None:
                exponent = known.exponent if known else self.trace.exponents.new()
                self._storages.put(tensor, exponent)
            if known is None:
                peak, small = measure(tensor)
                half = tensor.dtype in HALF
                self.trace.parameters[name] = Parameter(name, exponent, peak, small, half, kept)

    def _enter_module(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        name = self._names[module]
        if self._frames:
            parent = self._frames[-1]
            call = (parent.key, name, parent.calls[name])
            parent.calls[name] += 1
        else:
            call = (-1, name, 0)  # every step of a run is the same place of the program
        key = self.trace.places.setdefault(call, len(self.trace.places))
        self._frames.append(_Frame(module, name, key))
        self._cross(self.trace.inputs.setdefault(name, {}), tensors_in((args, kwargs)))

    def _leave_module(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        self._frames.pop()
        name = self._names[module]
        results = list(tensors_in(output))
        self._cross(self.trace.outputs.setdefault(name, {}), results)
        if not self._frames:
            self.trace.exponents.pin(*map(self._exponent, results))

    def _cross(self, boundary: dict[int, float], tensors: Iterable[Tensor]) -> None:
        """Remember the exponents and peaks of the 16-bit tensors that enter or leave a module."""
        for tensor in tensors:
            if tensor.dtype in HALF:
                exponent, peak = self._exponent(tensor), self._storages.peak(tensor)
                boundary[exponent] = max(boundary.get(exponent, 0.0), peak)

    # -- one op --------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not self._frames:
            return func(*args, **kwargs)
        if self._is_composite(func):  # in inference mode such ops arrive whole
            with self:
                return func.decompose(*args, **kwargs)
        inputs = [t for t in tensors_in((args, kwargs)) if _is_real(t)]
        known = {id(t): self._exponent(t) for t in inputs}
        result = func(*args, **kwargs)
        if not _is_view(func):
            outputs = [t for t in tensors_in(result) if _is_real(t)]
            self._learn(_Call(self, func, args, kwargs, known, outputs))
        return result

    def _is_composite(self, func: Any) -> bool:
        if func not in self._composite:
            self._composite[func] = func._can_decompose()
        return self._composite[func]

    def _learn(self, call: _Call) -> None:
        """Record the op's range and the exponents of its outputs."""
        frame = self._frames[-1]
        call.place = (frame.key, call.op, frame.ops[call.op])
        frame.ops[call.op] += 1
        if call.is_blank():
            for output in call.outputs:
                self._storages.put(output, call.unknown())
            return
        exponent = self._apply_rule(call)
        if not call.outputs:
            return
        site = self.trace.sites.setdefault(call.place, Site(frame.name, call.op))
        site.exponents.add(exponent)
        peak = self._measure(site, call.outputs[0])
        self._storages.put(call.outputs[0], exponent, peak)
        for output in call.outputs[
            1:
        ]:  # other parts of the same, or statistics that nobody reads in a forward pass
            self._storages.put(output, exponent if call.op in PARTS else PINNED, peak)

    def _apply_rule(self, call: _Call) -> int:
        """The exponent of the op's outputs."""
        if not any(call.known.values()):
            return PINNED  # only constants went in
        if not call.outputs:
            return PINNED if call.is_scale_free() else _pin(call)
        if call.op not in RULES:
            self.trace.unknown_ops[call.op] += 1
        exponent = RULES.get(call.op, _pin)(call)
        if call.inplace:  # other views of the storage must agree, so its scale may not change under them
            exponent = call.same(exponent, call.exponent(call.written))
        return exponent

    def _measure(self, site: Site, output: Tensor) -> float:
        if output.dtype not in HALF:
            return 0.0
        peak, small = measure(output)
        if math.isnan(peak):
            self.trace.broken.setdefault(site.module, site.op)
            return 0.0
        site.half = True
        site.peak, site.small = max(site.peak, peak), min(site.small, small)
        return peak

    def _exponent(self, tensor: Tensor) -> int:
        """A tensor that no traced op made is an input or a constant: it keeps its scale."""
        return self._storages.get(tensor) or PINNED

    # -- what rules ask ------------------------------------------------------------------------------------------

    def unknown_at(self, place: tuple) -> int:
        """The unknown that belongs to a place of the program, the same in every step."""
        if place not in self.trace.places:
            self.trace.places[place] = self.trace.exponents.new()
        return self.trace.places[place]

    def epsilon(self, value: float, exponent: int, smallest: float) -> None:
        """``value`` is added to a quantity with ``exponent``, whose smallest measured value is given."""
        frame = self._frames[-1]
        owned = (name for name, v in vars(frame.module).items() if "eps" in name and v == value)
        attribute = next(owned, "")
        key = (frame.name, attribute) if attribute else (frame.name, "", exponent)
        known = self.trace.epsilons.get(key)
        if known is None:
            known = self.trace.epsilons[key] = Epsilon(frame.name, attribute, value, exponent)
        self.trace.exponents.same(known.exponent, exponent)
        known.smallest = min(known.smallest, smallest)


class _Storages:
    """Exponent and peak of every living storage. All views of a storage share them.

    A weak reference keeps the storage's address from being used again, so that a stale entry cannot be mistaken
    for a new tensor; its data is freed as usual.
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


# -- rules: what an op says about exponents ------------------------------------------------------------------------


class _Call:
    """One call of one op, as a rule sees it: arguments by name, and the exponents that are known of them."""

    def __init__(
        self, tracer: Tracer, func: Any, args: tuple, kwargs: dict, known: dict[int, int], outputs: list
    ) -> None:
        self.tracer, self.known, self.outputs = tracer, known, outputs
        names = [argument.name for argument in func._schema.arguments]
        self.arguments = dict(zip(names, args, strict=False)) | kwargs
        self.inplace = func._schema.is_mutable
        name = func._schema.name.split("::")[1]
        self.op = name.removesuffix("_") if self.inplace else name
        self.written = args[0] if args else None
        self.place: tuple = ()

    def exponent(self, value: Any) -> int:
        return self.known.get(id(value), PINNED) if isinstance(value, Tensor) else PINNED

    def __getitem__(self, argument: str) -> int:
        return self.exponent(self.arguments.get(argument))

    def unknown(self) -> int:
        return self.tracer.unknown_at(self.place)

    def tensors(self) -> list[int]:
        return list(self.known.values())

    def is_blank(self) -> bool:
        """Whether the op makes zeros, or memory not yet written: neither has a scale of its own."""
        return self.op in BLANK or (self.op in FULL and self.arguments["fill_value"] == 0)

    def is_scale_free(self) -> bool:
        """Whether an op without floating outputs answers the same at every scale."""
        other = self.arguments.get("other")
        number = not isinstance(other, Tensor) and other in (0, math.inf, -math.inf)
        return self.op in SCALE_FREE or (self.op in COMPARISONS and number)

    def combine(self, *terms: tuple[int, int], divisor: int = 1) -> int:
        """A new exponent: Σ coefficient · exponent / divisor."""
        moving = [(unknown, coefficient) for unknown, coefficient in terms if unknown != PINNED]
        if not moving:
            return PINNED
        if len(moving) == 1 and moving[0][1] == divisor:
            return moving[0][0]
        result = self.unknown()
        self.tracer.trace.exponents.relate((result, divisor), *((u, -c) for u, c in moving))
        return result

    def same(self, *exponents: int) -> int:
        self.tracer.trace.exponents.same(*exponents)
        return exponents[0]


Rule = Callable[[_Call], int]


def _pin(call: _Call) -> int:
    """No scale symmetry, or none that is known: inputs and outputs keep their scale."""
    call.tracer.trace.exponents.pin(*call.tensors())
    return PINNED


def _carry(call: _Call) -> int:
    """One input, moved, reduced or multiplied by a constant."""
    return call.tensors()[0]


def _equal(call: _Call) -> int:
    """Inputs that end up in one tensor."""
    scalars = [
        v
        for k, v in call.arguments.items()
        if k in ("value", "other", "source") and not isinstance(v, Tensor)
    ]
    if any(isinstance(v, int | float) and v != 0 and math.isfinite(v) for v in scalars):
        return _pin(call)
    return call.same(*(_ignoring_neutral(call) or [PINNED]))


def _ignoring_neutral(call: _Call) -> list[int]:
    """Exponents of the inputs, but for single numbers 0 and ±Inf, which have no scale."""
    exponents = []
    for value in tensors_in(tuple(call.arguments.values())):
        if id(value) not in call.known:
            continue
        if value.dim() == 0 and call.exponent(value) == PINNED and value.item() in (0.0, math.inf, -math.inf):
            continue
        exponents.append(call.exponent(value))
    return exponents


def _add(call: _Call) -> int:
    """A sum. A constant beside it is an epsilon that some module owns, or it pins the tensor."""
    other = call.arguments["other"]
    if isinstance(other, Tensor):
        return call.same(*(_ignoring_neutral(call) or [PINNED]))
    if other == 0:
        return call["self"]
    if call.op != "add" or not 0 < other <= MODEST:
        return _pin(call)
    call.tracer.epsilon(float(other), call["self"], _smallest(call.arguments["self"]))
    return call["self"]


def _mul(call: _Call) -> int:
    return call.combine((call["self"], 1), (call["other"], 1))


def _matrix_product(call: _Call) -> int:
    names = (
        ("self", "mat2")
        if "mat2" in call.arguments
        else ("self", "vec")
        if "vec" in call.arguments
        else ("self", "other")
    )
    return call.combine(*((call[name], 1) for name in names))


def _product_with_sum(call: _Call) -> int:
    """β·self + α·(a @ b); β = 0 is how attention asks for a scaled product."""
    _, a, b, *_ = call.arguments.values()
    product = call.combine((call.exponent(a), 1), (call.exponent(b), 1))
    return product if call.arguments.get("beta", 1) == 0 else call.same(product, call["self"])


def _fused_product(call: _Call) -> int:
    """addcmul: self + value · a · b."""
    return call.same(call.combine((call["tensor1"], 1), (call["tensor2"], 1)), call["self"])


def _linear(call: _Call) -> int:
    """Convolution and linear: products with a weight, then a bias."""
    product = call.combine((call["input"], 1), (call["weight"], 1))
    return call.same(product, call["bias"]) if call.arguments.get("bias") is not None else product


def _div(call: _Call) -> int:
    if call.arguments.get("rounding_mode"):
        return _pin(call)
    return call.combine((call["self"], 1), (call["other"], -1))


def _power(call: _Call) -> int:
    exponent = call.arguments.get("exponent")
    if not isinstance(exponent, int | float) or 2 * exponent != int(2 * exponent):
        return _pin(call)
    return call.combine((call["self"], int(2 * exponent)), divisor=2)


def _root(call: _Call) -> int:
    return call.combine((call["self"], 1), divisor=2)


def _inverse_root(call: _Call) -> int:
    return call.combine((call["self"], -1), divisor=2)


def _square(call: _Call) -> int:
    return call.combine((call["self"], 2))


def _reciprocal(call: _Call) -> int:
    return call.combine((call["self"], -1))


def _norm(call: _Call) -> int:
    """Layer, group and RMS norm: the input's scale is forgotten, up to the epsilon beside its variance."""
    value = call.arguments.get("eps")
    inverse_deviation = call.outputs[-1].abs().amax().item() if call.outputs[-1].numel() else 0.0
    value = torch.finfo(call.outputs[0].dtype).eps if value is None else float(value)
    if value:
        smallest = max(0.0, 1 / inverse_deviation**2 - value) if inverse_deviation else 0.0
        call.tracer.epsilon(value, _variance(call, call["input"]), smallest)
    weight = call["weight"] if call.arguments.get("weight") is not None else PINNED
    return call.same(weight, call["bias"]) if call.arguments.get("bias") is not None else weight


def _batch_norm(call: _Call) -> int:
    """In evaluation: (x − mean) / √(variance + eps) · weight + bias, all of them stored."""
    if call.arguments.get("training"):
        return _norm(call)
    call.same(call["input"], call["running_mean"])
    variance = call.same(_variance(call, call["input"]), call["running_var"])
    call.tracer.epsilon(float(call.arguments["eps"]), variance, _smallest(call.arguments["running_var"]))
    weight = call["weight"] if call.arguments.get("weight") is not None else PINNED
    return call.same(weight, call["bias"]) if call.arguments.get("bias") is not None else weight


def _variance(call: _Call, exponent: int) -> int:
    """Twice an exponent, as an unknown of its own."""
    if exponent == PINNED:
        return PINNED
    variance = call.tracer.unknown_at((*call.place, "variance"))
    call.tracer.trace.exponents.relate((variance, 1), (exponent, -2))
    return variance


def _attention(call: _Call) -> int:
    """softmax(q·k) v: the products must keep their scale, the values carry theirs through."""
    call.tracer.trace.exponents.relate((call["query"], 1), (call["key"], 1))
    return call["value"]


def _embedding(call: _Call) -> int:
    return call["weight"]


def _pad(call: _Call) -> int:
    return _carry(call) if not call.arguments.get("value", 0) else _pin(call)


def _masked_fill(call: _Call) -> int:
    value = call.arguments.get("value")
    number = value.item() if isinstance(value, Tensor) else call.arguments["value"]
    return call["self"] if number == 0 or abs(number) > MASK else _pin(call)


def _overwrite(call: _Call) -> int:
    """copy_: the storage receives another tensor."""
    return call.same(call["self"], call["src"])


def _fill(call: _Call) -> int:
    return _pin(call) if call.arguments.get("value", 0) else call["self"]


# A constant larger than this is no epsilon: the 1 of “1 + scale” is one of the model's own numbers.
MODEST = 1e-2

RULES: dict[str, Rule] = {
    **dict.fromkeys((
        "_to_copy", "clone", "contiguous", "_unsafe_view", "_reshape_copy", "lift_fresh_copy", "repeat", "roll", "flip",
        "index_select", "_unsafe_index", "gather", "index", "repeat_interleave", "sort", "topk", "tril", "triu",
        "im2col", "col2im", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "reflection_pad2d", "replication_pad2d",
        "neg", "abs", "relu", "nan_to_num", "_conj_physical", "native_dropout", "zero",
        "mean", "sum", "cumsum", "amax", "amin", "std", "linalg_vector_norm",
        "avg_pool2d", "_adaptive_avg_pool2d", "max_pool2d_with_indices",
        "upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d",
        "upsample_bicubic2d", "_upsample_bilinear2d_aa",
        "alias_copy", "detach_copy", "expand_copy", "permute_copy", "view_copy", "unfold_copy", "split_copy",
        "split_with_sizes_copy", "unbind_copy", "view_as_real_copy", "view_as_complex_copy"), _carry),
    **dict.fromkeys((
        "cat", "stack", "where", "index_put", "index_copy", "index_add", "slice_scatter", "select_scatter", "scatter",
        "masked_scatter", "maximum", "minimum", "max", "min"), _equal),
    **dict.fromkeys((
        "silu", "gelu", "tanh", "sigmoid", "hardswish", "mish", "elu", "softplus", "exp", "log", "sin", "cos", "erf",
        "_softmax", "_log_softmax", "_safe_softmax", "clamp", "clamp_min", "hardtanh"), _pin),
    **dict.fromkeys(("add", "sub", "rsub"), _add),
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), _matrix_product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _product_with_sum),
    **dict.fromkeys(("convolution", "linear", "_convolution", "mkldnn_convolution"), _linear),
    **dict.fromkeys(("native_layer_norm", "native_group_norm", "_fused_rms_norm"), _norm),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), _batch_norm),
    **dict.fromkeys((
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable"), _attention),
    "addcmul": _fused_product,
    "mul": _mul,
    "div": _div,
    "pow": _power,
    "square": _square,
    "var": _square,
    "sqrt": _root,
    "rsqrt": _inverse_root,
    "reciprocal": _reciprocal,
    "embedding": _embedding,
    "constant_pad_nd": _pad,
    "masked_fill": _masked_fill,
    "copy": _overwrite,
    "fill": _fill,
}  # fmt: skip

BLANK = frozenset((
    "zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided",
))  # fmt: skip
FULL = frozenset(("full", "full_like", "new_full"))

# Ops whose outputs are all parts of the input.
PARTS = frozenset(("split_copy", "split_with_sizes_copy", "unbind_copy"))

# Ops without floating outputs whose answer does not depend on a (positive) scale.
SCALE_FREE = frozenset(
    ("isnan", "isinf", "isfinite", "argmax", "argmin", "argsort", "logical_not", "signbit")
)
COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))


# -- small things ------------------------------------------------------------------------------------------------


def measure(tensor: Tensor) -> tuple[float, float]:
    """(max|x|, low quantile of |x|) among values that are neither 0 nor a mask's; the peak is NaN if any value is."""
    if not tensor.numel() or tensor.is_complex():
        return 0.0, math.inf
    peak = torch.linalg.vector_norm(tensor, math.inf).item()
    if peak > MASK:
        rest = tensor.abs()
        peak = rest.masked_fill(rest > MASK, 0).amax().item()
    sample = tensor.reshape(-1)[:: max(1, tensor.numel() // SAMPLE)].abs().float()
    sample = sample[(sample > 0) & (sample < MASK)]
    return peak, sample.quantile(QUANTILE).item() if sample.numel() else math.inf


def _smallest(tensor: Tensor) -> float:
    """The smallest non-zero magnitude: rows of zeros (padding) give 0 with any epsilon."""
    magnitudes = tensor.abs()
    return magnitudes[magnitudes > 0].amin().item() if bool((magnitudes > 0).any()) else math.inf


def named_modules(roots: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    for prefix, root in roots.items():
        for name, module in root.named_modules():
            yield ".".join(part for part in (prefix, name) if part), module


def named_tensors(roots: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor, bool]]:
    """(name, tensor, stored in a checkpoint) of every floating parameter and buffer, tied ones under each name."""
    for name, module in named_modules(roots):
        for own, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and tensor.is_floating_point():
                yield (
                    ".".join(p for p in (name, own) if p),
                    tensor,
                    own not in module._non_persistent_buffers_set,
                )


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dataclass_fields__"):
        for item in vars(value).values():
            yield from tensors_in(item)


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _is_view(func: Any) -> bool:
    """Outputs share the memory of an input that is not written."""
    returns = [r.alias_info for r in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returns)

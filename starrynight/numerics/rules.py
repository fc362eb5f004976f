"""The scale rules of range folding: what each aten op requires of the exponents of its tensors.

Every tensor is stored as its true value × 2^e. A product adds exponents, a sum makes them equal, and the
output of a norm does not depend on its input's. An op without a scale symmetry or without a rule pins its
tensors to e = 0, which is always safe. A rule sees one op; it uses no module, no range and no plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from starrynight.numerics.exponents import PINNED, Exponents
from starrynight.numerics.modules import tensors_in

# Attention masks are written as the lowest number of their format (−3.4e38 in bfloat16). They follow the
# format and are no activations. No activation is larger than this: in bfloat16 its product with another would
# overflow.
MASK = 2.0**100
# Masks that float16 holds: its lowest number, which PyTorch also writes for cuDNN's attention
# (``convert_boolean_attn_mask_cudnn``), and that of BERT and diffusers. They do not grow with the input.
MASKS = (-65504.0, -10000.0)

# A larger added constant counts as part of the model, like the 1 of "1 + scale", and not as an epsilon. An
# exception is one that the module itself names an epsilon: in an already folded model it may have any size.
LARGEST_EPSILON = 1e-2


class Ledger(Protocol):
    """Records what the rules find; ``trace.Tracer`` is one."""

    @property
    def exponents(self) -> Exponents: ...

    def unknown_at(self, place: tuple) -> int:
        """The unknown of a place in the program, the same in every step."""

    def owned_epsilon(self, value: float) -> bool:
        """Whether ``value`` is read from a module's attribute that is named an epsilon."""

    def epsilon(self, value: float, exponent: int, smallest: float) -> None:
        """Record that ``value`` is added to a quantity with ``exponent``, whose smallest magnitude is
        ``smallest``.
        """

    def floor(self, value: float, exponent: int, smallest: float) -> None:
        """Record that a quantity with ``exponent`` is raised to ``value`` where it is below. ``smallest``: its
        smallest number, at least 0.
        """

    def adds_to_parameter(self, tensor: Tensor, number: float) -> bool:
        """Record that ``number`` is added to ``tensor``. True if that is a parameter, as it is stored: the sum is then its
        effective weight, which a fold may store in its place.
        """

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` was written into the code as a number: no op, module or caller made it."""


class Call:
    """One call of an op: its arguments by name. ``known``: id of an input tensor → its exponent."""

    def __init__(self, ledger: Ledger, func: Any, args: tuple, kwargs: dict, known: dict[int, int]) -> None:
        self.ledger, self.known = ledger, known
        self.outputs: list[Tensor] = []
        self.place: tuple = ()
        space, name = func._schema.name.split("::")
        self.inplace = func._schema.is_mutable and name.endswith("_")
        self.out_variant = func._schema.is_mutable and not self.inplace
        self.op = name.removesuffix("_") if self.inplace else name
        if space != "aten":  # another library's op of that name computes something else
            self.op = f"{space}::{self.op}"
        names = [argument.name for argument in func._schema.arguments]
        self.arguments = dict(zip(names, args, strict=False)) | kwargs
        self.written = args[0] if args else None

    def exponent(self, value: Any) -> int:
        return self.known.get(id(value), PINNED) if isinstance(value, Tensor) else PINNED

    def __getitem__(self, argument: str) -> int:
        return self.exponent(self.arguments.get(argument))

    def has(self, argument: str) -> bool:
        return self.arguments.get(argument) is not None

    def tensors(self) -> list[int]:
        """The exponents of all floating inputs, in order."""
        return list(self.known.values())

    def same(self, *exponents: int) -> int:
        self.ledger.exponents.same(*exponents)
        return exponents[0]

    def combine(self, *terms: tuple[int, int], divisor: int = 1) -> int:
        """The exponent Σ coefficient · exponent / divisor."""
        moving = [(unknown, coefficient) for unknown, coefficient in terms if unknown != PINNED]
        if not moving:
            return PINNED
        if len(moving) == 1 and moving[0][1] == divisor:
            return moving[0][0]
        result = self.ledger.unknown_at(self.place)
        self.ledger.exponents.relate((result, divisor), *((u, -c) for u, c in moving))
        return result

    def is_blank(self) -> bool:
        """Whether the op makes zeros or unwritten memory, which take any scale later."""
        return self.op in BLANK or (self.op in FULL and self.arguments["fill_value"] == 0)

    def unlike(self) -> bool:
        """Whether an operand is a tensor of integers or truth values, which has no scale to follow."""
        return any(
            not (tensor.is_floating_point() or tensor.is_complex()) and not _is_neutral(self, tensor)
            for name, value in self.arguments.items()
            if name not in SELECTORS
            for tensor in tensors_in(value)
        )

    def is_scale_free(self) -> bool:
        """Whether an op without floating-point outputs gives the same result at every scale."""
        other = self.arguments.get("other")
        number = not isinstance(other, Tensor) and other in (0, math.inf, -math.inf)
        return self.op in SCALE_FREE or (self.op in COMPARISONS and number)


Rule = Callable[[Call], int]


def apply(call: Call) -> int:
    """The exponent of the op's outputs. Adds the relations it implies to the call's ledger."""
    if not any(call.known.values()):  # only constants; an epsilon added to one is still recorded
        return add(call) if call.op == "add" else PINNED
    if call.out_variant or (not call.outputs and not call.is_scale_free()):
        return pin(call)
    if not call.outputs:
        return PINNED
    exponent = RULES.get(call.op, pin)(call)
    if call.inplace:  # the storage's other views keep their exponent, so it must not change
        exponent = call.same(exponent, call.exponent(call.written))
    return exponent


def pin(call: Call) -> int:
    """No scale symmetry, or no rule: inputs and outputs keep their scale."""
    call.ledger.exponents.pin(*call.tensors())
    return PINNED


def constant(call: Call) -> int:
    """The output takes only its shape from the input."""
    return PINNED


def carry(call: Call) -> int:
    """One input is moved, reduced or multiplied by a number."""
    return call.tensors()[0]


def equal(call: Call) -> int:
    """Inputs become parts or terms of one tensor. 0 and ±Inf fit any scale; another number or an integer
    tensor pins it, and so does a reduction that multiplies.
    """
    numbers = any(_is_number(call.arguments.get(name)) for name in ("value", "other", "source", "src"))
    if numbers or call.unlike() or call.arguments.get("reduce") in ("multiply", "prod"):
        return pin(call)
    exponents = [
        call.known[id(t)]
        for t in tensors_in(call.arguments)
        if id(t) in call.known and not _is_neutral(call, t)
    ]
    return call.same(*(exponents or [PINNED]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex) and value != 0 and value not in (math.inf, -math.inf)


def _is_neutral(call: Call, tensor: Tensor) -> bool:
    """0 or ±Inf, written into the code. A number that the caller gives may be another one next time."""
    return (
        tensor.dim() == 0
        and call.exponent(tensor) == PINNED
        and call.ledger.is_constant(tensor)
        and tensor.item() in (0.0, math.inf, -math.inf)
    )


def add(call: Call) -> int:
    """A sum. A small positive number is an epsilon and may be rescaled; any other number pins it, except beside a
    parameter alone.
    """
    other = call.arguments["other"]
    if isinstance(other, Tensor):
        return equal(call)
    if call.unlike():
        return pin(call)
    if other == 0:
        return call["self"]
    plain = call.arguments.get("alpha", 1) == 1 and not call.inplace
    small = (
        isinstance(other, float)
        and other > 0
        and (other <= LARGEST_EPSILON or call.ledger.owned_epsilon(other))
    )
    if plain and not small and call.op in ("add", "sub") and type(other) in (int, float):
        number = float(other if call.op == "add" else -other)
        return call["self"] if call.ledger.adds_to_parameter(call.arguments["self"], number) else pin(call)
    if not (small and call.op == "add" and call.arguments.get("alpha", 1) == 1):
        return pin(call)
    call.ledger.epsilon(other, call["self"], smallest(call.arguments["self"]))
    return call["self"]


def product(call: Call) -> int:
    """The elementwise or matrix product of the first two arguments."""
    a, b, *_ = call.arguments.values()
    return call.combine((call.exponent(a), 1), (call.exponent(b), 1))


def product_with_sum(call: Call) -> int:
    """β·self + α·(a @ b), or self + value·a·b. Attention uses β = 0 for a scaled product."""
    _, a, b, *_ = call.arguments.values()
    result = call.combine((call.exponent(a), 1), (call.exponent(b), 1))
    return result if call.arguments.get("beta", 1) == 0 else call.same(result, call["self"])


def linear(call: Call) -> int:
    """Convolution and linear layers: a product with the weight, plus a bias."""
    result = call.combine((call["input"], 1), (call["weight"], 1))
    return call.same(result, call["bias"]) if call.has("bias") else result


def quotient(call: Call) -> int:
    if call.has("rounding_mode"):
        return pin(call)
    return call.combine((call["self"], 1), (call["other"], -1))


def power(call: Call) -> int:
    exponent = call.arguments["exponent"]
    if not isinstance(exponent, int | float) or exponent not in EXACT_POWERS:
        return pin(call)
    return call.combine((call["self"], int(2 * exponent)), divisor=2)


def scaled_by(numerator: int, divisor: int = 1) -> Rule:
    """e_out = e_in · numerator / divisor."""
    return lambda call: call.combine((call["self"], numerator), divisor=divisor)


def weighted_power(call: Call) -> int:
    """(Σ|x|^p)^(1/p): scales with x, except p = 0, which counts."""
    order = call.arguments.get("ord", call.arguments.get("p", 2))
    return pin(call) if order == 0 else carry(call)


def replaced_nan(call: Call) -> int:
    """NaN becomes 0 and ±Inf the format's largest number; any other replacement pins."""
    return pin(call) if any(call.arguments.get(name) for name in ("nan", "posinf", "neginf")) else carry(call)


def moved(call: Call) -> int:
    """A cast. The range of float8 is too small to be free of scale."""
    return pin(call) if any(output.dtype.itemsize == 1 for output in call.outputs) else carry(call)


def at_least(call: Call) -> int:
    """max(x, number): a ReLU for 0. A positive floor carries if it is far below everything measured."""
    floor, ceiling = call.arguments.get("min"), call.arguments.get("max")
    if ceiling is not None or not isinstance(floor, int | float):
        return pin(call)
    if floor > 0:
        found = call.arguments["self"]
        lowest = found.amin().item() if found.numel() else math.inf
        call.ledger.floor(float(floor), call["self"], max(0.0, lowest))
    return call["self"] if floor >= 0 else pin(call)


def norm(call: Call) -> int:
    """Layer, group and RMS norm: independent of the input's scale, except for the epsilon."""
    value = call.arguments.get("eps")
    value = torch.finfo(call.outputs[0].dtype).eps if value is None else float(value)
    if value and call.outputs[-1].numel():
        inverse_deviation = (
            call.outputs[-1].abs().amax().item()
        )  # the op's last output is 1/√(variance + eps)
        variance = 1 / inverse_deviation**2 - value if inverse_deviation else math.inf
        call.ledger.epsilon(value, _variance(call), max(0.0, variance))
    return _affine(call)


def batch_norm(call: Call) -> int:
    """In evaluation mode: (x − mean) / √(variance + eps) · weight + bias, with stored mean and variance.

    With the input's own statistics and none stored it is an instance norm.
    """
    if call.arguments.get("training") or call.arguments.get("train"):
        return pin(call) if call.has("running_mean") else norm(call)
    call.same(call["input"], call["running_mean"])
    variance = call.same(_variance(call), call["running_var"])
    call.ledger.epsilon(float(call.arguments["eps"]), variance, smallest(call.arguments["running_var"]))
    return _affine(call)


def _affine(call: Call) -> int:
    """weight · normalised input + bias."""
    return call.same(call["weight"], call["bias"]) if call.has("bias") else call["weight"]


def _variance(call: Call) -> int:
    """A new unknown, twice the input's exponent."""
    if call["input"] == PINNED:
        return PINNED
    variance = call.ledger.unknown_at((*call.place, "variance"))
    call.ledger.exponents.relate((variance, 1), (call["input"], -2))
    return variance


def attention(call: Call) -> int:
    """softmax(q·k + mask)·v: scores and mask keep their scale; the output has the values' exponent."""
    call.ledger.exponents.relate((call["query"], 1), (call["key"], 1))
    call.ledger.exponents.pin(call["attn_mask"], call["attn_bias"])
    return call["value"]


def embedding(call: Call) -> int:
    return call["weight"]


def pad(call: Call) -> int:
    return pin(call) if _is_number(call.arguments.get("value")) else call["self"]


def overwrite(call: Call) -> int:
    """The storage receives another tensor's values."""
    return call.same(call["self"], call["src"])


def grouped_product(call: Call) -> int:
    """Rows times the matrix of their group, as in a mixture of experts."""
    a, b, *_ = call.arguments.values()
    result = call.combine((call.exponent(a), 1), (call.exponent(b), 1))
    return call.same(result, call["bias"]) if call.has("bias") else result


def weighted(call: Call) -> int:
    """PReLU and interpolation: the weight keeps its scale, the other inputs share one."""
    if call.unlike():
        return pin(call)
    call.ledger.exponents.pin(call["weight"])
    return call.same(call["self"], call["end"]) if call.has("end") else call["self"]


def weight_norm(call: Call) -> int:
    """g · v / ‖v‖, independent of v's scale."""
    return call["g"]


def quotient_with_sum(call: Call) -> int:
    """self + value · tensor1 / tensor2."""
    result = call.combine((call["tensor1"], 1), (call["tensor2"], -1))
    return call.same(result, call["self"])


def beside(call: Call, exponent: int) -> list[int]:
    """The exponents of an op's outputs after the first: parts of one tensor, or a norm's statistics.

    A norm returns the mean, which has the input's exponent, and 1/√(variance + eps), which has its negative.
    """
    count = len(call.outputs) - 1
    if call.op in PARTS:
        return [exponent] * count
    if RULES.get(call.op) not in (norm, batch_norm) or call["input"] == PINNED:
        return [PINNED] * count
    inverse = call.ledger.unknown_at((*call.place, "inverse"))
    call.ledger.exponents.relate((inverse, 1), (call["input"], 1))
    return [inverse] if count == 1 else [call["input"], inverse, *[PINNED] * (count - 2)]


RULES: dict[str, Rule] = {
    **dict.fromkeys((
        "clone", "contiguous", "_unsafe_view", "_reshape_copy", "lift_fresh_copy", "repeat", "roll", "flip",
        "index_select", "_unsafe_index", "gather", "index", "repeat_interleave", "sort", "topk", "tril", "triu",
        "im2col", "col2im", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
        "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d",
        "neg", "abs", "relu", "leaky_relu", "_conj_physical", "zero", "resolve_conj", "resolve_neg",
        "mean", "sum", "cumsum", "amax", "amin", "std", "median", "nanmedian", "nansum", "nanmean",
        "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
        "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d",
        "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d",
        "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
        "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk",
        "alias_copy", "detach_copy", "expand_copy", "permute_copy", "view_copy", "unfold_copy", "split_copy",
        "split_with_sizes_copy", "unbind_copy", "view_as_real_copy", "view_as_complex_copy"), carry),
    **dict.fromkeys((
        "cat", "stack", "where", "index_put", "index_copy", "index_add", "slice_scatter", "select_scatter", "scatter",
        "scatter_add", "scatter_reduce", "masked_scatter", "masked_fill", "fill", "diagonal_scatter", "maximum", "minimum", "max", "min"), equal),
    **dict.fromkeys((
        "silu", "gelu", "tanh", "sigmoid", "hardswish", "mish", "elu", "softplus", "exp", "log", "sin", "cos", "erf",
        "_softmax", "_log_softmax", "_safe_softmax", "glu", "clamp_max", "hardtanh", "_local_scalar_dense"), pin),
    **dict.fromkeys(("clamp", "clamp_min"), at_least),
    **dict.fromkeys(("norm", "linalg_vector_norm"), weighted_power),
    "nan_to_num": replaced_nan,
    "_to_copy": moved,
    **dict.fromkeys(("ones_like", "full_like", "rand_like", "randn_like", "new_ones", "new_full"), constant),
    **dict.fromkeys(("add", "sub", "rsub"), add),
    **dict.fromkeys(("mul", "mm", "bmm", "mv", "dot"), product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addcmul"), product_with_sum),
    **dict.fromkeys(("convolution", "linear", "_convolution", "mkldnn_convolution"), linear),
    "div": quotient,
    "reciprocal": scaled_by(-1),
    "square": scaled_by(2),
    "var": scaled_by(2),
    "sqrt": scaled_by(1, 2),
    "rsqrt": scaled_by(-1, 2),
    "pow": power,
    **dict.fromkeys(("native_layer_norm", "native_group_norm", "_fused_rms_norm"), norm),
    **dict.fromkeys((
        "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), batch_norm),
    "_grouped_mm": grouped_product,
    **dict.fromkeys(("_prelu_kernel", "lerp"), weighted),
    "_weight_norm_interface": weight_norm,
    "addcdiv": quotient_with_sum,
    **dict.fromkeys((
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable"), attention),
    "embedding": embedding,
    "constant_pad_nd": pad,
    "copy": overwrite,
}  # fmt: skip

# Ops that make zeros or unwritten memory.
BLANK = frozenset((
    "zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided",
))  # fmt: skip
FULL = frozenset(("full", "full_like", "new_full"))

# Ops whose outputs are all parts of the input.
PARTS = frozenset((
    "split_copy", "split_with_sizes_copy", "unbind_copy", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk",
))  # fmt: skip

# Ops that copy a tensor as it is.
COPIES = frozenset(("_to_copy", "clone", "contiguous", "lift_fresh_copy", "detach_copy"))

# Arguments that select elements and are no operands.
SELECTORS = frozenset(("condition", "index", "indices", "mask", "repeats", "offs"))

# Powers whose result is rounded alike at every scale. Others go through a logarithm, which is not.
EXACT_POWERS = frozenset((0, 1, 2, 3, 0.5, -0.5, -1, -2))

# Ops without floating-point outputs whose result does not depend on a positive scale.
SCALE_FREE = frozenset(
    ("isnan", "isinf", "isfinite", "argmax", "argmin", "argsort", "logical_not", "signbit")
)
COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))


def smallest(tensor: Tensor) -> float:
    """The smallest magnitude; zeros count, because beside them the epsilon is the whole result."""
    return tensor.abs().amin().item() if tensor.numel() else math.inf

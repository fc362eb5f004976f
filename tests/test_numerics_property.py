"""Folding never changes the float32 function: random small networks of the ops in ``rules``."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from starrynight.numerics.fold import fold_modules
from starrynight.numerics.measured import Trace
from starrynight.numerics.solve import FoldPlan, Infeasible, Range, as_plan, immovable, solve_exponents, widen
from starrynight.numerics.trace import trace_modules

WIDTH = 8


class Layer(nn.Module):
    """One op, ``kind``, on one or two earlier tensors, with its own parameters scaled by 2^``power``."""

    def __init__(self, kind: str, power: int) -> None:
        super().__init__()
        self.kind, self.eps = kind, 1e-6
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH) * 2.0**power)
        self.scale = nn.Parameter((torch.rand(WIDTH) + 0.5) * 2.0**power)
        self.bias = nn.Parameter(torch.randn(WIDTH))
        self.register_buffer("table", torch.randn(4, WIDTH), persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return KINDS[self.kind](self, a, b)


def handwritten_norm(m: Layer, a: Tensor, b: Tensor) -> Tensor:
    wide = a.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + m.eps)).to(a.dtype) * m.scale


def overwritten(m: Layer, a: Tensor, b: Tensor) -> Tensor:
    canvas = torch.zeros_like(a)
    canvas[torch.tensor([True, True, False, False])] = a[:2] * m.scale
    canvas[2:].copy_(b[2:])
    return canvas


def attention(m: Layer, a: Tensor, b: Tensor) -> Tensor:
    query = F.layer_norm(a, (WIDTH,), eps=m.eps)[None]
    return F.scaled_dot_product_attention(query, query, (b @ m.weight)[None])[0]


KINDS: dict[str, Callable[[Layer, Tensor, Tensor], Tensor]] = {
    "linear": lambda m, a, b: F.linear(a, m.weight, m.bias),
    "product": lambda m, a, b: a @ m.weight,
    "residual": lambda m, a, b: a + b,
    "scaled residual": lambda m, a, b: a + b * m.scale,
    "difference": lambda m, a, b: a - b / 3,
    "gate": lambda m, a, b: F.silu(a) * b,
    "relu": lambda m, a, b: F.relu(a),
    "layer norm": lambda m, a, b: F.layer_norm(a, (WIDTH,), m.scale, m.bias, m.eps),
    "group norm": lambda m, a, b: F.group_norm(a, 2, m.scale, m.bias, m.eps),
    "rms norm": handwritten_norm,
    "table": lambda m, a, b: a + m.table,
    "attention": attention,
    "softmax": lambda m, a, b: a.softmax(-1),
    "modulation": lambda m, a, b: a * (1 + torch.tanh(b @ m.weight)),
    "concatenation": lambda m, a, b: torch.cat([a, b], dim=-1)[:, 4 : 4 + WIDTH],
    "quotient": lambda m, a, b: a / (b.abs().sum(-1, keepdim=True) + m.eps),
    "square root": lambda m, a, b: (a.abs() * m.scale).sqrt(),
    "in place": lambda m, a, b: (a * m.scale).add_(b),
    "overwritten": overwritten,
    "reduction": lambda m, a, b: a - b.mean(0, keepdim=True) + a.amax(0),
    "padding": lambda m, a, b: F.pad(a[:, :4], (0, 4)) * m.scale,
    "where": lambda m, a, b: torch.where(torch.arange(4)[:, None] < 2, a, b).masked_fill(a == 0, 0.0),
    "embedding": lambda m, a, b: a + F.embedding(torch.arange(4), m.weight),
    "float32 section": lambda m, a, b: (a.float().pow(2) * m.scale.float()).sqrt().to(a.dtype),
    "convolution": lambda m, a, b: F.conv1d(a[None], m.weight[:4, :4, None], m.bias[:4])[0],
}


class Network(nn.Module):
    def __init__(self, drawn: list[tuple[str, int, int, int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(kind, power) for kind, power, _, _ in drawn)
        self.sources = [(a, b) for _, _, a, b in drawn]

    def forward(self, x: Tensor) -> Tensor:
        tensors = [x]
        for layer, (a, b) in zip(self.layers, self.sources, strict=True):
            tensors.append(layer(tensors[-1 - a % len(tensors)], tensors[-1 - b % len(tensors)]))
        return tensors[-1]


NETWORKS = st.lists(
    st.tuples(st.sampled_from(list(KINDS)), st.integers(-3, 3), st.integers(0, 3), st.integers(0, 3)),
    min_size=2,
    max_size=12,
)
PATIENT = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],  # a failing network is small enough to read as it is
)


def network(drawn: list[tuple[str, int, int, int]]) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(len(drawn))
    module = Network(drawn)
    x = torch.randn(4, WIDTH).bfloat16()
    return module, lambda m: m(x.to(next(m.parameters()).dtype))


@torch.no_grad()
def same_function(module: nn.Module, other: nn.Module, run: Callable[[nn.Module], Tensor]) -> bool:
    """Whether the outputs agree to 1e-6 of their norm; a network that overflows float32 itself counts as equal."""
    reference, result = run(module), run(other)
    if not reference.isfinite().all() or reference.norm() > 1e30:
        return True
    return bool((result - reference).norm() <= 1e-6 * reference.norm())


def fold_at_random(
    module: nn.Module, run: Callable[[nn.Module], Tensor], seed: int
) -> tuple[nn.Module, Trace, FoldPlan]:
    """Fold for random ranges, so that every exponent that can change does."""
    half = copy.deepcopy(module).bfloat16()
    found = trace_modules(half, lambda: run(half))
    draw = random.Random(seed)
    ranges = {
        found.exponents.root(u): Range(peak=draw.uniform(16, 35)) for u in range(1, len(found.exponents))
    }
    plan = as_plan(found, solve_exponents(found, ranges, immovable(found)), {}, (), limit=15)
    folded = copy.deepcopy(module)
    fold_modules(folded, plan)
    return folded, found, plan


@PATIENT
@given(drawn=NETWORKS, seed=st.integers(0, 99))
def test_folding_never_changes_the_float32_function(
    drawn: list[tuple[str, int, int, int]], seed: int
) -> None:
    module, run = network(drawn)
    folded, _, _ = fold_at_random(module, run, seed)
    assert same_function(module, folded, run)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_op_keeps_the_float32_function(kind: str) -> None:
    """Two layers give its inputs and a norm follows, so that every scale that can change is free."""
    module, run = network(
        [
            ("linear", 0, 0, 0),
            ("linear", 0, 1, 0),
            (kind, 0, 0, 1),
            ("layer norm", 0, 0, 0),
            ("linear", 0, 0, 0),
        ]
    )
    for seed in range(3):
        folded, found, plan = fold_at_random(module, run, seed)
        assert not found.unknown_ops
        assert plan.parameters or kind == "softmax", "nothing was folded, so nothing was tested"
        assert same_function(module, folded, run)


@PATIENT
@given(drawn=NETWORKS, place=st.integers(0, 11), bits=st.integers(-6, 12))
def test_widening_never_changes_the_float32_function(
    drawn: list[tuple[str, int, int, int]], place: int, bits: int
) -> None:
    module, run = network(drawn)
    half = copy.deepcopy(module).bfloat16()
    found = trace_modules(half, lambda: run(half))
    twin = copy.deepcopy(module)
    try:
        fold_modules(twin, widen(found, found.outputs[f"layers.{place % len(drawn)}"], bits))
    except Infeasible:
        return
    assert same_function(module, twin, run)

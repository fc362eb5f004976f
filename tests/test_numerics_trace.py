"""The trace: the relations of each op, and memory that does not grow with the number of steps."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from starrynight.numerics.measured import Trace
from starrynight.numerics.solve import solve_folds
from starrynight.numerics.storages import QUANTILE, low_quantile
from starrynight.numerics.trace import peak_and_quantile, trace_modules


class Formula(nn.Module):
    """A module whose forward is one formula of the parameters a, b [4, 4] and an input [4, 4]."""

    def __init__(self, formula: Callable[[Formula, Tensor], Tensor]) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.rand(4, 4) + 0.5)
        self.b = nn.Parameter(torch.rand(4, 4) + 0.5)
        self.eps = 1e-6
        self.formula = formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(self, x)


def traced(formula: Callable[[Formula, Tensor], Tensor]) -> Trace:
    module = Formula(formula).bfloat16()
    return trace_modules(module, lambda: module(torch.rand(4, 4).bfloat16()))


def exponents(found: Trace) -> tuple[int, int]:
    return tuple(found.exponents.root(found.parameters[name].exponent) for name in "ab")  # type: ignore[return-value]


# With the output pinned to 0, each formula leaves the exponents of a and b "pinned", "tied" by a relation, or a free.
FORMULAS = {
    "product": (lambda m, x: m.a @ x @ m.b, "tied"),
    "gate": (lambda m, x: (x * m.a) * m.b, "tied"),
    "sum": (lambda m, x: m.a + m.b, "pinned"),
    "softmax": (lambda m, x: (x @ m.a).softmax(-1) + (m.b * 0).softmax(-1), "pinned"),
    "silu": (lambda m, x: F.silu(x * m.a) + F.silu(m.b), "pinned"),
    "quotient": (lambda m, x: (x * m.a) / m.b, "tied"),
    "relu between": (lambda m, x: F.relu(x @ m.a) @ m.b, "tied"),
    "norm after": (lambda m, x: F.layer_norm(x @ m.a, (4,), eps=m.eps) + m.b, "a is free"),
    "hand-written norm": (
        lambda m, x: (h := x @ m.a) * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + m.eps) + m.b,
        "a is free",
    ),
    "attention values": (lambda m, x: F.scaled_dot_product_attention(x[None], x[None], (x @ m.a)[None])[0] @ m.b, "tied"),
    "attention keys": (lambda m, x: F.scaled_dot_product_attention((x @ m.a)[None], (x @ m.b)[None], x[None])[0], "tied"),
    "constant added": (lambda m, x: (x * m.a + 1) * m.b, "pinned"),
    "cat": (lambda m, x: torch.cat([x * m.a, m.b]), "pinned"),
    "written into zeros": (lambda m, x: torch.zeros_like(x).copy_(x * m.a) @ m.b, "tied"),
    "in place": (lambda m, x: (x * m.a).mul_(m.b), "pinned"),
    "padding with zeros": (lambda m, x: F.pad(x * m.a, (0, 0, 0, 2)) @ m.b, "tied"),
    "padding with ones": (lambda m, x: F.pad(x * m.a, (0, 0, 0, 2), value=1.0) @ m.b, "pinned"),
    "read as a number": (lambda m, x: x * m.a.sum().item() + m.b, "pinned"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_each_op_gives_its_relation(name: str) -> None:
    formula, expected = FORMULAS[name]
    found = traced(formula)
    a, b = exponents(found)
    relations = found.exponents.relations()
    a, b = (0 if {e: 1} in relations or {e: -1} in relations else e for e in (a, b))
    tied = any(set(relation) >= {a, b} for relation in relations) or (a == b != 0)
    state = "pinned" if a == b == 0 else "tied" if tied else "a is free" if a and not b else "other"
    assert state == expected
    assert not found.unknown_ops


def test_an_op_without_a_rule_pins_its_tensors_and_is_reported() -> None:
    found = traced(lambda m, x: torch.special.bessel_j0((x * m.a).float()).bfloat16() + m.b)
    assert exponents(found) == (0, 0)
    assert found.unknown_ops == {"special_bessel_j0": 1}


def test_inference_mode_gives_the_same_relations() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)).bfloat16()
    x = torch.rand(2, 8).bfloat16()

    def inferring() -> None:
        with torch.inference_mode():
            module(x)

    plain, inference = trace_modules(module, lambda: module(x)), trace_modules(module, inferring)
    assert plain.exponents.relations() == inference.exponents.relations()


def test_a_parameter_that_was_never_exercised_keeps_its_scale() -> None:
    module = Formula(lambda m, x: F.layer_norm(x @ m.a, (4,), eps=m.eps)).bfloat16()
    with torch.no_grad():
        module.a.mul_(2.0**30)
        module.b.mul_(2.0**-30)  # so small that a fold would be wanted
    plan = solve_folds(trace_modules(module, lambda: module(torch.rand(4, 4).bfloat16())))
    assert set(plan.parameters) == {"a"}


def test_float32_sections_are_not_constrained() -> None:
    found = traced(lambda m, x: ((x.float() * m.a.float() * 1e9) / 1e9).bfloat16() * m.b)
    assert max(site.peak for site in found.sites.values() if site.half) < 1e3
    assert not solve_folds(found).parameters


def test_masks_are_not_activations() -> None:
    def masked(m: Formula, x: Tensor) -> Tensor:
        mask = torch.full((4, 4), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
        hidden = torch.zeros_like(mask).masked_fill(mask < 0, -torch.inf)
        return (x @ m.a + mask + hidden).softmax(-1) @ m.b

    found = traced(masked)
    assert max(site.peak for site in found.sites.values()) < 1e3
    assert solve_folds(found).islands == ()


@pytest.mark.parametrize("number", [-65504.0, -10000.0, torch.finfo(torch.bfloat16).min, -torch.inf])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_mask_is_no_range_whatever_number_it_is_written_as(number: float, by_hand: bool) -> None:
    """On a card PyTorch writes −65504 where cuDNN's attention takes a mask of truth values; each was an island."""

    def attend(m: Formula, x: Tensor) -> Tensor:
        mask = torch.where(torch.ones(4, 4, dtype=torch.bool).tril().logical_not(), number, torch.scalar_tensor(0.0, dtype=x.dtype))  # fmt: skip
        values = (x @ m.a)[None]
        if by_hand:
            return ((x @ x.T + mask).softmax(-1) @ values[0]) @ m.b
        return F.scaled_dot_product_attention(x[None], x[None], values, attn_mask=mask)[0] @ m.b

    plan = solve_folds(traced(attend))
    assert plan.islands == ()


def test_a_large_number_that_is_no_mask_is_still_an_island() -> None:
    for number in (65504.0, -60000.0, -9000.0):
        assert solve_folds(traced(lambda m, x, n=number: x @ m.a + torch.full_like(x, n))).islands == ("",)


def test_a_text_encoder_has_no_islands_by_the_masks_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=8)  # fmt: skip
    encoder = Qwen3Model(config).eval().bfloat16()
    attention, masks = F.scaled_dot_product_attention, []

    def as_cudnn(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **words: object) -> Tensor:
        if attn_mask is not None and attn_mask.dtype == torch.bool:  # ATen's convert_boolean_attn_mask_cudnn
            masks.append(1)
            attn_mask = torch.where(
                attn_mask.logical_not(), -65504.0, torch.scalar_tensor(0.0, dtype=q.dtype)
            )
        return attention(q, k, v, attn_mask=attn_mask, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "scaled_dot_product_attention", as_cudnn)
    given = torch.arange(12)[None], (torch.arange(12) < 9)[None]
    found = trace_modules(
        encoder, lambda: encoder(input_ids=given[0], attention_mask=given[1]).last_hidden_state
    )
    assert masks, "the encoder gives its attention a mask of truth values"
    assert solve_folds(found).islands == ()


@pytest.mark.parametrize("width", [64, 60, 3840])
def test_the_low_quantile_samples_all_channels(width: int) -> None:
    """Evenly spaced samples would all be in the first channel where the width divides the spacing."""
    activation = torch.ones(2048, width)
    activation[:, 0] = 1e-6
    assert peak_and_quantile(activation) == (1.0, 1.0)
    activation[:, : width // 4] = 1e-6
    assert peak_and_quantile(activation)[1] == pytest.approx(1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11, 60, 2048, 8192])
def test_the_low_quantile_has_the_bits_of_torchs(count: int) -> None:
    sample = torch.rand(count, generator=torch.Generator().manual_seed(count))
    assert low_quantile(sample).item() == sample.quantile(QUANTILE).item()


def test_a_trace_continues_after_json_as_if_never_interrupted() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)).bfloat16()
    first = lambda: module(torch.ones(2, 8).bfloat16())  # noqa: E731
    second = lambda: module(300 * torch.eye(8).bfloat16())  # noqa: E731
    whole = trace_modules(module, second, into=trace_modules(module, first))
    again = trace_modules(module, second, into=Trace.from_json(trace_modules(module, first).to_json()))
    assert again.to_json() == whole.to_json()
    assert again.epsilons == whole.epsilons != {}
    assert solve_folds(again) == solve_folds(whole)


def test_a_nan_in_the_calibration_is_named_and_leaves_the_solver_unaffected() -> None:
    found = traced(lambda m, x: (x * m.a - x * m.a) / 0 + m.b)
    assert found.broken == {"": "div"}
    assert solve_folds(found).headroom_bits > 0


def test_steps_are_merged_and_no_tensor_is_kept_alive() -> None:
    module = nn.Sequential(nn.Linear(16, 64), nn.SiLU(), nn.Linear(64, 16)).bfloat16()
    hidden: list[weakref.ref[Tensor]] = []
    module[1].register_forward_hook(lambda _m, _i, output: hidden.append(weakref.ref(output)))

    def steps(count: int) -> Callable[[], None]:
        def run() -> None:
            x = torch.rand(4, 16).bfloat16()
            for _ in range(count):
                x = x + module(x)
                assert hidden[-1]() is None, "the trace keeps a tensor of the run alive"

        return run

    short = trace_modules(module, steps(2))
    sites, unknowns = len(short.sites), len(short.exponents)
    long = trace_modules(module, steps(20))
    assert (len(long.sites), len(long.exponents)) == (sites, unknowns)
    again = trace_modules(module, steps(5), into=long)
    assert again is long
    assert (len(again.sites), len(again.exponents)) == (sites, unknowns)


def test_tied_parameters_share_one_exponent() -> None:
    module = nn.ModuleDict({"one": nn.Linear(4, 4, bias=False), "two": nn.Linear(4, 4, bias=False)})
    module["two"].weight = module["one"].weight
    found = trace_modules(module, lambda: module["two"](module["one"](torch.rand(2, 4))))
    assert found.parameters["one.weight"].exponent == found.parameters["two.weight"].exponent

"""Exact, or refused: a part of the modules that ``make prove`` runs in full, and the traced float32 step that finds the rest."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from adversaries import MIDDLES, WIDTH, given_input
from exactness import NAMES, chain, named, verdict
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from starrynight.errors import Unfit
from starrynight.numerics import trace_modules
from starrynight.numerics.certify import certify_folds
from starrynight.numerics.fold import fold_modules
from starrynight.numerics.solve import FoldPlan
from starrynight.numerics.step import compare_step

# Every eighth, and those that once changed or were not traced.
ONCE = ("eps_compared", "vmap_linear", "nested", "sparse", "mkldnn", "scripted_child", "untaken_parameter", "untaken_parameter_list", "untaken_method", "compiled_child",
        "mine_relu", "mine_mul", "mine_cat", "mine_clone", "mine_mean", "mine_add", "mine_isnan", "mine_zeros", "set_by_storage",
        "written_in_a_thread", "copied_whole", "copied_layer", "conditional", "pad_circular", "buffer_replaced", "cached_once", "ensemble_by_vmap", "masked_as_for_cudnn")  # fmt: skip


@pytest.mark.parametrize("name", sorted({*NAMES[::8], *ONCE}))
def test_a_module_is_folded_exactly_or_refused(name: str) -> None:
    found = verdict(*named(name), draws=1)
    assert found.kind in ("same", "refused"), found.reason


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    phases=[Phase.explicit, Phase.generate],
)
@given(drawn=st.lists(st.tuples(st.sampled_from(sorted(MIDDLES)), st.integers(0, 3)), min_size=2, max_size=3))
def test_random_chains_are_folded_exactly_or_refused(drawn: list[tuple[str, int]]) -> None:
    try:
        found = verdict(lambda: chain(drawn), draws=1)
    except AssertionError:  # the chain itself overflows float32
        return
    assert found.kind in ("same", "refused"), found.reason


class Gated(nn.Module):
    """A layer behind a gate that is still zero, so that the output does not show what it computes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.gate = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x + torch.tanh(self.gate) * self.down(F.gelu(self.up(x)))


CHANGED = {
    "up.weight": "up", "up.bias": "up", "down.weight": "down", "count": "add_",
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CHANGED)
def test_the_traced_step_finds_what_a_closed_gate_hides(name: str, dtype: torch.dtype) -> None:
    module = Gated().to(dtype)
    before = copy.deepcopy(module.state_dict())
    x = given_input(module, 0)
    found = compare_step(module, FoldPlan(parameters={name: -3}), lambda: module(x))
    assert found.error == 0, "the output is the same"
    if name == "count":
        assert found.exact, "0 times anything is 0, and it is counted from 0"
    else:
        assert not found.exact
        assert CHANGED[name] in found.changed
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_traced_step_is_float32_whatever_the_weights_are_stored_in(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(WIDTH, 64), nn.LayerNorm(64), nn.Linear(64, 1, bias=False)).to(dtype)
    plan = FoldPlan(parameters={"0.weight": -2, "0.bias": -2}, epsilons={"1.eps": -4})
    x = given_input(module, 0)
    found = compare_step(module, plan, lambda: module(x))
    assert found.exact, "float16 rounds what becomes subnormal, by less than 1e-6"
    assert found.error == 0 or dtype == torch.float16
    assert found.ops >= 3
    wrong = replace(plan, epsilons={"1.eps": 8})  # 1e-5 becomes 2.6e-3: invisible at 16 bits
    assert not compare_step(module, wrong, lambda: module(x)).exact


def test_a_certificate_of_a_changed_function_does_not_hold_and_names_the_op() -> None:
    module = Gated()

    def exercise(m: nn.Module, seed: int) -> Tensor:
        return m(given_input(m, seed))

    certificate = certify_folds(module, FoldPlan(parameters={"up.weight": -3}), exercise, (7, 8))
    assert certificate.folded_float32 == 0
    assert certificate.changed.startswith("up: ")
    assert not certificate.holds
    assert "up: " in certificate.message("en")
    assert "up: " in certificate.message("zh")
    assert certificate.to_dict()["changed"] == certificate.changed
    right = certify_folds(module, FoldPlan(), exercise, (7, 8))
    assert right.changed == ""
    assert right.step_ops > 5


def test_scripts_are_refused_in_both_languages() -> None:
    module = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Linear(4, 4)))
    with pytest.raises(Unfit, match="1 is a TorchScript module") as caught:
        trace_modules(module, lambda: module(torch.zeros(1, 4)))
    assert "TorchScript 模块" in caught.value.zh


def test_a_plan_is_undone_after_the_step_even_if_the_run_fails() -> None:
    module = Gated()
    before = copy.deepcopy(module.state_dict())
    calls = []

    def run() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return module(given_input(module, 0))

    with pytest.raises(RuntimeError, match="out of memory"):
        compare_step(module, FoldPlan(parameters={"up.weight": -3}), run)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    fold_modules(module, FoldPlan())

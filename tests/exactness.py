"""Fold a module in many of the ways that its trace allows, and compare folded float32 with the original."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import odd_modules  # noqa: F401  (enters its modules into the tables of adversaries)
import strange_modules  # noqa: F401  (so does it)
import torch
import wrapped_modules  # noqa: F401  (and this one)
from adversaries import CALIBRATION, HELD_OUT, MIDDLES, MODELS, WIDTH, Net, call, middle_net, spared
from torch import Tensor, nn

from starrynight.errors import Unfit
from starrynight.numerics.fold import fold_modules
from starrynight.numerics.measured import Trace
from starrynight.numerics.modules import tensors_in
from starrynight.numerics.precision import UNCHANGED
from starrynight.numerics.solve import (
    FoldPlan,
    Infeasible,
    Range,
    as_plan,
    immovable,
    solve_exponents,
    solve_folds,
)
from starrynight.numerics.step import StepComparison, compare_step
from starrynight.numerics.trace import trace_modules

Make, Run = Callable[[], nn.Module], Callable[[Any, int], Any]


@dataclass(frozen=True)
class Verdict:
    """``kind``: "same", "refused" or "changed". ``folds``: parameters of the largest plan that was applied."""

    kind: str
    folds: int = 0
    reason: str = ""


def plans(trace: Trace, draws: int) -> Iterator[FoldPlan]:
    """The solver's plan, and ``draws`` others for random ranges, so that every exponent that can change does."""
    yield solve_folds(trace)
    for seed in range(draws):
        draw = random.Random(seed)
        wanted = {
            trace.exponents.root(u): Range(peak=draw.uniform(16, 24)) for u in range(1, len(trace.exponents))
        }
        try:
            yield as_plan(trace, solve_exponents(trace, wanted, immovable(trace)), {}, (), 15)
        except Infeasible:
            continue


@torch.no_grad()
def verdict(make: Make, run: Run = call, draws: int = 2) -> Verdict:
    original, half = make().eval(), make().eval().bfloat16()
    reference = [numbers(run(original, seed)) for seed in HELD_OUT]
    assert all(r.isfinite().all() for r in reference), "the original itself breaks"
    try:
        found = trace_modules(half, lambda: [run(half, seed) for seed in CALIBRATION])
    except Unfit as error:
        return Verdict("refused", reason=str(error))
    folds = 0
    for plan in plans(found, draws):
        folded = make().eval()
        try:
            fold_modules(folded, plan)
        except Unfit:
            continue
        folds = max(folds, len(plan.parameters))
        results = [numbers(run(folded, seed)) for seed in HELD_OUT]
        error = max(distance(a, b) for a, b in zip(results, reference, strict=True))
        if not error <= UNCHANGED:
            return Verdict("changed", folds, f"{error:.1e}: {dict(plan.parameters)} {dict(plan.epsilons)}")
        step = stepped(make, run, plan) if plan.parameters else None
        if step is not None and not step.exact:
            return Verdict("changed", folds, f"the traced step: {step}")
    return Verdict("same", folds)


def distance(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ / ‖b‖; 0 for equal ones, also where both are zero."""
    return 0.0 if torch.equal(a, b) else float((a - b).norm() / b.norm())


def stepped(make: Make, run: Run, plan: FoldPlan) -> StepComparison:
    module = make().eval()
    return compare_step(module, plan, lambda: run(module, HELD_OUT[0]))


def numbers(value: Any) -> Tensor:
    """All numbers of an output, in float64, as they are now."""
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors_in(value)])


def named(name: str) -> tuple[Make, Run]:
    return MODELS[name] if name in MODELS else (lambda: middle_net(name), call)


NAMES = (*MIDDLES, *MODELS)


class Chain(nn.Module):
    """Several loud modules of ``MIDDLES``, each wired to what came before in one of four ways."""

    def __init__(self, drawn: list[tuple[str, int]]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Net(*MIDDLES[name]) for name, _ in drawn)
        self.wiring = [wiring for _, wiring in drawn]
        self.last = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            part.flag = self.flag
        y = x
        for part, wiring in zip(self.parts, self.wiring, strict=True):
            if wiring == 0:
                y = part(y)
            elif wiring == 1:
                y = y + part(x)
            elif wiring == 2:
                y = part.middle(part, self.last(y))
            else:
                y = y + part.middle(part, x)
        return self.last(y)


def chain(drawn: list[tuple[str, int]]) -> nn.Module:
    """A ``Chain`` whose parts have only the layers that they use."""
    module = Chain(drawn)
    for number, ((name, wiring), part) in enumerate(zip(drawn, module.parts, strict=True)):
        module.parts[number] = spared(lambda name=name: Net(*MIDDLES[name]), call)  # type: ignore[misc]
        if wiring > 1:
            del module.parts[number].norm, module.parts[number].out
        del part
    return module

"""Choose the folds: integer exponents that bring every 16-bit tensor of a trace into float16's range.

The choice is a small mixed-integer linear program: the trace's relations and ranges are its rows, and HiGHS
solves it (``scipy.optimize.milp``). This file reads no op and changes no tensor; ``fold`` applies the plan.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from starrynight.numerics.exponents import PINNED
from starrynight.numerics.islands import LARGEST_WEIGHT, find_islands, inside
from starrynight.numerics.measured import Epsilon, Trace

# log2 of the largest magnitude planned for. float16 ends at 65504 < 2^16; 2^13 leaves three bits of headroom
# for inputs outside the calibration. With one bit (2^15) one of two held-out images of a Firefly run broke
# (docs/log.md).
LIMIT = 13

# log2 of the smallest useful magnitude. float16's subnormals begin at 2^-14 and reach bfloat16's 8 bits of
# precision at 2^-17; the low quantile of every tensor should stay above 2^-16.
SMALLEST = -16

# No parameter is folded by more than 2^32, and no other tensor by more than 2^64: squares of folded tensors,
# as in a variance, then stay inside float32's range (2^±126).
LARGEST_FOLD = 32
LARGEST = 2 * LARGEST_FOLD

# An epsilon that is not rescaled is negligible if it is at most this share of the smallest quantity it is
# added to. The square root of the sum then changes by 2^-22 (2.4e-7), two of float32's last bits, in the
# smallest row and by less in all others.
NEGLIGIBLE = 2.0**-21

# Objective weights for each bit out of range, each bit of small values lost to subnormals, and each bit of a
# fold. TIE makes the later of two equal folds slightly cheaper, so that the solver does not choose.
STUCK, COARSE, FOLD, TIE = 1e6, 100.0, 1.0, 0.1


class Infeasible(ValueError):
    """No choice of exponents gives the tensors the requested scale."""


@dataclass(frozen=True)
class FoldPlan:
    """How to change a model so that its tensors fit float16.

    ``parameters``: name → p; the parameter is multiplied by 2^p. ``epsilons``: "module.attribute" → p,
    likewise. ``configs``: configuration key of those epsilons → p, for written checkpoints. ``islands``:
    modules that run in float32. ``offsets``: name of a folded parameter → the number that its module adds to
    it; the fold stores their sum (see ``effective``). ``limit``: log2 of the largest activation planned for.
    ``headroom_bits``: bits between the largest folded activation of the calibration and 65504, or a weight
    beyond it; infinite if no tensor was in 16 bits.
    """

    parameters: Mapping[str, int] = field(default_factory=dict)
    epsilons: Mapping[str, int] = field(default_factory=dict)
    configs: Mapping[str, int] = field(default_factory=dict)
    islands: tuple[str, ...] = ()
    limit: int = LIMIT
    headroom_bits: float = math.inf
    offsets: Mapping[str, float] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether float16 holds every tensor. False only if the model's inputs or outputs are too large."""
        return self.headroom_bits >= 0

    def to_json(self) -> str:
        """Canonical text: equal plans give equal texts. ``headroom_bits`` is stored under the key "spare"."""
        fields = asdict(self)
        fields["spare"] = fields.pop("headroom_bits")
        if not self.offsets:  # as before there were any
            del fields["offsets"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> FoldPlan:
        """Read the output of ``to_json``, of this or an earlier version."""
        fields = json.loads(text)
        fields["headroom_bits"] = fields.pop("spare", math.inf)
        return cls(**fields | {"islands": tuple(fields["islands"])})


@dataclass(frozen=True)
class CheckpointConstraints:
    """Which epsilons a standard checkpoint can change: groups of them, each set by one configuration key.

    ``keys``: configuration key → the epsilons ("module.attribute") that it sets. ``header_epsilons``: epsilon
    → power; the traced modules hold it 2^power times as large as their configuration, because a
    ``starry_fold`` header says so.
    """

    keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    header_epsilons: Mapping[str, int] = field(default_factory=dict)


def solve_folds(
    trace: Trace,
    limit: int = LIMIT,
    constraints: CheckpointConstraints | None = None,
    fixed: Callable[[str], bool] = lambda name: False,
) -> FoldPlan:
    """The plan for a traced model. The same trace gives the same plan.

    With ``constraints`` only folds that a standard checkpoint can store are used: no non-persistent buffer
    changes, and an epsilon changes only by its configuration key. ``fixed(name)`` is true for parameters that
    must not change. Modules that stay out of range become float32 islands; the program is then solved again
    without their inside.
    """
    pinned = immovable(trace, constraints is not None) | {
        p.exponent for p in trace.parameters.values() if fixed(p.name)
    }
    islands: tuple[str, ...] = ()
    while True:
        ranges = collect_ranges(trace, islands)
        exponents = solve_exponents(trace, ranges, pinned, constraints=constraints, limit=limit)
        found = find_islands(trace, exponents, limit, islands)
        if found == islands:
            plan = as_plan(trace, exponents, ranges, islands, limit)
            return _with_configs(plan, constraints, exponents) if constraints else plan
        islands = found


def immovable(trace: Trace, stored_only: bool = False) -> set[int]:
    """Exponents that must stay 0: of parameters that the run never used, with ``stored_only`` also of those not in
    checkpoints; and of all that a part of the model meets that the run left out.

    Such a part, a branch not taken or an expert not chosen, is a module that never ran or a parameter that no op read
    although a forward names it. It would read and write the tensors of the forward around it at their true scale.
    """
    parameters = trace.parameters.values()
    pinned = {p.exponent for p in parameters if p.exponent not in trace.used or (stored_only and not p.kept)}
    pinned |= {p.exponent for p in parameters if p.name.rpartition(".")[0] in trace.idle}
    if stored_only:  # a standard checkpoint holds weights, not their sums with a number
        pinned |= {exponent for exponent, number in trace.added.items() if number}
    for name in trace.idle | trace.branches:
        pinned |= trace.scopes.get(_nearest_call(trace, name), set())
    return pinned - {PINNED}


def _nearest_call(trace: Trace, name: str) -> str:
    """The module itself or the nearest around it whose ``forward`` ran; "" if there is none."""
    while name and name not in trace.scopes:
        name = name.rpartition(".")[0]
    return name


@dataclass
class Range:
    """log2 of the largest and of the typical small magnitude of the tensors that share an exponent.

    ``weight``: the largest among parameters, ``peak``: among all other tensors.
    """

    peak: float = -math.inf
    weight: float = -math.inf
    smalls: list[float] = field(default_factory=list)

    def include(self, peak: float, small: float = math.inf) -> None:
        if peak > 0:
            self.peak = max(self.peak, math.log2(peak))
        if 0 < small < math.inf:
            self.smalls.append(math.log2(small))

    def include_weight(self, peak: float, small: float) -> None:
        if peak > 0:
            self.weight = max(self.weight, math.log2(peak))
        self.include(0.0, small)

    def highest(self, limit: float) -> float:
        """The largest power by which activations stay within 2^limit and weights within float16."""
        return min(limit - self.peak, max(limit, LARGEST_WEIGHT) - self.weight)

    @property
    def small(self) -> float:
        """The median over the tensors, so that one sparse tensor does not scale up all others."""
        return float(np.median(self.smalls)) if self.smalls else math.inf


def collect_ranges(trace: Trace, islands: Iterable[str] = ()) -> dict[int, Range]:
    """Root exponent → range of its 16-bit tensors and used parameters, without those inside float32 islands."""
    islands = tuple(islands)
    ranges: dict[int, Range] = {}

    def range_of(unknown: int) -> Range:
        return ranges.setdefault(trace.exponents.root(unknown), Range())

    for site in trace.sites.values():
        if site.half and not inside(site.module, islands):
            for unknown in site.exponents:
                range_of(unknown).include(site.peak, site.small)
    for parameter in trace.parameters.values():
        if parameter.half and parameter.exponent in trace.used and not inside(parameter.name, islands):
            range_of(parameter.exponent).include_weight(parameter.peak, parameter.small)
    for island in islands:  # its outputs are rounded to 16 bits again
        for unknown, peak in trace.outputs.get(island, {}).items():
            range_of(unknown).include(peak)
    return ranges


def solve_exponents(
    trace: Trace,
    ranges: Mapping[int, Range],
    pinned: Iterable[int] = (),
    demands: Mapping[int, int] | None = None,
    constraints: CheckpointConstraints | None = None,
    limit: int = LIMIT,
) -> dict[int | str, int]:
    """The cheapest integer for every root exponent of the trace (and every key of ``constraints``).

    ``pinned`` exponents are 0 and ``demands`` fixes others. Raises ``Infeasible`` if that is impossible.
    """
    root = trace.exponents.root
    roots = sorted({root(u) for u in range(len(trace.exponents))} - {PINNED})
    allowed = constraints or CheckpointConstraints()
    program = _Program([*roots, *allowed.keys])
    for relation in trace.exponents.relations():
        program.equation(relation, 0)
    for unknown, value in {**dict.fromkeys(pinned, 0), **(demands or {})}.items():
        if root(unknown) != PINNED:
            program.equation({root(unknown): 1}, value)
        elif value:
            raise Infeasible("the tensor is an input or an output, or tied to one, and keeps its scale")
    for epsilon in trace.epsilons.values():
        # Without constraints an epsilon that a module owns is rescaled exactly and needs no row.
        if constraints is not None or not trace.owns(epsilon):
            _bound_epsilon(program, epsilon, root(epsilon.exponent), allowed)
    _bound_keys(program, trace, allowed)
    for unknown, found in ranges.items():
        if unknown == PINNED:
            continue
        if (highest := found.highest(limit)) < math.inf:
            program.at_most(unknown, math.floor(highest), STUCK)
        if found.small < math.inf:
            program.at_least(unknown, math.ceil(SMALLEST - found.small), COARSE)
    folds = {root(p.exponent): place for place, p in enumerate(trace.parameters.values())}
    for unknown, place in folds.items():
        if unknown != PINNED:
            price = FOLD + TIE * (1 - place / len(trace.parameters))
            program.bound(unknown, -LARGEST_FOLD, LARGEST_FOLD)
            program.at_most(unknown, 0, price)
            program.at_least(unknown, 0, price)
    return program.solve()


def _bound_epsilon(program: _Program, epsilon: Epsilon, root: int, allowed: CheckpointConstraints) -> None:
    """Require that an epsilon is rescaled with the quantity it is added to, or stays negligible beside it.

    Only its configuration key can change it. Exact: key power − quantity power = header power.
    """
    name = epsilon.name if epsilon.attribute else ""
    terms: dict[int | str, int] = {} if root == PINNED else {root: -1}
    terms |= {key: 1 for key, members in allowed.keys.items() if name in members}
    header = allowed.header_epsilons.get(name, 0)
    if epsilon.smallest == math.inf or not (terms or header):
        return
    margin = math.log2(NEGLIGIBLE * epsilon.smallest / epsilon.value) if epsilon.smallest > 0 else -math.inf
    if margin < 0:
        program.between(terms, header, header)
    else:
        program.between(terms, -math.inf, header + math.floor(margin))


def _bound_keys(program: _Program, trace: Trace, allowed: CheckpointConstraints) -> None:
    """Keep every key at 0 if possible, and always if it sets an epsilon that the run never used."""
    used = {epsilon.name for epsilon in trace.epsilons.values() if trace.owns(epsilon)}
    for key, members in allowed.keys.items():
        program.at_most(key, 0, TIE)
        program.at_least(key, 0, TIE)
        if not members <= used:
            program.equation({key: 1}, 0)


def _with_configs(
    plan: FoldPlan, allowed: CheckpointConstraints, exponents: Mapping[int | str, int]
) -> FoldPlan:
    """The plan with its configuration keys, and their epsilons relative to the traced modules' values."""
    powers = {name: -power for name, power in allowed.header_epsilons.items()}
    for key, members in allowed.keys.items():
        for name in members:
            powers[name] = powers.get(name, 0) + exponents[key]
    return replace(
        plan,
        epsilons={name: power for name, power in sorted(powers.items()) if power},
        configs={key: exponents[key] for key in sorted(allowed.keys) if exponents[key]},
    )


class _Program:
    """A mixed-integer linear program: integer exponents, continuous slack in bits, and the cost of each.

    ``at_most`` and ``at_least`` are soft: every bit by which they are violated costs their price.
    """

    def __init__(self, unknowns: list[int | str]) -> None:
        self._column = {unknown: i for i, unknown in enumerate(unknowns)}
        self._bounds = [(-float(LARGEST), float(LARGEST))] * len(unknowns)
        self._prices: list[float] = [0.0] * len(unknowns)
        self._entries: list[tuple[int, int, float]] = []
        self._row_bounds: list[tuple[float, float]] = []

    def bound(self, unknown: int, low: int, high: int) -> None:
        """A hard bound on one exponent."""
        column = self._column[unknown]
        known = self._bounds[column]
        self._bounds[column] = (max(known[0], low), min(known[1], high))

    def equation(self, terms: Mapping[int, int] | Mapping[str, int], value: int) -> None:
        self.between(terms, value, value)

    def between(self, terms: Mapping[Any, int], low: float, high: float) -> None:
        if not terms and not low <= 0 <= high:
            raise Infeasible("an epsilon that cannot be changed would have to change")
        self._row({self._column[u]: float(c) for u, c in terms.items()}, low, high)

    def at_most(self, unknown: int | str, bound: int, price: float) -> None:
        self._row({self._column[unknown]: 1.0, self._slack(price): -1.0}, -math.inf, bound)

    def at_least(self, unknown: int | str, bound: int, price: float) -> None:
        self._row({self._column[unknown]: 1.0, self._slack(price): 1.0}, bound, math.inf)

    def _slack(self, price: float) -> int:
        self._prices.append(price)
        return len(self._prices) - 1

    def _row(self, terms: Mapping[int, float], low: float, high: float) -> None:
        row = len(self._row_bounds)
        self._entries.extend((row, column, value) for column, value in terms.items())
        self._row_bounds.append((low, high))

    def solve(self) -> dict[int | str, int]:
        from scipy.optimize import Bounds, LinearConstraint, milp  # not for pictures without a new fold
        from scipy.sparse import coo_array

        count, integers = len(self._prices), len(self._column)
        if not count:
            return {}
        low, high = np.array(self._bounds + [(0.0, np.inf)] * (count - integers)).T
        rows, columns, values = zip(*self._entries, strict=True) if self._entries else ((), (), ())
        matrix = coo_array((values, (rows, columns)), shape=(len(self._row_bounds), count)).tocsr()
        result = milp(
            np.array(self._prices),
            integrality=np.array([1] * integers + [0] * (count - integers)),
            bounds=Bounds(low, high),
            constraints=LinearConstraint(matrix, *np.array(self._row_bounds).reshape(-1, 2).T),
            options={"mip_rel_gap": 0.0},
        )
        if result.x is None:
            raise Infeasible(result.message)
        rounded = np.round(result.x[:integers])
        self._check(matrix, rounded)
        return {unknown: int(rounded[column]) for unknown, column in self._column.items()}

    def _check(self, matrix: Any, exponents: np.ndarray) -> None:
        """Raise ``Infeasible`` if the rounded exponents break an equation. HiGHS meets them within a tolerance only."""
        count = len(exponents)
        hard = np.diff(matrix[:, count:].tocsr().indptr) == 0  # rows without slack
        sums = matrix[:, :count] @ exponents
        low, high = np.array(self._row_bounds).reshape(-1, 2).T
        inside = (sums >= low) & (sums <= high)
        bounds = np.array(self._bounds).T
        if not (inside[hard].all() and (exponents >= bounds[0]).all() and (exponents <= bounds[1]).all()):
            raise Infeasible("the solver's answer, rounded to integers, breaks one of its equations")


def as_plan(
    trace: Trace,
    exponents: Mapping[Any, int],
    ranges: Mapping[int, Range],
    islands: tuple[str, ...],
    limit: int,
) -> FoldPlan:
    """The plan by parameter and epsilon names; exponents that are 0 are left out."""

    def exponent(unknown: int) -> int:
        return exponents.get(trace.exponents.root(unknown), 0)

    parameters = {p.name: exponent(p.exponent) for p in trace.parameters.values()}
    epsilons = {e.name: exponent(e.exponent) for e in trace.epsilons.values() if trace.owns(e)}
    peaks = [
        (
            found.peak
            if found.weight + exponents.get(unknown, 0) <= LARGEST_WEIGHT
            else max(found.peak, found.weight)
        )
        + exponents.get(unknown, 0)
        for unknown, found in ranges.items()
    ]
    numbers = {p.name: trace.added.get(p.exponent, 0.0) for p in trace.parameters.values()}
    return FoldPlan(
        offsets={name: numbers[name] for name, p in sorted(parameters.items()) if p and numbers[name]},
        parameters={name: p for name, p in sorted(parameters.items()) if p},
        epsilons={name: p for name, p in sorted(epsilons.items()) if p},
        islands=islands,
        limit=limit,
        headroom_bits=round(math.log2(65504) - max(peaks), 2) if peaks else math.inf,
    )


def widen(trace: Trace, boundary: Mapping[int, float], bits: int) -> FoldPlan:
    """The inverse of a fold: 16-bit tensors of ``boundary`` grow by 2^bits and no output changes.

    ``boundary`` is ``trace.outputs[module]`` or ``trace.inputs[module]``. Tensors in it whose scale is fixed
    (an input of the whole model, a constant) stay as they are. Apply the plan with ``fold_modules``. Raises
    ``Infeasible`` if no tensor can grow.
    """
    roots = {trace.exponents.root(unknown) for unknown in boundary} - {PINNED}
    pinned = immovable(trace)
    movable = []
    for root in sorted(roots):
        try:
            solve_exponents(trace, {}, pinned, demands={root: bits})
            movable.append(root)
        except Infeasible:
            continue
    if not movable:
        raise Infeasible("no tensor at this boundary can change its scale")
    exponents = solve_exponents(trace, {}, pinned, demands=dict.fromkeys(movable, bits))
    return as_plan(trace, exponents, {}, (), limit=0)

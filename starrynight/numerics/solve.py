"""Choose the folds: integer exponents for parameters that bring every 16-bit tensor of a trace inside float16.

A small mixed-integer linear programme, solved by HiGHS (``scipy.optimize.milp``). Its rows are the trace's relations
and ranges; it knows nothing of the ops they came from, and it touches no tensor (``fold`` does).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from starrynight.numerics.exponents import PINNED
from starrynight.numerics.islands import find_islands, inside
from starrynight.numerics.trace import Epsilon, Trace

# Largest exponent of float16 is 15 (65504 < 2^16). Staying at or below 2^13 leaves three bits for inputs that were
# not used for calibration: at 2^15 one of two held-out pictures of Firefly's fifth sitting broke (docs/log.md).
LIMIT = 13

# float16's subnormals begin at 2^-14 and reach bfloat16's coarseness (8 bits) at 2^-17: the low quantile of every
# tensor should stay above this.
FLOOR = -16

# No parameter is folded further, nor any other tensor further than a square of one: squares of folded tensors, as in
# a variance, then stay inside float32's range (2^±126).
LARGEST_FOLD = 32
LARGEST = 2 * LARGEST_FOLD

# An epsilon that is not rescaled may stay if it is at most this share of the smallest quantity it is added to: the
# quotient then changes by 2^-22 (2.4e-7), two of float32's last bits, in the quietest row and by less in all others.
NEGLIGIBLE = 2.0**-21

# Prices: a bit beyond the range, a bit of the small values, a bit of a fold. Of two equal ways the one that folds the
# later parameter is cheaper, by up to TIE, so that the answer does not hang on the solver's order.
STUCK, COARSE, FOLD, TIE = 1e6, 100.0, 1.0, 0.1


class Unreachable(ValueError):
    """No choice of exponents gives the tensors the scale that was demanded."""


@dataclass(frozen=True)
class FoldPlan:
    """What to do to a model so that float16 holds it.

    ``parameters``: name → p, the parameter is multiplied by 2^p. ``epsilons``: "module.attribute" → p, likewise.
    ``configs``: keys of a configuration that hold those epsilons → p, for a checkpoint that is written. ``islands``:
    modules that run in float32. ``limit``: log2 of the largest magnitude planned for. ``headroom_bits``: bits between the
    largest folded tensor of the calibration and 65504; infinite if nothing was held in 16 bits.
    """

    parameters: Mapping[str, int] = field(default_factory=dict)
    epsilons: Mapping[str, int] = field(default_factory=dict)
    configs: Mapping[str, int] = field(default_factory=dict)
    islands: tuple[str, ...] = ()
    limit: int = LIMIT
    headroom_bits: float = math.inf

    @property
    def fits(self) -> bool:
        """Whether float16 holds everything; not so only where the model's own inputs or outputs are too large."""
        return self.headroom_bits >= 0

    def to_json(self) -> str:
        """Canonical text: equal plans have equal texts. "spare" is the header's key for ``headroom_bits``."""
        fields = asdict(self)
        fields["spare"] = fields.pop("headroom_bits")
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> FoldPlan:
        fields = json.loads(text)
        fields["headroom_bits"] = fields.pop("spare", math.inf)
        return cls(**fields | {"islands": tuple(fields["islands"])})


@dataclass(frozen=True)
class CheckpointConstraints:
    """What an ordinary checkpoint can carry of the epsilons: whole groups, each set by one key of a configuration.

    ``keys``: key → the epsilons ("module.attribute") that it sets. ``told``: epsilons that the traced modules hold
    2^power times as large as their configuration says, because a header told them to.
    """

    keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)


def solve(
    trace: Trace,
    limit: int = LIMIT,
    plain: CheckpointConstraints | None = None,
    fixed: Callable[[str], bool] = lambda name: False,
) -> FoldPlan:
    """The plan for a traced model. The same trace gives the same plan.

    ``plain``: only folds that an ordinary checkpoint can carry, so no non-persistent buffer, and no epsilon but by its key.
    ``fixed``: parameters, by name, that must not change. What stays out of range becomes a float32 island; the
    programme is then solved again without what is inside, until nothing is out of range.
    """
    pinned = immovable(trace, plain is not None) | {
        p.exponent for p in trace.parameters.values() if fixed(p.name)
    }
    islands: tuple[str, ...] = ()
    while True:
        ranges = collect_ranges(trace, islands)
        exponents = solve_exponents(trace, ranges, pinned, plain=plain, limit=limit)
        found = find_islands(trace, exponents, limit, islands)
        if found == islands:
            plan = as_plan(trace, exponents, ranges, islands, limit)
            return _carried(plan, plain, exponents) if plain else plan
        islands = found


def immovable(trace: Trace, plain: bool = False) -> set[int]:
    """Exponents of parameters that no op of the run met, and, for a plain checkpoint, of what it does not store."""
    parameters = trace.parameters.values()
    return {p.exponent for p in parameters if p.exponent not in trace.used or (plain and not p.kept)}


@dataclass
class Range:
    """log2 of the largest and of the (typical) small magnitude of the tensors that share an exponent."""

    peak: float = -math.inf
    smalls: list[float] = field(default_factory=list)

    def include(self, peak: float, small: float = math.inf) -> None:
        if peak > 0:
            self.peak = max(self.peak, math.log2(peak))
        if 0 < small < math.inf:
            self.smalls.append(math.log2(small))

    @property
    def small(self) -> float:
        """The median over tensors: one sparse tensor must not lift all others."""
        return float(np.median(self.smalls)) if self.smalls else math.inf


def collect_ranges(trace: Trace, islands: Iterable[str] = ()) -> dict[int, Range]:
    """The range of each exponent's 16-bit tensors and parameters, but for what islands hold in float32."""
    islands = tuple(islands)
    ranges: dict[int, Range] = {}

    def include(unknown: int, peak: float, small: float = math.inf) -> None:
        ranges.setdefault(trace.exponents.root(unknown), Range()).include(peak, small)

    for site in trace.sites.values():
        if site.half and not inside(site.module, islands):
            for unknown in site.exponents:
                include(unknown, site.peak, site.small)
    for parameter in trace.parameters.values():
        if parameter.half and not inside(parameter.name, islands):
            include(parameter.exponent, parameter.peak, parameter.small)
    for island in islands:  # what an island hands on is rounded to 16 bits again
        for unknown, peak in trace.outputs[island].items():
            include(unknown, peak)
    return ranges


def solve_exponents(
    trace: Trace,
    ranges: Mapping[int, Range],
    pinned: Iterable[int] = (),
    demands: Mapping[int, int] | None = None,
    plain: CheckpointConstraints | None = None,
    limit: int = LIMIT,
) -> dict[int | str, int]:
    """An integer for every root of the trace's exponents (and every key of ``plain``), at the least price.

    ``pinned`` unknowns are 0 and ``demands`` fixes others to a value; raises ``Unreachable`` if that cannot be.
    """
    root = trace.exponents.root
    roots = sorted({root(u) for u in range(len(trace.exponents))} - {PINNED})
    programme = _Programme([*roots, *(plain.keys if plain else ())])
    for relation in trace.exponents.relations():
        programme.equation(relation, 0)
    for unknown, value in {**dict.fromkeys(pinned, 0), **(demands or {})}.items():
        if root(unknown) != PINNED:
            programme.equation({root(unknown): 1}, value)
        elif value:
            raise Unreachable("the tensor keeps its scale: an input, an output, or tied to one")
    for epsilon in trace.epsilons.values():
        if plain is not None or not epsilon.attribute:
            _bound_epsilon(programme, epsilon, root(epsilon.exponent), plain or CheckpointConstraints())
    _bound_keys(programme, trace, plain or CheckpointConstraints())
    for unknown, found in ranges.items():
        if unknown == PINNED:
            continue
        if found.peak > -math.inf:
            programme.at_most(unknown, math.floor(limit - found.peak), STUCK)
        if found.small < math.inf:
            programme.at_least(unknown, math.ceil(FLOOR - found.small), COARSE)
    folds = {root(p.exponent): place for place, p in enumerate(trace.parameters.values())}
    for unknown, place in folds.items():
        if unknown != PINNED:
            price = FOLD + TIE * (1 - place / len(trace.parameters))
            programme.bound(unknown, -LARGEST_FOLD, LARGEST_FOLD)
            programme.at_most(unknown, 0, price)
            programme.at_least(unknown, 0, price)
    return programme.solve()


def _bound_epsilon(programme: _Programme, epsilon: Epsilon, root: int, plain: CheckpointConstraints) -> None:
    """An epsilon goes with the quantity it is added to, or stays negligible beside it.

    It can be moved by its key alone; beside a quantity that moves by 2^v it should be 2^v times what it is.
    """
    name = f"{epsilon.module}.{epsilon.attribute}" if epsilon.attribute else ""
    terms: dict[int | str, int] = {} if root == PINNED else {root: -1}
    terms |= {key: 1 for key, members in plain.keys.items() if name in members}
    told = plain.told.get(name, 0)
    if epsilon.smallest == math.inf or not (terms or told):
        return
    room = math.log2(NEGLIGIBLE * epsilon.smallest / epsilon.value) if epsilon.smallest > 0 else -math.inf
    if room < 0:
        programme.between(terms, told, told)
    else:
        programme.between(terms, -math.inf, told + math.floor(room))


def _bound_keys(programme: _Programme, trace: Trace, plain: CheckpointConstraints) -> None:
    """A key stays as it is unless there is need, and if it sets an epsilon that the run never met."""
    met = {f"{epsilon.module}.{epsilon.attribute}" for epsilon in trace.epsilons.values()}
    for key, members in plain.keys.items():
        programme.at_most(key, 0, TIE)
        programme.at_least(key, 0, TIE)
        if not members <= met:
            programme.equation({key: 1}, 0)


def _carried(plan: FoldPlan, plain: CheckpointConstraints, exponents: Mapping[int | str, int]) -> FoldPlan:
    """The plan with the epsilons that the keys set, seen from what the modules hold now."""
    powers = {name: -power for name, power in plain.told.items()}
    for key, members in plain.keys.items():
        for name in members:
            powers[name] = powers.get(name, 0) + exponents[key]
    return replace(
        plan,
        epsilons={name: power for name, power in sorted(powers.items()) if power},
        configs={key: exponents[key] for key in sorted(plain.keys) if exponents[key]},
    )


class _Programme:
    """Rows and prices of a linear programme over integer exponents and the (continuous) bits by which they miss."""

    def __init__(self, unknowns: list[int | str]) -> None:
        self._column = {unknown: i for i, unknown in enumerate(unknowns)}
        self._bounds = [(-float(LARGEST), float(LARGEST))] * len(unknowns)
        self._prices: list[float] = [0.0] * len(unknowns)
        self._entries: list[tuple[int, int, float]] = []
        self._row_bounds: list[tuple[float, float]] = []

    def bound(self, unknown: int, low: int, high: int) -> None:
        """Narrow what an unknown may be."""
        column = self._column[unknown]
        known = self._bounds[column]
        self._bounds[column] = (max(known[0], low), min(known[1], high))

    def equation(self, terms: Mapping[int, int] | Mapping[str, int], value: int) -> None:
        self.between(terms, value, value)

    def between(self, terms: Mapping[Any, int], low: float, high: float) -> None:
        if not terms and not low <= 0 <= high:
            raise Unreachable("an epsilon that nothing can move has to move")
        self._row({self._column[u]: float(c) for u, c in terms.items()}, low, high)

    def at_most(self, unknown: int | str, bound: int, price: float) -> None:
        self._row({self._column[unknown]: 1.0, self._miss(price): -1.0}, -math.inf, bound)

    def at_least(self, unknown: int | str, bound: int, price: float) -> None:
        self._row({self._column[unknown]: 1.0, self._miss(price): 1.0}, bound, math.inf)

    def _miss(self, price: float) -> int:
        self._prices.append(price)
        return len(self._prices) - 1

    def _row(self, terms: Mapping[int, float], low: float, high: float) -> None:
        row = len(self._row_bounds)
        self._entries.extend((row, column, value) for column, value in terms.items())
        self._row_bounds.append((low, high))

    def solve(self) -> dict[int | str, int]:
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
            raise Unreachable(result.message)
        return {unknown: round(result.x[column]) for unknown, column in self._column.items()}


def as_plan(
    trace: Trace,
    exponents: Mapping[Any, int],
    ranges: Mapping[int, Range],
    islands: tuple[str, ...],
    limit: int,
) -> FoldPlan:
    """Exponents by name, zeros left out."""

    def exponent(unknown: int) -> int:
        return exponents.get(trace.exponents.root(unknown), 0)

    parameters = {p.name: exponent(p.exponent) for p in trace.parameters.values()}
    epsilons = {
        f"{e.module}.{e.attribute}": exponent(e.exponent) for e in trace.epsilons.values() if e.attribute
    }
    peaks = [found.peak + exponents.get(unknown, 0) for unknown, found in ranges.items()]
    return FoldPlan(
        parameters={name: p for name, p in sorted(parameters.items()) if p},
        epsilons={name: p for name, p in sorted(epsilons.items()) if p},
        islands=islands,
        limit=limit,
        headroom_bits=round(math.log2(65504) - max(peaks), 2) if peaks else math.inf,
    )

"""One type for each layer under so many bytes, so that the predicted error of the picture is least.

Errors of layers add up (docs/fit.md), so the choice is an integer programme: binary x for each layer and type, one type a
layer, bytes within the budget, least Σ error · x. HiGHS solves it, by way of scipy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from starrynight.errors import Unfit

# A solution within this of the best there is may end the search; of the seconds it may take.
GAP, SECONDS = 1e-4, 20.0


@dataclass(frozen=True)
class Option:
    """A layer in a type: its bytes, and the mean square error that it alone adds to a picture."""

    kind: str
    bytes: int
    error: float


def smallest(options: Mapping[str, Sequence[Option]]) -> int:
    """Bytes of the layers with the fewest bits each."""
    return sum(min(option.bytes for option in own) for own in options.values())


def choose(options: Mapping[str, Sequence[Option]], budget: int) -> dict[str, Option]:
    """The options, one a layer, of at most ``budget`` bytes together and the least error. Raises Unfit if none fits."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    if (least := smallest(options)) > budget:
        raise Unfit(
            f"The layers take at least {least / 1e9:.3f} GB in the fewest bits, and {max(0, budget) / 1e9:.3f} GB are left for them; give more room.",
            f"各层即使用最少的位数也需 {least / 1e9:.3f} GB，而可用的只有 {max(0, budget) / 1e9:.3f} GB；请放宽限制。",
        )
    kept = {name: _undominated(own) for name, own in options.items()}
    flat = [(number, option) for number, own in enumerate(kept.values()) for option in own]
    errors = np.array([option.error for _, option in flat])
    sizes = np.array([option.bytes for _, option in flat], dtype=float)
    rows, columns = [number for number, _ in flat], np.arange(len(flat))
    once = csr_array((np.ones(len(flat)), (rows, columns)))
    found = milp(
        errors / max(errors.max(), 1e-300),
        constraints=[
            LinearConstraint(once, 1, 1),
            LinearConstraint(sizes[None] / max(budget, 1), -np.inf, 1),
        ],
        bounds=Bounds(0, 1),
        integrality=np.ones(len(flat)),
        options={"mip_rel_gap": GAP, "time_limit": SECONDS},
    )
    if found.x is None:  # out of time without any solution; the least fits, as tested above
        return {name: min(own, key=lambda option: option.bytes) for name, own in kept.items()}
    names = list(kept)
    taken = {names[number]: option for (number, option), x in zip(flat, found.x, strict=True) if x > 0.5}
    return _tightened(taken, kept, budget)


def _undominated(own: Sequence[Option]) -> list[Option]:
    """The options of which no other is as small and as near, by size."""
    kept: list[Option] = []
    for option in sorted(own, key=lambda option: (option.bytes, option.error)):
        if not kept or option.error < kept[-1].error:
            kept.append(option)
    return kept


def _tightened(
    taken: dict[str, Option], kept: Mapping[str, Sequence[Option]], budget: int
) -> dict[str, Option]:
    """The solution with what the solver's tolerances left over: single layers get the next better type while bytes remain,
    and the bytes never exceed the budget.
    """
    spare = budget - sum(option.bytes for option in taken.values())
    while spare < 0:  # the solver's feasibility tolerance is 1e-6 of the budget
        name = min(
            (name for name in taken if kept[name][0] != taken[name]),
            key=lambda name: _next(kept[name], taken[name], -1).error - taken[name].error,
        )
        smaller = _next(kept[name], taken[name], -1)
        spare += taken[name].bytes - smaller.bytes
        taken[name] = smaller
    while True:
        gains = [
            (taken[name].error - better.error, name, better)
            for name, own in kept.items()
            if (better := _next(own, taken[name], 1)) is not taken[name]
            and better.bytes - taken[name].bytes <= spare
        ]
        if not gains:
            return taken
        _, name, better = max(gains, key=lambda gain: gain[0])
        spare -= better.bytes - taken[name].bytes
        taken[name] = better


def _next(own: Sequence[Option], option: Option, step: int) -> Option:
    place = own.index(option) + step
    return own[place] if 0 <= place < len(own) else option

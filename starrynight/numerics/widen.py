"""The inverse of a fold: the same function with larger numbers inside, so that what breaks float16 can be made at will.

For test twins of models: uses the same relations as ``solve``, so it knows no architecture either.
"""

from __future__ import annotations

from collections.abc import Mapping

from starrynight.numerics.exponents import PINNED
from starrynight.numerics.solve import FoldPlan, Unreachable, as_plan, solve_exponents
from starrynight.numerics.trace import Trace


def widen(trace: Trace, boundary: Mapping[int, float], bits: int) -> FoldPlan:
    """The plan that makes the 16-bit tensors of ``boundary`` larger by 2^bits and changes no output.

    ``boundary`` is ``trace.outputs[module]`` or ``trace.inputs[module]``. Tensors in it that cannot move (an input of
    the whole, a number of the model's own) stay. Apply with ``fold``. Raises ``Unreachable`` if none can move.
    """
    roots = {trace.exponents.root(unknown) for unknown in boundary} - {PINNED}
    movable = []
    for root in sorted(roots):
        try:
            solve_exponents(trace, {}, demands={root: bits})
            movable.append(root)
        except Unreachable:
            continue
    if not movable:
        raise Unreachable("no tensor at this boundary can change its scale")
    exponents = solve_exponents(trace, {}, demands=dict.fromkeys(movable, bits))
    return as_plan(trace, exponents, {}, (), limit=0)

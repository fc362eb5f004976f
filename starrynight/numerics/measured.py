"""What a trace holds: parameters, ops by their place, epsilons, and what was met where; also as text, to continue later."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from starrynight.numerics.exponents import Exponents


@dataclass
class Parameter:
    """A parameter or buffer. ``kept``: a checkpoint stores it, which is false for non-persistent buffers.

    ``peak`` is max|x|, ``small`` the low quantile of |x|; ``half``: it is in 16 bits during the run.
    """

    name: str
    exponent: int
    peak: float
    small: float
    half: bool
    kept: bool


@dataclass
class Site:
    """One op at one place of the program, over all steps. ``exponents`` of its output, usually one."""

    module: str
    op: str
    half: bool = False
    peak: float = 0.0
    small: float = math.inf
    exponents: set[int] = field(default_factory=set)


@dataclass
class Epsilon:
    """A constant that a module adds to a quantity with ``exponent``, to keep a quotient finite.

    ``module`` and ``attribute`` name where it can be rescaled; ``attribute`` is "" if no module attribute
    holds it. ``smallest`` is the smallest quantity it was added to.
    """

    module: str
    attribute: str
    value: float
    exponent: int
    smallest: float = math.inf

    @property
    def name(self) -> str:
        """As in ``FoldPlan.epsilons``."""
        return f"{self.module}.{self.attribute}"


@dataclass
class Trace:
    """The scale relations and the ranges of a run.

    ``inputs`` and ``outputs``: module name → {exponent: peak} of the 16-bit tensors that cross its boundary.
    ``used``: exponents that some op read; a parameter outside it was never exercised and must not change.
    ``scopes``: module name → exponents that its own forward met. ``idle``: modules that never ran and might write
    into such a scope; ``branches``: those that name a parameter which no op read. ``fixed_epsilons``: "module.attribute" of those also used as another number.
    ``added``: exponent of a parameter → the number that every op that reads it adds to it; 0 if one reads it as it is.
    ``unknown_ops`` counts ops without a rule. ``broken``: module name → the op that made a NaN there.
    ``places`` numbers the module calls and unknowns of the program, so that a later step or run reuses them.
    """

    exponents: Exponents = field(default_factory=Exponents)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    sites: dict[tuple, Site] = field(default_factory=dict)
    epsilons: dict[tuple, Epsilon] = field(default_factory=dict)
    inputs: dict[str, dict[int, float]] = field(default_factory=dict)
    outputs: dict[str, dict[int, float]] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    scopes: dict[str, set[int]] = field(default_factory=dict)
    idle: set[str] = field(default_factory=set)
    branches: set[str] = field(default_factory=set)
    fixed_epsilons: set[str] = field(default_factory=set)
    added: dict[int, float] = field(default_factory=dict)
    unknown_ops: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    places: dict[tuple, int] = field(default_factory=dict)

    def owns(self, epsilon: Epsilon) -> bool:
        """Whether the epsilon can be rescaled where a module holds it."""
        return bool(epsilon.attribute) and epsilon.name not in self.fixed_epsilons

    def to_json(self) -> str:
        """Equal traces give equal texts. Infinities are written as ``Infinity``, which only Python reads."""
        return json.dumps({
            "exponents": self.exponents.as_data(),
            "parameters": [asdict(parameter) for parameter in self.parameters.values()],
            "sites": [[key, {**asdict(site), "exponents": sorted(site.exponents)}] for key, site in self.sites.items()],
            "epsilons": [[key, asdict(epsilon)] for key, epsilon in self.epsilons.items()],
            "inputs": _listed(self.inputs),
            "outputs": _listed(self.outputs),
            "used": sorted(self.used),
            "scopes": {name: sorted(met) for name, met in self.scopes.items()},
            "idle": sorted(self.idle),
            "branches": sorted(self.branches),
            "fixed_epsilons": sorted(self.fixed_epsilons),
            "added": list(self.added.items()),
            "unknown_ops": dict(self.unknown_ops),
            "broken": self.broken,
            "places": [[key, number] for key, number in self.places.items()],
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """Read the output of ``to_json``. Raises ValueError, KeyError or TypeError for anything else."""
        payload = json.loads(text)
        parameters = [Parameter(**entry) for entry in payload["parameters"]]
        return cls(
            exponents=Exponents.from_data(payload["exponents"]),
            parameters={parameter.name: parameter for parameter in parameters},
            sites={
                _tuple(key): Site(**{**entry, "exponents": set(entry["exponents"])})
                for key, entry in payload["sites"]
            },
            epsilons={_tuple(key): Epsilon(**entry) for key, entry in payload["epsilons"]},
            inputs={name: dict(entries) for name, entries in payload["inputs"].items()},
            outputs={name: dict(entries) for name, entries in payload["outputs"].items()},
            used=set(payload["used"]),
            scopes={name: set(met) for name, met in payload["scopes"].items()},
            idle=set(payload["idle"]),
            branches=set(payload["branches"]),
            fixed_epsilons=set(payload["fixed_epsilons"]),
            added=dict(payload["added"]),
            unknown_ops=Counter(payload["unknown_ops"]),
            broken=payload["broken"],
            places={_tuple(key): number for key, number in payload["places"]},
        )


def _listed(boundaries: Mapping[str, Mapping[int, float]]) -> dict[str, list[tuple[int, float]]]:
    """Pairs instead of mappings, because JSON's keys are strings and these are numbers."""
    return {name: list(peaks.items()) for name, peaks in boundaries.items()}


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value

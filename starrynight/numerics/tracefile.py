"""A trace as text and back, so that a long one can be laid aside and gone on with. Measures and chooses nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starrynight.numerics.exponents import Exponents
from starrynight.numerics.trace import Epsilon, Parameter, Site, Trace


def to_json(trace: Trace) -> str:
    """Equal traces have equal texts. Infinities are written as Python writes them."""
    return json.dumps({
        "exponents": trace.exponents.as_data(),
        "parameters": [asdict(parameter) for parameter in trace.parameters.values()],
        "sites": [[key, {**asdict(site), "exponents": sorted(site.exponents)}] for key, site in trace.sites.items()],
        "epsilons": [[key, asdict(epsilon)] for key, epsilon in trace.epsilons.items()],
        "inputs": _listed(trace.inputs),
        "outputs": _listed(trace.outputs),
        "used": sorted(trace.used),
        "unknown_ops": dict(trace.unknown_ops),
        "broken": trace.broken,
        "places": [[key, number] for key, number in trace.places.items()],
    })  # fmt: skip


def from_json(text: str) -> Trace:
    """What ``to_json`` gave. Raises ValueError, KeyError or TypeError for anything else."""
    told = json.loads(text)
    parameters = [Parameter(**entry) for entry in told["parameters"]]
    return Trace(
        exponents=Exponents.from_data(told["exponents"]),
        parameters={parameter.name: parameter for parameter in parameters},
        sites={
            _tuple(key): Site(**{**entry, "exponents": set(entry["exponents"])})
            for key, entry in told["sites"]
        },
        epsilons={_tuple(key): Epsilon(**entry) for key, entry in told["epsilons"]},
        inputs={name: dict(entries) for name, entries in told["inputs"].items()},
        outputs={name: dict(entries) for name, entries in told["outputs"].items()},
        used=set(told["used"]),
        unknown_ops=Counter(told["unknown_ops"]),
        broken=told["broken"],
        places={_tuple(key): number for key, number in told["places"]},
    )


def _listed(boundaries: Mapping[str, Mapping[int, float]]) -> dict[str, list[tuple[int, float]]]:
    """JSON's keys are strings; these are numbers."""
    return {name: list(peaks.items()) for name, peaks in boundaries.items()}


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value

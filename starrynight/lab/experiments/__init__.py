"""The experiments: one question a file, all of one shape.

    QUESTION   in English and Chinese
    CLAIMS     the ids of claims.py that it answers
    PER        what one measurement is of: "machine", "model", "format", "picture", or "attempt": a picture that may be
               painted for no other reason than to see whether it breaks
    REFERENCE  whether float32 itself is measured too
    TWIN       whether the wide twin is measured too: it has Firefly's sizes and times, but not its ranges
    measure(bench, point) -> dict      the raw numbers of one point; JSON's own values
    judge(rows) -> list[Finding]       what all of them together say; [] while there are none

To read the second is to diff it with the first. None knows the runner, the report, or another experiment.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from starrynight.lab.plan import REFERENCE, WIDE, ExperimentPlan, Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench
    from starrynight.lab.findings import Finding, Rows

NAMES = (
    "facts", "products",
    "memory", "extremes", "banding", "norms", "layers", "training",
    "refusals", "colour", "shadows", "roofs", "likeness", "latents", "highlights", "texture",
    "speed", "loading", "offload",
)  # fmt: skip


class Experiment(Protocol):
    QUESTION: tuple[str, str]
    CLAIMS: tuple[str, ...]
    PER: str
    REFERENCE: bool
    TWIN: bool

    def measure(self, bench: Bench, point: Point) -> dict[str, Any]: ...

    def judge(self, rows: Rows) -> list[Finding]: ...


def experiment(name: str) -> Experiment:
    return import_module(f"starrynight.lab.experiments.{name}")


def points(plan: ExperimentPlan, names: tuple[str, ...] = NAMES) -> Iterator[Point]:
    """Every measurement of a plan, in the order that loads each model in each format once and paints float32 first."""
    every = {name: experiment(name) for name in names}
    wanted = set(plan.claims)
    kinds = {n: one for n, one in every.items() if not wanted or wanted.intersection(one.CLAIMS)}

    def of(per: str, model: str = "") -> list[tuple[str, Experiment]]:
        return [(n, one) for n, one in kinds.items() if per == one.PER and (one.TWIN or model != WIDE)]

    yield from (Point(name, "", "") for name, _ in of("machine"))
    for model in plan.models:
        for format_ in plan.formats:
            measured = plan.pictures(model, format_)
            for prompt, seed in plan.attempts(model, format_):
                looked = of("picture", model) if (prompt, seed) in measured else []
                for name, one in of("attempt", model) + looked:
                    if format_ != REFERENCE or one.REFERENCE:
                        yield Point(name, model, format_, prompt, seed)
            for name, one in of("format", model):
                if format_ != REFERENCE or one.REFERENCE:
                    yield Point(name, model, format_)
        yield from (Point(name, model, "") for name, _ in of("model", model))

"""Verdicts, and the rows they are drawn from. A verdict never comes without its numbers.

Knows results, not how they were measured. ``None`` stands for a measurement that a refused picture could not give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starrynight.lab.plan import REFERENCE, WIDE
from starrynight.lab.run import Run, number
from starrynight.lab.stats import Estimate, median

REPRODUCED, REFUTED, HARDWARE, MEASURED = "reproduced", "not reproduced", "needs hardware", "measured"
UNDECIDED = "undecided"
OUTCOMES = {
    REPRODUCED: ("reproduced", "已复现"),
    REFUTED: ("not reproduced", "未能复现"),
    HARDWARE: ("needs hardware not here", "需要此处没有的硬件"),
    UNDECIDED: ("too few to tell", "样本太少，不足以判断"),
    MEASURED: ("measured", "已测量"),
}
Words = tuple[str, str]
# model → format → a figure that reads the same in both languages; the format "" where it is not of one format.
Figures = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Finding:
    """What the measurement says of a claim: ``figures`` are its numbers, ``why`` the cause (English, Chinese)."""

    claim: str
    outcome: str
    figures: Figures
    why: Words

    @property
    def measured(self) -> Words:
        """The figures as a sentence."""
        lines = [
            (model, " · ".join(f"{format_} {text}".strip() for format_, text in told.items()))
            for model, told in self.figures.items()
        ]
        en = "; ".join(f"{name_of(model)}: {text}" if model else text for model, text in lines)
        zh = "；".join(f"{name_zh(model)}：{text}" if model else text for model, text in lines)
        return en, zh


class Rows:
    """A run's results, asked by experiment, model and format."""

    def __init__(self, run: Run) -> None:
        self.plan = run.plan
        self.models, self.formats = run.plan.models, run.plan.formats
        self._rows = [row for row in run.rows.values() if "failed" not in row["result"]]

    def of(
        self, experiment: str, model: str | None = None, format_: str | None = None
    ) -> list[dict[str, Any]]:
        return [
            row
            for row in self._rows
            if row["experiment"] == experiment
            and model in (None, row["model"])
            and format_ in (None, row["format"])
        ]

    def result(self, experiment: str, model: str, format_: str) -> dict[str, Any]:
        """The one result of an experiment that has one for each format; {} if it is not there."""
        found = self.of(experiment, model, format_)
        return found[0]["result"] if found else {}

    def values(self, experiment: str, field: str, model: str, format_: str) -> dict[tuple[int, int], float]:
        """(prompt, seed) → number, of the pictures that were painted."""
        return {
            (row["prompt"], row["seed"]): number(row["result"][field])
            for row in self.of(experiment, model, format_)
            if row["result"].get(field) is not None
        }

    def pairs(
        self, experiment: str, field: str, model: str, a: str, b: str
    ) -> tuple[list[float], list[float]]:
        """The values of formats ``a`` and ``b`` for the pictures that both painted."""
        first, second = (self.values(experiment, field, model, f) for f in (a, b))
        both = sorted(first.keys() & second.keys())
        return [first[k] for k in both], [second[k] for k in both]

    @property
    def others(self) -> list[str]:
        """The formats that are compared with the reference."""
        return [f for f in self.formats if f != REFERENCE]


def name_of(model: str) -> str:
    return {"firefly": "Firefly", WIDE: "wide twin"}.get(model, Path(model).name)


def name_zh(model: str) -> str:
    return {"firefly": "萤火", WIDE: "宽孪生"}.get(model, Path(model).name)


def figure(value: float, digits: int = 3, unit: str = "") -> str:
    """Rounded to ``digits`` that matter, thousands in full."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if math.isnan(value):
        return "–"
    size = abs(value)
    text = f"{value:.0f}" if 10**digits <= size < 1e6 else f"{value:.{digits}g}"
    return text.replace("-", "−") + (f" {unit}" if unit else "")


def bounds(estimate: Estimate, digits: int = 3) -> str:
    """“+0.35 [0.31, 0.40]”, or with too few values the span of all of them."""
    mark = "" if estimate.sure else f", n = {estimate.count}"
    return f"{figure(estimate.value, digits)} [{figure(estimate.low, digits)}, {figure(estimate.high, digits)}{mark}]"


def percent(estimate: Estimate) -> str:
    low, high = (f"{100 * v:.3g}" for v in (estimate.low, estimate.high))
    return f"{100 * estimate.value:.3g} % [{low}, {high}]"


def by_model(rows: Rows, say: Callable[[str, str], str], formats: Iterable[str] = ()) -> Figures:
    """``say(model, format)`` for all of them; what says "" is left out."""
    told = {m: {f: say(m, f) for f in formats or rows.formats} for m in rows.models}
    kept = {m: {f: text for f, text in lines.items() if text} for m, lines in told.items()}
    return {m: lines for m, lines in kept.items() if lines}


def middle(rows: Rows, experiment: str, field: str, model: str, format_: str) -> Estimate:
    """The median over the pictures of one format."""
    return median(list(rows.values(experiment, field, model, format_).values()))


def decibels_by_model(rows: Rows, experiment: str, field: str) -> Figures:
    """The median over the pictures in dB, for every model and format that has one."""

    def say(model: str, format_: str) -> str:
        found = middle(rows, experiment, field, model, format_)
        return figure(found.value, 3, "dB") if found.count else ""

    return by_model(rows, say)


def settled(gap: Estimate, holds: bool) -> str:
    """A verdict on a paired difference; none where there were too few pairs."""
    return UNDECIDED if not gap.sure else REPRODUCED if holds else REFUTED

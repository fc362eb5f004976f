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
from starrynight.lab.run import ExperimentRun, number
from starrynight.lab.stats import FEWEST, Estimate, median

REPRODUCED, REFUTED, HARDWARE, MEASURED = "reproduced", "not reproduced", "needs hardware", "measured"
UNDECIDED = "undecided"
OUTCOMES = {
    REPRODUCED: ("reproduced", "已复现"),
    REFUTED: ("not reproduced", "未能复现"),
    HARDWARE: ("needs hardware not here", "需要此处没有的硬件"),
    UNDECIDED: ("too few to tell", "样本太少，不足以判断"),
    MEASURED: ("measured", "已测量"),
}
FLOAT16_LIMIT = 65504.0
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Words = tuple[str, str]
# model → format → a figure that reads the same in both languages; the format "" where it is not of one format.
Figures = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Finding:
    """What the measurement says of a claim: ``figures`` are its numbers, ``gist`` the answer in a line, ``why`` all of it
    with the cause (English, Chinese).
    """

    claim: str
    outcome: str
    figures: Figures
    why: Words
    gist: Words = ("", "")


class Rows:
    """A run's results, asked by experiment, model and format."""

    def __init__(self, run: ExperimentRun) -> None:
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
    """Rounded to ``digits`` that matter, thousands in full, what is larger or very small as 1.26·10⁷."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if math.isnan(value):
        return "–"
    size = abs(value)
    text = f"{value:.0f}" if 10**digits <= size < 1e6 else f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        times = "" if mantissa == "1" else f"{mantissa}·"
        text = f"{times}10{str(int(exponent)).translate(RAISED)}"
    return text.replace("-", "−") + (f" {unit}" if unit else "")


def bounds(estimate: Estimate, digits: int = 3) -> str:
    """“+0.35 [0.31, 0.40]”, or with too few values the span of all of them."""
    mark = "" if estimate.sure else f", n = {estimate.count}"
    return f"{figure(estimate.value, digits)} [{figure(estimate.low, digits)}, {figure(estimate.high, digits)}{mark}]"


def percent(estimate: Estimate) -> str:
    low, high = (f"{100 * v:.3g}" for v in (estimate.low, estimate.high))
    return f"{100 * estimate.value:.3g} % [{low}, {high}]"


def sentences(*parts: Words) -> Words:
    """Several in a row, in both languages; empty ones are left out."""
    return " ".join(en for en, _ in parts if en), "".join(zh for _, zh in parts if zh)


def facts(rows: Rows, format_: str) -> dict[str, float]:
    """What was probed of a format: ``fraction`` bits, ``largest``, ``normal`` and ``tiny`` numbers; NaN where nothing was."""
    found = rows.result("facts", "", "").get(format_, {})
    probed = {name: number(found.get(name)) for name in ("largest", "normal", "tiny")}
    return probed | {"fraction": number(found["bits"][2] if found else None)}


def peak(rows: Rows, model: str, format_: str) -> float:
    """The largest number a layer puts out at the first step; ∞ where one is no number, NaN where none was looked at."""
    layers = rows.result("layers", model, format_).get("layers", [])
    return max((finite(one["peak"]) for one in layers), default=math.nan)


def finite(value: Any) -> float:
    """The number behind a value of a row, ∞ where it is none."""
    return number(value) if math.isfinite(number(value)) else math.inf


def few(gap: Estimate) -> Words:
    """What is missing where ``settled`` cannot settle; nothing where it can."""
    if gap.sure:
        return "", ""
    return (
        f"{gap.count} pairs are too few: an interval takes {FEWEST} (starry lab run -o RUN --seeds MORE).",
        f"只有 {gap.count} 对，太少：区间至少要 {FEWEST} 对（starry lab run -o RUN --seeds 更多）。",
    )


def decibels_for_bits(rows: Rows, gain: Estimate) -> Words:
    """Whether bfloat16's gain in dB over float16 is what its fraction bits, as they were probed, would have it be."""
    bits = facts(rows, "bfloat16")["fraction"] - facts(rows, "float16")["fraction"]
    due = 20 * math.log10(2) * bits
    if math.isnan(due):
        return "", ""
    said = f"{bits:+.0f}".replace("-", "−"), f"{due:+.0f}".replace("-", "−")
    if abs(gain.value - due) < 20 * math.log10(2):
        return (
            f"That is rounding: {said[0]} fraction bits are {said[1]} dB.",
            f"这就是舍入：尾数 {said[0]} 位即 {said[1]} dB。",
        )
    return (
        f"Rounding alone would be {said[1]} dB ({said[0]} fraction bits): something else is at work.",
        f"若只是舍入应为 {said[1]} dB（尾数 {said[0]} 位）：起作用的不止于此。",
    )


def joined(parts: Iterable[str]) -> str:
    return ", ".join(parts)


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

    def message(model: str, format_: str) -> str:
        found = middle(rows, experiment, field, model, format_)
        return figure(found.value, 3, "dB") if found.count else ""

    return by_model(rows, message)


def settled(gap: Estimate, holds: bool) -> str:
    """A verdict on a paired difference; none where there were too few pairs."""
    return UNDECIDED if not gap.sure else REPRODUCED if holds else REFUTED

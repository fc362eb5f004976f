"""Verdicts on the claims, the rows they are computed from, and how numbers are written in them.

A verdict always carries its numbers. In a row, ``None`` stands for a value that a refused picture cannot give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starrynight.i18n import Text
from starrynight.lab.plan import REFERENCE, WIDE
from starrynight.lab.run import ExperimentRun, number
from starrynight.lab.stats import FEWEST, Estimate, median

REPRODUCED, REFUTED, HARDWARE, MEASURED = "reproduced", "not reproduced", "needs hardware", "measured"
UNDECIDED = "undecided"
OUTCOMES = {
    REPRODUCED: Text("reproduced", "已复现"),
    REFUTED: Text("not reproduced", "未能复现"),
    HARDWARE: Text("needs other hardware", "需要其他硬件"),
    UNDECIDED: Text("too few samples", "样本太少，无法判断"),
    MEASURED: Text("measured", "已测量"),
}
FLOAT16_LIMIT = 65504.0  # the largest finite float16
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
EMPTY = Text("", "")
# model → format → a figure that reads the same in both languages; format "" if the figure belongs to no one format.
Figures = dict[str, dict[str, str]]
FigureOf = Callable[[str, str], str]  # (model, format) → its figure
Row = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """The verdict on one claim: ``figures`` are its numbers, ``explanation`` is the full text with the cause, and
    ``summary`` answers the claim in one line.
    """

    claim: str
    outcome: str
    figures: Figures
    explanation: Text
    summary: Text = EMPTY


class Rows:
    """A run's results, selected by experiment, model and format. Rows of failed measurements are left out."""

    def __init__(self, run: ExperimentRun) -> None:
        self.plan = run.plan
        self.models, self.formats = run.plan.models, run.plan.formats
        self._rows = [row for row in run.rows.values() if "failed" not in row["result"]]

    def of(self, experiment: str, model: str | None = None, format_: str | None = None) -> list[Row]:
        found = [row for row in self._rows if row["experiment"] == experiment]
        return [row for row in found if model in (None, row["model"]) and format_ in (None, row["format"])]

    def results(self, experiment: str, model: str | None = None, format_: str | None = None) -> list[Row]:
        """What ``of`` selects, without the rows' other columns."""
        return [row["result"] for row in self.of(experiment, model, format_)]

    def result(self, experiment: str, model: str, format_: str) -> Row:
        """The result of an experiment that is measured once per format (or model, or machine); {} if it is missing."""
        return next(iter(self.results(experiment, model, format_)), {})

    def values(self, experiment: str, field: str, model: str, format_: str) -> dict[tuple[int, int], float]:
        """(prompt, seed) → value, for the pictures that have one."""
        return {
            (row["prompt"], row["seed"]): number(row["result"][field])
            for row in self.of(experiment, model, format_)
            if row["result"].get(field) is not None
        }

    def pairs(
        self, experiment: str, field: str, model: str, a: str, b: str
    ) -> tuple[list[float], list[float]]:
        """The values of formats ``a`` and ``b``, for the pictures that have both."""
        first, second = (self.values(experiment, field, model, f) for f in (a, b))
        both = sorted(first.keys() & second.keys())
        return [first[k] for k in both], [second[k] for k in both]

    def two(self, experiment: str) -> tuple[Row, Row]:
        """The first model's results in float16 and in bfloat16; {} where one is missing."""
        return self.result(experiment, self.models[0], "float16"), self.result(
            experiment, self.models[0], "bfloat16"
        )

    def median(self, experiment: str, field: str, model: str, format_: str) -> Estimate:
        """The median over the pictures of one format."""
        return median(list(self.values(experiment, field, model, format_).values()))

    def format_properties(self, format_: str) -> dict[str, float]:
        """What the "facts" experiment probed of a format: ``fraction`` bits, ``largest``, ``normal`` and ``tiny``
        numbers; NaN where it was not measured.
        """
        found = self.result("facts", "", "").get(format_, {})
        probed = {name: number(found.get(name)) for name in ("largest", "normal", "tiny")}
        return probed | {"fraction": number(found["bits"][2] if found else None)}

    def layer_peak(self, model: str, format_: str) -> float:
        """The largest number that a layer puts out at the first step; ∞ if one is Inf or NaN, NaN if not measured."""
        layers = self.result("layers", model, format_).get("layers", [])
        return max((finite_or_inf(one["peak"]) for one in layers), default=math.nan)

    @property
    def others(self) -> list[str]:
        """The formats that are compared with the reference."""
        return [f for f in self.formats if f != REFERENCE]


def finite_or_inf(value: Any) -> float:
    """The number behind a value of a row; ∞ for Inf and NaN."""
    return number(value) if math.isfinite(number(value)) else math.inf


# -- how numbers and models are written ------------------------------------------------------------------------------


def name_of(model: str) -> str:
    return {"firefly": "Firefly", WIDE: "wide twin"}.get(model, Path(model).name)


def name_zh(model: str) -> str:
    return {"firefly": "萤火", WIDE: "宽孪生"}.get(model, Path(model).name)


def format_number(value: float, digits: int = 3, unit: str = "") -> str:
    """``digits`` significant digits: thousands in full, larger and very small numbers as 1.26·10⁷."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if math.isnan(value):
        return "–"
    size = abs(value)
    text = f"{value:.0f}" if 10**digits <= size < 1e6 else f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        times = "" if mantissa == "1" else f"{mantissa}·"
        text = f"{times}10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return text.replace("-", "−") + (f" {unit}" if unit else "")


def format_interval(estimate: Estimate, digits: int = 3) -> str:
    """“0.35 [0.31, 0.4]”: value and 95 % interval; with too few values for one, their range and count."""
    mark = "" if estimate.sure else f", n = {estimate.count}"
    value, low, high = (format_number(v, digits) for v in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}{mark}]"


def format_percent(estimate: Estimate) -> str:
    low, high = (f"{100 * v:.3g}" for v in (estimate.low, estimate.high))
    return f"{100 * estimate.value:.3g} % [{low}, {high}]"


def join_sentences(*parts: Text) -> Text:
    """One text of several sentences, in both languages; empty ones are left out."""
    return Text(" ".join(part.en for part in parts if part.en), "".join(part.zh for part in parts if part.zh))


def join_names(names: Iterable[str]) -> str:
    return ", ".join(names)


def figures_by_model(rows: Rows, figure_of: FigureOf, formats: Iterable[str] = ()) -> Figures:
    """``figure_of(model, format)`` for every model and format; "" leaves that figure out."""
    every = {m: {f: figure_of(m, f) for f in formats or rows.formats} for m in rows.models}
    kept = {m: {f: text for f, text in figures.items() if text} for m, figures in every.items()}
    return {m: figures for m, figures in kept.items() if figures}


# -- verdicts --------------------------------------------------------------------------------------------------------


def outcome_of(holds: bool) -> str:
    return REPRODUCED if holds else REFUTED


def conclude(
    rows: Rows,
    claim: str,
    outcome: str | bool,
    figure_of: FigureOf,
    why: Iterable[Text],
    summary: Text = EMPTY,
) -> Finding:
    """A judge's finding. ``outcome``: one of ``OUTCOMES``, or whether the claim holds; ``why``: sentences."""
    outcome = outcome if isinstance(outcome, str) else outcome_of(outcome)
    return Finding(claim, outcome, figures_by_model(rows, figure_of), join_sentences(*why), summary)


def paired_outcome(gap: Estimate, holds: bool) -> str:
    """The outcome for a paired difference: undecided if there are too few pairs for an interval."""
    return outcome_of(holds) if gap.sure else UNDECIDED


def too_few_pairs(gap: Estimate) -> Text:
    """How many pairs are missing if ``paired_outcome`` is undecided; else empty."""
    if gap.sure:
        return EMPTY
    return Text(
        f"{gap.count} pairs are too few: an interval needs {FEWEST} (starry lab run -o RUN --seeds MORE).",
        f"只有 {gap.count} 对，样本太少：区间至少需要 {FEWEST} 对（starry lab run -o RUN --seeds 更多）。",
    )


def explain_gain(rows: Rows, gain: Estimate) -> Text:
    """Whether the probed fraction bits account for bfloat16's gain in dB over float16; empty if they are unknown.

    Each fraction bit halves the rounding error: 20·log10(2) = 6.02 dB.
    """
    bits = rows.format_properties("bfloat16")["fraction"] - rows.format_properties("float16")["fraction"]
    expected = 20 * math.log10(2) * bits
    if math.isnan(expected):
        return EMPTY
    bits_text, decibels = (f"{v:+.0f}".replace("-", "−") for v in (bits, expected))
    if abs(gain.value - expected) < 20 * math.log10(2):
        return Text(
            f"Rounding explains it: {bits_text} fraction bits are {decibels} dB.",
            f"舍入即可解释：尾数 {bits_text} 位即 {decibels} dB。",
        )
    return Text(
        f"Rounding alone would give {decibels} dB ({bits_text} fraction bits): there is another cause.",
        f"若只有舍入，应为 {decibels} dB（尾数 {bits_text} 位）：另有原因。",
    )

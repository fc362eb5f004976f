"""Every verdict follows its numbers: each judge gets made-up rows that support its claim and rows that refute it. A sentence
on a cause appears only if the rows contain the cause.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from starrynight.lab.experiments import EXPERIMENTS
from starrynight.lab.findings import HARDWARE, MEASURED, REFUTED, REPRODUCED, UNDECIDED, Finding, Rows
from starrynight.lab.plan import CLAIMS, WIDE, ExperimentPlan, Point
from starrynight.lab.run import ExperimentRun, plain

MB = 2**20
PAIRS = 10


class MadeUpRun:
    """A run with made-up rows; ``add`` adds a row, ``finding`` runs every judge."""

    def __init__(self, *models: str) -> None:
        self.run = ExperimentRun(Path("made-up"), ExperimentPlan(models=models or ("firefly",), seeds=1))
        self.add("facts", probed_formats(), model="", format_="")

    def add(
        self,
        name: str,
        result: dict[str, Any],
        model: str = "firefly",
        format_: str = "",
        at: int | None = None,
    ) -> MadeUpRun:
        point = Point(name, model, format_, at, None if at is None else 0)
        self.run.rows[point.key] = {
            "experiment": name, "model": model, "format": format_, "prompt": at, "seed": point.seed, "result": plain(result)
        }  # fmt: skip
        return self

    def add_pictures(
        self,
        name: str,
        result: Callable[[int, str], dict[str, Any]],
        count: int = PAIRS,
        model: str = "firefly",
    ) -> MadeUpRun:
        """Add ``result(picture, format)`` for ``count`` pictures in float32 and in the formats of the claims."""
        for format_ in ("float32", "float16", "bfloat16"):
            for at in range(count):
                self.add(name, result(at, format_), model, format_, at)
        return self

    def finding(self, claim: str) -> Finding:
        found = [f for one in EXPERIMENTS.values() for f in one.judge(Rows(self.run)) if f.claim == claim]
        assert len(found) == 1, claim
        return found[0]


@cache
def probed_formats() -> dict[str, Any]:
    return EXPERIMENTS["facts"].measure(None, Point("facts", "", ""))  # type: ignore[arg-type]  # needs no bench


def memory_result(weights: int, one: int) -> dict[str, Any]:
    return {
        "weights": weights * MB, "numbers": 50 * MB, "lora": 2 * MB, "emulated": False, "one": one * MB, "two": 2 * one * MB,
        "one_whole": True, "two_whole": True, "process": None, "device": None,
        "phases": {"text": MB, "first": one * MB // 2, "middle": one * MB // 2, "last": one * MB // 2, "decoder": one * MB // 2},
    }  # fmt: skip


def memory(bfloat16: tuple[int, int]) -> MadeUpRun:
    made = (
        MadeUpRun()
        .add("memory", memory_result(200, 48), format_="float32")
        .add("memory", memory_result(100, 24), format_="float16")
    )
    return made.add("memory", memory_result(*bfloat16), format_="bfloat16")


def speed(bfloat16: float, emulated: bool = False) -> MadeUpRun:
    noted = {
        f: {k: [s] * 9 for k in ("wall", "cpu")}
        for f, s in (("float32", 2.0), ("float16", 1.0), ("bfloat16", bfloat16))
    }
    return MadeUpRun().add(
        "speed", {"times": noted, "emulated": ["float16"] if emulated else [], "device": "cuda"}
    )


def colour(float16: float, bfloat16: float, apart: float, count: int = PAIRS) -> MadeUpRun:
    value = {"float32": apart, "float16": float16, "bfloat16": bfloat16}
    return MadeUpRun().add_pictures(
        "colour", lambda at, f: {"mean": value[f] * (1 + at / 1000), "p99": 1.0}, count
    )


def psnr(name: str, float16: float, bfloat16: float, count: int = PAIRS) -> MadeUpRun:
    value = {"float32": None, "float16": float16, "bfloat16": bfloat16}
    return MadeUpRun().add_pictures(
        name, lambda at, f: {"psnr": None if value[f] is None else value[f] + at / 100, "share": 0.2}, count
    )


def refusals(
    float16: int, bfloat16: int = 0, count: int = 100, step: int = 1, peak: float = 1000.0
) -> MadeUpRun:
    broken = {"float32": 0, "float16": float16, "bfloat16": bfloat16}

    def result(at: int, format_: str) -> dict[str, Any]:
        refused = at < broken[format_]
        return {
            "refused": refused, "stage": "prediction" if refused else "", "step": step if refused else None, "module": "",
            "why": ["broke", "坏了"] if refused else None,
        }  # fmt: skip

    made = MadeUpRun().add_pictures("refusals", result, count)
    return made.add("layers", {"layers": [{"name": "a", "peak": peak}]}, format_="float32")


def training(float16: dict[str, float], bfloat16: dict[str, float]) -> MadeUpRun:
    def notes(broken: float = 0.0, flushed: float = 0.0, error: float = -40.0) -> dict[str, list[float]]:
        return {
            "broken": [broken] * 4,
            "flushed": [flushed] * 4,
            "error": [error] * 4,
            "loss": [1.0] * 4,
            "scale": [1.0] * 4,
        }

    made = MadeUpRun()
    for format_, plainly in (("float16", float16), ("bfloat16", bfloat16)):
        found = {
            "fits": True,
            "elements": 9,
            "smallest": [1e-9, 1e-6, 1e-3],
            "plain": notes(**plainly),
            "scaled": notes(),
        }
        made.add("training", found, format_=format_)
    return made


def norms(float16: float, weight: float = 0.0) -> MadeUpRun:
    made = MadeUpRun()
    for format_, wider in (("float16", float16), ("bfloat16", 1.0)):
        layers = {
            n: {"weight": [4.0, 4.0 + weight], "mean": [-wider, wider], "std": [1.0, 1.0], "norm": [1.0, 1.0]}
            for n in "abc"
        }
        found = {
            "layers": layers,
            "unet": True,
            "named": True,
            "side": 128,
            "levels": 2,
            "of": 1000,
            "broke": False,
        }
        made.add("norms", found, format_=format_)
    return made


def latents(broken: int, widest: float = 4.0) -> MadeUpRun:
    return MadeUpRun().add_pictures("latents", lambda at, f: {
        "noise": [-4.0, widest], "broken": broken if f == "float16" else 0, "numbers": 4096, "low": [-1.0], "high": [1.0],
        "drift": [{"float32": float("-inf"), "float16": -60.0, "bfloat16": -42.0}[f]],
    })  # fmt: skip


def extremes(breaks_at: tuple[str, ...], clamped: float = -1.0) -> MadeUpRun:
    made = MadeUpRun()
    for format_ in ("float32", "float16", "bfloat16"):
        broken = breaks_at if format_ == "float16" else ()
        drawn = {m: [-1.0, 1.0, int(m in broken)] for m in ("1", "3", "6.2", "12", "25", "100")}
        made.add(
            "extremes",
            {"clamped": [-6.1992, clamped if format_ == "float16" else -1.0], "decoded": drawn},
            format_=format_,
        )
    return made


def loading(float16: float, bfloat16: float, full: float = 4.0) -> MadeUpRun:
    seconds = {
        f: [s * (1 + turn / 1000) for turn in range(15)]
        for f, s in (("float32", full), ("float16", float16), ("bfloat16", bfloat16))
    }
    return MadeUpRun().add(
        "loading", {"seconds": seconds, "bytes": {"float32": 4000, "float16": 2000, "bfloat16": 2008}}
    )


def highlights(float16: float, bfloat16: float) -> MadeUpRun:
    value = {"float32": float16, "float16": float16, "bfloat16": bfloat16}
    return MadeUpRun().add_pictures(
        "highlights", lambda at, f: {"core": value[f] + (at - 5) / 1000 * (f == "float16"), "over": 0.01}
    )


def banding(float16: tuple[int, int], bfloat16: tuple[int, int]) -> MadeUpRun:
    made = MadeUpRun()
    for format_, (levels, steps) in (("float16", float16), ("bfloat16", bfloat16)):
        one = {"levels": levels, "flat": 9, "steps": steps}
        made.add("banding", {"stored": one, "decoded": one}, format_=format_)
    return made


def float16_ending_at(largest: float) -> MadeUpRun:
    found = {f: dict(v) for f, v in probed_formats().items()}
    found["float16"]["largest"] = largest
    return MadeUpRun().add("facts", found, model="")


def products(device: str, float16: float, bfloat16: float) -> MadeUpRun:
    rates = {"float32": 100.0, "float16": float16, "bfloat16": bfloat16}
    found = {"device": device, "kind": "cuda", "rates": rates, "native": ["float32"], "stores": ["float16"], "old_card": {"transformer": "float32"}}  # fmt: skip
    return MadeUpRun().add("products", found, model="")


def texture(float16: float, bfloat16: float, energy: float = 1.0) -> MadeUpRun:
    value = {"float32": -90.0, "float16": float16, "bfloat16": bfloat16}
    return MadeUpRun().add_pictures(
        "texture", lambda at, f: {"decibels": value[f] + at / 100, "energy": energy}
    )


def layers(float16: float, float32: float) -> MadeUpRun:
    made = MadeUpRun().add("layers", {"layers": [{"name": "a", "peak": float32}]}, format_="float32")
    return made.add(
        "layers",
        {"layers": [{"name": "a", "peak": float16, "error": -60.0, "born": -70.0}]},
        format_="float16",
    )


# claim; rows, their verdict and a phrase of its explanation; other rows, their verdict and a phrase of its explanation
def weights(count: int, scenes: int = 4, **formats: tuple[float, float]) -> MadeUpRun:
    """Weights of so many numbers; name → bits and PSNR. ``scenes`` 0: a run that knew one only."""
    found = [
        {"name": name, "fit": name == "fit", "bits": bits, "bytes": int(count * bits / 8), "predicted": near - 2, "psnr": near}
        | ({"worst": near - 5} if scenes else {})
        for name, (bits, near) in formats.items()
    ]  # fmt: skip
    result = {"weights": count, "beside": 10 * MB, "step": 2_500_000_000, "formats": found, "known": True}
    result |= {"scenes": scenes} if scenes else {}
    return MadeUpRun().add("weights", result)


CASES = [
    ("C1", memory((86, 21)), REPRODUCED, "0.8629 × float16", memory((100, 24)), REFUTED, "1.0000 × float16"),
    ("C2", speed(3.6 / 3.8), REPRODUCED, "bfloat16 ÷ float16", speed(0.5, emulated=True), HARDWARE, "emulated here"),
    ("C3", colour(22.4, 18.1, 30), REPRODUCED, "another cause than fraction bits", colour(0.02, 0.16, 30), REFUTED, "a different picture, not a different rounding"),
    ("C4", psnr("shadows", 24.7, 27.9), REPRODUCED, "there is another cause", psnr("shadows", 70, 52), REFUTED, "Rounding explains it"),
    ("C5", refusals(7), REPRODUCED, "does not explain it", refusals(0), REFUTED, "within float16's range (Firefly 1000), and no picture broke"),
    ("C6", training({"flushed": 0.1, "error": -10}, {}), REPRODUCED, "flushes numbers below 6·10⁻⁸ to zero", training({}, {}), REFUTED, "0.001. float16 needs no loss scaling"),
    ("C7", norms(1.9), REPRODUCED, "×1.90, ×1.90, ×1.90", norms(1.0), REFUTED, "×1.00, ×1.00, ×1.00"),
    ("C8", latents(3, float("inf")), REPRODUCED, "3", latents(0), REFUTED, "the limit of float16 is 16376 times as large"),
    ("C9", refusals(12), REPRODUCED, "12 broke at steps 2–3", refusals(100, step=0), REFUTED, "none broke at steps 2–3 and 100 at step 1"),
    ("C10", extremes(("6.2", "12", "25", "100")), REPRODUCED, "from ±6.2 on", extremes(("1", "3", "6.2", "12", "25", "100")), REFUTED, "at ±1 already"),
    ("C11", memory((100, 19)), REPRODUCED, "= 0.7917", memory((100, 24)), REFUTED, "Decoding a float16 picture in float32"),
    ("C13", loading(2.1, 1.7), REPRODUCED, "bfloat16 ÷ float16 in pairs: 0.81", loading(2.0, 2.0), REFUTED, "bfloat16 ÷ float16 in pairs: 1 "),
    ("C14", highlights(0.98, 0.92), REPRODUCED, "more than one such step", highlights(0.97, 0.97), REFUTED, "less than one such step"),
    ("C15", psnr("roofs", 60, 63.2), REPRODUCED, "there is another cause", psnr("roofs", 70, 52), REFUTED, "Rounding explains it"),
    ("C16", banding((200, 3), (240, 0)), REPRODUCED, "float16 keeps fewer colours than bfloat16", banding((240, 0), (200, 0)), REFUTED, "bfloat16 keeps fewer colours than float16"),
    ("C17", float16_ending_at(2e5), REPRODUCED, "float16 is as claimed", float16_ending_at(65504), REFUTED, "ends at 65504, so 100000 is Inf"),
    ("C18", products("NVIDIA GeForce GTX 1080 Ti", 90, 30), REPRODUCED, "On this GTX 1080 Ti", products("another", 90, 30), HARDWARE, "there is no GTX 1080 Ti here"),
    ("C19", texture(-44, -26), REPRODUCED, "Rounding explains it", texture(-26, -26, 0.5), REFUTED, "Detail is lost or gained"),
    ("C20", memory((90, 24)), REPRODUCED, "enough for a LoRA", memory((100, 24)), REFUTED, "neither a LoRA nor a second picture"),
    ("X4", weights(53_000_000, Q4_0=(4.5, 32.0), fit=(7.0, 54.0)), MEASURED, "5.4 GB beside 2.5 GB for a step. The mean of 4 scenes is then 54.0 dB from float32 (the worst 49.0); with the best single type that fits, Q4_0, 32.0 dB (27.0).",
     weights(53_000_000, Q8_0=(8.5, 57.0)), MEASURED, "On a card of 6 GB no format fits for a model of Z-Image's size"),
    ("X4", weights(53_000_000, 0, Q4_0=(4.5, 32.0), fit=(7.0, 54.0), Q8_0=(8.5, 57.0)), MEASURED, "On a card of 8 GB take the fit at 7.00 bits a weight (starry fit) for a model of Z-Image's size (6.15 billion weights): 5.4 GB beside 2.5 GB for a step. The scene is then 54.0 dB from float32's; with the best single type that fits, Q4_0, 32.0 dB.",
     weights(6_000_000_000, Q8_0=(8.5, 57.0)), MEASURED, "On a card of 8 GB no format fits for Firefly's 6.00 billion weights. On a card of 6 GB no format fits for Firefly's 6.00 billion weights. On a card of 12 GB take Q8_0 (8.50 bits a weight)"),
    ("X3", layers(float("inf"), 1e7), MEASURED, "gives Inf or NaN", layers(1000, 1000), MEASURED, "stays finite"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "one", "outcome", "phrase", "other", "other_outcome", "other_phrase"),
    CASES,
    ids=[case[0] for case in CASES],
)
def test_a_verdict_and_its_cause_follow_the_numbers(
    claim: str,
    one: MadeUpRun,
    outcome: str,
    phrase: str,
    other: MadeUpRun,
    other_outcome: str,
    other_phrase: str,
) -> None:
    first, second = one.finding(claim), other.finding(claim)
    assert (first.outcome, second.outcome) == (outcome, other_outcome), (first, second)
    assert phrase in first.explanation.en, first.explanation.en
    assert other_phrase in second.explanation.en, second.explanation.en
    assert other_phrase not in first.explanation.en
    assert first.explanation.zh != second.explanation.zh


def test_every_claim_with_a_verdict_is_tested_both_ways() -> None:
    """C12 always needs other hardware, and X1 and X2 are measurements without a claim."""
    assert {c.id for c in CLAIMS} - {case[0] for case in CASES} == {"C12", "X1", "X2"}


def test_too_few_pairs_are_undecided_and_the_explanation_gives_the_needed_number() -> None:
    found = colour(0.02, 0.16, 30, count=5).finding("C3")
    assert found.outcome == UNDECIDED
    assert "5 pairs are too few: an interval needs 6" in found.explanation.en
    assert "too few" not in colour(0.02, 0.16, 30, count=6).finding("C3").explanation.en


def test_too_few_pictures_are_undecided_and_the_explanation_gives_the_needed_number() -> None:
    few, enough = refusals(0, count=10), refusals(0, count=42)
    assert few.finding("C5").outcome == UNDECIDED
    assert "Firefly (0 %) needs 42, 10 were painted" in few.finding("C5").explanation.en
    assert enough.finding("C5").outcome == REFUTED
    assert few.finding("C9").outcome == UNDECIDED
    assert "Firefly (0 %) needs 24" in few.finding("C9").explanation.en
    assert refusals(0, count=24).finding("C9").outcome == REFUTED


def test_a_broken_picture_in_bfloat16_refutes_the_claim() -> None:
    for claim, made in (("C5", refusals(7, bfloat16=3)), ("C9", refusals(12, bfloat16=3))):
        found = made.finding(claim)
        assert found.outcome == REFUTED
        assert "Firefly 3 of 100" in found.explanation.en


def test_a_picture_of_one_colour_is_broken() -> None:
    made = MadeUpRun()
    for format_, uniform in (("float16", 3), ("bfloat16", 0), ("float32", 0)):
        for at in range(40):
            found = {"refused": at == 39 and format_ == "float16", "uniform": at < uniform, "step": None, "stage": "picture",
                     "module": "", "why": None}  # fmt: skip
            made.add("refusals", found, "firefly", format_, at)
    black, where = made.finding("C5"), made.finding("C9")
    assert black.figures["firefly"]["float16"].startswith("4/40: ")
    assert black.figures["firefly"]["float16"].endswith("(3 uniform)")
    assert black.figures["firefly"]["bfloat16"].startswith("0/40: ")
    assert "uniform" in where.figures["firefly"]["float16"]
    made = MadeUpRun()
    for format_ in ("float16", "bfloat16"):
        for at in range(40):
            found = {
                "refused": False,
                "uniform": format_ == "bfloat16",
                "step": None,
                "stage": "",
                "module": "",
                "why": None,
            }
            made.add("refusals", found, "firefly", format_, at)
    assert made.finding("C5").outcome == REFUTED
    assert "Firefly 40 of 40" in made.finding("C5").explanation.en


def test_pictures_broken_in_folded_float16_are_counted() -> None:
    made = refusals(100, peak=1e7)
    assert "In folded float16" not in made.finding("C5").explanation.en
    for at in range(PAIRS):
        made.add(
            "refusals",
            {"refused": False, "step": None, "stage": "", "module": "", "why": None},
            format_="float16-folded",
            at=at,
        )
    assert "In folded float16, 0 of 10 pictures (Firefly) broke" in made.finding("C5").explanation.en


def test_offload_counts_what_is_outside_the_largest_component() -> None:
    parts = (
        MadeUpRun()
        .add("offload", {"vae": 1_000_000, "text_encoder": 2_000_000, "transformer": 9_000_000})
        .finding("C12")
    )
    assert parts.outcome == HARDWARE
    assert "this model has 3·10⁶" in parts.explanation.en


def test_a_weight_that_changes_is_reported() -> None:
    assert "No weight's norm changed" in norms(1.0).finding("C7").explanation.en
    assert "The weights of a, b, c changed" in norms(1.0, weight=0.5).finding("C7").explanation.en


def test_the_twin_is_judged_beside_firefly() -> None:
    made = MadeUpRun("firefly", WIDE)
    for model, reached, float16 in (("firefly", 8000.0, 8000.0), (WIDE, 1e7, float("inf"))):
        made.add("layers", {"layers": [{"name": "a", "peak": reached}]}, model, "float32")
        made.add(
            "layers",
            {"layers": [{"name": "a", "peak": float16, "error": -60.0, "born": -70.0}]},
            model,
            "float16",
        )
        for format_ in ("float16", "bfloat16"):
            broke = format_ == "float16" and model == WIDE
            found = {"refused": broke, "stage": "", "step": 0 if broke else None, "module": "", "why": None}
            made.add("refusals", found, model, format_, 0)
    assert made.finding("C5").summary.en.startswith("The range decides: every picture of a model whose")
    why = made.finding("X3").explanation.en
    assert "Firefly reaches 8000 in float32, within float16's range; float16 stays finite" in why
    assert "wide twin reaches 10⁷ in float32, beyond float16's range; float16 gives Inf or NaN" in why

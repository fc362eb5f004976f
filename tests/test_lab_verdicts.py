"""Every verdict turns when the numbers do: made-up rows that bear a claim out and rows that refute it, read by the real
judges. What a sentence names as the cause must be gone when its cause is.
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


class Made:
    """A run that nobody measured; ``put`` adds a row, ``judged`` asks every judge."""

    def __init__(self, *models: str) -> None:
        self.run = ExperimentRun(Path("made-up"), ExperimentPlan(models=models or ("firefly",), seeds=1))
        self.put("facts", probed(), model="", format_="")

    def put(
        self,
        name: str,
        result: dict[str, Any],
        model: str = "firefly",
        format_: str = "",
        at: int | None = None,
    ) -> Made:
        point = Point(name, model, format_, at, None if at is None else 0)
        self.run.rows[point.key] = {
            "experiment": name, "model": model, "format": format_, "prompt": at, "seed": point.seed, "result": plain(result)
        }  # fmt: skip
        return self

    def each(
        self,
        name: str,
        result: Callable[[int, str], dict[str, Any]],
        count: int = PAIRS,
        model: str = "firefly",
    ) -> Made:
        """``result(picture, format)`` for so many pictures in every format that the claims speak of, and float32."""
        for format_ in ("float32", "float16", "bfloat16"):
            for at in range(count):
                self.put(name, result(at, format_), model, format_, at)
        return self

    def judged(self, claim: str) -> Finding:
        found = [f for one in EXPERIMENTS.values() for f in one.judge(Rows(self.run)) if f.claim == claim]
        assert len(found) == 1, claim
        return found[0]


@cache
def probed() -> dict[str, Any]:
    return EXPERIMENTS["facts"].measure(None, Point("facts", "", ""))  # type: ignore[arg-type]  # needs no bench


def sized(weights: int, one: int) -> dict[str, Any]:
    return {
        "weights": weights * MB, "numbers": 50 * MB, "lora": 2 * MB, "emulated": False, "one": one * MB, "two": 2 * one * MB,
        "one_whole": True, "two_whole": True, "process": None, "device": None,
        "phases": {"text": MB, "first": one * MB // 2, "middle": one * MB // 2, "last": one * MB // 2, "decoder": one * MB // 2},
    }  # fmt: skip


def memory(brain: tuple[int, int]) -> Made:
    made = (
        Made()
        .put("memory", sized(200, 48), format_="float32")
        .put("memory", sized(100, 24), format_="float16")
    )
    return made.put("memory", sized(*brain), format_="bfloat16")


def times(brain: float, emulated: bool = False) -> Made:
    noted = {
        f: {k: [s] * 9 for k in ("wall", "cpu")}
        for f, s in (("float32", 2.0), ("float16", 1.0), ("bfloat16", brain))
    }
    return Made().put(
        "speed", {"times": noted, "emulated": ["float16"] if emulated else [], "device": "cuda"}
    )


def colours(half: float, brain: float, apart: float, count: int = PAIRS) -> Made:
    value = {"float32": apart, "float16": half, "bfloat16": brain}
    return Made().each("colour", lambda at, f: {"mean": value[f] * (1 + at / 1000), "p99": 1.0}, count)


def decibels(name: str, half: float, brain: float, count: int = PAIRS) -> Made:
    value = {"float32": None, "float16": half, "bfloat16": brain}
    return Made().each(
        name, lambda at, f: {"psnr": None if value[f] is None else value[f] + at / 100, "share": 0.2}, count
    )


def tried(half: int, brain: int = 0, count: int = 100, step: int = 1, peak: float = 1000.0) -> Made:
    broken = {"float32": 0, "float16": half, "bfloat16": brain}

    def result(at: int, format_: str) -> dict[str, Any]:
        refused = at < broken[format_]
        return {
            "refused": refused, "stage": "prediction" if refused else "", "step": step if refused else None, "module": "",
            "why": ["broke", "坏了"] if refused else None,
        }  # fmt: skip

    made = Made().each("refusals", result, count)
    return made.put("layers", {"layers": [{"name": "a", "peak": peak}]}, format_="float32")


def gradients(half: dict[str, float], brain: dict[str, float]) -> Made:
    def notes(broken: float = 0.0, flushed: float = 0.0, error: float = -40.0) -> dict[str, list[float]]:
        return {
            "broken": [broken] * 4,
            "flushed": [flushed] * 4,
            "error": [error] * 4,
            "loss": [1.0] * 4,
            "scale": [1.0] * 4,
        }

    made = Made()
    for format_, plainly in (("float16", half), ("bfloat16", brain)):
        found = {
            "fits": True,
            "elements": 9,
            "smallest": [1e-9, 1e-6, 1e-3],
            "plain": notes(**plainly),
            "scaled": notes(),
        }
        made.put("training", found, format_=format_)
    return made


def walked(half: float, weight: float = 0.0) -> Made:
    made = Made()
    for format_, wider in (("float16", half), ("bfloat16", 1.0)):
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
        made.put("norms", found, format_=format_)
    return made


def ranged(broken: int, widest: float = 4.0) -> Made:
    return Made().each("latents", lambda at, f: {
        "noise": [-4.0, widest], "broken": broken if f == "float16" else 0, "numbers": 4096, "low": [-1.0], "high": [1.0],
        "drift": [{"float32": float("-inf"), "float16": -60.0, "bfloat16": -42.0}[f]],
    })  # fmt: skip


def decoded(breaks_at: tuple[str, ...], clamped: float = -1.0) -> Made:
    made = Made()
    for format_ in ("float32", "float16", "bfloat16"):
        broken = breaks_at if format_ == "float16" else ()
        drawn = {m: [-1.0, 1.0, int(m in broken)] for m in ("1", "3", "6.2", "12", "25", "100")}
        made.put(
            "extremes",
            {"clamped": [-6.1992, clamped if format_ == "float16" else -1.0], "decoded": drawn},
            format_=format_,
        )
    return made


def loaded(half: float, brain: float, full: float = 4.0) -> Made:
    seconds = {
        f: [s * (1 + turn / 1000) for turn in range(15)]
        for f, s in (("float32", full), ("float16", half), ("bfloat16", brain))
    }
    return Made().put(
        "loading", {"seconds": seconds, "bytes": {"float32": 4000, "float16": 2000, "bfloat16": 2008}}
    )


def stars(half: float, brain: float) -> Made:
    value = {"float32": half, "float16": half, "bfloat16": brain}
    return Made().each(
        "highlights", lambda at, f: {"core": value[f] + (at - 5) / 1000 * (f == "float16"), "over": 0.01}
    )


def bands(half: tuple[int, int], brain: tuple[int, int]) -> Made:
    made = Made()
    for format_, (levels, steps) in (("float16", half), ("bfloat16", brain)):
        one = {"levels": levels, "flat": 9, "steps": steps}
        made.put("banding", {"stored": one, "decoded": one}, format_=format_)
    return made


def formats(largest: float) -> Made:
    found = {f: dict(v) for f, v in probed().items()}
    found["float16"]["largest"] = largest
    return Made().put("facts", found, model="")


def multiplied(device: str, half: float, brain: float) -> Made:
    rates = {"float32": 100.0, "float16": half, "bfloat16": brain}
    found = {"device": device, "kind": "cuda", "rates": rates, "native": ["float32"], "stores": ["float16"], "old_card": {"transformer": "float32"}}  # fmt: skip
    return Made().put("products", found, model="")


def textures(half: float, brain: float, energy: float = 1.0) -> Made:
    value = {"float32": -90.0, "float16": half, "bfloat16": brain}
    return Made().each("texture", lambda at, f: {"decibels": value[f] + at / 100, "energy": energy})


def looked(half: float, true: float) -> Made:
    made = Made().put("layers", {"layers": [{"name": "a", "peak": true}]}, format_="float32")
    return made.put(
        "layers", {"layers": [{"name": "a", "peak": half, "error": -60.0, "born": -70.0}]}, format_="float16"
    )


# claim · rows, verdict, what is said · other rows, verdict, what is said instead
TURNS = [
    ("C1", memory((86, 21)), REPRODUCED, "0.8629 × float16", memory((100, 24)), REFUTED, "1.0000 × float16"),
    ("C2", times(3.6 / 3.8), REPRODUCED, "bfloat16 ÷ float16", times(0.5, emulated=True), HARDWARE, "emulated here"),
    ("C3", colours(22.4, 18.1, 30), REPRODUCED, "something else than fraction bits", colours(0.02, 0.16, 30), REFUTED, "another picture, not another rounding"),
    ("C4", decibels("shadows", 24.7, 27.9), REPRODUCED, "something else is at work", decibels("shadows", 70, 52), REFUTED, "That is rounding"),
    ("C5", tried(7), REPRODUCED, "does not explain it", tried(0), REFUTED, "inside float16 (Firefly 1000), and no picture broke"),
    ("C6", gradients({"flushed": 0.1, "error": -10}, {}), REPRODUCED, "loses what falls below 6·10⁻⁸", gradients({}, {}), REFUTED, "%). float16 keeps them without scaling"),
    ("C7", walked(1.9), REPRODUCED, "×1.90, ×1.90, ×1.90", walked(1.0), REFUTED, "×1.00, ×1.00, ×1.00"),
    ("C8", ranged(3, float("inf")), REPRODUCED, "3", ranged(0), REFUTED, "times below where float16 ends"),
    ("C9", tried(12), REPRODUCED, "12 broke at steps 2–3", tried(100, step=0), REFUTED, "none broke at steps 2–3 and 100 at step 1"),
    ("C10", decoded(("6.2", "12", "25", "100")), REPRODUCED, "from ±6.2 on", decoded(("1", "3", "6.2", "12", "25", "100")), REFUTED, "at ±1 already"),
    ("C11", memory((100, 19)), REPRODUCED, "= 0.7917", memory((100, 24)), REFUTED, "decoding a float16 picture in float32"),
    ("C13", loaded(2.1, 1.7), REPRODUCED, "bfloat16 ÷ float16 in pairs: 0.81", loaded(2.0, 2.0), REFUTED, "bfloat16 ÷ float16 in pairs: 1 "),
    ("C14", stars(0.98, 0.92), REPRODUCED, "more than one such step", stars(0.97, 0.97), REFUTED, "less than one such step"),
    ("C15", decibels("roofs", 60, 63.2), REPRODUCED, "something else is at work", decibels("roofs", 70, 52), REFUTED, "That is rounding"),
    ("C16", bands((200, 3), (240, 0)), REPRODUCED, "float16 keeps fewer colours than bfloat16", bands((240, 0), (200, 0)), REFUTED, "bfloat16 keeps fewer colours than float16"),
    ("C17", formats(2e5), REPRODUCED, "float16 is as claimed", formats(65504), REFUTED, "ends at 65504, so 100000 is Inf"),
    ("C18", multiplied("NVIDIA GeForce GTX 1080 Ti", 90, 30), REPRODUCED, "On this GTX 1080 Ti", multiplied("another", 90, 30), HARDWARE, "there is no GTX 1080 Ti here"),
    ("C19", textures(-44, -26), REPRODUCED, "That is rounding", textures(-26, -26, 0.5), REFUTED, "Detail is lost or gained"),
    ("C20", memory((90, 24)), REPRODUCED, "enough for a LoRA", memory((100, 24)), REFUTED, "neither a LoRA nor a second picture"),
    ("X3", looked(float("inf"), 1e7), MEASURED, "meets Inf or NaN", looked(1000, 1000), MEASURED, "stays finite"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "one", "outcome", "said", "other", "instead", "told"), TURNS, ids=[t[0] for t in TURNS]
)
def test_a_verdict_and_its_cause_turn_with_the_numbers(
    claim: str, one: Made, outcome: str, said: str, other: Made, instead: str, told: str
) -> None:
    first, second = one.judged(claim), other.judged(claim)
    assert (first.outcome, second.outcome) == (outcome, instead), (first, second)
    assert said in first.explanation[0], first.explanation[0]
    assert told in second.explanation[0], second.explanation[0]
    assert told not in first.explanation[0]
    assert first.explanation[1] != second.explanation[1]  # in Chinese too


def test_every_claim_is_turned_but_those_without_a_side() -> None:
    """Offload is arithmetic on what this machine cannot free; X1 and X2 are figures without a claim."""
    assert {c.id for c in CLAIMS} - {turn[0] for turn in TURNS} == {"C12", "X1", "X2"}


def test_too_few_pairs_settle_nothing_and_say_how_many_it_takes() -> None:
    found = colours(0.02, 0.16, 30, count=5).judged("C3")
    assert found.outcome == UNDECIDED
    assert "5 pairs are too few: an interval takes 6" in found.explanation[0]
    assert "too few" not in colours(0.02, 0.16, 30, count=6).judged("C3").explanation[0]


def test_too_few_pictures_settle_no_rate_and_say_how_many_it_takes() -> None:
    few, enough = tried(0, count=10), tried(0, count=42)
    assert few.judged("C5").outcome == UNDECIDED
    assert "Firefly (0 %) takes 42; 10 were painted" in few.judged("C5").explanation[0]
    assert enough.judged("C5").outcome == REFUTED
    assert few.judged("C9").outcome == UNDECIDED
    assert "Firefly (0 %) takes 24" in few.judged("C9").explanation[0]
    assert tried(0, count=24).judged("C9").outcome == REFUTED


def test_bfloat16_that_breaks_refutes_its_never() -> None:
    for claim, made in (("C5", tried(7, brain=3)), ("C9", tried(12, brain=3))):
        found = made.judged(claim)
        assert found.outcome == REFUTED
        assert "Firefly 3 of 100" in found.explanation[0]


def test_what_folding_mends_is_counted() -> None:
    made = tried(100, peak=1e7)
    assert "Folded float16" not in made.judged("C5").explanation[0]
    for at in range(PAIRS):
        made.put(
            "refusals",
            {"refused": False, "step": None, "stage": "", "module": "", "why": None},
            format_="float16-folded",
            at=at,
        )
    assert "Folded float16 broke 0 of 10 pictures (Firefly)" in made.judged("C5").explanation[0]


def test_offload_counts_what_is_outside_the_largest_component() -> None:
    parts = (
        Made()
        .put("offload", {"vae": 1_000_000, "text_encoder": 2_000_000, "transformer": 9_000_000})
        .judged("C12")
    )
    assert parts.outcome == HARDWARE
    assert "here there are 3·10⁶" in parts.explanation[0]


def test_a_weight_that_changed_on_the_way_is_said() -> None:
    assert "No weight's norm moved" in walked(1.0).judged("C7").explanation[0]
    assert "The weights of a, b, c changed" in walked(1.0, weight=0.5).judged("C7").explanation[0]


def test_the_twin_is_judged_beside_firefly() -> None:
    made = Made("firefly", WIDE)
    for model, reached, half in (("firefly", 8000.0, 8000.0), (WIDE, 1e7, float("inf"))):
        made.put("layers", {"layers": [{"name": "a", "peak": reached}]}, model, "float32")
        made.put(
            "layers",
            {"layers": [{"name": "a", "peak": half, "error": -60.0, "born": -70.0}]},
            model,
            "float16",
        )
        for format_ in ("float16", "bfloat16"):
            broke = format_ == "float16" and model == WIDE
            found = {"refused": broke, "stage": "", "step": 0 if broke else None, "module": "", "why": None}
            made.put("refusals", found, model, format_, 0)
    assert made.judged("C5").summary[0].startswith("It is the range, not luck: all break")
    why = made.judged("X3").explanation[0]
    assert "Firefly reaches 8000 in float32, inside that, and float16 stays finite" in why
    assert "wide twin reaches 10⁷ in float32, beyond that, and float16 meets Inf or NaN" in why

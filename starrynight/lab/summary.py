"""What a run answers: which format to use on its machine, what that costs, one pair of pictures, and whose claims were tested.

Read from the run's rows alone, so the sentences are true of the machine that measured, wherever they are read. Imports no
torch. ``advice`` answers for the machine at hand, from the plan that a painting would use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starrynight.i18n import Text
from starrynight.lab import table
from starrynight.lab.advice import cost, times_of
from starrynight.lab.experiments.refusals import broken
from starrynight.lab.experiments.weights import judge_weights
from starrynight.lab.findings import EMPTY, Rows, format_number, name_of, name_zh
from starrynight.lab.plan import REFERENCE
from starrynight.lab.run import ExperimentRun

FASTER = 0.95  # × float32's time, below which a format is worth its error
ALIKE = 1.05  # × the shortest time: formats this near count as equally fast, and the more exact one is taken

SOURCE = Text(
    "C1–C20 are the figures of the description with which this program was commissioned: 1024×1024 pixels, 8 steps, CFG 2.0, an A100 40 GB or RTX 4090, without the measurements behind them. X1–X4 are the lab's own.",
    "C1–C20 出自委托开发本程序时所附的说明：1024×1024、8 步、CFG 2.0，A100 40 GB 或 RTX 4090；该说明未附测量数据。X1–X4 是实验室自己的测量。",
)
TOO_EARLY = Text("Too little has been measured yet for an answer.", "测得还太少，尚无答案。")


@dataclass(frozen=True)
class Summary:
    """``use``: the sentence on the format to take. ``cost``: the one on what it costs; empty if that is not known yet. ``card``:
    which format of the weights a small card should take; empty if that was not measured.
    ``pair``: two entries of ``table.pictures`` of one prompt and seed, float32's first; None without two pictures.
    """

    use: Text
    cost: Text
    pair: tuple[dict[str, Any], dict[str, Any]] | None
    card: Text = EMPTY


def summary(run: ExperimentRun) -> Summary:
    """The answer for the first model of the run's plan."""
    rows, model = Rows(run), run.plan.models[0]
    card = next((one.summary for one in judge_weights(rows)), EMPTY)
    sound = [f for f in rows.others if (share := broken(rows, model, f)).count and not share.value]
    if not sound:
        use, cost_ = _without_choice(rows, model)
        if use is TOO_EARLY and card.en:  # only the weights' formats were measured
            use, card = card, EMPTY
        return Summary(use, cost_, _pair(run, model, rows.others), card)
    times = times_of(rows, model)
    fast = {f: times[f] for f in sound if f in times}
    nearest = max(sound, key=lambda f: _likeness(rows, model, f))
    quick = [f for f in fast if fast[f] < FASTER and fast[f] <= ALIKE * min(fast.values())]
    chosen = max(quick, key=lambda f: _likeness(rows, model, f)) if quick else REFERENCE
    shown = chosen if quick else nearest
    return Summary(
        _use(run, model, chosen, shown, times),
        cost(rows, model, shown),
        _pair(run, model, [shown, *sound]),
        card,
    )


def _without_choice(rows: Rows, model: str) -> tuple[Text, Text]:
    """Nothing painted, or every 16-bit format broke."""
    broke = [f for f in rows.others if broken(rows, model, f).count]
    if not broke:
        return TOO_EARLY, Text("", "")
    use = Text(
        f"Use float32 for {name_of(model)} here: in every other format a picture broke.",
        f"{name_zh(model)}在此请用 float32：其他格式都有画损坏。",
    )
    return use, cost(rows, model, broke[0])


def _likeness(rows: Rows, model: str, format_: str) -> float:
    """Median PSNR against float32's pictures; −∞ if it was not measured."""
    value = rows.median("likeness", "psnr", model, format_).value
    return value if value == value else float("-inf")


def _use(run: ExperimentRun, model: str, chosen: str, shown: str, times: dict[str, float]) -> Text:
    where = run.machine().get("name", "")
    place = Text(f"on {where}" if where else "here", f"在 {where} 上" if where else "在此")
    if chosen != REFERENCE:
        return Text(
            f"Use {chosen} for {name_of(model)} {place.en}: no picture broke, and one takes {format_number(times[chosen], 2)} × float32's time.",
            f"{name_zh(model)}{place.zh}请用 {chosen}：没有画损坏，每幅用时为 float32 的 {format_number(times[chosen], 2)} 倍。",
        )
    native = {f: ratio for f, ratio in times.items() if f != REFERENCE}
    if not native:
        why = Text("the times of the other formats have not been measured", "其他格式的用时尚未测得")
    else:
        best = min(native, key=lambda f: native[f])
        why = Text(
            f"nothing faster keeps its numbers ({best} takes {format_number(native[best], 2)} × its time)",
            f"没有更快而数值可靠的格式（{best} 用时为其 {format_number(native[best], 2)} 倍）",
        )
    return Text(
        f"Use float32 for {name_of(model)} {place.en}: {why.en}. The next best is {shown}.",
        f"{name_zh(model)}{place.zh}请用 float32：{why.zh}。其次是 {shown}。",
    )


def _pair(run: ExperimentRun, model: str, formats: list[str]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The first picture of which float32's and another format's file are there, in the order of ``formats``."""
    there = [p for p in table.pictures(run) if p["model"] == model and p["path"] is not None]
    references = {(p["prompt"], p["seed"]): p for p in there if p["format"] == REFERENCE}
    for format_ in formats:
        for picture in there:
            if picture["format"] == format_ and (one := references.get((picture["prompt"], picture["seed"]))):
                return one, picture
    return None

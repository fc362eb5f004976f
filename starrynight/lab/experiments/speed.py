"""How long does a picture take in each format?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from starrynight.lab import formats, stats
from starrynight.lab.findings import (
    HARDWARE,
    Finding,
    Rows,
    bounds,
    by_model,
    few,
    figure,
    sentences,
    settled,
)
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How long does a picture take?", "一幅画要多久？")
CLAIMS = ("C2",)
PER = "model"
REFERENCE = True
TWIN = False
CLAIMED = 3.6 / 3.8


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """Seconds of a whole picture, wall and CPU, format after format in turn, so that other work slows all alike; one
    round beforehand warms up. A format whose picture breaks is left out.
    """
    from starrynight.errors import BrokenNumbers

    request = bench.request(point.model)
    hands = {f: bench.hand(point.model, f) for f in bench.plan.formats if f != "float8"}
    times: dict[str, dict[str, list[float]]] = {f: {"wall": [], "cpu": []} for f in hands}
    broken = set()
    for turn in range(bench.plan.repeats + 1):
        for format_, hand in hands.items():
            if format_ in broken:
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                formats.paint(hand, request, lambda step: None)
            except BrokenNumbers:
                broken.add(format_)
                continue
            if turn:
                times[format_]["wall"].append(time.perf_counter() - wall)
                times[format_]["cpu"].append(time.process_time() - cpu)
    return {
        "times": {f: t for f, t in times.items() if f not in broken},
        "emulated": [f for f, hand in hands.items() if hand.emulated],
        "device": bench.hand(point.model, FLOAT32).painter.device.type,
    }


def judge(rows: Rows) -> list[Finding]:
    first = rows.result("speed", rows.models[0], "")
    if not first or not {"bfloat16", "float16"} <= set(first["times"]):
        return []

    def message(model: str, format_: str) -> str:
        found = rows.result("speed", model, "")
        noted = found.get("times", {}).get(format_)
        if not noted:
            return ""
        wall = stats.median([number(v) for v in noted["wall"]]).value
        mark = " †" if format_ in found["emulated"] else ""
        return f"{figure(wall)} s · CPU ×{figure(_cpu(found, format_).value)}{mark}"

    gap = stats.ratio(*([number(v) for v in first["times"][f]["wall"]] for f in ("float16", "bfloat16")))
    emulated = "float16" in first["emulated"]
    outcome = HARDWARE if emulated else settled(gap, gap.low <= CLAIMED <= gap.high)
    quick = _cpu(first, "bfloat16")
    ours = (
        f"bfloat16 takes {bounds(quick)} × float32's CPU time ({quick.count} pairs).",
        f"bfloat16 的 CPU 时间是 float32 的 {bounds(quick)} 倍（{quick.count} 对）。",
    )
    asked = (
        f"bfloat16 ÷ float16: {bounds(gap)}, claimed {CLAIMED:.2f}.",
        f"bfloat16 ÷ float16：{bounds(gap)}，所称 {CLAIMED:.2f}。",
    )
    note = "† emulated here, so its time says nothing of a card's.", "† 此处为仿真，其时间不代表显卡。"
    why = sentences(
        (
            "Median seconds of a whole picture, and CPU time over float32's in interleaved pairs.",
            "一幅画的中位秒数，以及与 float32 交替成对的 CPU 时间之比。",
        ),
        note if emulated else asked,
        ours,
        few(gap),
    )
    return [Finding("C2", outcome, by_model(rows, message), why, ours if emulated else asked)]


def _cpu(found: dict[str, Any], format_: str) -> stats.Estimate:
    return stats.ratio(*([number(v) for v in found["times"][f]["cpu"]] for f in (FLOAT32, format_)))

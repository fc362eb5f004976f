"""What does model offload free?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab.findings import HARDWARE, Finding, Rows, by_model, figure, sentences
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("What does model offload free?", "模型卸载能省多少？")
CLAIMS = ("C12",)
PER = "model"
REFERENCE = True
TWIN = False
CLAIMED = 3.1e9  # bytes


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """Numbers in each component: with model offload one of them at a time is on the device."""
    modules = bench.hand(point.model, FLOAT32).modules
    return {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}


def judge(rows: Rows) -> list[Finding]:
    def message(model: str, _format: str) -> str:
        parts = rows.result("offload", model, "")
        if not parts:
            return ""
        freed = 2 * (sum(parts.values()) - max(parts.values())) / 2**20
        return f"{freed:.3g} MB ({' · '.join(f'{name} {2 * n / 2**20:.3g}' for name, n in parts.items())})"

    figures = by_model(rows, message, [""])
    if not figures:
        return []
    parts = rows.result("offload", rows.models[0], "")
    rest = sum(parts.values()) - max(parts.values(), default=0)
    on_cpu = rows.result("products", "", "").get("kind") == "cpu"
    gist = (
        f"{CLAIMED / 1e9:.1f} GB would be {figure(CLAIMED / 2)} numbers outside the largest component; here there are {figure(rest)}.",
        f"{CLAIMED / 1e9:.1f} GB 意味着最大组件之外有 {figure(CLAIMED / 2)} 个数；此处有 {figure(rest)} 个。",
    )
    why = (
        "What a device would no longer hold: every component but the largest, at two bytes a number, whichever two they are."
        + (" This machine has no memory of a device to read it from." if on_cpu else ""),
        "设备上不必再放的部分：除最大者之外的所有组件，每个数两字节，无论是哪种两字节。"
        + ("本机没有独立显存可读。" if on_cpu else ""),
    )
    return [Finding("C12", HARDWARE, figures, sentences(why, gist), gist)]

"""What does model offload free?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab.findings import HARDWARE, Finding, Rows, by_model
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("What does model offload free?", "模型卸载能省多少？")
CLAIMS = ("C12",)
PER = "model"
REFERENCE = True
TWIN = False


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """Numbers in each component: with model offload one of them at a time is on the device."""
    modules = bench.hand(point.model, FLOAT32).modules
    return {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}


def judge(rows: Rows) -> list[Finding]:
    def say(model: str, _format: str) -> str:
        parts = rows.result("offload", model, "")
        if not parts:
            return ""
        freed = 2 * (sum(parts.values()) - max(parts.values())) / 2**20
        return f"{freed:.3g} MB ({' · '.join(f'{name} {2 * n / 2**20:.3g}' for name, n in parts.items())})"

    figures = by_model(rows, say, [""])
    why = (
        "What a device would no longer hold: every component but the largest, at two bytes a number, in float16 exactly as in bfloat16. There is no device memory here to read it from; "
        "3.1 GB would be 1.66·10⁹ numbers outside the largest component.",
        "设备上不必再放的部分：除最大者之外的所有组件，每个数两字节，float16 与 bfloat16 完全相同。本机没有独立显存可读；3.1 GB 意味着最大组件之外有 1.66·10⁹ 个数。",
    )
    return [Finding("C12", HARDWARE, figures, why)] if figures else []

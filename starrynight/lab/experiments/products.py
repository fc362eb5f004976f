"""How fast does this machine multiply in each format, and what would an old card do?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab.findings import HARDWARE, Finding, Rows, figure
from starrynight.lab.plan import Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How fast are products in each format here?", "本机各格式的乘法有多快？")
CLAIMS = ("C18",)
PER = "machine"
REFERENCE = True
TWIN = False


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """GFLOP/s by format, the formats taking turns, medians; and what ``precision.choose`` gives a GTX 1080 Ti."""
    from starrynight.numerics import device, precision

    here = device.torch_device(device.kind())
    record = device.probe(measure=False)
    card = precision.Device("cuda", "NVIDIA GeForce GTX 1080 Ti", capability=(6, 1), memory=11 * 2**30)
    model = precision.Model("ZImagePipeline", {"transformer": 1, "text_encoder": 1, "vae": 1})
    return {
        "device": record.name or record.kind,
        "kind": record.kind,
        "rates": device.matmul_rates(here),
        "native": sorted(card.native),
        "stores": sorted(card.stores),
        "old_card": {choice.component: choice.format for choice in precision.choose(card, model)},
    }


def judge(rows: Rows) -> list[Finding]:
    found = rows.result("products", "", "")
    if not found:
        return []
    rates = {f: number(v) for f, v in found["rates"].items()}
    told = {f: f"{figure(v)} GFLOP/s (×{figure(v / rates['float32'])})" for f, v in rates.items()}
    denoiser = found["old_card"].get("transformer", "float32")
    why = (
        f"Matrix products of this machine ({found['device']}). There is no GTX 1080 Ti here. Of its chip (compute capability 6.1) it is known that it multiplies neither 16-bit format faster than float32; "
        f"Starry Night gives it {denoiser}.",
        f"本机（{found['device']}）的矩阵乘法。此处没有 GTX 1080 Ti；已知该芯片（计算能力 6.1）对两种 16 位格式都不比 float32 快，璀璨星河为它选 {denoiser}。",
    )
    return [Finding("C18", HARDWARE, {"": told}, why)]

"""How fast does this machine multiply in each format, and what would an old card do?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab.findings import HARDWARE, REFUTED, REPRODUCED, Finding, Rows, figure, joined
from starrynight.lab.plan import Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How fast are products in each format here?", "本机各格式的乘法有多快？")
CLAIMS = ("C18",)
PER = "machine"
REFERENCE = True
TWIN = False
CARD = "GTX 1080 Ti"


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """GFLOP/s by format, the formats taking turns, medians; and what ``precision.choose`` gives a GTX 1080 Ti."""
    from starrynight.numerics import device, precision

    here = device.torch_device(device.kind())
    record = device.probe(measure=False)
    card = precision.Device("cuda", f"NVIDIA GeForce {CARD}", capability=(6, 1), memory=11 * 2**30)
    model = precision.ModelProfile("ZImagePipeline", {"transformer": 1, "text_encoder": 1, "vae": 1})
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
    if CARD in found["device"]:
        slower = rates["bfloat16"] < rates["float16"]
        gap = figure(rates["bfloat16"] / rates["float16"])
        measured = (
            f"On this {CARD}, bfloat16 ÷ float16 = {gap}.",
            f"在这块 {CARD} 上，bfloat16 ÷ float16 = {gap}。",
        )
        return [Finding("C18", REPRODUCED if slower else REFUTED, {"": told}, measured, measured)]
    native = joined(found["native"]) or "float32"
    absent = f"There is no {CARD} here.", f"此处没有 {CARD}。"
    why = (
        f"Matrix products of this machine ({found['device']}); there is no {CARD} here. By the table of cards that precisions are chosen from, its chip computes in {native}, and Starry Night gives its denoiser {denoiser}.",
        f"本机（{found['device']}）的矩阵乘法；此处没有 {CARD}。按选精度所用的显卡表，该芯片以 {native} 计算，璀璨星河为它的去噪网络选 {denoiser}。",
    )
    return [Finding("C18", HARDWARE, {"": told}, why, absent)]

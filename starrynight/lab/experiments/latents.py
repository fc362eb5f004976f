"""How wide are the latents, and how far do they drift from float32's, step by step?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.lab import formats, stats
from starrynight.lab.findings import (
    MEASURED,
    REFUTED,
    REPRODUCED,
    Finding,
    Rows,
    by_model,
    facts,
    figure,
    sentences,
)
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How wide are the latents, and how far do they drift?", "潜变量的范围多大，逐步偏离多少？")
CLAIMS = ("C8", "X2")
PER = "picture"
REFERENCE = True
TWIN = True


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """Of the noise at t = 1000 in the format, and after every step: least, greatest, and 20·log10 of the distance."""
    import torch

    from starrynight.numerics.rng import generator

    painting, reference = bench.painting(point), bench.reference(point)
    dtype = formats.stored(point.format)
    assert point.prompt is not None
    assert point.seed is not None
    if not len(reference.latents):  # float32 itself broke before its first step: there is nothing to measure
        return {"noise": None, "drift": []}
    seed = bench.request(point.model, point.prompt, point.seed).seed_of(0)
    shape = reference.latents.shape[1:]
    noise = torch.randn(shape, generator=generator(seed)).to(dtype).float()
    return {
        "noise": [noise.min().item(), noise.max().item()],
        "broken": int((~torch.isfinite(noise)).sum()),
        "numbers": noise.numel(),
        "low": [float(step.min()) for step in painting.latents],
        "high": [float(step.max()) for step in painting.latents],
        "drift": [
            decibels(a, b) for a, b in zip(painting.latents, reference.latents, strict=False)
        ],
    }  # fmt: skip


def decibels(other: np.ndarray, reference: np.ndarray) -> float:
    error = float(np.linalg.norm(other - reference) / np.linalg.norm(reference))
    return 20 * math.log10(error) if error else -math.inf


def judge(rows: Rows) -> list[Finding]:
    if not rows.of("latents", format_="float16"):
        return []
    return [one for one in (_range(rows), _drift(rows)) if one.figures]


def _range(rows: Rows) -> Finding:
    def message(model: str, format_: str) -> str:
        found = [row["result"] for row in rows.of("latents", model, format_) if row["result"]["noise"]]
        if not found:
            return ""
        low, high = min(number(r["noise"][0]) for r in found), max(number(r["noise"][1]) for r in found)
        return f"{figure(low)} … {figure(high)} ({sum(r['broken'] for r in found)} Inf/NaN)"

    found = [row["result"] for row in rows.of("latents", format_="float16") if row["result"]["noise"]]
    broken, numbers = (sum(r[k] for r in found) for k in ("broken", "numbers"))
    widest = max((abs(number(v)) for r in found for v in r["noise"]), default=math.nan)
    limit = facts(rows, "float16")["largest"]
    gist = (
        f"In float16 {broken} of {numbers} numbers are Inf or NaN.",
        f"float16 下 {numbers} 个数中有 {broken} 个 Inf 或 NaN。",
    )
    why = sentences(
        (
            "At t = 1000 the latents are the noise itself, drawn from the seed before any network runs; least … greatest over all pictures.",
            "t = 1000 时潜变量就是由种子抽取的噪声，网络尚未运行；取遍所有画的最小 … 最大。",
        ),
        gist,
        (
            f"The widest is {figure(widest)}, {figure(limit / widest, 2)} times below where float16 ends.",
            f"最大的绝对值为 {figure(widest)}，距 float16 的上限还有 {figure(limit / widest, 2)} 倍。",
        )
        if limit > widest
        else ("", ""),
    )
    return Finding("C8", REPRODUCED if broken else REFUTED, by_model(rows, message), why, gist)


def _drift(rows: Rows) -> Finding:
    def message(model: str, format_: str) -> str:
        first, last = ends(rows, model, format_)
        return f"{figure(first)} → {figure(last)} dB" if format_ != FLOAT32 and last == last else ""

    why = (
        "Distance of the latents from float32's after the first → the last step, medians; 6 dB is a factor of two.",
        "潜变量与 float32 的距离：第一步之后 → 最后一步之后，中位数；6 dB 为一倍。",
    )
    return Finding("X2", MEASURED, by_model(rows, message), why)


def ends(rows: Rows, model: str, format_: str) -> tuple[float, float]:
    drifts = [row["result"]["drift"] for row in rows.of("latents", model, format_) if row["result"]["drift"]]
    first, last = (stats.median([number(d[at]) for d in drifts]).value for at in (0, -1))
    return first, last

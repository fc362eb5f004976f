"""What are the formats: bits, range, spacing?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab.findings import REFUTED, REPRODUCED, Finding, Rows, Words, figure, sentences
from starrynight.lab.plan import Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("What are the formats: bits, range, spacing?", "各格式的位数、范围与间距")
CLAIMS = ("C17",)
PER = "machine"
REFERENCE = True
TWIN = False
CLAIMED = {"float16": ((1, 5, 10), 1e-5, 1e5), "bfloat16": ((1, 8, 7), 1e-38, 1e38)}
FORMATS = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float32")


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """Found by probing, not read from a table: how often a format halves until 0, doubles until it stops, and how small a
    step beside 1 it still sees.
    """
    import torch

    return {name: probe(getattr(torch, name)) for name in FORMATS}


def probe(dtype: Any) -> dict[str, Any]:
    """``bits``: sign, exponent, fraction; ``tiny``: least number above 0; ``normal``: least with all its fraction bits;
    ``largest``: the greatest finite one; ``holds``: whether 10⁵ and 10⁻⁵ and 10³⁸ and 10⁻³⁸ come back within 10 %.
    """
    import torch

    def held(value: float) -> float:
        return torch.tensor(value, dtype=torch.float64).to(dtype).double().item()

    fraction = next(n for n in range(60) if held(1 + 2.0 ** -(n + 1)) == 1)
    tiny = next(2.0**-n for n in range(200) if held(2.0 ** -(n + 1)) == 0)
    normal = tiny * 2.0**fraction
    top = next(n for n in range(1, 200) if held(2.0**n) != 2.0**n) - 1
    largest = max(
        v for v in (held(2.0**top * (2 - m * 2.0**-fraction)) for m in (1, 2)) if v < 2.0 ** (top + 1)
    )
    exponent = 8 * torch.empty(0, dtype=dtype).element_size() - 1 - fraction
    holds = {f"{v:g}": abs(held(v) / v - 1) < 0.1 for v in (1e5, 1e-5, 1e38, 1e-38)}
    return {
        "bits": [1, exponent, fraction],
        "tiny": tiny,
        "normal": normal,
        "largest": largest,
        "holds": holds,
    }


def judge(rows: Rows) -> list[Finding]:
    found = rows.result("facts", "", "")
    if not found:
        return []
    told = {
        f: f"{'/'.join(map(str, r['bits']))}, {figure(number(r['normal']), 2)} ({figure(number(r['tiny']), 2)}) … {figure(number(r['largest']), 5)}"
        for f, r in found.items()
    }
    misses = [_miss(f, found[f], *claim) for f, claim in CLAIMED.items()]
    why = sentences(
        (
            "Sign/exponent/fraction bits, least normal (least subnormal) … greatest number, found by probing.",
            "符号/指数/尾数位，最小正规数（最小次正规数）… 最大数，均由探测得到。",
        ),
        *misses,
    )
    holds = all(_as_claimed(found[f], *claim) for f, claim in CLAIMED.items())
    return [Finding("C17", REPRODUCED if holds else REFUTED, {"": told}, why, misses[0])]


def _as_claimed(found: dict[str, Any], bits: tuple[int, ...], low: float, high: float) -> bool:
    return tuple(found["bits"]) == bits and _small(found, low) and number(found["largest"]) >= high


def _small(found: dict[str, Any], low: float) -> bool:
    """Whether numbers as small as ``low`` keep all their fraction bits; a claim of a power of ten is one to a power of ten."""
    return number(found["normal"]) <= 10 * low


def _miss(format_: str, found: dict[str, Any], bits: tuple[int, ...], low: float, high: float) -> Words:
    """What of a format is as claimed, and what is not."""
    if _as_claimed(found, bits, low, high):
        return f"{format_} is as claimed.", f"{format_} 与所称相符。"
    en, zh = [], []
    if tuple(found["bits"]) != bits:
        en.append(f"its bits are {'/'.join(map(str, found['bits']))}")
        zh.append(f"位数为 {'/'.join(map(str, found['bits']))}")
    if number(found["largest"]) < high:
        en.append(f"it ends at {figure(number(found['largest']), 5)}, so {high:g} is Inf")
        zh.append(f"上限为 {figure(number(found['largest']), 5)}，{high:g} 已是 Inf")
    if not _small(found, low):
        normal, tiny = (figure(number(found[k]), 2) for k in ("normal", "tiny"))
        en.append(f"below {normal} it loses fraction bits, down to {tiny}")
        zh.append(f"低于 {normal} 开始丢尾数，直到 {tiny}")
    return f"{format_} is not as claimed: {'; '.join(en)}.", f"{format_} 与所称不符：{'；'.join(zh)}。"

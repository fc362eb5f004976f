"""What are the formats: bits, range, spacing?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab.findings import REFUTED, REPRODUCED, Finding, Rows, figure
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
    bits = all(tuple(found[f]["bits"]) == claim[0] for f, claim in CLAIMED.items())
    ranges = all(
        number(found[f]["normal"]) >= low / 10 and number(found[f]["largest"]) >= high
        for f, (_, low, high) in CLAIMED.items()
    )
    told = {
        f: f"{'/'.join(map(str, r['bits']))}, {figure(number(r['normal']), 2)} ({figure(number(r['tiny']), 2)}) … {figure(number(r['largest']), 5)}"
        for f, r in found.items()
    }
    why = (
        "Sign/exponent/fraction bits, least normal (least subnormal) … greatest number, found by probing. The bits are as claimed, and bfloat16's range; float16's is not: it ends at 65504, "
        "so 10⁵ is already Inf, and below 6.1·10⁻⁵ it loses fraction bits, down to 6·10⁻⁸.",
        "符号/指数/尾数位，最小正规数（最小次正规数）… 最大数，均由探测得到。位数与 bfloat16 的范围成立；float16 的范围不成立：上限 65504，"
        "10⁵ 已是 Inf；低于 6.1·10⁻⁵ 开始丢尾数，直到 6·10⁻⁸。",
    )
    return [Finding("C17", REPRODUCED if bits and ranges else REFUTED, {"": told}, why)]

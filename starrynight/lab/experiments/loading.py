"""Does one 16-bit format load faster than the other?"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starrynight.lab import stats
from starrynight.lab.findings import Finding, Rows, bounds, by_model, few, figure, sentences, settled
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("Does one 16-bit format load faster than the other?", "两种 16 位格式，哪个载入更快？")
CLAIMS = ("C13",)
PER = "model"
REFERENCE = True
TWIN = False
CLAIMED = 1.7 / 2.1
AT_LEAST = 15  # pairs; a read takes milliseconds
AT_MOST = 2 * 2**30  # bytes of weights that are written out for this; a larger model reads its first ones


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """The same weights as one file in each format, read whole into memory in turn, from a warm disk cache."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = _weights(bench, point.model)
    formats = {f: getattr(torch, f) for f in (FLOAT32, "float16", "bfloat16")}
    found: dict[str, Any] = {"seconds": {f: [] for f in formats}, "bytes": {}}
    with tempfile.TemporaryDirectory() as folder:
        files = {f: Path(folder) / f"{f}.safetensors" for f in formats}
        for format_, dtype in formats.items():
            save_file({n: t.to(dtype) for n, t in tensors.items()}, files[format_])
            found["bytes"][format_] = files[format_].stat().st_size
        for turn in range(max(AT_LEAST, bench.plan.repeats) + 1):
            for format_, file in files.items():
                start = time.perf_counter()
                loaded = [t.clone() for t in load_file(file).values()]  # a clone touches every page
                if turn:
                    found["seconds"][format_].append(time.perf_counter() - start)
                del loaded
    return found


def _weights(bench: Bench, model: str) -> dict[str, Any]:
    found, held = {}, 0
    for part, module in bench.hand(model, FLOAT32).modules.items():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and held < AT_MOST:
                found[f"{part}.{name}"] = tensor.detach().cpu().contiguous().clone()
                held += tensor.numel() * tensor.element_size()
    return found


def judge(rows: Rows) -> list[Finding]:
    first = rows.result("loading", rows.models[0], "")
    if not first:
        return []

    def message(model: str, format_: str) -> str:
        found = rows.result("loading", model, "")
        if format_ not in found.get("seconds", {}):
            return ""
        seconds = stats.median([number(v) for v in found["seconds"][format_]]).value
        return f"{figure(1000 * seconds)} ms ({found['bytes'][format_] / 2**20:.1f} MB)"

    gap = stats.ratio(*([number(v) for v in first["seconds"][f]] for f in ("float16", "bfloat16")))
    slow = stats.ratio(*([number(v) for v in first["seconds"][f]] for f in ("float16", FLOAT32)))
    apart = abs(first["bytes"]["float16"] - first["bytes"]["bfloat16"])
    larger = first["bytes"][FLOAT32] / first["bytes"]["float16"]
    gist = (
        f"bfloat16 ÷ float16 in pairs: {bounds(gap)}, claimed {CLAIMED:.2f}.",
        f"成对比较 bfloat16 ÷ float16：{bounds(gap)}，所称 {CLAIMED:.2f}。",
    )
    why = sentences(
        (
            f"Median of {gap.count} reads each, in turn, from a warm cache. The two files differ by {apart} bytes of {first['bytes']['float16']}.",
            f"交替各读 {gap.count} 次的中位数，磁盘缓存已热。两个文件相差 {apart} 字节（共 {first['bytes']['float16']}）。",
        ),
        (
            f"Float32's file is {larger:.2f} × as large and takes {bounds(slow)} × as long.",
            f"float32 的文件是 {larger:.2f} 倍大，耗时是 {bounds(slow)} 倍。",
        ),
        gist,
        few(gap),
    )
    return [
        Finding("C13", settled(gap, gap.low <= CLAIMED <= gap.high < 1), by_model(rows, message), why, gist)
    ]

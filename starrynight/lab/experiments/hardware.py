"""Experiments on the formats and this machine: bits and range (C17), matrix products (C18), seconds per picture (C2), and
reading weights from disk (C13).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starrynight.errors import BrokenNumbers
from starrynight.i18n import Text
from starrynight.lab import formats, stats
from starrynight.lab.findings import (
    HARDWARE,
    UNDECIDED,
    Finding,
    Row,
    Rows,
    conclude,
    format_interval,
    format_number,
    join_names,
    join_sentences,
    outcome_of,
    paired_outcome,
    too_few_pairs,
)
from starrynight.lab.plan import REFERENCE, Point
from starrynight.lab.run import number
from starrynight.lab.stats import Estimate
from starrynight.numerics.timing import BUSY, CoreWait, too_busy

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

# bits (sign, exponent, fraction), least and greatest number, as claimed
CLAIMED_FORMATS = {"float16": ((1, 5, 10), 1e-5, 1e5), "bfloat16": ((1, 8, 7), 1e-38, 1e38)}
PROBED = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float32")
CARD = "GTX 1080 Ti"
CLAIMED_TIME = 3.6 / 3.8  # bfloat16 ÷ float16
CLAIMED_LOADING = 1.7 / 2.1  # bfloat16 ÷ float16
LEAST_READS = 15  # pairs; one read takes milliseconds
LARGEST_READ = 2 * 2**30  # bytes of weights written to disk for this; of a larger model only the first ones

# -- formats ---------------------------------------------------------------------------------------------------------


def measure_formats(_bench: Bench, _point: Point) -> dict[str, Any]:
    """The properties of each format, found by probing and not read from a table (``probe``)."""
    import torch

    return {name: probe(getattr(torch, name)) for name in PROBED}


def probe(dtype: Any) -> dict[str, Any]:
    """Halve 1 until it becomes 0, double it until it overflows, and find the smallest step beside 1.

    ``bits``: sign, exponent, fraction. ``tiny``: the least number above 0. ``normal``: the least number with all its
    fraction bits. ``largest``: the greatest finite number. ``holds``: whether 10⁵, 10⁻⁵, 10³⁸ and 10⁻³⁸ come back
    within 10 %.
    """
    import torch

    def stored(value: float) -> float:
        return torch.tensor(value, dtype=torch.float64).to(dtype).double().item()

    fraction = next(n for n in range(60) if stored(1 + 2.0 ** -(n + 1)) == 1)
    tiny = next(2.0**-n for n in range(200) if stored(2.0 ** -(n + 1)) == 0)
    top = next(n for n in range(1, 200) if stored(2.0**n) != 2.0**n) - 1
    # e4m3fn gives the last code of its top exponent to NaN: there the greatest number is one step lower.
    candidates = (stored(2.0**top * (2 - m * 2.0**-fraction)) for m in (1, 2))
    exponent = 8 * torch.empty(0, dtype=dtype).element_size() - 1 - fraction
    return {
        "bits": [1, exponent, fraction],
        "tiny": tiny,
        "normal": tiny * 2.0**fraction,
        "largest": max(v for v in candidates if v < 2.0 ** (top + 1)),
        "holds": {f"{v:g}": abs(stored(v) / v - 1) < 0.1 for v in (1e5, 1e-5, 1e38, 1e-38)},
    }


def judge_formats(rows: Rows) -> list[Finding]:
    found = rows.result("facts", "", "")
    if not found:
        return []

    def figure(result: dict[str, Any]) -> str:
        normal, tiny = (format_number(number(result[k]), 2) for k in ("normal", "tiny"))
        return f"{_bits(result)}, {normal} ({tiny}) … {format_number(number(result['largest']), 5)}"

    misses = {f: _misses(found[f], *claim) for f, claim in CLAIMED_FORMATS.items()}
    comparisons = [_compare_format(f, missed) for f, missed in misses.items()]
    explanation = join_sentences(
        Text(
            "Figures: sign/exponent/fraction bits, least normal (least subnormal) … greatest number, found by probing.",
            "数字：符号/指数/尾数位，最小正规数（最小次正规数）… 最大数，均由探测得到。",
        ),
        *comparisons,
    )
    figures = {"": {f: figure(result) for f, result in found.items()}}
    return [Finding("C17", outcome_of(not any(misses.values())), figures, explanation, comparisons[0])]


def _bits(found: Row) -> str:
    return "/".join(map(str, found["bits"]))


def _misses(found: Row, bits: tuple[int, ...], low: float, high: float) -> list[Text]:
    """What of a format is not as claimed; NaN is a miss. Numbers as small as ``low`` should keep all their
    fraction bits. The claims name powers of ten, so a factor of ten is allowed.
    """
    misses = []
    if tuple(found["bits"]) != bits:
        misses.append(Text(f"its bits are {_bits(found)}", f"位数为 {_bits(found)}"))
    if not number(found["largest"]) >= high:
        largest = format_number(number(found["largest"]), 5)
        misses.append(
            Text(f"it ends at {largest}, so {high:g} is Inf", f"上限为 {largest}，{high:g} 已是 Inf")
        )
    if not number(found["normal"]) <= 10 * low:
        normal, tiny = (format_number(number(found[k]), 2) for k in ("normal", "tiny"))
        misses.append(Text(
            f"numbers below {normal} lose fraction bits, down to {tiny}", f"小于 {normal} 的数丢失尾数位，直到 {tiny}"
        ))  # fmt: skip
    return misses


def _compare_format(format_: str, misses: list[Text]) -> Text:
    if not misses:
        return Text(f"{format_} is as claimed.", f"{format_} 与所称相符。")
    return Text(
        f"{format_} is not as claimed: {'; '.join(miss.en for miss in misses)}.",
        f"{format_} 与所称不符：{'；'.join(miss.zh for miss in misses)}。",
    )


def _too_busy(claim: str, result: Row) -> list[Finding]:
    """The verdict on a timing that other programs disturbed, or []. The runner measures it again when the run goes on."""
    if "busy" not in result:
        return []
    why = too_busy(number(result["busy"]))
    return [Finding(claim, UNDECIDED, {}, why, why)]


# -- matrix products -------------------------------------------------------------------------------------------------


def measure_products(_bench: Bench, _point: Point) -> dict[str, Any]:
    """``rates``: GFLOP/s by format, the best of interleaved runs. ``old_card``: the format that ``precision.choose``
    gives each component on a GTX 1080 Ti; ``native`` and ``stores``: what that card computes in and stores.
    """
    from starrynight.numerics import device, precision

    here = device.torch_device(device.kind())
    record = device.probe(measure=False)
    card = precision.Device("cuda", f"NVIDIA GeForce {CARD}", capability=(6, 1), memory=11 * 2**30)
    model = precision.ModelProfile("ZImagePipeline", {"transformer": 1, "text_encoder": 1, "vae": 1})
    rates, waited = device.matmul_rates(here)
    if waited > BUSY:
        return {"busy": waited}
    return {
        "device": record.name or record.kind,
        "kind": record.kind,
        "rates": rates,
        "native": sorted(card.native),
        "stores": sorted(card.stores),
        "old_card": {choice.component: choice.format for choice in precision.choose(card, model)},
    }


def judge_products(rows: Rows) -> list[Finding]:
    found = rows.result("products", "", "")
    if not found:
        return []
    if busy := _too_busy("C18", found):
        return busy
    rates = {f: number(v) for f, v in found["rates"].items()}
    relative = {f: format_number(v / rates["float32"]) for f, v in rates.items()}
    figures = {
        "": {
            f: f"{format_number(v)} {'GOP/s' if f == 'int8' else 'GFLOP/s'} (×{relative[f]})"
            for f, v in rates.items()
        }
    }
    if CARD in found["device"]:
        outcome = outcome_of(rates["bfloat16"] < rates["float16"])
        ratio = format_number(rates["bfloat16"] / rates["float16"])
        measured = Text(
            f"On this {CARD}, bfloat16 ÷ float16 = {ratio}.",
            f"在这块 {CARD} 上，bfloat16 ÷ float16 = {ratio}。",
        )
        return [Finding("C18", outcome, figures, measured, measured)]
    native = join_names(found["native"]) or "float32"
    denoiser = found["old_card"].get("transformer", "float32")
    explanation = Text(
        f"Matrix products on this machine ({found['device']}); there is no {CARD} here. According to the table of cards in numerics.precision, that card computes in {native}, and Starry Night runs the denoiser in {denoiser} on it.",
        f"本机（{found['device']}）的矩阵乘法；此处没有 {CARD}。按 numerics.precision 的显卡表，该卡以 {native} 计算，璀璨星河在其上以 {denoiser} 运行去噪网络。",
    )
    absent = Text(f"There is no {CARD} here.", f"此处没有 {CARD}。")
    return [Finding("C18", HARDWARE, figures, explanation, absent)]


# -- seconds per picture ---------------------------------------------------------------------------------------------


def measure_speed(bench: Bench, point: Point) -> dict[str, Any]:
    """Wall and CPU seconds of a whole picture. The formats take turns, so that other load slows all of them alike; the
    first round is a warm-up. A format whose picture breaks is left out. Only ``busy`` (``timing``) where other programs took
    too much of the time.
    """
    request = bench.request(point.model)
    painters = {f: bench.painter(point.model, f) for f in bench.plan.formats if f != "float8"}
    times: dict[str, dict[str, list[float]]] = {f: {"wall": [], "cpu": []} for f in painters}
    broken = set()
    with CoreWait() as wait:
        for turn in range(bench.plan.repeats + 1):
            for format_, painter in painters.items():
                if format_ in broken:
                    continue
                wall, cpu = time.perf_counter(), time.process_time()
                try:
                    formats.paint(painter, request, lambda step: None)
                except BrokenNumbers:
                    broken.add(format_)
                    continue
                if turn:
                    times[format_]["wall"].append(time.perf_counter() - wall)
                    times[format_]["cpu"].append(time.process_time() - cpu)
    if wait.share > BUSY:
        return {"busy": wait.share}
    return {
        "times": {f: t for f, t in times.items() if f not in broken},
        "emulated": [f for f, painter in painters.items() if painter.emulated],
        "device": bench.painter(point.model, REFERENCE).device.type,
    }


def judge_speed(rows: Rows) -> list[Finding]:
    first = rows.result("speed", rows.models[0], "")
    if busy := _too_busy("C2", first):
        return busy
    if not first or not {"bfloat16", "float16"} <= set(first["times"]):
        return []

    def figure(model: str, format_: str) -> str:
        found = rows.result("speed", model, "")
        times = found.get("times", {}).get(format_)
        if not times:
            return ""
        wall, cpu = stats.median([number(v) for v in times["wall"]]), ratio(found, "cpu", REFERENCE, format_)
        mark = " †" if format_ in found["emulated"] else ""
        return f"{format_number(wall.value)} s · CPU ×{format_number(cpu.value)}{mark}"

    def ratio(found: Row, kind: str, a: str, b: str) -> Estimate:
        return _ratio({f: times[kind] for f, times in found["times"].items()}, a, b)

    gap, cpu = ratio(first, "wall", "float16", "bfloat16"), ratio(first, "cpu", REFERENCE, "bfloat16")
    measured = Text(
        f"bfloat16 takes {format_interval(cpu)} × float32's CPU time ({cpu.count} pairs).",
        f"bfloat16 的 CPU 时间是 float32 的 {format_interval(cpu)} 倍（{cpu.count} 对）。",
    )
    answer = Text(
        f"bfloat16 ÷ float16: {format_interval(gap)}; claimed: {CLAIMED_TIME:.2f}.",
        f"bfloat16 ÷ float16：{format_interval(gap)}；所称：{CLAIMED_TIME:.2f}。",
    )
    note = Text("† emulated here: its time says nothing about a card.", "† 此处为仿真，其时间不代表显卡。")
    emulated = "float16" in first["emulated"]
    outcome = HARDWARE if emulated else paired_outcome(gap, gap.contains(CLAIMED_TIME))
    why = [
        Text(
            "Median seconds of a whole picture, and CPU time relative to float32's in interleaved pairs.",
            "一幅画的秒数的中位数，以及与 float32 交替成对测得的 CPU 时间之比。",
        ),
        note if emulated else answer,
        measured,
        too_few_pairs(gap),
    ]
    return [conclude(rows, "C2", outcome, figure, why, measured if emulated else answer)]


def _ratio(seconds: dict[str, list[Any]], first: str, second: str) -> Estimate:
    """The median of second ÷ first over interleaved runs."""
    return stats.ratio(*([number(v) for v in seconds[f]] for f in (first, second)))


# -- loading ---------------------------------------------------------------------------------------------------------


def measure_loading(bench: Bench, point: Point) -> dict[str, Any]:
    """Seconds to read the same weights into memory from one file per format; the files take turns, from a warm cache. Only
    ``busy`` where other programs took too much of the time.
    """
    import torch
    from safetensors.torch import load_file, save_file

    tensors = _weights(bench, point.model)
    dtypes = {f: getattr(torch, f) for f in (REFERENCE, "float16", "bfloat16")}
    found: dict[str, Any] = {"seconds": {f: [] for f in dtypes}, "bytes": {}}
    with tempfile.TemporaryDirectory() as folder:
        files = {f: Path(folder) / f"{f}.safetensors" for f in dtypes}
        for format_, dtype in dtypes.items():
            save_file({n: t.to(dtype) for n, t in tensors.items()}, files[format_])
            found["bytes"][format_] = files[format_].stat().st_size
        with CoreWait() as wait:
            for turn in range(max(LEAST_READS, bench.plan.repeats) + 1):
                for format_, file in files.items():
                    start = time.perf_counter()
                    # load_file maps; a clone reads every page.
                    loaded = [tensor.clone() for tensor in load_file(file).values()]
                    if turn:
                        found["seconds"][format_].append(time.perf_counter() - start)
                    del loaded
    return {"busy": wait.share} if wait.share > BUSY else found


def _weights(bench: Bench, model: str) -> dict[str, Any]:
    """The model's float32 weights by name, up to ``LARGEST_READ`` bytes."""
    found, size = {}, 0
    for component, module in bench.painter(model, REFERENCE).modules.items():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and size < LARGEST_READ:
                found[f"{component}.{name}"] = tensor.detach().cpu().contiguous().clone()
                size += tensor.numel() * tensor.element_size()
    return found


def judge_loading(rows: Rows) -> list[Finding]:
    first = rows.result("loading", rows.models[0], "")
    if not first:
        return []
    if busy := _too_busy("C13", first):
        return busy

    def figure(model: str, format_: str) -> str:
        found = rows.result("loading", model, "")
        if format_ not in found.get("seconds", {}):
            return ""
        seconds = stats.median([number(v) for v in found["seconds"][format_]]).value
        return f"{format_number(1000 * seconds)} ms ({found['bytes'][format_] / 2**20:.1f} MB)"

    gap, slower = (_ratio(first["seconds"], "float16", f) for f in ("bfloat16", REFERENCE))
    size = first["bytes"]
    apart, larger = abs(size["float16"] - size["bfloat16"]), size[REFERENCE] / size["float16"]
    summary = Text(
        f"bfloat16 ÷ float16 in pairs: {format_interval(gap)}; claimed: {CLAIMED_LOADING:.2f}.",
        f"成对比较 bfloat16 ÷ float16：{format_interval(gap)}；所称：{CLAIMED_LOADING:.2f}。",
    )
    why = [
        Text(
            f"Median of {gap.count} reads of each file, taking turns, from a warm cache. The two files differ by {apart} bytes of {size['float16']}.",
            f"交替各读 {gap.count} 次的中位数，磁盘缓存已热。两个文件相差 {apart} 字节（共 {size['float16']}）。",
        ),
        Text(
            f"Float32's file is {larger:.2f} × as large and takes {format_interval(slower)} × as long to read.",
            f"float32 的文件是 {larger:.2f} 倍大，读取耗时是 {format_interval(slower)} 倍。",
        ),
        summary,
        too_few_pairs(gap),
    ]
    outcome = paired_outcome(gap, gap.contains(CLAIMED_LOADING) and gap.high < 1)
    return [conclude(rows, "C13", outcome, figure, why, summary)]

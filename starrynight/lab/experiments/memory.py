"""Experiments on memory: weights and activations of a picture (C1, C11), what the difference would be enough for (C20),
and what model offload would free (C12).
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starrynight.errors import BrokenNumbers
from starrynight.i18n import Text
from starrynight.lab.findings import (
    EMPTY,
    HARDWARE,
    Finding,
    Row,
    Rows,
    conclude,
    figures_by_model,
    format_number,
    join_names,
    join_sentences,
    outcome_of,
)
from starrynight.lab.plan import REFERENCE, Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench
    from starrynight.lab.formats import FormatPainter
    from starrynight.request import PaintRequest

PHASES = ("text", "first", "middle", "last", "decoder")
LORA_RANK = 16
CLAIMED_PICTURE, CLAIMED_ACTIVATIONS = 15.7 / 18.2, 1928 / 2410
SAVING = 0.95  # bfloat16 ÷ float16 below this counts as a saving; the claims say 0.86 and 0.80
CLAIMED_FREED = 3.1e9  # bytes freed by model offload

# -- weights and activations -----------------------------------------------------------------------------------------


def measure_memory(bench: Bench, point: Point) -> dict[str, Any]:
    """All sizes in bytes.

    ``weights`` and how many ``numbers`` they are; ``one``: the peak of live tensors while one picture is painted in one
    step, ``phases``: the same by part; ``two``: the peak for two pictures in one batch; ``one_whole``, ``two_whole``:
    whether the painting finished without NaN or Inf; ``lora``: the weights of a LoRA; ``process``, ``device``: the peaks that
    the operating system and the accelerator report, None where they report none.
    """
    from starrynight.lab.instruments import MemoryCounter

    painter = bench.painter(point.model, point.format)
    request = bench.request(point.model).replace(steps=1)
    weights = painter.weights
    found: dict[str, Any] = {
        "weights": painter.bytes,
        "numbers": sum(t.numel() for t in weights),
        "lora": _lora_bytes(painter),
        "emulated": painter.emulated,
    }
    for name, count in (("one", 1), ("two", 2)):
        counter = MemoryCounter(weights)
        with _reported_peaks() as process, painter.arithmetic(), counter, counter.phases(_phases(painter)):
            whole = _paint(painter, request, count)
        found |= {name: counter.peak, f"{name}_whole": whole}
        if count == 1:
            found |= {"phases": counter.peaks, **process}
    return found


def _paint(painter: FormatPainter, request: PaintRequest, count: int) -> bool:
    """Paint ``count`` pictures in one batch with one step; False if the numbers break."""
    from starrynight.models.load import call_arguments
    from starrynight.numerics.rng import generator

    pipeline = painter.pipeline
    arguments = call_arguments(
        pipeline, prompt=request.prompt, width=request.width, height=request.height, num_inference_steps=1,
        guidance_scale=request.guidance, generator=generator(request.seed_of(0)), output_type="pt",
        num_images_per_prompt=count,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    try:
        pipeline(**arguments)
    except BrokenNumbers:
        return False
    return True


def _phases(painter: FormatPainter) -> dict[str, list[Any]]:
    """The modules of each of ``PHASES``."""
    from starrynight.lab.instruments import block_groups

    modules = painter.modules
    text = [m for name, m in modules.items() if name.startswith("text_encoder")]
    decoder = [m for name, m in getattr(modules.get("vae"), "named_children", list)() if name == "decoder"]
    first, middle, last = block_groups(painter.denoiser)
    return dict(zip(PHASES, (text, first, middle, last, decoder), strict=True))


def _lora_bytes(painter: FormatPainter) -> int:
    """The size of a LoRA of rank ``LORA_RANK`` on every attention projection of the denoiser, in its format."""
    from torch import nn

    return sum(
        LORA_RANK * (m.in_features + m.out_features) * m.weight.element_size()
        for name, m in painter.denoiser.named_modules()
        if isinstance(m, nn.Linear) and "att" in name
    )


@contextmanager
def _reported_peaks() -> Iterator[dict[str, int | None]]:
    """Growth of the process's peak (Linux) and the accelerator's peak inside the block, in bytes; filled at its end."""
    import torch

    found: dict[str, int | None] = {"process": None, "device": None}
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # return freed memory, so that it does not hide growth
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (man 5 proc)
        before = _status("VmRSS")
    if torch.accelerator.is_available():
        torch.accelerator.memory.reset_peak_memory_stats()
    yield found
    with suppress(OSError, NameError, UnboundLocalError):
        found["process"] = _status("VmHWM") - before
    if torch.accelerator.is_available():
        found["device"] = torch.accelerator.memory.max_memory_allocated()


def _status(name: str) -> int:
    """A field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def judge_memory(rows: Rows) -> list[Finding]:
    (float16, bfloat16), float32 = rows.two("memory"), rows.result("memory", rows.models[0], REFERENCE)
    if not float16 or not bfloat16:
        return []
    return [
        _judge_picture(rows, float16, bfloat16),
        _judge_activations(rows, float16, bfloat16, float32),
        _judge_saving(rows.models[0], float16, bfloat16, float32),
    ]


def _megabytes(amount: float) -> str:
    return f"{amount / 2**20:.3g}"


def _total(result: Row) -> int:
    return result["weights"] + result["one"]


def _judge_picture(rows: Rows, float16: Row, bfloat16: Row) -> Finding:
    def figure(model: str, format_: str) -> str:
        found = rows.result("memory", model, format_)
        if not found:
            return ""
        reported = found["device"] if found["device"] is not None else found["process"]
        peak = f" (↑{_megabytes(reported)})" if reported is not None else ""
        broken = "" if found["one_whole"] else " ✗"
        return f"{_sum_of(found)} = {_megabytes(_total(found))} MB{peak}{broken}"

    ratio = _total(bfloat16) / _total(float16)
    per_weight = [f"{r['weights'] / r['numbers']:.2f}" for r in (bfloat16, float16)]
    emulated = [f for f in rows.formats if rows.result("memory", rows.models[0], f).get("emulated")]
    summary = Text(
        f"bfloat16 takes {ratio:.4f} × float16's memory; claimed: {CLAIMED_PICTURE:.2f}.",
        f"bfloat16 的内存是 float16 的 {ratio:.4f} 倍；所称：{CLAIMED_PICTURE:.2f}。",
    )
    copies = Text(
        f"↑ includes the float32 copies of the emulation: {join_names(emulated)}.",
        f"↑ 包含仿真所用的 float32 副本：{join_names(emulated)}。",
    )
    why = [
        Text(
            "Figures: weights + peak of live tensors (↑ growth of the peak that the process or device reports).",
            "数字：权重 + 活张量峰值（↑ 为进程或设备报告的峰值增量）。",
        ),
        summary,
        Text(
            f"That is {_sum_of(bfloat16)} MB against {_sum_of(float16)} MB, and {per_weight[0]} bytes per weight against {per_weight[1]}.",
            f"即 {_sum_of(bfloat16)} 对 {_sum_of(float16)} MB，每个权重 {per_weight[0]} 对 {per_weight[1]} 字节。",
        ),
        copies if emulated else EMPTY,
    ]
    return conclude(rows, "C1", ratio < SAVING, figure, why, summary)


def _sum_of(result: Row) -> str:
    return f"{_megabytes(result['weights'])} + {_megabytes(result['one'])}"


def _judge_activations(rows: Rows, float16: Row, bfloat16: Row, float32: Row) -> Finding:
    def figure(model: str, format_: str) -> str:
        found = rows.result("memory", model, format_)
        if not found:
            return ""
        parts = " / ".join(_megabytes(found["phases"].get(p, 0)) for p in PHASES[1:])
        return f"{parts} → {_megabytes(found['one'])} MB"

    ratio = bfloat16["one"] / float16["one"]
    summary = Text(
        f"Counted from live tensors, bfloat16 ÷ float16 = {ratio:.4f}; claimed: {CLAIMED_ACTIVATIONS:.2f}.",
        f"按活张量计，bfloat16 ÷ float16 = {ratio:.4f}；所称：{CLAIMED_ACTIVATIONS:.2f}。",
    )
    why = [
        Text(
            "Figures: first / middle / last third of the denoiser / decoder → overall peak.",
            "数字：去噪网络前 / 中 / 后三分之一 / 解码器 → 总峰值。",
        ),
        summary,
        _explain_sum(float16),
        _explain_upcast(float16, float32) if ratio >= SAVING else EMPTY,
    ]
    return conclude(rows, "C11", ratio < SAVING, figure, why, summary)


def _explain_sum(float16: Row) -> Text:
    """Whether the peak is the sum of the parts, as the claim adds them up, or less because they take turns."""
    parts = sum(float16["phases"].get(p, 0) for p in PHASES[1:])
    together, peak = _megabytes(parts), _megabytes(float16["one"])
    if parts > float16["one"]:
        return Text(
            f"The parts add up to {together} MB, but the peak is {peak} MB: they are not in memory at the same time.",
            f"各部分相加为 {together} MB，峰值却是 {peak} MB：它们不会同时占用内存。",
        )
    return Text(
        f"The parts add up to {together} MB; the peak is {peak} MB.",
        f"各部分相加为 {together} MB，峰值 {peak} MB。",
    )


def _explain_upcast(float16: Row, float32: Row) -> Text:
    """The memory of a program that decodes its float16 picture in float32, as some do."""
    same, upcast = float16["phases"].get("decoder", 0), float32.get("phases", {}).get("decoder", 0)
    if not same or upcast <= same:
        return EMPTY
    return Text(
        f"Decoding a float16 picture in float32 does make a difference: {_megabytes(upcast)} MB in the decoder instead of {_megabytes(same)} MB.",
        f"有差别的是用 float32 解码 float16 的画：解码器占 {_megabytes(upcast)} MB，而不是 {_megabytes(same)} MB。",
    )


def _judge_saving(model: str, float16: Row, bfloat16: Row, float32: Row) -> Finding:
    saved = _total(float16) - _total(bfloat16)
    from_float32 = _megabytes(_total(float32) - _total(bfloat16)) if float32 else "–"
    lora, second = bfloat16["lora"], bfloat16["two"] - bfloat16["one"]
    figure = f"float16 − bfloat16: {_megabytes(saved)} MB · float32 − bfloat16: {from_float32} MB · LoRA (r = {LORA_RANK}): {_megabytes(lora)} MB · batch +1: {_megabytes(second)} MB"
    enough = _enough_for(saved, lora, second)
    explanation = Text(
        f"Against float16, bfloat16 saves {_megabytes(saved)} MB: {enough.en}. Against float32 it saves {from_float32} MB.",
        f"相对 float16，bfloat16 省下 {_megabytes(saved)} MB：{enough.zh}。相对 float32 省下 {from_float32} MB。",
    )
    return Finding("C20", outcome_of(saved >= lora), {model: {"": figure}}, explanation, explanation)


def _enough_for(saved: int, lora: int, second: int) -> Text:
    """What ``saved`` bytes hold: a LoRA, a second picture in the batch, or neither."""
    sizes = ((lora, Text("a LoRA", "一个 LoRA")), (second, Text("a second picture", "第二幅画")))
    fitting = [name for size, name in sizes if saved >= size]
    if not fitting:
        return Text("neither a LoRA nor a second picture", "既放不下一个 LoRA，也放不下第二幅画")
    en, zh = " or ".join(name.en for name in fitting), "或".join(name.zh for name in fitting)
    return Text(f"enough for {en}", f"够放{zh}")


# -- model offload ---------------------------------------------------------------------------------------------------


def measure_offload(bench: Bench, point: Point) -> dict[str, Any]:
    """Parameters of each component. Model offload keeps one component at a time on the device."""
    modules = bench.painter(point.model, REFERENCE).modules
    return {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}


def judge_offload(rows: Rows) -> list[Finding]:
    def figure(model: str, _format: str) -> str:
        parts = rows.result("offload", model, "")
        if not parts:
            return ""
        freed = 2 * _outside_the_largest(parts) / 2**20
        return f"{freed:.3g} MB ({' · '.join(f'{name} {2 * n / 2**20:.3g}' for name, n in parts.items())})"

    figures = figures_by_model(rows, figure, [""])
    if not figures:
        return []
    rest = _outside_the_largest(rows.result("offload", rows.models[0], ""))
    summary = Text(
        f"{CLAIMED_FREED / 1e9:.1f} GB would be {format_number(CLAIMED_FREED / 2)} parameters outside the largest component; this model has {format_number(rest)}.",
        f"{CLAIMED_FREED / 1e9:.1f} GB 意味着最大组件之外有 {format_number(CLAIMED_FREED / 2)} 个参数；此模型有 {format_number(rest)} 个。",
    )
    explanation = Text(
        "Figures: what the device no longer holds, which is every component but the largest, at two bytes per parameter in either 16-bit format.",
        "数字：设备上不必再放的部分，即除最大者之外的所有组件；两种 16 位格式都是每个参数两字节。",
    )
    no_device = Text("This machine has no separate device memory to measure.", "本机没有独立显存可测。")
    on_cpu = rows.result("products", "", "").get("kind") == "cpu"
    explanation = join_sentences(explanation, no_device if on_cpu else EMPTY, summary)
    return [Finding("C12", HARDWARE, figures, explanation, summary)]


def _outside_the_largest(parts: dict[str, int]) -> int:
    return sum(parts.values()) - max(parts.values(), default=0)

"""How much memory does a picture take, in weights and in activations, and what would the difference buy?"""

from __future__ import annotations

import ctypes
import gc
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starrynight.errors import BrokenNumbers
from starrynight.lab import block_groups, formats
from starrynight.lab.findings import REFUTED, REPRODUCED, Finding, Rows, Words, by_model, joined, sentences
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How much memory does a picture take?", "一幅画要多少内存？")
CLAIMS = ("C1", "C11", "C20")
PER = "format"
REFERENCE = True
TWIN = False
PHASES = ("text", "first", "middle", "last", "decoder")
LORA_RANK = 16
CLAIMED_PICTURE, CLAIMED_ACTIVATIONS = 15.7 / 18.2, 1928 / 2410
CLAIMED_SAVING = 0.95  # the claims say 0.86 and 0.80; a difference of rounding would be less than this


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """Bytes. ``weights``, of so many ``numbers``; ``activations``: the peak of live tensors over a painting of one step, in all and by phase;
    ``two``: the same for two pictures at once; ``process`` and ``device``: as they report it, None where they do not.
    """
    from starrynight.lab.counting import Counter

    hand = bench.hand(point.model, point.format)
    request = bench.request(point.model).replace(steps=1)
    weights = [t for m in hand.modules.values() for t in (*m.parameters(), *m.buffers())]
    found: dict[str, Any] = {
        "weights": hand.bytes,
        "numbers": sum(t.numel() for t in weights),
        "lora": _lora_bytes(hand),
        "emulated": hand.emulated,
    }
    for name, count in (("one", 1), ("two", 2)):
        counter = Counter(weights)
        with _process() as process, hand.arithmetic(), counter, counter.phases(_phases(hand)):
            whole = _paint(hand, request, count)
        found |= {name: counter.peak, f"{name}_whole": whole}
        if count == 1:
            found |= {"phases": counter.peaks, **process}
    return found


def _paint(hand: formats.FormatPainter, request: Any, count: int) -> bool:
    """One step for ``count`` pictures at once; False where the numbers broke on the way."""
    from starrynight.numerics.rng import generator

    words = {
        "prompt": request.prompt, "width": request.width, "height": request.height, "num_inference_steps": 1,
        "guidance_scale": request.guidance, "generator": generator(request.seed_of(0)), "output_type": "pt",
        "num_images_per_prompt": count,
    }  # fmt: skip
    pipeline = hand.painter.pipeline
    understood = inspect.signature(pipeline.__call__).parameters
    pipeline.set_progress_bar_config(disable=True)
    try:
        pipeline(**{word: value for word, value in words.items() if word in understood})
    except BrokenNumbers:
        return False
    return True


def _phases(hand: formats.FormatPainter) -> dict[str, list[Any]]:
    modules = hand.modules
    text = [m for name, m in modules.items() if name.startswith("text_encoder")]
    decoder = [m for name, m in getattr(modules.get("vae"), "named_children", list)() if name == "decoder"]
    first, middle, last = block_groups.blocks(hand.painter.denoiser)
    return dict(zip(PHASES, (text, first, middle, last, decoder), strict=True))


def _lora_bytes(hand: formats.FormatPainter) -> int:
    """A LoRA of rank 16 on every attention projection of the denoiser, in the network's format."""
    from torch import nn

    return sum(
        LORA_RANK * (m.in_features + m.out_features) * m.weight.element_size()
        for name, m in hand.painter.denoiser.named_modules()
        if isinstance(m, nn.Linear) and "att" in name
    )


@contextmanager
def _process() -> Iterator[dict[str, int | None]]:
    """The peak of the process (Linux) and of the accelerator, in bytes, while this lasts."""
    import torch

    found: dict[str, int | None] = {"process": None, "device": None}
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the old peak
        before = _status("VmRSS")
    if torch.accelerator.is_available():
        torch.accelerator.memory.reset_peak_memory_stats()
    yield found
    with suppress(OSError, NameError, UnboundLocalError):
        found["process"] = _status("VmHWM") - before
    if torch.accelerator.is_available():
        found["device"] = torch.accelerator.memory.max_memory_allocated()


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def megabytes(amount: float) -> str:
    return f"{amount / 2**20:.3g}"


def judge(rows: Rows) -> list[Finding]:
    model = rows.models[0]
    half, brain, full = (rows.result("memory", model, f) for f in ("float16", "bfloat16", FLOAT32))
    if not half or not brain:
        return []
    return [
        _picture(rows, model, half, brain),
        _activations(rows, half, brain, full),
        _room(model, half, brain, full),
    ]


def total(result: dict[str, Any]) -> int:
    return result["weights"] + result["one"]


def _picture(rows: Rows, model: str, half: dict[str, Any], brain: dict[str, Any]) -> Finding:
    def message(one: str, format_: str) -> str:
        found = rows.result("memory", one, format_)
        if not found:
            return ""
        told = f"{megabytes(found['weights'])} + {megabytes(found['one'])} = {megabytes(total(found))} MB"
        reported = found["device"] if found["device"] is not None else found["process"]
        return (
            told
            + (f" (↑{megabytes(reported)})" if reported is not None else "")
            + ("" if found["one_whole"] else " ✗")
        )

    gap = total(brain) / total(half)
    parts = [f"{megabytes(r['weights'])} + {megabytes(r['one'])}" for r in (brain, half)]
    a_number = [f"{r['weights'] / r['numbers']:.2f}" for r in (brain, half)]
    emulated = [f for f in rows.formats if rows.result("memory", model, f).get("emulated")]
    gist = (
        f"bfloat16 takes {gap:.4f} × float16; claimed {CLAIMED_PICTURE:.2f}.",
        f"bfloat16 是 float16 的 {gap:.4f} 倍；所称为 {CLAIMED_PICTURE:.2f}。",
    )
    why = sentences(
        (
            "Weights + peak of live tensors (↑ growth of the process's or device's own peak).",
            "权重 + 活张量峰值（↑ 为进程或设备自报峰值的增量）。",
        ),
        gist,
        (
            f"That is {parts[0]} MB against {parts[1]} MB, and {a_number[0]} bytes a weight against {a_number[1]}.",
            f"即 {parts[0]} 对 {parts[1]} MB，每个权重 {a_number[0]} 对 {a_number[1]} 字节。",
        ),
        (
            f"↑ holds the float32 copies of an emulation too: {joined(emulated)}.",
            f"↑ 还含仿真所用的 float32 副本：{joined(emulated)}。",
        )
        if emulated
        else ("", ""),
    )
    return Finding("C1", REPRODUCED if gap < CLAIMED_SAVING else REFUTED, by_model(rows, message), why, gist)


def _activations(rows: Rows, half: dict[str, Any], brain: dict[str, Any], full: dict[str, Any]) -> Finding:
    def message(model: str, format_: str) -> str:
        found = rows.result("memory", model, format_)
        if not found:
            return ""
        return (
            " / ".join(megabytes(found["phases"].get(p, 0)) for p in PHASES[1:])
            + f" → {megabytes(found['one'])} MB"
        )

    gap = brain["one"] / half["one"]
    gist = (
        f"Counted from live tensors, bfloat16 ÷ float16 = {gap:.4f}; claimed {CLAIMED_ACTIVATIONS:.2f}.",
        f"按活张量计，bfloat16 ÷ float16 = {gap:.4f}；所称为 {CLAIMED_ACTIVATIONS:.2f}。",
    )
    why = sentences(
        (
            "First / middle / last third of the denoiser / decoder → peak of all.",
            "去噪网络前 / 中 / 后三分之一 / 解码器 → 总峰值。",
        ),
        gist,
        _sum(half),
        _upcast(half, full) if gap >= CLAIMED_SAVING else ("", ""),
    )
    return Finding("C11", REPRODUCED if gap < CLAIMED_SAVING else REFUTED, by_model(rows, message), why, gist)


def _sum(half: dict[str, Any]) -> Words:
    """Whether the parts add up, as the claim has them do, or take turns."""
    parts = sum(half["phases"].get(p, 0) for p in PHASES[1:])
    told = megabytes(parts), megabytes(half["one"])
    if parts > half["one"]:
        return (
            f"The parts are {told[0]} MB together and the peak is {told[1]}: they take turns, so it is not their sum.",
            f"各部分相加为 {told[0]} MB，峰值却是 {told[1]} MB：它们轮流占用，峰值不是总和。",
        )
    return (
        f"The parts are {told[0]} MB together, the peak {told[1]}.",
        f"各部分相加为 {told[0]} MB，峰值 {told[1]} MB。",
    )


def _upcast(half: dict[str, Any], full: dict[str, Any]) -> Words:
    """What a program costs that runs the decoder of its float16 picture in float32, as some do."""
    ours, wide = half["phases"].get("decoder", 0), full.get("phases", {}).get("decoder", 0)
    if not ours or wide <= ours:
        return "", ""
    return (
        f"What does make a difference is decoding a float16 picture in float32: {megabytes(wide)} MB there instead of {megabytes(ours)}.",
        f"真会拉开差距的，是用 float32 给 float16 的画解码：该处 {megabytes(wide)} MB，而非 {megabytes(ours)} MB。",
    )


def _room(model: str, half: dict[str, Any], brain: dict[str, Any], full: dict[str, Any]) -> Finding:
    saved = total(half) - total(brain)
    from_full = megabytes(total(full) - total(brain)) if full else "–"
    lora, second = megabytes(brain["lora"]), megabytes(brain["two"] - brain["one"])
    told = f"float16 − bfloat16: {megabytes(saved)} MB · float32 − bfloat16: {from_full} MB · LoRA (r = {LORA_RANK}): {lora} MB · batch +1: {second} MB"
    why = (
        f"Against float16, bfloat16 saves {megabytes(saved)} MB: {_buys(saved, brain)[0]}. Against float32 it saves {from_full} MB.",
        f"相对 float16，bfloat16 省下 {megabytes(saved)} MB：{_buys(saved, brain)[1]}。相对 float32 省下 {from_full} MB。",
    )
    return Finding("C20", REPRODUCED if saved >= brain["lora"] else REFUTED, {model: {"": told}}, why, why)


def _buys(saved: int, brain: dict[str, Any]) -> Words:
    """What so many bytes are enough for."""
    lora, second = saved >= brain["lora"], saved >= brain["two"] - brain["one"]
    bought = [
        words
        for yes, words in ((lora, ("a LoRA", "一个 LoRA")), (second, ("a second picture", "第二幅画")))
        if yes
    ]
    if not bought:
        return "neither a LoRA nor a second picture", "既放不下一个 LoRA，也放不下第二幅画"
    return "enough for " + " or ".join(en for en, _ in bought), "够放" + "或".join(zh for _, zh in bought)

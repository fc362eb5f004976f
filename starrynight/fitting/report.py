"""The report of a fit: the curve as SVG, one scene in every format side by side, a table, and all numbers as JSON.

The question it answers: which of float8, GGUF's Q8, Q6, Q5, Q4 and the fit, at what cost in memory and in the picture.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from starrynight.fitting import curve, fit, formats, measure, table, write
from starrynight.fitting.blocks import INT8
from starrynight.fitting.fit import FitResult
from starrynight.fitting.formats import FLOAT8
from starrynight.folding.cache import CalibrationSample
from starrynight.i18n import Text, t
from starrynight.painting.offload import STEPPING
from starrynight.progress import OnProgress, ProgressCounter
from starrynight.storage import make_folder, storing, write_atomic

PAGE, CURVE, SCENE, NUMBERS = "report.md", "curve.svg", "scene.png", "fit.json"
# What the scene is painted in, the most bits first; the fit stands after float32.
SCENES = (FLOAT8, INT8, "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0")
CAPTION, GAP, COLUMNS, NARROWEST = 40, 8, 4, 200


@dataclass(frozen=True)
class Scene:
    """One scene with layers in one assignment. ``bytes`` of the denoiser's file; ``psnr`` of this picture, None of float32's."""

    name: str
    bytes: int
    psnr: float | None
    picture: Tensor

    @property
    def caption(self) -> tuple[str, str]:
        """Name and closeness; size of the file, and of the card beside a step's activations."""
        near = "" if self.psnr is None else f"  {self.psnr:.1f} dB"
        return f"{self.name}{near}", f"{size(self.bytes)} file, {size(self.bytes + STEPPING)} card"


def size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def write_report(result: FitResult, folder: Path, on_progress: OnProgress | None = None) -> None:
    """Write the report into a new folder. Raises StorageError."""
    with storing(folder):
        make_folder(folder)
    found = scenes(result, on_progress)
    spec, chosen = result.subject.model.spec, result.chosen
    title = Text(f"{spec.en}: {chosen.bits:.2f} bits a weight", f"{spec.zh}：每个权重 {chosen.bits:.2f} 位")
    note = Text(
        f"{len(result.formats)} layers; {chosen.bytes / 1e6:,.1f} MB, {chosen.predicted:.1f} dB predicted",
        f"{len(result.formats)} 层；{chosen.bytes / 1e6:,.1f} MB，预计 {chosen.predicted:.1f} dB",
    )
    files = {
        CURVE: curve.draw(result.curve, title, note, t).encode(),
        SCENE: sheet(found),
        PAGE: page(result, found, title).encode(),
        NUMBERS: json.dumps(numbers(result, found), indent=1, ensure_ascii=False).encode(),
    }
    for name, data in files.items():
        with storing(folder / name):
            write_atomic(folder / name, data, overwrite=True)


def scenes(result: FitResult, on_progress: OnProgress | None = None) -> list[Scene]:
    """The first held-out scene in float32, in the fit and in each of ``SCENES`` that differs."""
    subject, sample = result.subject, fit.held_out(result.subject.model, 1)[0]
    known = formats.references(subject.layout.signature, result.table.plain)
    assigned = {"fit": result.formats, **{name: known[name] for name in SCENES if name in known}}
    counter = ProgressCounter(on_progress, len(assigned) + 1)
    exact = subject.paint(sample)
    counter.advance(Text("one scene in every format", "各格式的同一场景"))
    whole = sum(write.bytes_of(shape, "F32") for shape in subject.layout.shapes.values())
    found = [Scene("float32", whole, None, exact)]
    for name, each in assigned.items():
        found.append(_scene(result, name, each, sample, exact))
        counter.advance(Text("one scene in every format", "各格式的同一场景"))
    return found


def _scene(
    result: FitResult, name: str, each: Mapping[str, str], sample: CalibrationSample, exact: Tensor
) -> Scene:
    with result.subject.stored_as(each, measure.rounded if name == "fit" else measure.published):
        picture = result.subject.paint(sample)
    error = float((picture - exact).square().mean())
    count = result.table.bytes(each) + write.fixed_bytes(result.subject.layout)
    return Scene(name, count, table.decibels(error), picture)


def sheet(found: list[Scene]) -> bytes:
    """The scenes side by side with captions, as PNG."""
    height, width = found[0].picture.shape[-2:]
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    step = max(width, NARROWEST) + GAP, height + CAPTION + GAP
    canvas = Image.new("RGB", (columns * step[0] + GAP, rows * step[1] + GAP), "#0b1026")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for number, scene in enumerate(found):
        x, y = GAP + number % columns * step[0], GAP + number // columns * step[1]
        pixels = (scene.picture[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        canvas.paste(Image.fromarray(pixels), (x, y))
        for line, words in enumerate(scene.caption):
            draw.text((x, y + height + 4 + 17 * line), words, fill="#f4c95d" if line == 0 else "#e8e6df", font=font)  # fmt: skip
    data = io.BytesIO()
    canvas.save(data, "PNG")
    return data.getvalue()


def page(result: FitResult, found: list[Scene], title: Text) -> str:
    """The report as Markdown, in both languages."""
    lines = [
        f"# {title.en} · {title.zh}\n",
        f"![curve]({CURVE})\n",
        "PSNR of pictures against float32, in dB; bits a weight and bytes of the layers whose format was chosen. "
        f"{result.pictures} held-out pictures were painted; “worst” is the least of them.\n",
        f"画面与 float32 相比的 PSNR（dB）；位数与字节只计可选格式的层。共画 {result.pictures} 幅未参与测量的画，“worst”为其中最低者。\n",
        "| formats | bits | MB | predicted | measured | worst |\n|---|--:|--:|--:|--:|--:|",
        *(_row(point) for point in (result.chosen, *sorted(result.curve[1:], key=lambda p: p.bits))),
        f"\n![one scene in every format]({SCENE})\n",
        "| format | file | card | this picture |\n|---|--:|--:|--:|",
        *(f"| {s.name} | {size(s.bytes)} | {size(s.bytes + STEPPING)} | {'' if s.psnr is None else f'{s.psnr:.1f} dB'} |" for s in found),
        f"\nCard: the denoiser and {size(STEPPING)} for a step; other components wait in the computer's memory.",
        f"显卡：去噪网络加上一步计算所需的 {size(STEPPING)}；其他部件在内存中等候。\n",
        "| layer | format |\n|---|---|",
        *(f"| {layer} | {kind} |" for layer, kind in result.formats.items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(point: fit.CurvePoint) -> str:
    numbers = ("" if v is None else f"{v:.1f}" for v in (point.predicted, point.measured, point.worst))
    return f"| {point.name} | {point.bits:.2f} | {point.bytes / 1e6:,.1f} | {' | '.join(numbers)} |"


def numbers(result: FitResult, found: list[Scene]) -> dict[str, Any]:
    """JSON values of everything in the report."""
    return {
        "model": result.subject.model.spec.name,
        "layers": dict(result.formats),
        "curve": [point.to_dict() for point in result.curve],
        "scene": [{"name": s.name, "bytes": s.bytes, "psnr": s.psnr} for s in found],
    }

"""What is written beside a picture that is shown elsewhere, in one language: its facts, verdict and recipe. Imports no torch."""

from __future__ import annotations

import json
from typing import Any

from starrynight.gallery.schema import Row
from starrynight.i18n import Text
from starrynight.metadata import OURS, Recipe
from starrynight.metadata.recipe import read_own
from starrynight.painting.styles import styles

DPI = 300
CM_PER_INCH = 2.54
KEPT = ("seed", "guidance", "strength")  # of a request, where 0 says something
UNTITLED = Text("Untitled", "无题")
VERDICTS = {
    "hang": Text("numbers checked at every stage", "每一阶段的数值都已检查"),
    "uniform": Text("one colour in every pixel", "每个像素都是同一种颜色"),
    "unchecked": Text("numbers not checked in full", "数值未全部检查"),
    "refuse": Text("refused by the guard", "被守卫拒绝"),
}
LABELS = {
    "style": Text("Style", "风格"), "model": Text("Model", "模型"), "precision": Text("Precision", "精度"),
    "seed": Text("Seed", "种子"), "steps": Text("Steps", "步数"), "guidance": Text("Guidance", "引导"),
    "sampler": Text("Sampler", "采样器"), "size": Text("Size", "画幅"), "negative": Text("Kept out", "不要出现"),
    "verdict": Text("Verdict", "查验"), "tool": Text("Made with", "作画工具"),
}  # fmt: skip


def title(row: Row, lang: str) -> str:
    return row.prompt.strip() or UNTITLED.to(lang)


def facts(row: Row, lang: str) -> list[tuple[str, str]]:
    """(name, value) of what is known of a picture."""
    known = styles().get(row.style or "")
    values = {
        "style": known.name[lang] if known else row.style,
        "model": row.model,
        "precision": row.precision,
        "seed": row.seed,
        "steps": row.steps,
        "guidance": None if row.guidance is None else f"{row.guidance:g}",
        "sampler": row.sampler,
        "size": f"{row.width} × {row.height}",
        "negative": row.negative_prompt,
        "verdict": VERDICTS[row.verdict].to(lang) if row.tool == OURS and row.verdict in VERDICTS else None,
        "tool": row.tool,
    }
    return [(LABELS[name].to(lang), str(value)) for name, value in values.items() if value not in (None, "")]


def recipe_of(row: Row, stored: dict[str, Any]) -> Recipe:
    """The recipe of a picture from what the gallery keeps of it; of another tool's, what this program reads of it."""
    return read_own(stored) or Recipe(
        tool=row.tool, prompt=row.prompt, negative_prompt=row.negative_prompt, seed=row.seed
    )


def request_text(recipe: Recipe) -> str:
    """The request that paints the picture again, as compact JSON without what is empty: what the QR code of a print holds."""
    said = {name: value for name, value in recipe.request().items() if value or name in KEPT}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def line(row: Row, lang: str) -> str:
    """Style, model and seed, in one line."""
    known = styles().get(row.style or "")
    seed = None if row.seed is None else f"{LABELS['seed'].to(lang).lower()} {row.seed}"
    return " · ".join(one for one in (known.name[lang] if known else row.style, row.model, seed) if one)


def print_size(width: int, height: int, dpi: int = DPI) -> tuple[float, float]:
    """Width and height in centimetres of so many pixels in print."""
    return width / dpi * CM_PER_INCH, height / dpi * CM_PER_INCH

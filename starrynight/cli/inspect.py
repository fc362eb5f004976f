"""``starry inspect``: the recipe in a picture's file, whichever tool wrote it, and the command that paints it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from starrynight.cli.terminal import app, help_page
from starrynight.i18n import t
from starrynight.settings import settings
from starrynight.text import excerpt, printed_json, without_bidi
from starrynight.verdict import OUTCOME_NAMES, Verdict, Verified, reasons_in

HELP = help_page(
    (
        "Read the recipe in a picture: ours, or another tool's (A1111, ComfyUI, SwarmUI and more).",
        "读出图片里的配方：本工具的，以及 A1111、ComfyUI 等其他工具的。",
    ),
    "starry inspect night.png",
    "starry inspect night.png --json | jq .seed",
    ('sh -c "$(starry inspect night.png --command)"', "paints it again", "再画一遍"),
)


@app.command(help=HELP)
def inspect(
    file: Path = typer.Argument(
        help=t(
            "A picture: PNG, JPEG, WebP, AVIF, TIFF, GIF, BMP …",
            "图片：PNG、JPEG、WebP、AVIF、TIFF、GIF、BMP 等。",
        )
    ),
    as_json: bool = typer.Option(
        False, "--json", help=t("Print everything as JSON.", "以 JSON 输出全部内容。")
    ),
    command: bool = typer.Option(
        False, "--command", help=t("Only the command that paints it again.", "只输出重画它的命令。")
    ),
) -> None:
    from starrynight.metadata import read_recipe

    recipe = read_recipe(file)
    if command:
        print(recipe.command())
    elif as_json:
        print(printed_json(recipe.raw))
    else:
        _print_facts(facts(recipe), recipe.command() if recipe.prompt else "")


def facts(recipe: Any) -> list[tuple[str, str]]:
    """(label, value) of every entry that the recipe has, in reading order."""
    size = f"{recipe.width}×{recipe.height}" if recipe.width and recipe.height else None
    loras = ", ".join(f"{name} × {weight:g}" for name, weight in recipe.loras)
    seed = recipe.seed
    if recipe.effective_seed != seed:
        seed = f"{seed}{t(f' (torch uses {recipe.effective_seed})', f'（torch 实际使用 {recipe.effective_seed}）')}"
    rows = [
        (t("painted by", "工具"), recipe.tool),
        (t("prompt", "提示词"), recipe.prompt),
        (t("negative", "负面提示词"), recipe.negative_prompt),
        (t("seed", "种子"), seed),
        (t("size", "尺寸"), size),
        (t("steps", "步数"), recipe.steps),
        (t("guidance", "引导强度"), recipe.guidance),
        (t("sampler", "采样器"), recipe.sampler),
        (t("model", "模型"), recipe.model),
        ("LoRA", loras),
        *((t("left", "未采用"), line.to(settings().lang)) for line in recipe.left),
    ]
    return [
        (label, str(value)) for label, value in [*rows, *_our_facts(recipe.raw)] if value not in (None, "")
    ]


def _our_facts(raw: dict[str, Any]) -> list[tuple[str, str]]:
    """What only our own recipes hold: each component's number format with the reason, and the verdict."""
    if "starry_night" not in raw:
        return []
    plan, verdict = (
        value if isinstance(value := raw.get(name), dict) else {} for name in ("plan", "verdict")
    )
    lang = t("reason_en", "reason_zh")
    rows = [
        (
            f"{t('precision', '精度')} · {component}",
            f"{choice.get('format')}{t(': ', '：')}{choice.get(lang, '')}",
        )
        for component, choice in plan.items()
        if isinstance(choice, dict)
    ]
    rows += _stored(raw.get("model"), plan)
    rows += _fitted(raw.get("model"))
    rows += _tensors(raw.get("model"))
    outcome = str(verdict.get("outcome"))
    name = t(*OUTCOME_NAMES[outcome]) if outcome in OUTCOME_NAMES else outcome
    reasons = "; ".join(reasons_in(verdict, settings().lang))
    rows.append((t("verdict", "检查"), name + (f" ({reasons})" if reasons else "")))
    rows += _fits(raw) + _embeddings(raw)
    return [
        *rows,
        *((t("recovered", "修复"), line) for line in _recoveries(verdict)),
        *_clamped(verdict),
        *_verified(verdict),
    ]


def _stored(model: object, plan: dict[str, Any]) -> list[tuple[str, str]]:
    """How each component's weights are stored, and what it computed in: "GGUF Q4_K, computed in bfloat16"."""
    found = model.get("stored") if isinstance(model, dict) else None
    if not isinstance(found, dict):
        return []
    rows = []
    for name, stored in found.items():
        role = "vae_decode" if name == "vae" else "text_encoder" if name.startswith("text_encoder") else name
        choice = plan.get(role)
        computed = choice.get("format") if isinstance(choice, dict) else None
        computing = t(f", computed in {computed}", f"，以 {computed} 计算") if computed else ""
        if isinstance(choice, dict) and choice.get("kept"):
            computing += t(", kept packed in memory", "，在内存中保持原格式")
        rows.append((f"{t('weights', '权重')} · {name}", f"{stored}{computing}"))
    return rows


def _fitted(model: object) -> list[tuple[str, str]]:
    """How ``starry fit`` stored a component; nothing from a file of another shape."""
    from starrynight.models import fitted

    found = model.get("fitted") if isinstance(model, dict) else None
    notes = {name: fitted.of_entries(entries) for name, entries in found.items()} if isinstance(found, dict) else {}  # fmt: skip
    return [(f"{t('fit', '适配')} · {name}", t(*note.message)) for name, note in notes.items() if note]


def _tensors(model: object) -> list[tuple[str, str]]:
    """How many tensors of the model's files were used, by component or file; nothing from a file of another shape."""
    found = model.get("tensors") if isinstance(model, dict) else None
    if not isinstance(found, dict):
        return []
    counts = [
        (f"{t('tensors', '张量')} · {name}", entry["used"], entry["of"], entry.get("kept"))
        for name, entry in found.items()
        if isinstance(entry, dict) and {"used", "of"} <= entry.keys()
    ]
    return [
        (label, t(f"{used} of {total} used", f"使用 {used}/{total}") + (t(f", {kept} kept packed", f"，{kept} 个保持原格式") if kept else ""))
        for label, used, total, kept in counts
    ]  # fmt: skip


def _fits(raw: dict[str, Any]) -> list[tuple[str, str]]:
    """How many layers of each LoRA fitted; none if the file does not hold them in our form."""
    from starrynight.models.fit import fit_message

    try:
        return [("LoRA", t(*fit_message(fit))) for fit in raw.get("loras") or ()]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _embeddings(raw: dict[str, Any]) -> list[tuple[str, str]]:
    """The textual inversions that were applied; none if the file does not hold them in our form."""
    found = raw.get("embeddings")
    return [
        (t("embedding", "嵌入词"), t(f"{excerpt(one['name'])} ({one['vectors']} vectors)", f"{excerpt(one['name'])}（{one['vectors']} 个向量）"))
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, dict) and {"name", "vectors"} <= one.keys() and isinstance(one["vectors"], int)
    ]  # fmt: skip


def _recoveries(verdict: dict[str, Any]) -> list[str]:
    """The recovered faults; none if the file does not hold a verdict in our form."""
    try:
        return Verdict.from_dict(verdict).recoveries(t("en", "zh"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _verified(verdict: dict[str, Any]) -> list[tuple[str, str]]:
    found = verdict.get("verified")
    if not isinstance(found, dict) or not isinstance(found.get("format"), str):
        return []
    error = found.get("error")
    one = Verified(excerpt(found["format"]), float(error) if isinstance(error, int | float) else None)
    return [(t("verified", "验证"), t(one.message("en"), one.message("zh")))]


def _clamped(verdict: dict[str, Any]) -> list[tuple[str, str]]:
    clamps = verdict.get("clamps")
    if not isinstance(clamps, dict):
        return []
    counts = ", ".join(f"{place}: {count}" for place, count in clamps.items())
    return [(t("clamped", "截断"), counts or t("nothing", "没有"))]


def _print_facts(rows: list[tuple[str, str]], command: str) -> None:
    """Print a table, then the command on a line of its own, so that it can be copied."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="gold1", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(
            label, Text(without_bidi(value))
        )  # Text, because a prompt may contain [brackets], which are rich's markup
    console.print(table)
    if command:
        console.print(f"\n[gold1]{t('Paint it again', '再画一遍')}[/]")
        print(command)

"""The report as one self-contained page in Chinese and English: it loads nothing and works from a folder or a mail.

page.html is the frame, page.css its style, page.js its interaction; this file fills in texts, charts and pictures. Text
from outside is escaped; the pictures travel as JSON that the page reads as text.
"""

from __future__ import annotations

import base64
import io
import json
import time
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from starrynight.i18n import Text
from starrynight.lab import metrics, table
from starrynight.lab.experiments.weights import decibels
from starrynight.lab.findings import OUTCOMES, Rows, name_of, name_zh
from starrynight.lab.plan import BY_ID, COMPARISONS, FORMATS, PROMPTS, REFERENCE, ExperimentPlan
from starrynight.lab.report.plots import Plot, plots
from starrynight.lab.run import ExperimentRun
from starrynight.lab.summary import SOURCE, Summary, summary
from starrynight.text import finite

# outcome → its class in page.css
OUTCOME_CLASSES = {
    "reproduced": "yes", "not reproduced": "no", "needs hardware": "wait",
    "undecided": "few", "measured": "neutral",
}  # fmt: skip
FORMAT_NOTES = {
    "float32": Text("the reference", "参照"),
    "float16": Text("10 fraction bits, ends at 65504", "10 位尾数，上限 65504"),
    "float16-folded": Text("float16 after exact powers of two", "经 2 的幂精确折叠的 float16"),
    "bfloat16": Text("7 fraction bits, ends at 3.4e38", "7 位尾数，上限 3.4e38"),
    "float8": Text(
        "e4m3: 3 fraction bits, ends at 448; denoiser only", "e4m3：3 位尾数，上限 448；仅去噪网络"
    ),
    "int8": Text(
        "whole numbers, one scale a token and a row; the denoiser's linear layers",
        "整数，每个词元、每行各一个缩放；仅去噪网络的线性层",
    ),
}
COLUMN_HEADS = (
    '<div class="heads" aria-hidden="true"><span></span><span></span><span class="f-float16">float16</span>'
    '<span class="f-bfloat16">bfloat16</span><span></span></div>'
)
CARD = 192  # pixels a side of the copies that only stand beside each other
LARGEST = 384  # pixels a side of the report's copies; the run keeps the PNGs
AMPLIFIED = 16  # the factor by which the difference view is brightened: one level of 256 is invisible
QUALITY = 88  # of the WebP copies
BUDGET = 4_800_000  # bytes a report may have, so that it can be mailed
# Colours of the error map, from night to gold with even lightness.
HEAT_STOPS = np.array(
    [[7, 10, 28], [38, 34, 98], [116, 52, 120], [206, 92, 84], [246, 168, 72], [255, 240, 190]], np.float32
)


def page(run: ExperimentRun) -> str:
    """The whole page as HTML text."""
    here = files("starrynight.lab.report")
    frame = here.joinpath("page.html").read_text("utf-8")
    answer = summary(run)
    parts = {
        "style": here.joinpath("page.css").read_text("utf-8"),
        "script": here.joinpath("page.js").read_text("utf-8"),
        "answer": _answer(answer),
        "pair": "" if answer.pair is None else _two(answer.pair),
        "source": both(*SOURCE),
        "setting": _setup(run),
        "score": _tally(run),
        "formats": _formats(run),
        "claims": _claims(run),
        "cards": _cards(run),
        "plots": "".join(map(_plot, plots(Rows(run)))),
        "again": _reproduce(run),
        "amplified": str(AMPLIFIED),
    }
    rest = sum(len(text.encode()) for text in (frame, *parts.values()))
    shown = [one.to_dict() for one in comparisons(run, BUDGET - rest)]
    parts["scenes"] = json.dumps(finite(shown), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    for name, text in parts.items():
        frame = frame.replace(f"<!--{name}-->", text)
    return frame


def both(en: str, zh: str) -> str:
    """A text in both languages as HTML; the page shows one of them."""
    if en == zh:
        return escape(en)
    return f'<span lang="en">{escape(en)}</span><span lang="zh">{escape(zh)}</span>'


def _answer(answer: Summary) -> str:
    """Which format to use, then what it costs."""
    more = "".join(f"<p>{both(*part)}</p>" for part in (answer.cost, answer.card) if part.en)
    return f'<p class="use">{both(*answer.use)}</p>{more}'


def _two(pair: tuple[dict[str, Any], dict[str, Any]]) -> str:
    """The pair of pictures of the answer, side by side."""
    figures = []
    for picture in pair:
        if (pixels := _read(picture["path"])) is None:
            return ""
        name = escape(f"{picture['text']}, {picture['format']}")
        caption = f"<b>{picture['format']}</b> {both(*FORMAT_NOTES[picture['format']])}"
        figures.append(
            f'<figure><img src="{uri(pixels)}" alt="{name}"><figcaption>{caption}</figcaption></figure>'
        )
    return f'<div class="two">{"".join(figures)}</div>'


def _setup(run: ExperimentRun) -> str:
    machine, rows = run.machine(), run.rows.values()
    day = time.strftime("%Y-%m-%d", time.gmtime(max((row["at"] for row in rows), default=0)))
    versions = machine.get("versions", {})
    count = len({(p["model"], p["prompt"], p["seed"]) for p in table.pictures(run)})
    models_en, models_zh = ", ".join(map(name_of, run.plan.models)), "、".join(map(name_zh, run.plan.models))
    where = f"{machine.get('name', '')} · torch {versions.get('torch', '?')} · {day}"
    return both(
        f"{models_en} · {count} sets of pictures, {len(rows)} measurements · {where}",
        f"{models_zh} · {count} 组画，{len(rows)} 次测量 · {where}",
    )


def _tally(run: ExperimentRun) -> str:
    found = table.outcomes(run)
    return "".join(
        f'<li class="{OUTCOME_CLASSES[name]}"><b>{found[name]}</b> {both(*words)}</li>'
        for name, words in OUTCOMES.items()
        if name in found
    )


def _formats(run: ExperimentRun) -> str:
    machine = run.machine()
    items = []
    for format_ in run.plan.formats:
        en, zh = FORMAT_NOTES[format_]
        if table.emulated(format_, machine):
            en, zh = f"{en}; emulated as a GPU computes", f"{zh}；按 GPU 的算法模拟"
        items.append(f'<li class="f-{format_}"><i></i><b>{format_}</b> {both(en, zh)}</li>')
    return "".join(items)


def _claims(run: ExperimentRun) -> str:
    rows = table.table(run)
    others = [i for i in BY_ID if i.startswith("C") and i not in COMPARISONS]
    groups = {
        Text("The eleven comparisons", "十一项对比"): COMPARISONS,
        Text("The other claims", "其余论断"): others,
        Text("Besides the claims", "论断之外"): [i for i in BY_ID if i.startswith("X")],
    }
    parts = []
    for title, ids in groups.items():
        if found := [_claim(row, run.plan.models[0]) for row in rows if row["id"] in ids]:
            parts += [f"<h3>{both(*title)}</h3>{COLUMN_HEADS}", *found]
    nothing = both("Nothing has been measured yet.", "还没有测量结果。")
    return "".join(parts) or f'<p class="empty">{nothing}</p>'


def _claim(row: dict[str, Any], main: str) -> str:
    """A row that opens: claimed and measured figures side by side, and the answer in one line under the title;
    inside, every figure and the explanation.
    """
    summary = f"<small>{both(**row['gist'])}</small>" if row["gist"]["en"] else ""
    outcome = OUTCOME_CLASSES[row["outcome"]]
    by_model: dict[str, dict[str, str]] = row["figures"]
    main_figures = by_model.get(main) or by_model.get("") or next(iter(by_model.values()), {})
    cells = "".join(
        _cell(f, {lang: figures[f] for lang, figures in row["claimed"].items()}, main_figures.get(f, ""))
        for f in ("float16", "bfloat16")
    )
    if set(main_figures) == {""}:
        cells = f'<span class="cell whole"><em class="measured">{escape(main_figures[""])}</em></span>'
    return (
        f'<details class="claim {outcome}" id="{row["id"]}"><summary><span class="id">{row["id"]}</span>'
        f'<span class="title">{both(**row["title"])}{summary}</span>{cells}'
        f'<span class="verdict">{both(**row["verdict"])}</span></summary>'
        f'<div class="inside">{_figures(by_model)}<p>{both(**row["why"])}</p></div></details>'
    )


def _cell(format_: str, claimed: dict[str, str], measured: str) -> str:
    published = f'<s class="claimed" title="claimed 所称">{both(**claimed)}</s>' if claimed["en"] else ""
    return f'<span class="cell f-{format_}"><small>{format_}</small>{published}<em class="measured">{escape(measured or "–")}</em></span>'


def _figures(figures: dict[str, dict[str, str]]) -> str:
    blocks = []
    for model, by_format in figures.items():
        lines = "".join(
            f'<tr class="f-{f or "none"}"><th>{"<i></i>" + f if f else ""}</th><td>{escape(text)}</td></tr>'
            for f, text in by_format.items()
        )
        caption = f"<caption>{both(name_of(model), name_zh(model))}</caption>" if model else ""
        blocks.append(f"<table>{caption}{lines}</table>")
    return f'<div class="figures">{"".join(blocks)}</div>'


def _cards(run: ExperimentRun) -> str:
    """The first scene with the weights in each format, the fewest bits first, and what it takes; for the first model that has it."""
    for model in run.plan.models:
        found = Rows(run).result("weights", model, "").get("formats", [])
        items = [_stored(run, model, one) for one in sorted(found, key=lambda one: one["bits"])]
        if any(items):
            title = both("One scene in each format of the weights", "各种权重格式下的同一场景")
            return f'<h3>{title}</h3><div class="cards">{"".join(items)}</div>'
    return ""


def _stored(run: ExperimentRun, model: str, one: dict[str, Any]) -> str:
    if (pixels := _read(run.picture(model, one["name"], 0, 0))) is None:
        return ""
    near = "" if one["psnr"] is None else f" · {decibels(one)}"
    size = f"{one['bits']:.2f} bits · {one['bytes'] / 1e6:,.1f} MB"
    caption = f"<b>{escape(one['name'])}</b>{near}<br>{size}"
    return f'<figure><img src="{uri(pixels, CARD)}" alt="{escape(one["name"])}"><figcaption>{caption}</figcaption></figure>'


def _plot(plot: Plot) -> str:
    legend = "".join(f'<li class="f-{f}"><i></i>{f}</li>' for f in plot.formats)
    return (
        f'<figure><figcaption><h3>{both(*plot.title)}</h3><ul class="legend">{legend}</ul></figcaption>'
        f'<div class="chart">{plot.svg}</div><p>{both(*plot.caption)}</p></figure>'
    )


def _reproduce(run: ExperimentRun) -> str:
    machine = run.machine()
    facts = ", ".join(f"{k} {v}" for k, v in machine.get("versions", {}).items())
    title = both("The run's plan and machine:", "本次实验的设定与机器：")
    return (
        f"<pre><code>{escape(command(run))}\nstarry lab report my-run</code></pre>"
        f"<p>{title}</p>"
        f"<pre><code>{escape(json.dumps(run.plan.to_dict(), ensure_ascii=False, allow_nan=False))}\n"
        f"{escape(str(machine.get('name', '')))}, {machine.get('threads', '?')} threads, {escape(str(machine.get('system', '')))}, {escape(facts)}</code></pre>"
    )


def command(run: ExperimentRun) -> str:
    """The command line for the same run, without options that have their default value."""
    plan, default = run.plan, ExperimentPlan()
    options = [f"--model {m}" for m in plan.models if "/" not in m] if plan.models != default.models else []
    options += [f"--formats {','.join(plan.formats)}"] if plan.formats != default.formats else []
    options += [f"--claims {','.join(plan.claims)}"] if plan.claims else []
    options += [f"--prompts {plan.prompts} --seeds {plan.seeds} --pictures {plan.counted}"]
    options += [f"--{n} {v}" for n, v in (("size", plan.size), ("steps", plan.steps)) if v is not None]
    quick = "--quick " if plan.noise_steps < default.noise_steps else ""
    return f"starry lab run {quick}{' '.join(options)} -o my-run"


# -- pictures --------------------------------------------------------------------------------------------------------


@dataclass
class FormatComparison:
    """One prompt of one model in all formats. ``views``: format → {"picture", "difference", "flip"} or {"refused"}; the
    pictures are data URIs.
    """

    model: str
    prompt: int
    views: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        text, style = PROMPTS[self.prompt]
        return {
            "model": Text(name_of(self.model), name_zh(self.model))._asdict(),
            "text": text,
            "style": style,
            "views": {f: self.views[f] for f in FORMATS if f in self.views},
        }

    @property
    def bytes(self) -> int:
        return sum(len(str(value)) for view in self.views.values() for value in view.values())


def comparisons(run: ExperimentRun, budget: int) -> list[FormatComparison]:
    """The first picture of every prompt, the models taking turns, as many as fit into ``budget`` bytes."""
    found: list[FormatComparison] = []
    every = [p for p in table.pictures(run) if p["seed"] == 0]
    paths = {(p["model"], p["prompt"], p["format"]): p["path"] for p in every}
    spent, order = 0, run.plan.models.index
    keys = {(p["prompt"], p["model"]) for p in every}
    for prompt, model in sorted(keys, key=lambda key: (key[0], order(key[1]))):
        one = FormatComparison(model, prompt)
        reference = _read(paths.get((model, prompt, REFERENCE)))
        for picture in every:
            if (picture["model"], picture["prompt"]) == (model, prompt):
                one.views[picture["format"]] = _views(picture, reference)
        spent += one.bytes
        if spent > budget and found:
            break
        found.append(one)
    return sorted(found, key=lambda one: (order(one.model), one.prompt))


def _views(picture: dict[str, Any], reference: np.ndarray | None) -> dict[str, Any]:
    pixels = _read(picture["path"])
    if pixels is None:
        missing = {"en": "The picture's file is missing.", "zh": "图片文件缺失。"}
        return {"refused": picture["refused"] or missing}
    views: dict[str, Any] = {"picture": uri(pixels)}
    if reference is not None and picture["format"] != REFERENCE and reference.shape == pixels.shape:
        a, b = reference.astype(np.float32) / 255, pixels.astype(np.float32) / 255
        views["difference"] = uri(metrics.eight_bits(np.abs(a - b) * AMPLIFIED))
        views["flip"] = uri(heat(metrics.flip(a, b)[1]))
    return views


def _read(path: Path | None) -> np.ndarray | None:
    if path is None or not path.is_file():
        return None
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def uri(pixels: np.ndarray, side: int = LARGEST) -> str:
    """A small WebP copy as a data URI, its longer side at most ``side``."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def heat(error: np.ndarray) -> np.ndarray:
    """A FLIP map in 0…1 as colours, uint8 [H, W, 3]; by its square root, since most errors are small."""
    at = np.sqrt(np.clip(error, 0, 1)) * (len(HEAT_STOPS) - 1)
    low = np.minimum(at.astype(int), len(HEAT_STOPS) - 2)
    share = (at - low)[..., None]
    return np.rint(HEAT_STOPS[low] * (1 - share) + HEAT_STOPS[low + 1] * share).astype(np.uint8)

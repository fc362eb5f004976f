"""One self-contained page: no request leaves it, it works from a folder or a mail, in Chinese and English.

The frame is page.html, its looks page.css, its few motions page.js; this file fills in the words. Every text that came
from outside is escaped; the pictures travel as JSON that the page reads as text.
"""

from __future__ import annotations

import json
import time
from html import escape
from importlib.resources import files
from typing import Any

from starrynight.lab import table
from starrynight.lab.claims import COMPARISONS
from starrynight.lab.findings import OUTCOMES, Rows, name_of, name_zh
from starrynight.lab.plan import ExperimentPlan
from starrynight.lab.report.pictures import AMPLIFIED, scenes
from starrynight.lab.report.plots import Plot, plots
from starrynight.lab.run import ExperimentRun

SLUGS = {
    "reproduced": "yes",
    "not reproduced": "no",
    "needs hardware": "wait",
    "undecided": "few",
    "measured": "told",
}
NOTES = {
    "float32": ("the reference", "参照"),
    "float16": ("10 fraction bits, ends at 65504", "10 位尾数，上限 65504"),
    "float16-folded": ("float16 after exact powers of two", "经 2 的幂精确折叠的 float16"),
    "bfloat16": ("7 fraction bits, ends at 3.4e38", "7 位尾数，上限 3.4e38"),
    "float8": ("e4m3: 3 fraction bits, ends at 448; denoiser only", "e4m3：3 位尾数，上限 448；仅去噪网络"),
}

HEADS = (
    '<div class="heads" aria-hidden="true"><span></span><span></span><span class="f-float16">float16</span>'
    '<span class="f-bfloat16">bfloat16</span><span></span></div>'
)


def page(run: ExperimentRun) -> str:
    here = files("starrynight.lab.report")
    frame = here.joinpath("page.html").read_text("utf-8")
    shown = [scene.to_dict() for scene in scenes(run)]
    parts = {
        "style": here.joinpath("page.css").read_text("utf-8"),
        "script": here.joinpath("page.js").read_text("utf-8"),
        "scenes": json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c"),
        "setting": _setting(run),
        "score": _score(run),
        "formats": _formats(run),
        "claims": _claims(run),
        "plots": "".join(map(_plot, plots(Rows(run)))),
        "again": _again(run),
        "amplified": str(AMPLIFIED),
    }
    for name, text in parts.items():
        frame = frame.replace(f"<!--{name}-->", text)
    return frame


def both(en: str, zh: str) -> str:
    """A text in both languages, of which the page shows one."""
    if en == zh:
        return escape(en)
    return f'<span lang="en">{escape(en)}</span><span lang="zh">{escape(zh)}</span>'


def _setting(run: ExperimentRun) -> str:
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


def _score(run: ExperimentRun) -> str:
    found = table.outcomes(run)
    return "".join(
        f'<li class="{SLUGS[name]}"><b>{found[name]}</b> {both(*words)}</li>'
        for name, words in OUTCOMES.items()
        if name in found
    )


def _formats(run: ExperimentRun) -> str:
    machine = run.machine()
    items = []
    for format_ in run.plan.formats:
        en, zh = NOTES[format_]
        if table.emulated(format_, machine):
            en, zh = f"{en}; emulated as a GPU computes", f"{zh}；按 GPU 的算法模拟"
        items.append(f'<li class="f-{format_}"><i></i><b>{format_}</b> {both(en, zh)}</li>')
    return "".join(items)


def _claims(run: ExperimentRun) -> str:
    rows = table.table(run)
    groups = (
        (("The eleven comparisons", "十一项对比"), [r for r in rows if r["id"] in COMPARISONS]),
        (
            ("The other claims", "其余论断"),
            [r for r in rows if r["id"].startswith("C") and r["id"] not in COMPARISONS],
        ),
        (("Besides the claims", "论断之外"), [r for r in rows if r["id"].startswith("X")]),
    )
    main = run.plan.models[0]
    return (
        "".join(
            f"<h3>{both(*title)}</h3>{HEADS}" + "".join(_claim(row, main) for row in found)
            for title, found in groups
            if found
        )
        or f'<p class="empty">{both("Nothing has been measured yet.", "还没有测量结果。")}</p>'
    )


def _claim(row: dict[str, Any], main: str) -> str:
    """A line of the table that opens: claimed and measured side by side, then every figure and the cause."""
    slug = SLUGS[row["outcome"]]
    mine: dict[str, str] = (
        row["figures"].get(main) or row["figures"].get("") or next(iter(row["figures"].values()), {})
    )
    cells = "".join(
        _cell(f, (row["claimed"]["en"][f], row["claimed"]["zh"][f]), mine.get(f, ""))
        for f in ("float16", "bfloat16")
    )
    if set(mine) == {""}:
        cells = f'<span class="cell whole"><em class="measured">{escape(mine[""])}</em></span>'
    return (
        f'<details class="claim {slug}" id="{row["id"]}"><summary><span class="id">{row["id"]}</span>'
        f'<span class="title">{both(row["title"]["en"], row["title"]["zh"])}{_gist(row)}</span>{cells}'
        f'<span class="verdict">{both(row["verdict"]["en"], row["verdict"]["zh"])}</span></summary>'
        f'<div class="inside">{_figures(row["figures"])}<p>{both(row["why"]["en"], row["why"]["zh"])}</p></div></details>'
    )


def _gist(row: dict[str, Any]) -> str:
    """The answer in a line, under the claim: what a reader takes away who opens nothing."""
    return f"<small>{both(row['gist']['en'], row['gist']['zh'])}</small>" if row["gist"]["en"] else ""


def _cell(format_: str, claimed: tuple[str, str], measured: str) -> str:
    said = f'<s class="claimed" title="claimed 所称">{both(*claimed)}</s>' if claimed[0] else ""
    return f'<span class="cell f-{format_}"><small>{format_}</small>{said}<em class="measured">{escape(measured or "–")}</em></span>'


def _figures(figures: dict[str, dict[str, str]]) -> str:
    blocks = []
    for model, told in figures.items():
        lines = "".join(
            f'<tr class="f-{f or "none"}"><th>{"<i></i>" + f if f else ""}</th><td>{escape(text)}</td></tr>'
            for f, text in told.items()
        )
        caption = f"<caption>{both(name_of(model), name_zh(model))}</caption>" if model else ""
        blocks.append(f"<table>{caption}{lines}</table>")
    return f'<div class="figures">{"".join(blocks)}</div>'


def _plot(plot: Plot) -> str:
    legend = "".join(f'<li class="f-{f}"><i></i>{f}</li>' for f in plot.formats)
    return (
        f'<figure><figcaption><h3>{both(*plot.title)}</h3><ul class="legend">{legend}</ul></figcaption>'
        f'<div class="chart">{plot.svg}</div><p>{both(*plot.caption)}</p></figure>'
    )


def _again(run: ExperimentRun) -> str:
    machine = run.machine()
    facts = ", ".join(f"{k} {v}" for k, v in machine.get("versions", {}).items())
    return (
        f"<pre><code>{escape(command(run))}\nstarry lab report my-run</code></pre>"
        f"<p>{both('What this run asked for, and where it ran:', '本次实验的设定与机器：')}</p>"
        f"<pre><code>{escape(json.dumps(run.plan.to_dict(), ensure_ascii=False))}\n"
        f"{escape(str(machine.get('name', '')))}, {machine.get('threads', '?')} threads, {escape(str(machine.get('system', '')))}, {escape(facts)}</code></pre>"
    )


def command(run: ExperimentRun) -> str:
    """What to type for the same run; what the command line leaves as it is, is left out."""
    plan, usual = run.plan, ExperimentPlan()
    words = [f"--model {m}" for m in plan.models if "/" not in m] if plan.models != usual.models else []
    words += [f"--formats {','.join(plan.formats)}"] if plan.formats != usual.formats else []
    words += [f"--claims {','.join(plan.claims)}"] if plan.claims else []
    words += [f"--prompts {plan.prompts} --seeds {plan.seeds} --pictures {plan.counted}"]
    words += [f"--{n} {v}" for n, v in (("size", plan.size), ("steps", plan.steps)) if v is not None]
    quick = "--quick " if plan.noise_steps < usual.noise_steps else ""
    return f"starry lab run {quick}{' '.join(words)} -o my-run"

"""The report of a run: one self-contained HTML page, Markdown for a README, JSON for programs. It is rebuilt from the
run's folder alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from starrynight.lab import table
from starrynight.lab.findings import name_of, name_zh
from starrynight.lab.run import RESULTS, ExperimentRun, plain
from starrynight.lab.summary import SOURCE, summary

PAGE = "report.html"
MARKS = {"reproduced": "✓", "not reproduced": "✗", "needs hardware": "◌", "undecided": "?", "measured": "·"}
HEADS = {
    "zh": ("编号", "论断", "所称 float16", "所称 bfloat16", "实测", "结论"),
    "en": ("id", "claim", "claimed float16", "claimed bfloat16", "measured", "verdict"),
}


def latest(run: ExperimentRun) -> Path:
    """The path of the HTML page; the report is rebuilt first if there are newer results."""
    page, results = run.folder / PAGE, run.folder / RESULTS
    if not page.is_file() or (results.is_file() and results.stat().st_mtime > page.stat().st_mtime):
        write(run)
    return page


def write(run: ExperimentRun) -> None:
    """Write report.html, report.md and report.json into the run's folder. Raises StorageError."""
    from starrynight.lab.report import html  # imports Pillow and scikit-image

    run.write("report.md", markdown(run))
    run.write("report.json", json.dumps(plain(as_data(run)), ensure_ascii=False, indent=1, allow_nan=False))
    run.write(PAGE, html.page(run))  # last: its time says that all three are up to date


def as_data(run: ExperimentRun) -> dict[str, Any]:
    """The answer, the plan, the machine, the verdicts and every row."""
    rows = [{k: v for k, v in row.items() if k != "key"} for row in run.rows.values()]
    answer = summary(run)
    said = {"use": answer.use._asdict(), "cost": answer.cost._asdict(), "card": answer.card._asdict(), "claims": SOURCE._asdict()}  # fmt: skip
    return {
        "answer": said,
        "plan": run.plan.to_dict(),
        "machine": run.machine(),
        "table": table.table(run),
        "rows": rows,
    }


def markdown(run: ExperimentRun) -> str:
    """The table for a README, Chinese first and English below, each with where and how it was measured."""
    rows, answer = table.table(run), summary(run)
    zh, en = (" ".join(part.to(lang) for part in (answer.use, answer.cost, answer.card)).strip() for lang in ("zh", "en"))  # fmt: skip
    return "\n".join([
        "# 精度实验室 · The precision lab", "", zh, "", en, "",
        SOURCE.zh, "", _setting(run, "zh"), "", *_table(rows, "zh"), "",
        SOURCE.en, "", _setting(run, "en"), "", *_table(rows, "en"), "",
    ])  # fmt: skip


def _setting(run: ExperimentRun, lang: str) -> str:
    machine, plan = run.machine(), run.plan
    count = len({(p["model"], p["prompt"], p["seed"]) for p in table.pictures(run)})
    emulated = [f for f in plan.formats if table.emulated(f, machine)]
    where = f"{machine.get('name', '?')} · torch {machine.get('versions', {}).get('torch', '?')}"
    if lang == "zh":
        names = "、".join(map(name_zh, plan.models))
        note = f"按 GPU 的算法模拟：{'、'.join(emulated)}。" if emulated else ""
        return f"参照为 float32，同一种子。{names}，{count} 组画；{where}。{note}"
    names = ", ".join(map(name_of, plan.models))
    note = f" Emulated as a GPU computes: {', '.join(emulated)}." if emulated else ""
    return f"Against float32 with the same seed. {names}, {count} sets of pictures; {where}.{note}"


def _table(rows: list[dict[str, Any]], lang: str) -> list[str]:
    lines = [_line(HEADS[lang]), _line(["---"] * 6)]
    name = name_zh if lang == "zh" else name_of
    for row in rows:
        figures = [(m, f, text) for m, by_format in row["figures"].items() for f, text in by_format.items()]
        measured = "<br>".join(
            " ".join(part for part in (name(m) if m else "", f"`{f}`" if f else "", text) if part)
            for m, f, text in figures
        )
        verdict = f"{MARKS[row['outcome']]} {row['verdict'][lang]}"
        verdict += f"<br>{row['gist'][lang]}" if row["gist"][lang] else ""
        claimed = row["claimed"][lang]
        lines.append(
            _line([row["id"], row["title"][lang], claimed["float16"], claimed["bfloat16"], measured, verdict])
        )
    return lines


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") or "–" for cell in cells) + " |"

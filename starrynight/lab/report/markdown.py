"""The table as Markdown, Chinese first and English beside, for a README."""

from __future__ import annotations

from typing import Any

from starrynight.lab import table
from starrynight.lab.findings import name_of, name_zh
from starrynight.lab.run import ExperimentRun

MARKS = {"reproduced": "✓", "not reproduced": "✗", "needs hardware": "◌", "undecided": "?", "measured": "·"}
HEADS = {
    "zh": ("编号", "论断", "所称 float16", "所称 bfloat16", "实测", "结论"),
    "en": ("id", "claim", "claimed float16", "claimed bfloat16", "measured", "verdict"),
}


def page(run: ExperimentRun) -> str:
    """Both tables under their headings, with where and how it was measured."""
    rows = table.table(run)
    return "\n".join([
        "# 精度实验室 · The precision lab", "",
        _setting(run, "zh"), "", *_table(rows, "zh"), "",
        _setting(run, "en"), "", *_table(rows, "en"), "",
    ])  # fmt: skip


def _setting(run: ExperimentRun, lang: str) -> str:
    machine, plan = run.machine(), run.plan
    count = len({(p["model"], p["prompt"], p["seed"]) for p in table.pictures(run)})
    faked = "、".join(f for f in plan.formats if table.emulated(f, machine))
    where = f"{machine.get('name', '?')} · torch {machine.get('versions', {}).get('torch', '?')}"
    if lang == "zh":
        names = "、".join(map(name_zh, plan.models))
        return f"参照为 float32，同一种子。{names}，{count} 组画；{where}。" + (
            f"按 GPU 的算法模拟：{faked}。" if faked else ""
        )
    names = ", ".join(map(name_of, plan.models))
    note = f" Emulated as a GPU computes: {faked.replace('、', ', ')}." if faked else ""
    return f"Against float32 with the same seed. {names}, {count} sets of pictures; {where}.{note}"


def _table(rows: list[dict[str, Any]], lang: str) -> list[str]:
    lines = [_line(HEADS[lang]), _line(["---"] * 6)]
    name = name_zh if lang == "zh" else name_of
    for row in rows:
        measured = "<br>".join(
            " ".join(
                part
                for part in (name(model) if model else "", f"`{format_}`" if format_ else "", text)
                if part
            )
            for model, told in row["figures"].items()
            for format_, text in told.items()
        )
        verdict = f"{MARKS[row['outcome']]} {row['verdict'][lang]}"
        verdict += f"<br>{row['gist'][lang]}" if row["gist"][lang] else ""
        claimed = row["claimed"][lang]
        lines.append(
            _line([row["id"], row["title"][lang], claimed["float16"], claimed["bfloat16"], measured, verdict])
        )
    return lines


def _line(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") or "–" for cell in cells) + " |"

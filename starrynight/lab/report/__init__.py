"""The report of a run: one HTML page that needs nothing else, Markdown for a README, JSON for machines.

Rebuilt at any time from the run's folder alone. Knows rows, findings and pictures; measures nothing.
"""

from __future__ import annotations

import json
from typing import Any

from starrynight.lab import table
from starrynight.lab.run import ExperimentRun, plain


def write(run: ExperimentRun) -> None:
    """report.html, report.md and report.json in the run's folder."""
    from starrynight.lab.report import html, markdown

    run.write("report.md", markdown.page(run))
    run.write("report.json", json.dumps(plain(as_data(run)), ensure_ascii=False, indent=1, allow_nan=False))
    run.write(table.REPORT, html.page(run))  # last: it is newer than the results only when all three are


def as_data(run: ExperimentRun) -> dict[str, Any]:
    """Everything a program may want: the plan, the machine, the verdicts, and every row."""
    rows = [{k: v for k, v in row.items() if k != "key"} for row in run.rows.values()]
    return {"plan": run.plan.to_dict(), "machine": run.machine(), "table": table.table(run), "rows": rows}

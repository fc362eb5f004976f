"""A run as data, for doors that show it: which runs there are, how far each is, its table, its pictures, its report.

Reads files only, imports no torch, and may be called while another process measures.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starrynight.errors import StarryError
from starrynight.lab.claims import BY_ID, CLAIMS
from starrynight.lab.experiments import NAMES, experiment
from starrynight.lab.findings import OUTCOMES, Finding, Rows, name_of, name_zh
from starrynight.lab.plan import EXTRAS, PROMPTS, REFERENCE
from starrynight.lab.run import PLAN, ExperimentRun
from starrynight.lab.runner import Progress, progress
from starrynight.settings import settings

REPORT = "report.html"


@dataclass(frozen=True)
class Known:
    """A run on this machine: its folder, models, and how far it is."""

    folder: Path
    models: tuple[str, ...]
    progress: Progress

    @property
    def done(self) -> bool:
        return self.progress.done == self.progress.total


def home() -> Path:
    """Where runs go when nobody names a folder."""
    return settings().home / "lab"


def runs(folder: Path | None = None) -> list[Known]:
    """Every run in ``folder`` (``home()``) that can be read, newest name first: a broken one must not hide the others."""
    places = sorted((folder or home()).glob(f"*/{PLAN}"), reverse=True)
    known = []
    for place in places:
        with suppress(StarryError):
            run = ExperimentRun.open(place.parent)
            known.append(Known(run.folder, run.plan.models, progress(run)))
    return known


def findings(run: ExperimentRun) -> list[Finding]:
    """Every verdict that the rows allow so far, in the order of the claims."""
    rows = Rows(run)
    found = {one.claim: one for name in NAMES for one in experiment(name).judge(rows)}
    return [found[claim.id] for claim in CLAIMS if claim.id in found]


def table(run: ExperimentRun) -> list[dict[str, Any]]:
    """The table as plain data: claim, what was claimed, the outcome, the figures by model and format, the answer in a line, the cause."""
    return [_row(one) for one in findings(run)]


def _row(one: Finding) -> dict[str, Any]:
    claim = BY_ID[one.claim]
    return {
        "id": claim.id,
        "title": {"en": claim.en, "zh": claim.zh},
        "claimed": {lang: claim.claimed(lang) for lang in ("en", "zh")},
        "outcome": one.outcome,
        "verdict": dict(zip(("en", "zh"), OUTCOMES[one.outcome], strict=True)),
        "figures": one.figures,
        "gist": dict(zip(("en", "zh"), one.gist, strict=True)),
        "why": dict(zip(("en", "zh"), one.why, strict=True)),
    }


def outcomes(run: ExperimentRun) -> dict[str, int]:
    """How many claims came out how."""
    return dict(Counter(one.outcome for one in findings(run)))


def pictures(run: ExperimentRun) -> list[dict[str, Any]]:
    """Every painting that was made in float32 too: model, format, prompt, seed; ``path`` of its PNG, or ``refused``: why
    there is none.
    """
    found, rows = [], Rows(run)
    compared = {(r["model"], r["prompt"], r["seed"]) for r in rows.of("refusals", format_=REFERENCE)}
    for row in rows.of("refusals"):
        if (row["model"], row["prompt"], row["seed"]) not in compared:
            continue  # painted only to see whether it breaks
        path = run.picture(row["model"], row["format"], row["prompt"], row["seed"])
        refused = row["result"]["why"]
        found.append({
            "model": row["model"],
            "name": {"en": name_of(row["model"]), "zh": name_zh(row["model"])},
            "format": row["format"],
            "prompt": row["prompt"],
            "text": PROMPTS[row["prompt"]][0],
            "style": PROMPTS[row["prompt"]][1],
            "seed": row["seed"],
            "path": path if refused is None and path.is_file() else None,
            "refused": dict(zip(("en", "zh"), refused, strict=True)) if refused else None,
        })  # fmt: skip
    return found


def report(run: ExperimentRun) -> Path:
    """The report as it stands; written anew if results came in since."""
    from starrynight.lab.report import write

    page, results = run.folder / REPORT, run.folder / "results.jsonl"
    if not page.is_file() or (results.is_file() and results.stat().st_mtime > page.stat().st_mtime):
        write(run)
    return page


def emulated(format_: str, machine: dict[str, Any]) -> bool:
    """Whether this format's arithmetic was emulated: float8 always, float16 on a CPU."""
    return format_ in EXTRAS or (machine.get("device", "cpu") == "cpu" and format_.startswith("float16"))

"""A run as data, for interfaces that show it: the runs on this machine, their progress, a run's verdicts and pictures.

Reads files only, imports no torch, and may be called while another process measures.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starrynight.errors import StarryError
from starrynight.i18n import Text
from starrynight.lab.experiments import EXPERIMENTS
from starrynight.lab.findings import OUTCOMES, Finding, Rows, name_of, name_zh
from starrynight.lab.plan import BY_ID, CLAIMS, EMULATED, PROMPTS, REFERENCE
from starrynight.lab.run import PLAN, ExperimentRun
from starrynight.lab.runner import RunProgress, progress
from starrynight.settings import settings

EXAMPLE = "example"


@dataclass(frozen=True)
class RunSummary:
    """A run on this machine: its folder, its models, how far it is, and whether a process measures it now."""

    folder: Path
    models: tuple[str, ...]
    progress: RunProgress
    measuring: bool = False

    @property
    def done(self) -> bool:
        return self.progress.done == self.progress.total

    def state(self) -> Text:
        """ "done", "stopped at 14 of 149", or "measuring: 14 of 149", with what is left of the work."""
        found = self.progress
        if self.done and not found.busy:
            return Text("done", "完成")
        if self.done:
            return Text(
                f"done; the machine was too busy for {found.busy} {'timing' if found.busy == 1 else 'timings'}, resume to take them",
                f"完成；机器太忙，有 {found.busy} 项计时未留，可接着测",
            )
        minutes = None if found.left is None else max(1, round(found.left / 60))
        left = (
            Text("", "")
            if minutes is None
            else Text(f"; about {minutes} min of work left", f"；还需约 {minutes} 分钟")
        )
        at = Text(f"{found.done} of {found.total}", f"{found.done}/{found.total}")
        if self.measuring:
            return Text(f"measuring: {at.en}{left.en}", f"测量中：{at.zh}{left.zh}")
        return Text(f"stopped at {at.en}{left.en}", f"停在 {at.zh}{left.zh}")


def home() -> Path:
    """The folder of runs that are given no other."""
    return settings().home / "lab"


def example() -> ExperimentRun:
    """A small finished run that ships with the package, to look at before the first of one's own."""
    return ExperimentRun.open(Path(__file__).with_name(EXAMPLE))


def summarised(run: ExperimentRun) -> RunSummary:
    return RunSummary(run.folder, run.plan.models, progress(run), run.is_busy())


def runs(folder: Path | None = None) -> list[RunSummary]:
    """The runs in ``folder`` (default ``home()``), the last name first. A run that cannot be read is left out."""
    found = []
    for plan in sorted((folder or home()).glob(f"*/{PLAN}"), reverse=True):
        with suppress(StarryError):
            run = ExperimentRun.open(plan.parent)
            found.append(summarised(run))
    return found


def findings(run: ExperimentRun) -> list[Finding]:
    """Every verdict that the rows allow so far, in the order of the claims."""
    rows = Rows(run)
    found = {one.claim: one for experiment in EXPERIMENTS.values() for one in experiment.judge(rows)}
    return [found[claim.id] for claim in CLAIMS if claim.id in found]


def table(run: ExperimentRun) -> list[dict[str, Any]]:
    """One dictionary per verdict: the claim, the claimed figures, the outcome, the measured figures by model and format,
    the answer in one line ("gist") and the full text ("why").
    """
    return [_row(one) for one in findings(run)]


def _row(one: Finding) -> dict[str, Any]:
    claim = BY_ID[one.claim]
    return {
        "id": claim.id,
        "title": Text(claim.en, claim.zh)._asdict(),
        "claimed": {lang: claim.claimed(lang) for lang in ("en", "zh")},
        "outcome": one.outcome,
        "verdict": OUTCOMES[one.outcome]._asdict(),
        "figures": one.figures,
        "gist": one.summary._asdict(),
        "why": one.explanation._asdict(),
    }


def outcomes(run: ExperimentRun) -> dict[str, int]:
    """How many claims have each outcome."""
    return dict(Counter(one.outcome for one in findings(run)))


def pictures(run: ExperimentRun) -> list[dict[str, Any]]:
    """Every painting that has a float32 counterpart: model, format, prompt, seed; ``path`` of its PNG or None, and the
    guard's message as ``refused`` or None.
    """
    found, rows = [], Rows(run)
    compared = {(r["model"], r["prompt"], r["seed"]) for r in rows.of("refusals", format_=REFERENCE)}
    for row in rows.of("refusals"):
        model, format_, prompt, seed = (row[key] for key in ("model", "format", "prompt", "seed"))
        if (model, prompt, seed) not in compared:
            continue  # painted for the NaN rate only
        path, refused = run.picture(model, format_, prompt, seed), row["result"]["why"]
        name, (text, style) = Text(name_of(model), name_zh(model))._asdict(), PROMPTS[prompt]
        found.append({
            "model": model, "name": name, "format": format_,
            "prompt": prompt, "text": text, "style": style, "seed": seed,
            "path": path if refused is None and path.is_file() else None,
            "refused": Text(*refused)._asdict() if refused else None,
        })  # fmt: skip
    return found


def emulated(format_: str, machine: dict[str, Any]) -> bool:
    """Whether a format's arithmetic was emulated: float8 always, float16 on a CPU."""
    return format_ in EMULATED or (machine.get("device", "cpu") == "cpu" and format_.startswith("float16"))

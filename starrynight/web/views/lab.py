"""The lab 实验室: one experiment run: verdicts claim by claim, charts, and one picture in two formats.

Reads a run's files through ``lab.table``; the measurements run in another process (``lab.background``). All
text is escaped.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from starrynight.lab import background, table
from starrynight.lab.findings import Rows, name_of, name_zh
from starrynight.lab.report.plots import Plot, plots
from starrynight.lab.run import PLAN, RESULTS, ExperimentRun
from starrynight.lab.summary import SOURCE, Summary, summary
from starrynight.painting.styles import styles
from starrynight.text import excerpt
from starrynight.web import components, shared
from starrynight.web.shared import language, t, translated, words_for

POLL_RUN, POLL_START = 3.0, 1.5  # seconds between two looks at a run, and at one that has only been started
START_TIMEOUT = 60.0  # seconds after which a started run should have written its plan
OUTCOMES = ("reproduced", "not reproduced", "measured", "undecided", "needs hardware")


def show() -> None:
    st.html(
        f'<p class="eyebrow">{escape(t("lab.eyebrow"))}</p>'
        f'<div class="headline"><b>{escape(t("lab.lead"))}</b></div>'
    )
    runs = table.runs()
    started = st.session_state.get("lab/started", "")
    if started and started not in [run.folder.name for run in runs]:
        wait_for_start(started)
        return
    if not runs:
        offer_first_run()
        return
    run = select_run(runs)
    size = results_size(run.folder)
    if not run.done or run.progress.busy:
        progress(run.folder, size)
    show_report(run.folder, size)


def show_report(folder: Path, size: int, title: str = "") -> None:
    """The answer with its pictures first, then the claims, then the charts."""
    report = read_report(folder, size)
    answer(report.summary, title)
    format_comparison(folder.name, report.pictures, report.summary)
    st.html(f'<p class="dim">{escape(translated(*SOURCE))}</p>')
    outcome_counts(report.outcomes)
    verdicts(report.rows)
    charts(folder.name, report.plots)


def results_size(folder: Path) -> int:
    """Bytes of the results file; it only ever grows."""
    results = folder / RESULTS
    return results.stat().st_size if results.is_file() else 0


@dataclass(frozen=True)
class RunReport:
    """What the page shows of a run, as ``lab.table`` and ``lab.summary`` return it."""

    summary: Summary
    outcomes: dict[str, int]
    rows: list[dict[str, Any]]
    pictures: list[dict[str, Any]]
    plots: list[Plot]


@st.cache_resource(show_spinner=False, max_entries=8)
def read_report(folder: Path, size: int) -> RunReport:
    """``size`` in bytes of the results file is part of the cache key."""
    run = ExperimentRun.open(folder)
    return RunReport(
        summary(run), table.outcomes(run), table.table(run), table.pictures(run), plots(Rows(run))
    )


# Start, stop and choose a run


def offer_first_run() -> None:
    st.html(f'<p class="lead">{escape(t("lab.empty"))}</p>')
    if st.button(t("lab.start"), type="primary", key="lab-start"):
        start(background.new_folder(table.home()))
    example = table.example()
    show_report(example.folder, results_size(example.folder), t("lab.example"))


@st.fragment(run_every=POLL_START)
def wait_for_start(name: str) -> None:
    """A run was started, and its process has not written its plan yet."""
    if (table.home() / name / PLAN).is_file():
        st.rerun()
    late = time.monotonic() - st.session_state["lab/started-at"] > START_TIMEOUT
    sentence = t("lab.late", log=str(table.home() / f"{name}.log")) if late else t("lab.starting")
    st.html(f'<p class="lead" role="status">{escape(sentence)}</p>')


def start(folder: Path) -> None:
    background.start(folder)
    st.session_state["lab/started"], st.session_state["lab/started-at"] = folder.name, time.monotonic()
    shared.open_page("lab", run=folder.name)


def select_run(runs: list[table.RunSummary]) -> table.RunSummary:
    """The run that ``?run=`` names, else the newest, with a menu of all."""
    names = [run.folder.name for run in runs]
    asked = st.query_params.get("run", names[0])
    index = names.index(asked) if asked in names else 0
    if asked not in names:
        st.text(f"✦ {t('lab.unknown', run=excerpt(asked), newest=names[0])}")
    with st.container(horizontal=True, vertical_alignment="bottom", key="lab-runs"):
        chosen = st.selectbox(t("lab.run"), names, index, key=f"lab-run/{asked}", width=320)
        st.link_button(t("lab.report"), f"/api/lab/{chosen}/report")
        if st.button(t("lab.another"), key="lab-another", help=t("lab.another.help")):
            start(background.new_folder(table.home()))
    if chosen != asked and (asked in names or chosen != names[0]):
        shared.open_page("lab", run=chosen)
    return runs[names.index(chosen)]


@st.fragment(run_every=POLL_RUN)
def progress(folder: Path, shown: int) -> None:
    """How far a run is. ``shown``: bytes of the results that the page shows; it is drawn anew when there are more."""
    run = ExperimentRun.open(folder)
    if results_size(folder) != shown:
        st.rerun()
    state = table.summarised(run)
    share, sentence = 100 * state.progress.share, translated(*state.state())
    sentence = f"{sentence[0].upper()}{sentence[1:]}"
    st.html(
        f'<div class="progress" role="progressbar" aria-valuenow="{share:.0f}"'
        ' aria-valuemin="0" aria-valuemax="100">'
        f'<i style="width:{share:.1f}%"></i></div><p class="dim">{escape(sentence)}</p>'
    )
    with st.container(horizontal=True, key="lab-progress"):
        # In callbacks, which run before this: when results came meanwhile, the page is drawn anew and no button is reached.
        if not state.measuring:
            st.button(
                t("lab.resume"),
                key="lab-resume",
                help=t("lab.resume.help"),
                on_click=background.start,
                args=(folder,),
            )
        else:
            st.button(
                t("lab.stop"), key="lab-stop", help=t("lab.stop.help"), disabled=background.stop_requested(folder),
                on_click=background.request_stop, args=(folder,),
            )  # fmt: skip


# Results


def answer(found: Summary, title: str) -> None:
    """Which format to use, what it costs, and what a small card holds."""
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    more = "".join(f"<p>{escape(translated(*part))}</p>" for part in (found.cost, found.card) if part.en)
    st.html(
        f'<section class="section answer">{heading}<p class="use">{escape(translated(*found.use))}</p>{more}</section>'
    )


def outcome_counts(counts: dict[str, int]) -> None:
    """How many claims had which outcome."""
    cells = "".join(
        f'<div class="{slug(name)}"><b>{counts[name]}</b><span>{escape(t(f"lab.{slug(name)}"))}</span></div>'
        for name in OUTCOMES
        if counts.get(name)
    )
    st.html(
        f'<div class="outcomes">{cells}</div>'
        if cells
        else f'<p class="lead">{escape(t("lab.too-early"))}</p>'
    )


def slug(outcome: str) -> str:
    """An outcome as it stands in keys and CSS classes."""
    return outcome.replace(" ", "-")


def format_comparison(run: str, pictures: list[dict[str, Any]], found: Summary) -> None:
    """One picture in two formats, under a divider; at first the pair of the answer."""
    shown = [picture_payload(run, picture) for picture in pictures]
    if len({(picture["model"], picture["format"]) for picture in shown}) < 2:
        return
    words = words_for("compare", "lab.", "picture.")
    first = None
    if found.pair is not None:
        left, right = (picture_payload(run, picture) for picture in found.pair)
        first = {
            "model": left["model"],
            "group": left["group"],
            "left": left["format"],
            "right": right["format"],
        }
    components.formats(key=f"formats/{run}", data={"pictures": shown, "words": words, "first": first})


def picture_payload(run: str, picture: dict[str, Any]) -> dict[str, Any]:
    """A run's picture for the browser: an address instead of the path, texts in the visitor's language."""
    lang, style = language(), styles().get(picture["style"] or "")
    return {
        "model": picture["model"],
        "name": picture["name"][lang],
        "format": picture["format"],
        "group": f"{picture['prompt']}/{picture['seed']}",
        "text": picture["text"],
        "style": style.name[lang] if style else "",
        "source": f"/api/lab/{run}/pictures/{picture['path'].name}" if picture["path"] else None,
        "refused": picture["refused"][lang] if picture["refused"] else None,
    }


def verdicts(rows: list[dict[str, Any]]) -> None:
    claims = "".join(verdict(row) for row in rows)
    if claims:
        title = escape(t("lab.table"))
        st.html(f'<section class="section"><h3>{title}</h3><div class="claims">{claims}</div></section>')


def verdict(row: dict[str, Any]) -> str:
    """One claim: its text, what is measured, the outcome and its reason."""
    lang = language()
    claimed = "".join(
        f"<span><i>{escape(name)}</i> {escape(value)}</span>"
        for name, value in row["claimed"][lang].items()
        if value
    )
    measured = "".join(
        f"<li>{f'<i>{escape(translated(name_of(model), name_zh(model)))}</i>' if model else ''}"
        + "".join(f"<span><i>{escape(name)}</i> {escape(figure)}</span>" for name, figure in figures.items())
        + "</li>"
        for model, figures in row["figures"].items()
    )
    return (
        f'<article class="{slug(row["outcome"])}"><header><small>{escape(row["id"])}</small>'
        f"<h4>{escape(row['title'][lang])}</h4><mark>{escape(row['verdict'][lang])}</mark></header>"
        + (f'<p class="claimed">{escape(t("lab.claimed"))} {claimed}</p>' if claimed else "")
        + f"<ul>{measured}</ul><p>{escape(row['why'][lang])}</p></article>"
    )


def charts(run: str, drawn: list[Plot]) -> None:
    if not drawn:
        return
    figures = [
        {"title": translated(*plot.title), "caption": translated(*plot.caption),
         "svg": plot.svg, "formats": plot.formats}
        for plot in drawn
    ]  # fmt: skip
    st.html(f'<section class="section"><h3>{escape(t("lab.plots"))}</h3></section>')
    components.plots(key=f"plots/{run}", data={"plots": figures, "lang": language()})

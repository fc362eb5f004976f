"""The lab 实验室: what every number format costs, as a run of starrynight.lab tells it. Table, plots, side by side.

Reads a run's files through ``lab.table``; measuring is another process (lab.background). Everything is escaped.
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
from starrynight.painting.styles import styles
from starrynight.web import components, desk
from starrynight.web.language import language, t, words_for

EVERY = 3.0  # seconds between two looks at a run that is being measured
LATE = 60.0  # seconds after which a run that was begun should have a folder
ORDER = ("reproduced", "not reproduced", "measured", "undecided", "needs hardware")


def show() -> None:
    st.html(
        f'<p class="eyebrow">{escape(t("lab.eyebrow"))}</p><div class="said"><b>{escape(t("lab.lead"))}</b></div>'
    )
    known = table.runs()
    begun = st.session_state.get("lab/begun", "")
    if begun and begun not in [one.folder.name for one in known]:
        coming(begun)
        return
    if not known:
        empty()
        return
    run = choose(known)
    if not run.done:
        progress(run.folder)
    results = run.folder / RESULTS
    told = read(run.folder, results.stat().st_size if results.is_file() else 0)
    tally(told.outcomes)
    versus(run.folder.name, told.pictures)
    verdicts(told.rows)
    charts(run.folder.name, told.plots)


@dataclass(frozen=True)
class Told:
    """What a run says, as ``lab.table`` gives it."""

    outcomes: dict[str, int]
    rows: list[dict[str, Any]]
    pictures: list[dict[str, Any]]
    plots: list[Plot]


@st.cache_resource(show_spinner=False, max_entries=8)
def read(folder: Path, size: int) -> Told:
    """A run's results only grow: their ``size`` says whether they were read already."""
    run = ExperimentRun.open(folder)
    return Told(table.outcomes(run), table.table(run), table.pictures(run), plots(Rows(run)))


def empty() -> None:
    st.html(f'<p class="lead">{escape(t("lab.empty"))}</p>')
    if st.button(t("lab.begin"), type="primary", key="lab-begin"):
        begin(background.new_folder(table.home()))


@st.fragment(run_every=1.5)
def coming(name: str) -> None:
    """A run was begun, and its process has not made its folder yet."""
    if (table.home() / name / PLAN).is_file():
        st.rerun()
    late = time.monotonic() - st.session_state["lab/begun-at"] > LATE
    said = t("lab.late", log=str(table.home() / f"{name}.log")) if late else t("lab.coming")
    st.html(f'<p class="lead" role="status">{escape(said)}</p>')


def begin(folder: Path) -> None:
    background.start(folder)
    st.session_state["lab/begun"], st.session_state["lab/begun-at"] = folder.name, time.monotonic()
    desk.go("lab", run=folder.name)


def choose(known: list[table.RunSummary]) -> table.RunSummary:
    """``?run=`` names it; else the newest."""
    names = [one.folder.name for one in known]
    asked = st.query_params.get("run", names[0])
    at = names.index(asked) if asked in names else 0
    with st.container(horizontal=True, vertical_alignment="bottom", key="lab-runs"):
        chosen = st.selectbox(t("lab.run"), names, at, key=f"lab-run/{asked}", width=320)
        st.link_button(t("lab.report"), f"/api/lab/{chosen}/report")
        if st.button(t("lab.another"), key="lab-another", help=t("lab.another.help")):
            begin(background.new_folder(table.home()))
    if chosen != asked and chosen in names:
        desk.go("lab", run=chosen)
    return known[names.index(chosen)]


@st.fragment(run_every=EVERY)
def progress(folder: Path) -> None:
    """How far a run is, looked at again and again; new results are shown at a press, and at the end by themselves."""
    run = ExperimentRun.open(folder)
    found = table.progress(run)
    if found.done == found.total:
        st.rerun()
    share = 100 * found.done / found.total
    left = "" if found.left is None else t("lab.time", minutes=max(1, round(found.left / 60)))
    said = t("lab.progress", done=found.done, total=found.total) + left
    st.html(f'<div class="thread" role="progressbar" aria-valuenow="{share:.0f}" aria-valuemin="0" aria-valuemax="100"><i style="width:{share:.1f}%"></i></div>'
            f'<p class="dim">{escape(said)}</p>')  # fmt: skip
    with st.container(horizontal=True, key="lab-progress"):
        if st.button(t("lab.refresh"), key="lab-refresh"):
            st.rerun()
        if not run.busy:
            if st.button(t("lab.resume"), key="lab-resume", help=t("lab.resume.help")):
                background.start(folder)
        elif st.button(
            t("lab.stop"), key="lab-stop", help=t("lab.stop.help"), disabled=background.stop_requested(folder)
        ):
            background.request_stop(folder)
            st.rerun(scope="fragment")


def tally(counted: dict[str, int]) -> None:
    """How many claims came out how, in large figures."""
    cells = "".join(
        f'<div class="{kind(name)}"><b>{counted[name]}</b><span>{escape(t(f"lab.{kind(name)}"))}</span></div>'
        for name in ORDER
        if counted.get(name)
    )
    st.html(f'<div class="tally">{cells}</div>' if cells else f'<p class="lead">{escape(t("lab.early"))}</p>')


def kind(outcome: str) -> str:
    """An outcome as a word for keys and classes."""
    return outcome.replace(" ", "-")


def versus(run: str, pictures: list[dict[str, Any]]) -> None:
    """Two formats of one picture under a divider."""
    found = [painting(run, one) for one in pictures]
    if len({(one["model"], one["format"]) for one in found}) < 2:
        return
    st.html(f'<section class="slab"><h3>{escape(t("lab.versus"))}</h3></section>')
    words = words_for("compare", "lab.", "picture.")
    components.versus(key=f"versus/{run}", data={"pictures": found, "words": words})


def painting(run: str, one: dict[str, Any]) -> dict[str, Any]:
    """A painting for the browser: an address in place of the path."""
    style = styles().get(one["style"] or "")
    return {
        "model": one["model"],
        "name": one["name"][language()],
        "format": one["format"],
        "group": f"{one['prompt']}/{one['seed']}",
        "text": one["text"],
        "style": style.name[language()] if style else "",
        "source": f"/api/lab/{run}/pictures/{one['path'].name}" if one["path"] else None,
        "refused": one["refused"][language()] if one["refused"] else None,
    }


def verdicts(rows: list[dict[str, Any]]) -> None:
    claims = "".join(verdict(row) for row in rows)
    if claims:
        title = escape(t("lab.table"))
        st.html(f'<section class="slab"><h3>{title}</h3><div class="claims">{claims}</div></section>')


def verdict(row: dict[str, Any]) -> str:
    """A claim: what was said, what is measured, the outcome and its cause."""
    lang = language()
    claimed = "".join(
        f"<span><i>{escape(name)}</i> {escape(said)}</span>"
        for name, said in row["claimed"][lang].items()
        if said
    )
    measured = "".join(
        f"<li>{f'<i>{escape(model_name(model))}</i>' if model else ''}"
        + "".join(f"<span><i>{escape(name)}</i> {escape(figure)}</span>" for name, figure in figures.items())
        + "</li>"
        for model, figures in row["figures"].items()
    )
    return (
        f'<article class="{kind(row["outcome"])}"><header><small>{escape(row["id"])}</small><h4>{escape(row["title"][lang])}</h4>'
        f"<mark>{escape(row['verdict'][lang])}</mark></header>"
        + (f'<p class="claimed">{escape(t("lab.claimed"))} {claimed}</p>' if claimed else "")
        + f"<ul>{measured}</ul><p>{escape(row['why'][lang])}</p></article>"
    )


def model_name(model: str) -> str:
    return name_zh(model) if language() == "zh" else name_of(model)


def charts(run: str, drawn: list[Plot]) -> None:
    if not drawn:
        return
    at = 1 if language() == "zh" else 0
    figures = [
        {"title": one.title[at], "caption": one.caption[at], "svg": one.svg, "formats": one.formats}
        for one in drawn
    ]
    st.html(f'<section class="slab"><h3>{escape(t("lab.plots"))}</h3></section>')
    components.plots(key=f"plots/{run}", data={"plots": figures, "lang": language()})

"""The studio 画室: a line, a style, a few golden sliders, and the easel where the picture comes out of the dark.

The page never paints: it puts a wish into the queue and writes ``?job=`` into the address, which is all that a reload
or another visitor needs to watch. Knows nothing of how the queue is worked off.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.jobs.job import Job
from starrynight.painting.styles import styles
from starrynight.request import PaintRequest, random_seed
from starrynight.web import components, controls, desk
from starrynight.web.language import language, style_names, t, words_for
from starrynight.web.views.gallery import wall

SERIES = "series"


def show() -> None:
    if ids := st.session_state.pop("begun", None):  # even if a second press cut short the run that began them
        desk.go("studio", job=".".join(ids))
    receive()
    watched = desk.jobs_of(st.query_params.get("job", ""))
    if watched and "prompt" not in st.session_state:  # a new visit to a painting: its words lie on the desk
        controls.lay(watched[0].request.to_dict() | {"seed": None, "style": one_style(watched)})
    if len(watched) > 1:  # a series hangs over the whole width
        watch(watched)
        words, numbers = st.columns([7, 5], gap="large")
    else:
        easel, words = st.columns([7, 5], gap="large")
        numbers = words
        with easel:
            watch(watched)
    write(words, numbers)
    wait(watched)
    wall(key="recent", strip=True)


# What comes in from elsewhere


def receive() -> None:
    """``?from=PICTURE`` lays a picture's recipe on the desk, once."""
    picture = st.query_params.get("from")
    if not picture or st.session_state.get("received") == picture:
        return
    st.session_state["received"] = picture
    try:
        row = desk.gallery().get(picture)
    except StarryError as error:
        desk.complain(error)
        return
    asked = desk.gallery().recipe(row.id).get("request") or {}
    controls.lay(asked | {"prompt": row.prompt, "seed": desk.seed_of(row), "style": row.style})


def one_style(jobs: list[Job]) -> str | None:
    return jobs[0].request.style if len(jobs) == 1 else None


# The right hand: what to paint


def write(words: Any, numbers: Any) -> None:
    """The line and its style in one place, what is set by number in another (or below)."""
    with words:
        st.text_area(
            t("prompt"), key="prompt", height=128, max_chars=4000, placeholder=t("prompt.example"),
            label_visibility="collapsed", persist_state="session",
        )  # fmt: skip
        controls.style_cards()
        with st.container(horizontal=True, vertical_alignment="bottom", key="press"):
            paint = st.button(
                t("act.paint"), type="primary", key="paint", shortcut="Ctrl+Enter", width="stretch"
            )
            series = st.button(t("act.series"), key="series", help=t("act.series.help"))
        said = st.container()
    with numbers:
        controls.sliders()
        controls.seed_and_count()
        controls.more()
    with said:
        if paint or series:
            begin(SERIES if series else "")


def begin(kind: str) -> None:
    """Wishes into the queue; the address says which, and the page begins again with it."""
    wish = controls.wish()
    keys = list(styles()) if kind == SERIES else [wish["style"]]
    try:
        jobs = [desk.submit(wish | {"style": key} | ({"count": 1} if kind else {})) for key in keys]
    except StarryError as error:
        desk.complain(error)
        return
    st.session_state["begun"] = [job.id for job in jobs]
    st.rerun()


# The left hand: what is being painted


def watch(jobs: list[Job]) -> None:
    told = components.easel(
        key="easel",
        data={
            "jobs": [shown(job) for job in jobs],
            "styles": style_names(),
            "lang": language(),
            "words": words_for("easel", "act.", "fact.", "verdict.", "picture.", "offline"),
        },
        on_ended_change=lambda: None,
        on_open_change=lambda: None,
        on_vary_change=lambda: None,
        on_retried_change=lambda: None,
    )
    if told.open is not None:
        desk.go("gallery", picture=told.open)
    if told.vary:
        vary(told.vary)


def wait(watched: list[Job]) -> None:
    """What else is in the queue, if anything."""
    told = components.queue(
        key="queue",
        data={
            "watched": [job.id for job in watched],
            "styles": style_names(),
            "words": words_for("queue", "easel.waiting", "easel.next", "act.cancel"),
        },
        on_watch_change=lambda: None,
    )
    if told.watch:
        desk.go("studio", job=told.watch)


def shown(job: Job) -> dict[str, Any]:
    """A job for the browser, without the paths of this machine."""
    told = job.to_dict()
    told["request"] = {key: told["request"][key] for key in ("prompt", "style", "width", "height", "seed")}
    return told


def vary(name: str) -> None:
    """The same wish with another seed."""
    try:
        request: PaintRequest = desk.queue().get(name).request
        seed = random_seed()
        job = desk.queue().submit(request.replace(seed=seed))
    except StarryError as error:
        desk.complain(error)
        return
    st.session_state["seed_next"] = str(seed)
    desk.go("studio", job=job.id)

"""The studio 画室: the form, and the easel where the picture appears step by step.

The page never paints. It queues a request and writes ``?job=`` into the address, which is all that a reload
or another visitor needs to watch.
"""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.jobs.job import Job
from starrynight.jobs.validate import PICTURE, UPLOAD
from starrynight.painting.styles import styles
from starrynight.request import random_seed
from starrynight.web import components, controls, draft, lines, origin, prompt, shared, voice
from starrynight.web.shared import language, style_names, t, words_for
from starrynight.web.views.gallery import wall

NEAR = 0.2  # of the noise of another seed: a picture that is recognised, and not the same
FOLLOW_SECONDS = 5.0  # in which an address that the browser sent late is taken for the one before a press


def show() -> None:
    follow_submitted()
    controls.restore_options()
    load_picture()
    try:
        watched = shared.jobs_in_address(st.query_params.get("job", ""))
    except StarryError as error:
        watched = []
        shared.show_error(error)
    if watched and "prompt" not in st.session_state:  # a new visit to a job's address shows its settings
        controls.fill_form(watched[0].request.to_dict() | {"seed": None, "style": single_style(watched)})
    # theme.css places the three: beside each other, a series across the whole width, on a phone the prompt first.
    with st.container(key="studio-series" if len(watched) > 1 else "studio"):
        words, canvas, numbers = (st.container(key=name) for name in ("words", "canvas", "numbers"))
        with canvas:  # drawn first, so that a painting is watched while the rest is still drawn
            watch(watched)
        with words:
            describe()
        with numbers:
            origin.panel(controls.selected_model())
            controls.sliders()
            controls.seed_row()
            controls.more_settings()
    draft.keep()
    other_jobs(watched)
    wall(key="recent", strip=True)


def follow_submitted() -> None:
    """Write the jobs that were just queued into the address.

    An event that the browser sends before it has the new address brings the old one back, after the new one was written.
    So for some seconds the old address leads to the new jobs again; any other one is where the visitor went.
    """
    if (found := st.session_state.get("submitted")) is None:
        return
    jobs, left, until = found
    here = st.query_params.get("job", "")
    if here == left != jobs and time.monotonic() < until:
        shared.write_address(
            "studio", job=jobs
        )  # and goes on: drawn again, the page would show the painting later
        return
    if here != jobs or time.monotonic() >= until:
        del st.session_state["submitted"]


def load_picture() -> None:
    """``?from=PICTURE`` fills the form from that picture's recipe, once. With ``near`` the next one stays near it;
    with ``start`` it begins from that picture instead, inside ``mask``, the id of an upload, if there is one.
    """
    query = st.query_params
    picture = query.get("from")
    asked = tuple(query.get(name) for name in ("from", "near", "start", "mask"))
    if not picture or st.session_state.get("loaded_picture") == asked:
        return
    try:
        row = shared.gallery().get(picture)
    except StarryError as error:
        shared.show_error(error)
        return
    st.session_state["loaded_picture"] = asked
    controls.fill_form({"style": row.style} | shared.request_of(row))
    if "near" in query:
        st.session_state["variation"] = NEAR
    if start := query.get("start"):
        origin.begin(f"{PICTURE}{start}", f"{UPLOAD}{query['mask']}" if "mask" in query else None)
        st.session_state["locked"] = False  # its own noise would paint the same once more


def single_style(jobs: list[Job]) -> str | None:
    return jobs[0].request.style if len(jobs) == 1 else None


def describe() -> None:
    """The prompt, the styles and the buttons."""
    if "prompt_next" in st.session_state:  # a widget's value may only be set before it is drawn
        st.session_state["prompt"] = st.session_state.pop("prompt_next")
    st.text_area(
        t("prompt"), key="prompt", height=128, max_chars=4000,
        placeholder=t("prompt.example", line=t("prompt.first")), label_visibility="collapsed",
        persist_state="session",
    )  # fmt: skip
    prompt.hints(controls.selected_model())
    controls.style_cards()
    with st.container(horizontal=True, vertical_alignment="bottom", key="buttons"):
        st.button(
            t("act.paint"), type="primary", key="paint", shortcut="Ctrl+Enter", width="stretch",
            on_click=submit, args=(False,),
        )  # fmt: skip
        st.button(t("act.series"), key="series", help=t("act.series.help"), on_click=submit, args=(True,))
        voice.button()
    tell_plan()
    if error := st.session_state.pop("refused", None):
        shared.show_error(error)


def tell_plan() -> None:
    """What a press of the button paints, where it is more than one picture."""
    state, model = st.session_state, controls.selected_model()
    if f"size/{model.name}" not in state or f"steps/{model.name}" not in state:  # the form was not drawn yet
        return
    width, height = controls.form_size(model)
    fields = {
        "prompt": state.get("prompt") or "-", "model": model.name, "width": width, "height": height, "seed": 0,
        "steps": state[f"steps/{model.name}"], "count": state.get("count", 1),
    }  # fmt: skip
    if sentence := lines.plan(fields):
        st.caption(f"✦ {sentence}")


@shared.uncut
def submit(series: bool) -> None:
    """Queue the form's request, or with ``series`` one picture in every style; ``show`` then watches them.

    Called before the script runs: a run that has begun is cut off by the next event of the page, such as the words
    that were typed just before the press, and the press would be lost with it.
    """
    fields = controls.read_form()
    try:
        requests = (
            [fields | {"style": style, "count": 1} for style in styles()]
            if series
            else lines.requests(fields)
        )
        jobs = ".".join([shared.submit(request).id for request in requests])
        st.session_state["submitted"] = (
            jobs,
            st.query_params.get("job", ""),
            time.monotonic() + FOLLOW_SECONDS,
        )
        st.session_state["painted"] = fields["prompt"]
    except StarryError as error:
        st.session_state["refused"] = error


def watch(jobs: list[Job]) -> None:
    result = components.easel(
        key="easel",
        data={
            "jobs": [job_payload(job) for job in jobs],
            "styles": style_names(),
            "origin": {
                "start": st.session_state.get("start") or "",
                "mask": st.session_state.get("start_mask") or "",
            },
            "lang": language(),
            "words": words_for("easel", "act.", "fact.", "mark.", "picture.", "offline", "origin.masked"),
        },
    )
    if result.open is not None:
        shared.open_page("gallery", picture=result.open)
    if result.vary:
        vary(result.vary)
    if result.start:
        origin.begin(origin.reference(result.start))
        st.rerun()


def other_jobs(watched: list[Job]) -> None:
    """The rest of the queue, if there is any."""
    result = components.queue(
        key="queue",
        data={
            "watched": [job.id for job in watched],
            "styles": style_names(),
            "words": words_for("queue", "easel.waiting", "easel.next", "act.cancel"),
        },
    )
    if result.watch:
        shared.open_page("studio", job=result.watch)


def job_payload(job: Job) -> dict[str, Any]:
    """A job for the browser, without paths of this machine."""
    payload = job.to_dict()
    payload["request"] = {
        key: payload["request"][key] for key in ("prompt", "style", "width", "height", "seed")
    }
    return payload


def vary(name: str) -> None:
    """Queue the same request with another seed."""
    seed = random_seed()
    try:
        request = shared.queue().get(name).request
        job = shared.queue().submit(request.replace(seed=seed))
    except StarryError as error:
        shared.show_error(error)
        return
    st.session_state["seed_next"] = str(seed)
    shared.open_page("studio", job=job.id)

"""The grid 对照: one prompt over two axes, planned before it is painted, and its contact sheet.

Each picture is a job of its own and hangs in the gallery. The address holds the axes and the jobs, row by row, which is all
that a reload needs; ``lab/grid.py`` reads the axes and draws the sheet.
"""

from __future__ import annotations

from html import escape
from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.jobs.job import Job
from starrynight.jobs.validate import validate_request
from starrynight.lab import grid as grids
from starrynight.lab.axes import FIELDS, NONE, Axis, parse_axis
from starrynight.painting.styles import styles
from starrynight.request import MAX_TEXT, PRECISIONS
from starrynight.web import components, controls, origin, shared
from starrynight.web.shared import counted, initial, language, style_names, t, uncut, words_for

MOST = 36  # pictures of a grid on the page; `starry grid` takes up to 400
VALUES = {  # what an axis begins with
    "steps": "2, 4, 8", "guidance": "1, 2, 4", "seed": "1..3", "sampler": "euler, heun", "strength": "0.3, 0.6, 0.9",
    "variation": "0, 0.2, 0.4", "variety": "0, 0.5, 1", "lora": "0, 0.5, 1",
}  # fmt: skip
NOTHING = "-"  # instead of the second axis


def show() -> None:
    follow_started()
    st.html(
        f'<p class="eyebrow">{escape(t("grid.eyebrow"))}</p>'
        f'<div class="headline"><b>{escape(t("grid.lead"))}</b></div>'
    )
    query = st.query_params
    if query.get("job") and query.get("x"):
        try:
            return sheet(parse_axis(query["x"]), parse_axis(query["y"]) if query.get("y") else None)
        except StarryError as error:
            shared.show_error(error)
    return form()


def follow_started() -> None:
    """Show the grid that was just queued, or say why it was not."""
    if (started := st.session_state.pop("grid/started", None)) is not None:
        shared.open_page("grid", **started)


# The form


def form() -> None:
    controls.restore_options()
    model = controls.selected_model()
    with st.container(key="grid-form"):
        with st.container(key="grid-axes"):
            st.text_area(
                t("prompt"), key="prompt", height=96, max_chars=MAX_TEXT, label_visibility="collapsed",
                placeholder=t("prompt.example", line=t("prompt.first")), persist_state="session",
            )  # fmt: skip
            asked = choose_axis("x", "seed"), choose_axis("y", "style")
            actions = st.container(key="grid-plan")
        with st.container(key="grid-rest"):
            controls.style_cards()
            origin.panel(model)
            controls.sliders(counts=False)
            controls.seed_row()
            controls.more_settings()
    with actions:
        plan(*asked)


def choose_axis(name: str, first: str) -> str:
    """An axis as ``parse_axis`` reads it; empty for none."""
    fields = [field for field in FIELDS if _makes_sense(field)]
    options = fields if name == "x" else [*fields, NOTHING]
    key = initial(f"grid/{name}", first)
    if st.session_state[key] not in options:
        st.session_state[key] = first
    left, right = st.columns([2, 3], gap="small", vertical_alignment="bottom")
    field = left.selectbox(
        t(f"grid.{name}"), options, key=key, persist_state="session", format_func=_axis_name
    )
    if field == NOTHING:
        return ""
    label, place = t("grid.values", axis=_axis_name(field)), f"grid/{name}/{field}"
    if field in ("style", "precision"):
        names = list(styles()) if field == "style" else [one for one in PRECISIONS if one != "auto"]
        chosen = st.pills(
            label, names, key=initial(place, names[:3] if field == "style" else ["bfloat16", "float32"]),
            selection_mode="multi", format_func=lambda value: _value(field, value), persist_state="session",
            label_visibility="collapsed",
        )  # fmt: skip
        return f"{field}={','.join(name for name in names if name in chosen)}"
    value = right.text_input(
        label, key=initial(place, VALUES[field]), max_chars=200, help=t("grid.values.help"), persist_state="session"
    )  # fmt: skip
    return f"{field}={value}"


def _makes_sense(field: str) -> bool:
    state = st.session_state
    return {"strength": bool(state.get("start")), "lora": bool(state.get("loras"))}.get(field, True)


def plan(x: str, y: str) -> None:
    """How many pictures there will be, and how long they take; then the button."""
    try:
        across, down = parse_axis(x), parse_axis(y) if y else None
        grids.check(across, down, MOST)
        cells = grids.cells(
            _fields(), across, down, lambda **given: validate_request(given, shared.gallery())
        )
    except StarryError as error:
        shared.show_error(error)
        cells, sentence = (), ""
    else:
        one, seconds = cells[0].request, shared.queue().seconds(cell.request for cell in cells)
        rows = len(down.values) if down else 1
        sentence = counted(
            "grid.plan", len(cells), columns=len(across.values), rows=rows, w=one.width, h=one.height
        )
        sentence += _duration(seconds)
        st.html(f'<p class="plan">{escape(sentence)}</p>')
    st.button(
        t("grid.paint"), type="primary", key="grid-paint", width="stretch", disabled=not cells, on_click=start,
        args=(x, y, cells),
    )  # fmt: skip
    if refused := st.session_state.pop("grid/refused", None):
        shared.show_error(refused)


def _fields() -> dict[str, Any]:
    """The form, with its seed. The seed of the form stays, so that what is planned is what is painted."""
    state = st.session_state
    kept = {name: state.get(name) for name in ("seed_next", "prompt_next")}
    fields = controls.read_form()
    for name, value in kept.items():
        if value is None:
            state.pop(name, None)
        else:
            state[name] = value
    return fields


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return t("grid.untimed")
    return (
        t("grid.seconds", n=max(1, round(seconds)))
        if seconds < 90
        else t("grid.minutes", n=round(seconds / 60))
    )


@uncut
def start(x: str, y: str, cells: tuple[grids.Cell, ...]) -> None:
    try:
        jobs = [shared.queue().submit(cell.request).id for cell in cells]
    except StarryError as error:
        st.session_state["grid/refused"] = error
        return
    st.session_state["grid/started"] = {"x": x, "y": y, "job": ".".join(jobs)}


# The sheet


def sheet(x: Axis, y: Axis | None) -> None:
    grids.check(x, y, MOST)
    ids = st.query_params["job"].split(".")[: len(x.values) * (len(y.values) if y else 1)]
    jobs = [_job(name) for name in ids]
    first = next((job for job in jobs if job), None)
    if first is None:
        shared.jobs_in_address(st.query_params["job"])  # raises that there is none
        return
    st.html(f'<p class="plan">{escape(first.request.prompt)}</p>')
    components.sheet(
        key="sheet",
        data={
            "jobs": [_cell(name, job) for name, job in zip(ids, jobs, strict=True)],
            "columns": [_label(x.field, value) for value in x.values],
            "rows": [_label(y.field, value) for value in y.values] if y else [""],
            "lang": language(), "words": words_for("grid", "act.", "picture.", "offline"),
        },
    )  # fmt: skip
    with st.container(horizontal=True, key="grid-actions"):
        if all(job is None or job.ended for job in jobs):
            keep(x, y, jobs, first.request.prompt)
        if st.button(t("grid.another"), key="grid-another"):
            shared.open_page("grid")


def keep(x: Axis, y: Axis | None, jobs: list[Job | None], prompt: str) -> None:
    """Download the contact sheet, or hang it."""
    columns = len(x.values)
    pictures = tuple(job.pictures[0] if job and job.pictures else None for job in jobs)
    if not any(pictures):
        return
    places = {divmod(at, columns): picture for at, picture in enumerate(pictures)}
    data = _sheet_file(tuple(places.items()), x, y, prompt)
    st.download_button(
        t("grid.download"),
        data,
        f"starry-grid-{x.field}{f'-{y.field}' if y else ''}.png",
        "image/png",
        key="grid-download",
    )
    if st.button(t("grid.hang"), key="grid-hang"):
        try:
            shared.gallery().add_file(data)
            st.text(f"✦ {t('grid.hung')}")
        except StarryError as error:
            shared.show_error(error)


@st.cache_data(max_entries=4, show_spinner=False)
def _sheet_file(
    places: tuple[tuple[tuple[int, int], str | None], ...], x: Axis, y: Axis | None, prompt: str
) -> bytes:
    painted = {at: _file(picture) for at, picture in places}
    return grids.sheet_file(painted, x, y, prompt)


def _file(picture: str | None) -> bytes | None:
    """A picture's file; None for one that is gone."""
    if picture is None:
        return None
    try:
        return shared.gallery().read(shared.gallery().get(picture))
    except StarryError:
        return None


def _job(name: str) -> Job | None:
    try:
        return shared.queue().get(name)
    except StarryError:
        return None


def _cell(name: str, job: Job | None) -> dict[str, Any]:
    """A job for the browser; one that is gone counts as failed."""
    if job is None:
        return {"id": name, "state": "failed", "painted": [], "ratio": 1, "seconds_left": None}
    payload = job.to_dict()
    shape = {"ratio": job.request.width / job.request.height}
    return shape | {
        key: payload[key] for key in ("id", "state", "painted", "progress", "seconds_left", "error")
    }


def _axis_name(field: str) -> str:
    return t("axis.none") if field == NOTHING else t(f"axis.{field}")


def _label(field: str, value: Any) -> str:
    return f"{_axis_name(field)} {_value(field, value)}"


def _value(field: str, value: Any) -> str:
    if value is None or value == NONE:
        return t("axis.none")
    if field == "style":
        return style_names().get(value, value)
    return f"{value:g}" if isinstance(value, float) else str(value)

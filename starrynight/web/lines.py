"""Several prompts at once: one a line, each a job of its own; and what a press will paint, told before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from starrynight import prompts
from starrynight.errors import BadRequest, StarryError
from starrynight.jobs import batch
from starrynight.request import MAX_TEXT, PaintRequest
from starrynight.web import shared
from starrynight.web.shared import t, translated

KEY = "lines"


def box() -> None:
    st.text_area(
        t("lines"), key=KEY, height=90, max_chars=shared.MAX_JOBS * MAX_TEXT, persist_state="session",
        help=t("lines.help", most=shared.MAX_JOBS), placeholder=t("lines.example"),
    )  # fmt: skip


def requests(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The form's request, or one for each line of the box. Raises BadRequest for more lines than one press queues."""
    text = st.session_state.get(KEY, "")
    if not text.strip():
        return [dict(fields)]
    found = prompts.parse(text)
    if len(found) > shared.MAX_JOBS:
        raise BadRequest(
            f"{len(found)} lines are too many for the page; leave {shared.MAX_JOBS}, or use starry paint --prompts FILE.",
            f"{len(found)} 行太多；网页一次至多 {shared.MAX_JOBS} 行，更多请用 starry paint --prompts 文件。",
        )
    return [dict(fields) | {"prompt": line.prompt} for line in found]


def plan(fields: Mapping[str, Any]) -> str:
    """How many pictures a press of the button paints, how long and how large; empty for a single one."""
    try:
        wanted = [PaintRequest(**one) for one in requests(fields)]
        if sum(one.count for one in wanted) < 2:
            return ""
        return translated(*batch.plan(wanted, shared.gallery()).message)
    except StarryError as error:
        return error.message(shared.language())

"""The gallery 画廊: the wall, with ``?picture=`` opened on it.

The wall is a component (parts/wall.js) that asks the server's API for what it shows; this page only acts on
what leads to the studio.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.web import components, shared
from starrynight.web.shared import language, style_names, words_for


def show() -> None:
    wall(key="wall")


def wall(key: str, strip: bool = False) -> None:
    """Every picture, or with ``strip`` one row of the newest. The component reads the rest from the address."""
    result = components.wall(
        key=key,
        data={
            "strip": strip,
            "lang": language(),
            "styles": style_names(),
            "words": words_for(
                "wall",
                "viewer",
                "brush",
                "show",
                "act.",
                "fact.",
                "verdict.",
                "mark.",
                "remark.",
                "picture.",
                "compare",
                "offline",
            ),
        },
    )
    if result.action:
        act(result.action)


def act(action: dict[str, Any]) -> None:
    """``edit``: open the studio with this picture's settings; ``near``: to stay near it; ``begin``: to begin from it, inside a
    mask if there is one. ``repaint``: queue its request again.
    """
    kind, value = action["kind"], action["value"]
    if kind in ("edit", "near", "begin"):
        st.session_state.pop("loaded_picture", None)
        more = {"start": value["id"], "mask": value.get("mask", "")} if kind == "begin" else {}
        shared.open_page("studio", **{"from": value["id"], "near": "1" if kind == "near" else "", **more})
    try:
        job = shared.repaint(value["id"], bool(value["vary"]))
    except StarryError as error:
        shared.show_error(error)
        return
    shared.open_page("studio", job=job.id)

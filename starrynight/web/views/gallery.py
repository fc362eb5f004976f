"""The gallery 画廊: the wall, and ``?picture=`` for one picture on it. The wall itself is a part (parts/wall.js) that asks
the server for what it shows; here is only what leads to another room.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.web import components, desk
from starrynight.web.language import language, style_names, words_for


def show() -> None:
    wall(picture=st.query_params.get("picture"), key="wall")


def wall(key: str, picture: str | None = None, strip: bool = False) -> None:
    """All that hangs, or (``strip``) the newest few."""
    told = components.wall(
        key=key,
        data={
            "picture": picture,
            "strip": strip,
            "lang": language(),
            "styles": style_names(),
            "words": words_for(
                "wall", "viewer", "act.", "fact.", "verdict.", "picture.", "compare", "offline"
            ),
        },
        on_go_change=lambda: None,
    )
    if told.go:
        leave(told.go)


def leave(wanted: dict[str, Any]) -> None:
    """To the studio: to paint this picture again, to paint another like it, or to lay its words on the desk."""
    if wanted["kind"] == "send":
        st.session_state.pop("received", None)
        desk.go("studio", **{"from": wanted["value"]})
    try:
        job = desk.again(wanted["value"]["id"], bool(wanted["value"]["vary"]))
    except StarryError as error:
        desk.complain(error)
        return
    desk.go("studio", job=job.id)

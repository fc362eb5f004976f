"""The gallery 画廊: the wall, with ``?picture=`` opened on it.

The wall is a component (parts/wall.js) that asks the server's API for what it shows; this page only acts on
what leads to the studio.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.senses.describe import called
from starrynight.senses.facets import words_of
from starrynight.senses.facts import CHOICES, THINGS
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
            "seen": seen_names(language()),
            "words": words_for(
                "wall",
                "facet.",
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


@cache
def seen_names(lang: str) -> dict[str, str]:
    """What eyes may have seen, "hour.night", by its name in a language."""
    tables = {kind: CHOICES[kind] for kind in ("hour", "weather", "kind")} | {"thing": THINGS}
    further = words_of("weather", lang)  # captions have no word for a clear sky
    return {
        f"{kind}.{name}": further.get(name, name) if kind == "weather" else called(kind, name, lang)
        for kind, names in tables.items()
        for name in names
    }


def act(action: dict[str, Any]) -> None:
    """``edit``: open the studio with this picture's settings; ``near``: to stay near it; ``begin``: to begin from it, inside a
    mask if there is one. ``repaint``: queue its request again, as it was, with another seed (``vary``), or with several until all that it
    asks for is seen (``seek``).
    """
    kind, value = action["kind"], action["value"]
    if kind in ("edit", "near", "begin"):
        st.session_state.pop("loaded_picture", None)
        more = {"start": value["id"], "mask": value.get("mask", "")} if kind == "begin" else {}
        shared.open_page("studio", **{"from": value["id"], "near": "1" if kind == "near" else "", **more})
    try:
        job = shared.repaint(value["id"], bool(value.get("vary")), bool(value.get("seek")))
    except StarryError as error:
        shared.show_error(error)
        return
    shared.open_page("studio", job=job.id)

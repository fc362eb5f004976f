"""The components that Streamlit has no widget for, registered from their CSS and JavaScript in ``parts/``.

Texts from visitors and files reach a component as data and become text nodes there, never markup.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

PARTS = Path(__file__).with_name("parts")


def _register(name: str, *helpers: str, triggers: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The component ``name``, made of its own files after those of ``helpers``.

    ``triggers``: values that it sets for one run. Streamlit returns only those that have a callback.
    """
    files = [
        [PARTS / f"{part}.{kind}" for part in ("common", *helpers, name)] for kind in ("css", "js")
    ]  # a helper may have no CSS
    css, js = ("\n".join(file.read_text("utf-8") for file in kind if file.is_file()) for kind in files)
    component = st.components.v2.component(f"starry_{name}", css=css, js=js)
    callbacks: dict[str, Any] = {f"on_{trigger}_change": lambda: None for trigger in triggers}
    return partial(component, **callbacks)


cards = _register("cards", "pictures")
loras = _register("loras", "pictures", triggers=("toggle",))
draft = _register("draft", "address", triggers=("draft",))
easel = _register("easel", "drop", triggers=("ended", "open", "vary", "retried", "start"))
formats = _register("formats", "compare")
hints = _register("hints", "facets", triggers=("prompt", "example", "facet"))
origin = _register("origin", "drop", "brush", triggers=("change",))
masthead = _register("masthead", triggers=("page", "language"))
plots = _register("plots")
queue = _register("queue", triggers=("watch",))
sheet = _register("sheet", triggers=("ended",))
voice = _register("voice", triggers=("heard",))
wall = _register(
    "wall",
    "address",
    "grid",
    "selection",
    "compare",
    "zoom",
    "drop",
    "brush",
    "show",
    "viewer",
    triggers=("action",),
)

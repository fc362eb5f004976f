"""The pieces Streamlit has no widget for, written by hand and registered once: HTML, CSS and JavaScript in ``parts/``.

Knows their names and nothing of what they show. Whatever a visitor or a file wrote reaches them as data and becomes
text there, never markup.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

PARTS = Path(__file__).with_name("parts")


def _part(name: str, *helpers: str) -> st.components.v2.types.ComponentRenderer:
    """The component ``name`` from its files, after those of its helpers."""
    css, js = (
        "\n".join((PARTS / f"{part}.{kind}").read_text("utf-8") for part in ("common", *helpers, name))
        for kind in ("css", "js")
    )
    return st.components.v2.component(f"starry_{name}", css=css, js=js)


cards = _part("cards")
easel = _part("easel")
masthead = _part("masthead")
plots = _part("plots")
queue = _part("queue")
versus = _part("versus", "compare")
wall = _part("wall", "compare", "viewer")

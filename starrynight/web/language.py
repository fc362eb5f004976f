"""Every word the browser shows, by key, in Chinese and English; and which of the two this visitor reads.

Knows no page. ``?lang=`` decides, then what was chosen in this visit, then the browser's own language.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from starrynight.painting.styles import styles

LANGUAGES = {"zh": "中文", "en": "English"}
FOLDER = Path(__file__).with_name("words")


@cache
def words(lang: str) -> dict[str, str]:
    """One flat dict. The test holds that both languages have the same keys and the same {places}."""
    return json.loads((FOLDER / f"{lang}.json").read_text("utf-8"))


def language() -> str:
    """ "zh" or "en"."""
    asked = st.query_params.get("lang", "")
    if asked in LANGUAGES:
        st.session_state["lang"] = asked
    elif "lang" not in st.session_state:
        st.session_state["lang"] = "zh" if (st.context.locale or "").lower().startswith("zh") else "en"
    return st.session_state["lang"]


def t(key: str, **values: Any) -> str:
    """The sentence for ``key``, with ``{places}`` filled in."""
    sentence = words(language())[key]
    return sentence.format(**values) if values else sentence


def words_for(*prefixes: str) -> dict[str, str]:
    """The words a component needs: all whose key begins with one of ``prefixes``, in this visitor's language."""
    return {key: word for key, word in words(language()).items() if key.startswith(prefixes)}


def style_names() -> dict[str, str]:
    return {key: style.name[language()] for key, style in styles().items()}

"""The script that Streamlit runs for every visitor: background, masthead and one of five pages.

The address selects the page: ``?room=``, or what it shows (``?job=`` in the studio, ``?picture=`` in the
gallery). Pages are not paths, because below a path Streamlit looks for its own files there and logs errors.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from starrynight.errors import StarryError
from starrynight.text import excerpt
from starrynight.web import components, shared
from starrynight.web.shared import LANGUAGES, PAGE, language, t, words_for
from starrynight.web.views import device, gallery, grid, lab, studio

HERE = Path(__file__).parent
PAGES = {"studio": studio, "gallery": gallery, "grid": grid, "lab": lab, "device": device}


def main() -> None:
    st.set_page_config(
        page_title=t("title"),
        page_icon=str(
            HERE / "static" / "star.png"
        ),  # a local file: Streamlit fetches named icons from Google
        layout="wide",
        initial_sidebar_state="collapsed",
    )
    st.html(HERE / "theme.css")
    name = current_page()
    masthead(name)
    if lost := dead_link():
        st.text(f"✦ {t('nav.lost', what=lost)}")
    with st.container(key=f"page-{name}"):
        show_page(name)
    shared.spare_collection()


def current_page() -> str:
    name = st.query_params.get(PAGE, "")
    if name in PAGES:
        return name
    return "gallery" if "picture" in st.query_params else "studio"


def dead_link() -> str:
    """The path (serve/pages.py) or the page of the address that there is not; empty if the address is a good one."""
    asked = st.query_params.get("lost") or st.query_params.get(PAGE, "")
    return "" if asked in PAGES else excerpt(asked)


def show_page(name: str) -> None:
    """Draw the page; an error becomes one sentence. One that is no ``StarryError`` ends the script (``shared.tell_failure``)."""
    try:
        PAGES[name].show()
    except StarryError as error:
        shared.show_error(error)


def masthead(current: str) -> None:
    lang = language()
    other = "en" if lang == "zh" else "zh"
    links = [
        {"key": name, "name": t(f"nav.{name}"), "address": f"/?{PAGE}={name}&lang={lang}"} for name in PAGES
    ]
    result = components.masthead(
        key="masthead",
        data={
            "pages": links,
            "current": current,
            "lang": lang,
            "label": t("nav.label"),
            "words": words_for("keys"),
            "other": {"key": other, "name": LANGUAGES[other], "hint": t("nav.language")},
        },
    )
    if result.language:
        st.query_params["lang"] = result.language
        st.rerun()
    if result.page and result.page != current:
        shared.open_page(result.page)


main()

"""The script Streamlit runs for every visitor: the sky, the masthead, and one of four rooms.

The address says which: ``?room=``, or what is looked at (``?job=`` in the studio, ``?picture=`` in the gallery). Not by
path: Streamlit would look for itself below it. What happens in a room is the room's own file.
"""

from __future__ import annotations

import logging
from pathlib import Path

import streamlit as st

from starrynight.errors import StarryError
from starrynight.web import components, desk
from starrynight.web.language import LANGUAGES, language, t
from starrynight.web.views import device, gallery, lab, studio

log = logging.getLogger("starrynight.web")
HERE = Path(__file__).parent
ROOMS = {"studio": studio, "gallery": gallery, "lab": lab, "device": device}


def main() -> None:
    st.set_page_config(
        page_title=t("title"),
        page_icon=str(HERE / "static" / "star.png"),  # a local file: an icon's name is fetched from Google
        layout="wide",
        initial_sidebar_state="collapsed",
    )
    st.html(HERE / "theme.css")
    name = room()
    masthead(name)
    with st.container(key=f"room-{name}"):
        enter(name)


def enter(name: str) -> None:
    """Nothing a room meets becomes a stack trace before a visitor."""
    try:
        ROOMS[name].show()
    except StarryError as error:
        desk.complain(error)
    except Exception:
        log.exception("room %s", name)
        st.text(f"✦ {t('failed')}")


def room() -> str:
    asked = st.query_params.get("room", "")
    if asked in ROOMS:
        return asked
    return "gallery" if "picture" in st.query_params else "studio"


def masthead(here: str) -> None:
    lang = language()
    other = "en" if lang == "zh" else "zh"
    told = components.masthead(
        key="masthead",
        data={
            "rooms": [{"key": name, "name": t(f"nav.{name}")} for name in ROOMS],
            "here": here,
            "lang": lang,
            "label": t("nav.label"),
            "other": {"key": other, "name": LANGUAGES[other], "hint": t("nav.language")},
        },
        on_room_change=lambda: None,
        on_tongue_change=lambda: None,
    )
    if told.tongue:
        st.query_params["lang"] = told.tongue
        st.rerun()
    if told.room and told.room != here:
        desk.go(told.room)


main()

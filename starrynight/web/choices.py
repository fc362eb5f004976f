"""What the menus of models and LoRAs offer. The operator's model folders are searched at most once a minute for all visitors;
what lies in STARRY_HOME is looked up each time.
"""

from __future__ import annotations

import streamlit as st

from starrynight.errors import StarryError
from starrynight.i18n import Text
from starrynight.models import menu, places
from starrynight.models.menu import Menu
from starrynight.models.places import Place
from starrynight.settings import settings

SECONDS = 60  # a search opens the header of every file in the folders


def models() -> dict[str, Text]:
    """What a request names → its title in both languages."""
    return {**menu.own().models, **of_places()[0].models}


def loras() -> dict[str, str]:
    """What a request names → its title."""
    return {**menu.own().loras, **of_places()[0].loras}


def of_places() -> tuple[Menu, StarryError | None]:
    """What lies in STARRY_HOME/models and the operator's folders; empty, and why, where they cannot be searched."""
    try:
        return _searched(str(settings().home), tuple(places.all_places())), None
    except StarryError as error:
        return Menu({}, {}), error


@st.cache_data(ttl=SECONDS, show_spinner=False)
def _searched(home: str, searched: tuple[Place, ...]) -> Menu:  # ``home`` is a part of the key
    return menu.of_places(searched)

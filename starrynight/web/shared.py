"""What the pages share: the visitor's language, the gallery and queue, navigation and error messages.

Words come from ``words/*.json`` by key. The gallery and the queue are opened once for all visitors; the
server that mounts the pages has its own, and both use the same database.
"""

from __future__ import annotations

import gc
import json
import logging
import re
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, NoReturn

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from starrynight.errors import StarryError
from starrynight.gallery.schema import Row
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text, is_chinese
from starrynight.jobs.job import Job
from starrynight.jobs.queue import Queue
from starrynight.jobs.validate import PICTURE, UPLOAD, validate_request
from starrynight.metadata import Recipe
from starrynight.metadata.recipe import read_own
from starrynight.models.catalogue import ModelSpec
from starrynight.painting.styles import styles

log = logging.getLogger("starrynight.web")
LANGUAGES = {"zh": "中文", "en": "English"}
WORDS = Path(__file__).with_name("words")
PAGE = "room"  # the address parameter that names a page; renaming it would break saved addresses
MAX_JOBS = 20  # read from one address
TRIES = 4  # seeds for a picture that lacks what it was asked for

_STORED_IMAGE = re.compile(r"([/\\]uploads[/\\])?([0-9a-f]{32})\.\w+$")


# Language


@cache
def words(lang: str) -> dict[str, str]:
    """Every sentence of the pages by key; both languages have the same keys (tests/test_web_words.py)."""
    return json.loads((WORDS / f"{lang}.json").read_text("utf-8"))


def language() -> str:
    """ "zh" or "en": from ``?lang=``, else as chosen earlier in this visit, else the browser's own."""
    asked = st.query_params.get("lang", "")
    if asked in LANGUAGES:
        st.session_state["lang"] = asked
    elif "lang" not in st.session_state:
        st.session_state["lang"] = "zh" if is_chinese(st.context.locale or "") else "en"
    return st.session_state["lang"]


def t(key: str, **values: Any) -> str:
    """The sentence for ``key`` in the visitor's language, with ``{places}`` filled in."""
    sentence = words(language())[key]
    return sentence.format(**values) if values else sentence


def counted(key: str, n: int, **values: Any) -> str:
    """The sentence of n things, in the key's singular where the language has one."""
    return t(f"{key}.one" if n == 1 else key, n=f"{n:,}", **values)


def translated(en: str, zh: str) -> str:
    return Text(en, zh).to(language())


def words_for(*prefixes: str) -> dict[str, str]:
    """The words a component needs: those whose key begins with one of ``prefixes``."""
    return {key: word for key, word in words(language()).items() if key.startswith(prefixes)}


def style_names() -> dict[str, str]:
    return {key: style.name[language()] for key, style in styles().items()}


def model_title(model: ModelSpec) -> str:
    return translated(model.en, model.zh)


def initial(key: str, value: Any) -> str:
    """Give a widget its first value; returns its key. A widget that has both a default and a value in the session makes
    Streamlit print a warning with a stack trace, so no widget here has a default.
    """
    st.session_state.setdefault(key, value)
    return key


# Gallery and queue


@st.cache_resource
def gallery() -> Gallery:
    opened = Gallery()
    opened.database.check()  # a damaged one is only read
    return opened


@st.cache_resource
def queue() -> Queue:
    return Queue(gallery())


def submit(fields: dict[str, Any]) -> Job:
    """Queue a request. Raises ``StarryError`` for what cannot be painted."""
    return queue().submit(validate_request(fields, gallery()))


def request_of(row: Row, anew: bool = False) -> dict[str, Any]:
    """The fields of the request that paints this picture again, from its recipe (``Recipe.request``).

    A picture of another tool gives its prompts and seed only: its steps, guidance and size suit another
    model than the one that paints here.
    """
    recipe = read_own(gallery().recipe(row.id)) or Recipe(
        tool=row.tool, prompt=row.prompt, negative_prompt=row.negative_prompt, seed=row.seed
    )
    return {"prompt": row.prompt, "seed": None} | recipe.request(anew)


def repaint(picture: str, vary: bool, seek: bool = False) -> Job:
    """Queue a picture's request again: unchanged for the same bytes, with ``vary`` for a new seed, or with ``seek`` for up to
    ``TRIES`` new ones, until all that it asks for is seen."""
    vary = vary or seek
    fields = request_of(gallery().get(picture), anew=vary)
    for name in ("init_image", "mask"):
        fields[name] = init_image_reference(fields.get(name))
    if not fields["init_image"]:
        for name in ("strength", "mask", "extend"):  # only valid beside an init_image
            fields.pop(name, None)
    more = {"until_seen": TRIES, "count": 1} if seek else {}
    return submit(fields | ({"seed": None} if vary else {}) | more)


def init_image_reference(path: object) -> str | None:
    """``upload:ID`` or ``picture:ID`` for the file a recipe started from; None if it is neither.

    The queue takes no path from a browser, so a file elsewhere on this machine cannot be used again here.
    """
    found = _STORED_IMAGE.search(path) if isinstance(path, str) else None
    return f"{UPLOAD if found[1] else PICTURE}{found[2]}" if found else None


def jobs_in_address(ids: str) -> list[Job]:
    """The jobs in ``?job=``, separated by dots; unknown ones are left out. Raises ``StarryError`` if none is left."""
    found: list[Job] = []
    unknown: StarryError | None = None
    for name in ids.split(".")[:MAX_JOBS] if ids else ():
        try:
            found.append(queue().get(name))
        except StarryError as error:
            unknown = unknown or error
    if unknown and not found:
        raise unknown
    return found


# Navigation and errors


def uncut(callback: Callable[..., None]) -> Callable[..., None]:
    """A widget's callback that no later event of the page cuts off.

    Once another event has arrived, Streamlit starts the script again at its next access to the session, within a callback
    too, and a press is lost. ``SafeSessionState`` looks for later events in ``_yield_callback``; during the
    callback it does not.
    """

    @wraps(callback)
    def whole(*values: Any) -> None:
        context = get_script_run_ctx()
        session = context.session_state if context else None
        look = getattr(session, "_yield_callback", None)
        if look is None:
            return callback(*values)
        object.__setattr__(
            session, "_yield_callback", lambda: None
        )  # it passes on what is set in the usual way
        try:
            callback(*values)
        finally:
            object.__setattr__(session, "_yield_callback", look)

    return whole


def write_address(name: str, **query: str) -> None:
    """Write a page's address; the script goes on."""
    found = {PAGE: name} | {key: value for key, value in query.items() if value}
    if "lang" in st.query_params:
        found["lang"] = language()
    st.query_params.from_dict(found)


def open_page(name: str, **query: str) -> NoReturn:
    """Write a page's address and start the script again with it."""
    write_address(name, **query)
    st.rerun()


@st.cache_resource(show_spinner=False)
def spare_collection() -> None:
    """Streamlit collects garbage after every run, while all threads wait: with all that is imported for 0.1 s and more. What is
    there after the first run stays for good, and need not be looked at again.
    """
    gc.collect()
    gc.freeze()


def show_error(error: StarryError) -> None:
    """The error's sentence in the visitor's language. As plain text, because it may quote what was typed."""
    with st.container(key="error"):
        st.text(f"✦ {error.message(language())}")


def tell_failure(error: Exception) -> bool:
    """An error that is no ``StarryError``, in a page or in a widget's callback: one sentence, and the stack in the log.
    True: Streamlit shows nothing of its own.
    """
    log.error("a page failed", exc_info=error)
    st.text(f"✦ {t('failed')}")
    return True

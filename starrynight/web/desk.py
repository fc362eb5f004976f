"""What the rooms share of the house: one gallery and one queue for the whole server, opened at the first look.

The server that mounts these pages has its own; both read the same database. Knows no widget.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import streamlit as st

from starrynight.errors import StarryError
from starrynight.gallery.schema import Row
from starrynight.gallery.store import Gallery
from starrynight.jobs.job import Job
from starrynight.jobs.queue import Queue
from starrynight.jobs.validate import validate_request
from starrynight.metadata import Recipe
from starrynight.web.language import language

# What "paint again" takes from a recipe as it stands there.
KEPT = ("style", "model", "width", "height", "steps", "guidance", "precision", "loras", "sampler", "strength")


@st.cache_resource
def gallery() -> Gallery:
    return Gallery()


@st.cache_resource
def queue() -> Queue:
    return Queue(gallery())


def submit(words: dict[str, Any]) -> Job:
    """Put a wish into the queue. Raises ``StarryError`` for what cannot be painted."""
    return queue().submit(validate_request(words, gallery()))


def again(picture: str, vary: bool) -> Job:
    """The wish that a picture answers, once more: the same to the last bit, or (``vary``) with another seed."""
    row = gallery().get(picture)
    recipe = gallery().recipe(row.id)
    asked: dict[str, Any] = recipe["request"] if isinstance(recipe.get("request"), dict) else {}
    words = {name: asked[name] for name in KEPT if asked.get(name) is not None}
    words |= {
        "prompt": row.prompt,
        "negative_prompt": row.negative_prompt if not asked else asked.get("negative_prompt"),
    }
    words |= {"seed": None if vary else seed_of(row), "init_image": first_picture(asked.get("init_image"))}
    if not words["init_image"]:
        words.pop("strength", None)
    return submit(words)


def seed_of(row: Row) -> int | None:
    """The seed that starts this picture here, whichever tool painted it."""
    return Recipe(tool=row.tool, seed=row.seed).effective_seed


def first_picture(path: object) -> str | None:
    """A recipe names the file it began from; the queue takes only what was uploaded or hangs here."""
    found = (
        re.search(r"([/\\\\]uploads[/\\\\])?([0-9a-f]{32})\.\w+$", path) if isinstance(path, str) else None
    )
    return f"{'upload' if found[1] else 'picture'}:{found[2]}" if found else None


def jobs_of(asked: str) -> list[Job]:
    """The jobs that ``?job=`` names, dots between; those that are not there are left out."""
    found = []
    for name in asked.split(".")[:20]:
        try:
            found.append(queue().get(name))
        except StarryError:
            continue
    return found


def go(room: str, **query: str) -> NoReturn:
    """To another room of the house: a new address, and the page begins again."""
    found = {"room": room} | {name: value for name, value in query.items() if value}
    if "lang" in st.query_params:
        found["lang"] = language()
    st.query_params.from_dict(found)
    st.rerun()


def complain(error: StarryError) -> None:
    """One sentence, where the visitor is looking; text, for it may quote what was typed."""
    with st.container(key="complaint"):
        st.text(f"✦ {error.message(language())}")

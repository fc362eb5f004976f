"""The picture that a painting begins from: a picture of the gallery or an upload, its mask, and the sides it is extended by.

The session keeps what the page submits: ``start`` ("picture:ID" or "upload:ID"), ``start_mask`` ("upload:ID") and
``start_extend`` (left, top, right, bottom, in pixels). With a mask or an extension the new picture has the first one's own
size, because what is kept is kept to the bit; else the form's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.i18n import Text
from starrynight.jobs.uploads import Uploads
from starrynight.jobs.validate import PICTURE, UPLOAD
from starrynight.metadata.pixels import notes, read_pixels
from starrynight.models.catalogue import ModelSpec
from starrynight.request import HIGHEST_SIZE
from starrynight.senses.choice import BUILT_IN, OFF, Choice, chosen
from starrynight.senses.eyes import Eyes
from starrynight.text import excerpt
from starrynight.web import components, shared
from starrynight.web.shared import initial, language, t, uncut, words_for

SUFFIXES = ["png", "jpg", "jpeg", "webp", "avif", "gif", "bmp", "tif", "tiff", "jp2", "heic", "heif"]
NOWHERE = (0, 0, 0, 0)
STRENGTH, REPAINTED = 0.6, 1.0  # of a whole picture, and within a mask or around a picture (studio.REPAINTED)
_REFERENCE = re.compile(rf"({PICTURE}|{UPLOAD})[0-9a-f]{{4,32}}")


def reference(value: object) -> str | None:
    """``value``, if it names a picture of the gallery or an upload as a request does."""
    return value if isinstance(value, str) and _REFERENCE.fullmatch(value) else None


def begin(start: str | None, mask: str | None = None, extend: object = None) -> None:
    """Begin the next painting from ``start``; None from nothing."""
    state = st.session_state
    state["start"] = reference(start)
    state["start_mask"] = reference(mask) if state["start"] else None
    state["start_extend"] = _sides(extend) if state["start"] else NOWHERE
    for name in ("start_notes", "start_seen"):
        state.pop(name, None)
    state["strength"] = REPAINTED if is_partial() else STRENGTH


def fill(fields: Mapping[str, Any]) -> None:
    """Begin as a request did, whose files are named by reference or, in a recipe, by path."""
    start, mask = (
        reference(fields.get(name)) or shared.init_image_reference(fields.get(name))
        for name in ("init_image", "mask")
    )
    begin(start, mask, fields.get("extend"))
    strength = fields.get("strength")
    if start and isinstance(strength, int | float) and 0 < strength <= 1:
        st.session_state["strength"] = max(round(strength / 0.05) * 0.05, 0.05)


def _sides(value: object) -> tuple[int, ...]:
    if isinstance(value, str):  # as a draft keeps it
        value = [int(part) for part in value.split(".") if re.fullmatch(r"[0-9]{1,5}", part)]
    sides = value if isinstance(value, list | tuple) else ()
    whole = [one for one in sides if isinstance(one, int) and 0 <= one <= HIGHEST_SIZE]
    return tuple(whole) if len(whole) == len(sides) == len(NOWHERE) else NOWHERE


def is_partial() -> bool:
    """Whether only a part is painted: inside a mask, or around the first picture."""
    state = st.session_state
    return bool(state.get("start_mask") or any(state.get("start_extend", NOWHERE)))


def fields() -> dict[str, Any]:
    """What a request says of its first picture; with a part to paint, no size."""
    state, start = st.session_state, st.session_state.get("start")
    if not start:
        return {}
    extend = state.get("start_extend", NOWHERE)
    found = {
        "init_image": start, "mask": state.get("start_mask"), "extend": list(extend) if any(extend) else None,
        "strength": state.get("strength", STRENGTH),
    }  # fmt: skip
    return found | ({"width": None, "height": None} if is_partial() else {})


def draft() -> dict[str, str]:
    """For the browser's draft, which keeps texts and numbers."""
    state = st.session_state
    extend = ".".join(map(str, state.get("start_extend", NOWHERE)))
    return {"init_image": state.get("start") or "", "mask": state.get("start_mask") or "", "extend": extend}


def panel(model: ModelSpec) -> None:
    """The first picture on its new canvas, and how much of it is painted anew; nothing without one."""
    state = st.session_state
    if not state.get("start"):
        return
    components.origin(
        key="origin",
        data={
            "start": state["start"], "mask": state.get("start_mask") or "", "extend": list(state.get("start_extend", NOWHERE)),
            "largest": model.largest, "multiple": model.multiple, "lang": language(),
            "words": words_for("origin", "brush", "offline"),
        },
        on_change_change=uncut(lambda: _change(st.session_state["origin"].change)),
    )  # fmt: skip
    st.slider(
        t("strength"), 0.05, 1.0, step=0.05, key=initial("strength", STRENGTH), persist_state="session",
        help=t("strength.mask" if is_partial() else "strength.help"),
    )  # fmt: skip
    for note in state.get("start_notes", ()):
        st.caption(note.to(language()))
    if (seen := state.get("start_seen")) is not None:
        words = seen.to(language())
        if not words:
            st.caption(t("origin.unseen"))
        elif words != str(state.get("prompt") or "").strip():
            st.button(t("origin.words", words=excerpt(words)), key="start-words", on_click=_use_words)


def _seen(data: bytes) -> Text | None:
    """Words that paint such a picture, by the perceiver; empty where it cannot tell, None where the eyes are off or missing."""
    pixels = read_pixels(data)
    with suppress(StarryError):
        if chosen("eyes").kind != OFF:
            return Eyes(Choice("eyes", BUILT_IN)).look(pixels).description.prompt
    return None


@uncut
def _use_words() -> None:
    """Write what the first picture shows into the prompt, where anything can be told."""
    seen = st.session_state.get("start_seen")
    if seen is not None and (words := seen.to(language())):
        st.session_state["prompt"] = words


def _change(change: object) -> None:
    """What the panel sent, which may be anything."""
    state, was_partial = st.session_state, is_partial()
    if not isinstance(change, dict):
        return
    kind, value = change.get("kind"), change.get("value")
    if kind == "remove":
        begin(None)
    elif kind == "mask":
        state["start_mask"] = reference(value)
    elif kind == "extend":
        state["start_extend"] = _sides(value)
    if is_partial() != was_partial:
        state["strength"] = REPAINTED if is_partial() else STRENGTH


def uploader() -> None:
    """Where a picture is dropped to begin from. A broken file is reported at once; a good one moves to the panel."""
    state = st.session_state
    key = f"dropped/{state.get('drops', 0)}"
    st.file_uploader(
        t("init"), SUFFIXES, key=key, help=t("init.help"), max_upload_size=32, on_change=_take, args=(key,)
    )
    if error := state.get("drop_failed"):
        st.text(f"✦ {error.message(language())}")


@uncut
def _take(key: str) -> None:
    state = st.session_state
    state.pop("drop_failed", None)
    if (dropped := state.get(key)) is None:
        return
    try:
        data = dropped.getvalue()
        name, _, _ = Uploads().save(data)
        unread = notes(data)
        state["start_seen"] = _seen(data)
    except StarryError as error:
        state["drop_failed"] = error
        return
    seen = state.pop("start_seen")
    begin(f"{UPLOAD}{name}")
    state["start_notes"], state["start_seen"] = unread, seen
    if not str(state.get("prompt") or "").strip():
        _use_words()
    state["drops"] = state.get("drops", 0) + 1  # another widget: this one gives the file's memory back

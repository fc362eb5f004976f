"""The LoRAs of the form: chosen by picture or name, weighted, and sent to this machine; and the preview of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from starrynight.errors import StarryError
from starrynight.metadata import thumbnails
from starrynight.models import catalogue, lora, lora_upload, previews
from starrynight.request import MAX_LORAS
from starrynight.settings import settings
from starrynight.text import excerpt
from starrynight.web import choices, components
from starrynight.web.shared import language, t, uncut

SHOWN = 60  # LoRAs whose preview is looked for: each opens a file
MAX_MB = 400  # of an upload: the browser's file is held in memory
LOWEST, HIGHEST = -2.0, 2.0


def show() -> None:
    """The choice of LoRAs with a slider each, and where further ones come from."""
    titles = choices.loras()
    keep: dict[str, Any] = {"persist_state": "session"}
    if sent := st.session_state.pop(
        "loras_next", None
    ):  # a widget's value may only be set before it is drawn
        st.session_state["loras"] = [*st.session_state.get("loras", []), sent][:MAX_LORAS]
    chosen = []
    if titles:
        _cards(titles)
        chosen = st.multiselect(
            t("lora"), titles, key="loras", max_selections=MAX_LORAS,
            format_func=lambda name: titles.get(name, name), **keep,
        )  # fmt: skip
    drawn = [name for name in st.session_state.get("loras-drawn", ()) if name in chosen]
    for name in chosen:
        key = f"lora/{name}"
        if (
            name not in drawn or key not in st.session_state
        ):  # written anew, or a slider that comes back may start at its lowest value
            st.session_state[key] = st.session_state.get(key, 1.0)
        st.slider(titles.get(name, name), LOWEST, HIGHEST, step=0.05, key=key, **keep)
    st.session_state["loras-drawn"] = list(chosen)
    if chosen:
        st.checkbox(t("lora.partial"), key="lora_partial", help=t("lora.partial.help"), **keep)
    _upload()


def _cards(titles: dict[str, str]) -> None:
    """The LoRAs that have a preview, as small pictures to press."""
    pictures = {name: found for name in list(titles)[:SHOWN] if (found := _picture_of_lora(name))}
    if not pictures:
        return
    st.session_state.setdefault("loras", [])
    components.loras(
        key="lora-cards",
        data={
            "items": [
                {"key": name, "name": titles[name], "picture": found} for name, found in pictures.items()
            ],
            "chosen": list(st.session_state["loras"]),
            "label": t("lora"),
        },
        on_toggle_change=_toggle,
    )


@uncut
def _toggle() -> None:
    name, chosen = st.session_state["lora-cards"].toggle, list(st.session_state.get("loras", []))
    if name in chosen:
        chosen.remove(name)
    elif isinstance(name, str) and name in choices.loras() and len(chosen) < MAX_LORAS:
        chosen.append(name)
    st.session_state["loras"] = chosen


def _picture_of_lora(name: str) -> str | None:
    try:
        return _picture(lora.find(name))
    except StarryError:
        return None


def picture_of_model(name: str) -> str | None:
    """The preview of a model as a data URI; None without one."""
    try:
        path = catalogue.find(name).path
        return _picture(path) if path.exists() else None
    except (StarryError, OSError):
        return None


def _picture(path: Path) -> str | None:
    beside = previews.beside(path)
    return _small(str(path), (beside or path).stat().st_mtime_ns)


@st.cache_data(max_entries=500, show_spinner=False)
def _small(path: str, changed: int) -> str | None:  # ``changed`` is a part of the key
    return thumbnails.data_uri(previews.find(Path(path)))


def _upload() -> None:
    """A .safetensors file from the visitor, kept for all; and where the operator puts others."""
    sent = st.file_uploader(
        t("lora.send"), type=["safetensors"], key="lora-file", max_upload_size=MAX_MB,
        help=t("lora.send.help", mb=MAX_MB),
    )  # fmt: skip
    if sent is not None and st.session_state.get("lora-sent") != sent.file_id:
        try:
            name = lora_upload.save(sent.name, sent.getvalue())
        except StarryError as error:
            st.text(f"✦ {error.message(language())}")
        else:
            st.session_state["lora-sent"] = sent.file_id
            st.session_state["loras_next"] = name
            st.rerun()
    st.caption(t("lora.place", folder=excerpt(str(settings().loras))))

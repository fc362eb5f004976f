"""Speaking a prompt: the ears that STARRY_EARS names write down a recording; without any, the browser's own recogniser may, and
says where the voice goes. What was heard lands in the prompt, to be edited; nothing is painted unasked.
"""

from __future__ import annotations

import streamlit as st

from starrynight.errors import StarryError
from starrynight.request import MAX_TEXT
from starrynight.senses import hearing
from starrynight.senses.choice import Choice, chosen
from starrynight.web import components
from starrynight.web.shared import language, t, uncut, words_for


def button() -> None:
    """The microphone and what opens below it. A setting that cannot be read is told there."""
    with st.popover(t("voice"), icon=":material/mic:", key="voice-open", help=t("voice.help")):
        try:
            ears = chosen("ears")
        except StarryError as error:
            st.text(f"✦ {error.message(language())}")
            return
        if ears.can:
            _record(ears)
        components.voice(
            key="voice-browser",
            data={
                "ears": ears.can, "lang": language(), "words": words_for("voice"),
                "how": hearing.SET.to(language()),
            },
            on_heard_change=uncut(lambda: _take(st.session_state["voice-browser"].heard)),
        )  # fmt: skip


def _record(ears: Choice) -> None:
    state = st.session_state
    st.audio_input(t("voice.record"), sample_rate=16000, key="voice", on_change=_listen)
    where = ears.remote.host if ears.leaves_this_machine and ears.remote else ""
    st.caption(t("voice.leaves", host=where) if where else t("voice.stays", name=ears.name))
    if error := state.get("voice_failed"):
        st.text(f"✦ {error.message(language())}")


@uncut
def _listen() -> None:
    state = st.session_state
    state.pop("voice_failed", None)
    if (recording := state.get("voice")) is None:
        return
    try:
        _take(hearing.transcribe(recording.getvalue()).text)
    except StarryError as error:
        state["voice_failed"] = error


def _take(heard: object) -> None:
    """Add words to the prompt. What the browser sent may be anything."""
    if not isinstance(heard, str) or not heard.strip():
        return
    before = str(st.session_state.get("prompt") or "").rstrip()
    gap = "" if not before else " " if before[-1].isascii() and heard.strip()[0].isascii() else "，"
    st.session_state["prompt"] = (before + gap + heard.strip())[:MAX_TEXT]

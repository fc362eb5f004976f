"""The studio's prompt: what the model does not know of it, the style that it names, and lines to begin with.

The component ``hints`` watches the text box and asks the server while one types. What it sends comes in callbacks, before
the page is drawn again.
"""

from __future__ import annotations

import streamlit as st

from starrynight.models import catalogue
from starrynight.models.catalogue import ModelSpec
from starrynight.models.vocabulary import Vocabulary
from starrynight.painting.checking import vocabulary_of
from starrynight.request import MAX_TEXT
from starrynight.senses import rewording
from starrynight.senses.facets import KINDS, facets, words_of
from starrynight.web import components
from starrynight.web.shared import LANGUAGES, language, model_title, t, uncut, words, words_for

# Lines to begin with, by their words' key, each with the style that suits it. Those are shown that hold no word which the
# model does not know.
EXAMPLES = {
    "village": "oil", "waterfall": "ukiyoe", "lotus": "monet", "snow": "ink", "lighthouse": "pastel", "paper": "papercut",
    "lanterns": "watercolor", "city": "cyberpunk", "apsara": "dunhuang", "sunflowers": "pointillism",
}  # fmt: skip


def hints(model: ModelSpec) -> None:
    """Below the prompt: words that the model does not know, told while one types, and lines to begin with."""
    lang = language()
    known = vocabulary_of(model)
    lines = lines_to_begin(known, lang)
    components.hints(
        key="hints",
        data={
            "model": model.name, "name": model_title(model).split("，" if lang == "zh" else ",")[0],
            "lang": lang,
            "prompt": st.session_state.get("prompt", ""), "words": words_for("hint", "list", "facet"),
            "examples": [
                {"key": key, "text": line, "picture": f"/app/static/styles/{EXAMPLES[key]}.webp"}
                for key, line in lines.items()
            ],
            "facets": facet_values(model.name),
        },
        on_facet_change=uncut(lambda: _change_facet(st.session_state["hints"].facet)),
        on_prompt_change=uncut(lambda: _write_prompt(st.session_state["hints"].prompt)),
        on_example_change=uncut(lambda: _choose_example(st.session_state["hints"].example, model)),
        on_named_change=uncut(lambda: follow_prompt(st.session_state["hints"].named)),
    )  # fmt: skip


def lines_to_begin(known: Vocabulary | None, lang: str) -> dict[str, str]:
    """The lines of ``EXAMPLES`` in which the model knows every word; all, if it does not say what it knows."""
    lines = {key: words(lang)[f"example.{key}"] for key in EXAMPLES}
    return {key: line for key, line in lines.items() if known is None or not known.unknown(line)}


@st.cache_data(max_entries=20, show_spinner=False)
def facet_values(model: str) -> dict[str, dict[str, list[list[str]]]]:
    """Language → kind of facet → (value, its word) of those that the model knows."""
    known = vocabulary_of(catalogue.find(model))
    return {
        lang: {
            kind: [
                [value, word]
                for value, word in words_of(kind, lang).items()
                if known is None or not known.unknown(word)
            ]
            for kind in KINDS
        }
        for lang in LANGUAGES
    }


def _change_facet(change: object) -> None:
    """Say a facet of the prompt otherwise, or leave it out. What the component sent may be anything."""
    if not isinstance(change, dict) or not isinstance(prompt := change.get("prompt"), str):
        return
    value, start = change.get("value"), change.get("start")
    asked = change.get("kind"), change.get("text")
    same = [span for span in facets(prompt[:MAX_TEXT]) if (span.kind, span.text) == asked]
    if not same or not isinstance(start, int):
        return
    span = min(
        same, key=lambda one: abs(one.start - start)
    )  # the words may have moved since the chip was drawn
    if value is None:
        _write_prompt(rewording.without(prompt, span))
    elif value in words_of(span.kind, rewording.language_of(span)):
        _write_prompt(rewording.changed(prompt, span, value))


def _write_prompt(prompt: str | None) -> None:
    if prompt is not None:
        st.session_state["prompt"] = prompt[:MAX_TEXT]


def _choose_example(key: str | None, model: ModelSpec) -> None:
    if key in EXAMPLES:
        prompt = t(f"example.{key}")
        st.session_state["prompt"], st.session_state["style_next"] = prompt, EXAMPLES[key]
        st.session_state["style_named"] = named_style(prompt, model)


def named_style(prompt: str, model: ModelSpec) -> str:
    """The first style that the prompt names, if the model has a vocabulary; else empty."""
    known = vocabulary_of(model)
    return next(iter(known.styles_named(prompt)), "") if known else ""


def follow_prompt(named: str | None) -> None:
    """Light the card of the style that the prompt names; when it names none any more, the earlier card."""
    state = st.session_state
    before, named = state.get("style_named", ""), named or ""
    if named == before:
        return
    state["style_named"] = named
    current = state.get("style", "")
    if not before:
        state["style_before"] = state.get("style_chosen")
    if named:
        state["style_next"] = named
    elif current == before:
        state["style_chosen"] = state.pop("style_before", None)

"""A prompt with one of its facets said otherwise, or not at all: 星夜下的村庄 → 黄昏下的村庄 → 村庄.

The rest of the text stays as it is, but for what held the words: commas, and in English articles and prepositions.
"""

from __future__ import annotations

import re

from starrynight.models.wording import HAN_RUN
from starrynight.senses.facets import Span, kind_of, words_of

_PREPOSITION = re.compile(
    r"^(?:in the style of|at|in|by|on|under|over|with|during|of)\s+(?:(?:the|an?)\s+)?", re.I
)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.I)
# Before a gap: what would be left hanging there; after it: what would begin a text.
_HANGING = re.compile(
    r"(?:\b(?:in the style of|at|in|by|on|under|over|with|during|of|and|the|an?)\s*)+$|(?:[上下里中间]的|[的和与在])+$",
    re.I,
)
_LEADING = re.compile(r"^(?:\s*(?:and|with|over|under|of)\b\s*)+|^(?:[上下里中间]的|[的和与])+", re.I)
_COMMAS = ",，、;；"
_IN = {"night": "at ", "dusk": "at ", "dawn": "at ", "noon": "in ", "clear": ""}  # else "in the"


def language_of(span: Span) -> str:
    return "zh" if HAN_RUN.search(span.text) else "en"


def changed(text: str, span: Span, value: str) -> str:
    """``text`` with another value of the span's kind, in the span's language. Raises KeyError for a value that has no word."""
    kind, language = kind_of(span.kind), language_of(span)
    phrase = words_of(kind, language)[value]
    before, after = text[: span.start], text[span.end :]
    if language == "zh":
        at_that_time = (
            kind == "time" and re.match("[下里中]的", after) is not None
        )  # 星夜下的村庄, 黄昏的村庄
        return before + phrase + after[at_that_time:]
    if _PREPOSITION.match(span.text) and not _PREPOSITION.match(phrase):
        bare = _ARTICLE.match(phrase) is not None
        lead = {"time": _IN, "weather": _IN}.get(kind, {}).get(value, "in " if bare else "in the ")
        if kind in ("style", "thing") or not lead:
            before, lead = _ended(before), ""
        phrase = lead + phrase
    elif found := re.search(r"\b(an?|the)\s+$", before, re.I):
        phrase = _ARTICLE.sub("", phrase)
        if found[1].lower() != "the":
            fitting = "an" if phrase[:1].lower() in "aeiou" else "a"
            article = fitting.capitalize() if found[1][0].isupper() else fitting
            before = before[: found.start()] + article + " "
    return before + phrase + after


def _ended(before: str) -> str:
    """A text that a comma parts from what follows."""
    plain = before.rstrip()
    return before if not plain or plain[-1] in _COMMAS else f"{plain}, "


def without(text: str, span: Span) -> str:
    """``text`` without the span, and without what led to it."""
    before, after = text[: span.start], text[span.end :]
    before = _HANGING.sub("", before).rstrip()
    if not before or before[-1] in _COMMAS:
        after = _LEADING.sub("", after.lstrip()).lstrip(_COMMAS + " ")
    elif HAN_RUN.search(span.text) and after[:1] not in _COMMAS:
        after = _LEADING.sub("", after)
    if not after.strip():
        return before.rstrip(_COMMAS + " ")
    parted = before[-1:] == "," or (before[-1:].isascii() and after.lstrip()[0].isascii())
    gap = " " if before and parted and after[0] not in _COMMAS else ""
    return before + gap + after.lstrip()

"""A prompt's facets said otherwise or left out: the new value is read where the old one stood, the others stay, and nothing hangs."""

from __future__ import annotations

import re

import pytest

from starrynight.senses import rewording
from starrynight.senses.facets import KINDS, Span, facets, words_of

PROMPTS = (
    "a starry night over a quiet village", "a lighthouse at dusk, in the style of van gogh", "a fox and a deer in the snow",
    "a lonely boat in the snow", "a van gogh painting of a boat", "An oil painting of a windmill in the rain", "in the mist, a bridge",
    "a lighthouse by the sea at dawn", "星夜下的静谧村庄，梵高风格", "江雪，孤舟，远山", "雨夜的霓虹都市", "清晨的睡莲池上，有一座拱桥",
)  # fmt: skip


def cases() -> list[tuple[str, Span]]:
    return [(text, span) for text in PROMPTS for span in facets(text)]


@pytest.mark.parametrize(("text", "span"), cases(), ids=lambda one: getattr(one, "text", None))
def test_every_value_of_a_kind_is_read_where_the_old_one_stood(text: str, span: Span) -> None:
    others = [(one.kind, one.value) for one in facets(text) if one != span]
    for value in words_of(span.kind, rewording.language_of(span)):
        told = rewording.changed(text, span, value)
        read = [(one.kind, one.value) for one in facets(told)]
        assert (span.kind, value) in read, told
        missing = [one for one in others if one not in read]
        assert len(missing) <= 1, (told, read)  # two neighbours may make a longer word
        assert not re.search(r"\b(an?|the) (an?|the)\b|\ba [aeiou]|,,|  | ,", told), told


@pytest.mark.parametrize(("text", "span"), cases(), ids=lambda one: getattr(one, "text", None))
def test_what_is_left_out_leaves_nothing_hanging(text: str, span: Span) -> None:
    told = rewording.without(text, span)
    assert span not in [one for one in facets(told) if one.text == span.text and one.start == span.start]
    assert not re.search(
        r"(^|[,，、])\s*([,，、]|$)|  | ,|^(and|of|with)\b|\b(a|an|the|at|in|by|of|and)$|^[的和与]|的$", told
    ), told


@pytest.mark.parametrize(
    ("text", "words", "value", "told"),
    [
        ("a lighthouse at dusk, oil painting", "at dusk", "dawn", "a lighthouse at dawn, oil painting"),
        ("a lighthouse at dusk, oil painting", "at dusk", None, "a lighthouse, oil painting"),
        ("a fox and a deer in the snow", "a fox", None, "a deer in the snow"),
        ("a fox and a deer in the snow", "a deer", None, "a fox in the snow"),
        ("a fox and a deer in the snow", "in the snow", "rain", "a fox and a deer in the rain"),
        ("a boat in the style of van gogh", "in the style of van gogh", "ink", "a boat, ink wash"),
        ("a van gogh painting of a boat", "van gogh", "ink", "an ink wash painting of a boat"),
        ("星夜下的静谧村庄，梵高风格", "星夜", "dusk", "黄昏的静谧村庄，梵高风格"),
        ("星夜下的静谧村庄，梵高风格", "星夜", None, "静谧村庄，梵高风格"),
        ("星夜下的静谧村庄，梵高风格", "梵高风格", None, "星夜下的静谧村庄"),
        ("江雪，孤舟，远山", "孤舟", None, "江雪，远山"),
        ("江雪", "江雪", None, ""),
    ],
)
def test_sentences_stay_sentences(text: str, words: str, value: str | None, told: str) -> None:
    (span,) = (one for one in facets(text) if one.text == words)
    assert (rewording.without(text, span) if value is None else rewording.changed(text, span, value)) == told


def test_every_kind_has_words_in_both_languages() -> None:
    assert all(len(words_of(kind, language)) >= 4 for kind in KINDS for language in ("zh", "en"))

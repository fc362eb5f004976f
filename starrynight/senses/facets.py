"""Facets: the words of a text that name a style, a time, a weather, a place or a thing, found by an exact lexicon.

The lexicon is the product's vocabulary: every phrase that Firefly's captions have for a fact, in Chinese and English, and
further words for the same facts in facet_words.json. Latin words are matched whole and in either number, so "sunflowers" has no
sun; a sign within a Chinese word that no caption has names nothing, so 花瓶 has no 花; where phrases overlap the longest stands,
so 星夜村庄 is 星夜 and 村庄. What a text says is not there ("no moon") is no facet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from starrynight.errors import BadRequest
from starrynight.firefly.training import captions
from starrynight.i18n import LANGUAGES, Text
from starrynight.models.vocabulary import Vocabulary
from starrynight.models.wording import TOKEN, PhraseBook, simplified, stem, tokens
from starrynight.text import excerpt

# The kinds of facets, in the order in which a page lists them.
KINDS: dict[str, Text] = {
    "style": Text("style", "风格"),
    "time": Text("time", "时间"),
    "weather": Text("weather", "天气"),
    "place": Text("place", "地点"),
    "thing": Text("thing", "事物"),
}
# What else callers call them.
_ALSO = {
    "hour": "time", "location": "place", "subject": "thing", "object": "thing",
    "时刻": "time", "地方": "place", "景物": "thing", "物体": "thing", "主题": "thing",
}  # fmt: skip
# Subjects of the captions that are places, and two that are a weather; kinds of scenes that are no place.
_PLACES = frozenset(
    {"village", "mountains", "river", "lake", "sea", "skyline", "street", "harbour", "island", "desert"}
)
_WEATHERS = frozenset({"rain", "snow"})
_NO_PLACES = frozenset({"apsara", "sunflowers", "portrait", "creature"})
# Before a phrase these words say that the thing is not there.
_WITHOUT = frozenset({"no", "without", "无", "没有", "不要", "沒有"})
_POSSESSIVE = re.compile("['’]s$")


@dataclass(frozen=True)
class Span:
    """``text``, the part of the text from ``start`` to ``end`` (Unicode code points), names ``value``, a fact of the captions such
    as "dusk" or "oil" ("" for an open word). ``kind``: one of ``KINDS``, or the name that a schema has for it.
    """

    kind: str
    text: str
    start: int
    end: int
    value: str


@dataclass(frozen=True)
class Words:
    """The words of a text as phrases are matched: in lower case, Latin ones without the endings of plurals and without 's.
    ``starts`` and ``ends``: where each stands in the text, in code points.
    """

    words: tuple[str, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


def facets(text: str, schema: Iterable[str] | None = None) -> tuple[Span, ...]:
    """The facets of ``text`` in their order there; they do not overlap. ``schema``: the kinds that are wanted, by their names in
    either language; None is all. Raises BadRequest for a name that is no kind, and for two names of one.
    """
    wanted = dict(zip(KINDS, KINDS, strict=True)) if schema is None else _wanted(schema)
    words = read(text, _vocabulary())
    found = [
        (words.starts[start], words.ends[end - 1], meaning)
        for start, end, meaning in _book().everywhere(words.words)
        if not negated(words.words[:start])
    ]
    spans = [
        Span(wanted[kind], text[start:end], start, end, value)
        for start, end, meaning in _longest(found)
        for kind, _, value in [next(iter(meaning)).partition(":")]
        if kind in wanted
    ]
    return tuple(sorted(spans, key=lambda span: span.start))


def _wanted(schema: Iterable[str]) -> dict[str, str]:
    """The names of kinds by the kinds that they mean. Raises BadRequest for two names of one kind."""
    found: dict[str, str] = {}
    for name in schema:
        kind = kind_of(name)
        if kind in found:
            raise BadRequest(
                f"“{excerpt(name)}” and “{excerpt(found[kind])}” are one kind of facet; name it once.",
                f"“{excerpt(name)}”和“{excerpt(found[kind])}”是同一种要素；请只写一次。",
                "schema",
            )
        found[kind] = name
    return found


def kind_of(name: str) -> str:
    """The kind with this name in either language. Raises BadRequest."""
    plain = name.strip().lower()
    known = _ALSO | {word: kind for kind, words in KINDS.items() for word in (kind, *words)}
    if plain not in known:
        shown = excerpt(name)
        raise BadRequest(
            f"There is no facet “{shown}”; these are known: {', '.join(KINDS)}.",
            f"没有“{shown}”这种要素；可用的有：{'、'.join(text.zh for text in KINDS.values())}。",
            "schema",
        )
    return known[plain]


@cache
def words_of(kind: str, language: str) -> dict[str, str]:
    """What to call each value of a kind in ``language`` ("zh" or "en"): its first phrase that means this value alone."""
    found: dict[str, str] = {}
    for one, value, phrases in _entries():
        for phrase in phrases[language] if one == kind else ():
            if [(span.kind, span.text, span.value) for span in facets(phrase)] == [(kind, phrase, value)]:
                found.setdefault(value, phrase)
    return found


def read(text: str, vocabulary: Vocabulary) -> Words:
    """The words of ``text``. What stays unknown to ``vocabulary`` of a Chinese sentence stands there as "□"."""
    text = simplified(text)
    unknown = [place for start, end in vocabulary.unknown_at(text) for place in range(start, end)]
    strange, found = frozenset(unknown), []
    for token in TOKEN.finditer(text):
        word = _POSSESSIVE.sub("", token.group())
        end = token.start() + len(word)
        found.append(("□" if token.start() in strange else singular(word), token.start(), end))
    words, starts, ends = zip(*found, strict=True) if found else ((), (), ())
    return Words(words, starts, ends)


def singular(text: str) -> str:
    """``text`` in lower case, its Latin words without the endings of plurals."""
    return re.sub("[a-z]+", lambda word: stem(word.group()), text.lower())


def negated(before: Sequence[str]) -> bool:
    """Whether the words before a phrase say that the thing is not there."""
    return bool(before) and (before[-1] in _WITHOUT or "".join(before[-2:]) in _WITHOUT)


def _longest(
    found: Iterable[tuple[int, int, frozenset[str]]],
) -> Iterator[tuple[int, int, frozenset[str]]]:
    """Those that stay when of two that overlap the longer stays, of equally long ones the first."""
    taken: set[int] = set()
    for start, end, meaning in sorted(found, key=lambda one: (one[0] - one[1], one[0])):
        if taken.isdisjoint(range(start, end)):
            taken.update(range(start, end))
            yield start, end, meaning


@cache
def _further() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "facet_words.json").read_text("utf-8"))


@cache
def _entries() -> tuple[tuple[str, str, Mapping[str, Sequence[str]]], ...]:
    """Kind, value and phrases by language; where a phrase stands twice, the first means it."""
    vocabulary = captions.vocabulary()
    things = vocabulary.things.items()
    found = [
        *(("style", name, phrases) for name, phrases in vocabulary.styles.items()),
        *(("time", name, phrases) for name, phrases in vocabulary.hours.items()),
        *(("weather", name, phrases) for name, phrases in vocabulary.weathers.items()),
        *(("weather", name, phrases) for name, phrases in things if name in _WEATHERS),
        *(("place", name, phrases) for name, phrases in things if name in _PLACES),
        *((_kind_of_scene(name), name, phrases) for name, phrases in vocabulary.kinds.items()),
    ]
    found += [(kind, name, phrases) for kind, some in _further().items() for name, phrases in some.items()]
    rest = _PLACES | _WEATHERS
    found += [("thing", name, phrases) for name, phrases in things if name not in rest]
    order = [*KINDS, "none"]  # words within which a shorter phrase names nothing
    return tuple(sorted(found, key=lambda entry: order.index(entry[0])))


def _kind_of_scene(name: str) -> str:
    return "thing" if name in _NO_PLACES else "weather" if name in _WEATHERS else "place"


@cache
def _book() -> PhraseBook:
    """Every phrase with the one thing that it means, "kind:value"."""
    meanings: dict[tuple[str, ...], tuple[str, str]] = {}
    for kind, value, phrases in _entries():
        for language in LANGUAGES:
            for phrase in phrases[language]:
                plain = singular(phrase)
                meanings.setdefault(tokens(plain), (plain, f"{kind}:{value}"))
    return PhraseBook((phrase, (meaning,)) for phrase, meaning in meanings.values())


@cache
def _vocabulary() -> Vocabulary:
    """The captions' vocabulary, to which the further words are known too."""
    found = captions.vocabulary()
    more = [phrases for some in _further().values() for phrases in some.values()]
    lines = {
        language: [*found.lines[language], *(phrase for phrases in more for phrase in phrases[language])]
        for language in LANGUAGES
    }
    return replace(found, lines=lines)

"""A text in the words that the perceiver has read: synonyms in place of what captions never say, and no empty words.

Captions are written in plain words, people search with others: 扁舟 for a boat, 夕照 for dusk, "kitten" for a cat.
``synonyms.json`` has, for each fact, words that mean it in poems and in everyday speech; a Latin one with hyphens stands for
words beside each other. Where neither captions nor these have a word, the table of near words helps (see ``models.wording``),
and what is still unknown is left out and counted.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from starrynight.firefly.training import captions
from starrynight.i18n import LANGUAGES
from starrynight.models.vocabulary import Vocabulary, near_names
from starrynight.models.wording import PhraseBook, tokens
from starrynight.senses.facets import singular

_TABLES = ("thing", "kind", "style", "hour", "weather")
_NEAR = 2  # facts that a word near to several stands for at most


class Understood(NamedTuple):
    """``text``: in the captions' words, "" where nothing is known. ``known``: the share of the words that say what to see that are."""

    text: str
    known: float


def understood(text: str) -> Understood:
    """``text`` as captions would say it; a caption is left as it is."""
    clear = _with_synonyms(text)
    unknown = 0
    for word in _vocabulary().unknown(clear):
        names = [name for name in near_names(word) if name in _phrases()][:_NEAR]
        clear = clear.replace(word, f" {_said(names, word)} ", 1)
        unknown += not names
    known = len(list(_known().find(tokens(singular(clear)))))
    return Understood(" ".join(clear.split()), known / max(1, known + unknown))


def _with_synonyms(text: str) -> str:
    """``text`` with every synonym, the longest first, replaced by the first phrase for its fact; caption phrases stay."""
    words = tokens(text)
    found, last = list[str](), 0
    for start, end, meaning in _synonyms().find(tokens(singular(text))):
        if meaning:
            found += [_joined(words[last:start]), _said(sorted(meaning), words[start])]
            last = end
    return " ".join([*found, _joined(words[last:])]) if found else text


def _joined(words: tuple[str, ...]) -> str:
    """Tokens as text: Han characters side by side, others apart."""
    return "".join(word if not word.isascii() else f" {word} " for word in words)


def _said(names: list[str], like: str) -> str:
    """Facts in the language of the word ``like``, between commas."""
    language, comma = ("en", ", ") if like.isascii() else ("zh", "，")
    return comma.join(["", *(_phrases()[name][language] for name in names), ""]) if names else ""


@cache
def _vocabulary() -> Vocabulary:
    return captions.vocabulary()


@cache
def _phrases() -> dict[str, dict[str, str]]:
    """The first phrase of every fact that has one, by language."""
    found: dict[str, dict[str, str]] = {}
    for table in _TABLES:
        for name in captions.PHRASES[table]["en"]:
            some = {language: captions.PHRASES[table][language][name] for language in LANGUAGES}
            if all(some.values()):
                found.setdefault(name, {language: phrases[0] for language, phrases in some.items()})
    return found


@cache
def _known() -> PhraseBook:
    """Every phrase of the captions."""
    return PhraseBook((singular(phrase), ()) for phrase in _vocabulary().phrases)


@cache
def _synonyms() -> PhraseBook:
    """The synonyms with their facts, and the captions' phrases with none."""
    said = {singular(phrase) for phrase in _vocabulary().phrases}
    table = json.loads(Path(__file__).with_name("synonyms.json").read_text("utf-8"))
    words = [
        (singular(word.replace("-", " ")), name) for name, some in table.items() for word in some.split()
    ]
    return PhraseBook(
        [*((word, (name,)) for word, name in words if word not in said), *((one, ()) for one in said)]
    )

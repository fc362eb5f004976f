"""What a prompt asks for, and which of it a picture does not show.

A phrase that stands for one of several things (月亮: the full moon or the crescent) is answered by any of them; a line that
names several (a village with a church) asks for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from starrynight import prompt_syntax
from starrynight.firefly.training import captions
from starrynight.i18n import LANGUAGES
from starrynight.models.vocabulary import Vocabulary
from starrynight.models.wording import PhraseBook
from starrynight.senses.facets import negated, read, singular
from starrynight.senses.facts import THINGS
from starrynight.senses.perceiver import Perceiver, Sight

_EACH = "+"  # before a name that a line states beside others
# Things that painters make look alike. Of these one is not said to be missing where the other is likelier than _LIKELY.
_ALIKE = (("lilies", "lotus"), ("pagoda", "temple"), ("moon", "crescent"))
_LIKELY = 0.35
_LEAST = 1e-4  # a probability below it counts as this one: one thing that is not there does not outweigh all the others


def asked(prompt: str) -> tuple[frozenset[str], ...]:
    """The things that a prompt asks for, in its order: sets of which one is wanted.

    A sign within a Chinese word that captions never use is no thing: 花瓶 asks for no 花, 马路 for no 马.
    """
    words = read(prompt, _vocabulary()).words
    found: list[frozenset[str]] = []
    for start, _, meaning in _book().find(words):
        if negated(words[:start]):
            continue
        either = frozenset(name for name in meaning if not name.startswith(_EACH))
        found += [either] if either else [frozenset({name[1:]}) for name in sorted(meaning)]
    return tuple(dict.fromkeys(one for one in found if one))


def wanted_of(prompt: str) -> frozenset[str]:
    """The things that a prompt asks for, every one of those of which one is wanted."""
    return frozenset().union(*asked(prompt))


def drawn(prompt: str, recipe: Mapping[str, Any]) -> str:
    """``prompt`` as its picture was painted: the choices and wildcards of ``recipe`` (``make_recipe``) in place, without tags."""
    wildcards, seed = recipe.get("wildcards"), recipe.get("seed")
    if isinstance(wildcards, Mapping) and isinstance(wildcards.get("prompt"), str):
        prompt = wildcards["prompt"]
    return prompt_syntax.read(prompt, seed, weighted=False).text if isinstance(seed, int) else prompt


def own(recipe: Mapping[str, Any]) -> bool:
    """Whether a ``recipe`` of this program (``make_recipe``) says that Firefly painted all of the picture."""
    request = recipe.get("request")
    return (
        isinstance(request, Mapping) and request.get("model") == "firefly" and not request.get("init_image")
    )


class Judged(NamedTuple):
    """How much of what a prompt asks for a picture shows. ``missing``: things that are surely not there; ``unsure``: others that
    the perceiver would not name; ``doubt``: minus the logarithm of the probability that all are there, taken as independent.
    """

    missing: tuple[str, ...]
    unsure: tuple[str, ...]
    doubt: float


def judge(prompt: str, perceiver: Perceiver, sight: Sight, own: bool = False) -> Judged:
    """Judge a picture by its prompt. Where the perceiver cannot tell what it shows, the doubt is infinite; everything that was asked for
    is unsure in an ``own`` painting (see ``own``), and nothing in another model's, of which it would not know further ones either.
    """
    wanted = asked(prompt)
    if sight.confidence < perceiver.thresholds.confidence:
        return Judged((), _first(wanted) if own else (), math.inf)
    seen = dict(zip(THINGS, map(float, sight.things), strict=True))
    limits = perceiver.thresholds
    gone = _first(
        one for one in wanted
        if all(seen[name] < limits.absent[name] and not _mistakable(name, seen) for name in one)
    )  # fmt: skip
    unseen = _first(one for one in wanted if all(seen[name] < limits.asked[name] for name in one))
    least = [max(max(seen[name] for name in one), _LEAST) for one in wanted]
    return Judged(gone, tuple(name for name in unseen if name not in gone), -sum(map(math.log, least)))


def _first(wanted: Iterable[frozenset[str]]) -> tuple[str, ...]:
    """One name for each set: the first of THINGS."""
    return tuple(dict.fromkeys(next(name for name in THINGS if name in one) for one in wanted))


def _mistakable(name: str, seen: Mapping[str, float]) -> bool:
    """Whether a thing that looks like the one called ``name`` is likely."""
    return any(seen[other] > _LIKELY for pair in _ALIKE if name in pair for other in pair if other != name)


@cache
def _vocabulary() -> Vocabulary:
    return captions.vocabulary()


@cache
def _book() -> PhraseBook:
    """The phrases of things without plural endings, and the lines, whose things are marked with ``_EACH``; other phrases mean
    nothing here.
    """
    entries: list[tuple[str, frozenset[str]]] = []
    things = frozenset(THINGS)
    for language in LANGUAGES:
        for table, meaning in (("thing", True), ("counted", True), ("style", False), ("hour", False)):
            for name, phrases in captions.PHRASES[table][language].items():
                entries += [(phrase, frozenset({name} if meaning else ())) for phrase in phrases]
    taken = {phrase for phrase, _ in entries}
    for language in LANGUAGES:
        for needs, lines in captions.PHRASES["line"][language]:
            each = frozenset(_EACH + name for name in needs.split() if name in things)
            entries += [(line, each) for line in lines if line not in taken]
    return PhraseBook((singular(phrase), meaning) for phrase, meaning in entries)

"""Sentences about a picture from what the perceiver saw: alt text, a caption, and a prompt that would paint such a picture.

Only what passed its threshold is said, in the phrases of the training captions, so every sentence is fluent in both languages
and names nothing else. The same facts always give the same sentences.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from starrynight.firefly.drawing.scene import GROUPS
from starrynight.firefly.training import captions
from starrynight.i18n import LANGUAGES, Text
from starrynight.senses.facts import CHOICES, THINGS
from starrynight.senses.perceiver import Perceiver, Sight

_NOTHING = Text("", "")
_NAMED = 5  # things that a sentence names at most
_RIVAL = 0.35  # from this probability on a thing keeps its rivals from being named
# Single things whose first English phrase has no article.
_SINGLE = ("moon", "crescent", "cypress")
_FIGURES = frozenset(captions.FIGURES)
# Kinds of scenes whose name says no more than "something is seen from near".
_FIGURE_KINDS = ("portrait", "creature")


@dataclass(frozen=True)
class Facts:
    """What is said of a picture; None is not said. ``things`` begin with the surest."""

    style: str | None = None
    hour: str | None = None
    weather: str | None = None
    kind: str | None = None
    things: tuple[str, ...] = ()

    @classmethod
    def of(cls, content: dict[str, Any]) -> Facts:
        """The facts that ``asdict`` gave, as JSON has them."""
        return cls(**content | {"things": tuple(content["things"])})

    def __bool__(self) -> bool:
        return bool(self.style or self.kind or self.things)

    @property
    def names(self) -> frozenset[str]:
        """All of them, as the lines of the captions need them."""
        found = {self.style, self.hour, self.weather, self.kind, *self.things} - {None}
        moonlit = {"moonlit"} if {"moon", "crescent"} & set(self.things) else set()
        return frozenset(map(str, found | moonlit))


@dataclass(frozen=True)
class Description:
    """``facts`` are empty where the perceiver cannot tell. ``alt`` is what a screen reader says instead of the picture,
    ``caption`` a sentence below it, ``prompt`` words that paint such a picture; all are "" without facts. ``by``: what saw it.
    """

    by: str
    confidence: float
    facts: Facts
    alt: Text = _NOTHING
    caption: Text = _NOTHING
    prompt: Text = _NOTHING

    @property
    def told(self) -> bool:
        """Whether anything can be said of the picture."""
        return bool(self.alt.en)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        texts = {name: getattr(self, name)._asdict() for name in ("alt", "caption", "prompt")}
        return {"by": self.by, "confidence": round(self.confidence, 3), "facts": asdict(self.facts), **texts}

    @classmethod
    def of(cls, content: dict[str, Any]) -> Description:
        """What ``to_dict`` gave."""
        texts = {name: Text(**content[name]) for name in ("alt", "caption", "prompt")}
        return cls(content["by"], content["confidence"], Facts.of(content["facts"]), **texts)


def describe(
    perceiver: Perceiver, sight: Sight, wanted: frozenset[str] = frozenset(), own: bool = False
) -> Description:
    """What is said of a picture that the perceiver saw. ``wanted``: the things that its prompt asks for, if it is known; ``own``:
    Firefly painted it.
    """
    return described(claims(perceiver, sight, wanted, own), perceiver.name, sight.confidence)


def described(facts: Facts, by: str, confidence: float) -> Description:
    """The sentences of ``facts``."""
    if not facts:
        return Description(by, confidence, Facts())
    texts = {
        name: Text(**{language: write(facts, language) for language in LANGUAGES})
        for name, write in _WRITERS.items()
    }
    return Description(by, confidence, facts, **texts)


def claims(
    perceiver: Perceiver, sight: Sight, wanted: frozenset[str] = frozenset(), own: bool = False
) -> Facts:
    """What passes its threshold; nothing where the perceiver cannot tell. Where things were ``wanted``, theirs are lower and those of
    others higher, because painters mostly paint what they are asked for. Of an ``own`` painting that also looks
    like one, only the kind of scene is left unsaid where it cannot tell.
    """
    limits = perceiver.thresholds
    doubtful = sight.confidence < limits.confidence
    if doubtful and not (own and sight.ours >= limits.confidence):
        return Facts()
    chosen: dict[str, str | None] = {}
    for name, some in CHOICES.items():
        best = int(sight.choices[name].argmax())
        chosen[name] = some[best] if sight.choices[name][best] >= limits.choices[name] else None
    if doubtful:
        chosen["kind"] = None
    order = np.argsort(-sight.things, kind="stable")
    things = tuple(
        THINGS[k]
        for k in order
        if sight.things[k] >= limits.least(THINGS[k], wanted) and not _rivalled(sight, THINGS[k])
    )
    if chosen["kind"] in _FIGURE_KINDS and not _FIGURES & set(things):
        chosen["kind"] = None  # "an animal" claims what is nowhere seen
    return Facts(**chosen, things=things)


def _rivalled(sight: Sight, name: str) -> bool:
    """Whether another thing of a group of which a scene has one at most is likely too: water lilies where a lotus is seen."""
    others = {other for group in GROUPS if name in group for other in group} - {name}
    return any(sight.things[THINGS.index(other)] > _RIVAL for other in others)


def alt(facts: Facts, language: str) -> str:
    """The things, or else the kind of scene; when; and the style."""
    names = [called("thing", name, language) for name in _foremost(facts.things)]
    if facts.kind and not (names and _says_enough(facts)):
        names.insert(0, called("kind", facts.kind, language))
    when = [
        called(kind, name, language)
        for kind, name in (("hour", facts.hour), ("weather", facts.weather))
        if name and name not in facts.things and captions.PHRASES[kind][language][name]
    ]
    style = style_named(facts, language)
    if language == "zh":
        return "，".join(filter(None, (joined(list(dict.fromkeys(names)), language), *when, style)))
    text = ", ".join(filter(None, (joined(list(dict.fromkeys(names)), language), *when, style)))
    return text[:1].upper() + text[1:]


def caption(facts: Facts, language: str) -> str:
    """A line of the captions' grammar that holds of the picture, and what it leaves out."""
    line, stated = _line(facts, language)
    others = [called("thing", name, language) for name in _foremost(facts.things) if name not in stated][:3]
    if not line:
        return alt(facts, language)
    if language == "zh":
        return f"{line}，还有{joined(others, language)}。" if others else f"{line}。"
    text = f"{line}, with {joined(others, language)}." if others else f"{line}."
    return text[:1].upper() + text[1:]


def prompt(facts: Facts, language: str) -> str:
    """Words that paint such a picture: a line, further things, the hour and the style."""
    line, stated = _line(facts, language)
    parts = [
        line,
        *(called("thing", name, language) for name in _foremost(facts.things) if name not in stated),
    ]
    if facts.hour and facts.hour not in stated:
        parts.append(called("hour", facts.hour, language))
    if facts.style:
        parts.append(called("style", facts.style, language))
    return ("，" if language == "zh" else ", ").join(dict.fromkeys(filter(None, parts)))


_WRITERS = {"alt": alt, "caption": caption, "prompt": prompt}


def named(things: Iterable[str], language: str) -> str:
    """Things as a sentence lists them."""
    return joined([called("thing", name, language) for name in things], language)


def fact_names(language: str) -> dict[str, str]:
    """What every fact is called in ``language``; of a name that is a weather or a scene and a thing, the thing's."""
    kinds = ("style", "hour", "weather", "kind", "thing")
    return {
        name: called(kind, name, language)
        for kind in kinds
        for name, phrases in captions.PHRASES[kind][language].items()
        if phrases
    }


def style_named(facts: Facts, language: str) -> str:
    """What the style is called; "" where none is said."""
    return called("style", facts.style, language) if facts.style else ""


def joined(names: list[str], language: str) -> str:
    """ "a, b and c", or 甲、乙和丙."""
    if len(names) < 2:
        return "".join(names)
    comma, last = ("、", "和") if language == "zh" else (", ", " and ")
    return f"{comma.join(names[:-1])}{last}{names[-1]}"


def _line(facts: Facts, language: str) -> tuple[str, set[str]]:
    """A line and the facts that it states; none without a kind of scene."""
    if not facts.kind:
        return "", set()
    near = {"close"} if facts.kind in _FIGURE_KINDS else set()
    seed = zlib.crc32("/".join(sorted(facts.names)).encode())
    return captions.line(facts.names | near, facts.kind, np.random.default_rng(seed), language)


def _says_enough(facts: Facts) -> bool:
    """Whether the things tell the kind of scene: one of its name, or a person or animal."""
    main = captions.MAIN.get(str(facts.kind), (str(facts.kind),))
    return facts.kind in _FIGURE_KINDS or bool({*main, *_FIGURES} & set(facts.things))


def _foremost(things: Iterable[str]) -> list[str]:
    """The things to name: persons and animals first, then the surest."""
    return sorted(things, key=lambda name: name not in _FIGURES)[:_NAMED]


def called(kind: str, name: str, language: str) -> str:
    """The first phrase of a name; in English one with an article where a single thing's first has none."""
    phrases: list[str] = captions.PHRASES[kind][language][name]
    if language == "en" and name in _SINGLE:
        return next(one for one in phrases if one.startswith("a "))
    return phrases[0]

"""The facets of a text by the model that STARRY_FACETS names, by default the lexicon, which stands in where another fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starrynight.errors import NoSense, StarryError
from starrynight.i18n import Text
from starrynight.senses import running
from starrynight.senses.choice import BUILT_IN, OFF, Choice, chosen
from starrynight.senses.facets import KINDS, Span, facets, kind_of


@dataclass(frozen=True)
class Found:
    """``spans``: in their order in the text. ``by``: what found them. ``failed``: why the chosen model did not, if it did not:
    the lexicon found them instead.
    """

    spans: tuple[Span, ...]
    by: str
    failed: Text | None = None


def find(
    text: str, schema: Iterable[str] | Mapping[str, Any] | None = None, choice: Choice | None = None
) -> Found:
    """The facets of ``text``. ``schema``: the kinds that are wanted, None for those of ``facets.KINDS``; a model finds any kind,
    such as 人物, the lexicon its own. Raises NoSense where STARRY_FACETS is off, BadRequest for a kind that the lexicon does not
    know, and where a model fails that was asked for such a kind, its error.
    """
    choice = choice or chosen("facets")
    if choice.kind == OFF:
        raise NoSense("STARRY_FACETS is off; set it to built-in.", "STARRY_FACETS 是 off；请设为 built-in。")
    lexicon = Choice("facets", BUILT_IN).name
    if choice.kind == BUILT_IN:
        return Found(facets(text, schema), lexicon)
    try:
        return Found(_asked(text, schema, choice), choice.name)
    except StarryError as error:
        if schema is not None and not all(map(_is_known, schema)):
            raise
        return Found(facets(text, schema), lexicon, Text(error.en, error.zh))


def _asked(text: str, schema: Iterable[str] | Mapping[str, Any] | None, choice: Choice) -> tuple[Span, ...]:
    """What a model finds. Without a schema it is asked for the Chinese names of our kinds, as SiameseUIE was trained in Chinese."""
    ours = {name.zh: kind for kind, name in KINDS.items()}
    kinds: dict[str, Any] = (
        dict(schema) if isinstance(schema, Mapping) else dict.fromkeys(ours if schema is None else schema)
    )
    values = {(span.start, span.end): span.value for span in facets(text)}
    return tuple(
        Span(
            ours[kind] if schema is None else kind, text[start:end], start, end, values.get((start, end), "")
        )
        for kind, start, end in sorted(running.model(choice).find(text, kinds), key=lambda one: one[1:])
    )


def _is_known(kind: str) -> bool:
    try:
        kind_of(kind)
    except StarryError:
        return False
    return True

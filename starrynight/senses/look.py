"""Look at the pictures of a gallery and keep what was seen; find pictures by what a sentence means."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from starrynight.errors import StarryError
from starrynight.gallery.descriptions import Seen
from starrynight.gallery.schema import Row
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.metadata import OURS, read_pixels
from starrynight.senses import asked, perceiver, ranking
from starrynight.senses.choice import BUILT_IN, OFF, Choice, chosen
from starrynight.senses.describe import Description, Facts
from starrynight.senses.eyes import NOTHING_MISSING, Eyes, Look

# A text of whose words for what can be seen the perceiver knows less than this share means nothing to it.
KNOWN = 0.3
# Pictures below this share of the text's facts, squared, are no answer: a third of three facts is 0.11.
RELEVANT = 0.2
# Pictures whose words a ranker reads for a search, and the probability of "yes" from which on one is an answer.
JUDGED, YES = 50, 0.5

log = logging.getLogger("starrynight.senses")


class Match(NamedTuple):
    """``shown``: how much of what the text states the picture shows, 0 to 1 (the expected square of the share)."""

    row: Row
    shown: float


def look(gallery: Gallery, eyes: Eyes, row: Row, pixels: np.ndarray | None = None) -> Look:
    """Look at a picture that hangs, and store what was seen. Raises what reading its file raises."""
    recipe = gallery.recipe(row.id) if row.tool == OURS else {}
    prompt = asked.drawn(row.prompt, recipe)
    found = eyes.look(read_pixels(gallery.read(row)) if pixels is None else pixels, prompt, asked.own(recipe))
    gallery.descriptions.write(row.id, found.seen())
    return found


def look_at_missing(gallery: Gallery, eyes: Eyes, limit: int) -> tuple[int, Text | None]:
    """Look at up to ``limit`` pictures that ``eyes`` have not seen, the newest first: how many were looked at, and why the chosen
    model failed, which ends it. A file that cannot be read is logged, and kept as one of which nothing can be told.
    """
    done = 0
    for picture in gallery.descriptions.missing(eyes.name, limit):
        try:
            found = look(gallery, eyes, gallery.get(picture))
        except StarryError as error:
            log.warning("%s: %s", picture, error)
            nothing = Description(eyes.name, 0.0, Facts()).to_dict() | NOTHING_MISSING
            gallery.descriptions.write(picture, Seen(eyes.name, nothing))
        else:
            if found.failed is not None:
                return done, found.failed
        done += 1
    return done, None


def by_meaning(
    gallery: Gallery,
    query: Query,
    limit: int = 12,
    on_failure: Callable[[Text], None] | None = None,
    ranker: Choice | None = None,
) -> list[Match]:
    """Pictures that show what ``query.text`` means, the most fitting first, under the query's other conditions; none where the
    words say nothing to the perceiver, or where STARRY_EMBEDDER is off. Where ``ranker``, by default STARRY_RANKER's, is a model, it
    judges the words of the ``JUDGED`` nearest pictures; ``on_failure`` is told why, if it fails. Raises what ``Eyes`` raises.
    """
    if chosen("embedder").kind == OFF or not query.text.strip():
        return []
    model, ranker = perceiver.load(), ranker or chosen("ranker")
    reading = model.read(query.text)
    bare = replace(query, text="")
    if ranker.kind not in (BUILT_IN, OFF):
        near = [row for row, _ in gallery.by_meaning(reading.vector, model.name, bare, JUDGED)]
        judged = ranking.rank(query.text, [words_of(row) for row in near], ranker)
        if judged.failed is None:
            return [Match(near[one.index], one.score) for one in judged.results if one.score >= YES][:limit]
        log.warning("%s", judged.failed.en)
        if on_failure is not None:
            on_failure(judged.failed)
    if reading.known < KNOWN:
        return []
    found = gallery.by_meaning(reading.vector, model.name, bare, limit)
    cosines = np.array([cosine for _, cosine in found], np.float32)
    shown = model.shown(cosines)
    return [Match(row, float(one)) for (row, _), one in zip(found, shown, strict=True) if one >= RELEVANT]


def words_of(row: Row) -> str:
    """What a picture is to a ranker that reads words: its prompt and what was seen in it."""
    captions = (row.seen or {}).get("caption", {})
    return "\n".join(one for one in (row.prompt, captions.get("en"), captions.get("zh")) if one)

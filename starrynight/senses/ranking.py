"""The ranker: the order in which documents answer a query. By default the perceiver, which compares the query with pictures.

Qwen3-Reranker and its like read words only, so a picture is to them what its text says: its prompt, facts and caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from starrynight.errors import BadRequest, NoSense, StarryError
from starrynight.i18n import Text
from starrynight.senses import perceiver, running
from starrynight.senses.choice import BUILT_IN, OFF, Choice, chosen

MOST = 500  # documents of a query


class Document(NamedTuple):
    """``text``: what stands for it in words. ``vector``: the perceiver's vector of its picture, float32 [D], or None;
    ``pixels``: the picture, uint8 [H, W, 3], where no vector of it is kept.
    """

    text: str = ""
    vector: np.ndarray | None = None
    pixels: np.ndarray | None = None


@dataclass(frozen=True)
class Ranked:
    """``index``: the document's place in the list. ``score``: how well it answers the query, 0 to 1."""

    index: int
    score: float


@dataclass(frozen=True)
class Ranking:
    """``results``: the best first; equal ones stay in their order. ``by``: what ranked them. ``failed``: why the chosen model did
    not, if it did not: the perceiver ranked instead.
    """

    results: tuple[Ranked, ...]
    by: str
    failed: Text | None = None


def rank(query: str, documents: Sequence[Document | str], choice: Choice | None = None) -> Ranking:
    """Rank up to 500 documents. Raises BadRequest for more, NoSense where STARRY_RANKER is off, MissingFile or BadFile without
    the perceiver's weights.
    """
    choice = choice or chosen("ranker")
    if choice.kind == OFF:
        raise NoSense("STARRY_RANKER is off; set it to built-in.", "STARRY_RANKER 是 off；请设为 built-in。")
    if len(documents) > MOST:
        raise BadRequest(f"There are {len(documents)} documents; give at most {MOST}.",
                         f"有 {len(documents)} 个文档；最多 {MOST} 个。", "documents")  # fmt: skip
    given = [Document(one) if isinstance(one, str) else one for one in documents]
    failed = None
    if choice.kind != BUILT_IN:
        try:
            scores = running.model(choice).rank(query, [one.text for one in given]) if given else []
            return Ranking(_ordered(scores), choice.name)
        except StarryError as error:
            failed = Text(error.en, error.zh)
    model = perceiver.load()
    return Ranking(_ordered(_shown(model, query, given)), model.name, failed)


def _shown(model: perceiver.Perceiver, query: str, documents: Sequence[Document]) -> list[float]:
    """How much of the query's facts each picture shows, or each text without a picture states."""
    if not documents:
        return []
    wanted = model.read(query).vector
    vectors = [_vector(model, one) for one in documents]
    return [float(one) for one in model.shown(np.stack(vectors) @ wanted)]


def _vector(model: perceiver.Perceiver, document: Document) -> np.ndarray:
    if document.vector is not None:
        return document.vector
    if document.pixels is not None:
        return model.see(document.pixels).vector
    return model.read(document.text).vector


def _ordered(scores: Sequence[float]) -> tuple[Ranked, ...]:
    return tuple(sorted((Ranked(*one) for one in enumerate(scores)), key=lambda one: -one.score))

"""The embedder: vectors whose cosine says how near texts, and with the perceiver pictures, are in meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from starrynight.errors import BadRequest, NoSense, StarryError
from starrynight.i18n import Text
from starrynight.senses import perceiver, running
from starrynight.senses.choice import BUILT_IN, OFF, Choice, chosen

MOST = 500  # texts at once


@dataclass(frozen=True)
class Embedded:
    """``vectors``: of length 1, float32 [N, D]. ``by``: what made them; only vectors of one maker compare. ``failed``: why the
    chosen model did not, if it did not: the perceiver made them instead.
    """

    vectors: np.ndarray
    by: str
    failed: Text | None = None


def embed(texts: Sequence[str], choice: Choice | None = None) -> Embedded:
    """Vectors of up to 500 texts. Raises BadRequest for more or for none, NoSense where STARRY_EMBEDDER is off, MissingFile or
    BadFile without the perceiver's weights.
    """
    choice = choice or chosen("embedder")
    if choice.kind == OFF:
        raise NoSense(
            "STARRY_EMBEDDER is off; set it to built-in.", "STARRY_EMBEDDER 是 off；请设为 built-in。"
        )
    if not 0 < len(texts) <= MOST:
        raise BadRequest(
            f"There are {len(texts)} texts; give 1 to {MOST}.",
            f"有 {len(texts)} 段文字；应为 1 到 {MOST} 段。",
            "input",
        )
    failed = None
    if choice.kind != BUILT_IN:
        try:
            return Embedded(running.model(choice).embed(texts), choice.name)
        except StarryError as error:
            failed = Text(error.en, error.zh)
    model = perceiver.load()
    return Embedded(np.stack([model.read(text).vector for text in texts]), model.name, failed)


def embed_pictures(pictures: Sequence[np.ndarray]) -> Embedded:
    """The perceiver's vectors of pictures, uint8 [H, W, 3], which compare with its vectors of texts."""
    model = perceiver.load()
    return Embedded(np.stack([model.see(one).vector for one in pictures]), model.name)

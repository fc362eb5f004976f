"""What the perceiver can say of a picture: the names of styles, hours, weathers, kinds of scenes and things, in the order of
its heads, and the words that its text encoder reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starrynight.firefly.drawing.scene import HOURS, KINDS, STYLES, SUBJECTS, WEATHERS
from starrynight.models.wording import stem, tokens

# The heads that choose one of several names.
CHOICES: dict[str, tuple[str, ...]] = {"style": STYLES, "hour": HOURS, "weather": WEATHERS, "kind": KINDS}
THINGS = SUBJECTS
# Everything that a caption can state and a picture show. A few names are a weather and a thing ("rain", "snow"), or a kind
# and a thing: they count once.
FACTS: tuple[str, ...] = tuple(dict.fromkeys((*STYLES, *HOURS, *WEATHERS, *KINDS, *THINGS)))

PADDING, UNKNOWN = 0, 1  # the first two rows of the text encoder's embedding
LONGEST = 48  # tokens of a text that are read


def words(text: str) -> list[str]:
    """``text`` as the text encoder reads it: Han characters one by one, Latin words without plural endings, no signs."""
    return [stem(token) for token in tokens(text) if token.isalnum()]


@dataclass(frozen=True)
class Lexicon:
    """The words of the text encoder; the row of a word in its embedding is its place here + 2."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", {word: row for row, word in enumerate(self.words, 2)})

    def rows(self, text: str) -> list[int]:
        """The embedding's rows for ``text``, ``UNKNOWN`` for a word that is not here; at most ``LONGEST``."""
        known: dict[str, int] = self._rows  # type: ignore[attr-defined]
        return [known.get(word, UNKNOWN) for word in words(text)[:LONGEST]]


def padded(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """``rows`` filled with ``PADDING`` to one length, at least 1."""
    longest = max(1, *map(len, rows)) if rows else 1
    return [[*row, *[PADDING] * (longest - len(row))] for row in rows]

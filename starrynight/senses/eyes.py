"""The eyes: what a picture shows, by the perceiver or by another model, which falls back on the perceiver.

Facts, what is missing and the vector for search are always the perceiver's; another model gives the sentences.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from starrynight.errors import StarryError
from starrynight.gallery.descriptions import Seen
from starrynight.i18n import Text
from starrynight.senses import asked, perceiver, running
from starrynight.senses.choice import BUILT_IN, OFF, Choice, chosen
from starrynight.senses.describe import Description, describe, named

# What stands beside a description of a picture whose prompt was not compared with it.
NOTHING_MISSING: dict[str, Any] = {"missing": [], "lacks": {"en": "", "zh": ""}}


class Look(NamedTuple):
    """``description``: the sentences; ``missing``: things that the prompt asks for and the picture surely does not show;
    ``vector``: float32 [D] of the perceiver, for search; ``failed``: why the chosen model did not see it, if it did not.
    """

    description: Description
    missing: tuple[str, ...]
    vector: np.ndarray
    vector_by: str
    failed: Text | None = None

    def seen(self) -> Seen:
        """As the gallery stores it."""
        lacks = Text(*(named(self.missing, language) for language in ("en", "zh")))._asdict()
        content = self.description.to_dict() | {"missing": list(self.missing), "lacks": lacks}
        return Seen(self.description.by, content, self.vector, self.vector_by)


class Eyes:
    """``choice``: which model writes the sentences. Raises MissingFile or BadFile without the perceiver's weights."""

    def __init__(self, choice: Choice) -> None:
        self.choice, self.perceiver = choice, perceiver.load()

    @property
    def name(self) -> str:
        """What stands as ``by`` in what these eyes see."""
        return self.perceiver.name if self.choice.kind == BUILT_IN else self.choice.name

    def look(self, pixels: np.ndarray, prompt: str = "", own: bool = False) -> Look:
        """What a picture, uint8 [H, W, 3], shows, and what it lacks of its prompt. Things that the prompt asks for are believed sooner.
        ``own``: Firefly painted it (``asked.own``).
        """
        sight = self.perceiver.see(pixels)
        description, failed = describe(self.perceiver, sight, asked.wanted_of(prompt), own), None
        if self.choice.kind != BUILT_IN:
            try:
                alt, caption = running.model(self.choice).describe(pixels)
                description = replace(description, by=self.name, alt=alt, caption=caption)
            except StarryError as error:
                failed = Text(error.en, error.zh)
        missing = asked.judge(prompt, self.perceiver, sight).missing if prompt else ()
        return Look(description, missing, sight.vector, self.perceiver.name, failed)


def eyes() -> Eyes | None:
    """The eyes that STARRY_EYES chooses; None if they are off. Raises BadRequest, MissingFile or BadFile."""
    choice = chosen("eyes")
    return None if choice.kind == OFF else Eyes(choice)

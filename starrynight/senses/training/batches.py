"""Batches for the perceiver's training, from drawn pictures, Firefly's paintings and strangers.

Pictures of rare things come more often, and every second picture is of the kind and style of the one before it: within a
batch, where every text meets every picture, the nearest wrong pictures are there.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from starrynight.firefly.training import data
from starrynight.firefly.training.evaluate import shrink
from starrynight.senses.facts import CHOICES, UNKNOWN, Lexicon, padded
from starrynight.senses.training.augment import varied
from starrynight.senses.training.network import SIDE
from starrynight.senses.training.strangers import stranger
from starrynight.senses.training.truth import Truth, asked_of, hot, of_record

BATCH, STRANGERS = 56, 12  # pictures of ours, and strangers beside them
PAINTED = 16  # of ours, Firefly's paintings as far as there are any
FORGOTTEN = 0.04  # the share of words that a text loses to UNKNOWN, so that it is read with unknown words too
REFRESH = 60.0  # seconds between two looks for newly drawn pictures
RARER = 0.5  # a picture is drawn by the frequency of its rarest thing to the power of minus this


@dataclass
class Gallery:
    """A set's pictures at SIDE, and their records and truths; grows with the set."""

    pictures_set: data.PictureSet
    count: int = 0
    truths: list[Truth] = field(default_factory=list)
    _small: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._small = np.empty((self.pictures_set.planned, SIDE, SIDE, 3), np.uint8)
        self.refresh()

    def refresh(self) -> None:
        """Take in what was drawn meanwhile."""
        self.pictures_set.refresh()
        if len(self.pictures_set) == self.count:
            return
        for start in range(self.count, len(self.pictures_set), 256):
            stop = min(start + 256, len(self.pictures_set))
            self._small[start:stop] = shrink(self.pictures_set.pictures[start:stop], SIDE)
        self.truths += [of_record(record) for record in self.records[self.count :]]
        self.count = len(self.pictures_set)
        self._weigh()

    @property
    def pictures(self) -> np.ndarray:
        """uint8 [N, SIDE, SIDE, 3]."""
        return self._small[: self.count]

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.pictures_set.records

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """``count`` rows: half by their weight, each followed by one of its kind and style."""
        first = np.searchsorted(self._sums, rng.random(-(-count // 2)) * self._sums[-1], side="right")
        rows = [(int(row), int(rng.choice(self._alike[self._key(int(row))]))) for row in first]
        return [row for pair in rows for row in pair][:count]

    def _key(self, row: int) -> tuple[str, str]:
        shows = self.records[row]["shows"]
        return shows["kind"], shows["style"]

    def _weigh(self) -> None:
        """How often each picture is drawn, and those that are alike."""
        there = np.stack([truth.things for truth in self.truths])
        chances = np.maximum(there.mean(0), 1 / len(there))
        rarest = np.where(there > 0, chances, 1.0).min(1)
        self._sums = np.cumsum(rarest**-RARER)
        alike: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row in range(len(there)):
            alike[self._key(row)].append(row)
        self._alike = {key: np.array(rows) for key, rows in alike.items()}


@dataclass(frozen=True)
class Batch:
    """``pictures`` [B + S, 3, H, W], the S strangers last; ``choices`` [B] by name, NOT_KNOWN among them; ``things``, ``known`` and
    ``doubted`` [B, T], see truth.Truth; ``rows`` [B, L] and ``asked`` [B, F], one text for each of ours; ``facts`` [B, F].
    """

    pictures: Tensor
    choices: dict[str, Tensor]
    things: Tensor
    known: Tensor
    doubted: Tensor
    rows: Tensor
    asked: Tensor
    facts: Tensor


class Sampler:
    """Draws batches from a gallery of drawings, one of paintings, if there is any, and a stock of strangers."""

    def __init__(
        self, drawn: Gallery, painted: Gallery | None, lexicon: Lexicon, seed: int, strangers: int = 1500
    ) -> None:
        self.drawn, self.painted, self.lexicon = drawn, painted, lexicon
        self.looked = time.monotonic()
        rng = np.random.default_rng((seed, 3))
        pictures = drawn.pictures
        self.strangers = np.stack(
            [stranger(rng, SIDE, pictures[int(rng.integers(len(pictures)))]) for _ in range(strangers)]
        )

    @property
    def count(self) -> int:
        """The pictures that are there."""
        return self.drawn.count + (self.painted.count if self.painted else 0)

    def draw(self, rng: np.random.Generator, side: int = SIDE) -> Batch:
        """A batch of pictures with ``side`` pixels a side."""
        self._refresh()
        painted = PAINTED if self.painted and self.painted.count else 0
        rows = [(self.drawn, row) for row in self.drawn.draw(rng, BATCH - painted)]
        if self.painted and painted:
            rows += [(self.painted, row) for row in self.painted.draw(rng, painted)]
        others = rng.integers(len(self.strangers), size=STRANGERS)
        pictures = np.stack([*(gallery.pictures[row] for gallery, row in rows), *self.strangers[others]])
        truths = [gallery.truths[row] for gallery, row in rows]
        texts, asked = zip(*(self._text(gallery.records[row], rng) for gallery, row in rows), strict=True)
        read = torch.tensor(padded([self.lexicon.rows(text) for text in texts]))
        forget = torch.from_numpy(rng.random(tuple(read.shape)) < FORGOTTEN) & (read > UNKNOWN)
        return Batch(
            at_side(varied(pictures, rng), side),
            {name: torch.tensor([truth.choices[name] for truth in truths]) for name in CHOICES},
            _stacked([truth.things for truth in truths]),
            _stacked([truth.known for truth in truths]),
            _stacked([truth.doubted for truth in truths]),
            read.masked_fill(forget, UNKNOWN),
            _stacked(asked),
            _stacked([truth.facts for truth in truths]),
        )

    def _refresh(self) -> None:
        if time.monotonic() - self.looked > REFRESH:
            for gallery in filter(None, (self.drawn, self.painted)):
                gallery.refresh()
            self.looked = time.monotonic()

    def _text(self, record: dict[str, Any], rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """One of a record's captions, and the facts that it states."""
        text = str(rng.choice(record["captions"]))
        return text, hot(asked_of(text, record["shows"]))


def _stacked(rows: Any) -> Tensor:
    return torch.from_numpy(np.stack(rows))


def at_side(pictures: Tensor, side: int) -> Tensor:
    """Pictures [B, 3, S, S] at ``side`` pixels a side, by area."""
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(pictures, (side, side), mode="area").contiguous()

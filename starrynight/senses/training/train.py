"""Train the perceiver on drawn pictures, which may still be drawn meanwhile, within a time budget; resumable.

The loss is a sum: cross-entropy of style, hour, weather and kind; binary cross-entropy of the things, of being one of ours,
and of the facts that a text states; and, for every text and picture of a batch, binary cross-entropy between their cosine and
the squared share of the text's facts that the picture shows (a graded form of SigLIP, Zhai et al. 2023, arXiv:2303.15343).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starrynight.firefly.training import captions, data
from starrynight.firefly.training.evaluate import augment, shrink
from starrynight.firefly.training.optimise import Optimiser, TrainingLoop
from starrynight.senses.facts import CHOICES, FACTS, THINGS, UNKNOWN, Lexicon, padded, words
from starrynight.senses.training.network import SIDE, Network
from starrynight.senses.training.strangers import stranger
from starrynight.storage import write_atomic

BATCH, STRANGERS = 56, 12  # pictures of ours, and strangers beside them
FORGOTTEN = 0.04  # the share of words that a text loses to UNKNOWN, so that it is read with unknown words too
REFRESH = 60.0  # seconds between two looks for newly drawn pictures
LEXICON_SCENES = range(20_000_000, 20_004_000)  # scenes of no set, whose captions give the lexicon
# Up to this share of the time, the pictures' side: small ones are cheap and teach style, hour and kind; large ones the things.
SIDES = ((0.3, 64), (0.65, 96), (1.0, SIDE))
RATE, HIDDEN_RATE, DECAY = 2e-3, 4e-3, 0.99
_WEIGHTS = {
    "style": 1.0,
    "hour": 1.0,
    "weather": 1.0,
    "kind": 1.0,
    "things": 12.0,
    "ours": 1.0,
    "texts": 12.0,
    "match": 12.0,
}


def make_lexicon() -> Lexicon:
    """The words of the captions of scenes that are in no set, in the order of their first use, and of all phrases."""
    texts = [*data.scene_captions(LEXICON_SCENES), *_phrases(captions.PHRASES)]
    return Lexicon(tuple(dict.fromkeys(word for text in texts for word in words(text))))


def _phrases(table: Any) -> Iterator[str]:
    """Every string in a nested table."""
    if isinstance(table, str):
        yield table
    else:
        for one in table.values() if isinstance(table, Mapping) else table:
            yield from _phrases(one)


def facts_of(shows: Mapping[str, Any]) -> frozenset[str]:
    """The facts of a record's "shows"."""
    return frozenset({*(shows[name] for name in CHOICES), *shows["subjects"]})


def asked_of(text: str, shows: Mapping[str, Any]) -> frozenset[str]:
    """The facts that a true caption states of its picture: 月亮 is the moon or the crescent, whichever is there. One that
    names none, such as "seaport", states the kind.
    """
    return (captions.named_in(text) & facts_of(shows)) or frozenset({shows["kind"]})


def hot(facts: frozenset[str]) -> np.ndarray:
    """0/1 over FACTS, float32 [F]."""
    return np.array([name in facts for name in FACTS], np.float32)


@dataclass
class Gallery:
    """A set's pictures at SIDE, and its records; grows with the set."""

    pictures_set: data.PictureSet
    count: int = 0
    _small: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._small = np.empty((self.pictures_set.planned, SIDE, SIDE, 3), np.uint8)
        self.refresh()

    def refresh(self) -> None:
        """Take in what was drawn meanwhile."""
        self.pictures_set.refresh()
        for start in range(self.count, len(self.pictures_set), 256):
            stop = min(start + 256, len(self.pictures_set))
            self._small[start:stop] = shrink(self.pictures_set.pictures[start:stop], SIDE)
        self.count = len(self.pictures_set)

    @property
    def pictures(self) -> np.ndarray:
        """uint8 [N, SIDE, SIDE, 3]."""
        return self._small[: self.count]

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.pictures_set.records


@dataclass(frozen=True)
class Batch:
    """``pictures`` [B + S, 3, H, W], the S strangers last; ``choices`` [B] by name; ``things`` [B, T]; ``rows`` [B, L] and
    ``asked`` [B, F], one text for each of ours; ``facts`` [B, F].
    """

    pictures: Tensor
    choices: dict[str, Tensor]
    things: Tensor
    rows: Tensor
    asked: Tensor
    facts: Tensor


class Sampler:
    """Draws batches from a gallery and a stock of strangers."""

    def __init__(self, gallery: Gallery, lexicon: Lexicon, seed: int, strangers: int = 1500) -> None:
        self.gallery, self.lexicon, self.looked = gallery, lexicon, time.monotonic()
        rng = np.random.default_rng((seed, 3))
        drawn = gallery.pictures
        self.strangers = np.stack(
            [stranger(rng, SIDE, drawn[int(rng.integers(len(drawn)))]) for _ in range(strangers)]
        )

    def draw(self, rng: np.random.Generator, side: int = SIDE) -> Batch:
        """A batch of pictures with ``side`` pixels a side."""
        if time.monotonic() - self.looked > REFRESH:
            self.gallery.refresh()
            self.looked = time.monotonic()
        rows = rng.integers(self.gallery.count, size=BATCH)
        others = rng.integers(len(self.strangers), size=STRANGERS)
        pictures = np.concatenate([self.gallery.pictures[rows], self.strangers[others]])
        records = [self.gallery.records[row] for row in rows]
        shows = [record["shows"] for record in records]
        texts = [str(rng.choice(record["captions"])) for record in records]
        asked = [asked_of(text, one) for text, one in zip(texts, shows, strict=True)]
        read = torch.tensor(padded([self.lexicon.rows(text) for text in texts]))
        forget = torch.from_numpy(rng.random(tuple(read.shape)) < FORGOTTEN) & (read > UNKNOWN)
        return Batch(
            at_side(augment(torch.from_numpy(pictures), rng), side),
            {name: torch.tensor([some.index(one[name]) for one in shows]) for name, some in CHOICES.items()},
            torch.tensor([[float(name in one["subjects"]) for name in THINGS] for one in shows]),
            read.masked_fill(forget, UNKNOWN),
            torch.from_numpy(np.stack([hot(one) for one in asked])),
            torch.from_numpy(np.stack([hot(facts_of(one)) for one in shows])),
        )


def at_side(pictures: Tensor, side: int) -> Tensor:
    """Pictures [B, 3, S, S] at ``side`` pixels a side, by area."""
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(pictures, (side, side), mode="area").contiguous(memory_format=torch.channels_last)


def losses(network: Network, batch: Batch) -> dict[str, Tensor]:
    """The parts of the loss by name, unweighted."""
    seen = network.see(batch.pictures)
    vectors, stated = network.texts(batch.rows)
    ours = len(batch.rows)
    found = {name: F.cross_entropy(seen.choices[name][:ours], true) for name, true in batch.choices.items()}
    found["things"] = F.binary_cross_entropy_with_logits(seen.things[:ours], batch.things)
    own = (torch.arange(len(batch.pictures)) < ours).float()
    found["ours"] = F.binary_cross_entropy_with_logits(seen.ours, own)
    found["texts"] = F.binary_cross_entropy_with_logits(stated, batch.asked)
    shares = batch.asked @ batch.facts.T / batch.asked.sum(1, keepdim=True)
    wanted = F.pad(shares.square(), (0, len(batch.pictures) - ours))
    cosines = vectors @ seen.vectors.T
    found["match"] = F.binary_cross_entropy_with_logits(network.scale * cosines + network.offset, wanted)
    return found


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Muon's parameters: the kernels of the convolutions but the first, which sees pixels."""
    return parameter.ndim > 2 and not name.startswith("sight.body.0.")


def read_lexicon(work: Path) -> Lexicon:
    """The lexicon of the training in ``work``, made and written at its first start: its words are rows of weights."""
    path = work / "lexicon.json"
    if path.exists():
        return Lexicon(tuple(json.loads(path.read_text("utf-8"))))
    lexicon = make_lexicon()
    write_atomic(path, json.dumps(lexicon.words, ensure_ascii=False).encode(), overwrite=True)
    return lexicon


def train(work: Path, seconds: float, seed: int = 0) -> None:
    """Train on the set ``training`` in ``work`` for ``seconds`` in all; the checkpoint is ``perceiver.safetensors`` there,
    written every minute. Run again, it goes on with the time that is left.
    """
    torch.manual_seed(seed)
    lexicon, checkpoint = read_lexicon(work), work / "perceiver.safetensors"
    network: Any = Network(len(lexicon.words))  # torch's stubs lack ``memory_format``
    network.sight.to(memory_format=torch.channels_last)
    loop = TrainingLoop(network, Optimiser(network.named_parameters(), _is_hidden, RATE, HIDDEN_RATE), DECAY)
    if checkpoint.exists():
        loop.restore(checkpoint)
    sampler = Sampler(Gallery(data.PictureSet(work / "training")), lexicon, seed)

    def loss_at(step: int, spent: float) -> tuple[Tensor, int]:
        side = next(side for until, side in SIDES if spent <= until)
        found = losses(network, sampler.draw(np.random.default_rng((seed, step, 4)), side))
        if step % 100 == 0:
            parts = {name: round(float(one.detach()), 4) for name, one in found.items()}
            print(json.dumps({"step": step, "pictures": sampler.gallery.count, **parts}), flush=True)
        total = torch.stack([_WEIGHTS[name] * one for name, one in found.items()]).sum()
        return total, BATCH

    loop.run(loss_at, max(0.0, seconds - loop.spent), checkpoint, warmup=50, cooldown=0.6)

"""The perceiver's network in torch, for training. ``senses.perceiver`` runs its saved weights with numpy alone.

The picture side is the evaluation's classifier with two more heads, one that tells paintings of ours from anything else,
and a projection into the space that texts and pictures share. The text side is two convolutions over word embeddings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starrynight.firefly.training.evaluate import FEATURES, Classifier
from starrynight.senses.facts import CHOICES, FACTS, PADDING, THINGS

SIDE = 128  # pixels along a side of the largest training pictures
SHARED = 96  # dimensions of the space of texts and pictures
WORD, TEXT = 128, 192  # widths of the word embedding and of the convolutions over it
FINE_AFTER = 4  # blocks of the picture side, of stride 2 each


class Seen(NamedTuple):
    """What the network says of pictures: logits of ``CHOICES`` by name, of THINGS [B, T], of being one of ours [B], and
    unit vectors [B, SHARED].
    """

    choices: dict[str, Tensor]
    things: Tensor
    ours: Tensor
    vectors: Tensor


class Texts(nn.Module):
    """Rows of a lexicon [B, L], padded, to unit vectors [B, SHARED] and, for training, logits of FACTS [B, F]."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words + 2, WORD, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.first = nn.Conv1d(WORD, TEXT, 3, padding=1)
        self.second = nn.Conv1d(TEXT, TEXT, 3, padding=1)
        self.projection = nn.Linear(2 * TEXT, SHARED)
        self.facts = nn.Linear(2 * TEXT, len(FACTS))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        there = (rows != PADDING).unsqueeze(1)
        read = F.silu(self.first(self.embedding(rows).mT * there)) * there
        read = F.silu(self.second(read)) * there
        mean = read.sum(-1) / there.sum(-1).clamp(min=1)
        features = torch.cat([mean, read.masked_fill(~there, -1.0).amax(-1)], 1)  # SiLU is above -0.28
        return F.normalize(self.projection(features), dim=-1), self.facts(features)


class Fine(nn.Module):
    """What is small: the map of stride 16, float [B, FEATURES, H, W], with one more convolution, adds to the logits of things and of
    the weather and to the shared vector. It adds nothing at first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.norm = nn.GroupNorm(8, FEATURES)
        self.things = nn.Linear(2 * FEATURES, len(THINGS))
        self.weather = nn.Linear(2 * FEATURES, len(CHOICES["weather"]))
        self.projection = nn.Linear(2 * FEATURES, SHARED)
        for head in (self.things, self.weather, self.projection):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def features(self, states: Tensor) -> Tensor:
        """Mean and maximum over the map, [B, 2 · FEATURES]."""
        found = F.silu(self.norm(self.conv(states))).flatten(2)
        return torch.cat([found.mean(-1), found.amax(-1)], 1)


class Network(nn.Module):
    """Both sides. ``scale`` and ``offset`` make the cosine of a text and a picture the logit of how much the picture shows
    of what the text states.
    """

    def __init__(self, words: int) -> None:
        super().__init__()
        self.sight = Classifier()
        self.weather = nn.Linear(2 * FEATURES, len(CHOICES["weather"]))
        self.kind = nn.Linear(2 * FEATURES, len(CHOICES["kind"]))
        self.ours = nn.Linear(2 * FEATURES, 1)
        self.projection = nn.Linear(2 * FEATURES, SHARED)
        self.texts = Texts(words)
        self.scale = nn.Parameter(torch.tensor(8.0))
        self.offset = nn.Parameter(torch.tensor(-4.0))
        self.fine = Fine()

    def see(self, pictures: Tensor) -> Seen:
        """``pictures`` [B, 3, H, W] in -1..1."""
        large = self.sight.body[:FINE_AFTER](pictures)
        small = self.fine.features(large)
        found = self.sight.body[FINE_AFTER:](large).flatten(2)
        features = torch.cat([found.mean(-1), found.amax(-1)], 1)
        choices = {
            "style": self.sight.style(features), "hour": self.sight.hour(features),
            "weather": self.weather(features) + self.fine.weather(small), "kind": self.kind(features),
        }  # fmt: skip
        vectors = F.normalize(self.projection(features) + self.fine.projection(small), dim=-1)
        things = self.sight.subjects(features) + self.fine.things(small)
        return Seen(choices, things, self.ours(features)[:, 0], vectors)

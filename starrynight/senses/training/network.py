"""The perceiver's network in torch, for training. ``senses.perceiver`` runs its saved weights with numpy alone.

The picture side is the evaluation's classifier, deepened by residual blocks at strides 8 and 16, with further heads: weather, kind,
one that tells paintings of ours from anything else, a projection into the space that texts and pictures share, and two
branches for what is small. The text side is two convolutions over word embeddings.

Kernels are contiguous, not channels last: the backward pass of torch's GroupNorm is several times slower there on a CPU.
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
DETAIL_AFTER, FINE_AFTER = 3, 4  # blocks of the picture side, of stride 2 each
DETAIL = 96  # channels of the map of stride 8


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


class Residual(nn.Module):
    """Two convolutions added to a map, float [B, C, H, W] (He et al. 2016, arXiv:1512.03385). It adds nothing at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(8, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, states: Tensor) -> Tensor:
        return states + self.second(F.silu(self.norm(self.first(states))))


class Detail(nn.Module):
    """What is smaller still: every thing looks at the places of the map of stride 8 by its own weights, which sum to one over the
    picture (attention pooling, Ilse et al. 2018, arXiv:1802.04712). The map of stride 16 tells each place its surroundings
    (Lin et al. 2017, arXiv:1612.03144). It adds nothing at first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.around = nn.Conv2d(FEATURES, DETAIL, 1)
        self.conv = nn.Conv2d(DETAIL, DETAIL, 3, padding=1)
        self.norm = nn.GroupNorm(8, DETAIL)
        self.look = nn.Conv2d(DETAIL, len(THINGS), 1)
        self.things = nn.Conv2d(DETAIL, len(THINGS), 1)
        for parameter in self.things.parameters():
            nn.init.zeros_(parameter)

    def forward(self, states: Tensor, large: Tensor) -> Tensor:
        """``states`` [B, DETAIL, 2 H, 2 W] and ``large`` [B, FEATURES, H, W] to logits of things [B, T]."""
        around = F.interpolate(self.around(large), scale_factor=2.0, mode="nearest")
        found = F.silu(self.norm(self.conv(states + around)))
        weights = self.look(found).flatten(2).softmax(-1)
        return (weights * self.things(found).flatten(2)).sum(-1)


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
        self.middle, self.deeper = Residual(DETAIL), Residual(FEATURES)
        self.detail = Detail()

    def see(self, pictures: Tensor) -> Seen:
        """``pictures`` [B, 3, H, W] in -1..1."""
        middle = self.middle(self.sight.body[:DETAIL_AFTER](pictures))
        large = self.deeper(self.sight.body[DETAIL_AFTER:FINE_AFTER](middle))
        small = self.fine.features(large)
        found = self.sight.body[FINE_AFTER:](large).flatten(2)
        features = torch.cat([found.mean(-1), found.amax(-1)], 1)
        choices = {
            "style": self.sight.style(features), "hour": self.sight.hour(features),
            "weather": self.weather(features) + self.fine.weather(small), "kind": self.kind(features),
        }  # fmt: skip
        vectors = F.normalize(self.projection(features) + self.fine.projection(small), dim=-1)
        things = self.sight.subjects(features) + self.fine.things(small) + self.detail(middle, large)
        return Seen(choices, things, self.ours(features)[:, 0], vectors)

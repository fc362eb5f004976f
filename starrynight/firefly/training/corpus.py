"""What the transformer trains on: drawn pictures as latents on the device, and their captions as tokens.

A corpus grows while its pictures are drawn. A sample has a shape: the whole picture, the picture at half its
size, or an oblong window that cuts off no subject.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from starrynight.firefly.training.data import PictureSet
from starrynight.firefly.training.optimise import autocast

# The stock transformer pads every caption to a multiple of this (diffusers,
# transformer_z_image.SEQ_MULTI_OF).
MULTIPLE = 32
LONGEST = 64
# Shares of batches that join two captions, and of captions that are empty.
LONG_SHARE = 0.2
EMPTY_SHARE = 0.1
# A subject that fewer captions name is too rare to be sampled on purpose.
RARE = 8
# How much more often a stressed subject is drawn than another.
STRESS = 3.0
# Of a subject that is larger than this share of the side, a window must show the first half only: the tops of
# houses and trees.
LARGE = 0.45


@dataclass(frozen=True)
class Shape:
    """One shape of samples: pictures shrunk by ``shrink``, of which a window of ``rows`` and ``columns`` latents
    is cut (0: the whole picture). ``stride`` is the distance of neighbouring patches for the rotary embedding:
    at 2 a half-size picture spans the positions of a whole one. ``early`` and ``late`` are its weights among
    all shapes, at the start of the training and later.
    """

    name: str
    shrink: int = 1
    rows: int = 0
    columns: int = 0
    stride: int = 1
    early: float = 0.0
    late: float = 0.0


def chat_prompt(tokenizer: Any, text: str) -> str:
    """``text`` in the chat template, exactly as ZImagePipeline formats it."""
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )


def tokens_of(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token numbers of ``texts``, each in the chat template."""
    prompt = chat_prompt(tokenizer, "\0")
    return tokenizer([prompt.replace("\0", text) for text in texts])["input_ids"]


@dataclass
class Captions:
    """Captions as tokens: ``tokens`` int64 [N, K, 64], ``lengths`` [N, K], and for every subject the places
    [M, 2] (picture, caption) where it is named. ``empty`` is the caption "".
    """

    tokenizer: Any
    tokens: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, LONGEST), np.int64))
    lengths: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    named: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.empty = np.asarray(tokens_of(self.tokenizer, [""])[0], np.int64)

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Tokenize the captions of further pictures, cut at 64 tokens."""
        first, count = len(self.tokens), len(records[0]["captions"])
        tokens = np.full((len(records), count, LONGEST), self.tokenizer.pad_token_id, np.int64)
        lengths = np.zeros((len(records), count), np.int64)
        ids = tokens_of(self.tokenizer, [text for record in records for text in record["captions"]])
        for index, one in enumerate(ids):
            place = divmod(index, count)
            lengths[place] = min(len(one), LONGEST)
            tokens[place][: len(one)] = one[:LONGEST]
        for row, record in enumerate(records, start=first):
            for column, names in enumerate(record["named"]):
                for name in names:
                    self.named.setdefault(name, []).append((row, column))
        self.tokens = np.concatenate([self.tokens, tokens]) if first else tokens
        self.lengths = np.concatenate([self.lengths, lengths]) if first else lengths

    def batch(
        self, rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator, empty_share: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int64 and mask bool [B, L] of the chosen captions: one of each picture, padded to 32, or one
        time in five two of each, padded to 64. A share ``empty_share`` is the empty caption.
        """
        if rng.random() < LONG_SHARE:
            tokens, lengths = self._join(rows, columns, rng)
        else:
            lengths = np.minimum(self.lengths[rows, columns], MULTIPLE)
            tokens = self.tokens[rows, columns, :MULTIPLE].copy()
        dropped = rng.random(len(rows)) < empty_share
        tokens[dropped, : len(self.empty)] = self.empty
        lengths[dropped] = len(self.empty)
        return tokens, np.arange(tokens.shape[1])[None] < lengths[:, None]

    def _join(
        self, rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two captions of each picture as one: the first without its closing token, the second without its
        opening one.
        """
        count = self.tokens.shape[1]
        others = (columns + rng.integers(1, max(count, 2), len(rows))) % count
        kept = self.lengths[rows, columns][:, None] - 1
        place = np.arange(LONGEST)[None]
        second = np.take_along_axis(
            self.tokens[rows, others], np.clip(place - kept + 1, 0, LONGEST - 1), axis=1
        )
        lengths = np.minimum(kept[:, 0] + self.lengths[rows, others] - 1, LONGEST)
        tokens = np.where(place < kept, self.tokens[rows, columns], second)
        return np.where(place < lengths[:, None], tokens, 0), lengths


class Places:
    """Where subjects are named, to be drawn from: a subject first, then one of its places [2] (picture, caption).
    Those that RARE captions do not name are left out.
    """

    def __init__(self, named: dict[str, list[tuple[int, int]]], stressed: Collection[str]) -> None:
        kept = {name: np.array(places) for name, places in named.items() if len(places) >= RARE}
        self.places = np.concatenate([*kept.values()]) if kept else np.zeros((0, 2), np.int64)
        self.counts = np.array([len(places) for places in kept.values()], np.int64)
        self.starts = np.cumsum(self.counts) - self.counts
        chances = np.array([STRESS if name in stressed else 1.0 for name in kept])
        self.chances = chances / chances.sum()

    def __len__(self) -> int:
        return len(self.counts)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """``count`` places [count, 2]."""
        subjects = rng.choice(len(self.counts), size=count, p=self.chances)
        within = (rng.random(count) * self.counts[subjects]).astype(np.int64)
        return self.places[self.starts[subjects] + within]


class Corpus:
    """A drawn set as latents, one tensor float16 [N, C, H, W] on ``device`` for each of ``shrinks``. Where a
    subject is drawn before the picture (``sample``), those of ``stressed`` are drawn STRESS times as often.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: Any,
        device: torch.device,
        shrinks: Sequence[int],
        batch: int = 24,
        stressed: Collection[str] = (),
    ) -> None:
        self.drawn, self.device, self.batch_size = PictureSet(folder), device, batch
        self.captions, self.stressed = Captions(tokenizer), frozenset(stressed)
        self.latents: dict[int, Tensor] = {shrink: torch.empty(0) for shrink in shrinks}
        self.count = 0
        self._windows: dict[tuple[int, int], np.ndarray] = {}
        self._named = Places({}, frozenset())

    @torch.no_grad()
    def refresh(self, vae: Any, dtype: torch.dtype, most: int = 2**31, seconds: float = math.inf) -> int:
        """Encode the pictures that were drawn meanwhile: at most ``most``, and one batch at least but no more
        than ``seconds`` allow. Returns how many there are now.
        """
        self.drawn.refresh()
        deadline, first = time.perf_counter() + seconds, self.count
        pictures, made = self.drawn.pictures, {shrink: list[Tensor]() for shrink in self.latents}
        last = min(len(self.drawn), first + most)
        while self.count < last and (self.count == first or time.perf_counter() < deadline):
            end = min(self.count + self.batch_size, last)
            signed = to_signed(pictures[self.count : end], self.device)
            for shrink, found in made.items():
                small = F.avg_pool2d(signed, shrink) if shrink > 1 else signed
                with autocast(self.device, dtype):
                    found.append(vae.encoder(small).chunk(2, dim=1)[0].half().contiguous())
            self.count = end
        if self.count > first:
            for shrink, found in made.items():
                old = [self.latents[shrink]] if first else []
                self.latents[shrink] = torch.cat([*old, *found])
            self.captions.add(self.drawn.records[first : self.count])
            self._named = Places(self.captions.named, self.stressed)
        return self.count

    def statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of the latents of up to 1000 pictures."""
        sample = torch.cat([one[:1000].float().flatten() for one in self.latents.values()])
        return sample.mean().item(), sample.std().item()

    def side(self, shape: Shape) -> tuple[int, int]:
        """Rows and columns of latents of one sample."""
        height, width = self.latents[shape.shrink].shape[-2:]
        return shape.rows or height, shape.columns or width

    def usable(self, shape: Shape) -> np.ndarray:
        """The numbers of the pictures that have a sample of this shape."""
        if not (shape.rows or shape.columns):
            return np.arange(self.count)
        low, high = self._offsets(shape)
        return np.flatnonzero(low <= high)

    def _offsets(self, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        """For every picture the lowest and the highest offset of the window that keeps its subjects whole."""
        height, width = self.latents[shape.shrink].shape[-2:]
        across = shape.rows in (0, height)
        full, span = (width, shape.columns) if across else (height, shape.rows)
        known = self._windows.get((shape.rows, shape.columns), np.zeros((0, 2), np.int64))
        if len(known) < self.count:
            more = [
                _window(record["boxes"].values(), across, full, span)
                for record in self.drawn.records[len(known) : self.count]
            ]
            known = np.concatenate([known, more])
            self._windows[shape.rows, shape.columns] = known
        return known[:, 0], known[:, 1]

    def sample(
        self,
        shape: Shape,
        count: int,
        rng: np.random.Generator,
        named_share: float = 0.0,
        empty_share: float = EMPTY_SHARE,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``count`` samples: latents [B, C, H, W] float32 not normalised, tokens and mask [B, L].

        For a share ``named_share`` of them a subject is drawn first, then a caption that names it, so that rare
        subjects are learnt too.
        """
        usable = self.usable(shape)
        rows = usable[rng.integers(len(usable), size=count)]
        columns = rng.integers(self.captions.tokens.shape[1], size=count)
        if len(usable) == self.count and len(self._named):
            chosen = np.flatnonzero(rng.random(count) < named_share)
            rows[chosen], columns[chosen] = self._named.draw(len(chosen), rng).T
        tokens, mask = self.captions.batch(rows, columns, rng, empty_share)
        latents = self._cut(shape, rows, rng).float()
        return latents, self._move(tokens), self._move(mask)

    def _cut(self, shape: Shape, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        latents = self.latents[shape.shrink]
        if not (shape.rows or shape.columns):
            return latents[self._move(rows)]
        low, high = self._offsets(shape)
        starts = low[rows] + (rng.random(len(rows)) * (high[rows] - low[rows] + 1)).astype(int)
        height, width = self.side(shape)
        across = height == latents.shape[-2]
        offsets = self._move(starts[:, None] + np.arange(width if across else height))
        offsets = offsets[:, None, None, :] if across else offsets[:, None, :, None]
        return latents[self._move(rows)].take_along_dim(offsets, 3 if across else 2)

    def _move(self, array: np.ndarray) -> Tensor:
        """``array`` on the device, without waiting for the copy."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return (
            tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor
        )


def _window(boxes: Iterable[Sequence[float]], across: bool, full: int, span: int) -> tuple[int, int]:
    """The lowest and the highest offset at which a window of ``span`` among ``full`` keeps the subjects in
    ``boxes`` whole; of large ones the first half. The lowest is above the highest if there is none.
    """
    low, high = 0, full - span
    for box in boxes:
        start, end = (box[0], box[2]) if across else (box[1], box[3])
        if end - start > LARGE:
            if across:
                continue
            end = start + LARGE / 2
        low = max(low, math.ceil(end * full) - span)
        high = min(high, math.floor(start * full))
    return low, high


def to_signed(pictures: np.ndarray | Tensor, device: torch.device | None = None) -> Tensor:
    """uint8 [N, H, W, 3] to float32 [N, 3, H, W] in -1..1, channels last in memory (faster)."""
    batch = torch.as_tensor(np.array(pictures) if isinstance(pictures, np.ndarray) else pictures)
    batch = batch.to(device or batch.device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    return batch.contiguous(memory_format=torch.channels_last)


def to_bytes(signed: Tensor) -> np.ndarray:
    """The inverse of ``to_signed``, clipped and rounded."""
    made = signed.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return made.permute(0, 2, 3, 1).cpu().numpy()

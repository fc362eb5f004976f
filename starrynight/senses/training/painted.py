"""Firefly's own paintings as sets: what the perceiver will see in a gallery, with what was asked for.

A set has the form of ``firefly.training.data``. A record's "shows" is the scene that the prompt describes; the picture may
lack some of it. "asked" are the facts that the prompt names, all of which Firefly knows; "weights" is the Firefly that painted it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from starrynight.firefly import model
from starrynight.firefly.drawing.scene import Scene, compose
from starrynight.firefly.training import captions, data
from starrynight.models.catalogue import SHIPPED
from starrynight.models.fingerprint import fingerprint
from starrynight.models.vocabulary import Vocabulary
from starrynight.senses.training.truth import asked_of, names_kind, shown

# First seeds of the sets' scenes and of their noise, apart from each other and from those of the drawn sets.
FIRST_SEEDS = {"painted": 8_000_000, "painted-training": 8_200_000, "painted-calibration": 8_600_000}
BATCH = 8  # of data.BLOCK


def prompts(first_seed: int, vocabulary: Vocabulary) -> Iterator[tuple[Scene, str]]:
    """Scenes with one caption each that names the style, the kind of scene and only what ``vocabulary`` has; endless."""
    seed = first_seed
    while True:
        scene = compose(seed)
        text = captions.caption(scene, np.random.default_rng((seed, 2)))
        named = captions.named_in(text)
        known = named & set(scene.subjects) <= set(vocabulary.things)
        if scene.style in named and known and names_kind(text, scene.kind):
            yield scene, text
        seed += 1


def paint(folder: Path, count: int, side: int, steps: int, seconds: float) -> None:
    """Paint the set that ``folder`` is named after with the shipped weights, or as much of it as ``seconds`` allow, resuming where
    an earlier run stopped.

    ``folder`` gets ``pictures.npy``, uint8 [count, side, side, 3], and a block of records for each 24 pictures.
    """
    vocabulary = Vocabulary.read(SHIPPED)
    assert vocabulary is not None, "the shipped weights have their vocabulary"
    first = FIRST_SEEDS[folder.name]
    asked = list(islice(prompts(first, vocabulary), count))
    pictures = data.open_pictures(folder, count, side)
    pipe, painter = model.load(SHIPPED, torch.bfloat16), weights()
    deadline = time.time() + seconds
    for block in range(len(data.PictureSet(folder)) // data.BLOCK, -(-count // data.BLOCK)):
        if time.time() > deadline:
            return
        rows = range(block * data.BLOCK, min(count, (block + 1) * data.BLOCK))
        texts = [asked[row][1] for row in rows]
        pictures[rows.start : rows.stop] = model.paint(
            pipe, texts, first + rows.start, side, steps, batch=BATCH
        )
        data.write_block(
            data.block_path(folder, block), [record(*asked[row]) | {"weights": painter} for row in rows]
        )
        print(f"{folder.name}: {rows.stop}/{count} pictures", flush=True)


def weights() -> str:
    """The shipped Firefly, by the start of its files' fingerprint: judgements hold for the paintings of one."""
    return fingerprint(SHIPPED)[:12]


def record(scene: Scene, text: str) -> dict[str, Any]:
    """The record of a painted picture: the scene, its one caption, and the facts "asked" for."""
    asked = asked_of(text, shown(scene))
    named = [name for name in scene.subjects if name in asked]
    return data.describe(scene, 0) | {"captions": [text], "named": [named], "asked": sorted(asked)}

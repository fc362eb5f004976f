"""Firefly's own paintings as a set: what the perceiver will see in a gallery, with what was asked for.

A set has the form of ``firefly.training.data``. A record's "shows" is the scene that the prompt describes; the picture may
lack some of it. "asked" are the facts that the prompt names, all of which Firefly knows.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from starrynight.firefly import model
from starrynight.firefly.drawing.scene import Scene, compose
from starrynight.firefly.training import captions, data
from starrynight.models.catalogue import SHIPPED
from starrynight.models.vocabulary import Vocabulary

FIRST_SEED = 8_000_000  # of the scenes, apart from those of the drawn sets
BATCH = 8  # of data.BLOCK


def prompts(count: int, vocabulary: Vocabulary) -> list[tuple[Scene, str]]:
    """``count`` scenes with one caption each that names the style and only what ``vocabulary`` has."""
    found: list[tuple[Scene, str]] = []
    seed = FIRST_SEED
    while len(found) < count:
        scene = compose(seed)
        text = captions.caption(scene, np.random.default_rng((seed, 2)))
        named = captions.named_in(text)
        if scene.style in named and named & set(scene.subjects) <= set(vocabulary.things):
            found.append((scene, text))
        seed += 1
    return found


def paint(folder: Path, count: int, side: int, seconds: float) -> None:
    """Paint a set with the shipped weights, or as much of it as ``seconds`` allow, resuming where an earlier run stopped.

    ``folder`` gets ``pictures.npy``, uint8 [count, side, side, 3], and a block of records for each 24 pictures.
    """
    vocabulary = Vocabulary.read(SHIPPED)
    assert vocabulary is not None, "the shipped weights have their vocabulary"
    asked = prompts(count, vocabulary)
    pictures = data.open_pictures(folder, count, side)
    pipe = model.load(SHIPPED, torch.bfloat16)
    deadline = time.time() + seconds
    for block in range(len(data.PictureSet(folder)) // data.BLOCK, -(-count // data.BLOCK)):
        if time.time() > deadline:
            return
        rows = range(block * data.BLOCK, min(count, (block + 1) * data.BLOCK))
        texts = [asked[row][1] for row in rows]
        pictures[rows.start : rows.stop] = model.paint(pipe, texts, rows.start, side, batch=BATCH)
        data.write_block(data.block_path(folder, block), [record(*asked[row]) for row in rows])
        print(f"{folder.name}: {rows.stop}/{count} pictures", flush=True)


def record(scene: Scene, text: str) -> dict[str, Any]:
    """The record of a painted picture: the scene, its one caption, and the facts "asked" for."""
    asked = sorted(captions.named_in(text))
    named = [name for name in scene.subjects if name in asked]
    return data.describe(scene, 0) | {"captions": [text], "named": [named], "asked": asked}

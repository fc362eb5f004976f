"""Firefly's training data: drawn pictures on disk, and the captions that describe them.

A set is a folder: ``pictures.npy`` (uint8 [N, S, S, 3]) and one ``block-*.jsonl`` per 24 pictures, with
each picture's seed, what it shows, and several captions. Drawing resumes: a block is written to the array
first, then its JSON lines appear atomically, and a block that has its lines is not drawn again.

Nothing here knows the networks.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from starrynight.firefly.drawing.scene import Scene, compose
from starrynight.firefly.training.captions import caption, named_in, ornament
from starrynight.storage import write_atomic

# Left, top, right and bottom edge of a subject, as shares of the picture's side.
Box = tuple[float, float, float, float]

BLOCK = 24
# First seeds of the sets, far enough apart that no scene is in two of them.
FIRST_SEEDS = {"training": 1_000_000, "large": 4_000_000, "held-out": 9_000_000}


def draw(
    folder: Path,
    count: int,
    first_seed: int,
    size: int = 512,
    captions: int = 8,
    workers: int = 2,
    seconds: float = math.inf,
) -> None:
    """Draw a set of ``count`` pictures of ``size`` pixels a side, or as many as ``seconds`` allow, resuming
    where an earlier run stopped.
    """
    open_pictures(folder, count, size)
    blocks = range(-(-count // BLOCK))
    missing = [block for block in blocks if not block_path(folder, block).exists()]
    deadline = time.time() + seconds
    # Spawned, not forked: a fork of a process whose other threads hold locks can deadlock.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_draw_block, folder, first_seed, block, count, captions, deadline)
            for block in missing
        ]
        for done, job in enumerate(jobs, start=1):
            job.result()
            if time.time() < deadline and (done % 10 == 0 or done == len(jobs)):
                print(f"{folder.name}: {done}/{len(jobs)} blocks", flush=True)


def open_pictures(folder: Path, count: int, size: int) -> np.ndarray:
    """The array of a set, uint8 [count, size, size, 3], to be written to; made if it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    array = folder / "pictures.npy"
    if not array.exists():
        unfinished = array.with_suffix(".part")
        np.lib.format.open_memmap(unfinished, "w+", np.uint8, (count, size, size, 3)).flush()
        unfinished.replace(array)
    return np.load(array, mmap_mode="r+")


def _draw_block(
    folder: Path, first_seed: int, block: int, count: int, captions: int, deadline: float
) -> None:
    """Draw the pictures of one block into the set. A block that is not finished at ``deadline`` is dropped."""
    import cv2

    from starrynight.firefly.drawing.landscape import render

    cv2.setNumThreads(1)
    pictures = np.load(folder / "pictures.npy", mmap_mode="r+")
    records = []
    for index in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
        if time.time() > deadline:
            return
        scene = compose(first_seed + index)
        boxes: dict[str, Box] = {}
        pictures[index] = render(scene, pictures.shape[1], boxes)
        records.append(describe(scene, captions, boxes))
    write_block(block_path(folder, block), records)


def block_path(folder: Path, block: int) -> Path:
    """The file of a block's records."""
    return folder / f"block-{block:05d}.jsonl"


def describe(scene: Scene, captions: int, boxes: dict[str, Box] | None = None) -> dict[str, Any]:
    """A scene's record in its block: its seed, what it shows and where, captions drawn from the seed, and the
    subjects that each of them names.
    """
    rng = np.random.default_rng((scene.seed, 1))
    texts = [ornament(caption(scene, rng, boxes), rng) for _ in range(captions)]
    named = [[one for one in scene.subjects if one in named_in(text)] for text in texts]
    rounded = {name: [round(float(edge), 3) for edge in box] for name, box in (boxes or {}).items()}
    return {
        "seed": scene.seed,
        "shows": _contents(scene),
        "captions": texts,
        "named": named,
        "boxes": rounded,
    }


def _contents(scene: Scene) -> dict[str, Any]:
    """What a scene shows, as plain JSON."""
    facts = {name: getattr(scene, name) for name in ("style", "kind", "hour", "weather")}
    return {**facts, "subjects": list(scene.subjects)}


def write_block(path: Path, records: list[dict[str, Any]]) -> None:
    """Write a block's records as JSON lines, atomically."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_atomic(path, lines.encode(), overwrite=True)


class PictureSet:
    """The leading finished blocks of a set, which may still grow: ``pictures`` uint8 [N, S, S, 3] and their N
    ``records`` (see ``describe``). ``planned`` is how many pictures the finished set will hold.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.records, self._blocks = folder, list[dict[str, Any]](), 0
        self.refresh()

    def __len__(self) -> int:
        return len(self.records)

    @property
    def planned(self) -> int:
        return len(np.load(self.folder / "pictures.npy", mmap_mode="r"))

    @property
    def pictures(self) -> np.ndarray:
        return np.load(self.folder / "pictures.npy", mmap_mode="r")[: len(self)]

    def refresh(self) -> range:
        """Read the blocks that were finished meanwhile. Returns the numbers of the new pictures."""
        first = len(self.records)
        while (path := block_path(self.folder, self._blocks)).exists():
            self.records += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            self._blocks += 1
        return range(first, len(self.records))

    def all_captions(self) -> Iterator[str]:
        """Every caption of every picture, in order."""
        for record in self.records:
            yield from record["captions"]


def scene_captions(seeds: range, captions: int = 4) -> Iterator[str]:
    """Captions of composed scenes, without drawing them: what the tokenizer learns from."""
    for seed in seeds:
        yield from describe(compose(seed), captions)["captions"]

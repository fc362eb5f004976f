"""Draw Firefly's pictures once and keep them on disk. A set is a folder: ``pictures.npy`` (uint8 [N, 256, 256, 3])
and one ``block-*.jsonl`` per block of pictures, with each picture's seed, what it shows, and several captions.

Resumable: a block is written to the array first, then its JSON lines appear in one move; what is there is not drawn
again. Knows nothing of models.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 50
# Scenes of the two sets are drawn from seeds that never meet.
TRAINING_SEED, HELD_OUT_SEED = 1_000_000, 9_000_000
# What people add to prompts without meaning anything a small painter could show; it learns to look past them.
ORNAMENTS = (
    "masterpiece", "best quality", "8k", "highly detailed", "beautiful", "a painting", "art", "wallpaper",
    "高清", "精美", "杰作", "细节丰富", "唯美", "绘画作品", "大师之作", "一幅画",
)  # fmt: skip


def ornamented(text: str, rng: np.random.Generator) -> str:
    """``text``, one time in eight with an empty phrase added before or after."""
    if not text or rng.random() >= 1 / 8:
        return text
    extra = str(rng.choice(ORNAMENTS))
    comma = "，" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else ", "
    return f"{extra}{comma}{text}" if rng.random() < 0.3 else f"{text.rstrip('。.')}{comma}{extra}"


def draw_block(folder: Path, first_seed: int, block: int, count: int, size: int, captions: int) -> int:
    """Draw pictures ``block * BLOCK`` onward into the set; returns how many."""
    import cv2

    from starrynight.firefly.drawing.render import render
    from starrynight.firefly.drawing.scene import compose

    cv2.setNumThreads(1)
    pictures = np.load(folder / "pictures.npy", mmap_mode="r+")
    lines = []
    for index in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
        scene = compose(first_seed + index)
        pictures[index] = render(scene, size=size)
        lines.append(described(scene, captions))
    pictures.flush()
    write_block(folder / f"block-{block:05d}.jsonl", lines)
    return len(lines)


def described(scene: Any, captions: int) -> dict[str, Any]:
    """A scene's line in its block: seed, what it shows, and ``captions`` captions drawn from the seed."""
    from starrynight.firefly.training.captions import caption

    rng = np.random.default_rng((scene.seed, 1))
    texts = [ornamented(caption(scene, rng), rng) for _ in range(captions)]
    return {"seed": scene.seed, "shows": shown(scene), "captions": texts}


def write_block(path: Path, lines: list[dict[str, Any]]) -> None:
    """A block's lines, there in one move or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    os.replace(unfinished, path)


def recaption(folder: Path, captions: int) -> int:
    """Write every drawn block's captions anew, when captions.py has learnt new words; the pictures stay.

    Returns how many pictures were captioned. Raises ValueError when a seed no longer composes the scene that was
    drawn from it: those pictures must be drawn again.
    """
    from starrynight.firefly.drawing.scene import compose

    count = 0
    for path in sorted(folder.glob("block-*.jsonl")):
        lines = []
        for line in path.read_text("utf-8").splitlines():
            was = json.loads(line)
            scene = compose(was["seed"])
            if shown(scene) != was["shows"]:
                raise ValueError(f"{path.name}: seed {was['seed']} now composes another scene; draw it again")
            lines.append(described(scene, captions))
        write_block(path, lines)
        count += len(lines)
    return count


def draw(
    folder: Path, count: int, first_seed: int, size: int = 256, captions: int = 6, workers: int = 2
) -> None:
    """Draw a set of ``count`` pictures, going on where an earlier run stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    array = folder / "pictures.npy"
    if not array.exists():
        np.lib.format.open_memmap(array, "w+", np.uint8, (count, size, size, 3)).flush()
    blocks = range(-(-count // BLOCK))
    missing = [block for block in blocks if not (folder / f"block-{block:05d}.jsonl").exists()]
    # Spawned: a fork of a process whose other threads hold locks may never wake.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(draw_block, folder, first_seed, block, count, size, captions) for block in missing
        ]
        for done, job in enumerate(jobs, start=1):
            job.result()
            if done % 10 == 0 or done == len(jobs):
                print(f"{folder.name}: {done}/{len(jobs)} blocks", flush=True)


def shown(scene: Any) -> dict[str, Any]:
    """What a scene shows, as plain JSON."""
    facts = {name: getattr(scene, name) for name in ("style", "kind", "hour", "weather")}
    return {**facts, "subjects": list(scene.subjects)}


@dataclasses.dataclass(frozen=True)
class PictureSet:
    """The drawn part of a set: ``pictures`` uint8 [N, S, S, 3] and, in step, ``facts`` (seed, shows, captions)."""

    pictures: np.ndarray
    facts: list[dict[str, Any]]
    # How many pictures the set will hold once it is drawn to its end.
    room: int = 0

    def __len__(self) -> int:
        return len(self.facts)

    def all_captions(self) -> Iterator[str]:
        for fact in self.facts:
            yield from fact["captions"]


def read(folder: Path) -> PictureSet:
    """The leading blocks of a set that are complete (all of them once ``draw`` has ended)."""
    facts: list[dict[str, Any]] = []
    block = 0
    while (path := folder / f"block-{block:05d}.jsonl").exists():
        facts += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        block += 1
    pictures = np.load(folder / "pictures.npy", mmap_mode="r")
    return PictureSet(pictures[: len(facts)], facts, len(pictures))


def leaves(count: int, size: int = 256, seed: int = 0) -> np.ndarray:
    """Dead leaves (Lee, Mumford, Huang 2001): discs, polygons and strokes of all sizes over one another.

    An autoencoder learns the grammar of edges and colours from them before the first painting is drawn.
    Returns uint8 [count, size, size, 3].
    """
    import cv2

    rng = np.random.default_rng(seed)
    made = np.empty((count, size, size, 3), np.uint8)
    for picture in made:
        tones = rng.uniform(0, 255, (6, 3))
        picture[:] = cv2.resize(
            rng.uniform(0, 255, (4, 4, 3)), (size, size), interpolation=cv2.INTER_CUBIC
        ).clip(0, 255)
        for _ in range(int(rng.integers(40, 400))):
            tone = tuple(float(v) for v in np.clip(tones[rng.integers(6)] + rng.normal(0, 30, 3), 0, 255))
            x, y = (int(v) for v in rng.integers(0, size, 2))
            span = 1.5 * 40 ** rng.random()
            angle = rng.uniform(0, 180)
            axes = (max(1, int(span)), max(1, int(span * rng.uniform(0.1, 1))))
            cv2.ellipse(
                picture, (x, y), axes, angle, 0, int(rng.choice([360, 360, 180])), tone, -1, cv2.LINE_AA
            )
        if rng.random() < 0.5:
            picture[:] = np.clip(picture + rng.normal(0, rng.uniform(2, 14), picture.shape), 0, 255)
    return made

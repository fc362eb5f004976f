"""Firefly's training data: drawn pictures on disk, the captions that describe them, and the captions as
tokens.

A set is a folder: ``pictures.npy`` (uint8 [N, S, S, 3]) and one ``block-*.jsonl`` per 24 pictures, with
each picture's seed, what it shows, and several captions. Drawing resumes: a block is written to the array
first, then its JSON lines appear atomically, and a block that has its lines is not drawn again.

Captions are Chinese or English and written the way people write prompts: short, varied, with parts left out,
and always true of the scene. The phrases are in phrases.json. Nothing here knows the networks.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from starrynight.firefly.drawing.scene import Scene, compose
from starrynight.storage import write_atomic

Rng = np.random.Generator
# Left, top, right and bottom edge of a subject, as shares of the picture's side.
Box = tuple[float, float, float, float]

BLOCK = 24
# First seeds of the sets, far enough apart that no scene is in two of them.
TRAINING_SEED, LARGE_SEED, HELD_OUT_SEED = 1_000_000, 4_000_000, 9_000_000

# The phrases, Chinese and English: of each "style", "thing", "hour" and "weather"; and whole "line"s, each
# with the facts that must hold for it ("night" and "mist" count as facts).
_PHRASES: dict[str, Any] = json.loads((Path(__file__).parent / "phrases.json").read_text("utf-8"))

# The main subject of each kind of scene. Lines that name it are drawn five times as often.
_MAIN_SUBJECT = {
    "pond": "lilies",
    "mountain": "mountains",
    "city": "skyline",
    **{kind: kind for kind in ("village", "sea", "apsara", "sunflowers", "wheat", "snow", "river")},
}
# Phrases that people add to prompts and that show nothing. One caption in eight gets one, so that the model
# learns to ignore them.
_ORNAMENTS = (
    "masterpiece", "best quality", "8k", "highly detailed", "beautiful", "a painting", "art", "wallpaper",
    "高清", "精美", "杰作", "细节丰富", "唯美", "绘画作品", "大师之作", "一幅画",
)  # fmt: skip


def caption(scene: Scene, rng: Rng) -> str:
    """A short true description of the scene, never empty: 50 % Chinese, 45 % English, 5 % in both."""
    draw = rng.uniform()
    if draw < 0.5:
        return _write(scene, rng, chinese=True)
    if draw < 0.95:
        return _write(scene, rng, chinese=False)
    line, _ = _line(scene, rng, "zh" if draw < 0.975 else "en")
    if draw < 0.975:
        return f"{line}，{_pick(rng, _PHRASES['style']['en'][scene.style])}"
    return f"{line}, {_pick(rng, _PHRASES['style']['zh'][scene.style])}"


def mentions(text: str, kind: str, name: str) -> bool:
    """Whether ``text`` contains a phrase that captions use for ``name``, a "style", "thing" or "hour"."""
    return any(phrase.lower() in text.lower() for table in _PHRASES[kind].values() for phrase in table[name])


def _write(scene: Scene, rng: Rng, chinese: bool) -> str:
    language = "zh" if chinese else "en"
    styles, things, hours, weathers = (
        _PHRASES[kind][language] for kind in ("style", "thing", "hour", "weather")
    )
    draw = rng.uniform(size=5)
    style = _pick(rng, styles[scene.style])
    subjects = list(scene.subjects)
    rng.shuffle(subjects)
    stated: set[str] = set()
    if draw[0] < 0.12:
        parts = [_pick(rng, things[subjects[0]])]
    elif draw[0] < 0.3:
        parts = [_pick(rng, things[name]) for name in subjects[: int(rng.integers(2, 6))]]
    else:
        line, stated = _line(scene, rng, language)
        rest = [name for name in subjects if name not in stated]
        more = rest[: int(rng.choice((0, 1, 2, 3), p=(0.35, 0.3, 0.22, 0.13)))]
        parts = [line, *(_pick(rng, things[name]) for name in more)]
    if draw[1] < 0.5 and scene.hour not in stated:
        parts.append(_pick(rng, hours[scene.hour]))
    if draw[2] < 0.5 and weathers[scene.weather] and scene.weather not in stated:
        parts.append(_pick(rng, weathers[scene.weather]))
    if draw[3] < 0.9:
        parts.insert(int(rng.choice((0, 1, len(parts)), p=(0.2, 0.4, 0.4))), style)
    parts = list(dict.fromkeys(parts))
    if chinese:
        text = ("，" if draw[4] < 0.85 else " ").join(parts)
        return text + ("。" if draw[4] > 0.95 else "")
    text = ", ".join(parts)
    return text[0].upper() + text[1:] if draw[4] < 0.2 else text


def _line(scene: Scene, rng: Rng, language: str) -> tuple[str, set[str]]:
    """A line whose facts all hold, and those facts. A line with more facts is drawn more often."""
    facts = {*scene.subjects, scene.hour, scene.weather}
    fitting = [
        (set(needs.split()), lines)
        for needs, lines in _PHRASES["line"][language]
        if facts.issuperset(needs.split())
    ]
    main = _MAIN_SUBJECT[scene.kind]
    weights = np.array([len(needs) ** 2 * (5 if main in needs else 1) for needs, _ in fitting], dtype=float)
    needs, lines = fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]
    return _pick(rng, lines), needs


def _pick(rng: Rng, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _ornament(text: str, rng: Rng) -> str:
    """``text``, one time in eight with a meaningless phrase before or after it."""
    if not text or rng.random() >= 1 / 8:
        return text
    extra = str(rng.choice(_ORNAMENTS))
    comma = "，" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else ", "
    return f"{extra}{comma}{text}" if rng.random() < 0.3 else f"{text.rstrip('。.')}{comma}{extra}"


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
    folder.mkdir(parents=True, exist_ok=True)
    array = folder / "pictures.npy"
    if not array.exists():
        unfinished = array.with_suffix(".part")
        np.lib.format.open_memmap(unfinished, "w+", np.uint8, (count, size, size, 3)).flush()
        unfinished.replace(array)
    blocks = range(-(-count // BLOCK))
    missing = [block for block in blocks if not _block_path(folder, block).exists()]
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
    write_block(_block_path(folder, block), records)


def _block_path(folder: Path, block: int) -> Path:
    return folder / f"block-{block:05d}.jsonl"


def describe(scene: Scene, captions: int, boxes: dict[str, Box] | None = None) -> dict[str, Any]:
    """A scene's record in its block: its seed, what it shows and where, captions drawn from the seed, and the
    subjects that each of them names.
    """
    rng = np.random.default_rng((scene.seed, 1))
    texts = [_ornament(caption(scene, rng), rng) for _ in range(captions)]
    named = [[one for one in scene.subjects if mentions(text, "thing", one)] for text in texts]
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
        while (path := _block_path(self.folder, self._blocks)).exists():
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

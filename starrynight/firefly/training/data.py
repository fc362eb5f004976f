"""Firefly's training data: drawn pictures on disk, the captions that describe them, and the captions as
tokens.

A set is a folder: ``pictures.npy`` (uint8 [N, 256, 256, 3]) and one ``block-*.jsonl`` per 50 pictures, with
each picture's seed, what it shows, and several captions. Drawing resumes: a block is written to the array
first, then its JSON lines appear atomically, and a block that has its lines is not drawn again.

Captions are Chinese or English and written the way people write prompts: short, varied, with parts left out,
and always true of the scene. The phrases are in phrases.json. Nothing here knows the networks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.firefly.drawing.scene import Scene, compose
from starrynight.storage import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

Rng = np.random.Generator

BLOCK = 50
# First seeds of the two sets, far enough apart that no scene is in both.
TRAINING_SEED, HELD_OUT_SEED = 1_000_000, 9_000_000

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

# The stock transformer pads every caption to a multiple of this (diffusers,
# transformer_z_image.SEQ_MULTI_OF).
MULTIPLE = 32
LONGEST = 64
EMPTY_SHARE = 0.1
LONG_SHARE = 0.2
# Subjects that a model leaves out when it reads every caption equally often (docs/firefly-evaluation.json):
# they are small, pale or thin.
OMITTED_SUBJECTS = (
    "stars", "swirls", "moon", "crescent", "sun", "comet", "clouds", "church", "blossoms", "crows", "pagoda",
    "boat", "rain",
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
    folder: Path, count: int, first_seed: int, size: int = 256, captions: int = 6, workers: int = 2
) -> None:
    """Draw a set of ``count`` pictures of ``size`` pixels a side, resuming where an earlier run stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    array = folder / "pictures.npy"
    if not array.exists():
        np.lib.format.open_memmap(array, "w+", np.uint8, (count, size, size, 3)).flush()
    blocks = range(-(-count // BLOCK))
    missing = [block for block in blocks if not _block_path(folder, block).exists()]
    # Spawned, not forked: a fork of a process whose other threads hold locks can deadlock.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_draw_block, folder, first_seed, block, count, captions) for block in missing]
        for done, job in enumerate(jobs, start=1):
            job.result()
            if done % 10 == 0 or done == len(jobs):
                print(f"{folder.name}: {done}/{len(jobs)} blocks", flush=True)


def _draw_block(folder: Path, first_seed: int, block: int, count: int, captions: int) -> None:
    """Draw the up to 50 pictures of one block into the set."""
    import cv2

    from starrynight.firefly.drawing.landscape import render

    cv2.setNumThreads(1)
    pictures = np.load(folder / "pictures.npy", mmap_mode="r+")
    records = []
    for index in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
        scene = compose(first_seed + index)
        pictures[index] = render(scene, size=pictures.shape[1])
        records.append(describe(scene, captions))
    pictures.flush()
    write_block(_block_path(folder, block), records)


def _block_path(folder: Path, block: int) -> Path:
    return folder / f"block-{block:05d}.jsonl"


def describe(scene: Scene, captions: int) -> dict[str, Any]:
    """A scene's record in its block: its seed, what it shows, and captions drawn from the seed."""
    rng = np.random.default_rng((scene.seed, 1))
    texts = [_ornament(caption(scene, rng), rng) for _ in range(captions)]
    return {"seed": scene.seed, "shows": _contents(scene), "captions": texts}


def _contents(scene: Scene) -> dict[str, Any]:
    """What a scene shows, as plain JSON."""
    facts = {name: getattr(scene, name) for name in ("style", "kind", "hour", "weather")}
    return {**facts, "subjects": list(scene.subjects)}


def write_block(path: Path, records: list[dict[str, Any]]) -> None:
    """Write a block's records as JSON lines, atomically."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_atomic(path, lines.encode(), overwrite=True)


def recaption(folder: Path, captions: int) -> int:
    """Write the captions of every drawn block again, after a change of the phrases; the pictures stay.

    Returns how many pictures were captioned. Raises ValueError when a seed no longer composes the scene that
    was drawn from it: those pictures must be drawn again.
    """
    count = 0
    for path in sorted(folder.glob("block-*.jsonl")):
        records = []
        for old in map(json.loads, path.read_text("utf-8").splitlines()):
            scene = compose(old["seed"])
            if _contents(scene) != old["shows"]:
                raise ValueError(f"{path.name}: seed {old['seed']} now composes another scene; draw it again")
            records.append(describe(scene, captions))
        write_block(path, records)
        count += len(records)
    return count


@dataclass(frozen=True)
class PictureSet:
    """The drawn part of a set: ``pictures`` uint8 [N, S, S, 3] and their N ``records`` (seed, shows,
    captions).

    ``planned`` is how many pictures the finished set will hold.
    """

    pictures: np.ndarray
    records: list[dict[str, Any]]
    planned: int = 0

    def __len__(self) -> int:
        return len(self.records)

    def all_captions(self) -> Iterator[str]:
        """Every caption of every picture, in order."""
        for record in self.records:
            yield from record["captions"]


def read(folder: Path) -> PictureSet:
    """The leading complete blocks of a set: all of them once ``draw`` has finished."""
    records: list[dict[str, Any]] = []
    block = 0
    while (path := _block_path(folder, block)).exists():
        records += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        block += 1
    pictures = np.load(folder / "pictures.npy", mmap_mode="r")
    return PictureSet(pictures[: len(records)], records, len(pictures))


@dataclass(frozen=True)
class TokenizedCaptions:
    """Every caption of a set as tokens: ``tokens`` int32 [N, K, 64] and ``lengths`` [N, K]; ``empty`` is
    caption "".

    ``mentioning`` has, for each of OMITTED_SUBJECTS that any caption mentions, the indices [M, 2] (picture,
    caption) of the captions that mention it.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    empty: np.ndarray
    mentioning: tuple[np.ndarray, ...]

    @classmethod
    def encode(cls, tokenizer: Any, captions: Sequence[Sequence[str]]) -> TokenizedCaptions:
        """Tokenize K ``captions`` for each of N pictures, truncated to 64 tokens."""
        count = len(captions[0])
        tokens = np.full((len(captions), count, LONGEST), tokenizer.pad_token_id, np.int32)
        lengths = np.zeros((len(captions), count), np.int32)
        for row, texts in enumerate(captions):
            ids = tokenizer([chat_prompt(tokenizer, text) for text in texts])["input_ids"]
            for column, one in enumerate(ids):
                lengths[row, column] = min(len(one), LONGEST)
                tokens[row, column, : len(one)] = one[:LONGEST]
        empty = np.asarray(tokenizer(chat_prompt(tokenizer, ""))["input_ids"], np.int32)
        found = (
            np.argwhere([[mentions(text, "thing", thing) for text in texts] for texts in captions])
            for thing in OMITTED_SUBJECTS
        )
        return cls(tokens, lengths, empty, tuple(places for places in found if len(places)))

    def sample(self, count: int, omitted_share: float, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        """``count`` pictures in rising order, and for each a permutation of its captions [count, K].

        For a share ``omitted_share`` of them the first caption mentions one of OMITTED_SUBJECTS, each subject
        equally often.
        """
        pictures, captions = self.lengths.shape
        rows = rng.integers(pictures, size=count)
        columns = rng.permuted(np.tile(np.arange(captions), (count, 1)), axis=1)
        for slot in np.flatnonzero(rng.random(count) < omitted_share) if self.mentioning else ():
            rows[slot], first = rng.choice(self.mentioning[rng.integers(len(self.mentioning))])
            order = columns[slot]
            order[order == first], order[0] = order[0], first
        rising = np.argsort(rows, kind="stable")
        return rows[rising], columns[rising]

    def batch(self, rows: np.ndarray, columns: np.ndarray, rng: Rng) -> tuple[Tensor, Tensor]:
        """Tokens int64 and mask bool [B, L] for the pictures and captions that ``sample`` chose.

        Four batches in five hold one caption of each picture, one in ten of them empty, padded to 32. The
        fifth joins two captions of each picture, padded to 64.
        """
        if rng.random() < LONG_SHARE:
            return self._join(rows, columns)
        column = columns[:, 0]
        tokens, lengths = self.tokens[rows, column], np.minimum(self.lengths[rows, column], MULTIPLE)
        dropped = rng.random(len(rows)) < EMPTY_SHARE
        tokens[dropped, : len(self.empty)] = self.empty
        lengths[dropped] = len(self.empty)
        return _to_tensors(tokens, lengths, MULTIPLE)

    def _join(self, rows: np.ndarray, columns: np.ndarray) -> tuple[Tensor, Tensor]:
        """The first and last caption of each order as one, the second without its opening token."""
        tokens = np.zeros((len(rows), LONGEST), np.int32)
        lengths = np.zeros(len(rows), np.int32)
        for slot, (row, order) in enumerate(zip(rows, columns, strict=True)):
            first = self.tokens[row, order[0], : self.lengths[row, order[0]] - 1]
            second = self.tokens[row, order[-1], 1 : self.lengths[row, order[-1]]]
            both = np.concatenate([first, second])[:LONGEST]
            tokens[slot, : len(both)], lengths[slot] = both, len(both)
        return _to_tensors(tokens, lengths, LONGEST)


def _to_tensors(tokens: np.ndarray, lengths: np.ndarray, width: int) -> tuple[Tensor, Tensor]:
    # Imported here: the processes that draw pictures import this module and need no torch.
    import torch

    mask = np.arange(width)[None] < lengths[:, None]
    return torch.from_numpy(tokens[:, :width]).long(), torch.from_numpy(mask)


def chat_prompt(tokenizer: Any, text: str) -> str:
    """``text`` in the chat template, exactly as ZImagePipeline formats it."""
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )

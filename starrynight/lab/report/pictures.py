"""The pictures of a report: small WebP copies, differences and FLIP maps, as data URIs. Reads a run's PNGs only."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from starrynight.lab import metrics
from starrynight.lab.findings import name_of, name_zh
from starrynight.lab.plan import FORMATS, PROMPTS, REFERENCE
from starrynight.lab.run import ExperimentRun
from starrynight.lab.table import pictures

LARGEST = 384  # pixels a side; a report is looked at, the run's PNGs are measured
AMPLIFIED = 16  # one level of 256 is not seen; sixteen are
QUALITY = 88
# What a report may weigh, so that it can be mailed, and what its text and charts take of it.
BUDGET, REST = 4_800_000, 500_000


@dataclass
class Scene:
    """One prompt of one model in all formats. ``views``: format → {"picture", "difference", "flip"} or {"refused"}."""

    model: str
    prompt: int
    views: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        text, style = PROMPTS[self.prompt]
        return {
            "model": {"en": name_of(self.model), "zh": name_zh(self.model)},
            "text": text,
            "style": style,
            "views": {f: self.views[f] for f in FORMATS if f in self.views},
        }

    @property
    def bytes(self) -> int:
        return sum(len(str(value)) for view in self.views.values() for value in view.values())


def scenes(run: ExperimentRun, budget: int = BUDGET - REST) -> list[Scene]:
    """The first picture of every prompt, models in turn, until the budget is spent."""
    found: dict[tuple[int, str], Scene] = {}
    every = [p for p in pictures(run) if p["seed"] == 0]
    paths = {(p["model"], p["prompt"], p["format"]): p["path"] for p in every}
    spent = 0
    for model, prompt in sorted(
        {(p["model"], p["prompt"]) for p in every}, key=lambda key: (key[1], run.plan.models.index(key[0]))
    ):
        scene = Scene(model, prompt)
        reference = _read(paths.get((model, prompt, REFERENCE)))
        for picture in every:
            if (picture["model"], picture["prompt"]) == (model, prompt):
                scene.views[picture["format"]] = _views(picture, reference)
        spent += scene.bytes
        if spent > budget and found:
            break
        found[prompt, model] = scene
    order = {model: at for at, model in enumerate(run.plan.models)}
    return sorted(found.values(), key=lambda scene: (order[scene.model], scene.prompt))


def _views(picture: dict[str, Any], reference: np.ndarray | None) -> dict[str, Any]:
    pixels = _read(picture["path"])
    if pixels is None:
        return {
            "refused": picture["refused"] or {"en": "The picture's file is missing.", "zh": "图片文件缺失。"}
        }
    views: dict[str, Any] = {"picture": uri(pixels)}
    if reference is not None and picture["format"] != REFERENCE and reference.shape == pixels.shape:
        a, b = reference.astype(np.float32) / 255, pixels.astype(np.float32) / 255
        views["difference"] = uri(metrics.eight_bits(np.abs(a - b) * AMPLIFIED))
        views["flip"] = uri(heat(metrics.flip(a, b)[1]))
    return views


def _read(path: Path | None) -> np.ndarray | None:
    if path is None or not path.is_file():
        return None
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def uri(pixels: np.ndarray) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


# Night to gold, even in lightness: where an error is seen, the map glows.
STOPS = np.array(
    [[7, 10, 28], [38, 34, 98], [116, 52, 120], [206, 92, 84], [246, 168, 72], [255, 240, 190]], np.float32
)


def heat(error: np.ndarray) -> np.ndarray:
    """FLIP's 0…1 as colours; its square root, since what is interesting is small."""
    at = np.sqrt(np.clip(error, 0, 1)) * (len(STOPS) - 1)
    low = np.minimum(at.astype(int), len(STOPS) - 2)
    share = (at - low)[..., None]
    return np.rint(STOPS[low] * (1 - share) + STOPS[low + 1] * share).astype(np.uint8)

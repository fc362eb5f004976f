"""The sizes that a model was trained at, read from ``sizes.json`` beside its weights, and sizes of a named format.

``{"default": 512, "trained": [[256, 256], [512, 512], [768, 512], …]}``, width and height in pixels. A model of rotary
embeddings paints sizes between trained ones as well; beyond them things repeat or blur. A model without the file says
nothing about its sizes: any size between its bounds is offered. Imports no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from starrynight.models import habits
from starrynight.models.weights import config_or_empty
from starrynight.request import HIGHEST_SIZE
from starrynight.storage import write_atomic

FILE = "sizes.json"
DEFAULT_TOKENS = 512  # that pipelines read of a prompt unless told otherwise
STEP = 128  # pixels between two lengths of the longer side that are offered
# Two sizes are of one format if their ratios of width to height differ by less than this factor: 341.3 pixels become 336.
SAME_FORMAT = 1.07
NAMED = ("1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16", "2:1", "1:2")
RATIO = re.compile(r"([1-9]\d?)[:：]([1-9]\d?)")

Size = tuple[int, int]  # width and height in pixels


class Bounds(Protocol):
    """What ``of_format`` reads of a ``ModelSpec``."""

    @property
    def size(self) -> int: ...
    @property
    def multiple(self) -> int: ...
    @property
    def smallest(self) -> int: ...
    @property
    def largest(self) -> int: ...
    @property
    def trained(self) -> TrainedSizes | None: ...


@dataclass(frozen=True)
class TrainedSizes:
    """``default`` is the side of the default square, one of ``trained``."""

    default: int
    trained: frozenset[Size]

    def covers(self, width: int, height: int) -> bool:
        """Whether the shorter side, the longer side and the ratio lie between trained ones."""
        ratios = [w / h for w, h in self.trained]
        return (
            min(map(min, self.trained)) <= min(width, height)
            and max(width, height) <= max(map(max, self.trained))
            and min(ratios) / SAME_FORMAT < width / height < max(ratios) * SAME_FORMAT
        )

    def nearest(self, width: int, height: int) -> Size:
        """The trained size nearest in format, then in area."""
        ratio, area = width / height, width * height
        return min(
            sorted(self.trained),
            key=lambda size: (
                round(math.log(_factor(size[0] / size[1], ratio)), 1),
                _factor(math.prod(size), area),
            ),
        )


def read(folder: Path, multiple: int, low: int, high: int) -> TrainedSizes | None:
    """The sizes that a diffusers folder was trained at; None if it does not say, or says it in another form.

    Sizes that are no multiples of ``multiple`` in ``low``..``high`` are left out.
    """
    found = config_or_empty(folder / FILE)
    entries, default = found.get("trained"), found.get("default")
    sizes = {size for entry in entries if (size := _size(entry))} if isinstance(entries, list) else set()
    fitting = {size for size in sizes if all(low <= side <= high and side % multiple == 0 for side in size)}
    if type(default) is not int or (default, default) not in fitting:
        return None
    return TrainedSizes(default, frozenset(fitting))


def write(folder: Path, default: int, trained: Iterable[Size]) -> None:
    """Write the file that ``read`` reads."""
    content = {"default": default, "trained": sorted(map(list, set(trained)))}
    write_atomic(folder / FILE, (json.dumps(content) + "\n").encode(), overwrite=True)


def of_format(model: Bounds, ratio: float, longer: int | None = None) -> Size:
    """The size with ``width / height`` near ``ratio`` and the longer side near ``longer``, rounded to the model's multiple and
    clipped to its bounds.

    Without ``longer``: the trained size of this format with the area nearest the default's, else that with the longer side
    of the default.
    """
    known = [size for size in model.trained.trained if _is_format(size, ratio)] if model.trained else []
    if longer is None and known:
        return min(sorted(known), key=lambda size: _factor(math.prod(size), model.size**2))
    side, step = longer or model.size, model.multiple
    low, high = -(-model.smallest // step) * step, model.largest // step * step
    width, height = (round(each / step) * step for each in (side * min(1, ratio), side / max(1, ratio)))
    return min(max(width, low), high), min(max(height, low), high)


def offered(model: Bounds, ratio: float) -> list[int]:
    """The lengths of the longer side, in pixels, to choose from in this format; none if it was not trained."""
    if model.trained is None or not any(_is_format(size, ratio) for size in model.trained.trained):
        return []
    sides = {max(size) for size in model.trained.trained if _is_format(size, ratio)}
    sides |= set(range(STEP, max(sides) + 1, STEP))
    return sorted(side for side in sides if model.trained.covers(*of_format(model, ratio, side)))


def describe(model: Bounds) -> str:
    """The shortest and the longest side and the formats, "256–768 px, 1:1 3:2 2:3"; empty if the model does not say."""
    if model.trained is None:
        return ""
    sides = [side for size in model.trained.trained for side in size]
    formats = [name for name in NAMED if offered(model, ratio_of(name) or 1)]
    return f"{min(sides)}–{max(sides)} px, {' '.join(formats)}"


def ratio_of(text: str) -> float | None:
    """ "3:2" is 1.5, the width over the height; None if it is no such format or longer than 4 to 1."""
    found = RATIO.fullmatch(text.strip())
    ratio = int(found[1]) / int(found[2]) if found else 0.0
    return ratio if found and 1 / 4 <= ratio <= 4 else None


def reach(folder: Path) -> tuple[int, int]:
    """How many words, and how many patches along a side, the transformer has positions for; 0 and many: not limited.

    Z-Image and Lumina keep a table of positions for (words, rows, columns). Words are padded to 32s, the picture follows.
    """
    lengths = config_or_empty(folder / "transformer" / "config.json").get("axes_lens")
    if not (isinstance(lengths, list) and len(lengths) == 3 and all(isinstance(n, int) for n in lengths)):
        return 0, HIGHEST_SIZE
    return min((lengths[0] - 2) // 32 * 32, DEFAULT_TOKENS), min(lengths[1:])


def multiple(folder: Path) -> int | None:
    """Pixels a side must be a multiple of: the autoencoder's reduction, twice that under a patching transformer."""
    reduction = habits.reduction(folder)
    return None if reduction is None else reduction * (2 if (folder / "transformer").is_dir() else 1)


def _size(value: Any) -> Size | None:
    if isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value):
        return value[0], value[1]
    return None


def _is_format(size: Size, ratio: float) -> bool:
    return _factor(size[0] / size[1], ratio) < SAME_FORMAT


def _factor(a: float, b: float) -> float:
    """The factor between two numbers, at least 1."""
    return max(a / b, b / a)

"""The axes of a grid: which fields of a request they may be, and how their values are written. Imports no numpy."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from starrynight.errors import BadRequest, UnknownName
from starrynight.i18n import Text
from starrynight.text import excerpt

KIND = Text("axis", "坐标轴")
# What an axis may be, with the type of its values. "lora" is the weight of the request's first LoRA.
FIELDS: dict[str, type] = {
    "steps": int, "guidance": float, "seed": int, "style": str, "precision": str, "sampler": str,
    "strength": float, "variation": float, "variety": float, "lora": float,
}  # fmt: skip
MAX_PICTURES = 400
NONE = "none"  # the value of an axis of names that leaves the field out


@dataclass(frozen=True)
class Axis:
    """A field of the request and the values that it takes, one a column or row."""

    field: str
    values: tuple[Any, ...]

    def labels(self) -> list[str]:
        return [f"{self.field} {_written(value)}" for value in self.values]


def parse_axis(text: str) -> Axis:
    """ "steps=4,8,16", "seed=1..4" (both ends), "style=none,oil,ink". Raises BadRequest or UnknownName."""
    field, equals, rest = text.replace(" ", "").partition("=")
    if field not in FIELDS:
        raise UnknownName(KIND, excerpt(field), FIELDS)
    values = [value for word in rest.split(",") if word for value in _values(FIELDS[field], word)]
    if not equals or not values or (None in values and FIELDS[field] is not str):
        raise BadRequest(
            f"“{excerpt(text)}” is no axis; write it as steps=4,8,16 or seed=1..4.",
            f"“{excerpt(text)}”不是坐标轴；请写成 steps=4,8,16 或 seed=1..4。",
        )
    return Axis(field, tuple(dict.fromkeys(values)))


def _values(kind: type, word: str) -> list[Any]:
    """The values of one word; [None] for a word that is no number where numbers are asked for."""
    if kind is str:
        return [None if word.lower() == NONE else word]
    first, dots, last = word.partition("..")
    try:
        if dots and kind is int:
            return list(itertools.islice(range(int(first), int(last) + 1), MAX_PICTURES + 1)) or [None]
        return [kind(word)]
    except ValueError:
        return [None]


def _written(value: object) -> str:
    return NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value)

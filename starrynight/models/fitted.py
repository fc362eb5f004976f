"""What ``starry fit`` notes in its files about itself: ``starry.fit``, JSON in one metadata entry. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from starrynight.i18n import Text

KEY = "starry.fit"
# What a result is: one file of the denoiser, or a whole diffusers folder that this program reads.
GGUF, FOLDER = "gguf", "folder"
CONTAINERS = (GGUF, FOLDER)
FILE = "fit.safetensors"  # the denoiser's weights in a folder that it wrote


@dataclass(frozen=True)
class Fitted:
    """``bits`` a weight of the layers whose format was chosen. ``predicted``, ``measured`` and ``worst``: PSNR in dB of
    pictures against float32: predicted, and the mean and the least of ``pictures`` that were painted; None if none were.
    ``base``: the model that brings the other components. ``formats``: type → how many layers.
    """

    bits: float
    predicted: float
    base: str = ""
    measured: float | None = None
    worst: float | None = None
    pictures: int = 0
    formats: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible values, for the file and for a recipe."""
        return asdict(self)

    @property
    def message(self) -> Text:
        """ "fit 5.5 bits, 39.8 dB predicted"."""
        found = Text(f"fit {self.bits:.2f} bits, {self.predicted:.1f} dB predicted", f"适配 {self.bits:.2f} 位，预计 {self.predicted:.1f} dB")  # fmt: skip
        if self.measured is None:
            return found
        return Text(
            f"{found.en}, {self.measured:.1f} dB measured", f"{found.zh}，实测 {self.measured:.1f} dB"
        )


def read(metadata: Mapping[str, str]) -> Fitted | None:
    """What a file's metadata says of its fit; None where it says nothing, or nothing that can be understood."""
    return of_text(metadata.get(KEY, ""))


def base_of(path: Path, metadata: Mapping[str, str]) -> str | None:
    """The model that a file with such metadata was made of: a diffusers folder where it lies from the file, else a name."""
    note = read(metadata)
    if note is None or not note.base:
        return None
    beside = path.parent / note.base
    return str(beside.resolve()) if (beside / "model_index.json").is_file() else note.base


def of_text(text: str) -> Fitted | None:
    """As ``of_entries``, of JSON text."""
    try:
        return of_entries(json.loads(text))
    except (ValueError, RecursionError):
        return None


def of_entries(entries: Any) -> Fitted | None:
    """What ``Fitted.to_dict`` gave; None for anything else. Keys of other versions are ignored."""
    try:
        known = {entry.name: entries[entry.name] for entry in fields(Fitted) if entry.name in entries}
        found = Fitted(**known)
    except (TypeError, KeyError):
        return None
    numbers = (found.bits, found.predicted, *(n for n in (found.measured, found.worst) if n is not None))
    right = all(isinstance(number, int | float) for number in numbers)
    return found if right and isinstance(found.base, str) and isinstance(found.formats, dict) else None

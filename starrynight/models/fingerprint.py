"""Which weights these are: a fingerprint of a model's files that is cheap for 12 GB and sees any retraining.

Knows files; knows no picture.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starrynight.models.catalogue import ModelSpec, resolve

SAMPLES, SAMPLE_BYTES = 64, 4096


def fingerprint(model: ModelSpec) -> str:
    """sha256 over every weight file's name, length, and 64 samples of 4 KB spread evenly, headers included."""
    digest = hashlib.sha256()
    for root in (model.place, *([resolve(model.base).place] if model.base else [])):
        for path in sorted(root.rglob("*.safetensors")) if root.is_dir() else [root]:
            digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
            _sample(path, digest)
    return digest.hexdigest()


def _sample(path: Path, digest: hashlib._Hash) -> None:
    last = max(path.stat().st_size - SAMPLE_BYTES, 0)
    with path.open("rb") as file:
        for place in sorted({last * number // (SAMPLES - 1) for number in range(SAMPLES)}):
            file.seek(place)
            digest.update(file.read(SAMPLE_BYTES))

"""A fingerprint of weight files, by which a changed model is told from a known one. Imports no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starrynight.models.weights import shards

# A fingerprint reads so many samples per file, of so many bytes.
SAMPLES, SAMPLE_BYTES = 64, 4096


def fingerprint(*roots: Path) -> str:
    """SHA-256 (hex) over the name, length and 64 spaced samples of 4 KB of every weight file in ``roots``.

    A root is a folder, one file or a list of shards. The first sample holds the header. Retraining changes nearly every weight, so samples
    detect it and 12 GB cost no time; a change of single weights may go unnoticed.
    """
    digest = hashlib.sha256()
    for root in roots:
        for path in sorted(root.rglob("*.safetensors")) if root.is_dir() else shards(root):
            name = path.relative_to(root) if path.is_relative_to(root) else path.name
            digest.update(f"{name} {path.stat().st_size}\n".encode())
            _sample(path, digest)
    return digest.hexdigest()


def _sample(path: Path, digest: hashlib._Hash) -> None:
    last = max(path.stat().st_size - SAMPLE_BYTES, 0)
    with path.open("rb") as file:
        for offset in sorted({last * number // (SAMPLES - 1) for number in range(SAMPLES)}):
            file.seek(offset)
            digest.update(file.read(SAMPLE_BYTES))

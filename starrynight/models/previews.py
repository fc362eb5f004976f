"""The picture that shows what a model or LoRA paints, as other programs keep it: a file beside it (A1111 and Forge write
NAME.png or NAME.preview.png, ComfyUI's managers also .jpg and .webp), or ModelSpec's ``modelspec.thumbnail``, a data URI in
the safetensors metadata (https://github.com/Stability-AI/ModelSpec). Imports no torch.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from starrynight.errors import StarryError
from starrynight.models.weights import header

# The most particular first: NAME.png may also be a picture painted with it.
SUFFIXES = tuple(
    f"{middle}.{ending}" for middle in (".preview", "") for ending in ("png", "jpg", "jpeg", "webp")
)
MAX_BYTES = 32 << 20
THUMBNAIL = "modelspec.thumbnail"
_DATA_URI = re.compile(r"data:image/(?:png|jpe?g|webp);base64,(?P<data>[A-Za-z0-9+/=\s]+)")


def beside(path: Path) -> Path | None:
    """The picture beside a weight file, or beside or in a model's folder; None without one."""
    stem = path.name if path.is_dir() else path.stem
    places = [path.parent / f"{stem}{suffix}" for suffix in SUFFIXES]
    if path.is_dir():
        places += [path / f"preview{suffix}" for suffix in SUFFIXES if not suffix.startswith(".preview")]
    return next((place for place in places if place.is_file()), None)


def find(path: Path) -> bytes | None:
    """The bytes of the preview of a weight file or folder, undecoded; None without one, or where it cannot be read."""
    try:
        if picture := beside(path):
            return picture.read_bytes() if picture.stat().st_size <= MAX_BYTES else None
        return _embedded(path) if path.is_file() else None
    except (OSError, StarryError):
        return None


def _embedded(path: Path) -> bytes | None:
    metadata = header(path).get("__metadata__")
    written = metadata.get(THUMBNAIL) if isinstance(metadata, dict) else None
    found = _DATA_URI.fullmatch(written.strip()) if isinstance(written, str) else None
    try:
        return base64.b64decode(found["data"]) if found else None
    except binascii.Error:
        return None

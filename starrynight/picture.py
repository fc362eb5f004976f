"""A finished picture: pixels and the recipe that paints them again, encoded as PNG, JPEG or WebP and written whole.

Same picture, same bytes: nothing here looks at a clock. Every file carries the A1111 text (what other tools read), our
full recipe (what we read), and XMP that says it was painted by a model. Does NOT know how a picture is painted, judged
or kept; reading files back is ``starrynight.metadata``'s part.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from starrynight.errors import BadRequest
from starrynight.metadata import a1111, xmp
from starrynight.metadata.files import EXTENSION_HEADER, XMP_HEADER
from starrynight.request import MAX_TEXT, PaintRequest
from starrynight.storage import storing, write_atomic
from starrynight.verdict import Verdict

RECIPE_VERSION = 1
SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
JPEG_QUALITY, WEBP_QUALITY = 95, 90

_APP1_LIMIT = 65533  # bytes after a JPEG segment's two-byte length


def make_recipe(
    request: PaintRequest,
    *,
    index: int = 0,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    sampler: str | None = None,
    model: Mapping[str, Any] | None = None,
    plan: Mapping[str, Mapping[str, str]] | None = None,
    verdict: Verdict | None = None,
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The recipe of picture ``index`` of ``request``: plain values, JSON's own.

    ``prompt``, ``negative_prompt``: the whole texts the model read, if a style changed them. ``sampler``: the one used.
    ``model``: ``{"name", "fingerprint", …}``. ``plan``: ``{component: {"format", "reason_en", "reason_zh", …}}``, which is
    ``PrecisionPlan.to_dict()``. ``versions``: ``{package: version}``, "starry-night" among them.
    """
    return {
        "starry_night": RECIPE_VERSION,
        "request": request.to_dict(),
        "index": index,
        "seed": request.seed_of(index),
        "prompt": request.prompt if prompt is None else prompt,
        "negative_prompt": request.negative_prompt if negative_prompt is None else negative_prompt,
        "sampler": sampler or request.sampler,
        "model": {"name": request.model, **(model or {})},
        "plan": {component: dict(choice) for component, choice in (plan or {}).items()},
        "verdict": (verdict or Verdict()).to_dict(),
        "versions": dict(versions or {}),
    }


@dataclass(frozen=True, eq=False)
class Picture:
    """``pixels``: uint8 [H, W, 3], sRGB. ``recipe``: as ``make_recipe`` gives it. ``producer``: who the AIGC label of
    GB 45438-2025 names as the maker; ``label=False`` leaves that label out (where another law applies).
    """

    pixels: np.ndarray
    recipe: dict[str, Any]
    producer: str = "Starry Night"
    label: bool = True

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(f"a picture is uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        if self.recipe.get("starry_night") != RECIPE_VERSION:
            raise ValueError("a recipe is what make_recipe makes")
        object.__setattr__(self, "pixels", np.ascontiguousarray(pixels))

    @property
    def id(self) -> str:
        """32 hex digits of the SHA-256 over size, pixels and recipe: one content, one id, in whichever format."""
        digest = hashlib.sha256(f"starry night {self.pixels.shape[0]}x{self.pixels.shape[1]}\n".encode())
        digest.update(self.pixels.data)
        digest.update(self._json().encode())
        return digest.hexdigest()[:32]

    @property
    def seed(self) -> int:
        return int(self.recipe["seed"])

    @property
    def verdict(self) -> Verdict:
        return Verdict.from_dict(self.recipe["verdict"])

    @property
    def request(self) -> PaintRequest:
        """The request this picture answers (it may have asked for more than one)."""
        return PaintRequest.from_dict(self.recipe["request"])

    def encode(self, kind: str = "png", *, quality: int | None = None, lossless: bool = False) -> bytes:
        """The file as bytes. ``kind``: png, jpeg (4:4:4, quality 95) or webp (quality 90, or ``lossless``).

        Raises ``BadRequest`` for another kind or a quality outside 1..100.
        """
        if quality is not None and not 1 <= quality <= 100:
            raise BadRequest(
                f"quality is a number from 1 to 100, not {quality}.",
                f"quality 应当是 1 到 100 之间的数，而不是 {quality}。",
            )
        image, out = Image.fromarray(self.pixels), io.BytesIO()
        if kind == "png":
            image.save(out, "PNG", pnginfo=self._png_texts())
        elif kind == "jpeg":
            segments = self._jpeg_xmp()
            quality = quality or JPEG_QUALITY
            image.save(out, "JPEG", quality=quality, subsampling=0, exif=self._exif(), extra=segments)
        elif kind == "webp":
            packet = xmp.packet(*self._marks(), self._recipe_element())
            quality = quality or WEBP_QUALITY
            image.save(out, "WEBP", quality=quality, lossless=lossless, exif=self._exif(), xmp=packet)
        else:
            raise _unknown_format(kind)
        return out.getvalue()

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        quality: int | None = None,
        lossless: bool = False,
    ) -> Path:
        """Write the file whole or not at all; returns the path it got.

        The suffix says the format; a missing folder is made. A name already taken is left alone and "-2", "-3" …
        added, unless ``overwrite``. Raises ``BadRequest`` (suffix), ``StorageError`` (full disk, no permission …).
        """
        path = Path(path)
        data = self.encode(format_of(path), quality=quality, lossless=lossless)
        with storing(path):
            return write_atomic(path, data, overwrite=overwrite)

    def _json(self) -> str:
        return xmp.plain_json(self.recipe, sort_keys=True)

    def _marks(self) -> list[str]:
        """The XMP that every file carries: which tool, painted by a model, the label, the words."""
        marks = [
            xmp.element("xmp:CreatorTool", a1111.software(self.recipe)),
            xmp.element("Iptc4xmpExt:DigitalSourceType", xmp.SOURCE_TYPE),
        ]
        if self.label:
            marks.append(xmp.element("TC260:AIGC", xmp.aigc_label(self.producer, self.id)))
        return [*marks, xmp.description(self.recipe["prompt"][:MAX_TEXT])]

    def _recipe_element(self) -> str:
        return xmp.element("starry:Recipe", self._json())

    def _png_texts(self) -> PngInfo:
        """iTXt, for tEXt is Latin-1 alone. Uncompressed, so that a look into the file finds them."""
        info = PngInfo()
        info.add_itxt("parameters", a1111.write(self.recipe))
        info.add_itxt("starry_night", self._json())
        info.add_itxt("XML:com.adobe.xmp", xmp.packet(*self._marks()).decode())
        return info

    def _exif(self) -> bytes:
        """Software, and UserComment as EXIF's UNICODE: a TIFF of two directories, big-endian as A1111's, since some
        readers take UserComment's byte order from it. By hand, for Pillow writes UserComment as BYTE, not UNDEFINED.
        """
        software = a1111.software(self.recipe).encode("ascii", "replace") + b"\0"
        room = len(software) + len(software) % 2  # directories begin on even offsets
        comment = b"UNICODE\0" + a1111.write(self.recipe).encode("utf-16-be")
        # An entry: tag, type (2 text, 4 number, 7 undefined), length, value or its offset. A directory of n entries
        # takes 2 + 12 n + 4 bytes; the first begins at 8.
        exif_at = 8 + 30 + room
        main = struct.pack(">HHHIIHHIII", 2, 0x0131, 2, len(software), 38, 0x8769, 4, 1, exif_at, 0)
        exif = struct.pack(">HHHIII", 1, 0x9286, 7, len(comment), exif_at + 18, 0)
        data = b"Exif\0\0MM\0*\0\0\0\x08" + main + software.ljust(room, b"\0") + exif + comment
        if len(data) > _APP1_LIMIT:
            raise BadRequest(
                "The prompts are too long for the EXIF of a JPEG or WebP file; write a PNG.",
                "提示词太长，JPEG 和 WebP 文件的 EXIF 放不下；请改存为 PNG。",
            )
        return data

    def _jpeg_xmp(self) -> bytes:
        """APP1 segments: one packet if it fits 64 KB, else the marks in it and the recipe in its extension."""
        packet = xmp.packet(*self._marks(), self._recipe_element())
        if len(XMP_HEADER) + len(packet) <= _APP1_LIMIT:
            return _app1(XMP_HEADER + packet)
        extension = xmp.packet(self._recipe_element())
        guid = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
        main = xmp.packet(*self._marks(), xmp.element("xmpNote:HasExtendedXMP", guid))
        head = EXTENSION_HEADER + guid.encode() + len(extension).to_bytes(4, "big")
        step = _APP1_LIMIT - len(head) - 4
        return _app1(XMP_HEADER + main) + b"".join(
            _app1(head + at.to_bytes(4, "big") + extension[at : at + step])
            for at in range(0, len(extension), step)
        )


def format_of(path: str | os.PathLike[str]) -> str:
    """png, jpeg or webp, by the suffix; raises ``BadRequest`` for another, so ask before painting."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise _unknown_format(suffix or str(path))
    return SUFFIXES[suffix]


def _unknown_format(name: str) -> BadRequest:
    return BadRequest(
        f"“{name}” is not a format pictures are written in; use .png, .jpg or .webp.",
        f"图片不能写成“{name}”格式；请用 .png、.jpg 或 .webp。",
    )


def _app1(body: bytes) -> bytes:
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body

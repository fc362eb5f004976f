"""A finished picture, its recipe, and the files it becomes: PNG, JPEG or WebP, written whole or not at all.

A file contains the A1111 text (for other tools), the full recipe (for this one) and XMP that marks the
picture as made by a model. No file contains a date, so the same picture gives the same bytes. ``convert``
re-encodes existing files. Painting, checking and storing pictures belong to other packages;
``starrynight.metadata`` reads the texts back.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from starrynight.errors import BadFile, BadRequest
from starrynight.metadata import OURS, a1111, read_pixels, read_recipe, xmp
from starrynight.metadata.files import (
    EXTENSION_HEADER,
    PIXEL_FORMATS,
    XMP_HEADER,
    open_picture,
    read_texts,
    xmp_packet,
)
from starrynight.request import MAX_TEXT, PaintRequest
from starrynight.storage import storing, write_atomic
from starrynight.text import plain_json
from starrynight.verdict import Verdict

RECIPE_VERSION = 1
FORMATS = ("png", "jpeg", "webp")
SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
JPEG_QUALITY, WEBP_QUALITY = 95, 90

_APP1_LIMIT = 65533  # bytes after the two-byte length of a JPEG segment


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
    loras: Sequence[Mapping[str, Any]] = (),
    batch: int = 1,
    wildcards: Mapping[str, Any] | None = None,
    embeddings: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The recipe of picture ``index`` of ``request``, as JSON-compatible values.

    ``prompt``, ``negative_prompt``: the whole texts the model read, if a style changed them. ``sampler``: the
    one used. ``model``: ``{"name", "fingerprint", …}``. ``plan``: ``PrecisionPlan.to_dict()``, which is
    ``{component: {"format", "reason_en", "reason_zh", …}}``. ``versions``: ``{package: version}`` with
    "starry-night". ``loras``: how each LoRA fitted (``Fit.to_dict``), ``embeddings``: name and hash of each textual inversion;
    these entries are there if there are any.
    ``batch``: pictures painted by one call, whose rounding differs from that of a picture alone; there if above 1.
    ``wildcards``: ``prompt_syntax.drawn_of``; there if any were drawn.
    """
    fits = {"loras": [dict(fit) for fit in loras]} if loras else {}
    fits |= {"embeddings": [dict(one) for one in embeddings]} if embeddings else {}
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
        **fits,
        **({"batch": batch} if batch > 1 else {}),
        **({"wildcards": dict(wildcards)} if wildcards else {}),
    }


@dataclass(frozen=True, eq=False)
class Picture:
    """``pixels``: uint8 [H, W, 3], sRGB. ``recipe``: from ``make_recipe``. ``producer``: the maker named in
    the AIGC label of GB 45438-2025; ``label=False`` omits that label, for other jurisdictions. ``verdict`` is
    the recipe's; ``request`` is the one this picture belongs to, and its ``count`` may be above 1.
    """

    pixels: np.ndarray
    recipe: dict[str, Any]
    producer: str = "Starry Night"
    label: bool = True
    verdict: Verdict = field(init=False, repr=False)
    request: PaintRequest = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(f"a picture is uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        if self.recipe.get("starry_night") != RECIPE_VERSION:
            raise ValueError("the recipe must come from make_recipe")
        object.__setattr__(self, "pixels", np.ascontiguousarray(pixels))
        object.__setattr__(self, "verdict", Verdict.from_dict(self.recipe["verdict"]))
        object.__setattr__(self, "request", PaintRequest.from_dict(self.recipe["request"]))

    @property
    def id(self) -> str:
        """32 hex digits of the SHA-256 over size, pixels and recipe; the file format does not change it."""
        digest = hashlib.sha256(f"starry night {self.pixels.shape[0]}x{self.pixels.shape[1]}\n".encode())
        digest.update(self.pixels.data)
        digest.update(self._json().encode())
        return digest.hexdigest()[:32]

    @property
    def seed(self) -> int:
        return int(self.recipe["seed"])

    def encode(self, format: str = "png", *, quality: int | None = None, lossless: bool = False) -> bytes:  # noqa: A002
        """The file as bytes. ``format``: png, jpeg (4:4:4, quality 95) or webp (quality 90, or ``lossless``).

        Raises ``BadRequest`` for another format, a quality outside 1..100, or prompts too long for EXIF.
        """
        text, software = a1111.write(self.recipe), a1111.software(self.recipe)
        marks = [
            xmp.element("xmp:CreatorTool", software),
            xmp.element("Iptc4xmpExt:DigitalSourceType", xmp.SOURCE_TYPE),
        ]
        if self.label:
            marks.append(xmp.element("TC260:AIGC", xmp.aigc_label(self.producer, self.id)))
        marks.append(xmp.description(self.recipe["prompt"][:MAX_TEXT]))
        if format == "png":
            texts = {
                "parameters": text,
                "starry_night": self._json(),
                "XML:com.adobe.xmp": xmp.packet(*marks).decode(),
            }
            return _encode(self.pixels, format, texts=texts)
        recipe = xmp.element("starry:Recipe", self._json())
        packets = _split(marks, recipe) if format == "jpeg" else [xmp.packet(*marks, recipe)]
        return _encode(self.pixels, format, quality, lossless, exif=_exif(text, software), packets=packets)

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        quality: int | None = None,
        lossless: bool = False,
    ) -> Path:
        """Write the file whole or not at all and return its path.

        The suffix selects the format; a missing folder is made. If the name is taken, "-2", "-3" … is
        appended, unless ``overwrite``. Raises ``BadRequest`` (suffix) or ``StorageError`` (full disk, no
        permission …).
        """
        path = Path(path)
        data = self.encode(format_of(path), quality=quality, lossless=lossless)
        with storing(path):
            return write_atomic(path, data, overwrite=overwrite)

    def _json(self) -> str:
        return plain_json(self.recipe, sort_keys=True)


def convert(data: bytes, source_format: str, target_format: str, quality: int | None = None) -> bytes:
    """The picture file ``data`` in another format or quality, with its recipe; unchanged if neither differs.

    Raises ``BadRequest`` for an unknown format, a quality outside 1..100, or texts too long for the format;
    ``BadFile`` for a damaged file.
    """
    if target_format == source_format and quality is None:
        return data  # also AVIF, which is read and not written
    _check(target_format, quality)
    return with_pixels(data, read_pixels(data), target_format, quality)


def with_pixels(
    data: bytes,
    pixels: np.ndarray,
    format: str,  # noqa: A002
    quality: int | None = None,
    upscaled: Mapping[str, Any] | None = None,
) -> bytes:
    """The picture file ``data`` with other pixels, uint8 [H, W, 3 or 4], and the same recipe; ``upscaled`` is added to it.

    Another tool's recipe stays as it is; a PNG then says "upscaled" in a text of its own. Raises as ``convert``.
    """
    try:
        recipe = read_recipe(data)
    except BadFile:  # none, or one that cannot be read
        recipe = None
    more = {"upscaled": dict(upscaled)} if upscaled else {}
    if recipe is not None and recipe.tool == OURS:
        return Picture(pixels[..., :3], recipe.raw | more).encode(format, quality=quality)
    # Another tool's picture keeps its XMP, with or without a label, and its A1111 text.
    opened = open_picture(data, PIXEL_FORMATS)
    found, packet = read_texts(opened, whole_file=True).found, xmp_packet(opened)
    fields = ("parameters", "UserComment", *(("comment", "ImageDescription") if recipe else ()))
    text = next((found[field] for field in fields if found.get(field)), "")
    if format == "png":
        texts = {"parameters": text, "XML:com.adobe.xmp": packet.decode("utf-8", "replace")}
        kept = {name: found[name] for name in ("prompt", "workflow") if more and name in found}  # ComfyUI's
        return _encode(
            pixels, format, texts=texts | kept | {name: plain_json(one) for name, one in more.items()}
        )
    return _encode(pixels, format, quality, exif=_exif(text), packets=[packet] if packet else [])


def enlarged(preview: bytes, width: int, height: int, format: str) -> bytes:  # noqa: A002
    """A preview file of our own at the size of its picture, without metadata."""
    with Image.open(io.BytesIO(preview)) as small:
        large = small.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    return _encode(np.asarray(large), format)


def format_of(path: str | os.PathLike[str]) -> str:
    """png, jpeg or webp, from the suffix. Raises ``BadRequest`` for another; callers ask before they paint."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise _unknown_format(suffix or str(path))
    return SUFFIXES[suffix]


def _unknown_format(name: str) -> BadRequest:
    return BadRequest(
        f"Pictures cannot be written as “{name}”; use .png, .jpg or .webp.",
        f"图片不能写成“{name}”格式；请用 .png、.jpg 或 .webp。",
    )


def _check(format: str, quality: int | None) -> None:  # noqa: A002
    if quality is not None and not 1 <= quality <= 100:
        raise BadRequest(
            f"quality must be a number from 1 to 100, not {quality}.",
            f"quality 应当是 1 到 100 之间的数，而不是 {quality}。",
        )
    if format not in FORMATS:
        raise _unknown_format(format)


def _encode(
    pixels: np.ndarray,
    format: str,  # noqa: A002
    quality: int | None = None,
    lossless: bool = False,
    *,
    texts: Mapping[str, str] | None = None,
    exif: bytes = b"",
    packets: list[bytes] | None = None,
) -> bytes:
    """Pixels, uint8 [H, W, 3], as a file. ``texts``: for PNG. ``exif``, ``packets`` (XMP): for JPEG, WebP."""
    _check(format, quality)
    image, out, packets = Image.fromarray(pixels), io.BytesIO(), packets or []
    if format == "png":
        info = PngInfo()
        for key, text in (texts or {}).items():
            if text:
                info.add_itxt(
                    key, text
                )  # tEXt holds Latin-1 only; uncompressed, so that a search in the file finds it
        image.save(out, "PNG", pnginfo=info)
    elif format == "jpeg":
        segments = b"".join(map(_app1, packets))
        image.save(out, "JPEG", quality=quality or JPEG_QUALITY, subsampling=0, exif=exif, extra=segments)
    else:
        packet = packets[0] if packets else b""
        image.save(out, "WEBP", quality=quality or WEBP_QUALITY, lossless=lossless, exif=exif, xmp=packet)
    return out.getvalue()


def _exif(text: str, software: str = "") -> bytes:
    """EXIF with Software (if given) and ``text`` as a UserComment of code UNICODE; nothing without text.

    Built by hand because Pillow writes UserComment as BYTE instead of UNDEFINED. A TIFF of two directories,
    big-endian as A1111 writes it: some readers take UserComment's byte order from the TIFF header.
    """
    if not text:
        return b""
    name = software.encode("ascii", "replace") + b"\0" if software else b""
    padded = len(name) + len(name) % 2  # a directory begins at an even offset
    comment = b"UNICODE\0" + text.encode("utf-16-be", "replace")
    # An entry: tag, type (2 ASCII, 4 LONG, 7 UNDEFINED), length, value or its offset. A directory of n entries
    # takes 2 + 12 n + 4 bytes; the first begins at offset 8.
    count = 2 if software else 1
    name_at = 8 + 2 + 12 * count + 4
    entries = struct.pack(">HHII", 0x0131, 2, len(name), name_at) if software else b""
    entries += struct.pack(">HHII", 0x8769, 4, 1, name_at + padded)
    main = struct.pack(">H", count) + entries + bytes(4)
    directory = struct.pack(">HHHIII", 1, 0x9286, 7, len(comment), name_at + padded + 18, 0)
    data = b"Exif\0\0MM\0*\0\0\0\x08" + main + name.ljust(padded, b"\0") + directory + comment
    if len(data) > _APP1_LIMIT:
        raise _too_long()
    return data


def _split(marks: list[str], recipe: str) -> list[bytes]:
    """A JPEG's XMP: one packet if it fits a segment, else the recipe goes to extension segments.

    XMP specification part 3, 1.1.3.1: the packet names its extension by MD5; each segment holds length and
    offset.
    """
    packet = xmp.packet(*marks, recipe)
    if len(XMP_HEADER) + len(packet) <= _APP1_LIMIT:
        return [packet]
    extension = xmp.packet(recipe)
    guid = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
    main = xmp.packet(*marks, xmp.element("xmpNote:HasExtendedXMP", guid))
    head = EXTENSION_HEADER + guid.encode() + len(extension).to_bytes(4, "big")
    step = _APP1_LIMIT - len(head) - 4
    offsets = range(0, len(extension), step)
    return [main, *(head + at.to_bytes(4, "big") + extension[at : at + step] for at in offsets)]


def _app1(packet: bytes) -> bytes:
    """A packet (or extension part) as a JPEG segment."""
    body = packet if packet.startswith(EXTENSION_HEADER) else XMP_HEADER + packet
    if len(body) > _APP1_LIMIT:
        raise _too_long()
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def _too_long() -> BadRequest:
    return BadRequest(
        "The texts are too long for the metadata of this format; write a PNG.",
        "文字太长，这种格式的元数据放不下；请改存为 PNG。",
    )

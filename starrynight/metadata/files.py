"""Open an untrusted picture file, and read the texts in it that may be a recipe.

The gallery keeps PNG, JPEG, WebP and AVIF; pixels and texts are read of ``PIXEL_FORMATS``. The size of the file, the number
of pixels and the length of each text are limited.
Every error of the decoder becomes a ``BadFile``. Does not interpret the texts. ``pixels.py`` decodes the pixels.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import iTXt

from starrynight.errors import BadFile, LfsPointer, MissingFile, StorageError, reason
from starrynight.metadata import kinds, stealth, xmp

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
# What is read at all; TIFF holds floats and print colours. Of several frames or pages the first is read.
PIXEL_FORMATS = (*FORMATS, "TIFF", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "QOI", kinds.HEIF)
MAX_FILE = 256 << 20  # bytes; 8192² × 3 colours, uncompressed, are 192 MB
MAX_PIXELS = 80_000_000  # just above 8192²; 240 MB when decoded. Pillow itself warns above 89 million
MAX_TEXT = 4 << 20  # characters of one text; a node of a ComfyUI graph takes a few hundred

XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION_HEADER = b"http://ns.adobe.com/xmp/extension/\0"

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
EXIF_TEXTS = (
    0x010E,
    0x010F,
    0x0110,
)  # ImageDescription, Make, Model: ComfyUI writes "prompt:{…}" into these
# The errors of Pillow's decoders on broken input; UnidentifiedImageError is an OSError.
BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError, AttributeError, OverflowError,
    struct.error, zlib.error, MemoryError, RecursionError, Image.DecompressionBombError,
)  # fmt: skip

Source = str | os.PathLike[str] | bytes


@dataclass
class Texts:
    """``found``: the texts of one file by field: PNG keywords, "UserComment" and "prompt" (EXIF), "starry:…"
    (XMP).

    ``dropped``: the fields that are too long or broken.
    """

    found: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)

    def add(self, name: str, value: str) -> None:
        if len(value) > MAX_TEXT:
            self.dropped.append(name)
        else:
            self.found.setdefault(name, value)


def read_bytes(source: Source) -> tuple[str, bytes]:
    """The file's name for messages, and its bytes. Raises ``MissingFile``, ``BadFile``, ``StorageError``."""
    if isinstance(source, bytes):
        return "The picture", source
    path = Path(source)
    try:
        if not path.exists():
            raise MissingFile(f"There is no file {path}; check the path.", f"没有文件 {path}；请检查路径。")
        if not path.is_file():
            raise BadFile(
                f"{path} is a folder or a device, not a file; give a file.",
                f"{path} 是文件夹或设备，不是文件；请给出一个文件。",
            )
        if path.stat().st_size > MAX_FILE:
            raise BadFile(
                f"{path} is larger than {MAX_FILE >> 20} MB, the limit for a picture; make it smaller first.",
                f"{path} 超过图片的上限 {MAX_FILE >> 20} MB；请先缩小。",
            )
        return str(path), path.read_bytes()
    except ValueError:
        raise MissingFile("The file's path is not valid; check it.", "文件路径无效；请检查。") from None
    except OSError as error:
        en, zh = reason(error)
        raise StorageError(f"{path} cannot be read: {en}.", f"无法读取 {path}：{zh}。") from error


def open_picture(source: Source, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The picture, its pixels not yet decoded; ``formats`` are Pillow's names. Raises ``BadFile`` and the errors of ``read_bytes``."""
    name, data = read_bytes(source)
    if not data:
        raise BadFile(
            f"{name} is empty (0 bytes); copy or download it again.",
            f"{name} 是空文件（0 字节）；请重新复制或下载。",
        )
    if data.startswith(b"version https://git-lfs"):
        raise LfsPointer(
            f"{name} is a Git LFS pointer, not the picture; run `git lfs pull`.",
            f"{name} 只是 Git LFS 指针，不是图片；请运行 `git lfs pull`。",
        )
    formats = kinds.readable(name, data, formats)
    try:
        with no_warnings():
            picture = Image.open(io.BytesIO(data), formats=formats)
            kinds.check_frame(name, picture)
    except BROKEN as error:
        if isinstance(error, Image.DecompressionBombError):
            raise too_large(name) from error
        if kinds.begins_as(data) == "TIFF" in formats and isinstance(error, UnidentifiedImageError):
            raise kinds.odd_tiff(name) from error
        if kinds.begins_as(data) in formats:
            raise broken(name) from error
        raise kinds.unknown(name, formats) from error
    if picture.width * picture.height > MAX_PIXELS:
        raise too_large(name)
    return picture


def read_texts(picture: Image.Image, whole_file: bool = False) -> Texts:
    """The texts in the file. ``whole_file`` also decodes the pixels, for the texts that follow them in a PNG."""
    texts = Texts()
    if whole_file:
        try:
            with no_warnings():
                picture.load()
        except BROKEN:
            texts.dropped.append("the rest of the file")
    for name, value in picture.info.items():
        if isinstance(name, str) and isinstance(value, str):
            texts.add(name, value if isinstance(value, iTXt) else _utf8(value))
        elif name == "comment" and isinstance(value, bytes):
            texts.add("comment", value.decode("utf-8", "replace"))
    if picture.format == "TIFF" or picture.info.get("exif"):
        _read_exif(picture, texts)
    for packet in _xmp_packets(picture):
        for name, value in xmp.read(packet).items():
            texts.add(name, value)
    if whole_file and not texts.dropped:
        texts.add("hidden in the pixels", stealth.read(picture))
    return texts


def _utf8(value: str) -> str:
    """A PNG's tEXt is Latin-1 by the standard; NovelAI and others write UTF-8 into it."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except ValueError:
        return value


def no_warnings() -> warnings.catch_warnings[None]:
    """Silences Pillow's warnings; this module's own limits and errors cover their causes."""
    return warnings.catch_warnings(action="ignore")


def _read_exif(picture: Image.Image, texts: Texts) -> None:
    """The texts of a picture's EXIF; a TIFF's are tags of its own."""
    try:
        with no_warnings():
            if picture.format == "TIFF":
                exif = picture.getexif()
            else:
                exif = Image.Exif()
                exif.load(picture.info["exif"])
            comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT)
            plain = [exif.get(tag) for tag in EXIF_TEXTS]
            # Fooocus writes its comment beside the Exif directory instead of into it.
            comment = exif.get(_USER_COMMENT) if comment is None else comment
    except BROKEN:
        texts.dropped.append("EXIF")
        return
    if isinstance(comment, bytes):
        comment = user_comment(comment)
    if isinstance(comment, str):
        texts.add("UserComment", comment)
    for value in (value for value in plain if isinstance(value, str)):
        start, _, rest = value.partition(":")
        known = start.lower() in ("prompt", "workflow") and rest.lstrip().startswith("{")
        texts.add(start.lower() if known else "ImageDescription", rest if known else value)


def user_comment(data: bytes) -> str:
    """EXIF 2.3: eight bytes name the character code. UNICODE has no fixed byte order (A1111's is big), and some
    writers put UTF-8 behind it; of the three readings the one with most ASCII counts."""
    code, body = data[:8], data[8:]
    if code == b"UNICODE\0":
        if body[:2] in (b"\xfe\xff", b"\xff\xfe"):
            return body.decode("utf-16", "replace")
        readings = [body.decode(code, "replace") for code in ("utf-16-be", "utf-16-le", "utf-8")]
        return max(readings, key=_ascii).rstrip("\0")
    return (body if code in (b"ASCII\0\0\0", bytes(8)) else data).decode("utf-8", "replace").rstrip("\0")


def _ascii(text: str) -> int:
    """Printable ASCII less what only a wrong reading has."""
    start = text[:4096]
    return sum(1 if " " <= letter <= "~" else -2 if letter in "\0\ufffd" else 0 for letter in start)


def xmp_packet(picture: Image.Image) -> bytes:
    """The picture's XMP packet; b"" if there is none."""
    packet = picture.info.get("xmp", picture.info.get("XML:com.adobe.xmp", b""))
    return packet.encode("utf-8", "replace") if isinstance(packet, str) else bytes(packet)


def _xmp_packets(picture: Image.Image) -> list[bytes]:
    """The packet, and in a JPEG the extension that continues it (XMP specification part 3, 1.1.3.1)."""
    packets = [xmp_packet(picture)]
    parts = [body for _, body in getattr(picture, "applist", []) if body.startswith(EXTENSION_HEADER)]
    head = len(EXTENSION_HEADER)
    pieces: dict[bytes, list[tuple[int, bytes]]] = {}
    for part in parts:
        if len(part) >= head + 40:
            offset = int.from_bytes(part[head + 36 : head + 40], "big")
            pieces.setdefault(part[head : head + 32], []).append((offset, part[head + 40 :]))
    for guid, found in pieces.items():
        if guid in packets[0]:  # the packet names its extension
            packets.append(b"".join(body for _, body in sorted(found)))
    return [packet for packet in packets if packet]


def broken(name: str) -> BadFile:
    return BadFile(
        f"{name} is truncated or broken; download or save it again.",
        f"{name} 被截断或已损坏；请重新下载或保存。",
    )


def too_large(name: str, limit: int = MAX_PIXELS) -> BadFile:
    millions = limit // 1_000_000
    return BadFile(
        f"{name} has more than {millions} million pixels; make it smaller first.",
        f"{name} 超过 {millions} 百万像素；请先缩小。",
    )

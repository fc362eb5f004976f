"""What kind of file a picture is, told by its first bytes, so that one that is not read is refused by its name.

Signatures: the formats' own specifications; ISO/IEC 14496-12 for the brands of "ftyp".
"""

from __future__ import annotations

import importlib.util

from PIL import Image

from starrynight.errors import BadFile
from starrynight.i18n import Text

HEIF = "HEIF"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_AVIF_BRANDS = (b"avif", b"avis")
# First bytes → Pillow's name, for the formats that are read.
_READ = (
    (b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"GIF87a", "GIF"), (b"GIF89a", "GIF"), (b"BM", "BMP"), (b"\0\0\0\x0cjP  ", "JPEG2000"), (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"qoif", "QOI"),
)  # fmt: skip
# First bytes → what it is, for files that are taken for pictures and are not read.
_NOT_READ = (
    (b"\xff\x0a", "a JPEG XL picture", "JPEG XL 图片"), (b"\0\0\0\x0cJXL ", "a JPEG XL picture", "JPEG XL 图片"),
    (b"8BPS", "a Photoshop file", "Photoshop 文件"), (b"gimp xcf", "a GIMP file", "GIMP 文件"), (b"%PDF", "a PDF", "PDF 文件"),
    (b"%!PS", "a PostScript file", "PostScript 文件"), (b"\x76\x2f\x31\x01", "an OpenEXR picture", "OpenEXR 图片"),
    (b"#?RADIANCE", "a Radiance HDR picture", "Radiance HDR 图片"), (b"DDS ", "a DirectDraw surface", "DDS 贴图"),
    (b"\0\0\1\0", "a Windows icon", "Windows 图标"), (b"FUJIFILMCCD-RAW", "a camera's raw file", "相机 RAW 文件"),
    (b"IIU\0", "a camera's raw file", "相机 RAW 文件"), (b"IIRO", "a camera's raw file", "相机 RAW 文件"),
    (b"\x1aE\xdf\xa3", "a WebM or Matroska video", "WebM 或 Matroska 视频"), (b"PK\3\4", "a zip archive", "zip 压缩包"),
    (b"RIFF", "a video or a sound", "视频或音频"), (b"Rar!", "an RAR archive", "RAR 压缩包"), (b"7z\xbc\xaf", "a 7z archive", "7z 压缩包"), (b"\x1f\x8b", "a gzip archive", "gzip 压缩包"),
)  # fmt: skip
_MARKUP = (("<svg", "an SVG drawing", "SVG 矢量图"), ("<html", "a web page", "网页"), ("<!doctype html", "a web page", "网页"))  # fmt: skip
# TIFF's tags: NewSubfileType, whose first bit marks a smaller copy; PhotometricInterpretation; DNGVersion.
_SUBFILE, _PHOTOMETRIC, _DNG = 254, 262, 50706
_SENSOR = (32803, 34892)  # colour filter array, linear raw
RAW = Text("a camera's raw file", "相机 RAW 文件")


def begins_as(data: bytes) -> str:
    """Pillow's name of the format that a file begins as; "" for any other."""
    if data[4:8] == b"ftyp":
        brands = _brands(data)
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "AVIF"
        return HEIF if any(brand in _HEIF_BRANDS for brand in brands) else ""
    if data[:4] == b"RIFF":  # the container of videos and sounds too
        return "WEBP" if data[8:12] == b"WEBP" else ""
    return next((name for start, name in _READ if data.startswith(start)), "")


def readable(name: str, data: bytes, formats: tuple[str, ...]) -> tuple[str, ...]:
    """``formats`` without what no package here reads. Raises BadFile for a file of a kind that is known and not read."""
    kind = begins_as(data)
    if kind == HEIF:
        if HEIF not in formats:
            raise _refused(name, Text("a HEIC photo", "HEIC 照片"))
        _register_heif(name)
        return formats
    if not kind and (found := _not_read(data)):
        raise _refused(name, found)
    return tuple(one for one in formats if one != HEIF)


def check_frame(name: str, picture: Image.Image) -> None:
    """Raises BadFile for a TIFF whose first page is a camera's sensor, or a preview before the picture itself."""
    if picture.format != "TIFF":
        return
    tags = picture.tag_v2  # type: ignore[attr-defined]
    raw = _DNG in tags or tags.get(_PHOTOMETRIC) in _SENSOR
    if raw or (isinstance(tags.get(_SUBFILE), int) and tags[_SUBFILE] & 1):
        raise _refused(name, RAW)


def unknown(name: str, formats: tuple[str, ...]) -> BadFile:
    """The error for a file that none of ``formats`` reads."""
    others = [one for one in formats if one not in ("PNG", "JPEG", "WEBP", "DIB", HEIF)]
    return BadFile(
        f"{name} is not a PNG, JPEG or WebP picture, nor {' or '.join(others)}; convert it first.",
        f"{name} 不是 {'、'.join(['PNG', 'JPEG', 'WebP', *others])} 图片；请先转换格式。",
    )


def odd_tiff(name: str) -> BadFile:
    """The error for a TIFF whose first page Pillow cannot make out."""
    return BadFile(
        f"{name} is cut short, or a TIFF of a kind that is not read, such as a camera's raw file; save it as PNG.",
        f"{name} 不完整，或是无法读取的 TIFF 类型（例如相机 RAW 文件）；请另存为 PNG。",
    )


def _brands(data: bytes) -> list[bytes]:
    """The major brand, then the compatible ones."""
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]


def _not_read(data: bytes) -> Text | None:
    for start, en, zh in _NOT_READ:
        if data.startswith(start):
            return Text(en, zh)
    if data[4:8] == b"ftyp":
        return Text("a video", "视频")
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").decode("latin-1").lower()
    if head.startswith("<"):
        return next((Text(en, zh) for mark, en, zh in _MARKUP if mark in head), None)
    return None


def _refused(name: str, what: Text) -> BadFile:
    return BadFile(
        f"{name} is {what.en}, which is not read; save it as PNG, JPEG or WebP.",
        f"{name} 是{what.zh}，无法读取；请另存为 PNG、JPEG 或 WebP。",
    )


def _register_heif(name: str) -> None:
    """Let Pillow read HEIC. Raises BadFile where the package is not installed."""
    if importlib.util.find_spec("pillow_heif") is None:
        raise BadFile(
            f"{name} is a HEIC photo; install its decoder (pip install 'starry-night[heic]'), or save it as PNG or JPEG.",
            f"{name} 是 HEIC 照片；请安装解码器（pip install 'starry-night[heic]'），或另存为 PNG 或 JPEG。",
        )
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)

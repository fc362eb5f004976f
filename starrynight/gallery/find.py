"""Find the pictures below a folder, and name everything else with the reason why it is passed over.

A linked folder is followed, because outputs are often kept on another disk, but each real folder is entered
once, and a link to a folder above the one it stands in is not followed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from starrynight.errors import MissingFile, reason
from starrynight.i18n import Text

# Files with these names are opened as pictures, and refused with the reason if they are none that can be read.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif"),
    *(
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".jxl",
        ".jp2",
        ".j2k",
        ".qoi",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ),
    *(".psd", ".exr", ".hdr", ".svg", ".dng", ".cr2", ".nef", ".arw", ".raf", ".orf", ".rw2"),
)
_BRANDS = (b"ftypavif", b"ftypavis", b"ftypheic", b"ftypheix")
HIDDEN = Text("hidden (its name begins with a dot)", "隐藏文件（名字以点开头）")
LOOP = Text("a link to a folder that is read already", "指向已读文件夹的链接")
DANGLING = Text("a link to nothing", "失效的链接")
SPECIAL = Text("not a file", "不是普通文件")


@dataclass
class Found:
    """``pictures``: sorted within each folder. ``passed``: everything else, with the reason."""

    pictures: list[Path] = field(default_factory=list)
    passed: list[tuple[Path, Text]] = field(default_factory=list)


def find_pictures(source: Path) -> Found:
    """``source``: a folder, or one file, which counts as a picture. Raises ``MissingFile``."""
    found = Found()
    if source.is_file():
        found.pictures.append(source)
        return found
    if not source.is_dir():
        raise MissingFile(
            f"There is no folder {source}; check the path.", f"没有文件夹 {source}；请检查路径。"
        )
    entered = {_identity(folder) for folder in source.resolve().parents}
    _enter(source, entered, found)
    return found


def _enter(top: Path, entered: set[tuple[int, int] | None], found: Found) -> None:
    folders = [top]
    while folders:
        folder = folders.pop(0)
        if (identity := _identity(folder)) in entered:
            found.passed.append((folder, LOOP))
            continue
        entered.add(identity)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            en, zh = reason(error)
            found.passed.append((folder, Text(f"cannot be read: {en}", f"无法读取：{zh}")))
            continue
        below = []
        for entry in entries:
            path = Path(folder, entry.name)
            if entry.name.startswith("."):
                found.passed.append((path, HIDDEN))
            elif _is_folder(entry):
                below.append(path)
            elif why := _passed_over(path):
                found.passed.append((path, why))
            else:
                found.pictures.append(path)
        folders[:0] = below


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _passed_over(path: Path) -> Text | None:
    """Why a file is no picture, or ``None``. Another suffix is no reason if the file begins like a picture."""
    if path.is_symlink() and not os.path.exists(path):
        return DANGLING
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return None
    if not path.is_file():
        return SPECIAL
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        en, zh = reason(error)
        return Text(f"cannot be read: {en}", f"无法读取：{zh}")
    if (
        head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"qoif"))
        or head[8:] == b"WEBP"
        or head[4:] in _BRANDS
    ):
        return None
    shown = f"{suffix} " if suffix.isprintable() and len(suffix) < 12 else ""
    return Text(f"{shown}file, not a picture".strip(), f"{shown}文件，不是图片".strip())

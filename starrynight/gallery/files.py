"""Files of pictures: ``Files``, the gallery's store named by content, and ``OutputPath``, the file or folder
of ``-o``.

The store names a file ``ab/ab12….png`` by the first 32 hex digits of the SHA-256 of its bytes. Therefore a
file never changes, equal pictures share one file, and reading a file shows whether it is intact. No name from
outside becomes a path in the store.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec

from starrynight.errors import BadRequest, MissingFile, MissingPackage, StarryError, StorageError
from starrynight.picture import SUFFIXES as FORMATS
from starrynight.picture import Picture
from starrynight.storage import PART_SUFFIX, read_regular, storage_error, write_atomic

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif"}
_FORMATS = {suffix: kind for kind, suffix in SUFFIXES.items()}
STALE_AFTER = 3600.0  # seconds; a partial file older than this belongs to no running process

_STORED = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{30})(\.png|\.jpg|\.webp|\.avif)")
# Check permissions as the effective user, as open() does, where the system can.
_EFFECTIVE_IDS = os.access in os.supports_effective_ids


def id_of(data: bytes) -> str:
    """The picture id of a file's bytes: 32 hex digits."""
    return hashlib.sha256(data).hexdigest()[:32]


def has_format(data: bytes, kind: str) -> bool:
    """Whether a file begins as a picture of that format does."""
    if kind == "avif":
        return data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis")
    if kind == "webp":
        return data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return data.startswith({"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}[kind])


def slug(prompt: str, limit: int = 40) -> str:
    """A readable file name: letters and digits of any script, single hyphens for everything else."""
    words = re.sub(r"[\W_]+", "-", prompt, flags=re.UNICODE).strip("-")
    return words[:limit].strip("-") or "picture"


class Files:
    """``place`` is a folder or an fsspec URL (``s3://bucket/pictures``); ``options`` are passed to that file
    system.

    Methods raise ``MissingFile`` if the file does not exist and ``StorageError`` if the disk is full, the
    place is not writable or a remote store does not answer.
    """

    def __init__(self, place: str | Path, **options: object) -> None:
        try:
            self.system, root = fsspec.core.url_to_fs(str(place), **options)
        except ImportError as error:
            raise MissingPackage(
                f"Pictures at {place} need another package; for s3: pip install 'starry-night[s3]'.",
                f"{place} 需要另外的软件包；若为 s3：pip install 'starry-night[s3]'。",
            ) from error
        except ValueError as error:
            raise StorageError(
                f"{place} is no place for pictures: {error}.", f"{place} 不能存放图片：{error}。"
            ) from error
        self.root = root.rstrip("/")
        protocols = self.system.protocol
        self.local = (
            Path(self.root) if "file" in ([protocols] if isinstance(protocols, str) else protocols) else None
        )

    def name(self, picture: str, kind: str) -> str:
        """The path below the root; ``picture`` is an id, ``kind`` is png, jpeg, webp or avif."""
        return f"{picture[:2]}/{picture}{SUFFIXES[kind]}"

    def path(self, name: str) -> str:
        """The file's full path: on this machine, or in the bucket."""
        return f"{self.root}/{name}"

    def write(self, name: str, data: bytes) -> None:
        """Make ``name`` contain ``data``. An intact file is left alone; a damaged one is replaced."""
        with contextlib.suppress(StarryError):
            if self.read(name) == data:
                return
        with self._translate_errors(name):
            if self.local:
                write_atomic(self.local / name, data, overwrite=True)
            else:
                self.system.pipe_file(self.path(name), data)  # atomic in an object store

    def read(self, name: str) -> bytes:
        with self._translate_errors(name):
            return read_regular(self.local, name) if self.local else self.system.cat_file(self.path(name))

    def exists(self, name: str) -> bool:
        with self._translate_errors(name):
            return self.system.exists(self.path(name))

    def remove(self, name: str) -> None:
        """Delete the file if it exists."""
        with self._translate_errors(name), contextlib.suppress(FileNotFoundError):
            self.system.rm_file(self.path(name))

    def modified(self, name: str) -> float:
        """The file's modification time, in seconds since 1970."""
        with self._translate_errors(name):
            return self.system.modified(self.path(name)).timestamp()

    def set_modified(self, name: str, seconds: float) -> None:
        """Set the modification time of a local file; an object store does not allow it."""
        if self.local:
            with contextlib.suppress(OSError):
                os.utime(self.local / name, (seconds, seconds))

    def all(self) -> Iterator[tuple[str, str, str]]:
        """(id, format, name) of every picture's file."""
        for name in self._names():
            if found := _STORED.fullmatch(name):
                yield found[2], _FORMATS[found[3]], name

    def unknown(self) -> list[str]:
        """Files under the root that are not pictures' files: partial files of killed processes, and files put
        there by other programs."""
        return [name for name in self._names() if not _STORED.fullmatch(name)]

    def remove_stale_parts(self) -> None:
        """Delete partial files that have not changed for ``STALE_AFTER`` seconds."""
        for name in self.unknown():
            if name.endswith(PART_SUFFIX) and self.modified(name) < time.time() - STALE_AFTER:
                self.remove(name)

    def _names(self) -> Iterator[str]:
        with self._translate_errors(""):
            self.system.invalidate_cache()
            found = self.system.find(self.root) if self.system.exists(self.root) else []
        for path in sorted(found):
            yield path[len(self.root) :].lstrip("/")

    @contextlib.contextmanager
    def _translate_errors(self, name: str) -> Iterator[None]:
        path = self.path(name)
        try:
            yield
        except FileNotFoundError as error:
            raise MissingFile(
                f"The gallery has lost the file {path}; `starry gallery verify` lists what is missing.",
                f"画廊缺少文件 {path}；`starry gallery verify` 会列出缺失的文件。",
            ) from error
        except OSError as error:
            raise storage_error(Path(path), error) from error
        except StarryError:
            raise
        except (
            Exception
        ) as error:  # each remote file system has its own errors: no network, no key, no bucket
            raise StorageError(f"{path} does not answer: {error}.", f"{path} 没有响应：{error}。") from error


@dataclass(frozen=True)
class OutputPath:
    """The destination of ``-o``: a picture file, if it has a suffix, or a folder.

    Several pictures (``count`` > 1) written to a file are numbered: a-1.png, a-2.png. In a folder the name
    ends in the picture's id, so writing an equal picture again changes nothing and different pictures never
    share a name.
    """

    out: Path
    count: int = 1
    overwrite: bool = False

    def names_a_file(self) -> bool:
        return self.out.suffix != "" and not self.out.is_dir()

    def check(self) -> None:
        """Check that the pictures can be written. Raises ``BadRequest`` or ``StorageError``."""
        try:
            str(self.out).encode()
            self._check_writable()
            if self.names_a_file():
                self._check_file()
            elif self.out.exists() and not self.out.is_dir():
                raise StorageError(
                    f"{self.out} is a file, not a folder; give -o another place.",
                    f"{self.out} 是文件而不是文件夹；请用 -o 换一个位置。",
                )
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENAMETOOLONG, errno.EINVAL):
                raise storage_error(self.out, error) from error
            raise BadRequest(
                "A file cannot have that name (it is too long or not valid text); give -o another.",
                "文件不能用这个名字（太长，或不是有效文字）；请用 -o 换一个。",
            ) from error

    def _check_file(self) -> None:
        if self.out.suffix.lower() not in FORMATS:
            raise BadRequest(
                f"Pictures are written as {', '.join(FORMATS)}; {self.out.name} is none of these.",
                f"图片格式可选 {'、'.join(FORMATS)}；{self.out.name} 不在其中。",
            )
        taken = [] if self.overwrite else [p for p in map(self.file, range(self.count)) if p.exists()]
        if taken:
            raise BadRequest(
                f"{taken[0]} is already there; choose another name, or add --overwrite.",
                f"{taken[0]} 已经存在；请换个名字，或加上 --overwrite。",
            )

    def _check_writable(self) -> None:
        """Check the nearest existing folder; missing folders are created only when a picture is written."""
        folder = self.out.parent if self.names_a_file() else self.out
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not existing.is_dir() and existing != self.out:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if existing.is_dir() and not os.access(existing, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE_IDS):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def file(self, index: int) -> Path:
        """The path of picture ``index`` when ``out`` names a file."""
        return self.out if self.count == 1 else self.out.with_stem(f"{self.out.stem}-{index + 1}")

    def __call__(self, picture: Picture, before: int = 0) -> Path:
        """Write the picture and return its path. ``before``: pictures of earlier requests, where files are numbered.
        Raises ``StorageError``.
        """
        recipe = picture.recipe
        if self.names_a_file():
            return picture.write(self.file(before + recipe["index"]), overwrite=self.overwrite)
        path = self.out / f"{slug(recipe['request']['prompt'])}-{recipe['seed']}-{picture.id[:8]}.png"
        return path if path.exists() else picture.write(path)

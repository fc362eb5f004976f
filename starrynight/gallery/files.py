"""Where the pictures' files are: each named by its content, written whole or not at all, on a disk or in a bucket.

``ab/ab12….png``: the first 32 hex digits of the SHA-256 of the bytes. So a file is never changed, the same file twice is
one file, and whoever reads it can tell whether it is whole. Names come from here alone; no name a stranger gave reaches
a disk. Knows nothing of the database or of what a picture is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec

from starrynight.errors import MissingFile, MissingPackage, StarryError, StorageError
from starrynight.storage import PART_SUFFIX, storage_error, write_atomic

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
FORMATS = {suffix: kind for kind, suffix in SUFFIXES.items()}
FORGOTTEN = 3600.0  # seconds after which a half-written file belongs to no one any more

_OURS = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{30})(\.png|\.jpg|\.webp)")


def id_of(data: bytes) -> str:
    """32 hex digits: the id of the picture whose file holds these bytes."""
    return hashlib.sha256(data).hexdigest()[:32]


class Files:
    """``place`` is a folder or an fsspec URL (``s3://bucket/pictures``); ``options`` go to that file system.

    Raises ``StorageError`` for a full disk or a place that may not be written; ``MissingFile`` where none is.
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
        self.local = Path(self.root) if "file" in _protocols(self.system) else None

    def name(self, picture: str, kind: str) -> str:
        """The path under the root; ``picture`` is 32 hex digits, ``kind`` png, jpeg or webp."""
        return f"{picture[:2]}/{picture}{SUFFIXES[kind]}"

    def path(self, name: str) -> str:
        """Where the file is, for people and for programs on this machine."""
        return f"{self.root}/{name}"

    def put(self, name: str, data: bytes) -> None:
        """Make sure that ``name`` holds ``data``; a file that is already there and whole is left alone."""
        if self.holds(name, data):
            return
        with self._told(name):
            if self.local:
                write_atomic(self.local / name, data, overwrite=True)
            else:
                self.system.pipe_file(self.path(name), data)  # object stores show a whole object or none

    def holds(self, name: str, data: bytes) -> bool:
        """Whether the file is there with exactly these bytes; a broken one is not."""
        with contextlib.suppress(StarryError):
            return self.read(name) == data
        return False

    def read(self, name: str) -> bytes:
        with self._told(name):
            return self.system.cat_file(self.path(name))

    def exists(self, name: str) -> bool:
        with self._told(name):
            return self.system.exists(self.path(name))

    def remove(self, name: str) -> None:
        """Gone afterwards, whether or not it was there."""
        with self._told(name), contextlib.suppress(FileNotFoundError):
            self.system.rm_file(self.path(name))

    def made_at(self, name: str) -> float:
        """Seconds since 1970: when the file says it was written."""
        with self._told(name):
            return self.system.modified(self.path(name)).timestamp()

    def date(self, name: str, seconds: float) -> None:
        """Give the file the date of its picture, where files keep dates that are given to them."""
        if self.local:
            with contextlib.suppress(OSError):
                os.utime(self.local / name, (seconds, seconds))

    def all(self) -> Iterator[tuple[str, str, str]]:
        """(id, format, name) of every file that is ours."""
        for name in self._names():
            if found := _OURS.fullmatch(name):
                yield found[2], FORMATS[found[3]], name

    def strangers(self) -> list[str]:
        """What lies in our place and is not ours: left half-written by a killed process, or put there by somebody."""
        return [name for name in self._names() if not _OURS.fullmatch(name)]

    def sweep(self) -> int:
        """Remove half-written files that nobody has touched for ``FORGOTTEN`` seconds; returns how many."""
        parts = [name for name in self.strangers() if name.endswith(PART_SUFFIX)]
        old = [name for name in parts if self.made_at(name) < time.time() - FORGOTTEN]
        for name in old:
            self.remove(name)
        return len(old)

    def _names(self) -> Iterator[str]:
        with self._told(""):
            self.system.invalidate_cache()
            found = self.system.find(self.root) if self.system.exists(self.root) else []
        for path in sorted(found):
            yield path[len(self.root) :].lstrip("/")

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
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
        ) as error:  # every remote file system has errors of its own: no network, no key, no bucket
            raise StorageError(f"{path} does not answer: {error}.", f"{path} 没有响应：{error}。") from error


def _protocols(system: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)

"""Write a file whole or not at all, and name what went wrong in one sentence.

Every part of the product that writes a file calls ``write_atomic``; a cache, which may fail without harm, calls
``write_cache``. Both write a temporary file in the same folder, sync it and rename it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from starrynight.errors import StarryError, StorageError, reason

PART_SUFFIX = ".starry-part"  # of a file being written; one that outlives its run may be deleted
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def check_writable(path: Path) -> None:
    """Try the folder a file will be written to before the work that fills it. Makes the folder; raises StorageError."""
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def write_atomic(path: Path, data: bytes, *, overwrite: bool) -> Path:
    """A temporary file in the same folder, synced, then renamed: at ``path`` stands the whole file or none.

    Makes the folder. A name already taken becomes "-2", "-3" … unless ``overwrite``; returns the one it got. Raises
    OSError as it comes: ``storage_error`` has the sentence for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{secrets.token_hex(8)}{PART_SUFFIX}"
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(part, path)
        else:
            path = _take_free_name(part, path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return path


def _take_free_name(part: Path, path: Path) -> Path:
    """Give ``part`` the first free of "name", "name-2" … and return it. Linking fails where a file stands, even one
    another run put there this instant."""
    number = 1
    while True:
        name = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            os.link(part, name)
            return name
        except FileExistsError:
            number += 1
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            if not name.exists():  # a file system without hard links: the next best
                os.rename(part, name)
                return name
            number += 1


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where a folder can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_cache(path: Path, data: bytes) -> bool:
    """``write_atomic`` for files that can be made again: a folder that cannot be written to is no error.

    Returns whether the file was written.
    """
    try:
        write_atomic(path, data, overwrite=True)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """While ``path`` is written: an OSError becomes a StorageError with its sentence."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> StarryError:
    """The sentence for an ``OSError`` met while writing ``path``."""
    if error.errno in _FULL:
        return StorageError(
            f"The disk (or your quota) is full; {path} was not written. Free some space and try again.",
            f"磁盘（或配额）已满，{path} 没有写入。请腾出空间后重试。",
        )
    if error.errno in _FORBIDDEN:
        return StorageError(
            f"{path.parent} may not be written to; choose another folder or change its permissions.",
            f"没有写入 {path.parent} 的权限；请换一个文件夹，或修改其权限。",
        )
    en, zh = reason(error)
    return StorageError(f"{path} cannot be written: {en}.", f"无法写入 {path}：{zh}。")

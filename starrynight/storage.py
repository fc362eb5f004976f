"""Atomic file writes, and the messages for a failed one.

Every file is written with ``write_atomic``, with ``open_atomic`` if it is written in pieces, or with
``write_cache`` if a failure does no harm. All of them write a temporary file in the same folder, sync it and
rename it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from starrynight.errors import BadFile, StarryError, StorageError, reason
from starrynight.i18n import Text
from starrynight.settings import settings

PART_SUFFIX = ".starry-part"  # of a file being written; a leftover of a killed run may be deleted
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class DiskState(NamedTuple):
    """``free`` bytes for this user on the disk of ``folder``, and whether ``folder`` can be written to."""

    folder: Path
    free: int
    writable: bool


def disk_state(path: Path) -> DiskState:
    """The state of the disk that ``path`` is on, or would be: ``folder`` is the nearest of its parents that
    exists.
    """
    folder = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return DiskState(folder, shutil.disk_usage(folder).free, os.access(folder, os.W_OK))


def check_writable(path: Path) -> None:
    """Make the folder of ``path`` and test that it is writable, before work whose result goes there.

    Raises StorageError.
    """
    with storing(path):
        make_folder(path.parent)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@dataclass
class PartFile:
    """A file being written. ``path``: its final name, known after the block of ``open_atomic``."""

    file: BinaryIO
    path: Path


def utf8(data: bytes, name: str, what: Text) -> str:
    """The text of a file in UTF-8, with or without a BOM. Raises BadFile with the line that is none; ``what`` is to be saved anew."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadFile(
            f"Line {line} of {name} is no UTF-8 text; save {what.en} as UTF-8.",
            f"{name} 第 {line} 行不是 UTF-8 文字；请把{what.zh}存为 UTF-8。",
        ) from error


@contextlib.contextmanager
def open_atomic(path: Path, *, overwrite: bool) -> Iterator[PartFile]:
    """Open a temporary file in the folder of ``path``; when the block ends, sync it and rename it to
    ``path``.

    If the block raises, the temporary file is deleted and ``path`` is unchanged. If the name is taken, "-2",
    "-3" … is appended, unless ``overwrite``. Raises OSError; ``storage_error`` turns it into a message.
    """
    name = path.parent / f".{secrets.token_hex(8)}{PART_SUFFIX}"
    try:
        with open(name, "xb") as file:
            part = PartFile(file, path)
            yield part
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(name, path)
        else:
            part.path = _take_free_name(name, path)
    finally:
        name.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_atomic(path: Path, data: bytes, *, overwrite: bool) -> Path:
    """Write ``data`` with ``open_atomic``, so that ``path`` is the whole file or absent. Makes the folder.

    Returns the path used.
    """
    make_folder(path.parent)
    with open_atomic(path, overwrite=overwrite) as part:
        part.file.write(data)
    return part.path


def read_regular(root: Path, name: str) -> bytes:
    """The bytes of the file ``name`` below ``root``, which may itself be a link.

    A link, a FIFO or a device below ``root`` is not read: it would lead out of the folder, or never end. Raises
    ``BadFile`` for one, and OSError.
    """
    if os.open not in os.supports_dir_fd:  # Windows
        return (root / name).read_bytes()
    *folders, last = Path(name).parts
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            outer, at = at, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(outer)
        file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise _not_regular(root / name) from error
        raise
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _not_regular(root / name)
    with open(file, "rb") as stream:
        return stream.read()


def _not_regular(path: Path) -> BadFile:
    return BadFile(
        f"{path} is a link, a folder or a device, not a file, so it is not read; put the file itself there.",
        f"{path} 是链接、文件夹或设备而不是文件，因此不读取；请把文件本身放在那里。",
    )


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. STARRY_HOME, if this makes it, is its owner's alone. Raises OSError."""
    home, folder = settings().home.absolute(), folder.absolute()
    if home == folder or home in folder.parents:
        home.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            home.mkdir(mode=0o700)
    folder.mkdir(parents=True, exist_ok=True)


def _take_free_name(part: Path, path: Path) -> Path:
    """Move ``part`` to the first free name of "name", "name-2" … and return it.

    A hard link fails if the name exists, so two processes cannot take the same one.
    """
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
            if not name.exists():  # no hard links here (FAT): a rename, though another process may be faster
                os.rename(part, name)
                return name
            number += 1


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, on systems that can sync a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_cache(path: Path, data: bytes) -> bool:
    """``write_atomic`` for a file that can be made again. Returns whether it was written; never raises
    OSError.
    """
    try:
        write_atomic(path, data, overwrite=True)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an OSError raised while ``path`` is written into its StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> StarryError:
    """The StorageError for an OSError raised while writing ``path``."""
    if error.errno in FULL:
        return StorageError(
            f"The disk (or your quota) is full; {path} was not written. Free some space and try again.",
            f"磁盘（或配额）已满，{path} 没有写入。请腾出空间后重试。",
        )
    if error.errno in FORBIDDEN:
        return StorageError(
            f"{path.parent} may not be written to; choose another folder or change its permissions.",
            f"没有写入 {path.parent} 的权限；请换一个文件夹，或修改其权限。",
        )
    en, zh = reason(error)
    return StorageError(
        f"{path} cannot be written: {en}. Choose another path.", f"无法写入 {path}：{zh}。请换一个路径。"
    )

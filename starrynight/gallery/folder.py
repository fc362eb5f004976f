"""The simplest gallery: a folder of picture files, or the one file the user named.

It decides names and refuses to overwrite; how a picture becomes bytes is picture.py's business.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from starrynight.errors import BadRequest, StorageError
from starrynight.picture import SUFFIXES, Picture
from starrynight.storage import storage_error

AS_WE_ARE = os.access in os.supports_effective_ids


@dataclass(frozen=True)
class Folder:
    """``out`` is a picture file (by its suffix) or a folder. ``count`` > 1 numbers the file's name: a-1.png, a-2.png.

    Calling it hangs a picture and returns the path. In a folder the name ends in the picture's id, so the same
    picture hung twice is one file, and two different ones never meet.
    """

    out: Path
    count: int = 1
    overwrite: bool = False

    @property
    def names_a_file(self) -> bool:
        return self.out.suffix != "" and not self.out.is_dir()

    def check(self) -> None:
        """Before anything is painted: raise BadRequest where a picture could not be hung later."""
        try:
            self._check()
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENAMETOOLONG, errno.EINVAL):
                raise storage_error(self.out, error) from error
            raise BadRequest(
                "No file can have that name (too long, or no text); give -o another.",
                "文件不能用这个名字（太长，或不是文字）；请用 -o 换一个。",
            ) from error

    def _check(self) -> None:
        str(self.out).encode()
        self._may_be_written()
        if not self.names_a_file:
            if self.out.exists() and not self.out.is_dir():
                raise StorageError(
                    f"{self.out} is a file, not a folder; give -o another place.",
                    f"{self.out} 是文件而不是文件夹；请用 -o 换一个位置。",
                )
            return
        if self.out.suffix.lower() not in SUFFIXES:
            raise BadRequest(
                f"Pictures are written as {', '.join(SUFFIXES)}; {self.out.name} is none of these.",
                f"图片格式可选 {'、'.join(SUFFIXES)}；{self.out.name} 不在其中。",
            )
        taken = [] if self.overwrite else [p for p in map(self.file, range(self.count)) if p.exists()]
        if taken:
            raise BadRequest(
                f"{taken[0]} is already there; choose another name, or add --overwrite.",
                f"{taken[0]} 已经存在；请换个名字，或加上 --overwrite。",
            )

    def _may_be_written(self) -> None:
        """The nearest folder that is there must take files: better told now than after minutes of painting."""
        folder = self.out.parent if self.names_a_file else self.out
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir() and there != self.out:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if there.is_dir() and not os.access(there, os.W_OK | os.X_OK, effective_ids=AS_WE_ARE):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def file(self, index: int) -> Path:
        """The path of picture ``index`` when the user named a file."""
        return self.out if self.count == 1 else self.out.with_stem(f"{self.out.stem}-{index + 1}")

    def __call__(self, picture: Picture) -> Path:
        """Write the picture. Raises StorageError when the disk is full or the folder may not be written."""
        if self.names_a_file:
            return picture.write(self.file(picture.recipe["index"]), overwrite=self.overwrite)
        path = (
            self.out
            / f"{slug(picture.recipe['request']['prompt'])}-{picture.recipe['seed']}-{picture.id[:8]}.png"
        )
        return path if path.exists() else picture.write(path)


def slug(prompt: str, limit: int = 40) -> str:
    """A file name people can read: letters and digits of any script, the rest as single hyphens."""
    words = re.sub(r"[\W_]+", "-", prompt, flags=re.UNICODE).strip("-")
    return words[:limit].strip("-") or "picture"

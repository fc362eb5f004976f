"""The simplest gallery: a folder of picture files, or the one file the user named.

It decides names and refuses to overwrite; how a picture becomes bytes is picture.py's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from starrynight.errors import BadRequest, StorageError
from starrynight.picture import SUFFIXES, Picture


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

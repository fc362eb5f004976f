"""The whole error tree, on one page. Every error a user can meet says, in English and Chinese, what happened
and what to do next. This file knows no other file; doors catch by type and use ``exit_code`` or ``status``.

StarryError
├── BadRequest        the words cannot be painted: empty prompt, wrong size, steps out of range
│   ├── UnknownName   a model, style, sampler or LoRA nobody has heard of (with the nearest names)
│   └── WrongSize     a size that does not fit the model (with the nearest sizes that do)
├── BadFile           a file is missing, truncated, of the wrong kind, or must not be trusted
│   ├── MissingFile
│   ├── PickledFile   a checkpoint that could run code when opened
│   ├── LfsPointer    a note left by Git LFS in place of the weights
│   └── NoRecipe      a picture that does not say how it was painted
├── Unfit             a LoRA that fits no layer, a checkpoint of another architecture
├── HubUnreachable    a model is not here and its hub does not answer
├── MissingPackage    an optional package is needed
├── StorageError      the disk is full, or the folder may not be written
├── BrokenNumbers     the guard saw NaN or Inf and no rung of the ladder helped
├── OutOfMemory
└── Cancelled
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import Any

# What the system says of a file or a port, where it speaks English alone.
_REASONS = {
    errno.ENOENT: "路径不存在",
    errno.ENOTDIR: "路径中有一段不是文件夹",
    errno.EISDIR: "那是一个文件夹",
    errno.EACCES: "没有权限",
    errno.EPERM: "不允许这样做",
    errno.EROFS: "文件系统只读",
    errno.EEXIST: "已经存在",
    errno.ENOSPC: "磁盘已满",
    errno.EDQUOT: "配额已满",
    errno.EIO: "读写出错",
    errno.ENAMETOOLONG: "名字太长",
    errno.EMFILE: "打开的文件太多",
    errno.EADDRINUSE: "已被占用",
    errno.EADDRNOTAVAIL: "本机没有这个地址",
}


def reason(error: OSError) -> tuple[str, str]:
    """Why the system refused, in English and Chinese."""
    en = error.strerror or type(error).__name__
    return en, _REASONS.get(error.errno or 0, en)


class StarryError(Exception):
    """One clear sentence in each language. ``exit_code`` is for the shell, ``status`` for HTTP."""

    exit_code = 1
    status = 500

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.en, self.zh = en, zh

    def message(self, lang: str) -> str:
        """The sentence in ``lang`` ("zh" or anything else for English)."""
        return self.zh if lang.startswith("zh") else self.en


class BadRequest(StarryError):
    exit_code, status = 2, 400


class UnknownName(BadRequest):
    """``what`` is a kind of thing (model, style …) in both languages, e.g. ``("style", "风格")``."""

    status = 404

    def __init__(
        self, what: tuple[str, str], name: str, known: Iterable[str], hint: tuple[str, str] = ("", "")
    ) -> None:
        names = sorted(set(known))
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        self.name, self.near = name, near
        name = name if len(name) <= 60 else name[:57] + "…"
        if near:
            en, zh = f"did you mean {', '.join(near)}?", f"是不是：{'、'.join(near)}？"
        elif names:
            en, zh = f"known: {', '.join(names)}.", f"可选：{'、'.join(names)}。"
        else:
            en, zh = "none are installed.", "目前一个也没有。"
        super().__init__(
            f"There is no {what[0]} called “{name}”; {en}{' ' + hint[0] if hint[0] else ''}",
            f"没有名为“{name}”的{what[1]}；{zh}{hint[1]}",
        )


class WrongSize(BadRequest):
    pass


class BadFile(StarryError):
    exit_code, status = 3, 422


class MissingFile(BadFile):
    status = 404


class PickledFile(BadFile):
    pass


class LfsPointer(BadFile):
    pass


class NoRecipe(BadFile):
    pass


class Unfit(StarryError):
    exit_code, status = 3, 422


class HubUnreachable(StarryError):
    exit_code, status = 4, 503


class MissingPackage(StarryError):
    exit_code, status = 4, 501


class StorageError(StarryError):
    exit_code, status = 5, 507


class BrokenNumbers(StarryError):
    """``fault``: where and how, as ``verdict.Fault`` has it, if it is known."""

    exit_code, status = 6, 500
    fault: Any = None


class OutOfMemory(StarryError):
    exit_code, status = 7, 503


class Cancelled(StarryError):
    exit_code, status = 130, 499

    def __init__(self, en: str = "Cancelled.", zh: str = "已取消。") -> None:
        super().__init__(en, zh)

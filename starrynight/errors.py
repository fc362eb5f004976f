"""The errors that users see. Every message states the cause and the next step, in English and Chinese.

Interfaces catch by type: ``exit_code`` is the shell's, ``status`` is HTTP's.

StarryError
├── BadRequest        the request is invalid: empty prompt, wrong size, steps out of range
│   ├── UnknownName   no model, style, sampler or LoRA has this name (with the nearest names)
│   ├── MissingField  a field that must be given is not there
│   ├── UnknownField  no field has this name
│   ├── QueueFull     as many jobs wait as may wait
│   └── WrongSize     the size does not fit the model (with the nearest valid sizes)
├── BadFile           the file is missing, truncated, of the wrong type or unsafe
│   ├── MissingFile
│   ├── PickledFile   a pickled checkpoint, which can run code when opened
│   ├── LfsPointer    a Git LFS pointer in place of the file
│   └── NoRecipe      a picture without a recipe
├── Unfit             a LoRA that fits no layer, a checkpoint of another architecture
├── HubUnreachable    the model is not on this machine and its hub does not answer
├── RemoteError       another server that paints failed, or does not answer
├── MissingPackage    an optional package is not installed
├── NoSense           a sense that is off, or the ears, which nobody has built in
├── StorageError      the disk is full, or the folder is not writable
│   └── Busy          another program or too many callers hold what is needed; try again
├── BrokenNumbers     the guard found NaN or Inf and no fallback recovered
├── OutOfMemory
└── Cancelled
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import Any

from starrynight.i18n import Text

# The Chinese for the system's messages about files and ports, which are English only.
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


def reason(error: OSError) -> Text:
    """The system's message, in both languages where a translation is known."""
    en = error.strerror or type(error).__name__
    return Text(en, _REASONS.get(error.errno or 0, en))


class StarryError(Exception):
    """The message in both languages, the shell's exit code and the HTTP status. ``param``: the field at fault, if one is."""

    exit_code = 1
    status = 500
    retry_after: int | None = None  # seconds after which the same request may succeed
    final = False  # whether the same request is known to fail again

    def __init__(self, en: str, zh: str, param: str | None = None) -> None:
        super().__init__(en)
        self.en, self.zh, self.param = en, zh, param

    def message(self, lang: str) -> str:
        """The message in ``lang``; see ``Text.to``."""
        return Text(self.en, self.zh).to(lang)


class BadRequest(StarryError):
    exit_code, status = 2, 400


# The kinds of things that a request's fields name.
_FIELDS = {kind: kind for kind in ("model", "style", "sampler", "precision", "prediction")} | {
    "LoRA": "loras"
}


class UnknownName(BadRequest):
    """No ``what`` is called ``name``. ``what``: a kind of thing, e.g. ``Text("style", "风格")``. ``known``:
    valid names.

    ``hint``: a sentence to append. ``near`` keeps the similar names.
    """

    status = 404

    def __init__(
        self, what: tuple[str, str], name: str, known: Iterable[str], hint: tuple[str, str] = ("", "")
    ) -> None:
        (what_en, what_zh), (hint_en, hint_zh) = what, hint
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
            f"There is no {what_en} called “{name}”; {en}{' ' + hint_en if hint_en else ''}",
            f"没有名为“{name}”的{what_zh}；{zh}{hint_zh}",
            _FIELDS.get(what_en),
        )


class WrongSize(BadRequest):
    pass


class MissingField(BadRequest):
    pass


class UnknownField(BadRequest):
    pass


class NameTaken(BadRequest):
    status = 409


class QueueFull(BadRequest):
    status = 429
    retry_after = 60


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


class RemoteError(StarryError):
    exit_code, status = 4, 502
    lasting = False  # whether the next picture would meet it too


class MissingPackage(StarryError):
    exit_code, status = 4, 501


class NoSense(StarryError):
    exit_code, status, final = 4, 503, True


class StorageError(StarryError):
    exit_code, status = 5, 507


class Busy(StorageError):
    status = 503
    retry_after = 5


class BrokenNumbers(StarryError):
    """``fault``: the ``verdict.Fault`` with stage, step and module, where known."""

    exit_code, status = 6, 500
    fault: Any = None


class OutOfMemory(StarryError):
    exit_code, status = 7, 503


class Cancelled(StarryError):
    exit_code, status = 130, 499

    def __init__(self, en: str = "Cancelled.", zh: str = "已取消。") -> None:
        super().__init__(en, zh)

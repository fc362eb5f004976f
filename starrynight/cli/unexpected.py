"""The last resort of the command line: an error that nothing below has put into words becomes one sentence, and its traceback
a file. With ``--debug`` or STARRY_DEBUG=1 the traceback is printed as well.
"""

from __future__ import annotations

import contextlib
import platform
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType

from starrynight import __version__
from starrynight.errors import BadRequest, MissingPackage, StarryError, StorageError, reason
from starrynight.i18n import Text
from starrynight.settings import NoHome, debugging, settings, terminal_language
from starrynight.storage import FULL, write_cache

LOG = "last-error.txt"  # in STARRY_HOME/cache; the newest only


def sentence(error: BaseException) -> StarryError:
    """The error in words, with the place of its traceback, which this writes. Never raises."""
    from starrynight.models.library_errors import out_of_memory, shorten

    if isinstance(error, StarryError):
        return error
    if isinstance(error, NoHome):
        return BadRequest(
            f"There is no home folder for {error}; set STARRY_HOME to a folder.",
            f"找不到 {error} 对应的主目录；请把 STARRY_HOME 设为一个文件夹。",
        )
    details = _where(_written(error))
    if (memory := out_of_memory(error)) is not None:
        return type(memory)(f"{memory.en} {details.en}", f"{memory.zh}{details.zh}")
    if isinstance(error, ImportError):
        return MissingPackage(
            f"A part of this installation cannot be loaded: {shorten(error)}. Install the package again. {details.en}",
            f"安装不完整，无法载入：{shorten(error)}。请重新安装。{details.zh}",
        )
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        en, zh = reason(error)
        place = f"{error.filename}: " if isinstance(error.filename, str) else ""
        step = (
            Text("Free some space and try again. ", "请腾出空间后重试。")
            if error.errno in FULL
            else Text("", "")
        )
        return StorageError(f"{place}{en}. {step.en}{details.en}", f"{place}{zh}。{step.zh}{details.zh}")
    return StarryError(
        f"This failed in a way that the program does not know: {shorten(error)}. {details.en}",
        f"发生了程序没有预料到的错误：{shorten(error)}。{details.zh}",
    )


def is_foreign(error: BaseException) -> bool:
    """Whether it is an error, or a panic in Rust (tokenizers, safetensors), which is no Exception in Python."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def print_traceback(error: BaseException) -> None:
    """Print the traceback to stderr, if debugging is on."""
    if debugging():
        traceback.print_exception(error)


def catch_threads() -> None:
    """An error in a thread, or in a destructor, is written down and told in one line, like any other."""
    threading.excepthook = lambda args: _tell(args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _tell(args.exc_value, args.exc_traceback)


def _tell(error: BaseException | None, trace: TracebackType | None) -> None:
    if error is None or isinstance(error, SystemExit | KeyboardInterrupt):
        return
    with contextlib.suppress(Exception):  # at the end of the process its modules are half gone
        found = sentence(error.with_traceback(trace))
        print(f"! {found.message(terminal_language())}", file=sys.stderr)
        print_traceback(error)


def _written(error: BaseException) -> Path | None:
    """The file of the traceback; None where it could not be written."""
    try:
        path = settings().cache / LOG
    except NoHome:
        return None
    text = "".join(traceback.format_exception(error))
    head = f"{time.strftime('%Y-%m-%d %H:%M:%S')} starry {__version__}, Python {platform.python_version()}\n{sys.argv}\n\n"
    written = write_cache(path, (head + text).encode("utf-8", "backslashreplace"))
    return path if written else None


def _where(path: Path | None) -> Text:
    if path is None:
        return Text("STARRY_DEBUG=1 prints the details.", "设置 STARRY_DEBUG=1 可显示详情。")
    return Text(f"The details are in {path}.", f"详情见 {path}。")

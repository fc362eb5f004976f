"""What a library raises while a model is opened, loaded or run, as one of our own errors: the cause and the next step.

Every exception is translated, not a list of classes: diffusers, transformers, tokenizers, safetensors and torch raise what
they meet (KeyError from a configuration, AssertionError from a shape, a panic from Rust), and their next versions others.
The library's exception stays as ``__cause__``. Imports no torch.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from starrynight.errors import MissingPackage, OutOfMemory, StarryError, StorageError, Unfit, reason
from starrynight.i18n import Text
from starrynight.storage import FORBIDDEN, FULL
from starrynight.text import clean

if TYPE_CHECKING:
    from starrynight.models.catalogue import LocalModel

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_REASON = 300  # characters; transformers' advice runs to pages
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
# "pip install -U 'name>=1'", and how the libraries' messages name a package that is not installed.
_PIP = re.compile(r"pip3? install\s+(?:-{1,2}[\w-]+\s+)*[`'\"]*([A-Za-z][\w.-]*)")
_NAMED = re.compile(
    r"(?:requires|need|install|without|find|named)\s+(?:the\s+|a\s+)?[`'\"]?([A-Za-z][\w.-]*)[`'\"]?(?:\s+(?:library|package|backend))?"
)
_DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python-headless", "google": "protobuf", "sklearn": "scikit-learn",
                  "SentencePiece": "sentencepiece", "Accelerate": "accelerate"}  # fmt: skip


@contextmanager
def library_errors(path: Path, passing: Collection[BaseException] = ()) -> Iterator[None]:
    """Translate what a library raises in the block; ``path`` is the model, or the part of it, that was being read.

    Our own exceptions pass, and those in ``passing``, which a caller's callback raised. Raises what ``explain`` returns.
    """
    try:
        yield
    except BaseException as error:
        # A panic in Rust (tokenizers, safetensors) reaches Python as a BaseException; Ctrl-C is one too and passes.
        foreign = isinstance(error, Exception) or type(error).__name__ == "PanicException"
        own = type(error).__module__.partition(".")[0] == __package__.partition(".")[0]
        if not foreign or own or any(error is one for one in passing):
            raise
        raise explain(error, path) from error


def translated(
    function: Callable[Concatenate[LocalModel, P], R],
) -> Callable[Concatenate[LocalModel, P], R]:
    """``library_errors`` around a function whose first argument is the model."""

    @wraps(function)
    def wrapper(model: LocalModel, *args: P.args, **kwargs: P.kwargs) -> R:
        with library_errors(model.path):
            return function(model, *args, **kwargs)

    return wrapper


def explain(error: BaseException, path: Path) -> StarryError:
    """OutOfMemory, MissingPackage, StorageError or Unfit, by the error and by what caused it."""
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, StarryError):
            return one
        if (memory := out_of_memory(one)) is not None:
            return memory
    for one in chain:
        if isinstance(one, ImportError):
            return _missing_package(path, one)
        if isinstance(one, OSError) and (one.errno or 0) > 0:  # a failed look-up of a host has a negative one
            return _unreadable(path, one)
    return _unfit(path, error)


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """``error`` as OutOfMemory if it is one: ours, torch's type, the CPU allocator's message, or Python's; else None."""
    if isinstance(error, OutOfMemory):
        return error
    torch = sys.modules.get("torch")  # where it is not imported, nothing of it was raised
    kinds = (MemoryError, torch.OutOfMemoryError) if torch else (MemoryError,)
    message = str(error).lower()
    if not isinstance(error, kinds) and not (
        isinstance(error, RuntimeError | OSError) and any(words in message for words in _NO_MEMORY)
    ):
        return None
    return OutOfMemory(
        "There was not enough memory. Make the picture smaller, close other programs, or set a memory budget so "
        "that parts of the model take turns.",
        "内存不足。请缩小画面、关闭其他程序，或设置显存预算让模型各部分轮流加载。",
    )


def shorten(error: BaseException) -> str:
    """A library's message as part of a sentence: one line, cut at a word, no full stop; where it says little,
    its class and the line of code that raised it."""
    text = " ".join(clean(str(error)).split()).rstrip(".:;, ")
    if len(text) > LONGEST_REASON:
        text = text[:LONGEST_REASON].rpartition(" ")[0].rstrip(".:;, ") + " …"
    if " " in text and not isinstance(error, KeyError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    where = (
        f" at `{frames[-1].line}` in {Path(frames[-1].filename).name}" if frames and frames[-1].line else ""
    )
    return f"{type(error).__name__} {text}".rstrip() + where


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, then what it was raised from; libraries wrap the cause in an error of their own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _missing_package(path: Path, error: ImportError) -> StarryError:
    """A package that is not installed, or that is too old or too new for another."""
    text = str(error)
    if text.startswith("cannot import name"):
        package = (error.name or "").partition(".")[0] or "diffusers"
        return MissingPackage(
            f"“{path.name}” needs another version of {package} ({shorten(error)}); update it: pip install -U {package}.",
            f"“{path.name}”需要另一个版本的 {package}（{shorten(error)}）；请升级：pip install -U {package}。",
        )
    found = _PIP.search(text) or _NAMED.search(text)
    name = error.name.partition(".")[0] if error.name else found[1].rstrip(".") if found else ""
    name = _DISTRIBUTIONS.get(name, name)
    if not name:
        return MissingPackage(
            f"“{path.name}” needs a package that is not installed: {shorten(error)}.",
            f"“{path.name}”需要一个未安装的包：{shorten(error)}。",
        )
    return MissingPackage(
        f"“{path.name}” needs the package {name}, which is not installed; install it: pip install {name}.",
        f"“{path.name}”需要 {name}，但没有安装；请安装：pip install {name}。",
    )


def _unreadable(path: Path, error: OSError) -> StorageError:
    """The system refused a file: the disk, a permission, a limit."""
    place = error.filename if isinstance(error.filename, str) else path
    en, zh = reason(error)
    if error.errno in FULL:
        next_step = Text("Free some space and try again.", "请腾出空间后重试。")
    elif error.errno in FORBIDDEN:
        next_step = Text(
            "Change its permissions, or copy the model elsewhere.", "请修改其权限，或把模型复制到别处。"
        )
    else:
        next_step = Text("Check the file, or download the model again.", "请检查该文件，或重新下载该模型。")
    return StorageError(
        f"{place} cannot be used: {en}. {next_step.en}", f"无法使用 {place}：{zh}。{next_step.zh}"
    )


def _unfit(path: Path, error: BaseException) -> Unfit:
    text = shorten(error)
    if "trust_remote_code" in str(error):
        return Unfit(
            f"“{path.name}” wants to run code of its own, which is never done here; take a model whose classes are those of "
            "diffusers and transformers.",
            f"“{path.name}”要求运行它自带的代码，这里从不运行；请换用 diffusers 与 transformers 自有类的模型。",
        )
    return Unfit(
        f"“{path.name}” cannot be used as it is: {text}. Download the model again, or take one of the architecture asked "
        "for.",
        f"“{path.name}”无法这样使用：{text}。请重新下载该模型，或换用架构相符的模型。",
    )

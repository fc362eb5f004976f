"""Prompt lists: a text with one prompt a line. Blank lines and lines that begin with # are passed over."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from starrynight.errors import BadFile, BadRequest, MissingFile, StarryError, StorageError, reason
from starrynight.i18n import Text
from starrynight.request import MAX_TEXT
from starrynight.storage import utf8
from starrynight.text import excerpt

MOST = 1000  # prompts of one list
MAX_BYTES = 4 * MOST * MAX_TEXT


class Line(NamedTuple):
    """``number``: of the line in its file, from 1."""

    number: int
    prompt: str


def parse(text: str) -> list[Line]:
    """The prompts of a list, with their lines. Raises BadRequest for none and for more than ``MOST``."""
    lines = [Line(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    found = [line for line in lines if line.prompt and not line.prompt.startswith("#")]
    if not found:
        raise BadRequest(
            "The list holds no prompt; write one a line. Lines that begin with # are passed over.",
            "列表里没有提示词；请每行写一条。以 # 开头的行会略过。",
        )
    if len(found) > MOST:
        raise BadRequest(
            f"The list holds {len(found)} prompts; {MOST} are read at most. Divide it.",
            f"列表里有 {len(found)} 条提示词；最多读 {MOST} 条。请分成几份。",
        )
    return found


def read(path: Path) -> list[Line]:
    """The prompts of a file in UTF-8 (with or without a BOM); "-" is the standard input.

    Raises MissingFile, StorageError where the system refuses, BadFile for what is no text, and as ``parse``.
    """
    data = sys.stdin.buffer.read(MAX_BYTES + 1) if str(path) == "-" else _read(path)
    name = excerpt(str(path))
    if len(data) > MAX_BYTES:
        raise BadFile(f"{name} is too large for a list of prompts.", f"{name} 太大，不是提示词列表。")
    return parse(utf8(data, name, Text("the list", "列表")))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingFile(
            f"There is no file {excerpt(str(path))}; name a list of prompts, or - for the standard input.",
            f"没有文件 {excerpt(str(path))}；请给出提示词列表，或用 - 表示标准输入。",
        ) from error
    except (OSError, ValueError) as error:
        en, zh = reason(error) if isinstance(error, OSError) else (str(error), str(error))
        raise StorageError(
            f"{excerpt(str(path))} cannot be read: {en}.", f"无法读取 {excerpt(str(path))}：{zh}。"
        ) from error


def at_line(error: StarryError, number: int) -> StarryError:
    """The error of one prompt of a list, of the same type, with its line."""
    found: StarryError = type(error).__new__(type(error))
    StarryError.__init__(found, f"Line {number}: {error.en}", f"第 {number} 行：{error.zh}", error.param)
    return found

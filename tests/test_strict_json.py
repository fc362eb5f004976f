"""JSON that this package writes or prints is JSON: it holds no NaN and no infinity, which other programs refuse."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import pytest

import starrynight
from starrynight.text import finite, plain_json, printed_json

PACKAGE = Path(starrynight.__file__).parent
STRICT = (
    "cli",
    "api",
    "web",
    "serve",
    "lab",
    "gallery",
    "jobs",
    "metadata",
)  # what reaches a user or a file of theirs


def writers(path: Path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump"):
            yield (
                f"{path.relative_to(PACKAGE)}:{node.lineno}",
                {word.arg: ast.unparse(word.value) for word in node.keywords},
            )


def test_every_writer_refuses_nan() -> None:
    files = [file for folder in STRICT for file in sorted((PACKAGE / folder).rglob("*.py"))]
    files += [PACKAGE / "text.py", PACKAGE / "picture.py", PACKAGE / "request.py"]
    found = [writer for file in files for writer in writers(file)]
    assert len(found) > 8
    assert [place for place, words in found if words.get("allow_nan") != "False"] == []


@pytest.mark.parametrize(
    ("number", "text"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")]
)
def test_printed_json_writes_their_names_and_plain_json_refuses_them(number: float, text: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    value = {"a": [number, {"b": (number, 1.5)}]}
    assert finite(value) == {"a": [text, {"b": [text, 1.5]}]}
    assert json.loads(printed_json(value), parse_constant=refuse) == finite(value)
    with pytest.raises(ValueError, match="JSON"):
        plain_json(value)

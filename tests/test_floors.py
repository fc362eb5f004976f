"""The floors of the house: imports only point down, and rooms on one floor do not see each other.

The drawing in CONTRIBUTING.md and this table are the same table.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import starrynight

HOUSE = Path(starrynight.__file__).parent
WORDS = {
    "errors",
    "i18n",
    "progress",
    "storage",
    "settings",
    "request",
    "text",
    "validation_messages",
    "picture",
    "metadata",
    "verdict",
}
MAY_IMPORT = {
    **dict.fromkeys(WORDS, WORDS),
    "numerics": WORDS,
    "gallery": WORDS,
    "models": WORDS | {"numerics"},
    "folding": WORDS | {"numerics", "models"},
    "painting": WORDS | {"numerics", "models", "folding"},
    "firefly": WORDS | {"numerics", "models", "folding", "painting"},
    "studio": WORDS | {"numerics", "models", "folding", "painting", "gallery"},
    "jobs": WORDS | {"numerics", "models", "folding", "painting", "gallery", "studio"},
    "lab": WORDS | {"numerics", "models", "folding", "painting", "firefly", "studio"},
    "cli": WORDS | {"numerics", "models", "folding", "painting", "gallery", "studio", "jobs", "lab", "serve"},
    "api": WORDS | {"numerics", "models", "folding", "painting", "gallery", "studio", "jobs", "lab"},
    "web": WORDS | {"numerics", "models", "folding", "painting", "gallery", "studio", "jobs", "lab"},
    "serve": WORDS | {"gallery", "jobs", "api", "web"},
}
FILES = sorted(path for path in HOUSE.rglob("*.py") if path != HOUSE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    """Every room of the house that ``path`` imports, anywhere in the file, lazily or not."""
    package = ["starrynight", *path.relative_to(HOUSE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("starrynight.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_only_point_down(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} stands on no floor yet; give it one here and in CONTRIBUTING.md"
    upward = {r for r in rooms_imported(path) - {room, "__version__"} if r in MAY_IMPORT} - MAY_IMPORT[room]
    assert not upward, f"{path.relative_to(HOUSE)} looks up or sideways at {sorted(upward)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_every_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), (
        "open the file with what it does and does not know"
    )


def test_the_words_leave_torch_outside() -> None:
    loaded = "import sys, starrynight.picture, starrynight.metadata; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_only_the_settings_read_the_environment() -> None:
    readers = [
        p.relative_to(HOUSE)
        for p in FILES
        if "os.environ" in p.read_text("utf-8") or "getenv" in p.read_text("utf-8")
    ]
    assert readers == [Path("settings.py")]

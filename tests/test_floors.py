"""The layers of the package: imports only point down. The table in CONTRIBUTING.md is read, not copied.

Held here: packages import what stands below them and nothing beside them, lazily or not; no files import each other in a
circle; each package imports the third-party packages of its row and no others; what interfaces import loads no torch.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import starrynight

PACKAGE = Path(starrynight.__file__).parent
CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@cache
def table() -> list[dict[str, set[str]]]:
    """The rows of the layer table from top to bottom: module or package → the third-party packages it may import.

    A cell of third-party packages is for all of its row, or in parts: "api: `fastapi`; web: `streamlit`".
    """
    text = CONTRIBUTING.read_text("utf-8")
    lines = text[text.index("| layer |") :].split("\n\n")[0].splitlines()[2:]
    rows = []
    for line in lines:
        _, modules, _, packages = (cell.strip() for cell in line.strip("|").split("|"))
        names = [name.removesuffix("/").removesuffix(".py") for name in re.findall(r"`([\w/.]+)`", modules)]
        parts = dict(re.findall(r"(\w+): ([^;]+)", packages)) or dict.fromkeys(names, packages)
        rows.append({name: set(re.findall(r"`(\w+)`", parts.get(name, ""))) for name in names})
    return rows


def module_of(path: Path) -> str:
    """The module or package directly below ``starrynight`` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def dotted(path: Path) -> str:
    return ".".join(["starrynight", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
        ".__init__"
    )


@cache
def imports(path: Path) -> frozenset[str]:
    """Every dotted name that a file imports, anywhere in it; for ``from a import b`` that is "a.b"."""
    package = [*dotted(path).split("."), ""] if path.name == "__init__.py" else dotted(path).split(".")
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: -node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def test_every_module_stands_in_the_table_once_and_nothing_else_does() -> None:
    listed = [name for row in table() for name in row]
    assert sorted(listed) == sorted({module_of(path) for path in FILES})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_point_down(path: Path) -> None:
    module = module_of(path)
    row = next(number for number, row in enumerate(table()) if module in row)
    below = {name for row in table()[row + 1 :] for name in row}
    # the modules of the lowest row may use each other, though not in a circle
    allowed = below | {module} | (set(table()[-1]) if row == len(table()) - 1 else set())
    used = {name.split(".")[1] for name in imports(path) if name.startswith("starrynight.")} - {
        "__version__",
        "lazy_exports",
    }
    assert used <= allowed, (
        f"{path.relative_to(PACKAGE)} imports {sorted(used - allowed)} from above or beside it"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_party_packages_are_those_of_its_layer(path: Path) -> None:
    module = module_of(path)
    allowed = next(row[module] for row in table() if module in row)
    used = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"starrynight"}
    assert used <= allowed, f"{path.relative_to(PACKAGE)} imports {sorted(used - allowed)}"


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {dotted(path): path for path in FILES}

    def targets(path: Path) -> set[str]:
        names = {name if name in modules else name.rpartition(".")[0] for name in imports(path)}
        return {name for name in names if name in modules and modules[name] != path}

    finished: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join([*trail[trail.index(module) :], module])
        if module not in finished:
            for target in sorted(targets(modules[module])):
                visit(target, (*trail, module))
            finished.add(module)

    for module in sorted(modules):
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_opens_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "modules",
    ["picture, starrynight.metadata", "gallery.store", "jobs.queue, starrynight.jobs.validate", "api.app",
     "cli", "studio", "lab.table", "serve"],
)  # fmt: skip
def test_interfaces_and_what_they_import_load_no_torch(modules: str) -> None:
    code = (
        f"import sys, starrynight.{modules}; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_only_the_settings_read_the_environment() -> None:
    readers = [
        path.relative_to(PACKAGE)
        for path in FILES
        if re.search(r"os\.environ|getenv", path.read_text("utf-8"))
    ]
    assert readers == [Path("settings.py")]

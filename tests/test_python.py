"""The public Python interface: every exported name exists, importing is cheap, the programs of docs/python.md run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import starrynight

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
PROGRAMS = re.findall(r"## ([^\n]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def run(code: str, folder: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env={**os.environ, "STARRY_HOME": str(folder / "home"), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_exported_name_exists_and_is_documented() -> None:
    assert sorted(starrynight.__all__) == starrynight.__all__
    assert set(starrynight.__all__) <= set(dir(starrynight))
    for name in starrynight.__all__:
        assert getattr(starrynight, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        starrynight.nothing_of_that_name  # noqa: B018


def test_importing_the_package_and_its_names_loads_no_torch(tmp_path: Path) -> None:
    code = "import sys; from starrynight import *; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    assert run(code, tmp_path).strip() == "[]"


def test_the_page_has_four_programs() -> None:
    assert [name for name, _ in PROGRAMS] == [
        "Paint", "Paint a batch with progress", "Measure a model's ranges", "Fold a module of your own",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "program"), PROGRAMS, ids=[name for name, _ in PROGRAMS])
def test_the_programs_of_the_page_run(name: str, program: str, tmp_path: Path) -> None:
    printed = run(program, tmp_path)
    expected = {
        "Paint": "江雪，孤舟",
        "Paint a batch with progress": "saved: sunflowers-4.png",
        "Measure a model's ranges": "bits of headroom",
        "Fold a module of your own": "tensor(True)",
    }
    assert expected[name] in printed

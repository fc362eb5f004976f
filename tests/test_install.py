"""The wheel as pip installs it into an empty folder, and the files that make a container of it."""

from __future__ import annotations

import email
import os
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from starrynight.metadata import read_recipe

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "starrynight"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {
        str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }  # fmt: skip
    assert inside == ours
    for needed in ("weights/firefly/*/*.safetensors", "web/words/zh.json", "web/theme.css", "painting/styles.json",
                   "gallery/migrations/versions/0001*.py", "gallery/migrations/env.py", "models/layouts/*/*"):  # fmt: skip
        assert any(Path(name).match(f"starrynight/{needed}") for name in inside), needed


def test_the_wheel_asks_for_what_pyproject_names(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    asked = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    plain = names(line for line in asked if Requirement(line).marker is None)
    assert plain == names(project["dependencies"])
    assert plain <= names(
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def test_a_picture_is_painted_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """With the packages of this environment, but our code from the installed wheel alone."""
    place, empty = tmp_path / "place", tmp_path / "empty"
    empty.mkdir()
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(place), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(place),
        "STARRY_HOME": str(tmp_path / "home"),
        "STARRY_LANG": "en",
    }
    words = ["paint", "星夜", "--size", "128", "--steps", "2", "--seed", "3"]
    code = "import starrynight, sys; sys.argv[0] = 'starry'; print(starrynight.__file__); from starrynight.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=empty, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]).is_relative_to(place)
    (painted,) = (tmp_path / "home" / "gallery").rglob("*.png")
    assert read_recipe(painted.read_bytes()).seed == 3
    assert list(empty.iterdir()) == []
    assert (place / "bin" / "starry").exists()


def test_a_linter_finds_nothing_in_the_dockerfile() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    bad = subprocess.run(
        [linter, "-"], input="FROM python\nRUN cd /x && sudo pip install y\n", capture_output=True, text=True
    )
    assert bad.returncode == 1  # it does find something


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")
    ]
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source in allowed, source


def test_the_image_runs_as_nobody_important_with_a_healthcheck_and_our_command() -> None:
    last = [index for index, (name, _) in enumerate(instructions()) if name == "FROM"][-1]
    stage: dict[str, str] = dict(instructions()[last:])
    assert stage["USER"] == "10001"
    assert "/healthz" in stage["HEALTHCHECK"]
    assert {"/data/gallery", "/data/models"} == set(yaml.safe_load(stage["VOLUME"]))
    words = yaml.safe_load(stage["CMD"])
    assert words[:2] == ["starry", "serve"]
    assert sum(name == "FROM" for name, _ in instructions()) == 3


def test_compose_uses_what_is_there() -> None:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    declared = {rest.split("=")[0] for name, rest in instructions() if name == "ARG"}
    for name, service in compose["services"].items():
        assert service["ports"] == ["127.0.0.1:8470:8470"], name  # nothing is open to a network by default
        assert {volume.split(":")[0] for volume in service["volumes"]} == set(compose["volumes"])
        assert set(service["build"]["args"]) <= declared
        assert service["read_only"] is True
    assert {service["image"] for service in compose["services"].values()} == {
        "starry-night:cpu",
        "starry-night:cuda",
    }


def test_the_script_that_installs_is_a_shell_script_and_fails_where_a_step_does(tmp_path: Path) -> None:
    script = ROOT / "docker" / "install.sh"
    subprocess.run(["sh", "-n", script], check=True)
    (tmp_path / "constraints.txt").write_text("numpy==2\n")  # no torch: the first step that can fail
    words = [str(script), "no.whl", str(tmp_path / "venv"), str(tmp_path / "constraints.txt")]
    done = subprocess.run(["sh", *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0, shlex.join(words)
    assert not (tmp_path / "venv").exists()

"""What the documents name is there: links, files, make targets, commands and their options."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer

from starrynight import cli

for name in cli.COMMANDS:
    importlib.import_module(f"starrynight.cli.{name}")

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
ROOMS = "starrynight|tests|docs|benchmarks|recipes"


def anchors(page: Path) -> set[str]:
    """Of its headings, as a forge makes them: lower case, no marks, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}; there are {sorted(anchors(target))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    for name in re.findall(rf"`((?:{ROOMS})/[\w./*-]+)", page.read_text("utf-8")):
        assert list(ROOT.glob(name.rstrip("/."))), f"{page.name} names {name}"


def commands(page: Path) -> Iterator[str]:
    """Every ``starry …`` in code, without what a shell would take for itself."""
    text = page.read_text("utf-8")
    for block in re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL):
        yield from re.findall(r"^(starry [^\n#|)]*)", block, re.MULTILINE)
    yield from re.findall(r"`(starry [^`\n]*)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist_with_their_options(page: Path) -> None:
    for line in commands(page):
        words = line.split()[1:]
        if not words or words[0].startswith(("-", "…", "VERB", "<")):
            continue
        command = typer.main.get_command(cli.app)
        while words and hasattr(command, "commands") and not words[0].startswith(("-", "…", "·")):
            assert words[0] in command.commands, f"{page.name}: {line}"
            command = command.commands[words.pop(0)]
        known = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        for option in re.findall(r"(?<=\s)--[\w-]+", " " + " ".join(words)):
            assert option in known | {"--help"}, f"{page.name}: {line}; {option} is none of {sorted(known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_of_make_that_are_named_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z]+)\b", page.read_text("utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"

"""Every version that the project is tested with is pinned to the bytes of its file."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def pins(lines: list[str]) -> dict[str, str]:
    """Canonical name to version of every ``name==version``."""
    found = {}
    for line in lines:
        requirement = Requirement(line.split("--hash")[0].strip())
        (one,) = requirement.specifier
        assert one.operator == "==", line
        found[canonicalize_name(requirement.name)] = one.version
    return found


def lines_of(name: str) -> list[str]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_pinned_version_has_a_hash() -> None:
    """All but torch, whose CPU build differs from machine to machine (.ci/hashes.py)."""
    hashed, pinned = lines_of("hashes.txt"), pins(lines_of("constraints.txt"))
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in hashed)
    assert pinned.pop("torch")
    assert pins(hashed) == pinned
    assert len(hashed) == len(pinned)

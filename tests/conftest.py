"""What several test files share and nobody should make twice."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Firefly's wide twin: the same pictures in float32 and bfloat16, broken numbers in plain float16."""
    from starrynight.firefly import twin

    return twin.make(tmp_path_factory.mktemp("twin") / "firefly-wide")

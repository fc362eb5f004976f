"""What several test files share and nobody should make twice."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch starts its threads; what tests start inherits it
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure in a browser tells what its pages and servers said, in the summary too: a locator that found nothing does not."""
    report = yield
    if report.failed and "browser" in getattr(item, "fixturenames", ()):
        import browser

        said = browser.seen()
        report.sections.append(("pages and servers", said))
        if crash := getattr(report.longrepr, "reprcrash", None):
            crash.message += f"\n{said}"
    return report


@pytest.fixture(autouse=True)
def own_main() -> Iterator[None]:
    """Streamlit's AppTest leaves its script as ``__main__``, which every process that is spawned afterwards would run."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Firefly's wide twin: the same pictures in float32 and bfloat16, broken numbers in plain float16."""
    from starrynight.firefly import twin

    return twin.make(tmp_path_factory.mktemp("twin") / "firefly-wide")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium. For one module: while it runs, no other test of this process can start an event loop."""
    from browser import chromium

    with chromium() as started:
        yield started

"""A real server and Debian's Chromium, for tests that act as a visitor does."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import TimeoutError as PlaywrightTimeout

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT = 240_000  # ms; the machine may be busy with other work
OPEN = "from starrynight.cli import main; main()"
PHONE = {"width": 390, "height": 844, "has_touch": True, "is_mobile": True}
LOGS: list[Path] = []  # of the servers, and
VISITORS: list[Visitor] = []  # who have not left, while a browser runs
AUDIT = (Path(__file__).parent / "audit.js").read_text("utf-8")


@contextlib.contextmanager
def served(home: Path, program: str = OPEN) -> Iterator[str]:
    """Run ``starry open`` with ``home`` as STARRY_HOME, as the Python ``program``; yields its address."""
    command = [sys.executable, "-c", program, "open", "--port", "0", "--no-browser"]
    environment = os.environ | {"STARRY_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    with (
        (home / "server.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True) as process,
    ):
        try:
            line = process.stdout.readline()  # type: ignore[union-attr]
            found = re.search(r"http://\S+", line)
            assert found, (home / "server.log").read_text()
            LOGS.append(home / "server.log")
            yield found[0].rstrip("/")
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """With further ``flags``."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        yield browser
        VISITORS.clear()
        LOGS.clear()
        browser.close()


class Visitor:
    """A browser page that records console errors, dialogs and requests to other servers."""

    def __init__(
        self, browser: Browser, address: str, width: int = 1280, height: int = 900, **context: Any
    ) -> None:
        options = {"locale": "zh-CN", "viewport": {"width": width, "height": height}} | context
        self.address = address
        self.page: Page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.problems: list[str] = []
        VISITORS.append(self)
        own = (address + "/", address.replace("http", "ws") + "/", "data:", "blob:")
        self.page.on("console", lambda entry: entry.type == "error" and self.problems.append(entry.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda sent: sent.url.startswith(own) or self.problems.append(sent.url))
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))

    def go(self, query: str = "") -> Page:
        self.page.goto(f"{self.address}/{query}")
        self.page.locator("nav a").first.wait_for()
        return self.page

    def leave(self) -> None:
        VISITORS.remove(self)
        self.page.context.close()
        assert self.problems == [], self.problems


def seen() -> str:
    """What the pages and the servers said at last, for the report of a test that failed."""
    pages = [
        f"page {visitor.page.url}: {_text(visitor.page)} {[*dict.fromkeys(visitor.problems)]}"
        for visitor in VISITORS
    ]
    return "\n".join([*pages, *(f"server: {log.read_text('utf-8')[-3000:]}" for log in LOGS)])


def _text(page: Page) -> str:
    try:
        return page.locator("body").inner_text(timeout=5000)[:500]
    except PlaywrightError as error:
        return str(error)


def audited(page: Page, smallest: int) -> None:
    """Nothing on the page is smaller than ``smallest`` or faint, and nothing is wider than the page, once it is laid out."""
    with contextlib.suppress(PlaywrightTimeout):  # then what is found is asserted
        page.wait_for_function(f"() => ({AUDIT})({smallest}).length === 0", timeout=60_000)
    assert page.evaluate(f"({AUDIT})({smallest})") == []
    page.wait_for_function(
        "() => (document.querySelector('[data-testid=stMain]') ?? document.documentElement).scrollWidth <= innerWidth"
    )

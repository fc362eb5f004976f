"""Where things stand on the pages: nothing outside the width, nothing over anything else, the easel in view. Boxes are compared,
not letters, because every machine has other fonts; and one picture of the studio, with a font made here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PHONE, Visitor, served
from many import fill
from playwright.sync_api import Browser, Page, expect

from starrynight.gallery.store import Gallery

expect.set_options(timeout=240_000)
LAYOUT = (Path(__file__).parent / "layout.js").read_text("utf-8")
TABLET = {"width": 1024, "height": 768}
DESK = {"width": 1440, "height": 900}
READY = {  # what is there when a page is whole
    "studio": ".easel .frame", "gallery": ".wall .picture img.on", "grid": ".st-key-grid-plan .plan", "lab": ".st-key-lab-start",
    "device": ".section li",
}  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    os.environ["STARRY_HOME"] = str(home)
    with Gallery() as gallery:
        fill(gallery, 30)
    with served(home) as served_at:
        yield served_at
    del os.environ["STARRY_HOME"]


def laid_out(page: Page) -> None:
    """Waits until nothing is laid out wrongly; asserts what is."""
    try:
        page.wait_for_function(f"() => ({LAYOUT})().length === 0", timeout=20_000)
    finally:
        assert page.evaluate(LAYOUT) == []


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("screen", [PHONE, TABLET, DESK], ids=["phone", "tablet", "desk"])
def test_nothing_stands_outside_or_over_anything_else(
    browser: Browser, address: str, screen: dict, lang: str
) -> None:
    visitor = Visitor(browser, address, reduced_motion="reduce", **screen)
    for room, ready in READY.items():
        page = visitor.go(f"?room={room}&lang={lang}")
        page.locator(ready).first.wait_for()
        if room in ("studio", "grid"):
            page.locator(".st-key-more summary").click()
            page.locator(".st-key-lines textarea").wait_for()
        laid_out(page)
        if room == "gallery":
            page.locator(".wall .picture a").first.click()
            page.locator("dialog dl").wait_for()
            laid_out(page)
    visitor.leave()


def test_what_stands_outside_or_over_something_is_found(browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 400})
    box = "position: relative; display: block; width: 100px; height: 30px; margin: 0 0 20px"
    page.set_content(
        f'<button style="{box}">one</button><button style="{box}">two</button><p style="{box}; margin-left: 380px">three</p>'
    )
    assert [one.split(" ")[0] for one in page.evaluate(LAYOUT)] == ["outside"]
    page.locator("button").first.evaluate("one => { one.style.marginBottom = '-10px'; }")
    assert sorted(one.split(" ")[0] for one in page.evaluate(LAYOUT)) == ["covered", "outside"]
    page.locator("button").first.evaluate("one => { one.style.marginBottom = '-25px'; }")
    assert sorted(one.split(" ")[0] for one in page.evaluate(LAYOUT)) == [
        "covered",
        "covered",
        "outside",
    ]  # its text too
    page.close()

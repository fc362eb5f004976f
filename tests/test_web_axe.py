"""axe-core finds nothing on any page and in any dialog, in both languages, at a desk and on a phone, at rest and while painting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import PHONE, Visitor, served
from playwright.sync_api import Browser, Page
from served import ask, until

from starrynight.gallery.store import Gallery
from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import PaintRequest

READY = {  # what is there when a page is whole
    "studio": ".st-key-paint button", "gallery": ".wall .picture", "lab": ".claims article", "device": ".section .bar",
    "grid": ".st-key-page-grid textarea, .st-key-page-grid input",
}  # fmt: skip
# Of Streamlit itself, which no page of ours writes: no main landmark, no heading of the first level, and the role of its upload box.
FRAME = ("landmark-one-main", "page-has-heading-one", "region", "presentation-role-conflict")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STARRY_HOME", str(home))
        with Gallery() as gallery:
            for seed in (1, 2):
                pixels = np.random.default_rng(seed).integers(0, 255, (96, 96, 3), np.uint8)
                request = PaintRequest(prompt="江雪，孤舟", style="ink", seed=seed)
                gallery.add(Picture(pixels, make_recipe(request, verdict=Verdict("hang"))))
        with served(home) as found:
            yield found


def findings(page: Page) -> list[str]:
    """Each rule that is broken, with the elements that break it."""
    options: dict[str, Any] = {"rules": {name: {"enabled": False} for name in FRAME}}
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['html'][:160]} {node['failureSummary'][:200]}"
        for one in found
        for node in one["nodes"]
    ]


SCREENS = [("zh-CN", 1280), ("en-GB", 390)]


@pytest.mark.parametrize(("locale", "width"), SCREENS)
def test_axe_finds_nothing_on_any_page(browser: Browser, address: str, locale: str, width: int) -> None:
    visitor = Visitor(browser, address, width=width, locale=locale)
    wrong: dict[str, list[str]] = {}
    for room, ready in READY.items():
        page = visitor.go(f"?room={room}")
        page.locator(ready).first.wait_for()
        if room == "studio":
            page.locator(".st-key-more summary").click()
            page.locator(".st-key-lines textarea").wait_for()
        if found := findings(page):
            wrong[room] = found
    assert wrong == {}
    visitor.leave()


@pytest.mark.parametrize("screen", [{"locale": "en-GB"}, {"locale": "zh-CN", **PHONE}], ids=["desk", "phone"])
def test_axe_finds_nothing_in_any_dialog(browser: Browser, address: str, screen: dict[str, Any]) -> None:
    """The viewer, the brush, a selection, two pictures compared, an exhibition, the keys."""
    visitor = Visitor(browser, address, **screen)
    page = visitor.go("?room=gallery")
    page.locator(READY["gallery"]).first.wait_for()
    wrong: dict[str, list[str]] = {}

    def look(name: str, shown: str) -> None:
        page.locator(shown).first.wait_for()
        if found := findings(page):
            wrong[name] = found

    page.locator(".wall .picture a").first.click()
    look("viewer", "dialog dl")
    page.locator("dialog [data-act=inpaint]").click()
    look("brush", ".brush canvas")
    visitor.go("?room=gallery").locator(READY["gallery"]).first.wait_for()
    page.locator("[data-act=select]").click()
    for at in (0, 1):
        page.locator(".wall .picture a").nth(at).click()
    look("selection", ".selection-bar [data-act=compare]")
    page.locator(".selection-bar [data-act=compare]").click()
    look("compare", "dialog .pair")
    page.keyboard.press("Escape")
    page.locator(".selection-bar [data-act=exhibit]").click()
    look("exhibition", "dialog.show[open]")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    look("keys", "dialog.keys[open]")
    assert wrong == {}
    visitor.leave()


@pytest.mark.parametrize(("locale", "width"), [*SCREENS, ("zh-CN", 390), ("en-GB", 1280)])
def test_axe_finds_nothing_while_a_picture_is_painted(
    browser: Browser, address: str, locale: str, width: int
) -> None:
    """In the studio, with several pictures of which one has a preview, another waiting job, and on the wall beside it."""
    visitor = Visitor(browser, address, width=width, locale=locale)
    jobs = [submit(address, "a lighthouse at dusk", count=8, steps=150), submit(address, "a boat", steps=150)]
    try:
        page = visitor.go(f"?job={jobs[0]}")
        page.locator(".canvas img.preview.on").first.wait_for()
        page.locator(".queue li").first.wait_for()
        assert findings(page) == []
        assert page.locator(".progress:not(.over)").count() == 1  # it was still painting
        wrong: dict[str, list[str]] = {}
        for room in READY.keys() - {"studio"}:
            visitor.go(f"?room={room}").locator(READY[room]).first.wait_for()
            if found := findings(page):
                wrong[room] = found
        assert wrong == {}
    finally:
        for job in jobs:
            ask(address, f"/api/jobs/{job}/cancel", method="POST")
    until(lambda: all(ask(address, f"/api/jobs/{job}").json["ended_at"] for job in jobs))
    visitor.leave()


def submit(address: str, prompt: str, **fields: Any) -> str:
    answer = ask(address, "/api/jobs", {"prompt": prompt, "width": 256, "height": 256, "seed": 5, **fields})
    assert answer.status == 201, answer.body
    return str(answer.json["id"])

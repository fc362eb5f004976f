"""The senses on the wall: what was seen under the lamp, what is asked for and missing, other seeds, filters, "looks like", and a ranker
that fails. One gallery, one visit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browser import Visitor, served
from playwright.sync_api import Browser, expect
from served import Elsewhere, ask

from starrynight.firefly.drawing.landscape import render
from starrynight.firefly.drawing.scene import compose
from starrynight.gallery.store import Gallery
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest
from starrynight.senses import look
from starrynight.senses.choice import BUILT_IN, Choice
from starrynight.senses.eyes import Eyes

expect.set_options(timeout=60_000)
KINDS = {"a full moon": "sunflowers", "two": "city", "three": "desert"}  # prompt → what is drawn


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three pictures that were seen; a ranker that answers 500."""
    home = tmp_path_factory.mktemp("home")
    ranker = Elsewhere(lambda *_: (500, b"{}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STARRY_HOME", str(home))
        patch.setenv("STARRY_RANKER", f"{ranker.url}#r")
        patch.setenv("STARRY_TEST_HOST", ranker.url[7:-3])
        with Gallery() as gallery:
            eyes = Eyes(Choice("eyes", BUILT_IN))
            for seed, (prompt, kind) in enumerate(KINDS.items()):
                pixels = np.asarray(render(compose(11 + seed, kind=kind, style="oil", hour="noon"), 160))
                request = PaintRequest(prompt=prompt, seed=seed, width=128, height=128, steps=1)
                tried = {"until_seen": {"tries": 3, "of": 4, "missing": ["moon"], "unsure": ["boat", "<b>"]}}
                row = gallery.add(Picture(pixels, make_recipe(request) | tried))
                look.look(gallery, eyes, row, pixels)
        with served(home) as found:
            yield found
    ranker.close()


def test_what_was_seen_is_shown_searched_filtered_and_sought_again(browser: Browser, address: str) -> None:
    import os

    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go("?room=gallery")
    page.locator(".wall[data-ready]").wait_for()
    rows: list[dict[str, Any]] = ask(address, "/api/pictures").json["pictures"]
    shown = next(row for row in rows if row["prompt"] == "a full moon")
    assert "unflower" in shown["seen"]["caption"]["en"]

    page.locator("input[type=search]").fill("sunflowers")  # words that no prompt has
    alike = page.locator(".alike")
    expect(alike.locator("img")).to_have_count(1)
    expect(alike.locator(".why")).to_contain_text(os.environ["STARRY_TEST_HOST"])
    expect(alike.locator(".why")).to_contain_text("The perceiver ranks instead.")
    alike.locator("img").click()
    expect(page.locator(".details .seen")).to_contain_text("unflower")
    details = page.locator(".details")
    expect(details).to_contain_text("3 of up to 4 seeds tried")
    expect(details).to_contain_text("Asked for, and not surely there: a boat")
    lacks = page.locator(".details .lacks")
    expect(lacks).to_contain_text("Asked for but not seen:")
    assert "moon" in lacks.inner_text()
    lacks.get_by_role("button", name="Try other seeds").click()
    page.locator(".st-key-prompt textarea").wait_for()
    (job,) = ask(address, "/api/jobs?state=all").json["jobs"]
    assert (job["request"]["until_seen"], job["request"]["prompt"]) == (4, "a full moon")
    ask(address, f"/api/jobs/{job['id']}/cancel", {})

    page = visitor.go("?room=gallery&shows=kind.sunflowers")
    page.locator(".wall[data-ready]").wait_for()
    expect(page.locator(".count")).to_contain_text("1")
    visitor.leave()

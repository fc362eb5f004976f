"""The studio as a visitor uses it, on a desk and on a phone, in Chromium against a real server that paints with Firefly."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from browser import PHONE, Visitor, audited, served
from playwright.sync_api import Page, expect

from starrynight.gallery.store import Gallery
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest
from starrynight.verdict import FallbackAttempt, Fault, Verdict

TIMEOUT = 240_000  # ms
expect.set_options(timeout=TIMEOUT)
RECOVERED = Verdict(
    "hang", attempts=(FallbackAttempt("float32", Fault("denoiser", "NaN", 3, 64, 2), recovered=True),)
)
VERDICTS = {  # prompt → the verdict of our own pictures, or None for another tool's, and the mark
    "sound": (Verdict("hang"), ""),
    "recovered": (RECOVERED, "↻ numbers recovered"),
    "partly seen": (Verdict("unchecked", ("not looked at: vae",)), "◌ numbers not checked in full"),
    "one colour": (Verdict("uniform"), "■ one colour throughout"),
    "imported": (None, ""),
}


def hang(gallery: Gallery, prompt: str, seed: int, verdict: Verdict | None, folder: Path) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    if verdict is not None:
        gallery.add(Picture(pixels, make_recipe(PaintRequest(prompt=prompt, seed=seed), verdict=verdict)))
        return
    from PIL import Image, PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_text(
        "parameters", f"{prompt}\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: {seed}, Size: 96x96"
    )
    folder.mkdir()
    Image.fromarray(pixels).save(folder / "a1111.png", pnginfo=text)
    assert gallery.import_pictures(folder).added == 1


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    os.environ["STARRY_HOME"] = str(home)
    with Gallery() as gallery:
        for seed, (prompt, (verdict, _)) in enumerate(VERDICTS.items()):
            hang(gallery, prompt, seed, verdict, tmp_path_factory.mktemp("others") / "pictures")
    yield home
    del os.environ["STARRY_HOME"]


@pytest.fixture(scope="module")
def address(home):
    with served(home) as served_at:
        yield served_at


def paint(page: Page, prompt: str, steps: str) -> str:
    """Press Paint; the job's id. ``steps``: the key that moves the slider, Home for one and End for fifty."""
    before = page.url
    page.get_by_label("What to paint").fill(prompt)
    page.get_by_role("slider", name="Size").press("Home")
    page.get_by_role("slider", name="Steps").press(steps)
    page.get_by_role("button", name="Paint").first.click()
    page.wait_for_function(
        "before => location.href !== before && location.search.includes('job=')", arg=before
    )
    return page.url.split("job=")[1].split("&")[0]


def test_on_a_phone_the_prompt_comes_first_and_the_painting_comes_into_view_and_stays(
    browser, address
) -> None:
    visitor = Visitor(browser, address, locale="en-GB", **PHONE)
    page = visitor.go()
    box, button = page.get_by_label("What to paint"), page.get_by_role("button", name="Paint").first
    easel = page.locator(".easel .frame").first
    easel.wait_for()
    tops = [one.bounding_box()["y"] for one in (box, button, easel, page.get_by_role("slider", name="Steps"))]
    assert tops == sorted(tops)
    expect(page.locator(".st-key-paint kbd")).to_be_hidden()
    paint(page, "a lighthouse at dusk", "End")
    page.locator(".canvas img.preview.on").first.wait_for()
    in_view = "() => { const host = [...document.querySelectorAll('*')].find((node) => node.shadowRoot?.querySelector('.easel')); const box = (host?.shadowRoot ?? document).querySelector('.easel .frame').getBoundingClientRect(); return [box.top, box.bottom, innerHeight]; }"
    page.wait_for_function(
        f"() => {{ const [top, bottom, height] = ({in_view})(); return top >= 0 && bottom <= height; }}"
    )
    top = page.evaluate(in_view)[0]
    expect(page).to_have_title(re.compile(r"^\d+ % · Starry Night"))
    audited(page, 44)  # also while it is painting
    page.locator("[data-act=cancel]").click()
    expect(page.locator(".status")).to_have_text("Stopped. What was finished is kept.")
    assert abs(page.evaluate(in_view)[0] - top) < 2
    expect(page).to_have_title("Starry Night · 璀璨星河")
    visitor.leave()


def test_several_pictures_are_counted_while_they_are_painted(browser, address) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go()
    page.get_by_role("slider", name="Pictures").press("ArrowRight")
    expect(page.get_by_role("slider", name="Pictures")).to_have_value("2")
    paint(page, "a lighthouse at dusk", "End")
    expect(page.locator(".status")).to_contain_text(re.compile(r"Picture 1 of 2 · Step \d+ of 50"))
    page.locator("[data-act=cancel]").click()
    expect(page.locator(".status")).to_have_text("Stopped. What was finished is kept.")
    visitor.leave()


def test_an_unpainted_prompt_survives_a_reload_with_its_seed_count_and_style(browser, address) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go()
    page.get_by_role("slider", name="Pictures").press("ArrowRight")
    expect(page.get_by_role("slider", name="Pictures")).to_have_value("2")
    page.get_by_role("radio", name="Monet").click()
    expect(page.get_by_role("radio", name="Monet")).to_have_attribute("aria-checked", "true")
    page.get_by_label("Seed", exact=True).fill("4711")
    page.get_by_label("Seed", exact=True).press("Enter")
    kept = "() => JSON.parse(sessionStorage.getItem('starry/draft') ?? '{}').form ?? {}"
    page.wait_for_function(
        f"() => {{ const form = ({kept})(); return form.seed === '4711' && form.style === 'monet' && form.count === 2; }}"
    )
    box = page.get_by_label("What to paint")
    box.press_sequentially("an unfinished li")  # and the box is not left
    page.wait_for_function(f"() => ({kept})().prompt === 'an unfinished li'")
    page.reload()
    expect(box).to_have_value("an unfinished li")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("4711")
    expect(page.get_by_role("slider", name="Pictures")).to_have_value("2")
    expect(page.get_by_role("radio", name="Monet")).to_have_attribute("aria-checked", "true")
    visitor.leave()


def test_arrow_up_brings_back_what_was_painted_and_arrow_down_what_was_typed(browser, address) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go()
    for prompt in ("a boat in the snow", "a tower by the sea"):
        paint(page, prompt, "Home")
        page.wait_for_function(
            "text => (localStorage.getItem('starry/prompts') ?? '').includes(text)", arg=prompt
        )
    box = page.get_by_label("What to paint")
    box.fill("something new")
    box.press("Home")
    for key, text in (("ArrowUp", "a tower by the sea"), ("ArrowUp", "a boat in the snow"), ("ArrowUp", "a boat in the snow"),
                      ("ArrowDown", "a tower by the sea"), ("ArrowDown", "something new")):  # fmt: skip
        box.press(key)
        expect(box).to_have_value(text)
    page.locator("[data-act=again]").wait_for()
    visitor.leave()


def test_a_mark_stands_only_where_something_is_wrong_with_the_numbers(browser, address) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go("?room=gallery")
    for prompt, (_, mark) in VERDICTS.items():
        card = page.locator(".wall .picture", has=page.get_by_text(prompt, exact=True))
        expect(card.locator(".summary")).to_have_text(mark)
        card.locator("a").click()
        expect(page.locator("dialog h2")).to_have_text(prompt)
        expect(page.locator("dialog .verdict")).to_have_text([mark] if mark else [])
        page.keyboard.press("Escape")
        expect(page.locator("dialog[open]")).to_have_count(0)
    visitor.leave()


def test_the_viewer_enlarges_under_the_pointer_and_shows_one_pixel_for_one(browser, address) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go("?room=gallery")
    page.locator(".wall .picture a").first.click()
    level, image = page.locator(".zoom output"), page.locator(".stage img")
    width = "image => image.getBoundingClientRect().width"
    expect(level).to_have_text(re.compile(r"^[1-9]\d+ %$"))
    fit = image.evaluate(width)
    page.get_by_role("button", name="One pixel of the picture to one of the screen").click()
    expect(level).to_have_text("100 %")
    assert abs(image.evaluate(width) - image.evaluate("image => image.naturalWidth")) < 1
    page.keyboard.press("0")
    expect(level).not_to_have_text("100 %")
    assert abs(image.evaluate(width) - fit) < 1
    box = image.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    before = level.inner_text()
    page.mouse.wheel(0, -400)
    expect(level).not_to_have_text(before)
    larger = image.bounding_box()
    assert larger["width"] > 1.5 * fit
    at = [
        (box[side] + box[long] / 4 - larger[side]) / larger[long]
        for side, long in (("x", "width"), ("y", "height"))
    ]
    assert np.allclose(at, 0.25, atol=0.02)  # what was under the pointer still is
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    page.mouse.up()
    assert image.bounding_box()["x"] > larger["x"] + 20
    visitor.leave()


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("room", ["studio", "gallery", "grid", "lab", "device"])
def test_what_is_pressed_is_large_enough_and_what_is_read_is_clear(browser, address, room, lang) -> None:
    for smallest, more in ((24, {}), (44, PHONE)):
        visitor = Visitor(browser, address, **more)
        page = visitor.go(f"?room={room}&lang={lang}")
        ready = {
            "studio": ".st-key-recent",
            "gallery": ".wall .picture img.on",
            "grid": ".st-key-grid-plan .plan",
            "lab": ".st-key-lab-start",
            "device": ".section li",
        }
        page.locator(ready[room]).first.wait_for()
        audited(page, smallest)
        if room == "gallery":
            page.locator(".wall .picture a").first.click()
            page.locator("dialog h2").wait_for()
            audited(page, smallest)
        visitor.leave()


def test_the_terminal_says_nothing_of_a_visit(home, address) -> None:
    """Last: after all of the visits above, a job's address among them."""
    log = (home / "server.log").read_text("utf-8")
    assert not re.search(r"Traceback|default value|Session State|^\s+File ", log, re.MULTILINE), log
    assert log == ""

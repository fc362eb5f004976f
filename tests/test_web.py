"""What a person does in the browser, done in Chromium against a real server that paints with Firefly.

The tests go through one visit, in order: they share a server, and what one paints the next finds.
"""

from __future__ import annotations

import os
import re
import time

import numpy as np
import pytest
from browser import Visitor, chromium, served
from PIL import Image
from playwright.sync_api import Page, expect

from starrynight.gallery.store import Gallery
from starrynight.lab import table
from starrynight.lab.experiments import EXPERIMENTS, points
from starrynight.lab.plan import quick
from starrynight.lab.run import ExperimentRun
from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import PaintRequest

HOSTILE = "<img src=x onerror=alert(1)> <b>粗</b>\u202ereversed"
LINE = "星夜下的静谧村庄"
SOON = 240_000
expect.set_options(timeout=SOON)


def hang(gallery: Gallery, prompt: str, seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 12, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    recipe = make_recipe(PaintRequest(prompt=prompt, style="ink", seed=seed), verdict=Verdict("hang"))
    return gallery.add(Picture(pixels, recipe)).id


def measure() -> None:
    """A lab run that is half done: one question truly measured, two formats of one picture."""
    run = ExperimentRun.create(table.home() / "small", quick(prompts=1))
    for point in points(run.plan):
        if point.experiment == "facts":
            run.add(point, EXPERIMENTS["facts"].measure(None, point), 0.1, 0.1, time.time())
        elif (
            point.experiment == "refusals"
            and point.model == "firefly"
            and point.format in ("float32", "bfloat16")
        ):
            picture = run.picture(point.model, point.format, point.prompt, point.seed)
            picture.parent.mkdir(exist_ok=True)
            Image.new("RGB", (64, 64), (20, 30, 90)).save(picture)
            run.add(
                point, {"refused": False, "stage": None, "step": None, "why": None}, 0.1, 0.1, time.time()
            )


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    os.environ["STARRY_HOME"] = str(home)
    with Gallery() as gallery:
        hang(gallery, HOSTILE, 1)
        hang(gallery, "江雪，孤舟", 2)
    measure()
    with served(home) as address:
        yield address
    del os.environ["STARRY_HOME"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def visit(browser, house):
    """The one visit; its seen pictures by name."""
    visitor = Visitor(browser, house)
    yield visitor
    visitor.leave()


def paint(page: Page, line: str, steps: str) -> None:
    page.get_by_label("想画什么").fill(line)
    page.get_by_role("slider", name="步数").press(steps)
    page.get_by_role("button", name="作画").click()
    page.wait_for_url(re.compile("job="))


def test_paints_and_emerges_and_survives_a_reload(visit):
    page = visit.go()
    expect(page.locator(".empty b")).to_have_text("画布空着")
    page.get_by_role("radio", name="油画").click()
    expect(page.get_by_role("radio", name="油画")).to_have_attribute("aria-checked", "true")
    paint(page, LINE, "End")  # fifty steps, to have time for what follows
    emerging = page.locator(".canvas img.coming.on").first
    emerging.wait_for()
    assert emerging.get_attribute("src").startswith("data:image/webp")
    page.reload()
    expect(page.locator(".state")).to_contain_text("步")
    page.locator("[data-act=again]").wait_for()
    finished = page.locator(".canvas img[src*='/file']")
    assert finished.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
    expect(page.locator("figcaption").first).to_contain_text("无误")
    assert LINE in finished.get_attribute("alt")


def test_stops_within_a_step(visit):
    page = visit.page
    paint(page, "雨夜的霓虹都市", "End")
    expect(page.locator(".state")).to_contain_text("步，共 50 步")
    page.locator("[data-act=cancel]").click()
    expect(page.locator(".state")).to_have_text("已停笔。画完的都还在。")
    assert page.locator(".canvas img[src*='/file']").count() == 0


def test_finds_by_two_characters_and_opens_by_link(visit, browser, house):
    page = visit.page
    page.locator("nav a[data-room=gallery]").click()
    expect(page.locator(".hung")).to_have_count(3)
    page.get_by_role("searchbox").fill("村庄")
    expect(page.locator(".hung")).to_have_count(1)
    expect(page.locator(".hung .line")).to_have_text(LINE)
    expect(page.locator(".hung .small")).to_have_text(re.compile("油画 · b?float.*无误"))
    link = page.locator(".hung a").get_attribute("href")
    other = Visitor(browser, house)
    other.go(link.lstrip("/"))
    expect(other.page.locator("dialog h2")).to_have_text(LINE)
    expect(other.page.locator("dialog dl")).to_contain_text("firefly")
    with other.page.expect_download() as download:
        other.page.locator("[data-format=webp]").click()
    assert download.value.path().read_bytes()[8:12] == b"WEBP"
    other.page.keyboard.press("Escape")
    expect(other.page.locator("dialog[open]")).to_have_count(0)
    expect(other.page).not_to_have_url(re.compile("picture="))
    other.leave()


def test_strangers_words_are_words(visit):
    page = visit.go("?room=gallery")
    page.get_by_role("searchbox").fill("reversed")
    expect(page.locator(".hung")).to_have_count(1)
    expect(page.locator(".hung .line")).to_have_text(HOSTILE.replace("\u202e", "\ufffd"))
    page.locator(".hung a").click()
    expect(page.locator("dialog h2")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("img[src=x], dialog h2 b").count() == 0
    page.keyboard.press("Escape")
    page.get_by_role("searchbox").fill("没有这样的画")
    expect(page.locator(".nothing")).to_contain_text("没有找到")
    page.locator("[data-act=clear]").click()
    expect(page.locator(".hung")).to_have_count(3)


def test_compares_two(visit):
    page = visit.go("?room=gallery")
    page.locator("[data-act=choose]").click()
    for at in (0, 1):
        page.locator(".hung a").nth(at).click()
    page.locator(".tray [data-act=compare]").click()
    knife = page.get_by_role("slider", name="分界")
    knife.press("Home")
    cut = page.locator(".pair").evaluate("pair => getComputedStyle(pair.children[1]).clipPath")
    assert cut in ("inset(0px)", "inset(0px 0px 0px 0%)"), cut
    page.locator("[data-way=difference].pill").click()
    blend = page.locator(".pair").evaluate("pair => getComputedStyle(pair.children[1]).mixBlendMode")
    assert blend == "difference"
    page.keyboard.press("Escape")
    page.locator(".tray [data-act=collect]").click()
    page.locator(".tray input").fill("<i>冬</i>")
    page.locator("[data-act=put]").click()
    expect(page.locator(".toast")).to_contain_text("2 幅放进了“<i>冬</i>”")
    expect(page.locator("select[data-filter=collection] option")).to_have_text(["画集", "<i>冬</i> · 2"])


def test_throws_away_and_brings_back(visit):
    page = visit.page
    page.locator(".hung a").first.click()
    page.locator("dialog [data-act=throw]").click()
    expect(page.locator(".hung")).to_have_count(2)
    page.locator("[data-act=undo]").click()
    expect(page.locator(".hung")).to_have_count(3)
    expect(page.locator(".hung .line").first).to_have_text(LINE)
    page.locator("[data-act=starred]").click()
    expect(page.locator(".nothing")).to_be_visible()
    page.locator("[data-act=clear]").click()


def test_sends_a_picture_back_to_the_studio(visit):
    page = visit.page
    page.locator(".hung a").first.click()
    page.locator("dialog [data-act=send]").click()
    expect(page.get_by_label("想画什么")).to_have_value(LINE)
    expect(page.get_by_role("radio", name="油画")).to_have_attribute("aria-checked", "true")
    expect(page.get_by_role("slider", name="步数")).to_have_value("50")


def test_shows_a_lab_run(visit):
    page = visit.go("?room=lab")
    expect(page.locator(".claims article")).to_have_count(1)
    expect(page.locator(".claims mark")).to_have_text(re.compile("复现"))
    expect(page.locator(".claims li").first).to_contain_text("float16 1/5/10")
    expect(page.locator(".versus .pair .tag")).to_have_text(["float32", "bfloat16"])
    assert (
        page.locator(".versus .pair img").first.evaluate(
            "image => image.decode().then(() => image.naturalWidth)"
        )
        == 64
    )
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuemax", "100")


def test_speaks_english(visit, browser, house):
    page = visit.go("?lang=zh")
    page.locator(".tongue").click()
    expect(page.locator("nav")).to_contain_text("Gallery")
    expect(page.get_by_role("button", name="Ten styles")).to_be_visible()
    assert "lang=en" in page.url
    assert page.locator("html").get_attribute("lang") == "en"
    stranger = Visitor(browser, house, locale="en-GB")
    stranger.go("?room=device")
    expect(stranger.page.locator("nav")).to_contain_text("Device")
    stranger.leave()


@pytest.mark.parametrize("room", ["studio", "gallery", "lab", "device"])
def test_fits_a_telephone_and_names_every_picture(browser, house, room):
    visitor = Visitor(browser, house, width=390, height=844)
    page = visitor.go(f"?room={room}")
    page.wait_for_timeout(1500)
    wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
    assert wide <= 390
    unnamed = page.locator(".hung img:not([alt]), .hung img[alt='']").count()
    assert unnamed == 0
    visitor.leave()


def test_the_golden_slider_leans_on_a_dom_that_is_still_there(browser, house):
    visitor = Visitor(browser, house)
    page = visitor.go()
    where = "[data-testid=stSlider] [role=group] > div > div:first-child"
    track = page.locator(where).first
    golden = "where => getComputedStyle(document.querySelector(where), '::after').backgroundImage.includes('gradient')"
    expect(track).to_be_attached()
    page.wait_for_function(golden, arg=where)  # the theme may come a moment after the slider
    assert track.bounding_box()["height"] < 10
    assert page.locator("[data-testid=stHeader]").is_hidden()
    visitor.leave()

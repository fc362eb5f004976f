"""The browser pages in Chromium, against a real server that paints with Firefly.

The tests run in order and share one server and one visit: later tests use the pictures that earlier ones
painted.
"""

from __future__ import annotations

import os
import re
import time

import numpy as np
import pytest
from browser import Visitor, served
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
PROMPT = "星夜下的静谧村庄"
TIMEOUT = 240_000  # ms
expect.set_options(timeout=TIMEOUT)


def hang(gallery: Gallery, prompt: str, seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 12, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    recipe = make_recipe(PaintRequest(prompt=prompt, style="ink", seed=seed), verdict=Verdict("hang"))
    return gallery.add(Picture(pixels, recipe)).id


def measure() -> None:
    """An unfinished lab run: one claim measured, and one picture in two formats."""
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
def address(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    os.environ["STARRY_HOME"] = str(home)
    with Gallery() as gallery:
        hang(gallery, HOSTILE, 1)
        hang(gallery, "江雪，孤舟", 2)
    measure()
    with served(home) as served_at:
        yield served_at
    del os.environ["STARRY_HOME"]


@pytest.fixture(scope="module")
def visit(browser, address):
    """The visit that the tests share."""
    visitor = Visitor(browser, address)
    yield visitor
    visitor.leave()


def move(page: Page, name: str, key: str) -> None:
    """Move a slider to its "Home" or "End". A form that is drawn anew meanwhile loses the key, so it is pressed until it counts."""
    slider = page.get_by_role("slider", name=name)
    end = slider.get_attribute("aria-valuemin" if key == "Home" else "aria-valuemax")
    for _ in range(20):
        slider.press(key)
        page.wait_for_timeout(300)
        if slider.get_attribute("aria-valuenow") == end:
            return
    raise AssertionError(f"{name} stays at {slider.get_attribute('aria-valuenow')}")


def paint(page: Page, prompt: str, key: str) -> None:
    page.get_by_label("想画什么").fill(prompt)
    move(page, "画幅", "Home")  # the smallest: the tests need no larger one
    move(page, "步数", key)
    page.get_by_role("button", name="作画").click()
    page.wait_for_url(re.compile("job="))


def test_painting_shows_previews_and_survives_a_reload(visit):
    page = visit.go()
    expect(page.locator(".empty b")).to_have_text("画布空着")
    page.get_by_role("radio", name="油画").click()
    expect(page.get_by_role("radio", name="油画")).to_have_attribute("aria-checked", "true")
    paint(page, PROMPT, "End")  # fifty steps leave time for the checks below
    preview = page.locator(".canvas img.preview.on").first
    preview.wait_for()
    assert preview.get_attribute("src").startswith("data:image/webp")
    page.reload()
    expect(page.locator(".status")).to_contain_text("步")
    page.locator("[data-act=again]").wait_for()
    finished = page.locator(".canvas img[src*='/file']")
    chosen = page.get_by_text(re.compile(r"^\d+ × \d+$")).inner_text().split(" ")[0]
    assert finished.evaluate("image => image.decode().then(() => image.naturalWidth)") == int(chosen)
    expect(page.locator("figcaption").first).to_have_text(re.compile(f"{PROMPT}油画 · 种子 \\d+$"))
    assert PROMPT in finished.get_attribute("alt")


def test_stop_cancels_the_job_and_saves_nothing(visit):
    page = visit.page
    paint(page, "雨夜的霓虹都市", "End")
    expect(page.locator(".status")).to_contain_text("步，共 50 步")
    page.locator("[data-act=cancel]").click()
    expect(page.locator(".status")).to_have_text("已停笔。画完的都还在。")
    assert page.locator(".canvas img[src*='/file']").count() == 0


def test_search_finds_two_characters_and_a_link_opens_the_picture(visit, browser, address):
    page = visit.page
    page.locator("nav a[data-page=gallery]").click()
    expect(page.locator(".wall .picture")).to_have_count(3)
    page.get_by_role("searchbox").fill("村庄")
    expect(page.locator(".wall .picture")).to_have_count(1)
    expect(page.locator(".wall .picture .prompt")).to_have_text(PROMPT)
    expect(page.locator(".wall .picture .summary")).to_have_text("油画")  # no mark where all is well
    link = page.locator(".wall .picture a").get_attribute("href")
    other = Visitor(browser, address)
    other.go(link.lstrip("/"))
    expect(other.page.locator("dialog h2")).to_have_text(PROMPT)
    expect(other.page.locator("dialog dl")).to_contain_text("firefly")
    with other.page.expect_download() as download:
        other.page.locator("[data-format=webp]").click()
    assert download.value.path().read_bytes()[8:12] == b"WEBP"
    with other.page.expect_download() as download:
        other.page.locator("[data-upscale='2']").click()
    assert download.value.suggested_filename.endswith("-x2.png")
    other.page.keyboard.press("Escape")
    expect(other.page.locator("dialog[open]")).to_have_count(0)
    expect(other.page).not_to_have_url(re.compile("picture="))
    other.leave()


def test_hostile_texts_are_shown_as_text(visit):
    page = visit.go("?room=gallery")
    page.get_by_role("searchbox").fill("reversed")
    expect(page.locator(".wall .picture")).to_have_count(1)
    expect(page.locator(".wall .picture .prompt")).to_have_text(HOSTILE.replace("\u202e", "\ufffd"))
    page.locator(".wall .picture a").click()
    expect(page.locator("dialog h2")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("img[src=x], dialog h2 b").count() == 0
    page.keyboard.press("Escape")
    page.get_by_role("searchbox").fill("没有这样的画")
    expect(page.locator(".no-results")).to_contain_text("没有找到")
    page.locator("[data-act=clear]").click()
    expect(page.locator(".wall .picture")).to_have_count(3)


def test_two_pictures_are_compared_and_collected(visit):
    page = visit.go("?room=gallery")
    page.locator("[data-act=select]").click()
    for at in (0, 1):
        page.locator(".wall .picture a").nth(at).click()
    page.locator(".selection-bar [data-act=compare]").click()
    divider = page.get_by_role("slider", name="分界")
    divider.press("Home")
    cut = page.locator(".pair").evaluate("pair => getComputedStyle(pair.children[1]).clipPath")
    assert cut in ("inset(0px)", "inset(0px 0px 0px 0%)"), cut
    page.locator("[data-mode=difference].pill").click()
    blend = page.locator(".pair").evaluate("pair => getComputedStyle(pair.children[1]).mixBlendMode")
    assert blend == "difference"
    page.keyboard.press("Escape")
    page.locator(".selection-bar [data-act=collect]").click()
    page.locator(".selection-bar input").fill("<i>冬</i>")
    page.locator("[data-act=save]").click()
    expect(page.locator(".toast")).to_contain_text("2 幅放进了“<i>冬</i>”")
    expect(page.locator("select[data-filter=collection] option")).to_have_text(["画集", "<i>冬</i> · 2"])


def test_trash_can_be_undone(visit):
    page = visit.page
    page.locator(".wall .picture a").first.click()
    page.locator("dialog [data-act=trash]").click()
    expect(page.locator(".wall .picture")).to_have_count(2)
    page.locator("[data-act=undo]").click()
    expect(page.locator(".wall .picture")).to_have_count(3)
    expect(page.locator(".wall .picture .prompt").first).to_have_text(PROMPT)
    page.locator("[data-act=starred]").click()
    expect(page.locator(".no-results")).to_be_visible()
    page.locator("[data-act=clear]").click()


def test_a_picture_fills_the_studios_form(visit):
    page = visit.page
    page.locator(".wall .picture a").first.click()
    page.locator("dialog [data-act=edit]").click()
    expect(page.get_by_label("想画什么")).to_have_value(PROMPT)
    expect(page.get_by_role("radio", name="油画")).to_have_attribute("aria-checked", "true")
    expect(page.get_by_role("slider", name="步数")).to_have_value("50")


def test_unknown_words_are_told_while_typing_and_replaced_with_a_tap(browser, address):
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go()
    box = page.get_by_label("What to paint")
    box.press_sequentially("a vilage beside the VILAGE tractor, ink wash")  # and the box is not left
    unknown = page.locator(".unknown b")
    expect(unknown).to_have_text(["vilage", "tractor"])
    ink = page.get_by_role("radio", name="Ink wash")
    expect(ink).to_have_attribute("aria-checked", "true")
    expect(box).to_have_value("a vilage beside the VILAGE tractor, ink wash")
    page.get_by_role("button", name="Write “village” instead of “vilage”").click()
    expect(box).to_have_value("a village beside the village tractor, ink wash")
    expect(unknown).to_have_text(["tractor"])
    box.fill("a village")
    expect(page.locator(".unknown")).to_be_hidden()
    expect(page.get_by_role("radio", name="Oil impasto")).to_have_attribute("aria-checked", "true")
    visitor.leave()


def test_a_line_to_begin_with_fills_the_box_and_an_empty_box_paints_the_line_it_shows(browser, address):
    visitor = Visitor(browser, address)
    page = visitor.go()
    box = page.get_by_label("想画什么")
    assert PROMPT in box.get_attribute("placeholder")
    expect(page.get_by_role("radio", name="油画")).to_have_attribute("aria-checked", "true")
    page.locator("[data-example=lotus]").click()
    expect(box).to_have_value("清晨的荷花与小桥")
    expect(page.get_by_role("radio", name="莫奈")).to_have_attribute("aria-checked", "true")
    page.get_by_role("radio", name="油画").click()
    paint(page, "", "Home")  # one step
    expect(box).to_have_value(PROMPT)
    page.locator("[data-act=again]").wait_for()
    expect(page.locator("figcaption").first).to_contain_text("油画")
    assert PROMPT in page.locator(".canvas img[src*='/file']").get_attribute("alt")
    visitor.leave()


def test_a_lab_run_is_shown(visit):
    page = visit.go("?room=lab")
    expect(page.locator(".claims article")).to_have_count(1)
    expect(page.locator(".claims mark")).to_have_text(re.compile("复现"))
    expect(page.locator(".claims li").first).to_contain_text("float16 1/5/10")
    expect(page.locator(".formats .pair .tag")).to_have_text(["float32", "bfloat16"])
    assert (
        page.locator(".formats .pair img").first.evaluate(
            "image => image.decode().then(() => image.naturalWidth)"
        )
        == 64
    )
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuemax", "100")


def test_the_language_can_be_changed_and_follows_the_browser(visit, browser, address):
    page = visit.go("?lang=zh")
    page.locator(".language").click()
    expect(page.locator("nav")).to_contain_text("Gallery")
    expect(page.get_by_role("button", name="Ten styles")).to_be_visible()
    assert "lang=en" in page.url
    assert page.locator("html").get_attribute("lang") == "en"
    foreigner = Visitor(browser, address, locale="en-GB")
    foreigner.go("?room=device")
    expect(foreigner.page.locator("nav")).to_contain_text("Device")
    foreigner.leave()


@pytest.mark.parametrize("name", ["studio", "gallery", "grid", "lab", "device"])
def test_pages_fit_a_telephone_and_pictures_have_alternative_texts(browser, address, name):
    visitor = Visitor(browser, address, width=390, height=844)
    page = visitor.go(f"?room={name}")
    page.wait_for_timeout(1500)
    wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
    assert wide <= 390
    unnamed = page.locator(".wall .picture img:not([alt]), .wall .picture img[alt='']").count()
    assert unnamed == 0
    visitor.leave()


def test_the_golden_slider_still_matches_streamlits_dom(browser, address):
    visitor = Visitor(browser, address)
    page = visitor.go()
    where = "[data-testid=stSlider] [role=group] > div > div:first-child"
    track = page.locator(where).first
    golden = "where => getComputedStyle(document.querySelector(where), '::after').backgroundImage.includes('gradient')"
    expect(track).to_be_attached()
    page.wait_for_function(golden, arg=where)  # the theme may be applied after the slider is drawn
    assert track.bounding_box()["height"] < 10
    assert page.locator("[data-testid=stHeader]").is_hidden()
    visitor.leave()

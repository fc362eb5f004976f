"""Pictures that are shown elsewhere, as a visitor does it: an exhibition, prints, a page, sharing, files dropped onto the wall, the
app's manifest and the list of keys. In Chromium, on a desk and on a phone; nothing is painted.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pytest
from browser import PHONE, Visitor, served
from many import PROMPTS, fill
from playwright.sync_api import Browser, expect
from served import ask
from test_web_artist import drop

from starrynight.gallery.store import Gallery
from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import PaintRequest

expect.set_options(timeout=240_000)
SHARED = """
navigator.canShare = ({ files }) => files.length > 0;
navigator.share = async ({ files, title }) => { window.shared = [files[0].name, files[0].type, files[0].size, title]; };
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    os.environ["STARRY_HOME"] = str(home)
    with Gallery() as gallery:
        fill(gallery, 5)
        rows = list(gallery.iter_rows())
        gallery.annotations.collect("冬夜", [row.id for row in rows[:3]])
    yield home
    del os.environ["STARRY_HOME"]


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    with served(home) as served_at:
        yield served_at


def test_a_collection_is_exhibited_and_printed(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address)
    page = visitor.go("?room=gallery&collection=冬夜")
    page.locator(".count [data-act=exhibit]").click()
    caption, slide = page.locator(".show .caption"), page.locator(".slide.on")
    expect(caption).to_contain_text("第 1 幅，共 3 幅")
    first = slide.get_attribute("data-id")
    assert slide.locator("img").evaluate("image => getComputedStyle(image).animationName") == "drift"
    page.keyboard.press("ArrowRight")
    expect(caption).to_contain_text("第 2 幅，共 3 幅")
    expect(slide).not_to_have_attribute("data-id", first)
    page.keyboard.press(" ")
    expect(page.locator("[data-show=pause]")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("c")
    expect(caption).to_have_css("opacity", "0")
    page.keyboard.press("ArrowLeft")
    expect(slide).to_have_attribute("data-id", first)
    page.keyboard.press("Escape")
    expect(page.locator("dialog.show[open]")).to_have_count(0)
    with page.expect_download() as download:
        page.locator(".count [data-act=catalogue]").click()
    pdf = pypdfium2.PdfDocument(download.value.path())
    assert len(pdf) == 4
    assert "冬夜" in pdf[0].get_textpage().get_text_range()
    visitor.leave()


def test_a_collection_gets_another_name_and_is_taken_apart_and_put_together_again(
    browser: Browser, address: str
) -> None:
    with Gallery() as gallery:
        gallery.annotations.collect("winter", [row.id for row in gallery.iter_rows()][:2])
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go("?room=gallery&collection=winter")
    cards, chosen = page.locator(".wall .grid .picture"), page.locator("select[data-filter=collection]")
    expect(cards).to_have_count(2)
    page.locator(".count [data-act=rename]").click()
    name = page.get_by_label("Its new name")
    expect(name).to_have_value("winter")
    name.fill("冬夜")  # another has it
    name.press("Enter")
    expect(page.get_by_text("There is already a collection “冬夜”.")).to_be_visible()
    expect(name).to_have_value("冬夜")
    name.press("Escape")
    expect(page.locator(".count")).to_contain_text("2 pictures")
    page.locator(".count [data-act=rename]").click()
    chosen.select_option("冬夜")  # what was asked for is gone with its collection
    expect(page.locator(".count")).to_contain_text("3 pictures")
    chosen.select_option("winter")
    expect(page.locator(".count")).to_contain_text("2 pictures")
    page.locator(".count [data-act=rename]").click()
    name.fill("<i>snow</i>")
    page.locator(".count [data-act=save]").click()
    expect(chosen).to_have_value("<i>snow</i>")
    expect(cards).to_have_count(2)
    page.locator(".count [data-act=apart]").click()
    expect(cards).to_have_count(5)
    expect(page.locator(".toast")).to_contain_text("The collection “<i>snow</i>” is no more")
    page.locator(".toast [data-act=undo]").click()
    expect(cards).to_have_count(2)
    expect(chosen).to_have_value("<i>snow</i>")
    with Gallery() as gallery:
        gallery.annotations.delete_collection("<i>snow</i>")
    visitor.leave()


def test_a_phone_exhibits_a_selection_without_motion_and_shares_a_picture(
    browser: Browser, address: str
) -> None:
    visitor = Visitor(browser, address, locale="en-GB", reduced_motion="reduce", **PHONE)
    page = visitor.page
    page.add_init_script(SHARED)
    visitor.go("?room=gallery")
    page.locator("[data-act=select]").tap()
    for at in (0, 2):
        page.locator(".wall .picture a").nth(at).tap()
    page.locator(".selection-bar [data-act=exhibit]").tap()
    expect(page.locator(".show .caption")).to_contain_text("1 of 2")
    assert page.locator(".slide.on img").evaluate("image => getComputedStyle(image).animationName") == "none"
    page.get_by_role("button", name="The next picture").tap()
    expect(page.locator(".show .caption")).to_contain_text("2 of 2")
    page.get_by_role("button", name="Leave").tap()
    page.locator(".wall .picture a").first.tap()
    expect(page.locator("dialog .print")).to_contain_text("In print at 300 dpi: 1.1 × 0.5 cm; ×2 2.2 × 1.1")
    page.locator("dialog [data-act=share]").tap()
    page.wait_for_function("window.shared")
    name, kind, size, title = page.evaluate("window.shared")
    assert (kind, title) == ("image/png", f"{PROMPTS[4]} 4")
    assert name.endswith(".png")
    assert size > 100
    visitor.leave()


@pytest.mark.parametrize("turned", [False, True], ids=["upright", "sideways"])
def test_on_a_phone_with_a_notch_nothing_stands_over_the_picture(
    browser: Browser, address: str, turned: bool
) -> None:
    """Boxes of the picture, its caption and the controls, beside a notch of 47 pixels and above a bar of 21."""
    screen = PHONE | ({"width": 844, "height": 390} if turned else {})
    notch = {"left": 47, "right": 47, "bottom": 21} if turned else {"top": 47, "bottom": 34}
    visitor = Visitor(browser, address, locale="en-GB", reduced_motion="reduce", **screen)
    page = visitor.page
    insets = {"insets": {**notch, **{f"{side}Max": size for side, size in notch.items()}}}
    page.context.new_cdp_session(page).send("Emulation.setSafeAreaInsetsOverride", insets)
    visitor.go("?room=gallery")
    page.locator(".count [data-act=exhibit]").tap()
    page.locator(".slide.on img").wait_for()
    picture, caption, controls = (
        page.locator(name).bounding_box() for name in (".slide.on img", ".show .caption b", ".show .controls")
    )
    assert picture
    assert caption
    assert controls
    assert picture["y"] + picture["height"] <= caption["y"]
    assert picture["height"] > 0.6 * screen["height"]
    if turned:  # the controls stand in a column beside it
        assert picture["x"] >= notch["left"]
        assert picture["x"] + picture["width"] <= controls["x"]
        assert controls["x"] + controls["width"] <= screen["width"] - notch["right"]
    else:
        assert picture["y"] >= controls["y"] + controls["height"]
        assert controls["y"] >= notch["top"]
    assert page.locator(".show .caption span").bounding_box()["y"] < screen["height"] - notch["bottom"]  # type: ignore[index]
    visitor.leave()


def test_a_page_a_poster_and_a_zip_are_saved(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go("?room=gallery")
    page.locator(".wall .picture a").first.click()
    with page.expect_download() as download:
        page.locator("dialog [data-act=page]").click()
    text = download.value.path().read_text("utf-8")
    with page.expect_download() as download:
        page.locator("dialog [data-act=poster]").click()
    assert len(pypdfium2.PdfDocument(download.value.path())) == 1
    page.keyboard.press("Escape")
    page.locator("[data-act=select]").click()
    for at in (1, 2):
        page.locator(".wall .picture a").nth(at).click()
    with page.expect_download() as download:
        page.locator(".selection-bar [data-act=zip]").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert len([name for name in archive.namelist() if name.startswith("pictures/")]) == 2
    alone = browser.new_context(offline=True).new_page()  # the page needs no server
    alone.set_content(text)
    assert alone.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 128
    expect(alone.locator("h1")).to_have_text(f"{PROMPTS[4]} 4")
    alone.context.close()
    visitor.leave()


def test_files_dropped_onto_the_wall_hang_there(browser: Browser, address: str, tmp_path: Path) -> None:
    import numpy as np

    for seed in (71, 72):
        recipe = make_recipe(PaintRequest(prompt=f"dropped {seed}", seed=seed), verdict=Verdict("hang"))
        Picture(np.full((64, 64, 3), seed, np.uint8), recipe).write(tmp_path / f"{seed}.png")
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go("?room=gallery")
    hanging = page.locator(".wall .picture a img.on")
    hanging.first.drag_to(hanging.nth(3))  # a picture of the wall is no file of another program
    expect(page.locator(".wall .veil")).to_be_hidden()
    expect(page.locator(".toast")).to_have_count(0)
    drop(page, ".wall", tmp_path / "71.png", tmp_path / "72.png")
    expect(page.locator(".toast")).to_contain_text("Hung 2 pictures")
    expect(page.locator(".wall .picture .prompt").first).to_have_text("dropped 72")
    drop(page, ".wall", tmp_path / "72.png")
    expect(page.locator(".toast")).to_contain_text("It hangs here already")
    visitor.leave()


def test_question_mark_shows_the_keys_but_not_while_one_types(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address)
    page = visitor.go()
    page.get_by_label("想画什么").press_sequentially("?")
    expect(page.locator("dialog.keys[open]")).to_have_count(0)
    page.locator(".language").focus()
    page.keyboard.press("?")
    expect(page.locator("dialog.keys[open]")).to_contain_text("以前写的")
    page.keyboard.press("Escape")
    expect(page.locator("dialog.keys[open]")).to_have_count(0)
    visitor.leave()


def test_the_page_names_its_manifest_and_the_preview_of_a_picture(browser: Browser, address: str) -> None:
    with Gallery() as gallery:
        row = gallery.search(limit=1).rows[0]
    sent = ask(address, f"/?picture={row.id}").body.decode()
    assert f'<meta property="og:title" content="{row.prompt}">' in sent
    assert f'content="{address}/api/pictures/{row.id}/thumb?size=1024"' in sent
    assert "og:" not in ask(address, "/?picture=nothing").body.decode()
    manifest = json.loads(ask(address, "/manifest.webmanifest").body)
    for icon in manifest["icons"]:
        assert ask(address, icon["src"]).headers["content-type"] == "image/png"
    visitor = Visitor(browser, address)
    page = visitor.go()
    installable = page.context.new_cdp_session(page).send("Page.getAppManifest")
    assert installable["url"].endswith("/manifest.webmanifest")
    assert installable["errors"] == []
    visitor.leave()

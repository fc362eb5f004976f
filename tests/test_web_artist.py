"""What an artist does with a picture that hangs: paint a part of it anew, extend it, stay near it. In Chromium, on a desk and on a
phone, against a real server that paints with Firefly.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import PHONE, Visitor, served
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from served import ask

from starrynight.gallery.store import Gallery
from starrynight.metadata.pixels import read_pixels
from starrynight.painting.canvas import read_mask
from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import PaintRequest

expect.set_options(timeout=240_000)
SIDE = 128
PROMPT = "a boat in the snow"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    os.environ["STARRY_HOME"] = str(home)
    yield home
    del os.environ["STARRY_HOME"]


@pytest.fixture(scope="module")
def picture(home: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    recipe = make_recipe(
        PaintRequest(prompt=PROMPT, style="ink", seed=7, width=SIDE, height=SIDE, steps=2),
        verdict=Verdict("hang"),
    )
    with Gallery() as gallery:
        return gallery.add(Picture(pixels, recipe)).id


@pytest.fixture(scope="module")
def address(home: Path, picture: str) -> Iterator[str]:
    with served(home) as served_at:
        yield served_at


def paint(page: Page, button: str) -> np.ndarray:
    """Press Paint; the pixels of the picture that was painted, and its request."""
    before = page.url
    page.get_by_role("button", name=button).first.click()
    page.wait_for_function(
        "before => location.href !== before && location.search.includes('job=')", arg=before
    )
    page.locator("[data-act=again]").wait_for()
    source = page.locator(".canvas img[src*='/file']").get_attribute("src")
    assert source
    return read_pixels(Gallery().path(Gallery().get(source.split("/")[3])))


def newest() -> dict:
    with Gallery() as gallery:
        row = gallery.search(limit=1).rows[0]
        return gallery.recipe(row.id)["request"]


def stroke(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw over the picture with the pointer; positions as shares of its sides."""
    box = page.locator(".brush .sheet").bounding_box()
    assert box
    (x, y), (to_x, to_y) = (
        (box["x"] + a * box["width"], box["y"] + b * box["height"]) for a, b in (start, end)
    )
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(to_x, to_y, steps=4)
    page.mouse.up()


def test_a_mask_is_painted_over_a_picture_and_only_its_inside_is_painted_anew(
    browser: Browser, address: str, picture: str
) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go(f"?picture={picture}")
    page.locator("dialog [data-act=inpaint]").click()
    page.locator(".brush canvas[data-ready]").wait_for()
    done, undo = page.locator("[data-brush=done]"), page.locator("[data-brush=undo]")
    expect(done).to_be_disabled()
    stroke(page, (0.1, 0.1), (0.4, 0.1))
    expect(done).to_be_enabled()
    page.keyboard.press("u")
    expect(done).to_be_disabled()
    expect(undo).to_be_disabled()
    stroke(page, (0.25, 0.5), (0.75, 0.5))  # what stays: a line across the middle, then its left half erased
    page.locator("[data-brush=erase]").click()
    stroke(page, (0.1, 0.5), (0.45, 0.5))
    for _ in range(2):
        page.locator("[data-brush=invert]").click()
    done.click()
    page.wait_for_url(re.compile("start="))
    expect(page.get_by_label("What to paint")).to_have_value(PROMPT)
    for place in (".origin .kept", ".easel figcaption"):
        expect(page.locator(place)).to_have_text("Only what is gold is painted; the rest stays to the bit.")
    expect(
        page.locator(".easel .mask")
    ).to_be_visible()  # where the picture will appear stands what it begins from
    expect(page.get_by_role("slider", name="Strength")).to_have_attribute("aria-valuetext", "1.00")
    page.reload()  # the mask stands in the address
    expect(page.locator(".origin .mask")).to_be_visible()
    painted = paint(page, "Paint")
    request = newest()
    mask = read_mask(request["mask"])
    assert mask.shape == (SIDE, SIDE)
    assert mask[64, 90] == 1  # painted
    assert mask[64, 40] == mask[20, 90] == 0  # erased; never touched
    with Gallery() as gallery:
        first = read_pixels(gallery.path(gallery.get(picture)))
    assert (painted[mask == 0] == first[mask == 0]).all()
    assert (painted[mask == 1] != first[mask == 1]).mean() > 0.5
    visitor.leave()


def finger(
    page: Page,
    start: tuple[float, float],
    end: tuple[float, float],
    second: tuple[float, float] | None = None,
) -> None:
    """Draw over the picture with a finger, and rest a ``second`` one on it; positions as shares of its sides."""
    box = page.locator(".brush .sheet").bounding_box()
    assert box
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": at}
            for at, (x, y) in enumerate(places)
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    others = [second] if second else []
    touch("touchStart", start)
    if second:
        touch("touchStart", start, second)
    for share in (0.25, 0.5, 0.75, 1.0):
        at = tuple(a + (b - a) * share for a, b in zip(start, end, strict=True))
        touch("touchMove", at, *others)  # type: ignore[arg-type]
    touch("touchEnd")
    session.detach()


def test_a_finger_paints_a_mask_on_a_phone_and_a_side_is_extended(
    browser: Browser, address: str, picture: str
) -> None:
    visitor = Visitor(browser, address, locale="zh-CN", **PHONE)
    page = visitor.go(f"?picture={picture}")
    page.locator("dialog [data-act=begin]").tap()
    expect(page.locator(".origin .size")).to_have_text("128 × 128 像素")
    page.locator("[data-origin=mask]").tap()
    page.locator(".brush canvas[data-ready]").wait_for()
    finger(page, (0.2, 0.3), (0.8, 0.3), second=(0.5, 0.9))
    page.set_viewport_size({"width": 844, "height": 390})  # the phone is turned, and what was painted stays
    sheet, tools = (page.locator(f".brush {name}").bounding_box() for name in (".sheet", ".tools"))
    assert sheet
    assert tools
    assert sheet["height"] > 0.6 * 390
    assert tools["x"] >= sheet["x"] + sheet["width"]
    finger(page, (0.5, 0.6), (0.5, 0.8))
    page.set_viewport_size({"width": 390, "height": 844})
    # Clicked: a tap so soon after a stroke is taken for a part of its gesture.
    page.locator("[data-brush=done]").click()
    expect(page.locator(".origin .kept")).to_have_text("只重画金色部分，其余逐位不变。")
    address_of_mask = page.locator(".easel .mask").evaluate("one => one.style.getPropertyValue('--mask')")
    mask = np.asarray(Image.open(io.BytesIO(ask(address, address_of_mask.split('"')[1]).body)).convert("L"))
    assert {mask[38, 30], mask[38, 95], mask[90, 64]} == {255}  # both strokes, from end to end
    assert {mask[64, 20], mask[115, 64], mask[10, 64]} == {0}  # nothing of the second finger, nor elsewhere
    page.locator("[data-origin=unmask]").tap()
    expect(page.locator(".origin .mask")).to_be_hidden()
    page.get_by_role("slider", name="画幅").wait_for()
    page.get_by_role("button", name="向右扩展").tap()
    expect(page.get_by_role("slider", name="画幅")).to_have_count(0)  # the size is the new canvas's
    expect(page.locator(".origin .size")).to_have_text("160 × 128 像素，原图 128 × 128")
    assert page.locator(".origin .picture").evaluate("one => one.style.width") == "80%"  # of the new canvas
    painted = paint(page, "作画")
    assert newest()["extend"] == [0, 0, 32, 0]
    assert painted.shape == (128, 160, 3)
    with Gallery() as gallery:
        first = read_pixels(gallery.path(gallery.get(picture)))
    assert (painted[:, :128] == first).all()
    page.reload()  # the job's own address shows what it began from
    expect(page.locator(".origin .size")).to_have_text("160 × 128 像素，原图 128 × 128")
    page.locator("[data-origin=remove]").tap()
    expect(page.locator(".origin .area")).to_have_count(0)
    visitor.leave()


def drop(page: Page, onto: str, *files: Path) -> None:
    """Drag files of another program onto an element of the page."""
    sent = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in files]
    page.locator(onto).first.evaluate(
        """(area, sent) => {
          const dataTransfer = new DataTransfer();
          for (const [name, text] of sent) dataTransfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
          for (const kind of ["dragenter", "dragover", "drop"]) area.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true, composed: true }));
        }""",
        sent,
    )


def test_a_picture_stays_near_another_and_a_file_dropped_onto_the_easel_is_begun_from(
    browser: Browser, address: str, picture: str, tmp_path: Path
) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go(f"?picture={picture}")
    page.locator("dialog [data-act=near]").click()
    variation = page.get_by_role("slider", name="Variation")
    expect(variation).to_have_attribute("aria-valuetext", "0.20")
    variation.press("ArrowRight")
    paint(page, "Paint")
    request = newest()
    assert (request["seed"], request["variation"]) == (7, 0.25)
    page.locator(".st-key-locked label").click()  # an unlocked seed has no pictures near it
    expect(variation).to_have_count(0)
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    drop(page, ".easel .slots", tmp_path / "broken.png")
    expect(page.locator(".easel .status")).to_contain_text("picture")
    drop(page, ".easel .slots", tmp_path / "grey.png")
    expect(page.locator(".origin .size")).to_have_text("60 × 40 pixels")
    expect(page.get_by_role("slider", name="Strength")).to_have_attribute("aria-valuetext", "0.60")
    page.get_by_role("button", name="Begin from nothing").click()
    expect(page.locator(".origin .area")).to_have_count(0)
    page.set_viewport_size(
        {"width": 1280, "height": 2400}
    )  # the easel and what was painted last, both in view
    recent = page.locator(".strip .picture a").first
    recent.locator("img.on").drag_to(page.locator(".easel .slots"))
    dragged = (recent.get_attribute("href") or "").split("picture=")[1]
    expect(page.locator(".origin .picture img")).to_have_attribute("src", f"/api/pictures/{dragged}/file")
    refused = visitor.problems.pop()  # Chromium reports the answer to the broken file
    assert "422" in refused
    visitor.leave()


def test_a_grid_is_planned_painted_shown_and_its_sheet_hung(browser: Browser, address: str) -> None:
    visitor = Visitor(browser, address, locale="en-GB")
    page = visitor.go("?room=grid")
    plan = page.locator(".st-key-grid-plan .plan")
    expect(plan).to_contain_text("3 × 3: 9 pictures of")  # seeds 1..3 and three styles
    page.get_by_label("What to paint").fill("a lighthouse at dusk")
    page.get_by_role("slider", name="Size").press("Home")
    page.get_by_role("textbox", name="Values: Seed").fill("1..50")
    page.get_by_role("textbox", name="Values: Seed").press("Enter")
    expect(page.locator(".st-key-error")).to_contain_text("150 pictures are too many; the limit is 36.")
    expect(page.get_by_role("button", name="Paint the grid")).to_be_disabled()
    choose(page, "Down", "Steps")
    page.get_by_role("textbox", name="Values: Seed").fill("4,5")
    page.get_by_role("textbox", name="Values: Seed").press("Enter")
    page.get_by_role("textbox", name="Values: Steps").fill("1,2")
    page.get_by_role("textbox", name="Values: Steps").press("Enter")
    expect(plan).to_have_text(
        re.compile(r"2 × 2: 4 pictures of (\d+) × \1, about \d+ s|2 × 2: .*; how long .*")
    )
    page.get_by_role("button", name="Paint the grid").click()
    page.wait_for_url(re.compile("job="))
    expect(page.locator(".table .head")).to_have_text(["Seed 4", "Seed 5", "Steps 1", "Steps 2"])
    expect(page.locator(".sheet .status")).to_have_text("Every picture hangs in the gallery.")
    expect(page.locator(".table img.on")).to_have_count(4)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the sheet").click()
    drawn = Image.open(download.value.path())
    with Gallery() as gallery:
        rows = gallery.search(limit=4).rows
        assert sorted((row.seed, row.steps) for row in rows) == [(4, 1), (4, 2), (5, 1), (5, 2)]
        side = rows[0].width
        assert drawn.width > 2 * min(side, 384)
        page.reload()  # the address holds the grid
        expect(page.locator(".table img.on")).to_have_count(4)
        page.get_by_role("button", name="Hang the sheet").click()
        expect(page.get_by_text("The sheet hangs in the gallery.")).to_be_visible()
        hung = gallery.search(limit=1).rows[0]
    assert (hung.width, hung.prompt) == (drawn.width, "a lighthouse at dusk")
    visitor.leave()


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option, exact=True).click()

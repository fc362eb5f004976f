"""Takes the README's screenshots of the pages: ``python benchmarks/screens.py [--home FOLDER]``.

Paints a gallery with Firefly (or uses the one in FOLDER), opens the real server in Chromium and writes
docs/web-*.webp. Run it again after Firefly or a page has changed.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import PHONE, Visitor, chromium, served
from playwright.sync_api import Browser

from starrynight.cli import run
from starrynight.gallery.store import Gallery
from starrynight.studio import Studio, make_request

DOCS = Path(__file__).parents[1] / "docs"
LARGEST = 250_000  # bytes of one picture in docs/
GAP = 24  # pixels between the screens of a phone
WALL = (  # prompt, style, seed, width, height; the last hangs first, beside what is painted in the studio
    ("江雪，孤舟，远山", "ink", 1, 512, 384), ("a volcano above the sea", "ukiyoe", 11, 512, 384),
    ("雨夜的霓虹都市", "cyberpunk", 4, 768, 384), ("向日葵，白天", "pastel", 15, 512, 512),
    ("a church under swirling stars", "oil", 10, 512, 512), ("清晨的港口，小船", "monet", 2, 512, 512),
    ("沙漠，黄昏", "dunhuang", 7, 512, 512), ("竹林，清晨，薄雾", "ink", 14, 768, 384),
    ("红枫间的瀑布", "watercolor", 5, 512, 512), ("a cypress among sunflowers at night", "pointillism", 16, 512, 384),
    ("睡莲池上的拱桥", "monet", 12, 512, 512), ("a narrow street at night", "oil", 18, 384, 512),
    ("海上生明月", "ukiyoe", 3, 384, 512), ("金色的麦田", "pointillism", 6, 512, 384),
    ("red lanterns in a narrow street at night", "watercolor", 17, 512, 512),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder)
        os.environ["STARRY_HOME"] = str(home)
        paint_wall()
        run(["gallery", "describe"])  # what each picture shows, as an idle worker would find it
        with served(home) as address, chromium() as browser:
            visitor = Visitor(browser, address, width=1440, height=900)
            studio(visitor)
            gallery(visitor)
            visitor.leave()
            phone(browser, address)


def paint_wall() -> None:
    with Gallery() as gallery:
        if gallery.count() >= len(WALL):
            return
        studio = Studio(save=lambda picture: Path(gallery.path(gallery.add(picture))))
        for n, (prompt, style, seed, width, height) in enumerate(WALL, 1):
            for _ in studio.paint(
                make_request(prompt=prompt, style=style, seed=seed, width=width, height=height)
            ):
                print(f"\r{n} of {len(WALL)} ", end="", file=sys.stderr)


def studio(visitor: Visitor) -> None:
    """The studio with a picture just painted."""
    page = visitor.go()
    page.get_by_role("radio", name="油画").click()
    page.get_by_label("想画什么").fill("星夜下的静谧村庄")
    page.get_by_role("textbox", name="种子").fill("0")
    page.get_by_role("button", name="作画").click()
    page.locator(".canvas img[src*='/file'].on").wait_for()
    page.wait_for_timeout(2500)
    page.set_viewport_size({"width": 1440, "height": 960})  # with the buttons below the picture
    page.wait_for_timeout(1500)
    save(visitor, "web-studio")
    page.set_viewport_size({"width": 1440, "height": 900})


def gallery(visitor: Visitor) -> None:
    """The wall, then one picture of it in the viewer."""
    page = visitor.go("?room=gallery")
    page.locator(".wall .picture a").nth(8).wait_for()
    page.wait_for_timeout(3000)
    save(visitor, "web-gallery")
    page.locator(".wall .picture", has_text="睡莲池上的拱桥").locator("a").first.click()
    page.locator("dialog dl").wait_for()
    page.wait_for_timeout(2500)
    save(visitor, "web-picture")


def phone(browser: Browser, address: str) -> None:
    """On a phone, beside each other: the wall, a mask that is painted, the studio that begins from it, and an exhibition."""
    visitor = Visitor(browser, address, device_scale_factor=1.5, reduced_motion="reduce", **PHONE)
    page = visitor.go("?room=gallery")
    page.locator(".wall .picture img.on").nth(3).wait_for()
    page.wait_for_timeout(2000)
    shots = [shot(visitor)]
    page.locator(".wall .picture a").first.tap()
    page.locator("dialog [data-act=inpaint]").tap()
    page.locator(".brush canvas[data-ready]").wait_for()
    box = page.locator(".brush .sheet").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.25)
    page.mouse.down()
    for x, y in ((0.3, 0.1), (0.45, 0.25), (0.2, 0.35)):
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y, steps=8)
    page.mouse.up()
    shots.append(shot(visitor))
    page.locator("[data-brush=done]").tap()
    page.locator(".easel .mask").wait_for()
    page.locator(".origin .mask").wait_for()
    page.wait_for_timeout(4000)
    shots.append(shot(visitor))
    page = visitor.go("?room=gallery")
    page.locator(".count [data-act=exhibit]").tap()
    page.locator(".slide.on img").wait_for()
    page.keyboard.press("ArrowRight")
    page.locator(".slide.on img").nth(0).wait_for()
    page.wait_for_timeout(4000)
    shots.append(shot(visitor))
    visitor.leave()
    sheet = Image.new(
        "RGB", (sum(one.width for one in shots) + GAP * (len(shots) - 1), shots[0].height), "#05070f"
    )
    for at, one in enumerate(shots):
        sheet.paste(one, (at * (one.width + GAP), 0))
    write(sheet, "web-phone")


def shot(visitor: Visitor) -> Image.Image:
    return Image.open(io.BytesIO(visitor.page.screenshot())).convert("RGB")


def save(visitor: Visitor, name: str) -> None:
    write(shot(visitor), name)


def write(picture: Image.Image, name: str) -> None:
    path = DOCS / f"{name}.webp"
    for quality in range(86, 40, -6):
        picture.save(path, quality=quality, method=6)
        if path.stat().st_size <= LARGEST:
            break
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} KB, quality {quality}")


if __name__ == "__main__":
    main()

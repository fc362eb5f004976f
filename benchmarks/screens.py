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
from browser import Visitor, chromium, served

from starrynight.gallery.store import Gallery
from starrynight.studio import Studio, make_request

DOCS = Path(__file__).parents[1] / "docs"
LARGEST = 250_000  # bytes of one picture in docs/
PROMPTS = (
    ("星夜下的静谧村庄", "oil"), ("江雪，孤舟，远山", "ink"), ("清晨的港口，小船", "monet"), ("海上生明月", "ukiyoe"),
    ("雨夜的霓虹都市", "cyberpunk"), ("红枫间的瀑布", "watercolor"), ("金色的麦田", "pointillism"), ("沙漠，黄昏", "dunhuang"),
    ("雪后的村庄，正午", "pastel"), ("星空下的雪村", "papercut"), ("a church under swirling stars", "oil"), ("a volcano above the sea", "ukiyoe"),
    ("睡莲池上的拱桥", "monet"), ("雪山下的湖", "dunhuang"), ("竹林，清晨，薄雾", "ink"), ("向日葵，白天", "pastel"),
    ("a cypress among sunflowers at night", "pointillism"), ("red lanterns in a narrow street at night", "watercolor"), ("a narrow street at night", "oil"), ("雪中的村庄，远山", "ink"),
)  # fmt: skip
SHAPES = ((512, 512), (512, 384), (512, 512), (384, 512), (768, 384))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder)
        os.environ["STARRY_HOME"] = str(home)
        paint_wall()
        with served(home) as address, chromium() as browser:
            visitor = Visitor(browser, address, width=1440, height=900)
            studio(visitor)
            gallery(visitor)
            visitor.leave()


def paint_wall() -> None:
    with Gallery() as gallery:
        if gallery.count() >= len(PROMPTS):
            return
        studio = Studio(save=lambda picture: Path(gallery.path(gallery.add(picture))))
        for n, (prompt, style) in enumerate(PROMPTS):
            width, height = SHAPES[n % len(SHAPES)]
            for _ in studio.paint(
                make_request(prompt=prompt, style=style, seed=n, width=width, height=height)
            ):
                print(f"\r{n + 1} of {len(PROMPTS)} ", end="", file=sys.stderr)


def studio(visitor: Visitor) -> None:
    """The studio with a picture just painted."""
    page = visitor.go()
    page.get_by_role("radio", name="油画").click()
    page.get_by_label("想画什么").fill("星夜下的静谧村庄，远处有山")
    page.get_by_role("button", name="作画").click()
    page.locator(".canvas img[src*='/file'].on").wait_for()
    page.wait_for_timeout(2500)
    save(visitor, "web-studio")


def gallery(visitor: Visitor) -> None:
    """The wall, then one picture of it in the viewer."""
    page = visitor.go("?room=gallery")
    page.locator(".wall .picture a").nth(8).wait_for()
    page.wait_for_timeout(3000)
    save(visitor, "web-gallery")
    page.locator(".wall .picture a").nth(3).click()
    page.locator("dialog dl").wait_for()
    page.wait_for_timeout(2500)
    save(visitor, "web-picture")


def save(visitor: Visitor, name: str) -> None:
    shot = Image.open(io.BytesIO(visitor.page.screenshot())).convert("RGB")
    path = DOCS / f"{name}.webp"
    for quality in range(86, 40, -6):
        shot.save(path, quality=quality, method=6)
        if path.stat().st_size <= LARGEST:
            break
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} KB, quality {quality}")


if __name__ == "__main__":
    main()

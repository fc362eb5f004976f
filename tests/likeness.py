"""What a page looks like, as a small blurred grey picture, compared with the one that is kept in ``tests/layouts``.

A letter or a star that is drawn otherwise changes nothing; a block that is moved, missing or of another size does.
``RENEW_LAYOUTS=1 make test`` (or pytest on ``tests/test_web_layout.py`` alone) writes the kept pictures anew: look at them before
they are committed.
"""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from playwright.sync_api import Page

KEPT = Path(__file__).parent / "layouts"
CELL = 12  # CSS pixels to a pixel of the small picture, on each side
DIFFERENT = 14.0  # of 255 grey levels, between two cells
MOST = 0.02  # of all cells that may differ
WITHIN = 60.0  # seconds until a page has come to rest


def small(screenshot: bytes) -> np.ndarray:
    """float32 [h / CELL, w / CELL] in 0..255."""
    grey = Image.open(io.BytesIO(screenshot)).convert("L")
    size = (max(1, grey.width // CELL), max(1, grey.height // CELL))
    return np.asarray(
        grey.filter(ImageFilter.GaussianBlur(CELL / 2)).resize(size, Image.Resampling.BOX), np.float32
    )


def differing(one: np.ndarray, other: np.ndarray) -> float:
    """The share of cells that differ; 1 for pictures of two sizes."""
    if one.shape != other.shape:
        return 1.0
    return float((np.abs(one - other) > DIFFERENT).mean())


def looks_as_kept(page: Page, name: str, height: int | None = None) -> None:
    """What is in view, down to ``height`` CSS pixels, looks as it did when it was kept."""
    file = KEPT / f"{name}.png"
    view = page.viewport_size
    assert view is not None
    clip = {"x": 0, "y": 0, "width": view["width"], "height": height or view["height"]}
    deadline = time.monotonic() + WITHIN
    share, seen = 1.0, np.zeros((1, 1), np.float32)
    while share > MOST and time.monotonic() < deadline:
        before, seen = seen, small(page.screenshot(animations="disabled", scale="css", clip=clip))  # type: ignore[arg-type]
        if "RENEW_LAYOUTS" in os.environ:
            if differing(before, seen) == 0:  # the page has come to rest
                KEPT.mkdir(exist_ok=True)
                Image.fromarray(seen.round().astype(np.uint8)).save(file)
                return
            page.wait_for_timeout(1000)
            continue
        share = differing(seen, np.asarray(Image.open(file), np.float32))
    assert share <= MOST, (
        f"{name}: {share:.1%} of the page looks otherwise; compare it with {file} (RENEW_LAYOUTS=1 keeps it)"
    )

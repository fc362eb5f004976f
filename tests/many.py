"""A gallery with any number of pictures, made in a second: real files under many names, and a real row for each."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from starrynight.gallery.insert import insert_row, parse_file
from starrynight.gallery.store import Gallery
from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import PaintRequest

SHAPES = ((96, 96), (64, 96), (96, 64), (96, 96), (64, 128))  # height, width
PROMPTS = ("星夜下的静谧村庄", "江雪，孤舟", "a lighthouse in a storm", "雨夜的霓虹都市", "清晨的睡莲池")
STYLES = ("oil", "ink", "monet", "cyberpunk", "pastel")


def fill(gallery: Gallery, pictures: int) -> None:
    """Hang ``pictures`` pictures of five shapes; picture n has the prompt "PROMPT n"."""
    kinds = []
    for n, (height, width) in enumerate(SHAPES):
        pixels = np.random.default_rng(n).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
        recipe = make_recipe(
            PaintRequest(prompt=PROMPTS[n], style=STYLES[n], seed=n), verdict=Verdict("hang")
        )
        data = Picture(pixels.repeat(16, 0).repeat(16, 1), recipe).encode()
        kinds.append((data, parse_file(data)))
        gallery.files.write(gallery.files.name(kinds[n][1].columns["id"], "png"), data)
    with gallery.database.writing() as connection:
        for n in range(pictures):
            _, parsed = kinds[n % len(kinds)]
            picture = f"{n:032x}"
            _link(gallery, parsed.columns["id"], picture)
            columns = parsed.columns | {"id": picture, "prompt": f"{PROMPTS[n % len(PROMPTS)]} {n}"}
            insert_row(connection, replace(parsed, columns=columns), made_at=1.7e9 + n)


def _link(gallery: Gallery, known: str, picture: str) -> None:
    """Give the file of ``known`` the name of ``picture`` too."""
    assert gallery.files.local is not None
    there, here = (gallery.files.path(gallery.files.name(name, "png")) for name in (known, picture))
    os.makedirs(os.path.dirname(here), exist_ok=True)
    os.link(there, here)

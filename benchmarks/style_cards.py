"""Paints the small pictures of the studio's style cards: ``python benchmarks/style_cards.py [FOLDER]``.

Run it again after Firefly has changed. Prompt and seed are the same for all ten styles, so two cards differ
only in the style.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

import starrynight.web
from starrynight.painting.styles import styles
from starrynight.studio import SavedPicture, Studio, make_request

FOLDER = Path(starrynight.web.__file__).parent / "static" / "styles"
PROMPT, SEED, STEPS = "星夜下的静谧村庄，柏树", 11, 8
SIDE = 192  # pixels; the page shows a card at most 160 wide


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    studio = Studio(save=lambda picture: folder)  # keeps the pictures out of the gallery
    for key in styles():
        request = make_request(prompt=PROMPT, style=key, seed=SEED, steps=STEPS, model="firefly")
        for result in studio.paint(request):
            if not isinstance(result, SavedPicture):
                raise result.error
            card = Image.fromarray(result.picture.pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            card.save(folder / f"{key}.webp", quality=80, method=6)
        print(key, file=sys.stderr)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

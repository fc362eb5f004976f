"""Paints the little pictures on the style cards: ``python -m starrynight.web.paint_cards``, again after Firefly changed.

One line, one seed, ten styles: what differs between two cards is the style alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from starrynight.painting.styles import styles
from starrynight.studio import SavedPicture, Studio, fill

FOLDER = Path(__file__).with_name("static") / "styles"
LINE, SEED, STEPS = "樱花树，小桥，远山", 11, 12
SIDE = 192  # pixels: a card is at most 160 wide


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    studio = Studio(hang=lambda picture: folder)  # nothing hangs: only the cards are kept
    for key in styles():
        request = fill(prompt=LINE, style=key, seed=SEED, steps=STEPS, model="firefly")
        for hung in studio.paint(request):
            if not isinstance(hung, SavedPicture):
                raise hung.error
            small = Image.fromarray(hung.picture.pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            small.save(folder / f"{key}.webp", quality=80, method=6)
        print(key, file=sys.stderr)


if __name__ == "__main__":
    main()

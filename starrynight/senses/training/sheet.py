"""A sheet of Firefly's paintings with what the perceiver says of each, to be judged by eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from starrynight.firefly.training import data
from starrynight.senses.asked import judge
from starrynight.senses.describe import claims, described, named
from starrynight.senses.perceiver import load

SIDE, LINE, GAP, COLUMNS = 160, 15, 6, 6  # pixels; pictures in a row
_LINES = 6
FONT = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")


def write(folder: Path, weights: Path, out: Path, count: int, font: Path = FONT) -> None:
    """Write the first ``count`` pictures of the set in ``folder``, each above its prompt, the alt texts in both languages and what
    is missing of the prompt. ``font``: one that has Chinese signs.
    """
    perceiver, some = load(weights), data.PictureSet(folder)
    letters = ImageFont.truetype(font, LINE - 4)
    tall = SIDE + _LINES * LINE + GAP
    size = COLUMNS * (SIDE + GAP) + GAP, -(-count // COLUMNS) * tall + GAP
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for place, record in enumerate(some.records[:count]):
        row, column = divmod(place, COLUMNS)
        left, top = GAP + column * (SIDE + GAP), GAP + row * tall
        pixels = np.asarray(some.pictures[place])
        sheet.paste(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX), (left, top))
        sight = perceiver.see(pixels)
        alt = described(claims(perceiver, sight), perceiver.name, sight.confidence).alt
        gone = named(judge(record["captions"][0], perceiver, sight).missing, "zh")
        lines = [
            *((line, "#888") for line in wrapped(record["captions"][0], letters, 2)),
            *(
                (line, "#000")
                for line in wrapped(alt.zh or "（说不准）", letters, 1) + wrapped(alt.en, letters, 2)
            ),
            *((line, "#b00") for line in wrapped(f"没看见：{gone}" if gone else "", letters, 1)),
        ]
        for number, (line, colour) in enumerate(lines[:_LINES]):
            pen.text((left, top + SIDE + number * LINE), line, fill=colour, font=letters)
    sheet.save(out, quality=60)


def wrapped(text: str, letters: ImageFont.FreeTypeFont, most: int) -> list[str]:
    """``text`` in at most ``most`` lines that are no wider than a picture; what is left over is cut off with an ellipsis."""
    lines, rest = list[str](), text
    while rest and len(lines) < most:
        cut = next(
            end for end in range(len(rest), 0, -1) if letters.getlength(rest[:end]) <= SIDE or end == 1
        )
        last = len(lines) + 1 == most and cut < len(rest)
        lines.append(rest[: cut - 1] + "…" if last else rest[:cut])
        rest = rest[cut:]
    return lines

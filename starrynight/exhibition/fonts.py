"""Fonts of this machine for a PDF, which embeds the letters it uses: a serif with Chinese letters, as the pages prefer.

Nothing is shipped, because a Chinese font is larger than Firefly. A letter that no font here has is refused by name; a symbol
(an emoji, say) becomes a box.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from fpdf import FPDF
from fpdf.fonts import TTFFont

from starrynight.errors import MissingPackage

# File names in order of preference, with the number of the font in a collection: Chinese serifs, Chinese sans-serifs, others.
KNOWN = (
    ("NotoSerifCJK-Regular.ttc", 2), ("NotoSerifSC-Regular.otf", 0), ("NotoSerifCJKsc-Regular.otf", 0),
    ("SourceHanSerifSC-Regular.otf", 0), ("SourceHanSerif-Regular.ttc", 2), ("Songti.ttc", 0), ("simsun.ttc", 0),
    ("NotoSansCJK-Regular.ttc", 2), ("NotoSansSC-Regular.otf", 0), ("STHeiti Light.ttc", 0), ("msyh.ttc", 0),
    ("wqy-microhei.ttc", 0), ("wqy-zenhei.ttc", 0), ("DroidSansFallbackFull.ttf", 0), ("unifont.ttf", 0),
    ("DejaVuSerif.ttf", 0), ("LiberationSerif-Regular.ttf", 0), ("Times New Roman.ttf", 0), ("times.ttf", 0), ("DejaVuSans.ttf", 0),
)  # fmt: skip
FOLDERS = {
    "linux": ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
}
CORE = "Times"  # in every PDF reader; Latin letters only
MOST = 4  # fonts that one PDF may draw from
BOX, ELLIPSIS = "□", "…"


@cache
def installed() -> tuple[tuple[Path, int], ...]:
    """The fonts of ``KNOWN`` that are here, best first."""
    here = {path.name: path for path in _files()}
    return tuple((here[name], number) for name, number in KNOWN if name in here)[:MOST]


def _files() -> Iterator[Path]:
    for folder in FOLDERS.get(sys.platform, FOLDERS["linux"]):
        place = Path(folder).expanduser()
        if place.is_dir():
            yield from (path for path in place.rglob("*") if path.suffix.lower() in (".ttf", ".ttc", ".otf"))


def use(pdf: FPDF, texts: Iterable[str]) -> Letters:
    """Add to ``pdf`` the fonts that the texts need, and make them its fonts. Raises MissingPackage."""
    needed = {letter for text in texts for letter in text if not letter.isspace()}
    found, names = set[str](), []
    for number, (path, place) in enumerate(installed()):
        pdf.add_font(f"font{number}", fname=path, collection_font_number=place)
        font = pdf.fonts[f"font{number}"]
        assert isinstance(font, TTFFont)
        names.append(f"font{number}")
        found |= {letter for letter in needed | set(BOX + ELLIPSIS) if ord(letter) in font.cmap}
        if needed <= found:
            break
    if not names:
        found = {chr(code) for code in (*range(33, 127), *range(161, 256))}  # Latin-1
    missing = sorted(letter for letter in needed - found if unicodedata.category(letter)[0] == "L")
    if missing:
        shown = "".join(missing[:8])
        raise MissingPackage(
            f"No font here has the letters “{shown}”; install one that has them (Debian: fonts-noto-cjk for Chinese).",
            f"这台机器上的字体没有“{shown}”；请安装含有这些字的字体（Debian 的中文字体：fonts-noto-cjk）。",
        )
    if names:
        pdf.set_fallback_fonts(names[1:], exact_match=False)
    return Letters(names[0] if names else CORE, frozenset(found))


class Letters:
    """``name``: the font to set. A call replaces what it cannot draw by a box; ``ellipsis`` ends a text that is cut."""

    def __init__(self, name: str, known: frozenset[str]) -> None:
        self.name, self._known = name, known
        self.ellipsis = ELLIPSIS if ELLIPSIS in known else "..."

    def __call__(self, text: str) -> str:
        box = BOX if BOX in self._known else "?"
        return "".join(one if one in self._known or one.isspace() else box for one in text)

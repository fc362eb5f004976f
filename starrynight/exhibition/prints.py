"""Prints as PDF: a poster of one picture, and a catalogue of many, each with its title, recipe and the recipe's QR code.

The paper stays white, because a printer at home prints no dark page. Pictures are embedded as JPEG of quality 95; letters are
those of this machine's fonts. The same pictures give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import segno
from fpdf import FPDF
from PIL import Image

from starrynight.errors import BadRequest, MissingFile, MissingPackage
from starrynight.exhibition import fonts, texts
from starrynight.exhibition.texts import CM_PER_INCH, DPI
from starrynight.gallery.schema import Row
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.metadata import Recipe
from starrynight.metadata.pixels import read_with_alpha
from starrynight.painting import upscale
from starrynight.text import excerpt

PAPERS = {  # millimetres, upright (ISO 216)
    "a5": (148, 210), "a4": (210, 297), "a3": (297, 420), "a2": (420, 594), "a1": (594, 841), "a0": (841, 1189),
}  # fmt: skip
MOST = 200  # pictures of a catalogue
GOLD, INK, DIM = (158, 122, 48), (28, 26, 22), (110, 104, 92)
JPEG_QUALITY = 95
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # no file of ours says when it was written
QR_BYTES = 1200  # of a request; longer ones would give squares too small for a camera
QR_MODULE = 0.33  # millimetres of a square that a phone reads from paper; a long request's code grows until there is no room
KINDS = Text("paper", "纸张")


class Shown(NamedTuple):
    """A picture to print: its row, its file and what the gallery keeps of its recipe."""

    row: Row
    data: bytes
    recipe: dict[str, Any]


def shown(gallery: Gallery, row: Row) -> Shown:
    """Raises MissingFile or BadFile for a file that cannot be read."""
    return Shown(row, gallery.read(row), gallery.recipe(row.id))


def found(gallery: Gallery, query: Query) -> list[Shown]:
    """What a search finds, for a catalogue, the oldest first. Raises MissingFile for nothing, BadRequest for more than ``MOST``."""
    if not (count := gallery.count(query)):
        raise MissingFile(
            "No picture matches, so there is no catalogue; `starry gallery` shows what there is.",
            "没有找到这样的画，因此没有图录；可用 `starry gallery` 看看有什么。",
        )
    check_count(count)
    return [shown(gallery, row) for row in reversed(list(gallery.iter_rows(query)))]


def check_count(count: int) -> None:
    """Raises BadRequest for a catalogue of so many pictures."""
    if not 0 < count <= MOST:
        raise BadRequest(
            f"A catalogue holds 1 to {MOST} pictures, not {count}; choose fewer, or one collection.",
            f"图录收 1 至 {MOST} 幅画，而不是 {count} 幅；请少选一些，或选一个画集。",
        )


@dataclass(frozen=True)
class Poster:
    """``data``: the PDF. ``width``, ``height``: of the picture on paper, in centimetres; ``dpi`` of it there."""

    data: bytes
    width: float
    height: float
    dpi: float
    factor: int

    def message(self) -> Text:
        size = f"{self.width:.1f} × {self.height:.1f} cm"
        return Text(
            f"{size}, {self.dpi:.0f} dpi (enlarged ×{self.factor})",
            f"{size}，{self.dpi:.0f} dpi（放大 ×{self.factor}）",
        )


def poster(shown: Shown, paper: str = "a4", factor: int | None = None, lang: str = "en") -> Poster:
    """One sheet with the picture as large as its margins allow. ``factor``: 1, 2 or 4, by which it is made larger first
    (``painting.upscale``); None takes the smallest that reaches 300 dpi, or the largest that there is.

    Raises BadRequest for another paper or factor, BadFile for a damaged file, MissingPackage without the upscaler or a font.
    """
    if paper not in PAPERS or factor not in (None, 1, *upscale.FACTORS):
        raise BadRequest(
            f"A poster is of {', '.join(PAPERS)}, enlarged 1, 2 or 4 times, not {excerpt(f'{paper} ×{factor}')}.",
            f"海报的纸张可选 {'、'.join(PAPERS)}，放大 1、2 或 4 倍，而不是 {excerpt(f'{paper} ×{factor}')}。",
        )
    row, short, long = shown.row, *PAPERS[paper]
    wide = row.width > row.height
    page = (long, short) if wide else (short, long)
    margin, foot = short * 0.09, short * 0.17
    room = (page[0] - 2 * margin, page[1] - margin - foot - margin * 0.4)
    scale = min(room[0] / row.width, room[1] / row.height)  # millimetres for each pixel
    width, height = row.width * scale, row.height * scale
    pixels, factor = _enlarged(shown, factor, width / 10)
    pdf = _document(page)
    letters = fonts.use(pdf, [texts.title(row, lang), texts.line(row, lang)])
    pdf.add_page()
    left, top = (page[0] - width) / 2, margin + (room[1] - height) / 2
    code = _code(texts.recipe_of(row, shown.recipe), row)
    qr = _side(code, short * 0.1, foot * 0.8)
    _picture(pdf, pixels, left, top, width, height, short)
    below, beside = page[1] - foot, width - qr * 1.3
    _text(pdf, letters, texts.title(row, lang), left, below, beside, short * 0.085, INK, 2)
    _text(
        pdf, letters, texts.line(row, lang), left, pdf.get_y() + short * 0.008, beside, short * 0.043, DIM, 2
    )
    _qr(pdf, code, left + width - qr, below, qr)
    dpi = pixels.width / (width / 10 / CM_PER_INCH)
    return Poster(bytes(pdf.output()), width / 10, height / 10, dpi, factor)


def catalogue(pictures: Sequence[Shown], title: str = "", lang: str = "en") -> bytes:
    """A cover and one A4 page a picture, as PDF. Raises BadRequest for none or more than ``MOST``, BadFile, MissingPackage."""
    check_count(len(pictures))
    page = PAPERS["a4"]
    pdf = _document(page)
    name = title.strip() or Text("Starry Night", "璀璨星河").to(lang)
    count = Text(f"{len(pictures)} picture{'s' if len(pictures) > 1 else ''}", f"{len(pictures)} 幅").to(lang)
    pages = [(texts.title(one.row, lang), texts.facts(one.row, lang)) for one in pictures]
    used = [name, count, "0123456789", *(part for head, facts in pages for part in (head, *sum(facts, ())))]
    letters = fonts.use(pdf, used)
    _cover(pdf, letters, name, count)
    for number, (one, (head, facts)) in enumerate(zip(pictures, pages, strict=True), 1):
        _catalogue_page(pdf, letters, one, head, facts, number)
    return bytes(pdf.output())


def _cover(pdf: FPDF, letters: fonts.Letters, name: str, count: str) -> None:
    width, height = PAPERS["a4"]
    pdf.add_page()
    _text(pdf, letters, name, 30, height * 0.36, width - 60, 34, INK, 4, "C")
    pdf.set_draw_color(*GOLD)
    pdf.set_line_width(0.3)
    pdf.line(width / 2 - 16, pdf.get_y() + 8, width / 2 + 16, pdf.get_y() + 8)
    _text(pdf, letters, count, 30, pdf.get_y() + 14, width - 60, 12, DIM, 1, "C")


def _catalogue_page(
    pdf: FPDF, letters: fonts.Letters, one: Shown, head: str, facts: list[tuple[str, str]], number: int
) -> None:
    page, margin, row = PAPERS["a4"], 24.0, one.row
    pdf.add_page()
    room = (page[0] - 2 * margin, 165.0)
    scale = min(room[0] / row.width, room[1] / row.height)
    width, height = row.width * scale, row.height * scale
    pixels = _flat(read_with_alpha(one.data))
    _picture(pdf, pixels, (page[0] - width) / 2, margin + (room[1] - height) / 2, width, height, page[0])
    top = margin + room[1] + 12
    _text(pdf, letters, head, margin, top, page[0] - 2 * margin, 15, INK, 4)
    top = pdf.get_y() + 4
    for at, (name, value) in enumerate(facts):
        x = margin + (at % 2) * 66
        y = top + (at // 2) * 5.4
        _text(pdf, letters, name, x, y, 24, 8.5, DIM, 1)
        _text(pdf, letters, value, x + 24, y, 40, 8.5, INK, 1)
    code = _code(texts.recipe_of(row, one.recipe), row)
    side = _side(code, 28, 38)
    _qr(pdf, code, page[0] - margin - side, top, side)
    _text(pdf, letters, str(number), margin, page[1] - 16, page[0] - 2 * margin, 8.5, DIM, 1, "C")


# Parts of a page


def _document(page: tuple[float, float]) -> FPDF:
    pdf = FPDF(unit="mm", format=page)
    pdf.set_auto_page_break(False)
    pdf.set_margin(0)
    pdf.c_margin = 0
    pdf.set_creator("Starry Night")
    pdf.set_creation_date(EPOCH)
    return pdf


def _picture(
    pdf: FPDF, pixels: Image.Image, x: float, y: float, width: float, height: float, short: float
) -> None:
    """The picture and a thin gold line around it, ``short`` being the paper's shorter side."""
    file = io.BytesIO()
    pixels.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    pdf.image(file, x, y, width, height)
    gap = short * 0.012
    pdf.set_draw_color(*GOLD)
    pdf.set_line_width(short * 0.0012)
    pdf.rect(x - gap, y - gap, width + 2 * gap, height + 2 * gap)


def _text(
    pdf: FPDF, letters: fonts.Letters, text: str, x: float, y: float, width: float, size: float,
    colour: tuple[int, int, int], lines: int, align: str = "L",
) -> None:  # fmt: skip
    """``text`` in at most so many lines, then "…"; ``size`` in points. Leaves the y below it."""
    pdf.set_font(letters.name, size=size)
    pdf.set_text_color(*colour)
    height = size * 0.352778 * 1.45  # millimetres of a point, and leading
    shown = letters(" ".join(text.split()))
    found = _lines(pdf, shown, width)
    if len(found) > lines:
        shown, end = " ".join(found[:lines]), letters.ellipsis
        while len(_lines(pdf, shown + end, width)) > lines:
            shown = shown[:-1]
        shown += end
    pdf.set_xy(x, y)
    pdf.multi_cell(width, height, shown, align=align, new_x="LMARGIN", new_y="NEXT")


def _lines(pdf: FPDF, text: str, width: float) -> list[str]:
    """The lines into which ``text`` breaks."""
    found = pdf.multi_cell(width, 1, text, dry_run=True, output="LINES")
    assert isinstance(found, list)
    return found


def _code(recipe: Recipe, row: Row) -> segno.QRCode:
    """The request that paints the picture again; its id, where that would be too fine to be read. Always UTF-8: segno takes
    Shift_JIS for letters that Japanese has too, which readers take for other letters.
    """
    text = texts.request_text(recipe)
    text = text if len(text.encode()) <= QR_BYTES else f"starry:{row.id}"
    return segno.make_qr(text, error="m", encoding="utf-8")


def _side(code: segno.QRCode, least: float, most: float) -> float:
    """Millimetres of ``code`` on paper: ``QR_MODULE`` for each of its squares, between two limits."""
    return min(max(len(code.matrix) * QR_MODULE, least), most)


def _qr(pdf: FPDF, code: segno.QRCode, x: float, y: float, side: float) -> None:
    cell = side / len(code.matrix)
    pdf.set_fill_color(*INK)
    for down, line in enumerate(code.matrix):
        for start, length in _runs(line):
            pdf.rect(x + start * cell, y + down * cell, length * cell, cell * 1.01, style="F")


def _runs(line: Iterable[int]) -> list[tuple[int, int]]:
    """(start, length) of the dark runs of a line of modules."""
    found: list[tuple[int, int]] = []
    for at, dark in enumerate(line):
        if dark and found and sum(found[-1]) == at:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        elif dark:
            found.append((at, 1))
    return found


def _enlarged(shown: Shown, factor: int | None, width: float) -> tuple[Image.Image, int]:
    """The picture's pixels for ``width`` centimetres of paper, and by how much they were enlarged."""
    pixels = read_with_alpha(shown.data, flat=True)
    row = shown.row
    if factor is None:
        wanted = DPI * width / CM_PER_INCH / row.width
        factor = next((one for one in (1, *upscale.FACTORS) if one >= wanted), upscale.FACTORS[-1])
        while factor > 1:
            try:
                upscale.check(row.width, row.height, factor)
                return _flat(upscale.upscale(pixels, factor)), factor
            except (BadRequest, MissingPackage):  # too large for it, or not installed: print what there is
                factor //= 2
    elif factor > 1:
        upscale.check(row.width, row.height, factor)
        pixels = upscale.upscale(pixels, factor)
    return _flat(pixels), factor


def _flat(pixels: Any) -> Image.Image:
    """RGB on white paper."""
    image = Image.fromarray(pixels)
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white

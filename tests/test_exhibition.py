"""What leaves the gallery: pages that stand alone, posters and catalogues; and files that are sent to it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pypdfium2
import pytest
from PIL import Image
from served import ask, gallery_in, without_worker

from starrynight.errors import BadRequest, MissingPackage
from starrynight.exhibition import fonts, page, prints, texts
from starrynight.gallery.schema import Row
from starrynight.gallery.store import Gallery
from starrynight.picture import Picture, Verdict, make_recipe
from starrynight.request import PaintRequest

HOSTILE = '江雪 </h1><script>alert(1)</script><img src="https://evil.example/x.png"> "quoted" \u202e'
REQUEST = {"prompt": "星夜下的静谧村庄", "style": "oil", "seed": 7, "width": 96, "height": 64, "steps": 3}


def hang(gallery: Gallery, **fields: object) -> Row:
    request = PaintRequest.from_dict(REQUEST | fields)
    pixels = np.full((request.height, request.width, 3), (200, 120, 40), np.uint8)
    pixels[:, : request.width // 2] = (20, 60, 160)
    return gallery.add(Picture(pixels, make_recipe(request, verdict=Verdict("hang"))))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with gallery_in(tmp_path_factory.mktemp("home")) as gallery:
        yield gallery


@pytest.fixture(scope="module")
def row(gallery: Gallery) -> Row:
    return hang(gallery)


@pytest.fixture(scope="module")
def here(gallery: Gallery, row: Row) -> Iterator[str]:
    with without_worker(gallery) as address:
        yield address


def read(data: bytes) -> list[tuple[str, Image.Image]]:
    """The text of each page of a PDF, and the page as pixels, two a point."""
    document = pypdfium2.PdfDocument(data)
    return [(one.get_textpage().get_text_range(), one.render(scale=2).to_pil()) for one in document]


def decoded(data: bytes, page: int = 0) -> str:
    """What a camera reads in the QR code at the right and below on a page, from one distance or another (288 to 576 dpi)."""
    for scale in (4, 5, 6, 8):
        image = np.asarray(pypdfium2.PdfDocument(data)[page].render(scale=scale).to_pil().convert("L"))
        height, width = image.shape
        text, _, _ = cv2.QRCodeDetector().detectAndDecode(image[int(height * 0.6) :, int(width * 0.6) :])
        if text:
            return text
    return ""


@pytest.mark.parametrize(("paper", "millimetres"), [("a4", (297, 210)), ("a2", (594, 420))])
def test_a_poster_has_the_picture_its_title_and_a_code_that_paints_it_again(
    gallery: Gallery, row: Row, paper: str, millimetres: tuple[int, int]
) -> None:
    made = prints.poster(prints.shown(gallery, row), paper, 1, "zh")
    ((text, sheet),) = read(made.data)
    assert np.allclose(np.array(sheet.size) / 2 / 72 * 25.4, millimetres, atol=0.5)
    assert "星夜下的静谧村庄" in text
    assert "厚涂油画" in text or "油画" in text
    middle = np.asarray(sheet)[sheet.height // 3, :].astype(int)
    for x, colour in ((0.3, (20, 60, 160)), (0.7, (200, 120, 40))):
        assert np.abs(middle[int(sheet.width * x)][:3] - colour).max() < 8
    if paper == "a4":
        code = json.loads(decoded(made.data))
        assert {name: code[name] for name in REQUEST} == REQUEST
    assert made.dpi == pytest.approx(96 / (made.width / 2.54))
    assert made.width / made.height == pytest.approx(1.5)
    assert prints.poster(prints.shown(gallery, row), paper, 1, "zh").data == made.data


def test_the_code_of_a_long_prompt_grows_and_is_still_read(gallery: Gallery) -> None:
    prompt = "在一个星光如水的夜里，" * 7
    shown = prints.shown(gallery, hang(gallery, prompt=prompt, seed=12))
    for data, page_of in ((prints.catalogue([shown]), 1), (prints.poster(shown, "a4", 1).data, 0)):
        assert json.loads(decoded(data, page_of))["prompt"] == prompt
    code = prints._code(texts.recipe_of(shown.row, shown.recipe), shown.row)
    assert prints._side(code, 21, 28) >= prints.QR_MODULE * len(code.matrix) > 21


def test_a_poster_enlarges_as_print_asks(gallery: Gallery, row: Row) -> None:
    made = prints.poster(prints.shown(gallery, row), "a5")
    assert made.factor == 4
    assert made.dpi == pytest.approx(4 * 96 / (made.width / 2.54))
    for bad in ({"paper": "b5"}, {"factor": 3}):
        with pytest.raises(BadRequest, match="A poster is of"):
            prints.poster(prints.shown(gallery, row), **bad)  # type: ignore[arg-type]


def test_what_is_printed_is_told_in_centimetres() -> None:
    assert texts.print_size(1181, 591) == pytest.approx((10.0, 5.0), abs=0.01)


def test_a_catalogue_has_a_cover_and_a_page_for_each_picture(gallery: Gallery, row: Row) -> None:
    other = hang(
        gallery, prompt="a lighthouse 😀 " + "and the sea " * 60, style=None, seed=8, width=64, height=96
    )
    shown = [prints.shown(gallery, one) for one in (row, other)]
    printed = prints.catalogue(shown, "冬夜", "zh")
    pages = read(printed)
    assert len(pages) == 3
    assert "冬夜" in pages[0][0]
    assert "2 幅" in pages[0][0]
    assert "星夜下的静谧村庄" in pages[1][0]
    assert "a lighthouse □ and the sea" in pages[2][0].replace("\r\n", " ")
    assert "…" in pages[2][0]  # four lines of the long title
    assert json.loads(decoded(printed, 1))["seed"] == 7
    for wrong in ([], shown * 101):
        with pytest.raises(BadRequest, match="1 to 200 pictures"):
            prints.catalogue(wrong)


def test_letters_that_no_font_has_are_refused_and_latin_needs_none(
    gallery: Gallery, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "installed", lambda: ())
    with pytest.raises(MissingPackage, match="星"):
        prints.poster(prints.shown(gallery, row), factor=1)
    plain = row.__class__(**{**vars(row), "prompt": "a village"})
    shown = prints.Shown(plain, gallery.read(row), gallery.recipe(row.id))
    text = read(prints.catalogue([shown], "Winter"))[1][0]
    assert "a village" in text


class Links(HTMLParser):
    """What a page would load, and the elements it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.meta: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.tags.append(tag)
        self.loaded += [values[name] for name in ("src", "href") if name in values]
        if tag == "meta" and "property" in values:
            self.meta[values["property"]] = values["content"]


def test_a_page_stands_alone_and_its_texts_are_text(gallery: Gallery) -> None:
    row = hang(gallery, prompt=HOSTILE, seed=9)
    shown = prints.shown(gallery, row)
    written = page.single_file(shown, "en").decode()
    links = Links(written)
    (source,) = links.loaded
    assert source.startswith("data:image/png;base64,")
    assert "script" not in links.tags
    assert links.tags.count("img") == 1
    assert "numbers checked at every stage" in written
    assert "--seed 9" in written
    assert links.meta["og:title"].startswith("江雪 </h1>")
    assert "og:image" not in links.meta
    files = page.folder_of(shown, "https://example.org/snow/", "zh")
    assert files["picture.png"] == gallery.read(row)
    assert Links(files["index.html"].decode()).loaded == ["picture.png"]
    assert Links(files["index.html"].decode()).meta["og:image"] == "https://example.org/snow/picture.png"
    with pytest.raises(BadRequest, match="https://"):
        page.folder_of(shown, "example.org")


def test_routes_answer_with_the_files(here: str, gallery: Gallery, row: Row) -> None:
    found = ask(here, f"/api/pictures/{row.id}/page?lang=zh")
    assert (found.status, found.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "attachment" in found.headers["content-disposition"]
    assert "星夜下的静谧村庄" in found.body.decode()
    poster = ask(here, f"/api/pictures/{row.id}/poster?paper=a5&factor=1")
    assert "星夜" in read(poster.body)[0][0]
    assert len(read(ask(here, "/api/catalogue", {"pictures": [row.id], "title": "x"}).body)) == 2
    searched = ask(here, "/api/catalogue?text=" + "%E6%98%9F%E5%A4%9C")
    assert len(read(searched.body)) == 2
    assert ask(here, "/api/catalogue?text=nothing-like-it").status == 404
    zipped = ask(here, "/api/zip", {"pictures": [row.id]})
    with zipfile.ZipFile(io.BytesIO(zipped.body)) as archive:
        (name,) = [one for one in archive.namelist() if one.startswith("pictures/")]
        assert archive.read(name) == gallery.read(row)
    assert ask(here, "/api/zip", {"pictures": []}).status == 400
    assert ask(here, "/api/zip", {"pictures": ["0" * 32]}).status == 404


def test_a_file_that_is_sent_hangs_with_its_recipe_once(here: str, gallery: Gallery) -> None:
    request = PaintRequest.from_dict(REQUEST | {"prompt": "sent", "seed": 21})
    data = Picture(np.zeros((64, 96, 3), np.uint8), make_recipe(request)).encode()
    first, again = (ask(here, "/api/pictures", data, content_type="image/png") for _ in range(2))
    assert (first.status, first.json["new"], again.json["new"]) == (201, True, False)
    assert gallery.get(first.json["id"]).seed == 21
    bmp = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(bmp, "BMP")
    converted = ask(here, "/api/pictures", bmp.getvalue(), content_type="image/bmp").json
    assert converted["warnings"]
    assert gallery.get(converted["id"]).format == "png"
    for wrong in (b"", b"no picture", data[:200]):
        assert ask(here, "/api/pictures", wrong, content_type="image/png").status == 422


def test_commands_write_the_same(gallery: Gallery, row: Row, tmp_path: Path) -> None:
    def starry(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from starrynight.cli import main; main()", "gallery", *words],
            capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "STARRY_LANG": "en"},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert re.search(
        r"22\.\d × 14\.\d cm, \d+ dpi \(enlarged ×1\)",
        starry("poster", row.id[:8], "-o", "a.pdf", "--factor", "1"),
    )
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    starry("page", row.id[:8], "-o", "snow")
    assert (tmp_path / "snow" / "picture.png").read_bytes() == gallery.read(row)
    assert "1 picture" in starry("catalogue", "静谧", "-o", "c.pdf")
    assert "https://" in starry("page", row.id[:8], "-o", "x", "--url", "ftp://a", code=2)

"""Pictures in formats that the gallery does not keep: read as the pixels they mean, told, or refused by their name."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from starrynight.cli import run
from starrynight.errors import BadFile, NoRecipe
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery
from starrynight.jobs.uploads import Uploads
from starrynight.metadata import pixels, read_pixels, read_recipe
from starrynight.metadata.files import PIXEL_FORMATS, open_picture
from starrynight.models import catalogue
from starrynight.painting import checking
from starrynight.painting.canvas import fit_init_image
from starrynight.request import PaintRequest

pillow_heif = pytest.importorskip("pillow_heif")
pillow_heif.register_heif_opener(thumbnails=False)
# Few colours, so that a palette holds them all.
COLOURS = np.array([[250, 10, 40], [0, 255, 0], [12, 34, 56], [255, 255, 255]], np.uint8)
PIXELS = COLOURS[np.arange(24 * 36).reshape(24, 36) % 7 % 4]
BLOCKS = COLOURS.reshape(2, 2, 3).repeat(24, 0).repeat(36, 1)
A1111 = "a quiet lake\nSteps: 8, Sampler: Euler, CFG scale: 2, Seed: 77, Size: 36x24"

LOSSLESS = {
    "gif": ("GIF", {}), "bmp": ("BMP", {}), "dib": ("DIB", {}), "tif": ("TIFF", {}), "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "ppm": ("PPM", {}), "jp2": ("JPEG2000", {}), "qoi": ("QOI", {}), "heic": ("HEIF", {"quality": -1, "chroma": 444, "matrix_coefficients": 0}),
}  # fmt: skip


def encoded(kind: str, image: Image.Image, **more: object) -> bytes:
    out = io.BytesIO()
    format_, options = LOSSLESS[kind]
    image.save(out, format_, **options, **more)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    return Gallery(tmp_path / "gallery")


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_format_has_the_pixels_of_its_twin(gallery: Gallery, tmp_path: Path, kind: str) -> None:
    picture = Image.fromarray(PIXELS)
    if kind == "gif":
        picture = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    data = encoded(kind, picture)
    limit = 2 if kind == "heic" else 0  # its colour transform rounds
    assert np.abs(read_pixels(data).astype(int) - PIXELS).max() <= limit
    path = tmp_path / "in" / f"one.{kind}"
    path.parent.mkdir()
    path.write_bytes(data)

    for added in (1, 0):  # a second import finds the same picture
        done = gallery.import_pictures(path.parent, bare=True)
        assert (done.added, done.already_present, done.refused) == (added, 1 - added, ())
        assert [name for name, note in done.converted if "PNG" in note.en and "PNG" in note.zh] == [path.name]
    row = gallery.search(Query()).rows[0]
    assert (row.format, row.width, row.height) == ("png", 36, 24)
    assert np.abs(read_pixels(gallery.read(row)).astype(int) - PIXELS).max() <= limit

    start, note = fit_init_image(path, 36, 24)  # a picture to start from
    assert note is None
    assert np.abs(np.asarray(start).astype(int) - PIXELS).max() <= limit
    checking.check(PaintRequest(prompt="a lake", init_image=str(path), seed=1), catalogue.find("firefly"))
    assert Uploads().save(data)[1:] == (36, 24)


@pytest.mark.parametrize("kind", ["gif", "tif"])
def test_of_several_frames_the_first_is_read_and_that_is_told(
    gallery: Gallery, tmp_path: Path, kind: str
) -> None:
    first, second = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
    path = tmp_path / f"two.{kind}"
    path.write_bytes(encoded(kind, first, save_all=True, append_images=[second]))
    done = gallery.import_pictures(path, bare=True)
    assert ["first of its frames" in note.en for _, note in done.converted] == [True]
    assert (read_pixels(gallery.read(gallery.search(Query()).rows[0])) == PIXELS).all()
    request = PaintRequest(prompt="a lake", init_image=str(path), seed=1)
    told = checking.warnings_for(request, catalogue.find("firefly"))
    assert any("several frames" in en for en, _ in told)
    assert any("第一帧" in zh for _, zh in told)


@pytest.mark.parametrize("kind", ["gif", "tif", "jp2", "qoi", "heic"])
def test_transparency_stays_in_the_gallery_and_is_told_of_a_picture_to_start_from(
    gallery: Gallery, tmp_path: Path, kind: str
) -> None:
    alpha = np.zeros((24, 36, 1), np.uint8)
    alpha[:, 18:] = 255
    path = tmp_path / f"half.{kind}"
    path.write_bytes(encoded(kind, Image.fromarray(np.concatenate([PIXELS, alpha], axis=2))))
    gallery.import_pictures(path, bare=True)
    stored = np.asarray(Image.open(io.BytesIO(gallery.read(gallery.search(Query()).rows[0]))).convert("RGBA"))
    assert (stored[..., 3] == alpha[..., 0]).all()
    assert np.abs(stored[:, 18:, :3].astype(int) - PIXELS[:, 18:]).max() <= 2
    assert [note.en.split(" are ")[1] for note in pixels.notes(path)] == ["white."]
    assert (read_pixels(path)[:, :18] == 255).all()


def test_what_a_file_says_of_itself_stays(gallery: Gallery, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = A1111
    image = Image.fromarray(PIXELS)
    (tmp_path / "a.tif").write_bytes(encoded("tif", image, exif=exif))
    (tmp_path / "b.gif").write_bytes(encoded("gif", image, comment=A1111.encode()))
    for name in ("a.tif", "b.gif"):
        data, _ = pixels.as_png(tmp_path / name)
        assert (read_recipe(data).prompt, read_recipe(data).seed) == ("a quiet lake", 77), name
    done = gallery.import_pictures(tmp_path / "a.tif", bare=False)
    assert done.added == 1
    assert json.loads(json.dumps(gallery.search(Query(text="lake")).rows[0].prompt)) == "a quiet lake"


# Formats that hold a text, and how it is written into them.
def _described() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = A1111
    return exif


TEXTS = {
    "gif": {"comment": A1111.encode()}, "tif": {"exif": _described()}, "lzw.tif": {"exif": _described()},
    "heic": {"exif": _described().tobytes()}, "jp2": {"comment": A1111},
}  # fmt: skip


@pytest.mark.parametrize("kind", LOSSLESS)
def test_the_commands_read_what_import_takes(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``starry inspect`` finds the recipe or says that there is none; ``starry upscale`` keeps it, whatever it writes."""
    path = tmp_path / f"one.{kind}"
    path.write_bytes(encoded(kind, Image.fromarray(BLOCKS), **TEXTS.get(kind, {})))
    if kind in TEXTS:
        recipe = read_recipe(path)
        assert (recipe.prompt, recipe.seed) == ("a quiet lake", 77)
        run(["inspect", str(path)])
        assert "a quiet lake" in capsys.readouterr().out
    else:
        with pytest.raises(NoRecipe):
            run(["inspect", str(path)])
    for suffix in ("png", "jpg", "webp"):
        place = tmp_path / f"large.{suffix}"
        run(["upscale", str(path), "-o", str(place)])
        assert Image.open(place).size == (144, 96)
        small = np.asarray(Image.open(place).convert("RGB").resize((72, 48), Image.Resampling.BOX)).astype(
            int
        )
        assert np.abs(small - read_pixels(path)).mean() < 12
        if kind in TEXTS:
            assert read_recipe(place).seed == 77


@pytest.mark.parametrize("kind", ["gif", "tif", "jp2", "qoi", "heic"])
def test_transparency_stays_when_a_picture_is_made_larger(tmp_path: Path, kind: str) -> None:
    alpha = np.zeros((24, 36, 1), np.uint8)
    alpha[:, 18:] = 255
    (tmp_path / f"half.{kind}").write_bytes(
        encoded(kind, Image.fromarray(np.concatenate([PIXELS, alpha], axis=2)))
    )
    run(["upscale", str(tmp_path / f"half.{kind}")])
    stored = np.asarray(Image.open(tmp_path / "half-x2.png").getchannel("A"))
    assert (stored[:, :30] < 128).all()
    assert (stored[:, 42:] > 128).all()


FTYP = b"\0\0\0\x18ftyp"
REFUSED = {
    "JPEG XL": (b"\xff\x0a" + b"\0" * 20, "JPEG XL"), "JPEG XL in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    "Photoshop": (b"8BPS\0\1", "Photoshop"), "PDF": (b"%PDF-1.7", "PDF"), "a video": (FTYP + b"isom\0\0\2\0isomiso2", "video"),
    "QuickTime": (FTYP + b"qt  \0\0\0\0qt  \0\0\0\0", "video"), "WebM": (b"\x1aE\xdf\xa3", "WebM"), "AVI": (b"RIFF\0\0\0\0AVI LIST", "video"),
    "SVG": (b"<?xml version='1.0'?><svg></svg>", "SVG"), "a web page": (b"\n<!DOCTYPE html><html>", "web page"),
    "a zip": (b"PK\3\4", "zip"), "an icon": (b"\0\0\1\0\1\0", "icon"), "OpenEXR": (b"\x76\x2f\x31\x01", "OpenEXR"),
    "Fujifilm": (b"FUJIFILMCCD-RAW 0201", "raw file"), "Panasonic": (b"IIU\0\x18\0", "raw file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_its_name(gallery: Gallery, tmp_path: Path, case: str) -> None:
    data, name = REFUSED[case]
    path = tmp_path / "in" / "one.png"
    path.parent.mkdir()
    path.write_bytes(data)
    for formats in ({}, {"formats": PIXEL_FORMATS}):
        with pytest.raises(BadFile, match=name) as caught:
            open_picture(path, **formats)
        assert name not in caught.value.zh or name.isascii()
    done = gallery.import_pictures(path.parent, bare=True)
    assert [(file, name in error.en) for file, error in done.refused] == [("one.png", True)]
    assert done.converted == ()


@pytest.mark.parametrize(
    "tags", [{50706: b"\1\4\0\0"}, {254: 1}, {262: 32803}], ids=["DNG", "a preview first", "a sensor"]
)
def test_a_cameras_raw_file_is_not_taken_for_its_preview(tmp_path: Path, tags: dict[int, object]) -> None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    made = ImageFileDirectory_v2()
    for tag, value in tags.items():
        made[tag] = value
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "TIFF", tiffinfo=made)
    (tmp_path / "photo.dng").write_bytes(out.getvalue())
    with pytest.raises(BadFile, match="raw file"):
        read_pixels(tmp_path / "photo.dng")


def test_a_photo_without_its_decoder_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded("heic", Image.fromarray(PIXELS))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as Python has it for what is not installed
    with pytest.raises(BadFile, match="HEIC photo; install its decoder") as caught:
        read_pixels(data)
    assert "starry-night[heic]" in caught.value.zh


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_file_cut_short_is_broken(kind: str) -> None:
    data = encoded(kind, Image.fromarray(PIXELS))
    with pytest.raises(BadFile):
        read_pixels(data[: len(data) // 3])

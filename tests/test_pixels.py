"""Decoding of untrusted pictures: the same pixels as Pillow's own conversion, in bounded memory, within limits."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from attacks.pictures import chunk
from hung import finished, process
from PIL import Image

from starrynight.errors import BadFile
from starrynight.jobs.uploads import Uploads
from starrynight.metadata import pixels
from starrynight.metadata.pixels import Limits, read_image, read_pixels


def noise(mode: str, size: tuple[int, int] = (9, 31)) -> Image.Image:
    depth = {"I;16": 2, "1": 1, "L": 1, "P": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    rng = np.random.default_rng(7)
    if mode == "1":
        return Image.fromarray(rng.integers(0, 2, (size[1], size[0])).astype(bool))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (size[1], size[0]), np.uint16))
    image = Image.frombytes(mode, size, rng.bytes(size[0] * size[1] * depth))
    if mode == "P":
        image.putpalette(rng.bytes(768))
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def over_white(image: Image.Image) -> np.ndarray:
    """The whole picture composited at once."""
    over = image.convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB"))


PICTURES = {
    "grey": ("L", "PNG", {}),
    "black and white": ("1", "PNG", {}),
    "colour": ("RGB", "PNG", {}),
    "a transparent colour": ("RGB", "PNG", {"transparency": (1, 2, 3)}),
    "alpha": ("RGBA", "PNG", {}),
    "grey and alpha": ("LA", "PNG", {}),
    "palette": ("P", "PNG", {}),
    "a palette with alpha": ("P", "PNG", {"transparency": bytes(range(256))}),
    "jpeg": ("RGB", "JPEG", {}),
    "grey jpeg": ("L", "JPEG", {}),
    "cmyk jpeg": ("CMYK", "JPEG", {}),
    "webp": ("RGB", "WEBP", {}),
    "webp with alpha": ("RGBA", "WEBP", {"lossless": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", PICTURES)
def test_pixels_in_strips_are_those_of_the_whole_picture(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "STRIP", 30)  # three rows of nine pixels at once
    mode, kind, options = PICTURES[case]
    data = saved(noise(mode), kind, **options)
    whole = Image.open(io.BytesIO(data))
    expected = over_white(whole) if whole.has_transparency_data else np.array(whole.convert("RGB"))
    assert np.array_equal(read_pixels(data), expected)


def test_sixteen_bit_grey_in_strips_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "STRIP", 30)
    image = noise("I;16")
    expected = np.rint(np.asarray(image) / 257).astype(np.uint8)
    assert np.array_equal(read_pixels(saved(image, "PNG"))[..., 1], expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_made_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(noise("RGB"), "PNG", exif=exif)
    assert read_pixels(data).shape == ((31, 9, 3) if orientation < 5 else (9, 31, 3))
    assert not read_image(data).info


def bare_png(width: int, height: int, colour: int, depth: int, raw: bytes, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    parts = (chunk(b"IHDR", header), palette, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


KINDS = [(0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 4), (3, 8), (4, 8), (6, 8), (6, 16)]


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_a_png_whose_last_row_is_missing_is_refused(colour: int, depth: int, interlaced: int) -> None:
    raw = pixels._raw_size(13, 11, depth, colour, 0, 0, interlaced)
    assert read_pixels(bare_png(13, 11, colour, depth, bytes(raw), interlaced)).shape == (11, 13, 3)
    for missing in (raw // 2, 1):
        with pytest.raises(BadFile, match="truncated or broken"):
            read_pixels(bare_png(13, 11, colour, depth, bytes(raw - missing), interlaced))


@pytest.mark.parametrize(
    ("width", "height", "sentence"),
    [(8000, 5001, "40 million"), (16_385, 2, "16384 pixels"), (2, 16_385, "16384 pixels"), (1, 39_000_000, "16384 pixels")],
)  # fmt: skip
def test_an_upload_beyond_its_limits_is_refused_before_it_is_decoded(
    tmp_path: Path, width: int, height: int, sentence: str
) -> None:
    with pytest.raises(BadFile, match=sentence):
        Uploads(tmp_path).save(bare_png(width, height, 0, 8, b""))
    assert list(tmp_path.iterdir()) == []


def test_a_large_picture_is_scaled_to_fit() -> None:
    assert read_image(saved(noise("RGB", (300, 20)), "PNG"), Limits(fit=100)).size == (100, 7)


def test_at_most_two_pictures_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decode, inside, most = pixels._upright_rgb, [], []
    both = threading.Barrier(2, timeout=20)

    def counted(*arguments):
        inside.append(1)
        most.append(len(inside))
        both.wait()  # passes only while exactly two are inside
        try:
            return decode(*arguments)
        finally:
            inside.pop()

    monkeypatch.setattr(pixels, "_upright_rgb", counted)
    data = saved(noise("RGB"), "PNG")
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(read_pixels, [data] * 8))) == 8
    assert max(most) == pixels.MAX_DECODERS == 2


PEAK = """
import resource, sys
from starrynight.jobs.uploads import LIMITS
from starrynight.metadata.pixels import read_image
data = open(sys.argv[1], "rb").read()
read_image(open(sys.argv[2], "rb").read(), LIMITS)  # imports everything
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_image(data, LIMITS)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize(("colour", "depth", "limit"), [(2, 8, 250), (6, 8, 420), (3, 8, 320)])
def test_the_largest_upload_takes_a_bounded_peak_of_memory(
    tmp_path: Path, colour: int, depth: int, limit: int
) -> None:
    """``limit``: MB; 40 million pixels are 160 MB in Pillow, and a palette adds 40."""
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    for path, side in ((large, 6320), (small, 8)):
        raw = bytes(pixels._raw_size(side, side, depth, colour, 0, 0, 0))
        path.write_bytes(bare_png(side, side, colour, depth, raw))
    assert int(finished(process(PEAK, large, small))) < limit

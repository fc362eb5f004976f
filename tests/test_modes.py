"""Every mode of Pillow, from every container that holds it, has the pixels of its eight-bit twin."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from starrynight.errors import BadFile
from starrynight.metadata import modes, read_pixels

RAMP = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
GREY = Image.fromarray(RAMP)
COLOUR = Image.merge(
    "RGB", [GREY, GREY.transpose(Image.Transpose.FLIP_LEFT_RIGHT), Image.fromarray(RAMP // 2 + 40)]
)
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV",
         "I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # fmt: skip


def in_mode(mode: str) -> tuple[Image.Image, Image.Image]:
    """A picture in ``mode``, and the eight-bit twin it means."""
    if mode == "1":
        black = Image.fromarray(np.where(RAMP > 127, 255, 0).astype(np.uint8))
        return black.convert("1"), black
    if mode.startswith("I;16"):
        wide = RAMP.astype(">u2" if mode == "I;16B" else "<u2") * 257
        return Image.frombytes(mode, GREY.size, wide.tobytes()), GREY
    if mode in ("I", "F"):
        return Image.fromarray(RAMP.astype(np.int32 if mode == "I" else np.float32)), GREY
    if mode == "LAB":
        profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
        pale = Image.blend(
            COLOUR, GREY.convert("RGB"), 0.7
        )  # the edges of sRGB are rounded coarsely in eight-bit LAB
        return ImageCms.profileToProfile(pale, *profiles, outputMode="LAB"), pale
    if mode in ("L", "LA", "La"):
        via = GREY.convert("LA") if mode == "La" else GREY
        return via.convert(mode), GREY
    if mode in ("P", "PA"):
        return GREY.convert("P").convert(mode), GREY
    return (COLOUR.convert("RGBA") if mode == "RGBa" else COLOUR).convert(mode), COLOUR


def rgb(picture: Image.Image) -> np.ndarray:
    return np.array(picture.convert("RGB")).astype(int)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_has_the_pixels_of_its_eight_bit_twin(mode):
    picture, twin = in_mode(mode)
    assert picture.mode == mode
    found = rgb(modes.converter(picture)(picture))
    assert np.abs(found - rgb(twin)).max() <= (9 if mode in ("HSV", "YCbCr", "LAB") else 1)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")]
    + [(mode, "TIFF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "I;16", "I;16B", "F")]
    + [(mode, "WEBP") for mode in ("RGB", "RGBA")]
    + [(mode, "JPEG") for mode in ("L", "RGB", "CMYK")]
    + [(mode, "AVIF") for mode in ("RGB", "RGBA")],
)  # fmt: skip
def test_a_file_has_the_pixels_of_its_eight_bit_twin(mode, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    picture, twin = in_mode(mode)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0} if mode != "L" else {"quality": 100},
               "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})  # fmt: skip
    found = read_pixels(saved(picture, kind, **options)).astype(int)
    assert np.abs(found - rgb(twin)).max() <= (
        9 if kind in ("JPEG", "AVIF") or mode in ("YCbCr", "LAB") else 1
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0, 1, 256, dtype=np.float32), None),  # light in 0..1
        (np.linspace(0, 255, 256, dtype=np.float32), None),
        (np.linspace(0, 65535, 256, dtype=np.float32), None),
        (np.arange(256, dtype=np.int32) * 257, None),
        (np.arange(256, dtype=np.int32) * (1 << 22), None),
        (
            np.array([-1.0, 0.0, 0.5, 1.0, 3.0], np.float32),
            [0, 0, 128, 255, 255],
        ),  # highlights above white are white
        (np.zeros(4, np.float32), [0] * 4),
    ],
)
def test_the_scale_of_wide_numbers_is_read_from_the_whole_picture(values, expected):
    found = read_pixels(saved(Image.fromarray(values[None]), "TIFF"))[0, :, 0]
    wanted = np.arange(256) if expected is None else np.array(expected)
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_picture_with_nan_or_inf_is_refused(value):
    values = np.full((2, 2), 0.5, np.float32)
    values[1, 1] = value
    with pytest.raises(BadFile):
        read_pixels(saved(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_of_few_bits_keeps_its_colours_and_its_transparency(bits):
    count = 2**bits
    picture = Image.fromarray((np.arange(count * 4) % count).astype(np.uint8).reshape(4, count), "P")
    picture.putpalette([part for number in range(count) for part in (number * 255 // (count - 1), 7, 90)])
    found = read_pixels(saved(picture, "PNG", bits=bits, transparency=0))
    assert found[0, 0].tolist() == [255] * 3
    assert found[0, -1].tolist() == [255, 7, 90]


def test_sixteen_bit_colour_is_reduced():
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = np.stack([RAMP[0], RAMP[0][::-1], RAMP[0] // 2], 1).astype(">u2") * 257
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 256, 1, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(b"\0" + row.tobytes())) + chunk(b"IEND", b"")
    assert np.abs(read_pixels(data)[0].astype(int) - row.astype(int) // 257).max() <= 1


def wide_profile() -> bytes:
    """A matrix profile with wider primaries than sRGB, made from sRGB's by exchanging its red and green."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace(b"rXYZ", b"temp").replace(b"gXYZ", b"rXYZ").replace(b"temp", b"gXYZ")
    for text in ("sRGB built-in", "sRGB"):
        data = data.replace(text.encode("utf-16-be"), ("x" * len(text)).encode("utf-16-be")).replace(
            text.encode(), b"x" * len(text)
        )
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_embedded_profile_is_followed(mode):
    """Its red is sRGB's green: the picture that says so is green."""
    red = Image.new(mode, (4, 4), "red")
    assert (
        np.abs(
            read_pixels(saved(red, "PNG", icc_profile=wide_profile()))[0, 0].astype(int) - [0, 255, 0]
        ).max()
        <= 2
    )
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_pixels(saved(red, "PNG", icc_profile=srgb))[0, 0].tolist() == [255, 0, 0]
    assert read_pixels(saved(red, "PNG", icc_profile=b"not a profile"))[0, 0].tolist() == [255, 0, 0]

"""Every mode of Pillow as eight bits of sRGB over white: what the numbers of a picture mean.

Pillow's own ``convert`` clips where a mode holds more than eight bits (16-bit grey becomes white), refuses LAB, and takes
premultiplied colours and embedded profiles as they are. Sources: Pillow, "Concepts: modes"; ICC.1:2022, 6.3 for profiles.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

Convert = Callable[[Image.Image], Image.Image]

_STRAIGHT = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA", "RGBX": "RGB", "HSV": "RGB", "YCbCr": "RGB"}
_UNIT_LIMIT = (
    16.0  # floats up to here are light in 0..1 with highlights above it, as photographers' tools write TIFF
)


def needs_conversion(picture: Image.Image) -> bool:
    """Whether the picture is anything but eight-bit sRGB without transparency."""
    return picture.mode != "RGB" or picture.has_transparency_data or _transform(picture) is not None


def converter(picture: Image.Image) -> Convert:
    """A function from a strip of ``picture`` to RGB; what depends on the whole picture (its largest value, its profile) is
    found once. Raises ValueError for NaN or Inf among its numbers.
    """
    scale, transform = _scale(picture), _transform(picture)

    def convert(strip: Image.Image) -> Image.Image:
        strip = _eight_bits(strip, scale)
        if transform is None:
            return _over_white(strip)
        if strip.mode == transform.input_mode:
            return transform.apply(strip)
        over = strip.convert("RGBA")  # only RGB keeps transparency beside a profile
        colours = transform.apply(over.convert("RGB"))
        colours.putalpha(over.getchannel("A"))
        return _over_white(colours)

    return convert


def with_alpha(picture: Image.Image) -> Image.Image:
    """The whole picture as RGBA with straight alpha. Raises ValueError as ``converter``."""
    return _eight_bits(picture, _scale(picture)).convert("RGBA")


def _scale(picture: Image.Image) -> float:
    """What the value of white is divided by to make 255; 1 for modes of eight bits."""
    if picture.mode.startswith("I;16"):
        return 257.0  # 65535 / 255
    if picture.mode not in ("I", "F"):
        return 1.0
    low, high = (float(value) for value in picture.getextrema())  # type: ignore[arg-type]
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("NaN or Inf among the numbers of a picture")
    if picture.mode == "F" and high <= _UNIT_LIMIT:
        return 1 / 255
    if high <= 255:
        return 1.0
    return 257.0 if high <= 65535 else high / 255


def _eight_bits(picture: Image.Image, scale: float) -> Image.Image:
    if picture.mode[0] not in "IF":
        return picture.convert(_STRAIGHT[picture.mode]) if picture.mode in _STRAIGHT else picture
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("NaN or Inf among the numbers of a picture")
    grey = Image.fromarray(np.rint(np.clip(values / scale, 0, 255)).astype(np.uint8))
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _over_white(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return picture.convert("RGB")


def _transform(picture: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """From the picture's own colours to sRGB: for LAB, and for an embedded profile of another colour space (Display P3,
    Adobe RGB, CMYK presses). None without one, for sRGB's own and for one that cannot be read.
    """
    if picture.mode == "LAB":
        return _build(ImageCms.createProfile("LAB"), "LAB")
    data = picture.info.get("icc_profile")
    if not isinstance(data, bytes) or picture.mode not in ("RGB", "RGBA", "RGBX", "P", "CMYK"):
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        name = ImageCms.getProfileDescription(profile)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    if "srgb" in name.lower() or space != ("CMYK" if picture.mode == "CMYK" else "RGB"):
        return None
    return _build(profile, "CMYK" if space == "CMYK" else "RGB")


def _build(
    profile: ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile, mode: str
) -> ImageCms.ImageCmsTransform | None:
    try:
        built = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    return built

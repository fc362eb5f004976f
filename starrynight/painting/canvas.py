"""What a picture begins from: the first picture fitted to the frame, and the mask of what is painted.

The mask comes from a file, from the sides by which the first picture is extended (outpainting), or from both. What it keeps
is the first picture to the bit: ``Canvas.over`` puts the painted pixels over it. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from starrynight.errors import BadRequest
from starrynight.i18n import Text
from starrynight.metadata.pixels import notes, read_pixels, read_with_alpha
from starrynight.request import PaintRequest

# Pixels inside the mask over which the painted picture sets in: the side of a latent cell of every family of the catalogue.
FEATHER = 8


@dataclass(frozen=True)
class Canvas:
    """``picture``: RGB, as large as the request. ``mask``: float32 [H, W], 1 where it is painted and 0 where it is kept; None
    paints all of it. ``remarks`` for the recipe.
    """

    picture: Image.Image
    mask: np.ndarray | None = None
    remarks: tuple[Text, ...] = ()

    def over(self, painted: np.ndarray) -> np.ndarray:
        """``painted`` (float32 [H, W, 3] in 0..1) where the mask paints, the first picture elsewhere, exactly.

        ``painted`` sets in over ``FEATHER`` pixels within the mask, because a decoder does not meet the kept colours exactly.
        """
        if self.mask is None:
            return painted
        from scipy.ndimage import distance_transform_edt  # not for the commands that only check a request

        kept = np.asarray(self.picture, dtype=np.float32) / 255
        depth = distance_transform_edt(np.pad(self.mask > 0, 1, mode="edge"))[1:-1, 1:-1]
        share = (self.mask * np.clip(depth / FEATHER, 0, 1))[..., None].astype(np.float32)
        return np.where(share > 0, kept + (painted - kept) * share, kept)

    def over_preview(self, preview: np.ndarray | None) -> np.ndarray | None:
        """As ``over``, for a small uint8 preview [h, w, 3]."""
        if self.mask is None or preview is None:
            return preview
        size = (preview.shape[1], preview.shape[0])
        mask = Image.fromarray(np.uint8(self.mask * 255), "L").resize(size)
        return np.asarray(Image.composite(Image.fromarray(preview), self.picture.resize(size), mask))


def canvas_of(request: PaintRequest) -> Canvas | None:
    """The canvas of a request; None without an ``init_image``. Raises what ``fit_init_image`` and ``read_mask`` raise."""
    if request.init_image is None:
        return None
    left, top, right, bottom = request.extend or (0, 0, 0, 0)
    frame = (request.width - left - right, request.height - top - bottom)
    picture, note = fit_init_image(request.init_image, *frame)
    remarks = (*notes(request.init_image), *((note,) if note else ()))
    if request.mask is None and request.extend is None:
        return Canvas(picture, None, remarks)
    mask = np.zeros(frame[::-1], np.float32) if request.mask is None else _fitted_mask(request, frame)
    sides = ((top, bottom), (left, right))
    # Mirrored at its edges: the first steps then find the picture's own colours outside of it.
    grown = Image.fromarray(np.pad(np.asarray(picture), (*sides, (0, 0)), mode="symmetric"))
    return Canvas(grown, np.pad(mask, sides, constant_values=1.0), remarks)


def fit_init_image(path: str | Path, width: int, height: int) -> tuple[Image.Image, Text | None]:
    """An RGB picture of exactly ``width`` × ``height``, and how it was fitted ("crop 400x300→256x256"), if it was.

    The picture covers the frame and is cropped evenly around its middle. Raises MissingFile or BadFile.
    """
    picture = Image.fromarray(read_pixels(path))
    if picture.size == (width, height):
        return picture, None
    sizes = f"{picture.width}x{picture.height}→{width}x{height}"
    note = Text(f"crop {sizes}", f"裁剪 {sizes}")
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS), note


def read_mask(path: str | Path) -> np.ndarray:
    """float32 [H, W] in 0..1: 1 is painted. White is painted and black kept; in a picture with transparent pixels, what is
    transparent is painted, as in OpenAI's image edits. Raises MissingFile or BadFile.
    """
    pixels = read_with_alpha(path)
    if pixels.shape[-1] == 4 and (pixels[..., 3] < 255).any():
        return 1 - pixels[..., 3].astype(np.float32) / 255
    return np.asarray(Image.fromarray(pixels[..., :3]).convert("L"), np.float32) / 255


def check_mask(request: PaintRequest) -> None:
    """Raises BadRequest for a mask of another size than its picture, or one that keeps everything; MissingFile or BadFile."""
    if request.mask is None or request.init_image is None:
        return
    mask = read_mask(request.mask)
    height, width = mask.shape
    picture = Image.fromarray(read_pixels(request.init_image))
    if picture.size != (width, height):
        raise BadRequest(
            f"The mask is {width}×{height} and its picture {picture.width}×{picture.height}; they must have one size.",
            f"蒙版是 {width}×{height}，图片是 {picture.width}×{picture.height}；两者必须一样大。",
        )
    if not mask.any():
        raise BadRequest(
            "The mask keeps the whole picture; paint white what is to be painted anew.",
            "蒙版保留了整幅图；请把要重画的地方涂成白色。",
        )


def _fitted_mask(request: PaintRequest, frame: tuple[int, int]) -> np.ndarray:
    """The mask, scaled and cropped as ``fit_init_image`` does with its picture."""
    assert request.mask is not None
    mask = read_mask(request.mask)
    if mask.shape[::-1] == frame:
        return mask
    fitted = ImageOps.fit(Image.fromarray(mask, "F"), frame, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(fitted), 0, 1)

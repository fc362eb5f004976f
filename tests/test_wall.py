"""The destination of ``-o``, and the page of an exported zip."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from starrynight.errors import BadRequest, StorageError
from starrynight.gallery import wall
from starrynight.gallery.files import OutputPath, slug
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest


def picture(prompt: str, seed: int = 3, shade: int = 40) -> Picture:
    pixels = np.full((32, 32, 3), shade, np.uint8)
    return Picture(pixels, make_recipe(PaintRequest(prompt=prompt, seed=seed)))


def test_the_page_shows_every_picture_and_escapes_markup() -> None:
    prompts = ("星夜 <script>alert(1)</script>", 'a "quoted" & <b>bold</b> night')
    frames = [
        wall.frame(picture(prompt).encode(), f"pictures/{n} 夜.png", "zh") for n, prompt in enumerate(prompts)
    ]
    page = wall.page([*frames, wall.frame(b"not a picture at all", "pictures/<i>.png", "zh")], "zh")
    assert page.count("<figure>") == 3
    assert "星夜 &lt;script&gt;" in page
    assert not re.search(r"<script|<b>|<i>", page)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    assert "starry paint" in page
    assert "种子 3" in page
    assert 'src="pictures/0%20%E5%A4%9C.png"' in page
    assert "Nothing hangs here" in wall.page([], "en")


def test_an_equal_picture_is_written_once_and_different_ones_get_different_names(tmp_path: Path) -> None:
    folder = OutputPath(tmp_path)
    first = folder(picture("night"))
    assert folder(picture("night")) == first
    assert folder(picture("night", shade=41)) != first
    assert len(list(tmp_path.iterdir())) == 2


def test_a_prompt_cannot_leave_the_folder(tmp_path: Path) -> None:
    place = OutputPath(tmp_path)(picture("../../etc/passwd\n'; rm -rf ~"))
    assert place.parent == tmp_path
    assert slug("江雪，孤舟！") == "江雪-孤舟"
    assert slug("…") == "picture"


def test_a_taken_name_is_refused_before_painting(tmp_path: Path) -> None:
    (tmp_path / "a-2.png").write_bytes(b"")
    with pytest.raises(BadRequest, match=r"a-2\.png is already there"):
        OutputPath(tmp_path / "a.png", count=2).check()
    OutputPath(tmp_path / "a.png", count=2, overwrite=True).check()
    with pytest.raises(BadRequest):
        OutputPath(tmp_path / "a.tiff").check()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        OutputPath(tmp_path / "file").check()


def test_an_unwritable_destination_is_refused_before_painting(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="Not a directory") as caught:
        OutputPath(tmp_path / "file" / "deep" / "a.png").check()
    assert "不是文件夹" in caught.value.zh
    with pytest.raises(BadRequest, match="too long"):
        OutputPath(tmp_path / ("a" * 300 + ".png")).check()
    OutputPath(tmp_path / "new" / "folder").check()
    is_root = os.geteuid() == 0
    if is_root:  # root can write everywhere
        os.seteuid(65534)
    try:
        for place in (Path("/a.png"), Path("/proc/pictures")):
            with pytest.raises(StorageError, match="may not be written"):
                OutputPath(place).check()
    finally:
        if is_root:
            os.seteuid(0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]

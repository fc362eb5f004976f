"""Hanging, marking, throwing away and looking, in a real gallery on disk."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hung import finished, picture, process
from PIL import Image

from starrynight.errors import BadRequest, MissingFile
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery
from starrynight.metadata import read_pixels, read_recipe


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery(tmp_path / "gallery") as gallery:
        yield gallery


def test_a_picture_hangs_with_all_its_file_says(gallery: Gallery) -> None:
    painted = picture("江雪，孤舟", seed=7, style="ink", negative_prompt="blurry", format_="float16")
    row = gallery.hang(painted)
    assert (row.prompt, row.negative_prompt, row.style, row.model) == (
        "江雪，孤舟",
        "blurry",
        "ink",
        "firefly",
    )
    assert (row.seed, row.steps, row.guidance, row.width, row.height) == (7, 8, 2.0, 64, 64)
    assert (row.precision, row.verdict, row.tool) == ("float16", "hang", "Starry Night")
    assert gallery.recipe(row.id) == painted.recipe
    assert gallery.get(row.id) == gallery.get(row.id[:6]) == row
    assert np.array_equal(read_pixels(gallery.path(row)), painted.pixels)
    assert read_recipe(gallery.read(row)).request() == painted.request.to_dict()


def test_the_same_picture_twice_is_one_row_and_one_file(gallery: Gallery) -> None:
    first = gallery.hang(picture())
    assert gallery.hang(picture()) == first
    assert gallery.count() == 1
    assert len(list(gallery.files.all())) == 1


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_every_format_hangs_and_is_itself(gallery: Gallery, kind: str) -> None:
    row = gallery.hang(picture(), kind)
    assert row.format == kind
    assert Image.open(gallery.path(row)).format == kind.upper()
    assert gallery.recipe(row.id)["prompt"] == row.prompt
    assert gallery.verify().ok


HANG_TEN = """
import sys
from hung import picture
from starrynight.gallery.store import Gallery
with Gallery(sys.argv[1]) as gallery:
    for seed in range(10):
        print(gallery.hang(picture("the same words", seed + int(sys.argv[2]), size=64)).id)
"""


def test_a_hundred_pictures_at_once_from_threads_and_processes_all_survive(tmp_path: Path) -> None:
    children = [
        process(HANG_TEN, tmp_path, 10 * n) for n in range(3)
    ]  # they also open, and so make, it at once
    with Gallery(tmp_path) as gallery, ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda seed: gallery.hang(picture("the same words", seed)).id, range(30, 100)))
        for child in children:
            ids |= set(finished(child).split())
        assert len(ids) == gallery.count() == 100
        assert {row.id for row in gallery.every()} == ids
        assert gallery.verify().ok


def test_a_race_for_one_picture_ends_in_one_row(gallery: Gallery) -> None:
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda _: gallery.hang(picture()), range(16)))
    assert len({row.number for row in rows}) == gallery.count() == 1


def test_stars_notes_tags_and_collections(gallery: Gallery) -> None:
    one, two = gallery.hang(picture(seed=1)).id, gallery.hang(picture(seed=2)).id
    gallery.marks.star([one])
    gallery.marks.note(two, "for  the exhibition\nsecond line")
    gallery.marks.tag([one, two], "冬天", "loved")
    gallery.marks.untag([two], "loved")
    gallery.marks.collect("  Winter   2026 ", [one])
    assert gallery.get(one).starred
    assert gallery.get(one).tags == ("loved", "冬天")
    assert gallery.get(one).collections == ("Winter 2026",)
    assert (gallery.get(two).tags, gallery.get(two).note) == (("冬天",), "for  the exhibition\nsecond line")
    assert gallery.marks.all_tags() == {"loved": 1, "冬天": 2}
    gallery.marks.rename("Winter 2026", "冬日")
    gallery.marks.collect("empty")
    assert gallery.marks.all_collections() == {"empty": 0, "冬日": 1}
    gallery.marks.uncollect("冬日", [one])
    gallery.marks.disband("empty")
    assert gallery.marks.all_collections() == {"冬日": 0}
    gallery.marks.star([one], False)
    assert not gallery.get(one).starred


def test_marks_on_unknown_pictures_or_without_a_name_change_nothing(gallery: Gallery) -> None:
    one = gallery.hang(picture()).id
    with pytest.raises(MissingFile):
        gallery.marks.star([one, "0" * 32])
    assert not gallery.get(one).starred
    for name in ("", " \t", "\x00\x1b", "x" * 65):
        with pytest.raises(BadRequest):
            gallery.marks.tag([one], name)
    with pytest.raises(BadRequest):
        gallery.marks.tag([one], *map(str, range(65)))
    assert gallery.get(one).tags == ()
    with pytest.raises(MissingFile):
        gallery.marks.rename("nothing", "something")
    gallery.marks.collect("a")
    gallery.marks.collect("b")
    with pytest.raises(BadRequest):
        gallery.marks.rename("a", "b")


def test_markup_and_controls_stay_text(gallery: Gallery) -> None:
    one = gallery.hang(picture("<script>alert(1)</script> '; DROP TABLE pictures; --")).id
    gallery.marks.note(one, "<b>bold</b>\x1b[2J\x00")
    gallery.marks.tag([one], "<img src=x onerror=alert(1)>")
    row = gallery.get(one)
    assert row.prompt == "<script>alert(1)</script> '; DROP TABLE pictures; --"
    assert (row.note, row.tags) == ("<b>bold</b>[2J", ("<img src=x onerror=alert(1)>",))
    assert [found.id for found in gallery.search("drop table").rows] == [one]


def test_the_trash_gives_back_all_that_was_said(gallery: Gallery) -> None:
    row = gallery.hang(picture())
    gallery.marks.tag([row.id], "冬天")
    gallery.trash.throw([row.id])
    assert (gallery.count(), gallery.count(Query(trashed=True))) == (0, 1)
    assert gallery.marks.all_tags() == {}
    gallery.trash.bring_back([row.id])
    assert gallery.get(row.id).tags == ("冬天",)
    assert gallery.count() == 1


def test_a_picture_painted_again_comes_out_of_the_trash(gallery: Gallery) -> None:
    row = gallery.hang(picture())
    gallery.trash.throw([row.id])
    assert gallery.hang(picture()).trashed_at is None


def test_only_what_has_lain_in_the_trash_long_enough_goes_for_good(gallery: Gallery) -> None:
    kept, thrown = gallery.hang(picture(seed=1)), gallery.hang(picture(seed=2))
    gallery.thumbnail(thrown, 256)
    gallery.marks.tag([thrown.id], "冬天")
    gallery.trash.throw([thrown.id])
    assert gallery.expire() == 0
    assert gallery.expire(timedelta(0)) == 1
    assert not os.path.exists(gallery.path(thrown))
    assert os.path.exists(gallery.path(kept))
    assert not list((Path(gallery.thumbs.folder)).rglob("*.webp"))
    assert gallery.search("冬天").rows == ()
    assert gallery.verify().ok
    assert gallery.hang(picture(seed=2)).number > thrown.number  # a number is never used twice
    assert gallery.verify().ok


def test_thumbnails_are_made_on_the_first_look_kept_and_made_again(gallery: Gallery) -> None:
    row = gallery.hang(picture(size=640))
    assert not gallery.thumbs.folder.exists() or not list(gallery.thumbs.folder.rglob("*.webp"))
    small = gallery.thumbnail(row, 256)
    assert Image.open(io.BytesIO(small)).size == (256, 256)
    assert Image.open(io.BytesIO(small)).format == "WEBP"
    (cached,) = gallery.thumbs.folder.rglob("*.webp")
    assert cached.read_bytes() == small
    gallery.thumbs.clear()
    assert gallery.thumbnail(row, 256) == small
    os.remove(gallery.path(row))
    assert gallery.thumbnail(row, 256) == small  # from the cache
    with pytest.raises(MissingFile):
        gallery.thumbnail(row, 512)
    with pytest.raises(BadRequest):
        gallery.thumbnail(row, 333)


def test_an_unknown_id_is_one_sentence_in_two_languages(gallery: Gallery) -> None:
    for name in ("", "%", "____", "../../etc/passwd", "\x1b[2Jabcd", "0" * 32):
        with pytest.raises(MissingFile) as caught:
            gallery.get(name)
        assert "\x1b" not in caught.value.en
        assert caught.value.zh


def test_facets_count_what_hangs(gallery: Gallery) -> None:
    for seed, style in enumerate(["ink", "ink", "oil", None]):
        gallery.hang(picture(seed=seed, style=style))
    assert gallery.facets()["style"] == {"ink": 2, "oil": 1}
    assert gallery.facets()["precision"] == {"bfloat16": 4}

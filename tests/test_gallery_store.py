"""Adding, annotating, discarding and reading pictures in a gallery on disk."""

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


def test_a_row_has_the_values_of_its_file(gallery: Gallery) -> None:
    painted = picture("江雪，孤舟", seed=7, style="ink", negative_prompt="blurry", format_="float16")
    row = gallery.add(painted)
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


def test_an_equal_picture_gives_the_same_row_and_file(gallery: Gallery) -> None:
    first = gallery.add(picture())
    assert gallery.add(picture()) == first
    assert gallery.count() == 1
    assert len(list(gallery.files.all())) == 1


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_can_be_added_in_each_format(gallery: Gallery, kind: str) -> None:
    row = gallery.add(picture(), kind)
    assert row.format == kind
    assert Image.open(gallery.path(row)).format == kind.upper()
    assert gallery.recipe(row.id)["prompt"] == row.prompt
    assert gallery.verify().ok


ADD_TEN = """
import sys
from hung import picture
from starrynight.gallery.store import Gallery
with Gallery(sys.argv[1]) as gallery:
    for seed in range(10):
        print(gallery.add(picture("the same words", seed + int(sys.argv[2]), size=64)).id)
"""


def test_a_hundred_pictures_added_at_once_by_threads_and_processes_are_all_stored(tmp_path: Path) -> None:
    children = [
        process(ADD_TEN, tmp_path, 10 * n) for n in range(3)
    ]  # they also create the gallery at the same time
    with Gallery(tmp_path) as gallery, ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda seed: gallery.add(picture("the same words", seed)).id, range(30, 100)))
        for child in children:
            ids |= set(finished(child).split())
        assert len(ids) == gallery.count() == 100
        assert {row.id for row in gallery.iter_rows()} == ids
        assert gallery.verify().ok


def test_threads_that_add_the_same_picture_create_one_row(gallery: Gallery) -> None:
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda _: gallery.add(picture()), range(16)))
    assert len({row.number for row in rows}) == gallery.count() == 1


def test_stars_notes_tags_and_collections(gallery: Gallery) -> None:
    one, two = gallery.add(picture(seed=1)).id, gallery.add(picture(seed=2)).id
    gallery.annotations.star([one])
    gallery.annotations.note(two, "for  the exhibition\nsecond line")
    gallery.annotations.tag([one, two], "冬天", "loved")
    gallery.annotations.untag([two], "loved")
    gallery.annotations.collect("  Winter   2026 ", [one])
    assert gallery.get(one).starred
    assert gallery.get(one).tags == ("loved", "冬天")
    assert gallery.get(one).collections == ("Winter 2026",)
    assert (gallery.get(two).tags, gallery.get(two).note) == (("冬天",), "for  the exhibition\nsecond line")
    assert gallery.annotations.all_tags() == {"loved": 1, "冬天": 2}
    gallery.annotations.rename_collection("Winter 2026", "冬日")
    gallery.annotations.collect("empty")
    assert gallery.annotations.all_collections() == {"empty": 0, "冬日": 1}
    gallery.annotations.uncollect("冬日", [one])
    assert gallery.annotations.delete_collection("empty") == []
    assert gallery.annotations.all_collections() == {"冬日": 0}
    gallery.annotations.star([one], False)
    assert not gallery.get(one).starred


def test_annotations_with_an_unknown_id_or_an_invalid_name_change_nothing(gallery: Gallery) -> None:
    one = gallery.add(picture()).id
    with pytest.raises(MissingFile):
        gallery.annotations.star([one, "0" * 32])
    assert not gallery.get(one).starred
    for name in ("", " \t", "\x00\x1b", "x" * 65):
        with pytest.raises(BadRequest):
            gallery.annotations.tag([one], name)
    with pytest.raises(BadRequest):
        gallery.annotations.tag([one], *map(str, range(65)))
    assert gallery.get(one).tags == ()
    with pytest.raises(MissingFile):
        gallery.annotations.rename_collection("nothing", "something")
    gallery.annotations.collect("a")
    gallery.annotations.collect("b")
    with pytest.raises(BadRequest):
        gallery.annotations.rename_collection("a", "b")


UNPRINTABLE = ["\ud800", "a\udfffb", "\x00", "bold\x1b[2J", "\x85", "\ufffe"]


@pytest.mark.parametrize("text", UNPRINTABLE, ids=ascii)
def test_what_cannot_be_printed_is_refused_and_empties_nothing(gallery: Gallery, text: str) -> None:
    one = gallery.add(picture()).id
    gallery.annotations.note(one, "kept\r\nas it is")
    gallery.annotations.collect("walls", [one])
    for change in (
        lambda: gallery.annotations.note(one, text),
        lambda: gallery.annotations.tag([one], text),
        lambda: gallery.annotations.collect(text, [one]),
        lambda: gallery.annotations.rename_collection("walls", text),
    ):
        with pytest.raises(BadRequest, match=r"unprintable character \(U\+[0-9A-F]{4} at position \d"):
            change()
    row = gallery.get(one)
    assert (row.note, row.tags, row.collections) == ("kept\nas it is", (), ("walls",))
    assert gallery.annotations.all_collections() == {"walls": 1}


def test_markup_is_stored_as_text(gallery: Gallery) -> None:
    one = gallery.add(picture("<script>alert(1)</script> '; DROP TABLE pictures; --")).id
    gallery.annotations.note(one, "<b>bold</b>")
    gallery.annotations.tag([one], "<img src=x onerror=alert(1)>")
    row = gallery.get(one)
    assert row.prompt == "<script>alert(1)</script> '; DROP TABLE pictures; --"
    assert (row.note, row.tags) == ("<b>bold</b>", ("<img src=x onerror=alert(1)>",))
    assert [found.id for found in gallery.search("drop table").rows] == [one]


def test_a_restored_picture_keeps_its_annotations(gallery: Gallery) -> None:
    row = gallery.add(picture())
    gallery.annotations.tag([row.id], "冬天")
    gallery.trash.discard([row.id])
    assert (gallery.count(), gallery.count(Query(trashed=True))) == (0, 1)
    assert gallery.annotations.all_tags() == {}
    gallery.trash.restore([row.id])
    assert gallery.get(row.id).tags == ("冬天",)
    assert gallery.count() == 1


def test_adding_a_discarded_picture_restores_it(gallery: Gallery) -> None:
    row = gallery.add(picture())
    gallery.trash.discard([row.id])
    assert gallery.add(picture()).trashed_at is None


def test_only_pictures_discarded_long_enough_ago_are_deleted(gallery: Gallery) -> None:
    kept, discarded = gallery.add(picture(seed=1)), gallery.add(picture(seed=2))
    gallery.thumbnail(discarded, 256)
    gallery.annotations.tag([discarded.id], "冬天")
    gallery.trash.discard([discarded.id])
    assert gallery.delete_expired() == 0
    assert gallery.delete_expired(timedelta(0)) == 1
    assert not os.path.exists(gallery.path(discarded))
    assert os.path.exists(gallery.path(kept))
    assert not list((Path(gallery.thumbs.folder)).rglob("*.webp"))
    assert gallery.search("冬天").rows == ()
    assert gallery.verify().ok
    assert gallery.add(picture(seed=2)).number > discarded.number  # a number is never reused
    assert gallery.verify().ok


def test_thumbnails_are_made_on_first_use_and_cached(gallery: Gallery) -> None:
    row = gallery.add(picture(size=640))
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


def test_an_unknown_id_gives_one_message_in_two_languages(gallery: Gallery) -> None:
    for name in ("", "%", "____", "../../etc/passwd", "\x1b[2Jabcd", "0" * 32):
        with pytest.raises(MissingFile) as caught:
            gallery.get(name)
        assert "\x1b" not in caught.value.en
        assert caught.value.zh


def test_facets_count_the_pictures_of_each_value(gallery: Gallery) -> None:
    for seed, style in enumerate(["ink", "ink", "oil", None]):
        gallery.add(picture(seed=seed, style=style))
    assert gallery.facets()["style"] == {"ink": 2, "oil": 1}
    assert gallery.facets()["precision"] == {"bfloat16": 4}

"""Search by text, filters, similarity and colour, and paging while pictures are added."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hung import picture, plain
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from starrynight.errors import BadRequest, MissingFile
from starrynight.gallery import tokens
from starrynight.gallery.search import Query
from starrynight.gallery.similarity import srgb_to_lab
from starrynight.gallery.store import Gallery
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest

PROMPTS = (
    "星夜下的静谧村庄，梵高风格",
    "江雪，孤舟",
    "A Starry Night over the quiet harbour",
    "midnight café, neon",
    "敦煌飞天，金色",
    "ｆｕｌｌ　ｗｉｄｔｈ 東京の夜 🌙",
)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory):
    with Gallery(tmp_path_factory.mktemp("gallery")) as gallery:
        for seed, prompt in enumerate(PROMPTS):
            gallery.add(
                picture(prompt, seed, style="ink" if seed % 2 else "oil", negative_prompt="submarine")
            )
        yield gallery


def found(gallery: Gallery, text: str) -> list[int]:
    return sorted(row.seed for row in gallery.search(text).rows)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("村庄", [0]), ("夜", [0, 5]), ("星夜下", [0]), ("静谧村庄", [0]), ("孤舟", [1]), ("舟", [1]), ("雪孤", []),
        ("村庄星夜", []), ("庄梵", []), ("梵高 星夜", [0]), ("星夜，村庄", [0]), ("飞天", [4]), ("天飞", []), ("東京の夜", [5]),
        ("night", [2, 3]), ("NIGHT", [2, 3]), ("idnigh", [3]), ("star quiet", [2]), ("cafe", [3]), ("café", [3]),
        ("starry night", [2]), ("harbours", []), ("width", [5]), ("🌙", [5]), ("ink", [1, 3, 5]), ("ink 江", [1]),
        ("submarine", []), ("猫", []), ("", [0, 1, 2, 3, 4, 5]), ("  ，。!", [0, 1, 2, 3, 4, 5]),
        ('" OR words:*', []), ("NEAR(", []), ("-night", [2, 3]), ("'", [0, 1, 2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_text_search_finds_words_and_parts_of_words_in_two_languages(
    gallery: Gallery, text: str, seeds: list[int]
) -> None:
    assert found(gallery, text) == seeds
    assert gallery.count(text) == len(seeds)


def test_words_that_a_style_adds_are_found_and_the_row_keeps_the_typed_prompt(tmp_path: Path) -> None:
    request = PaintRequest(prompt="江边", seed=1, style="ink")
    painted = Picture(picture().pixels, make_recipe(request, prompt="江边，中国水墨画，留白"))
    with Gallery(tmp_path) as gallery:
        row = gallery.add(painted)
        assert row.prompt == "江边"
        assert gallery.search("水墨").rows == (row,)


def test_tags_and_notes_are_found_until_they_are_removed(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        row = gallery.add(picture("sea"))
        gallery.annotations.tag([row.id], "冬天的海")
        gallery.annotations.note(row.id, "for grandmother")
        assert found(gallery, "天的") == found(gallery, "grandmother") == found(gallery, "sea") == [1]
        gallery.annotations.untag([row.id], "冬天的海")
        gallery.annotations.note(row.id, "")
        assert found(gallery, "冬天") == found(gallery, "grandmother") == []
        assert gallery.verify().index_ok


HAN = st.text("星夜村庄江雪孤舟々の𠮷", min_size=1, max_size=12)
LATIN = st.text("abcxyzéß19", min_size=1, max_size=40)


@given(st.lists(HAN | LATIN, min_size=1, max_size=5), st.data())
@settings(max_examples=100, deadline=None)
def test_every_part_of_every_word_matches_the_tokens_of_its_text(
    texts: list[str], data: st.DataObject
) -> None:
    text = data.draw(st.sampled_from(texts))
    start = data.draw(st.integers(0, len(text) - 1))
    part = text[start : data.draw(st.integers(start + 1, len(text)))]
    row = " " + tokens.tokenize(*texts)
    for phrase in tokens.query_phrases(part):
        assert f" {' '.join(phrase)}" in row


def test_the_index_of_one_very_long_word_stays_small() -> None:
    assert len(tokens.tokenize("a" * 10_000)) < 20 * 10_000


def test_several_filters_must_all_match(gallery: Gallery) -> None:
    assert {r.seed for r in gallery.search(Query(style="ink")).rows} == {1, 3, 5}
    assert {r.seed for r in gallery.search(Query(text="夜", style="ink", verdict="hang")).rows} == {5}
    assert {r.seed for r in gallery.search(Query(model="firefly", precision="bfloat16")).rows} == set(
        range(6)
    )
    for nothing in (
        Query(model="sdxl"),
        Query(precision="float32"),
        Query(tool="ComfyUI"),
        Query(tag="x"),
        Query(starred=True),
    ):
        assert gallery.search(nothing).rows == ()


def test_dates_stars_tags_and_collections_filter(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        one, two = gallery.add(picture(seed=1)), gallery.add(picture(seed=2))
        gallery.annotations.star([one.id])
        gallery.annotations.tag([two.id], "冬天")
        gallery.annotations.collect("walls", [one.id])
        now = datetime.now(UTC)
        expected = {
            Query(starred=True): [one.id], Query(starred=False): [two.id], Query(tag="冬天"): [two.id],
            Query(collection="walls"): [one.id], Query(since=now - timedelta(hours=1)): [two.id, one.id],
            Query(since=now): [], Query(until=now): [two.id, one.id], Query(until=now - timedelta(hours=1)): [],
            Query(oldest_first=True): [one.id, two.id],
        }  # fmt: skip
        for query, ids in expected.items():
            assert [row.id for row in gallery.search(query).rows] == ids, query


@pytest.mark.parametrize(
    "query", [Query(), Query(oldest_first=True), Query(text="夜"), Query(colour="#808080")]
)
def test_paging_repeats_and_skips_nothing_while_pictures_are_added(tmp_path: Path, query: Query) -> None:
    with Gallery(tmp_path) as gallery:
        before = [gallery.add(picture(seed=seed)).number for seed in range(12)]
        seen, after = [], None
        for turn in range(3):
            page = gallery.search(query, after, limit=5)
            seen += [row.number for row in page.rows]
            after = page.next
            if not query.colour:
                gallery.add(picture(seed=100 + turn))
        assert len(seen) == len(set(seen))
        assert set(before) <= set(seen) if not query.colour else set(before) == set(seen)
        assert (after is None) or query.oldest_first


def test_an_invalid_cursor_is_refused(gallery: Gallery) -> None:
    for after in ("x", "-1", "1; DROP TABLE pictures", "٣", "9" * 30):
        with pytest.raises(BadRequest):
            gallery.search(Query(), after)


def waves(seed: int) -> np.ndarray:
    """A picture with large soft shapes, like a painting."""
    rough = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(rough).resize((128, 128), Image.Resampling.BICUBIC))


def add(gallery: Gallery, pixels: np.ndarray, prompt: str, kind: str = "png") -> str:
    return gallery.add(Picture(pixels, make_recipe(PaintRequest(prompt=prompt, seed=1))), kind).id


def test_similarity_finds_the_same_scene_smaller_darker_and_recompressed(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        scene = waves(1)
        for seed in range(2, 40):
            add(gallery, waves(seed), f"other {seed}")
        small = np.asarray(Image.fromarray(scene).resize((96, 96), Image.Resampling.BICUBIC))
        alike = {
            add(gallery, small, "small"), add(gallery, (scene * 0.85).astype(np.uint8), "dark"),
            add(gallery, scene, "jpeg", "jpeg"),
        }  # fmt: skip
        one = add(gallery, scene, "one")
        nearest = [row.id for row in gallery.search(Query(like=one), limit=3).rows]
        assert set(nearest) == alike
        assert [row.prompt for row in gallery.search(Query(like=one, text="dar")).rows] == ["dark"]
        discarded = nearest[0]
        gallery.trash.discard([discarded])
        assert discarded not in [row.id for row in gallery.search(Query(like=one)).rows]
        gallery.trash.empty()
        assert gallery.count(Query(like=one)) == 40
        with pytest.raises(MissingFile):
            gallery.search(Query(like=discarded))


def test_search_by_colour_returns_the_nearest_first(tmp_path: Path) -> None:
    with Gallery(tmp_path) as gallery:
        for colour, name in (
            ((20, 40, 110), "night"),
            ((240, 190, 40), "gold"),
            ((30, 50, 140), "dusk"),
            ((200, 30, 30), "red"),
        ):
            gallery.add(plain(colour, name))
        assert [row.prompt for row in gallery.search(Query(colour="#14286e")).rows[:2]] == ["night", "dusk"]
        assert gallery.search(Query(colour="F0BE28")).rows[0].prompt == "gold"
        for wrong in ("blue", "#12", "#12345g", "javascript:alert(1)"):
            with pytest.raises(BadRequest):
                gallery.search(Query(colour=wrong))


def test_lab_values_agree_with_known_colours() -> None:
    """CIE L*a*b* of sRGB's primaries under D65, as published."""
    known = {
        (255, 255, 255): (100, 0, 0),
        (0, 0, 0): (0, 0, 0),
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 0, 255): (32.30, 79.19, -107.86),
    }
    assert np.allclose(srgb_to_lab(np.array(list(known))), list(known.values()), atol=0.05)

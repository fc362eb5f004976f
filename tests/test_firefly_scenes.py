"""Scenes, their pictures and their captions: determinism, every style with every kind, captions that are
true.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from starrynight.firefly.drawing.landscape import render
from starrynight.firefly.drawing.palettes import PALETTES
from starrynight.firefly.drawing.scene import HOURS, KINDS, STYLES, SUBJECTS, WEATHERS, compose
from starrynight.firefly.training import data
from starrynight.firefly.training.data import caption
from starrynight.painting.styles import styles


def test_a_seed_gives_one_scene_and_one_picture() -> None:
    for seed, style in enumerate(STYLES):
        scene = compose(seed, style=style)
        assert scene == compose(seed, style=style)
        first = render(scene, 96)
        assert first.dtype == np.uint8
        assert first.shape == (96, 96, 3)
        assert np.array_equal(first, render(scene, 96))


def test_every_style_draws_every_kind_with_visible_contrast() -> None:
    for style in STYLES:
        for number, kind in enumerate(KINDS):
            picture = render(compose(number, style=style, kind=kind), 64).astype(float)
            assert picture.std() > 8, (style, kind)


def test_a_larger_picture_has_the_same_composition() -> None:
    for style in ("dunhuang", "ukiyoe", "papercut", "watercolor"):
        scene = compose(11, style=style, kind="village", hour="night", weather="clear")
        small, large = render(scene, 256).astype(float), render(scene, 512).astype(float)
        shrunk = large.reshape(256, 2, 256, 2, 3).mean((1, 3))
        assert np.abs(small - shrunk).mean() < 8, style


def test_a_scene_contains_what_it_is_composed_with() -> None:
    scene = compose(3, style="ink", subjects=("snow", "boat", "lake"), hour="dusk")
    assert (scene.style, scene.hour) == ("ink", "dusk")
    assert {"snow", "boat", "lake"} <= set(scene.subjects)
    assert compose(4, subjects=("apsara",)).kind == "apsara"
    night = compose(5, subjects=("stars", "village", "crescent"))
    assert (night.hour, night.weather) == ("night", "clear")
    assert not night.has("moon", "sun")
    for wrong in ({"style": "baroque"}, {"kind": "moonbase"}, {"hour": "tea"}, {"subjects": ("robot",)}):
        with pytest.raises(ValueError, match="is none of"):
            compose(1, **wrong)


def test_a_size_out_of_range_raises() -> None:
    with pytest.raises(ValueError, match="outside 64"):
        render(compose(0), 32)


def test_a_scenes_facts_do_not_contradict_each_other() -> None:
    for seed in range(2000):
        scene = compose(seed)
        assert len({"moon", "crescent", "sun"} & set(scene.subjects)) <= 1
        assert len({"sea", "lake", "river"} & set(scene.subjects)) <= 1
        assert not (
            scene.weather in ("rain", "snow") and scene.has("stars", "moon", "crescent", "sun", "aurora")
        )
        assert not (scene.has("sun") and scene.hour == "night")
        assert scene.has("rain") == (scene.weather == "rain")
        assert not scene.has("boat") or scene.has("lake", "river", "sea", "reflection")


def test_every_style_is_drawn_with_every_kind_often_enough() -> None:
    pairs = Counter((scene.style, scene.kind) for scene in map(compose, range(40_000)))
    kinds = Counter(kind for (_, kind), count in pairs.items() for _ in range(count))
    assert all(pairs[style, kind] / kinds[kind] > 0.05 for style in STYLES for kind in KINDS)


def test_palettes_cover_styles_and_hours() -> None:
    assert set(PALETTES) == {(style, hour) for style in STYLES for hour in HOURS}


def test_captions_are_short_never_empty_and_in_two_languages() -> None:
    rng = np.random.default_rng(0)
    texts = [caption(compose(seed), rng) for seed in range(4000)]
    chinese = sum(any("一" <= sign <= "鿿" for sign in text) for text in texts) / len(texts)
    assert 0.48 < chinese < 0.62
    assert all(text.strip() for text in texts)
    assert np.mean([len(text.split()) <= 24 and len(text) <= 170 for text in texts]) > 0.99
    assert len(set(texts)) > 3000


def test_caption_lines_need_only_facts_a_scene_can_have() -> None:
    facts = {*SUBJECTS, *HOURS, *WEATHERS}
    for table in data._PHRASES["line"].values():
        for needs, lines in table:
            assert lines, needs
            assert facts.issuperset(needs.split()), needs


def test_every_style_preset_uses_phrases_of_the_training_captions() -> None:
    """A phrase that Firefly was not trained on has any effect: "paper grain" painted paper cuts."""
    for style, preset in styles().items():
        for language, (_, after) in preset.prompt.items():
            phrases = data._PHRASES["style"][language][style]
            suffix = after.strip("，, ")
            assert any(suffix.startswith(phrase) for phrase in phrases), (style, suffix)
            unknown = suffix.removeprefix(max(filter(suffix.startswith, phrases), key=len)).strip("，, ")
            assert not unknown or unknown in ("雨夜倒影", "rain and reflections"), (style, unknown)


@pytest.mark.parametrize(
    ("style", "subjects", "hour", "wanted"),
    [
        ("oil", ("stars", "village"), "night", "星夜下的静谧村庄"),
        ("oil", ("stars", "village", "swirls"), "night", "a starry night over a quiet village"),
        ("cyberpunk", ("skyline", "rain"), "night", "雨夜的霓虹都市"),
        ("ink", ("snow", "boat", "lake"), "dawn", "江雪，孤舟"),
    ],
)
def test_common_prompts_are_among_the_captions(
    style: str, subjects: tuple[str, ...], hour: str, wanted: str
) -> None:
    rng = np.random.default_rng(1)
    scene = compose(8, style=style, subjects=subjects, hour=hour)
    assert any(wanted in caption(scene, rng) for _ in range(600))

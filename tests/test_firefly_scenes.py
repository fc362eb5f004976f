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
from starrynight.firefly.training import captions
from starrynight.firefly.training.captions import PHRASES, caption, facts_of, mentions, named_in
from starrynight.painting.styles import styles

# What else ``facts_of`` knows.
FACTS_OF_FIGURES = ("one", "two", "three", "several", "close", "small")
# Names that two subjects share, because people call both so.
SHARED = {"月亮", "月", "桥", "the moon", "moon", "a bridge"}


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
    facts = {*SUBJECTS, *HOURS, *WEATHERS, *KINDS, *STYLES, *FACTS_OF_FIGURES, "moonlit"}
    for table in PHRASES["line"].values():
        for needs, lines in table:
            assert lines, needs
            assert facts.issuperset(needs.split()), needs


def test_every_style_preset_uses_phrases_of_the_training_captions() -> None:
    """A phrase that Firefly was not trained on has any effect: "paper grain" painted paper cuts."""
    for style, preset in styles().items():
        for language, (_, after) in preset.prompt.items():
            phrases = PHRASES["style"][language][style]
            suffix = after.strip("，, ")
            assert any(suffix.startswith(phrase) for phrase in phrases), (style, suffix)
            unknown = suffix.removeprefix(max(filter(suffix.startswith, phrases), key=len)).strip("，, ")
            assert not unknown or unknown in ("雨夜倒影", "rain and reflections"), (style, unknown)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_name_has_phrases_and_none_is_shared(language: str) -> None:
    assert set(PHRASES["thing"][language]) == set(SUBJECTS)
    assert set(PHRASES["kind"][language]) == set(KINDS)
    owners: dict[str, set[str]] = {}
    for name, phrases in PHRASES["thing"][language].items():
        assert 4 <= len(set(phrases)) == len(phrases) <= 8, name
        for phrase in [*phrases, *PHRASES["counted"][language].get(name, ())]:
            owners.setdefault(phrase, set()).add(name)
    assert {phrase for phrase, names in owners.items() if len(names) > 1} <= SHARED


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_subject_has_lines(language: str) -> None:
    named = {fact for needs, _ in PHRASES["line"][language] for fact in needs.split()}
    assert set(SUBJECTS) <= named


def test_captions_are_true_of_their_scene() -> None:
    """A caption states no fact that does not hold, and names are shared by few subjects."""
    rng = np.random.default_rng(2)
    twins = ({"moon", "crescent"}, {"bridge", "stonebridge"})
    for seed in range(3000):
        scene = compose(seed)
        text = caption(scene, rng)
        holds = facts_of(scene)
        holds |= {name for pair in twins if pair & holds for name in pair}
        assert named_in(text) <= holds, (text, named_in(text) - holds)


def test_captions_name_every_subject_in_both_languages() -> None:
    rng = np.random.default_rng(3)
    found: set[tuple[str, bool]] = set()
    for subject in SUBJECTS:
        for seed in range(40):
            scene = compose(seed, subjects=(subject,))
            text = caption(scene, rng)
            if mentions(text, "thing", subject):
                found.add((subject, any("一" <= sign <= "鿿" for sign in text)))
    assert found == {(subject, chinese) for subject in SUBJECTS for chinese in (True, False)}


def test_any_scene_has_captions() -> None:
    rng = np.random.default_rng(4)
    for kind in KINDS:
        for number, subject in enumerate(SUBJECTS):
            assert caption(compose(number, kind=kind, subjects=(subject,)), rng).strip()


def test_people_and_animals_are_named_most_often_and_nearly_always_in_their_own_pictures() -> None:
    rng = np.random.default_rng(5)
    shown, named = Counter[str](), Counter[str]()
    for scene in map(compose, range(4000)):
        facts = named_in(caption(scene, rng))
        own = "own" if scene.kind in ("portrait", "creature") else "other"
        for subject in scene.subjects:
            group = (
                own if subject in captions.FIGURES else "background" if subject in ("clouds", "trees") else ""
            )
            shown[group] += 1
            named[group] += subject in facts
    shares = {group: named[group] / shown[group] for group in shown}
    assert shares["own"] > 0.95
    assert shares["other"] > 2 * shares["background"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a sunflower", set()), ("sunflowers", {"sunflowers"}), ("the sun", {"sun"}), ("向日葵", {"sunflowers"}),
        ("crescent moon", {"crescent"}), ("full moon", {"moon"}), ("a moonlit night", {"night"}),
        ("rainbow", {"rainbow"}), ("彩虹", {"rainbow"}), ("rain", {"rain"}), ("train", {"train"}), ("雨", {"rain"}),
        ("灯塔", {"lighthouse"}), ("塔", {"pagoda"}), ("火山", {"volcano"}), ("山", {"mountains"}),
        ("猫头鹰", {"owl"}), ("猫", {"cat"}), ("熊猫", {"panda"}), ("鲸鱼", {"whale"}), ("鱼", {"fish"}),
        ("长城", {"greatwall"}), ("城市", {"skyline"}), ("城堡", {"castle"}), ("火车", {"train"}), ("风车", {"windmill"}),
        ("睡莲", {"lilies"}), ("荷花", {"lotus"}), ("lily pads", {"lilies"}), ("lotus", {"lotus"}), ("梅花", {"plum"}),
        ("樱花", {"blossoms"}), ("梅花鹿", {"deer"}), ("两只狐狸", {"fox"}), ("three cranes", {"crane"}),
        ("catalogue, foxglove, dogma, owlish", set()), ("woman with an umbrella", {"umbrella"}),
        ("独钓寒江雪", {"snow", "fisherman"}), ("THE GREAT WALL!", {"greatwall"}), ("a harbour", {"harbour"}),
        ("石拱桥", {"stonebridge"}), ("拱桥", {"bridge"}), ("black crows", {"crows"}), ("燕子", {"swallows"}), ("海 浪花", {"sea", "waves"}),
    ],
)  # fmt: skip
def test_phrases_are_matched_whole_and_the_longest_first(text: str, named: set[str]) -> None:
    assert named_in(text) == named


@pytest.mark.parametrize(
    ("count", "zh", "en"), [(1, "一只", "fox"), (2, "两只", "two "), (3, "三只", "three ")]
)
def test_captions_count_animals(count: int, zh: str, en: str) -> None:
    rng = np.random.default_rng(6)
    scene = next(s for s in (compose(n, subjects=("fox",)) for n in range(200)) if s.count == count)
    texts = [caption(scene, rng) for _ in range(200)]
    numbers = {"一只", "两只", "三只", "two ", "three ", "pair of "}
    wrong = numbers - {zh, en, *(["pair of "] if count == 2 else [])}
    assert any(zh in text for text in texts)
    assert any(en in text for text in texts)
    assert not any(number in text for number in wrong for text in texts)


def test_captions_place_what_is_on_one_side() -> None:
    """With the places of the painted subjects as with the scene's own."""
    rng = np.random.default_rng(7)
    sides = {"left": ("左", "left"), "right": ("右", "right")}
    seen = set()
    for seed in range(60):
        scene = compose(seed, subjects=("lighthouse",), kind="sea", weather="rain")
        boxes = {"lighthouse": (0.1, 0.2, 0.3, 0.7) if seed % 2 else (0.7, 0.2, 0.9, 0.7)}
        texts = [caption(scene, rng, boxes) for _ in range(40)]
        right = "left" if seed % 2 else "right"
        wrong = {"left": "right", "right": "left"}[right]
        seen |= {right for text in texts if any(word in text for word in sides[right])}
        places = [text for text in texts if any(word in text for word in sides[wrong])]
        assert not any("lighthouse on the" in text or f"{sides[wrong][0]}边的灯塔" in text for text in places)
    assert seen == {"left", "right"}


def test_what_is_small_is_in_the_distance() -> None:
    rng = np.random.default_rng(9)
    scenes = [compose(seed, kind="desert", subjects=("camel",)) for seed in range(100)]
    for height, said in ((0.2, True), (0.4, False)):
        boxes = {"camel": (0.4, 0.5, 0.6, 0.5 + height)}
        texts = [caption(scene, rng, boxes) for scene in scenes for _ in range(3)]
        assert any("camel in the distance" in text or "远处的骆驼" in text for text in texts) == said


def test_close_views_are_called_so() -> None:
    rng = np.random.default_rng(8)
    for subject, words in (("fox", ("close-up", "特写")), ("monk", ("portrait", "肖像"))):
        kind = "creature" if subject == "fox" else "portrait"
        texts = [caption(compose(seed, kind=kind, subjects=(subject,)), rng) for seed in range(200)]
        assert all(any(word in text for text in texts) for word in words)
        far = [caption(compose(seed, kind="snow", subjects=(subject,)), rng) for seed in range(200)]
        assert not any(word in text for text in far for word in words)


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

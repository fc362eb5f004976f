"""The vocabulary beside a model's weights: which words of a prompt the model never read, and what is near them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from starrynight.firefly.drawing.scene import compose
from starrynight.firefly.training import captions
from starrynight.models.catalogue import SHIPPED
from starrynight.models.vocabulary import FILE_NAME, Vocabulary
from starrynight.models.wording import near


def entry(zh: str, en: str) -> dict[str, list[str]]:
    return {"zh": zh.split(), "en": en.split(", ")}


@pytest.fixture(scope="module")
def small() -> Vocabulary:
    """A model that read little."""
    return Vocabulary(
        things={
            "fox": entry("狐狸 红狐狸", "a fox, fox, a red fox, foxes"),
            "lighthouse": entry("灯塔 海边的灯塔", "a lighthouse, lighthouse"),
            "boat": entry("小船 孤舟 船", "a boat, a little boat"),
            "dog": entry("狗 小狗", "a dog, dog"),
            "horse": entry("马 骏马", "a horse"),
            "deer": entry("鹿", "a deer"),
            "lake": entry("湖 湖水", "a lake, still water"),
            "moon": entry("月亮 圆月", "the moon, full moon"),
            "sunflowers": entry("向日葵", "sunflowers"),
            "greatwall": entry("长城", "the great wall"),
            "fisherman": entry("渔翁 老渔翁", "a fisherman, an old fisherman"),
            "panda": entry("熊猫", "a panda, a panda bear"),
        },
        styles={
            "ink": entry("水墨 水墨画", "ink wash, chinese ink wash painting"),
            "oil": entry("梵高风格 油画", "van gogh, oil painting"),
            "ukiyoe": entry("浮世绘", "ukiyo-e, japanese woodblock print"),
        },
        hours={"night": entry("夜晚 夜", "at night, night")},
        weathers={"rain": entry("雨 雨中", "rain, in the rain")},
        kinds={"forest": entry("森林", "forest")},
        lines={"zh": ["草地上的狐狸"], "en": ["a fox in a meadow"]},
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "", "   ", "，。！", "12345 :-)", "🌌", "a fox", "A Red FOX in the rain!", "two foxes, still water",
        "the old, quiet, beautiful lighthouse at night", "masterpiece, best quality, 8k, a boat",
        "a sunflower beside a lake", "boats on the lake", "a fox in meadows", "ukiyo-e, full moon", "the fox's boat",
        "(a fox:1.2), [lake]", "panda bears", "湖边有一只狐狸", "一只可爱的小狗坐在船上", "美丽的夜晚，月亮",
        "草地", "雨中的灯塔，水墨画", "a night-time lake", "大船", "<lora:ink:0.8> 狐狸", "rainy, foxy", "老渔翁 red fox", "水墨画风格的长城，高清", "森林里有三只鹿",
    ],
)  # fmt: skip
def test_a_prompt_of_known_and_common_words_has_no_unknown_ones(small: Vocabulary, prompt: str) -> None:
    assert small.unknown(prompt) == ()


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a robot on a Bicycle", ("robot", "Bicycle")),
        ("a dinosaur, a fox and a DINOSAUR egg", ("dinosaur", "DINOSAUR", "egg")),
        ("a polar bear", ("polar", "bear")),
        ("a stone wall by the lake", ("stone", "wall")),
        ("sunglasses", ("sunglasses",)),
        ("foxglove in the rain", ("foxglove",)),
        ("a café", ("café",)),
        ("恐龙", ("恐龙",)),
        ("湖边有一只恐龙", ("恐龙",)),
        ("长颈鹿和斑马", ("长颈鹿", "斑马")),
        ("河马在湖里", ("河马",)),
        ("老虎", ("老虎",)),
        ("火箭飞过长城", ("火箭",)),
        ("宇航员坐在船上看月亮", ("宇航员",)),
        ("水墨画，Batman 站在灯塔旁", ("Batman",)),
        ("a fox and 机器人", ("机器人",)),
        ("two-headed dragon-fox", ("two-headed", "dragon-fox")),
        ("a riverboat near the lake's shore", ("riverboat", "shore")),
        ("<lora:dragon:0.8> a fox, (castle:1.2)", ("castle",)),
        ("穿和服的狐狸", ("和服",)),
        ("一条中国龙", ("中国龙",)),
        ("上海的夜晚", ("上海",)),
        ("西湖断桥", ("西湖", "断桥")),
        ("貓和狗", ("貓",)),
        ("きつね と 湖", ("きつね",)),
        ("лиса и озеро, a fox", ("лиса", "озеро")),
    ],
)
def test_words_the_model_never_read_are_named_in_order(
    small: Vocabulary, prompt: str, unknown: tuple[str, ...]
) -> None:
    assert small.unknown(prompt) == unknown


@pytest.mark.parametrize(
    ("word", "language", "first"),
    [
        ("puppy", "en", "dog"), ("Puppies", "en", "dog"), ("ship", "en", "boat"), ("pond", "en", "lake"),
        ("lighthose", "en", "lighthouse"), ("wolf", "en", "fox"), ("puppy", "zh", "狗"), ("ship", "zh", "小船"),
        ("渔夫", "zh", "渔翁"), ("轮船", "zh", "小船"), ("池塘", "zh", "湖"), ("狼", "zh", "狐狸"), ("灰狼", "zh", "狐狸"),
        ("calligraphy", "en", "ink wash"), ("燈塔", "en", "lighthouse"), ("大灰狼", "en", "fox"), ("渔夫", "en", "fisherman"),
    ],
)  # fmt: skip
def test_what_is_near_a_word_is_suggested(small: Vocabulary, word: str, language: str, first: str) -> None:
    assert small.suggestions(word, language)[:1] == (first,)


def test_long_prompts_are_read_in_little_time(small: Vocabulary) -> None:
    """A few milliseconds each here."""
    begun = time.monotonic()
    assert small.unknown("湖边的狐狸" * 2000) == ()
    assert small.unknown("恐龙飞机" * 2000) == ("恐龙", "飞机")
    assert len(small.unknown("dragon " * 5000)) == 1
    small.suggestions("恐龙飞机" * 2000, "zh")
    small.suggestions("dragon" * 2000, "en")
    assert time.monotonic() - begun < 10


def test_suggestions_are_few_and_only_of_what_the_model_knows(small: Vocabulary) -> None:
    assert small.suggestions("qwxzv", "en") == ()
    assert small.suggestions("饕餮", "zh") == ()
    assert small.suggestions("tiger", "en") == ()
    assert len(small.suggestions("animal", "en", count=1)) == 1
    assert small.suggestions("bowl", "en") == ()  # no owl
    assert small.suggestions("节日", "zh") == ()  # no 太阳


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a fox, ink wash", ("ink",)), ("雨，水墨画，油画", ("ink", "oil")), ("van gogh", ("oil",)),
        ("浮世绘 and oil painting", ("ukiyoe", "oil")), ("inkwell, oil lamp", ()), ("狐狸", ()),
    ],
)  # fmt: skip
def test_styles_are_found_in_a_prompt(small: Vocabulary, prompt: str, named: tuple[str, ...]) -> None:
    assert small.styles_named(prompt) == named


def test_a_vocabulary_is_read_as_it_was_written(small: Vocabulary, tmp_path: Path) -> None:
    small.write(tmp_path)
    assert Vocabulary.read(tmp_path) == small
    assert Vocabulary.read(str(tmp_path)) == small


@pytest.mark.parametrize(
    "content",
    [
        None, "", "{", "[]", "null", '{"things": {}}', '{"format": "starry-night-vocabulary", "version": 1}',
        '{"format": "starry-night-vocabulary", "version": 99}', "[" * 100_000,
        '{"format": "starry-night-vocabulary", "version": 1, "things": [], "styles": 3, "hours": {}}',
    ],
)  # fmt: skip
def test_a_folder_without_a_readable_vocabulary_has_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content)
    assert Vocabulary.read(tmp_path) is None


@pytest.mark.parametrize("phrases", ["狐狸", None, 3, {"a": 1}, [3], [["狐狸"]]])
def test_phrases_that_are_no_list_of_strings_are_no_vocabulary(
    small: Vocabulary, tmp_path: Path, phrases: object
) -> None:
    small.write(tmp_path)
    content = json.loads((tmp_path / FILE_NAME).read_text("utf-8"))
    content["things"]["fox"]["zh"] = phrases
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    assert Vocabulary.read(tmp_path) is None


def test_the_shipped_model_has_its_vocabulary() -> None:
    vocabulary = Vocabulary.read(SHIPPED)
    assert vocabulary is not None
    assert len(vocabulary.styles) == 10
    assert all(phrases for table in (vocabulary.things, vocabulary.styles) for phrases in table.values())
    assert vocabulary.unknown("星夜下的静谧村庄，梵高风格") == ()
    assert vocabulary.unknown("a dinosaur in a quiet village") == ("dinosaur",)


@pytest.fixture(scope="module")
def trained() -> Vocabulary:
    """What a model trained on today's captions knows."""
    return captions.vocabulary()


def test_every_caption_is_known(trained: Vocabulary) -> None:
    rng = np.random.default_rng(0)
    for scene in map(compose, range(1500)):
        text = captions.ornament(captions.caption(scene, rng), rng)
        assert trained.unknown(text) == (), text


@pytest.mark.parametrize(
    ("typed", "captioned"),
    [
        ("A PANDA in the Bamboo Forest", "a panda in the bamboo forest"),
        ("the Great Wall, in the style of Van Gogh", "the great wall, in the style of Van Gogh"),
        ("VAN GOGH, MONET", "van gogh, monet"),
        ("castle,hill,dusk", "castle, hill, dusk"),
        ("Castle ; hill,\tdusk", "castle, hill, dusk"),
        ("Castle，Hill、dusk", "castle, hill, dusk"),
        ("a castle\r\non a hill\n\nat dusk", "a castle, on a hill, at dusk"),
        ("castle|hill/dusk.snow", "castle, hill, dusk, snow"),
        ("red_lanterns__street", "red lanterns street"),
        ("江雪,孤舟\n远山。", "江雪,孤舟\n远山。"),
        ("江雪 Castle,长城", "江雪 castle,长城"),
        ("don't, 3.5 Boats, é, É", "don't, 3.5 boats, é, é"),
        ("İstanbul", "i̇stanbul"),
        ("星夜下的靜謐村莊，梵谷風格", "星夜下的静谧村庄，梵高风格"),
        ("熊貓在竹林裡, PANDA", "熊猫在竹林里, panda"),
        ("", ""),
    ],
)
def test_prompts_are_read_as_captions_are_written(trained: Vocabulary, typed: str, captioned: str) -> None:
    assert trained.as_captioned(typed) == captioned


@pytest.mark.parametrize(
    "prompt",
    ["江雪，孤舟，遠山", "星夜下的靜謐村莊，梵谷風格，厚重的筆觸", "飛天的飄帶與蓮花", "賽博龐克，雨夜"],
)
def test_traditional_chinese_is_known(trained: Vocabulary, prompt: str) -> None:
    assert trained.unknown(prompt) == ()
    assert trained.things_named(prompt) == trained.things_named(trained.as_captioned(prompt)) != ()


def test_what_is_not_known_is_named_as_it_was_written(trained: Vocabulary) -> None:
    assert trained.unknown("恐龍在月夜") == ("恐龍",)


def test_captions_stay_as_they_are_written(trained: Vocabulary) -> None:
    """But for the first letter: one caption in five begins with a capital."""
    rng = np.random.default_rng(1)
    for scene in map(compose, range(500)):
        text = captions.caption(scene, rng)
        assert trained.as_captioned(text)[1:] == text[1:]


def test_every_phrase_of_a_thing_and_style_names_it(trained: Vocabulary) -> None:
    for name, entry in trained.things.items():
        for phrase in entry["zh"] + entry["en"]:
            assert name in trained.things_named(phrase), phrase
    for name, entry in trained.styles.items():
        for phrase in entry["zh"] + entry["en"]:
            assert trained.styles_named(phrase) == (name,), phrase


def test_near_words_are_near_to_names_that_captions_have(trained: Vocabulary) -> None:
    assert {name for names in near().values() for name in names} <= {*trained.things, *trained.styles}


def test_every_thing_is_suggested_for_a_slip_of_the_pen(trained: Vocabulary) -> None:
    for name in ("lighthouse", "windmill", "waterfall", "sunflowers", "fisherman", "butterflies", "volcano"):
        wrong = name[:3] + name[4:]
        assert trained.unknown(wrong) == (wrong,)
        assert trained.suggestions(wrong, "en")
        assert trained.suggestions(wrong, "zh")[0] == trained.things[name]["zh"][0]


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a cosy cottage beside a winding stream at sunset", ()),
        ("sunrise over the Great Wall of China, ink wash", ()),
        ("a boy and his dog watching the stars", ()),
        ("koi fish swimming in a lotus pond", ()),
        ("neon-lit street, rainy night, reflections", ()),
        ("小桥流水人家", ()), ("江边垂钓的老人", ()), ("草原上奔跑的骏马", ()), ("月亮、星星和云", ()),
        ("秋天的枫叶落在石桥上", ()), ("热气球飘在花海上空", ()), ("有彩虹的瀑布", ()), ("燕子飞过柳树", ()),
        ("古镇夜景，红灯笼，倒影", ()), ("蓝天白云下的风车", ()), ("一艘大船", ()),
        ("a dragon flying over a castle", ("dragon",)),
        ("an astronaut on the moon, digital art", ("astronaut",)),
        ("a peacock among peonies", ("peacock", "peonies")),
        ("猫和老虎", ("老虎",)), ("夏夜萤火虫", ("萤火虫",)), ("大象和长颈鹿", ("大象", "长颈鹿")),
        ("北京故宫的雪", ("北京", "故宫")), ("金鱼在鱼缸里", ("鱼缸",)), ("桂林山水，竹筏", ("桂林", "竹筏")),
    ],
)  # fmt: skip
def test_prompts_as_people_type_them(trained: Vocabulary, prompt: str, unknown: tuple[str, ...]) -> None:
    assert trained.unknown(prompt) == unknown


def test_the_vocabulary_needs_no_torch() -> None:
    code = (
        "import sys; from starrynight.models.vocabulary import Vocabulary;"
        f"Vocabulary.read({str(SHIPPED)!r}).unknown('a fox'); print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []

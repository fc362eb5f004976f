"""What a model was trained on, as its folder says it: sizes and words, told before and beside every picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from starrynight import studio
from starrynight.cli import models as models_command
from starrynight.cli.options import parse_size
from starrynight.errors import BadRequest, MissingFile, UnknownName
from starrynight.firefly.training import captions
from starrynight.jobs import validate
from starrynight.models import catalogue, sizes, vocabulary
from starrynight.models.catalogue import SHIPPED
from starrynight.models.vocabulary import Vocabulary
from starrynight.painting import checking
from starrynight.painting.styles import styles
from starrynight.request import PaintRequest
from starrynight.web import controls, prompt
from starrynight.web.shared import LANGUAGES, words

TRAINED = [(256, 256), (512, 512), (512, 384), (384, 512), (768, 768), (768, 512), (512, 768), (768, 384)]
KNOWN = Vocabulary(
    things={
        "fox": {"zh": ["狐狸"], "en": ["a fox", "foxes"]},
        "village": {"zh": ["村庄"], "en": ["a village"]},
        "lake": {"zh": ["湖"], "en": ["a lake"]},
    },
    styles={
        "oil": {"zh": ["梵高油画"], "en": ["van gogh style"]},
        "ink": {"zh": ["水墨"], "en": ["ink wash"]},
    },
    hours={"night": {"zh": ["夜晚", "夜"], "en": ["at night"]}},
    weathers={"rain": {"zh": ["雨"], "en": ["rain"]}},
    kinds={},
    lines={"zh": ["星夜下的静谧村庄"], "en": ["a starry night over a quiet village"]},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Firefly's weights beside sizes and words of this test's own."""
    made = tmp_path_factory.mktemp("trained") / "firefly"
    made.mkdir()
    for path in SHIPPED.iterdir():
        if path.name not in (sizes.FILE, vocabulary.FILE_NAME):
            (made / path.name).symlink_to(path)
    sizes.write(made, 512, TRAINED)
    KNOWN.write(made)
    return made


@pytest.fixture
def shipped(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """That folder in the place of the shipped one."""
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    monkeypatch.setattr(
        catalogue, "MODELS", (replace(catalogue.MODELS[0], path=folder), *catalogue.MODELS[1:])
    )
    return folder


# -- sizes -----------------------------------------------------------------------------------------------------------


def test_the_default_size_is_the_trained_one(shipped: Path) -> None:
    spec = catalogue.find("firefly")
    assert (spec.size, spec.width, spec.height) == (512, 512, 512)
    request = studio.make_request(prompt="a fox")
    assert (request.width, request.height) == (512, 512)
    assert catalogue.find(str(shipped)).size == 512  # a copy of the folder, by its path
    assert sizes.describe(spec) == "256–768 px, 1:1 4:3 3:4 3:2 2:3 2:1"


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"default": 512}', '{"trained": [[512, 512]]}', '{"default": 512, "trained": 5}', "[" * 9000,
        '{"default": "512", "trained": [[512, 512]]}', '{"default": 512, "trained": [[256, 256]]}',
        '{"default": true, "trained": [[1, 1]]}', '{"default": 500, "trained": [[500, 500]]}', '{"default": 8, "trained": [[8, 8]]}',
        '{"default": 90000, "trained": [[90000, 90000]]}', '{"default": 512, "trained": [[512], [512, -1], ["512", 512]]}',
    ],
)  # fmt: skip
def test_a_file_in_another_form_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / sizes.FILE).write_text(content)
    assert sizes.read(tmp_path, 16, 128, 1024) is None


def test_sizes_that_do_not_fit_the_model_are_left_out(tmp_path: Path) -> None:
    sizes.write(tmp_path, 512, [(512, 512), (500, 512), (2048, 512), (64, 64)])
    found = sizes.read(tmp_path, 16, 128, 1024)
    assert found is not None
    assert found.trained == {(512, 512)}


@pytest.mark.parametrize(
    ("name", "longer", "size"),
    [
        ("1:1", None, (512, 512)), ("3:2", None, (768, 512)), ("2:3", None, (512, 768)), ("2:1", None, (768, 384)),
        ("4:3", None, (512, 384)), ("3:2", 640, (640, 432)), ("2:3", 512, (336, 512)), ("1:2", None, (256, 512)),
        ("1:1", 384, (384, 384)),
    ],
)  # fmt: skip
def test_a_named_format_gives_a_size_that_suits_the_model(
    shipped: Path, name: str, longer: int | None, size: tuple[int, int]
) -> None:
    ratio = sizes.ratio_of(name)
    assert ratio is not None
    assert sizes.of_format(catalogue.find("firefly"), ratio, longer) == size
    if longer is None:
        assert parse_size(name) == parse_size(name.replace(":", "：")) == size


def test_a_model_that_does_not_say_keeps_its_longer_side() -> None:
    assert parse_size("3:2", "sdxl") == (1024, 680)
    assert parse_size("1:1", "sd-turbo") == (512, 512)
    assert sizes.describe(catalogue.find("sdxl")) == ""
    for text in ("5:1", "0:1", "3:2:1", "3:", "a:b", "100:99"):
        with pytest.raises(BadRequest):
            parse_size(text)


@pytest.mark.parametrize("name", [*controls.SHAPES, "4:3"])
def test_what_is_offered_lies_between_trained_sizes(shipped: Path, name: str) -> None:
    spec = catalogue.find("firefly")
    ratio = controls.SHAPES.get(name) or sizes.ratio_of(name)
    assert ratio is not None
    assert spec.trained is not None
    offered = sizes.offered(spec, ratio)
    assert offered[-1] == (512 if name == "4:3" else 768)
    for longer in offered:
        size = sizes.of_format(spec, ratio, longer)
        checking.check(PaintRequest(prompt="x", width=size[0], height=size[1]), spec)
        assert spec.trained.covers(*size)
        assert notes(spec, "a fox", *size) == []


def test_a_model_of_several_sizes_is_traced_for_folding_at_256(shipped: Path) -> None:
    from starrynight.folding import calibrate

    samples = calibrate.usual(catalogue.resolve("firefly"))
    assert [(sample.width, sample.height) for sample in samples] == [(256, 256), (256, 128)]


# -- what is told ----------------------------------------------------------------------------------------------------


def notes(
    spec: catalogue.ModelSpec, prompt: str, width: int = 512, height: int = 512
) -> list[tuple[str, str]]:
    return checking.warnings_for(PaintRequest(prompt=prompt, width=width, height=height), spec)


@pytest.mark.parametrize(
    ("width", "height", "nearest"),
    [
        (1024, 1024, "768×768"), (128, 128, "256×256"), (384, 768, "512×768"), (768, 256, "768×384"), (256, 176, "768×512"),
        (784, 512, "768×512"),
    ],
)  # fmt: skip
def test_a_size_outside_what_was_trained_is_told_and_not_refused(
    shipped: Path, width: int, height: int, nearest: str
) -> None:
    spec = catalogue.find("firefly")
    ((en, zh),) = notes(spec, "a fox", width, height)
    assert en.startswith("Firefly was not trained at")
    assert zh.startswith("萤火没有学过")
    for sentence in (en, zh):
        assert f"{width}×{height}" in sentence
        assert nearest in sentence


@pytest.mark.parametrize(
    ("prompt", "en", "zh"),
    [
        ("a fox by the lake", None, None),
        ("a tractor at night", "Firefly does not know: tractor.", "萤火不认识：tractor。"),
        ("a vilage, a robot", "Firefly does not know: vilage (it knows: village), robot.",
         "萤火不认识：vilage（认识：village）、robot。"),
        ("Tractor, tractors, TRACTOR", "Firefly does not know: Tractor, tractors.", "萤火不认识：Tractor、tractors。"),
        ("村庄里的拖拉机", "Firefly does not know: 拖拉机.", "萤火不认识：拖拉机。"),
        ("a fox, (tractor:1.2) <lora:robot:1>", "Firefly does not know: tractor.", "萤火不认识：tractor。"),
    ],
)  # fmt: skip
def test_unknown_words_are_told_with_near_ones(
    shipped: Path, prompt: str, en: str | None, zh: str | None
) -> None:
    found = notes(catalogue.find("firefly"), studio.take_lora_tags({"prompt": prompt})["prompt"])
    told = [(one, two) for one, two in found if "know" in one]
    assert told == ([(en, zh)] if en else [])


def test_every_picture_of_a_request_is_read(shipped: Path) -> None:
    request = PaintRequest(prompt="{a tractor|a robot|a fox}", seed=1, count=20, width=512, height=512)
    told = {en for en, _ in checking.warnings_for(request, catalogue.find("firefly"))}
    assert told == {"Firefly does not know: tractor.", "Firefly does not know: robot."}


def test_the_recipe_says_what_the_model_did_not_know(shipped: Path) -> None:
    saved = []
    painter = studio.Studio(lambda picture: saved.append(picture) or Path(), "cpu")
    request = studio.make_request(prompt="a tractor", width=128, height=128, steps=1, seed=1)
    list(painter.paint(request))
    reasons = saved[0].recipe["verdict"]["reasons"]
    assert reasons[0] == "Firefly does not know: tractor."
    assert reasons[1].startswith("Firefly was not trained at 128×128")
    assert saved[0].recipe["verdict"]["outcome"] == "hang"


def test_nothing_is_said_of_a_model_without_words() -> None:
    assert checking.unknown_words("a tractor", catalogue.find("sdxl")) == []
    read = validate.read_prompt({"prompt": "a tractor in oil", "model": "firefly"})
    assert read["vocabulary"] is (vocabulary.of_model(SHIPPED) is not None)
    with pytest.raises(MissingFile, match="sdxl"):
        models_command.words("sdxl")


def test_a_prompt_is_read_for_another_program(shipped: Path) -> None:
    found = validate.read_prompt({"prompt": "vilage at night, ink wash, robot", "model": None})
    assert [(one["kind"], one["text"]) for one in found.pop("facets")] == [
        ("time", "at night"),
        ("style", "ink wash"),
    ]
    assert found == {
        "model": "firefly",
        "vocabulary": True,
        "unknown": [{"word": "vilage", "suggestions": ["village"]}, {"word": "robot", "suggestions": []}],
        "styles": ["ink"],
    }
    for fields, error in (
        ({}, BadRequest), ({"prompt": " "}, BadRequest), ({"prompt": 5}, BadRequest), ({"prompt": "x" * 4001}, BadRequest),
        ({"prompt": "x", "secret": 1}, BadRequest), ({"prompt": "x", "width": 64}, BadRequest), ({"prompt": "x", "model": "../secret"}, UnknownName),
        ({"prompt": "x", "model": "sdxl"}, MissingFile),
    ):  # fmt: skip
        with pytest.raises(error):
            validate.read_prompt(fields)


def test_the_list_of_models_says_what_was_trained(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models_command.table()
    lines = capsys.readouterr().out.splitlines()
    assert "512×512" in lines[0]
    assert lines[2].strip().startswith("256–768 px, 1:1 4:3 3:4 3:2 2:3 2:1 · ")
    assert "starry models words firefly" in lines[2]
    assert "starry models words" not in "".join(lines[3:])
    models_command.words("firefly")
    told = capsys.readouterr().out
    assert "village" in told or "村庄" in told


# -- the studio's form -----------------------------------------------------------------------------------------------


def form_page() -> None:
    import streamlit as st

    from starrynight.web import controls
    from starrynight.web.views import studio

    studio.describe()
    controls.sliders()
    controls.seed_row()
    controls.more_settings()
    st.session_state["read"] = controls.read_form()


def opened(**state: object) -> AppTest:
    page = AppTest.from_function(form_page)
    for key, value in {"lang": "en", "locked": True, "model": "firefly", **state}.items():
        page.session_state[key] = value
    page.run(timeout=60)
    assert not page.exception
    return page


def test_the_first_press_paints_an_oil_village_at_night(shipped: Path) -> None:
    read = opened().session_state["read"]
    assert read["prompt"] == "a starry night over a quiet village"
    assert (read["style"], read["width"], read["height"]) == ("oil", 512, 512)
    assert opened(lang="zh").session_state["read"]["prompt"] == "星夜下的静谧村庄"


@pytest.mark.parametrize(
    ("chosen", "prompt", "style"),
    [
        (None, "a fox", "oil"), (None, "a fox, ink wash", "ink"), ("", "a fox", None), ("monet", "a fox", "monet"),
        ("monet", "狐狸，水墨", "ink"),
    ],
)  # fmt: skip
def test_a_style_named_in_the_prompt_is_the_one_painted(
    shipped: Path, chosen: str | None, prompt: str, style: str | None
) -> None:
    state = {} if chosen is None else {"style_chosen": chosen}
    assert opened(prompt=prompt, **state).session_state["read"]["style"] == style


def test_a_card_follows_the_prompt_and_comes_back(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, object] = {"style_chosen": "monet", "style": "monet", "model": "firefly"}
    monkeypatch.setattr(controls.st, "session_state", state)

    def light(named: str) -> object:
        prompt.follow_prompt(named)
        if (following := state.pop("style_next", None)) is not None:
            state["style_chosen"] = following
        state["style"] = state["style_chosen"]
        return state["style"]

    assert [light(named) for named in ("ink", "ink", "oil", "")] == ["ink", "ink", "oil", "monet"]
    light("ink")
    state["style_chosen"] = state["style"] = "pastel"  # a card is chosen while the prompt names another
    assert light("") == "pastel"


def test_the_form_of_a_picture_keeps_its_style_whatever_its_prompt_names(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state: dict[str, object] = {}
    monkeypatch.setattr(controls.st, "session_state", state)
    controls.fill_form({"prompt": "a fox, ink wash", "style": None, "seed": 5})
    prompt.follow_prompt("ink")  # what the page finds in the box afterwards
    assert state["style_next"] == ""


@pytest.mark.parametrize("shape", controls.SHAPES)
def test_the_slider_offers_what_was_trained(shipped: Path, shape: str) -> None:
    page = opened(shape=shape)
    slider = page.select_slider[0]
    assert slider.options == [
        str(side) for side in sizes.offered(catalogue.find("firefly"), controls.SHAPES[shape])
    ]
    assert slider.value == 512
    for value in slider.options:
        slider.set_value(int(value)).run(timeout=60)
        read = page.session_state["read"]
        assert max(read["width"], read["height"]) == int(value)
        assert notes(catalogue.find("firefly"), "a fox", read["width"], read["height"]) == []


def test_the_form_takes_the_nearest_trained_size_of_a_picture(shipped: Path) -> None:
    assert opened(**{"size/firefly": 1000}).select_slider[0].value == 768
    assert opened(**{"size/firefly": 256, "shape": "wide"}).select_slider[0].value == 512


# -- the lines to begin with -----------------------------------------------------------------------------------------


def lines() -> list[str]:
    return [
        words(lang)[key]
        for lang in LANGUAGES
        for key in ("prompt.first", *(f"example.{e}" for e in prompt.EXAMPLES))
    ]


def test_lines_to_begin_with_suit_a_style_and_name_none() -> None:
    assert set(prompt.EXAMPLES.values()) <= set(styles())
    known = vocabulary.of_model(SHIPPED)
    assert known is not None
    assert not [
        line for line in lines() if set(known.styles_named(line)) - {"cyberpunk"}
    ]  # neon is a thing, too


@pytest.mark.parametrize("line", lines())
def test_lines_to_begin_with_hold_only_words_that_captions_teach(line: str) -> None:
    assert captions.vocabulary().unknown(line) == ()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_studio_shows_the_lines_that_the_shipped_model_knows(lang: str) -> None:
    known = vocabulary.of_model(SHIPPED)
    assert known is not None
    assert known.unknown(words(lang)["prompt.first"]) == ()
    shown = prompt.lines_to_begin(known, lang)
    assert len(shown) >= 4
    assert not any(known.unknown(line) for line in shown.values())
    everything = {key: words(lang)[f"example.{key}"] for key in prompt.EXAMPLES}
    assert prompt.lines_to_begin(None, lang) == everything
    assert set(shown) == {key for key, line in everything.items() if not known.unknown(line)}


def test_shipped_sizes_can_be_read_if_they_are_there() -> None:
    spec = catalogue.find("firefly")
    assert (spec.trained is not None) == (SHIPPED / sizes.FILE).is_file()
    assert spec.trained is None or json.loads((SHIPPED / sizes.FILE).read_text())["default"] == spec.size

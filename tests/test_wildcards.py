"""Wildcard files: __name__ in a prompt is a line of name.txt, by the picture's seed, and the recipe holds what was drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny

from starrynight.errors import BadFile, BadRequest, StarryError
from starrynight.metadata.recipe import read_own
from starrynight.models import catalogue, places, wildcards
from starrynight.painting import checking
from starrynight.painting.painter import Painter
from starrynight.picture import make_recipe
from starrynight.prompt_syntax import Words, choose, drawn_of
from starrynight.request import MAX_TEXT, PaintRequest
from starrynight.senses.asked import asked, drawn
from starrynight.studio import as_picture


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def write(home: Path, name: str, *lines: str) -> Path:
    path = home / "wildcards" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), "utf-8")
    return path


def texts(prompt: str, seeds: int = 200) -> Counter[str]:
    """What is painted of a prompt by each of many seeds."""
    return Counter(choose(wildcards.filled(prompt, seed).text, seed) for seed in range(seeds))


def test_a_line_is_drawn_by_the_seed_and_every_line_by_some_seed(home: Path) -> None:
    write(home, "colour", "\ufeffred", "", "# no colour", "  blue  ", "green\r")
    drawn = [wildcards.filled("a __colour__ sea", seed) for seed in range(40)]
    assert drawn == [wildcards.filled("a __colour__ sea", seed) for seed in range(40)]
    assert {one.text for one in drawn} == {"a red sea", "a blue sea", "a green sea"}
    assert all(one.text == f"a {one.drawn[0][1]} sea" for one in drawn)
    assert len(texts("__colour__ and __colour__")) == 9  # each is drawn for itself


@pytest.mark.parametrize(
    ("prompt", "painted"),
    [
        ("一片__颜色__的海", {"一片金色的海", "一片银色的海"}),  # beside Chinese words
        ("__land/hill__, __land/sea__", {"hill, sea"}),
        ("__land/*__", {"hill", "sea"}),
        ("__l*/sea__", {"sea"}),
        ("__@land/sea__ __~land/hill__", {"sea hill"}),  # sd-dynamic-prompts' marks of a sampling
        ("(__land/sea__:1.3)", {"(sea:1.3)"}),
        ("{__land/sea__|b}", {"sea", "b"}),
        ("__choice__", {"one", "two"}),  # a choice in a line
        ("__nested__", {"a sea", "b hill"}),
        ("__my words__", {"words"}),
        ("__none__ __land/none__ __../land/sea__", {"__none__ __land/none__ __../land/sea__"}),  # as written
        ("__land__", {"__land__"}),  # a folder
        ("snake__case__name", {"snake__case__name"}),
    ],
)
def test_names_are_read_as_other_tools_write_them(home: Path, prompt: str, painted: set[str]) -> None:
    for name, *lines in (
        ("颜色", "金色", "银色"), ("land/hill", "hill"), ("land/sea", "sea"), ("choice", "{one|two}"), ("my words", "words"),
        ("nested", "a __land/sea__", "b __land/hill__"), ("case", "no"),
    ):  # fmt: skip
        write(home, name, *lines)
    (home / "land").mkdir()
    (home / "land" / "sea.txt").write_text("outside")
    assert set(texts(prompt)) == painted


def test_lines_are_drawn_in_proportion_to_their_shares(home: Path) -> None:
    write(home, "colour", "3::red", "blue")
    counts = texts("__colour__", 1000)
    assert set(counts) == {"red", "blue"}
    assert 650 < counts["red"] < 850


def test_files_of_other_programs_are_found_and_ones_own_come_first(home: Path, tmp_path: Path) -> None:
    webui, comfy = tmp_path / "webui", tmp_path / "ComfyUI"
    (webui / "extensions" / "sd-dynamic-prompts" / "wildcards").mkdir(parents=True)
    (webui / "extensions" / "sd-dynamic-prompts" / "wildcards" / "hat.txt").write_text("top hat")
    for kind, name in (("wildcards", "hat"), ("custom_wildcards", "shoe")):
        folder = comfy / "custom_nodes" / "ComfyUI-Impact-Pack" / kind
        folder.mkdir(parents=True)
        (folder / f"{name}.txt").write_text(f"{name} of comfy")
    (comfy / "models" / "loras").mkdir(parents=True)
    for place in (webui, comfy / "models"):
        places.add(str(place))
    assert wildcards.filled("__hat__, __shoe__", 1).text == "top hat, shoe of comfy"
    write(home, "hat", "straw hat")
    assert wildcards.filled("__hat__", 1).text == "straw hat"


@pytest.mark.parametrize(
    ("lines", "error", "says"),
    [
        (["a __loop__"], BadRequest, "again and again"),
        (["__loop__ " * 30], BadRequest, str(MAX_TEXT)),
        (["red", "<lora:moon:0.8> blue"], BadFile, "Line 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(
    home: Path, lines: list[str], error: type[StarryError], says: str
) -> None:
    write(home, "loop", *lines)
    with pytest.raises(error, match=says) as raised:
        wildcards.filled("__loop__", 1)
    assert raised.value.zh != raised.value.en


def test_a_file_that_is_no_text_is_refused_and_one_that_changed_is_read_again(home: Path) -> None:
    path = write(home, "colour", "red")
    assert wildcards.filled("__colour__", 1).text == "red"
    path.write_text("blue, and more")
    assert wildcards.filled("__colour__", 1).text == "blue, and more"
    path.write_bytes("红\n蓝\n".encode("gbk"))
    with pytest.raises(BadFile, match=r"Line 1 of .*UTF-8"):
        wildcards.filled("__colour__", 1)


def test_the_recipe_tells_what_was_drawn_and_paints_it_again_after_the_file_has_changed(
    home: Path, tmp_path: Path
) -> None:
    folder = tiny.save("zimage", tmp_path / "model")
    path = write(home, "colour", *(f"{{dark|light}} {name}" for name in ("red", "blue", "green", "gold")))
    request = PaintRequest(
        prompt="a __colour__ sea", negative_prompt="__fog__", model=str(folder), width=64, height=64, steps=1, guidance=3.0,
        seed=3, count=2, precision="float32",
    )  # fmt: skip
    painter = Painter.ready(request, device="cpu")
    images = list(painter.paint(request))
    recipes = [as_picture(image, request, painter).recipe for image in images]
    for index, recipe in enumerate(recipes):
        filled = wildcards.filled(request.prompt, 3 + index)
        assert recipe["request"]["prompt"] == request.prompt
        assert recipe["prompt"] == choose(filled.text, 3 + index)
        assert recipe["wildcards"]["drawn"] == [["colour", filled.drawn[0][1]]]
        told = " ".join(recipe["verdict"]["reasons"])
        assert str(home / "wildcards" / "fog.txt") in told  # where the missing file is looked for
    path.write_text("another colour")
    own = read_own(recipes[1])
    assert own is not None
    again = PaintRequest.from_dict(own.request())
    (image,) = painter.paint(again)
    assert (image.pixels == images[1].pixels).all()
    assert PaintRequest.from_dict(own.request(anew=True)).prompt == request.prompt
    assert np.abs(images[0].pixels - images[1].pixels).max() > 0
    plain = PaintRequest.from_dict({**request.to_dict(), "prompt": "a sea", "negative_prompt": ""})
    (image, _) = painter.paint(plain)
    assert "wildcards" not in as_picture(image, plain, painter).recipe


def test_a_missing_file_is_told_before_painting_in_both_languages(home: Path) -> None:
    model = catalogue.find("firefly")
    warnings = checking.warnings_for(PaintRequest(prompt="a __colour__ sea", seed=1), model)
    path = str(home / "wildcards" / "colour.txt")
    assert [one for one in warnings if path in one[0] and path in one[1]]
    write(home, "colour", "red")
    assert not [one for one in checking.warnings_for(PaintRequest(prompt="a __colour__ sea", seed=1), model) if "colour" in one[0]]  # fmt: skip


def test_what_was_not_drawn_is_not_asked_for(home: Path) -> None:
    """Of {a|b} and of a file's lines the picture owes only what the seed drew."""
    write(home, "animal", "a fox", "a deer")
    request = PaintRequest(prompt="__animal__ under {the moon|a rainbow}", seed=3)
    recipe = make_recipe(
        request, wildcards=drawn_of(Words("", filled=wildcards.filled(request.prompt, 3)), Words(""))
    )
    (home / "wildcards" / "animal.txt").unlink()
    wanted = asked(drawn(request.prompt, recipe))
    assert len(wanted) == 2
    assert wanted == asked(choose(recipe["wildcards"]["prompt"], 3))

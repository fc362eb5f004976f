"""A written prompt on its way into a picture: weights on CLIP's states, choices by the seed, notes, and uniform pictures."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from starrynight.errors import BadRequest
from starrynight.models import catalogue
from starrynight.painting import checking
from starrynight.painting.painter import Painter
from starrynight.painting.results import of_pixels
from starrynight.prompt_syntax import choose, read
from starrynight.request import PaintRequest
from starrynight.studio import as_picture
from starrynight.verdict import OUTCOME_NAMES, OUTCOMES, Verdict, reasons_in


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: tiny.save(family, root / family) for family in ("sd", "sdxl", "zimage")}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STARRY_HOME", str(tmp_path / "home"))


def ask(folder, prompt, **more) -> PaintRequest:
    fields = {"width": 64, "height": 64, "steps": 2, "guidance": 3.0, "seed": 1, "precision": "float32"}
    return PaintRequest(prompt=prompt, model=str(folder), **(fields | more))


def paint(request) -> list:
    return list(Painter.ready(request, device="cpu").paint(request))


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_weights_multiply_clips_states(folders, family):
    """Compared with embeddings that are weighted here by hand, token by token."""
    request = ask(folders[family], "red (sea:1.5), ((sky))", negative_prompt="(fog:0.5)")
    painter = Painter.ready(request, device="cpu")
    (outcome,) = painter.paint(request)
    assert (outcome.prompt, outcome.negative_prompt) == ("red sea, sky", "fog")
    pipeline = painter.pipeline
    states = pipeline.encode_prompt(
        "red sea, sky",
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt="fog",
    )
    # One token a letter: a beginning, r e d s e a , s k y.
    factors = [torch.ones(77), torch.ones(77)]
    factors[0][4:7], factors[0][8:11], factors[1][1:4] = 1.5, 1.21, 0.5
    by_hand = [state * factor[:, None] for state, factor in zip(states[:2], factors, strict=True)]
    pipeline.encode_prompt = lambda *a, **k: (*by_hand, *states[2:])
    (expected,) = painter.paint(ask(folders[family], "red sea, sky", negative_prompt="fog"))
    assert np.abs(outcome.pixels - expected.pixels).max() < 1e-5
    del pipeline.encode_prompt
    plain = paint(ask(folders[family], "red sea, sky", negative_prompt="fog"))[0]
    assert np.abs(outcome.pixels - plain.pixels).max() > 1e-4


def test_markup_leaves_a_prompt_that_no_weights_reach_and_is_told(folders):
    written = "(masterpiece:1.3), a lighthouse BREAK snow, __colour__"
    request = ask(folders["zimage"], written)
    (outcome,) = paint(request)
    assert outcome.prompt == "masterpiece, a lighthouse, snow, __colour__"
    told = " ".join(outcome.verdict.reasons)
    spec = catalogue.find(request.model)
    warnings = checking.warnings_for(request, spec)
    for word in ("(masterpiece:1.3)", "BREAK", "__colour__"):
        assert word in told
        assert any(word in en and word in zh for en, zh in warnings)
    chinese = outcome.verdict.reasons_zh
    assert len(chinese) == len(outcome.verdict.reasons)
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in line) for line in chinese)
    kept = outcome.verdict.to_dict()
    assert kept["reasons"] == list(outcome.verdict.reasons)  # the key of old stays as it was
    assert reasons_in(kept, "zh") == list(chinese)
    assert reasons_in({"reasons": kept["reasons"]}, "zh") == kept["reasons"]
    assert [reasons_in({"reasons": odd}, "zh") for odd in (None, 5, "abc", {})] == [[], [], [], []]


def test_a_choice_is_the_seeds_alone_or_in_a_batch_and_both_texts_are_kept(folders):
    written = "a {red|blue|green} sea"
    batch = paint(ask(folders["zimage"], written, count=4, steps=1))
    assert [one.prompt for one in batch] == [choose(written, seed) for seed in (1, 2, 3, 4)]
    assert len({one.prompt for one in batch}) > 1
    request = ask(folders["zimage"], written, seed=3, steps=1)
    painter = Painter.ready(request, device="cpu")
    (alone,) = painter.paint(request)
    assert (alone.pixels == batch[2].pixels).all()
    recipe = as_picture(alone, request, painter).recipe
    assert (recipe["request"]["prompt"], recipe["prompt"]) == (written, choose(written, 3))


def test_a_prompt_of_tags_alone_is_refused(folders):
    with pytest.raises(BadRequest, match="tags"):
        checking.check(ask(folders["zimage"], "BREAK <hypernet:a:1>"), catalogue.find(str(folders["zimage"])))


def test_weights_keep_their_place_under_a_style(folders):
    request = ask(folders["sd"], "(sea:1.5).", style="oil")
    words, _ = checking.words_of(request, catalogue.find(request.model), 1)
    ((start, end, factor),) = words.weights
    assert (words.text[start:end], factor) == ("sea", 1.5)


@pytest.mark.parametrize("typed", ["Castle, HILL, dusk", "castle,hill,dusk", "Castle\nHill\nDusk"])
def test_firefly_reads_prompts_as_its_captions_are_written(typed):
    """Its tokenizer splits "Castle" and ",hill" into pieces that it never read, and another picture was painted."""
    small = {"model": "firefly", "style": "oil", "seed": 5, "steps": 1, "width": 128, "height": 128}
    asked, known = (
        PaintRequest(prompt=prompt, precision="bfloat16", **small) for prompt in (typed, "castle, hill, dusk")
    )
    painter = Painter.ready(asked, device="cpu")
    (one,), (other,) = painter.paint(asked), painter.paint(known)
    assert (one.pixels == other.pixels).all()
    recipe = as_picture(one, asked, painter).recipe
    assert recipe["request"]["prompt"] == typed
    assert recipe["prompt"] == one.prompt == other.prompt


def test_rewritten_words_keep_the_places_of_weights_and_mentions():
    words = read("A Sea, Cat and (Dog:1.5) End", 1, True, {"cat": []})
    upper = words.rewritten(lambda text: text.replace(" ", "  ").upper())
    ((start, end, factor),), (one,) = upper.weights, upper.mentions
    assert (upper.text[start:end], factor) == ("DOG", 1.5)
    assert upper.text[one.start : one.end] == "Cat"
    assert upper.text == "A  SEA,  Cat  AND  DOG  END"
    assert words.rewritten(lambda text: text) == words


# Uniform pictures


@pytest.mark.parametrize("level", [-9.0, 0.0, 9.0])
def test_a_picture_of_one_colour_is_uniform_and_kept(folders, level):
    request = ask(folders["zimage"], "sea")
    painter = Painter.ready(request, device="cpu")
    last = painter.pipeline.vae.decoder.conv_out
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(level)
    (outcome,) = painter.paint(request)
    assert outcome.verdict.outcome == "uniform"
    assert "colour" in outcome.verdict.reasons[-1]
    assert "颜色" in outcome.verdict.reasons_zh[-1]
    picture = as_picture(outcome, request, painter)
    assert Verdict.from_dict(picture.recipe["verdict"]) == outcome.verdict == picture.verdict


@pytest.mark.parametrize("before", ["hang", "unchecked"])
def test_uniform_is_exactly_one_colour_in_eight_bits(before):
    flat = np.full((8, 8, 3), np.array((51, 128, 230)) / 255, np.float32)
    assert of_pixels(Verdict(before), flat).outcome == "uniform"
    assert of_pixels(Verdict(before), flat + 1e-4).outcome == "uniform"  # less than a level
    for at in ((0, 0, 0), (7, 7, 2)):
        other = flat.copy()
        other[at] += 1 / 255
        assert of_pixels(Verdict(before), other).outcome == before
    assert of_pixels(Verdict(before), flat[:1, :1]).outcome == "uniform"


def test_each_outcome_has_words_in_both_languages_and_none_says_sound():
    assert set(OUTCOME_NAMES) == set(OUTCOMES)
    for text in OUTCOME_NAMES.values():
        assert text.en
        assert text.zh
        assert "sound" not in text.en

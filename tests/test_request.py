"""Requests: what they accept and refuse, and their canonical form and id."""

from __future__ import annotations

import dataclasses
import json
import math
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starrynight.errors import BadRequest, UnknownName, WrongSize
from starrynight.painting.styles import key_of, styles
from starrynight.request import MAX_SEED, MAX_TEXT, PaintRequest, check_size
from starrynight.studio import make_request


def request_of(**changes) -> PaintRequest:
    return PaintRequest(**({"prompt": "a quiet village under stars", "seed": 7} | changes))


def test_the_canonical_json_and_the_id_are_fixed() -> None:
    request = request_of(prompt="星夜下的静谧村庄", loras=[("ink", 1)], guidance=2)
    assert request.canonical() == (
        '{"count":1,"guidance":2.0,"height":256,"init_image":null,"loras":[["ink",1.0]],"model":"firefly",'
        '"negative_prompt":"","precision":"auto","prompt":"星夜下的静谧村庄","sampler":null,"seed":7,"steps":8,'
        '"strength":0.6,"style":null,"width":256}'
    )
    assert request.id == "172364c9a27a2b50"


def test_equal_values_give_one_request_whatever_their_spelling() -> None:
    decomposed = unicodedata.normalize("NFD", "café à midi")
    assert decomposed != "café à midi"
    assert request_of(prompt=f"  {decomposed}\r\nnoon\n").id == request_of(prompt="café à midi\nnoon").id
    assert request_of(guidance=2, loras=[["ink", 1]]) == request_of(guidance=2.0, loras=(("ink", 1.0),))
    assert request_of(width=np.int64(512)).canonical() == request_of(width=512).canonical()
    assert request_of(prompt="a").id != request_of(prompt="b").id


def test_a_file_name_is_not_normalised() -> None:
    name = unicodedata.normalize("NFD", "ébauche.png")
    assert request_of(init_image=Path(name)).init_image == name
    assert request_of(loras=[(Path("/loras/a.safetensors"), 0.5)]).loras == (("/loras/a.safetensors", 0.5),)


def test_a_missing_seed_is_drawn_once() -> None:
    first, second = PaintRequest(prompt="sea"), PaintRequest(prompt="sea")
    assert first.seed != second.seed  # 1 in 4 billion to fail by chance
    assert first.replace(steps=4).seed == first.seed
    assert PaintRequest.from_dict(first.to_dict()) == first


def test_picture_i_of_a_batch_has_the_seed_plus_i() -> None:
    request = request_of(seed=40, count=3)
    assert [request.seed_of(i) for i in range(3)] == [40, 41, 42]
    with pytest.raises(IndexError):
        request.seed_of(3)
    assert request_of(seed=MAX_SEED).seed_of(0) == MAX_SEED
    with pytest.raises(BadRequest):
        request_of(seed=MAX_SEED, count=2)  # its second seed would be above MAX_SEED


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("prompt", "", BadRequest),
        ("prompt", " \n\t ", BadRequest),
        ("prompt", None, BadRequest),
        ("prompt", b"bytes", BadRequest),
        ("prompt", "x" * (MAX_TEXT + 1), BadRequest),
        ("prompt", "x" * 10_000_000, BadRequest),
        ("prompt", "bell \a", BadRequest),
        ("prompt", "escape \x1b[2J", BadRequest),
        ("prompt", "half an emoji \ud83c", BadRequest),
        ("prompt", "not a character \uffff", BadRequest),
        ("negative_prompt", "\0", BadRequest),
        ("negative_prompt", "x" * (MAX_TEXT + 1), BadRequest),
        ("width", 63, WrongSize),
        ("width", 4097, WrongSize),
        ("height", -256, WrongSize),
        ("height", 256.0, WrongSize),
        ("height", True, WrongSize),
        ("height", "256", WrongSize),
        ("steps", 0, BadRequest),
        ("steps", 151, BadRequest),
        ("steps", True, BadRequest),
        ("guidance", -0.1, BadRequest),
        ("guidance", 30.1, BadRequest),
        ("guidance", math.nan, BadRequest),
        ("guidance", math.inf, BadRequest),
        ("guidance", 10**400, BadRequest),
        ("guidance", False, BadRequest),
        ("seed", -1, BadRequest),
        ("seed", 2**63, BadRequest),
        ("seed", 10**5000, BadRequest),
        ("seed", 1.5, BadRequest),
        ("seed", True, BadRequest),
        ("count", 0, BadRequest),
        ("count", 65, BadRequest),
        ("precision", "float8", UnknownName),
        ("precision", None, UnknownName),
        ("model", "", BadRequest),
        ("model", "two\nlines", BadRequest),
        ("style", " ", BadRequest),
        ("sampler", 3, BadRequest),
        ("loras", "ink", BadRequest),
        ("loras", [("ink",)], BadRequest),
        ("loras", ["ab"], BadRequest),
        ("loras", [("ink", 4.1)], BadRequest),
        ("loras", [("ink", math.nan)], BadRequest),
        ("loras", [("", 1)], BadRequest),
        ("loras", {"ink": 1}, BadRequest),
        ("loras", [("ink", 1)] * 17, BadRequest),
        ("init_image", "", BadRequest),
        ("strength", 0.4, BadRequest),  # without an init_image
    ],
    ids=lambda value: ascii(value) if isinstance(value, str) and len(value) < 20 else type(value).__name__,
)
def test_an_invalid_value_is_refused_in_both_languages(field, value, error) -> None:
    with pytest.raises(error) as caught:
        request_of(**{field: value})
    assert type(caught.value) is error
    assert caught.value.exit_code == 2
    assert any("\u4e00" <= letter <= "\u9fff" for letter in caught.value.zh)
    for sentence in (caught.value.en, caught.value.zh):
        assert len(sentence) < 400
        assert sentence.isprintable()


@pytest.mark.parametrize("strength", [0, 1.01, math.nan, -1, True])
def test_strength_is_above_zero_and_at_most_one(strength) -> None:
    with pytest.raises(BadRequest):
        request_of(init_image="sea.png", strength=strength)
    assert request_of(init_image="sea.png", strength=1).strength == 1.0


def test_the_message_for_a_wrong_seed_offers_a_random_one() -> None:
    with pytest.raises(BadRequest, match="leave it out") as caught:
        request_of(seed=-1)
    assert "随机" in caught.value.zh


def test_an_unknown_field_is_answered_with_similar_ones() -> None:
    with pytest.raises(BadRequest, match="negative_prompt") as caught:
        PaintRequest.from_dict({"prompt": "sea", "negativ_prompt": "fog"})
    assert "negative_prompt" in caught.value.zh
    with pytest.raises(BadRequest, match="empty"):
        PaintRequest.from_dict({})
    with pytest.raises(BadRequest):
        PaintRequest.from_dict(["prompt"])  # type: ignore[arg-type]
    with pytest.raises(BadRequest):
        request_of().replace(nothing=1)


def test_a_request_is_frozen_and_hashable() -> None:
    request = request_of()
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.steps = 3  # type: ignore[misc]
    assert {request, request_of()} == {request}


def test_a_wrong_size_is_refused_with_the_nearest_valid_sizes() -> None:
    check_size(256, 64, 16, 64, 512)
    with pytest.raises(WrongSize) as caught:
        check_size(250, 300, 16, 64, 512)
    for sentence in (caught.value.en, caught.value.zh):
        assert "250×300" in sentence
        assert "256×304" in sentence
        assert "240×304" in sentence
    with pytest.raises(WrongSize, match=r"nearest: 512×256\."):
        check_size(2000, 256, 16, 64, 512)
    with pytest.raises(WrongSize, match=r"nearest: 72×72\."):  # 64 itself is no multiple of 24
        check_size(65, 70, 24, 64, 512)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([8, 16, 24, 32, 64]))
def test_every_suggested_size_is_valid(width, height, multiple) -> None:
    try:
        check_size(width, height, multiple, 64, 2048)
    except WrongSize as error:
        for size in error.en.split("nearest: ")[1].rstrip(".").split(", "):
            check_size(*map(int, size.split("×")), multiple, 64, 2048)
    else:
        assert width % multiple == 0 == height % multiple


@given(st.text(), st.text(max_size=200), st.integers(0, 2**62), st.integers(1, 64))
def test_any_text_is_refused_or_survives_a_json_round_trip(prompt, negative, seed, count) -> None:
    try:
        request = PaintRequest(prompt=prompt, negative_prompt=negative, seed=seed, count=count)
    except BadRequest:
        return
    again = PaintRequest.from_dict(json.loads(request.canonical().encode("utf-8")))
    assert again == request
    assert again.id == request.id


@pytest.mark.parametrize(
    ("prompt", "painted", "loras"),
    [
        ("a lighthouse <lora:moonlight:0.8>", "a lighthouse", (("moonlight", 0.8),)),
        ("a lighthouse, <lora:moonlight>, snow", "a lighthouse, snow", (("moonlight", 1.0),)),
        ("<lyco:ink:-0.5> a lighthouse", "a lighthouse", (("ink", -0.5),)),
        ("a lighthouse<lora:a:0.8:0.6>", "a lighthouse", (("a", 0.8, 0.6),)),
        (
            "a lighthouse <lora:a:te=0:unet=2> <lora:b:unet=2>",
            "a lighthouse",
            (("a", 0.0, 2.0), ("b", 1.0, 2.0)),
        ),
        ("a lighthouse <lora:a:0.5:0.5>", "a lighthouse", (("a", 0.5),)),
        ("x < y > z, {red|blue} (snow:1.2)", "x < y > z, {red|blue} (snow:1.2)", ()),
    ],
)
def test_lora_tags_leave_the_prompt_and_become_loras(prompt, painted, loras) -> None:
    request = PaintRequest(prompt=prompt, seed=1).without_tags()
    assert (request.prompt, request.loras) == (painted, loras)
    assert request.without_tags() == request
    assert PaintRequest.from_dict(json.loads(request.canonical())) == request


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a <lora:a:much>"},
        {"prompt": "a <lora::0.8>"},
        {"prompt": "a <lora:a:1:2:3>"},
        {"prompt": "a <lora:a:dyn=2>"},
        {"prompt": "a <lora:a:nan>"},
        {"prompt": "a <lora:a:9>"},
        {"prompt": "a <hypernet:a:1>"},
        {"prompt": "{<lora:a>|b} c"},
        {"prompt": "a", "negative_prompt": "<lora:a>"},
        {"prompt": "<lora:a>"},
    ],
)
def test_tags_that_cannot_be_applied_are_refused(fields) -> None:
    with pytest.raises(BadRequest):
        PaintRequest(**fields).without_tags()


@pytest.mark.parametrize("key", styles())
def test_an_alias_of_a_style_is_kept_as_its_one_key(key: str) -> None:
    style = styles()[key]
    for name in (key, key.upper(), *style.aliases, *style.name.values()):
        assert make_request(prompt="a lake", style=name).style == key_of(name) == key
    assert key_of("anime") == "anime"  # of another tool
    assert key_of(None) is None

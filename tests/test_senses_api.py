"""The senses over HTTP: the unmodified ``openai`` client for chat, embeddings and transcriptions, plain HTTP for the rest."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from hung import picture
from PIL import Image
from served import Elsewhere, ask, gallery_in, without_worker

from starrynight.api.access import Access
from starrynight.api.chat import CANNOT_TELL, NO_PICTURE
from starrynight.firefly.drawing.landscape import render
from starrynight.firefly.drawing.scene import compose
from starrynight.gallery.store import Gallery
from starrynight.jobs.keys import Keys
from starrynight.senses import perceiver, sound
from starrynight.senses.choice import KEY_ENV
from starrynight.senses.eyes import eyes

ROOT = Path(__file__).parent.parent
ZH, EN = "这幅画画的是什么？", "What does this picture show?"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with gallery_in(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def here(gallery: Gallery) -> Iterator[str]:
    with without_worker(gallery) as address:
        yield address


@pytest.fixture(scope="module")
def sunflowers() -> np.ndarray:
    """A drawing that the perceiver recognises."""
    return np.asarray(render(compose(11, kind="sunflowers", style="oil", hour="noon"), 160))


def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)


def encoded(pixels: np.ndarray, form: str = "PNG", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, form)
    return out.getvalue()


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def asking(text: str, *urls: str) -> list[Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": parts}]


# Chat


@pytest.mark.parametrize(
    ("question", "lang", "word"), [(ZH, "zh", "向日葵"), (EN, "en", "sunflower"), ("", "en", "sunflower")]
)
def test_a_picture_is_described_in_the_language_of_the_question(
    here: str, sunflowers: np.ndarray, question: str, lang: str, word: str
) -> None:
    answer = client(here).chat.completions.create(
        model="starry-eyes", messages=asking(question, data_url(encoded(sunflowers)))
    )
    content = answer.choices[0].message.content or ""
    assert word in content.lower()
    opened = eyes()
    assert opened is not None
    seen = opened.look(sunflowers).description
    assert content.startswith(seen.caption.to(lang))
    assert (answer.model, answer.choices[0].finish_reason) == ("starry-eyes", "stop")
    assert answer.model_extra["description"] == [json.loads(json.dumps(seen.to_dict()))]  # type: ignore[index]
    assert answer.model_extra["warnings"] == []  # type: ignore[index]


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("WEBP", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "L"), ("GIF", "P")],
)
def test_pictures_of_every_kind_are_read(here: str, sunflowers: np.ndarray, form: str, mode: str) -> None:
    answer = ask(
        here, "/v1/chat/completions", {"messages": asking(ZH, data_url(encoded(sunflowers, form, mode)))}
    )
    assert answer.status == 200, answer.body
    assert answer.json["choices"][0]["message"]["content"]


def test_the_style_is_named(here: str, sunflowers: np.ndarray) -> None:
    found = ask(here, "/v1/chat/completions", {"messages": asking(ZH, data_url(encoded(sunflowers)))}).json
    assert found["description"][0]["facts"]["style"] == "oil"
    assert "梵高" in found["choices"][0]["message"]["content"]


def test_several_pictures_are_counted_and_noise_is_not_guessed_at(here: str, sunflowers: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    found = client(here).chat.completions.create(
        model="starry-eyes", messages=asking(EN, data_url(encoded(sunflowers)), data_url(encoded(noise)))
    )
    first, second = (found.choices[0].message.content or "").splitlines()
    assert first.startswith("1. ")
    assert "sunflower" in first.lower()
    assert second == f"2. {CANNOT_TELL.en}"


def test_a_stream_says_the_same(here: str, sunflowers: np.ndarray) -> None:
    messages = asking(EN, data_url(encoded(sunflowers)))
    whole = client(here).chat.completions.create(model="starry-eyes", messages=messages)
    stream = client(here).chat.completions.create(
        model="starry-eyes", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    *events, last = list(stream)
    said = "".join(event.choices[0].delta.content or "" for event in events)
    assert said == whole.choices[0].message.content
    assert len(events) > 3
    assert events[-1].choices[0].finish_reason == "stop"
    assert last.usage == whole.usage


@pytest.mark.parametrize(
    ("question", "sentence"), [("你好，你是谁？", NO_PICTURE.zh), ("Who are you?", NO_PICTURE.en)]
)
def test_words_alone_get_a_sentence(here: str, question: str, sentence: str) -> None:
    for content in (question, [{"type": "text", "text": question}]):
        found = ask(here, "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]})
        assert found.json["choices"][0]["message"]["content"] == sentence


def test_a_question_after_a_picture_is_about_it(here: str, sunflowers: np.ndarray) -> None:
    first = asking(EN, data_url(encoded(sunflowers)))
    later = [*first, {"role": "assistant", "content": "Sunflowers."}, {"role": "user", "content": "再说一遍"}]
    found = client(here).chat.completions.create(model="starry-eyes", messages=later)
    assert "向日葵" in (found.choices[0].message.content or "")


def test_json_is_filled_as_a_schema_asks(here: str, sunflowers: np.ndarray) -> None:
    names = ("alt_en", "alt_zh", "caption_en", "caption_zh")
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": list(names),
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    messages = asking("", data_url(encoded(sunflowers)))
    found = client(here).chat.completions.create(model="starry-eyes", messages=messages, response_format=form)
    said = json.loads(found.choices[0].message.content or "")
    assert set(said) == set(names)
    assert "向日葵" in said["alt_zh"]
    schema["properties"]["price"] = {"type": "number"}
    with pytest.raises(openai.BadRequestError, match="price"):
        client(here).chat.completions.create(model="starry-eyes", messages=messages, response_format=form)


def test_a_gallery_is_the_eyes_of_another(
    here: str, sunflowers: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARRY_EYES", f"{here}/v1#starry-eyes")
    other = eyes()
    assert other is not None
    monkeypatch.delenv("STARRY_EYES")
    look = other.look(sunflowers)
    assert look.failed is None
    assert look.description.by == f"{here[7:]}#starry-eyes"
    assert "向日葵" in look.description.caption.zh


def test_other_fields_and_names_are_told(here: str) -> None:
    answer = client(here).chat.completions.create(
        model="qwen3-vl",
        messages=[{"role": "system", "content": "Be short."}, *asking("hello")],
        temperature=0.2,
        max_tokens=5,
        user="me",
        extra_body={"zzz": 1},
    )
    notes = [note["en"].partition(":")[0].partition(" ")[0] for note in answer.model_extra["warnings"]]  # type: ignore[index]
    assert sorted(notes) == ["max_tokens", "model", "system", "temperature", "user", "zzz"]


PICTURE = data_url(picture().encode())
WRONG: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no messages": ({}, 400, "missing_required_parameter", "messages"),
    "no message": ({"messages": []}, 400, "invalid_value", "messages"),
    "a text": ({"messages": "hi"}, 400, "invalid_value", "messages"),
    "no object": ({"messages": [3]}, 400, "invalid_value", "messages[0]"),
    "a role": ({"messages": [{"role": "me", "content": "x"}]}, 400, "invalid_value", "messages[0].role"),
    "no content": ({"messages": [{"role": "user"}]}, 400, "invalid_value", "messages[0].content"),
    "a voice": ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 400, "invalid_value", "messages[0].content[0].type"),
    "a file": ({"messages": asking(ZH, "file:///etc/passwd")}, 400, "invalid_value", "messages[0].content[1].image_url.url"),
    "no address": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_value", "messages[0].content[0].image_url"),
    "not base64": ({"messages": asking(ZH, "data:image/png;base64,%%%")}, 422, "invalid_image", "messages[0].content[1].image_url.url"),
    "percent encoded": ({"messages": asking(ZH, "data:image/png,%89PNG")}, 400, "invalid_value", "messages[0].content[1].image_url.url"),
    "no picture": ({"messages": asking(ZH, data_url(b"hello"))}, 422, "invalid_image", "messages[0].content[1].image_url.url"),
    "cut short": ({"messages": asking(ZH, data_url(picture().encode()[:300]))}, 422, "invalid_image", "messages[0].content[1].image_url.url"),
    "an earlier address": ({"messages": [*asking(ZH, "https://a.example/b.png"), *asking(ZH, PICTURE)]}, 400, "invalid_value", "messages[0].content[1].image_url.url"),
    "a picture of the system": ({"messages": [asking(ZH, PICTURE)[0] | {"role": "system"}]}, 400, "invalid_value", "messages[0].role"),
    "nine pictures": ({"messages": asking(ZH, *[PICTURE] * 9)}, 400, "invalid_value", "messages"),
    "two answers": ({"messages": asking(ZH), "n": 2}, 400, "invalid_value", "n"),
    "no flag": ({"messages": asking(ZH), "stream": "yes"}, 400, "invalid_value", "stream"),
    "a slip": ({"messages": asking(ZH), "steam": True}, 400, "unknown_parameter", "steam"),
    "a form": ({"messages": asking(ZH), "response_format": {"type": "yaml"}}, 400, "invalid_value", "response_format.type"),
    "a number for a model": ({"messages": asking(ZH), "model": 3}, 400, "invalid_value", "model"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_answered_is_refused_by_its_name(here: str, case: str) -> None:
    body, status, code, param = WRONG[case]
    found = ask(here, "/v1/chat/completions", body)
    assert (found.status, found.error["code"], found.error["param"]) == (status, code, param), found.body
    assert found.error["en"] != found.error["zh"]


def test_an_address_is_refused_and_never_asked(here: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/night.png"
        with pytest.raises(openai.BadRequestError, match="Nothing is fetched"):
            client(here).chat.completions.create(model="starry-eyes", messages=asking(EN, url))
        found = ask(here, "/v1/embeddings", {"input": {"image": url}})
        assert (found.status, found.error["param"]) == (400, "input.image")
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[]", b"3", b"[" * 100_000])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/rerank", "/facets"])
def test_a_body_that_is_no_object(here: str, path: str, body: bytes) -> None:
    found = ask(here, path, body, Content_Type="application/json")
    assert found.status == 400
    assert found.error["zh"]


def test_eyes_that_are_off_say_so(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_EYES", "off")
    found = ask(here, "/v1/chat/completions", {"messages": asking(EN, PICTURE)})
    assert (found.status, found.error["code"], found.headers["X-Should-Retry"]) == (503, "no_sense", "false")


class Model(Elsewhere):
    """A server of OpenAI's shape that answers ``answer`` to everything, when it may."""

    def __init__(self, answer: Any, status: int = 200) -> None:
        self.answer, self.status, self.free = answer, status, threading.Event()
        self.free.set()
        super().__init__(self._answer)

    def _answer(self, *_: object) -> tuple[int, bytes]:
        self.free.wait(60)
        return self.status, json.dumps(self.answer).encode()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Model]]:
    made: list[Model] = []

    def make(sense: str, answer: Any, status: int = 200) -> Model:
        made.append(Model(answer, status))
        monkeypatch.setenv(f"STARRY_{sense}", f"{made[-1].url}#model")
        monkeypatch.delenv(KEY_ENV, raising=False)
        return made[-1]

    yield make
    for one in made:
        one.free.set()
        one.close()


def test_eyes_elsewhere_that_fail_are_told_and_the_perceiver_answers(
    here: str, sunflowers: np.ndarray, elsewhere: Callable[..., Model]
) -> None:
    elsewhere("EYES", {"error": {"message": "no"}}, 401)
    found = ask(here, "/v1/chat/completions", {"messages": asking(ZH, data_url(encoded(sunflowers)))}).json
    assert "向日葵" in found["choices"][0]["message"]["content"]
    assert "401" in found["warnings"][0]["en"]


def test_others_are_answered_while_a_model_takes_its_time(
    here: str, sunflowers: np.ndarray, elsewhere: Callable[..., Model]
) -> None:
    slow = elsewhere("EYES", {"choices": [{"message": {"content": "A field."}}]})
    slow.free.clear()
    got: list[Any] = []
    body = {"messages": asking(EN, data_url(encoded(sunflowers)))}
    waiting = threading.Thread(target=lambda: got.append(ask(here, "/v1/chat/completions", body)))
    waiting.start()
    assert ask(here, "/healthz").status == 200
    assert ask(here, "/facets", {"text": "雪夜"}).status == 200
    assert got == []
    slow.free.set()
    waiting.join(60)
    assert got[0].json["choices"][0]["message"]["content"] == "A field."


# Embeddings


def test_texts_and_pictures_have_the_perceivers_vectors(here: str, sunflowers: np.ndarray) -> None:
    model = perceiver.load()
    texts = ["向日葵", "a city at night"]
    found = client(here).embeddings.create(
        model="starry-embedder", input=[*texts, data_url(encoded(sunflowers))]
    )
    vectors = np.array([row.embedding for row in found.data], np.float32)
    assert found.model == model.name
    for vector, text in zip(vectors, texts, strict=False):
        np.testing.assert_allclose(vector, model.read(text).vector, atol=1e-6)
    np.testing.assert_allclose(vectors[2], model.see(sunflowers).vector, atol=1e-5)
    assert vectors[2] @ vectors[0] > vectors[2] @ vectors[1]
    assert [row.index for row in found.data] == [0, 1, 2]


def test_floats_and_base64_are_the_same_numbers(here: str) -> None:
    plain = ask(here, "/v1/embeddings", {"input": "雪"}).json["data"][0]["embedding"]
    packed = ask(here, "/v1/embeddings", {"input": "雪", "encoding_format": "base64"}).json["data"][0][
        "embedding"
    ]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed), "<f4"), np.array(plain, np.float32))


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, "input"), ({"input": []}, 400, "input"), ({"input": ""}, 400, "input"), ({"input": [1, 2]}, 400, "input"),
        ({"input": [[1]]}, 400, "input"), ({"input": ["x", " "]}, 400, "input[1]"), ({"input": "x", "dimensions": 3}, 400, "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, 400, "encoding_format"), ({"input": ["x"] * 501}, 400, "input"),
        ({"input": {"video": "x"}}, 400, "input"), ({"input": [{"image": data_url(b"x")}]}, 422, "input[0].image"),
        ({"input": "x", "imput": "y"}, 400, "imput"),
    ],
)  # fmt: skip
def test_embeddings_refuse_by_name(here: str, fields: dict[str, Any], status: int, param: str) -> None:
    found = ask(here, "/v1/embeddings", fields)
    assert (found.status, found.error["param"]) == (status, param)
    assert found.error["type"] == "invalid_request_error"


def test_dimensions_may_be_those_that_there_are(here: str) -> None:
    size = len(perceiver.load().read("x").vector)
    assert client(here).embeddings.create(model="m", input="雪", dimensions=size).data[0].index == 0


def test_an_embedder_elsewhere_takes_no_pictures(here: str, elsewhere: Callable[..., Model]) -> None:
    elsewhere("EMBEDDER", {"data": [{"index": 0, "embedding": [3.0, 4.0]}]})
    found = ask(here, "/v1/embeddings", {"input": "雪"}).json
    assert found["data"][0]["embedding"] == pytest.approx([0.6, 0.8])
    assert found["model"].endswith("#model")
    assert ask(here, "/v1/embeddings", {"input": ["雪", PICTURE]}).error["param"] == "input"


# Rerank


def test_documents_are_put_in_order(here: str, sunflowers: np.ndarray) -> None:
    documents: list[Any] = [
        "雪夜的都市",
        {"text": "a desert at noon"},
        {"image": data_url(encoded(sunflowers))},
    ]
    found = ask(here, "/v1/rerank", {"query": "向日葵花田", "documents": documents, "top_n": 2}).json
    assert found["results"][0]["index"] == 2
    assert len(found["results"]) == 2
    scores = [one["relevance_score"] for one in found["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= one <= 1 for one in scores)
    assert found["results"][0]["document"] == {"image": "data:image/png;base64,…"}
    turned = ask(
        here, "/v1/rerank", {"query": "向日葵花田", "documents": documents[::-1], "return_documents": False}
    ).json
    assert turned["results"][0] == {"index": 0, "relevance_score": pytest.approx(scores[0], abs=1e-6)}


@pytest.mark.parametrize("count", [0, 1, 500])
def test_any_number_of_documents_up_to_500(here: str, count: int) -> None:
    found = ask(here, "/v1/rerank", {"model": "m", "query": "雪", "documents": ["雪夜"] * count}).json
    assert [one["index"] for one in found["results"]] == list(range(count))


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"documents": []}, 400, "query"), ({"query": "x"}, 400, "documents"), ({"query": " ", "documents": []}, 400, "query"),
        ({"query": "x", "documents": "y"}, 400, "documents"), ({"query": "x", "documents": ["y"] * 501}, 400, "documents"),
        ({"query": "x", "documents": [3]}, 400, "documents[0]"), ({"query": "x", "documents": [{"image": 3}]}, 400, "documents[0].image"),
        ({"query": "x", "documents": ["y"], "top_n": 0}, 400, "top_n"), ({"query": "x", "documents": ["y"], "return_documents": 1}, 400, "return_documents"),
        ({"query": {"text": "x"}, "documents": ["y"]}, 400, "query"),
    ],
)  # fmt: skip
def test_rerank_refuses_by_name(here: str, fields: dict[str, Any], status: int, param: str) -> None:
    found = ask(here, "/v1/rerank", fields)
    assert (found.status, found.error["param"]) == (status, param)


# Transcriptions


def speech(seconds: float = 1.5) -> bytes:
    moments = np.arange(int(seconds * sound.RATE)) / sound.RATE
    return sound.wav((0.3 * np.sin(2 * np.pi * 220 * moments)).astype(np.float32))


def test_without_ears_the_answer_says_how_to_get_them(here: str) -> None:
    with pytest.raises(openai.InternalServerError) as failed:
        client(here).audio.transcriptions.create(model="whisper-1", file=("a.wav", speech()))
    assert failed.value.status_code == 503
    assert failed.value.code == "no_sense"
    assert "STARRY_EARS" in str(failed.value)
    assert failed.value.response.headers["X-Should-Retry"] == "false"


def test_a_recording_is_written_down_in_each_form(here: str, elsewhere: Callable[..., Model]) -> None:
    elsewhere("EARS", {"text": "language Chinese<asr_text>雪夜的村庄"})
    create: Any = client(here).audio.transcriptions.create
    found = create(model="starry-ears", file=("a.wav", speech()), language="zh", prompt="梵高")
    assert (found.text, found.model_extra["language"]) == ("雪夜的村庄", "zh")
    assert create(model="m", file=("a.wav", speech()), response_format="text") == "雪夜的村庄\n"
    verbose = create(model="m", file=("a.wav", speech()), response_format="verbose_json")
    assert verbose.duration == pytest.approx(1.5)
    assert [(one.start, one.end, one.text) for one in verbose.segments] == [(0, 1.5, "雪夜的村庄")]
    assert verbose.language == "zh"
    cold = create(model="m", file=("a.wav", speech()), temperature=0, response_format="json")
    assert cold.model_extra["warnings"][0]["en"].startswith("model m")
    warm = create(
        model="starry-ears",
        file=("a.wav", speech()),
        temperature=0.4,
        include=["logprobs"],
        chunking_strategy="auto",
    )
    assert [one["en"].split(":")[0] for one in warm.model_extra["warnings"]] == [
        "chunking_strategy", "include", "temperature has no effect"
    ]  # fmt: skip


class Timekeeper(Elsewhere):
    """A recogniser of OpenAI's shape: its first words in a piece and their times, where ``knows`` of verbose_json; the forms that it got."""

    def __init__(self, knows: bool) -> None:
        self.knows, self.got = knows, list[bytes]()
        super().__init__(self._hear)

    def _hear(self, _: str, body: bytes, __: dict[str, str]) -> tuple[int, bytes]:
        self.got.append(body)
        number = len(self.got)
        if b"verbose_json" not in body:
            return 200, json.dumps({"text": f"piece {number} <b>"}).encode()
        if not self.knows:
            return 400, b'{"error": "response_format"}'
        said = {
            "text": f"piece {number}. & more",
            "segments": [
                {"start": 0.25, "end": 1, "text": f" piece {number}."},
                {"start": 1, "end": 99, "text": "& more"},
            ],
        }
        if b"granularities" in body and b"\r\n\r\nword\r\n" in body:
            said["words"] = [
                {"start": 0.25, "end": 0.5, "word": "piece"},
                {"start": 0.5, "end": 1, "word": str(number)},
            ]
        return 200, json.dumps(said).encode()


@pytest.fixture
def timekeeper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Timekeeper]:
    made = Timekeeper(getattr(request, "param", True))
    monkeypatch.setenv("STARRY_EARS", f"{made.url}#model")
    monkeypatch.delenv(KEY_ENV, raising=False)
    yield made
    made.close()


def long_speech() -> bytes:
    """38 s that are cut at 28.05 s, where they are silent for a tenth of a second."""
    moments = np.arange(38 * sound.RATE)
    loud = (0.3 * np.sin(moments / 9)).astype(np.float32)
    loud[28 * sound.RATE : 28 * sound.RATE + 1600] = 0
    return sound.wav(loud)


def test_subtitles_have_the_times_that_the_model_gives(here: str, timekeeper: Timekeeper) -> None:
    create: Any = client(here).audio.transcriptions.create
    found = create(model="starry-ears", file=("a.wav", long_speech()), response_format="srt")
    assert found == (
        "1\n00:00:00,250 --> 00:00:01,000\npiece 1.\n\n2\n00:00:01,000 --> 00:00:28,050\n& more\n\n"
        "3\n00:00:28,300 --> 00:00:29,050\npiece 2.\n\n4\n00:00:29,050 --> 00:00:38,000\n& more\n\n"
    )
    found = create(model="starry-ears", file=("a.wav", speech()), response_format="vtt")
    assert (
        found
        == "WEBVTT\n\n00:00:00.250 --> 00:00:01.000\npiece 3.\n\n00:00:01.000 --> 00:00:01.500\n&amp; more\n\n"
    )


@pytest.mark.parametrize("timekeeper", [False], indirect=True)
def test_where_the_model_gives_no_times_a_piece_is_a_subtitle(here: str, timekeeper: Timekeeper) -> None:
    create: Any = client(here).audio.transcriptions.create
    file = ("a.wav", long_speech())
    found = create(model="m", file=file, response_format="vtt")
    assert found.count("\n\n") == 3
    assert "00:00:00.000 --> 00:00:28.050\npiece 2 &lt;b&gt;" in found
    assert "00:00:28.050 --> 00:00:38.000" in found
    assert len(timekeeper.got) == 3  # verbose_json is not asked for again
    with pytest.raises(openai.APIStatusError) as failed:
        create(model="m", file=file, response_format="verbose_json", timestamp_granularities=["word"])
    assert failed.value.status_code == 502


def test_words_have_times_where_the_model_gives_them(
    here: str, timekeeper: Timekeeper, elsewhere: Callable[..., Model]
) -> None:
    create: Any = client(here).audio.transcriptions.create
    more = {"model": "starry-ears", "response_format": "verbose_json"}
    found = create(file=("a.wav", long_speech()), timestamp_granularities=["word"], **more)
    assert [(one.word, one.start, one.end) for one in found.words] == [
        ("piece", 0.25, 0.5), ("1", 0.5, 1), ("piece", 28.3, 28.55), ("2", 28.55, 29.05)
    ]  # fmt: skip
    assert found.segments is None
    found = create(file=("a.wav", speech()), timestamp_granularities=["word", "segment"], **more)
    assert (len(found.words), len(found.segments)) == (2, 2)
    elsewhere("EARS", {"text": "no times"})
    with pytest.raises(openai.BadRequestError, match="no times of words") as refused:
        create(file=("a.wav", speech()), timestamp_granularities=["word"], **more)
    assert refused.value.param == "timestamp_granularities"


def test_a_long_recording_is_streamed_piece_by_piece(here: str, timekeeper: Timekeeper) -> None:
    create: Any = client(here).audio.transcriptions.create
    *deltas, last = create(model="starry-ears", file=("a.wav", long_speech()), stream=True)
    assert [one.delta for one in deltas] == ["piece 1 <b>", " piece 2 <b>"]
    assert last.type == "transcript.text.done"
    assert last.text == "".join(one.delta for one in deltas)


def test_a_stream_that_fails_ends_in_a_sentence(here: str, elsewhere: Callable[..., Model]) -> None:
    elsewhere("EARS", {"error": "no"}, 401)
    create: Any = client(here).audio.transcriptions.create
    with pytest.raises(openai.APIError, match="answered 401"):
        list(create(model="starry-ears", file=("a.wav", speech()), stream=True))


def test_what_had_no_effect_on_a_text_is_told_in_a_header(here: str, elsewhere: Callable[..., Model]) -> None:
    elsewhere("EARS", {"text": "雪夜"})
    raw: Any = client(here).audio.transcriptions.with_raw_response
    told = raw.create(model="模型", file=("a.wav", speech()), response_format="text").headers[
        "Starry-Warnings"
    ]
    assert "模型" in json.loads(told)[0]["zh"]


@pytest.mark.parametrize(
    ("more", "file", "status", "param"),
    [
        ({"response_format": "diarized_json"}, speech(), 400, "response_format"), ({"language": "klingon"}, speech(), 400, "language"),
        ({"stream": True, "response_format": "srt"}, speech(), 400, "stream"), ({}, b"RIFFbroken", 422, None),
        ({"prompt": "x" * 501}, speech(), 400, "prompt"), ({"temperature": 1.5}, speech(), 400, "temperature"),
        ({"extra_body": {"temperature": "hot"}}, speech(), 400, "temperature"), ({"extra_body": {"stream": "yes"}}, speech(), 400, "stream"),
        ({"timestamp_granularities": ["word"]}, speech(), 400, "timestamp_granularities"), ({"languages": ["en"]}, speech(), 400, "languages"),
        ({"timestamp_granularities": ["letter"], "response_format": "verbose_json"}, speech(), 400, "timestamp_granularities"),
        ({"extra_body": {"keywords": ["a"]}}, speech(), 400, "keywords"),
    ],
)  # fmt: skip
def test_transcriptions_refuse_by_name(
    here: str,
    elsewhere: Callable[..., Model],
    more: dict[str, Any],
    file: bytes,
    status: int,
    param: str | None,
) -> None:
    elsewhere("EARS", {"text": "x"})
    create: Any = client(here).audio.transcriptions.create
    with pytest.raises(openai.APIStatusError) as failed:
        create(model="m", file=("a.wav", file), **more)
    assert (failed.value.status_code, failed.value.param) == (status, param)  # type: ignore[attr-defined]


def test_a_form_without_a_recording(here: str) -> None:
    assert ask(here, "/v1/audio/transcriptions", {"file": "x"}).error["param"] == "file"
    body = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n'
    found = ask(here, "/v1/audio/transcriptions", body, Content_Type="multipart/form-data; boundary=x")
    assert (found.status, found.error["code"]) == (400, "missing_required_parameter")


# Facets, and what there is


def test_facets_of_a_text(here: str) -> None:
    found = ask(here, "/facets", {"text": "🌙 雪夜的村庄"}).json
    assert found["by"] == "lexicon"
    assert [(one["kind"], one["text"], one["start"], one["value"]) for one in found["facets"]] == [
        ("time", "雪夜", 2, "night"), ("place", "村庄", 5, "village")
    ]  # fmt: skip
    for schema in (["时间"], {"时间": None}):
        (only,) = ask(here, "/facets", {"text": "雪夜的村庄", "schema": schema}).json["facets"]
        assert (only["kind"], only["text"]) == ("时间", "雪夜")


def test_a_model_elsewhere_finds_open_kinds_and_falls_back(
    here: str, elsewhere: Callable[..., Model]
) -> None:
    said = json.dumps({"spans": [{"kind": "人物", "text": "李白"}, {"kind": "地点", "text": "长安"}]})
    model = elsewhere("FACETS", {"choices": [{"message": {"content": said}}]})
    found = ask(here, "/facets", {"text": "李白在长安", "schema": ["人物", "地点"]}).json
    assert [(one["kind"], one["start"], one["end"]) for one in found["facets"]] == [
        ("人物", 0, 2),
        ("地点", 3, 5),
    ]
    model.status = 500
    assert ask(here, "/facets", {"text": "雪夜"}).json["by"] == "lexicon"
    assert "500" in ask(here, "/facets", {"text": "雪夜"}).json["warnings"][0]["en"]
    assert ask(here, "/facets", {"text": "李白", "schema": ["人物"]}).status == 502


@pytest.mark.parametrize(
    ("fields", "param"),
    [({}, "text"), ({"text": ""}, "text"), ({"text": 3}, "text"), ({"text": "x" * 4001}, "text"), ({"text": "x", "schema": []}, "schema"),
     ({"text": "x", "schema": "time"}, "schema"), ({"text": "x", "schema": ["人物"]}, "schema"), ({"text": "x", "schema": [1]}, "schema"),
     ({"text": "x", "shema": []}, "shema")],
)  # fmt: skip
def test_facets_refuse_by_name(here: str, fields: dict[str, Any], param: str) -> None:
    found = ask(here, "/facets", fields)
    assert (found.status, found.error["param"]) == (400, param)


def test_the_senses_are_listed(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_EYES", "https://example.invalid/v1#m")
    monkeypatch.setenv("STARRY_RANKER", "nothing")
    found = {one["name"]: one for one in ask(here, "/api/senses").json["senses"]}
    assert found["eyes"]["leaves"]
    assert not found["ears"]["there"]
    assert found["embedder"]["there"]
    assert "STARRY_RANKER" in found["ranker"]["error"]["en"]


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/embeddings", "/v1/rerank", "/v1/audio/transcriptions", "/facets"]
)
def test_a_key_is_asked_for_and_its_rate_holds(gallery: Gallery, path: str) -> None:
    keys = Keys(gallery.database)
    _, key = keys.make(f"test {path}", rate=2)
    access = Access.of("127.0.0.1", None, keys=keys, require_key=True)
    with without_worker(gallery, access) as address:
        refused = ask(address, path, {"text": "雪"})
        assert (refused.status, refused.error["type"]) == (
            401,
            "Unauthorized" if path == "/facets" else "invalid_request_error",
        )
        statuses = [
            ask(address, path, {"text": "雪"}, Authorization=f"Bearer {key}").status for _ in range(3)
        ]
    assert statuses[2] == 429
    assert 401 not in statuses


def test_the_curl_loop_of_the_document_runs_as_it_stands(
    here: str, sunflowers: np.ndarray, tmp_path: Path
) -> None:
    document = (ROOT / "docs" / "senses.md").read_text("utf-8")
    loop = re.search(r"```sh\n(for f in \*\.jpg; do .*? done)\n```", document, re.DOTALL)
    assert loop is not None
    large = np.random.default_rng(1).integers(
        0, 255, (600, 600, 3), np.uint8
    )  # more than one argument of a command may hold
    for name, pixels in (("a b.jpg", sunflowers), ("large.jpg", large)):
        (tmp_path / name).write_bytes(encoded(pixels, "JPEG"))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    command = loop[1].replace("http://127.0.0.1:8470", here)
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, (done.stdout, done.stderr)
    assert "向日葵" in lines[0]
    assert lines[2] == CANNOT_TELL.zh

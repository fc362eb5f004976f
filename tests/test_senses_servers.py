"""Every sense at an address: what is sent, what is read, and what becomes of each way in which a server fails."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import Elsewhere

from starrynight.errors import BadRequest, NoSense, RemoteError
from starrynight.senses import choice, hearing, ranking, remote, running, sound
from starrynight.senses.asking import places, sentences, spoken, whole
from starrynight.senses.embedding import embed
from starrynight.senses.eyes import Eyes
from starrynight.senses.languages import language_code

KEY = "sk-very-secret"
Answer = tuple[int, bytes]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_HOME", str(tmp_path))
    monkeypatch.setenv(choice.KEY_ENV, KEY)


class Server(Elsewhere):
    """Answers each path with ``answers``, in turn, the last one again; keeps what was asked: path, body, headers."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, bytes, dict[str, str]]] = []
        super().__init__(self._answer)

    def _answer(self, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        found = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append((path, body, headers))
        return found

    def choice(self, sense: str) -> choice.Choice:
        return choice.parse(sense, f"{self.url}#m")


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def answered(content: Any) -> Answer:
    return 200, json.dumps(content).encode()


HUM = sound.Sound(np.sin(np.arange(16_000) / 9).astype(np.float32))
PIXELS = np.full((64, 48, 3), 90, np.uint8)


def _describe(chosen: choice.Choice) -> tuple[Any, Any]:
    look = Eyes(chosen).look(PIXELS)
    return look.failed, look.description.by


def _hear(chosen: choice.Choice) -> tuple[Any, Any]:
    try:
        return None, hearing.transcribe(HUM, choice=chosen).by
    except RemoteError as error:  # nobody else can hear
        return error, ""


def _rank(chosen: choice.Choice) -> tuple[Any, Any]:
    found = ranking.rank("星夜", ["a starry night", "noon"], chosen)
    assert len(found.results) == 2
    return found.failed, found.by


def _embed(chosen: choice.Choice) -> tuple[Any, Any]:
    found = embed(["星夜", "noon"], chosen)
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    return found.failed, found.by


def _find(chosen: choice.Choice) -> tuple[Any, Any]:
    try:
        running.model(chosen).find("星夜", {"时间": None})
    except RemoteError as error:
        return error, ""
    return None, chosen.name


ASK: dict[str, Callable[[choice.Choice], tuple[Any, Any]]] = {
    "eyes": _describe, "ears": _hear, "facets": _find, "ranker": _rank, "embedder": _embed,
}  # fmt: skip


def said(text: str) -> Answer:
    return answered({"choices": [{"message": {"content": text}}]})


# What each sense's server should say, and answers that look like it and hold something else.
GOOD: dict[str, Answer] = {
    "eyes": said('{"alt_en": "A boat.", "alt_zh": "船。"}'),
    "ears": answered({"text": "language Chinese<asr_text>星夜"}),
    "facets": said('{"spans": [{"kind": "时间", "text": "星夜"}]}'),
    "ranker": answered(
        {"results": [{"index": 1, "relevance_score": 0.2}, {"index": 0, "relevance_score": 0.9}]}
    ),
    "embedder": answered(
        {"data": [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4]}]}
    ),
}
WRONG: dict[str, list[Any]] = {
    "eyes": [said(""), said('{"alt_en": 3}'), answered({"choices": [{"message": None}]})],
    "ears": [answered({"text": None}), answered({"words": "x"}), answered(["x"])],
    "facets": [said("none"), said('{"spans": {}}'), said('[{"kind": "时间"}]')],
    "ranker": [
        answered({"results": [{"index": 0, "relevance_score": 0.9}]}),
        answered({"results": [{"index": one, "relevance_score": "x"} for one in (0, 1)]}),
        answered({"results": [{"index": one, "relevance_score": 0.5} for one in (0, 7)]}),
        answered({"results": [{"index": 0, "relevance_score": 0.5}] * 2}),
        (200, b'{"results": [{"index": 0, "relevance_score": NaN}, {"index": 1, "relevance_score": 1e999}]}'),
        answered({"results": [[], None]}),
    ],
    "embedder": [
        answered({"data": [{"index": 0, "embedding": [1.0]}]}),
        answered({"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]}),
        answered({"data": [{"embedding": [0.0]}, {"embedding": [0.0]}]}),
        answered({"data": [{"embedding": "AAAA"}, {"embedding": "AAAA"}]}),
        answered({"data": [{"index": [], "embedding": [1.0]}, {"index": {}, "embedding": [1.0]}]}),
        answered({"data": [{"embedding": [10**400]}, {"embedding": [1.0]}]}),
    ],
}
BROKEN: dict[str, list[Answer]] = {
    "wrong key": [(401, json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode())],
    "429": [(429, b'{"error": "slow down"}')] * 2,
    "503": [(503, b"")],
    "500": [(500, b"<html>")],
    "redirect": [(302, b"")],
    "nonsense": [(200, b"not json")],
    "list": [(200, b"[]")],
    "null": [(200, b"null")],
    "cut": [(-200, b'{"results"')],
    "binary": [(200, b"\xff\xfe\x00")],
    "deep": [(200, b"[" * 100_000)],
}


@pytest.mark.parametrize("sense", choice.SENSES)
def test_a_right_answer_is_taken(server: Server, sense: str) -> None:
    server.answers = [GOOD[sense]]
    failed, by = ASK[sense](server.choice(sense))
    assert failed is None
    assert by == f"{server.url[7:-3]}#m"
    assert server.asked[0][2]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("sense", choice.SENSES)
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_server_is_one_sentence_and_the_built_in_answers(
    server: Server, sense: str, how: str
) -> None:
    server.answers = BROKEN[how]
    failed, by = ASK[sense](server.choice(sense))
    assert failed is not None
    for sentence in (failed.en, failed.zh):
        assert server.url[7:-3] in sentence
        assert KEY not in sentence
    assert failed.en != failed.zh
    assert server.url[7:-3] not in by


@pytest.mark.parametrize(("sense", "number"), [(sense, number) for sense in WRONG for number in range(len(WRONG[sense]))])  # fmt: skip
def test_an_answer_that_holds_something_else_is_refused(server: Server, sense: str, number: int) -> None:
    server.answers = [WRONG[sense][number]]
    failed, _ = ASK[sense](server.choice(sense))
    assert failed is not None
    assert server.url[7:-3] in failed.en


@pytest.mark.parametrize("sense", choice.SENSES)
def test_a_server_that_hangs_or_is_gone_is_named(sense: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        slow, _ = ASK[sense](choice.parse(sense, f"http://{address}/v1"))
    gone, _ = ASK[sense](choice.parse(sense, f"http://{address}/v1"))
    for failed in (slow, gone):
        assert failed is not None
        assert address in failed.en


@pytest.mark.parametrize("sense", choice.SENSES)
def test_too_much_is_not_read(server: Server, sense: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from starrynight.senses import asking

    monkeypatch.setattr(asking, "MAX_VECTORS", 1 << 20)
    server.answers = [(200, b" " * ((1 << 20) + 1))]
    failed, _ = ASK[sense](server.choice(sense))
    assert failed is not None
    assert "too much" in failed.en


def test_speech_is_sent_as_openai_takes_it(server: Server) -> None:
    server.answers = [answered({"text": " hello there "}), answered({"text": "你好"})]
    said = hearing.transcribe(sound.wav(HUM.samples), "en-US", "Monet, 梵高", server.choice("ears"))
    assert (said.text, said.language, round(said.seconds, 3)) == ("hello there", "en", 1.0)
    path, body, headers = server.asked[0]
    assert path == "/v1/audio/transcriptions"
    parts = BytesParser().parsebytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
    fields = {str(one.get_param("name", header="Content-Disposition")): one.get_payload(decode=True) for one in parts.get_payload()}  # type: ignore[union-attr]  # fmt: skip
    assert {name: fields[name].decode() for name in ("language", "prompt", "model", "response_format")} == {
        "language": "en", "prompt": "Monet, 梵高", "model": "m", "response_format": "json",
    }  # fmt: skip
    heard = sound.read(fields["file"])
    assert np.abs(heard.samples - HUM.samples).max() < 1e-4


def test_silence_and_nothing_ask_nobody(server: Server) -> None:
    for samples in (np.zeros(0, np.float32), np.zeros(50_000, np.float32)):
        assert hearing.transcribe(sound.Sound(samples), choice=server.choice("ears")).text == ""
    assert server.asked == []


def test_a_long_recording_is_heard_in_pieces_cut_where_it_is_quiet(server: Server) -> None:
    loud = np.sin(np.arange(70 * sound.RATE) / 9).astype(np.float32)
    loud[24 * sound.RATE : 25 * sound.RATE] = 0
    server.answers = [answered({"text": one}) for one in ("one", "two", "三")]
    assert hearing.transcribe(sound.Sound(loud), choice=server.choice("ears")).text == "one two三"
    first = next(iter(sound.pieces(sound.Sound(loud))))
    assert (first.start, 24 <= first.end <= 25) == (0, True)
    pieces = list(sound.pieces(sound.Sound(loud)))
    assert sum(len(one.samples) for one in pieces) == len(loud)
    assert [one.end for one in pieces[:-1]] == [one.start for one in pieces[1:]]


@pytest.mark.parametrize(
    ("written", "words", "language"),
    [("language Chinese<asr_text>星夜", "星夜", "Chinese"), ("星夜", "星夜", None), ("language None<asr_text>", "", None),
     ("<asr_text>hi", "hi", None), ("<think>x</think>hi", "hi", None), ("the language of stars", "the language of stars", None)],
)  # fmt: skip
def test_what_a_speech_model_writes_is_read(written: str, words: str, language: str | None) -> None:
    assert spoken(written) == (words, language)


@pytest.mark.parametrize(("asked", "code"), [("zh", "zh"), ("zh-CN", "zh"), ("Chinese", "zh"), ("yue-Hant-HK", "yue"), ("zh-HK", "yue"), ("EN_us", "en"), ("auto", None), ("", None), (None, None)])  # fmt: skip
def test_languages_are_named_in_many_ways(asked: str | None, code: str | None) -> None:
    assert language_code(asked) == code


@pytest.mark.parametrize("asked", ["klingon", "xx", "中文", "z"])
def test_an_unknown_language_is_refused(asked: str) -> None:
    with pytest.raises(BadRequest):
        language_code(asked)


def test_without_ears_the_sentence_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "off"):
        monkeypatch.setenv("STARRY_EARS", value)
        with pytest.raises(NoSense) as none:
            hearing.transcribe(HUM)
        assert "STARRY_EARS" in none.value.en
        assert "browser" in none.value.en
        assert "浏览器" in none.value.zh


def test_logits_become_probabilities_and_order_does_not_matter(server: Server) -> None:
    rows = [{"index": 0, "relevance_score": -3.0}, {"index": 1, "score": 4.0}]
    server.answers = [answered({"results": rows}), answered(rows[::-1])]
    for _ in range(2):
        found = ranking.rank("x", ["a", "b"], server.choice("ranker"))
        assert found.failed is None
        assert [one.index for one in found.results] == [1, 0]
        assert found.results[0].score == pytest.approx(1 / (1 + np.exp(-4)))


def test_the_perceiver_ranks_texts_pictures_and_none() -> None:
    from starrynight.firefly.drawing.landscape import render
    from starrynight.firefly.drawing.scene import compose

    def drawn(kind: str) -> np.ndarray:
        return np.asarray(render(compose(5, kind=kind, style="oil", hour="noon"), 160))

    pictures = [ranking.Document(pixels=drawn("city")), ranking.Document(pixels=drawn("sunflowers"))]
    found = ranking.rank("向日葵", pictures)
    assert found.results[0].index == 1
    assert ranking.rank("向日葵", pictures[::-1]).results[0].index == 0
    assert ranking.rank("向日葵", []).results == ()
    assert ranking.rank("sunflowers at noon", ["a city at night", "sunflowers at noon"]).results[0].index == 1
    with pytest.raises(BadRequest):
        ranking.rank("x", ["a"] * 501)
    with pytest.raises(NoSense):
        ranking.rank("x", ["a"], choice.parse("ranker", "off"))


def test_spans_that_do_not_stand_in_the_text_are_left_out() -> None:
    named = [
        ("时间", "夜"),
        ("时间", "夜"),
        ("时间", "夜"),
        ("地点", "河"),
        ("时间", "春"),
        ("时间", 3),
        (None, "夜"),
    ]
    assert places("夜与夜", named, ["时间", "地点"]) == [("时间", 0, 1), ("时间", 2, 3)]


@pytest.mark.parametrize(
    "written",
    ["", "{}", '{"alt_en": "A boat.", "alt_', "```json\n{", "[1, 2", '{"alt_en": "A boat."}', "\ufffd"],
)
def test_what_is_no_description_is_none(written: str) -> None:
    """JSON that the limit of tokens cut short is no sentence."""
    assert sentences(whole(written)) is None


def test_what_a_speech_model_repeats_without_end_stands_once() -> None:
    assert spoken("好" + "的" * 300 + "。")[0] == "好的。"
    assert spoken("star " * 50)[0] == "star"
    assert spoken("哈哈哈，very very good")[0] == "哈哈哈，very very good"

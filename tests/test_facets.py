"""The facets of a text: every phrase where it stands, whole words, the longest of what overlaps; ``starry facets``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from starrynight.cli import facets as _facets  # noqa: F401  registers its command
from starrynight.cli.terminal import app
from starrynight.errors import BadRequest
from starrynight.firefly.drawing.scene import compose
from starrynight.firefly.training import captions
from starrynight.i18n import LANGUAGES
from starrynight.request import MAX_TEXT
from starrynight.senses import facets as sense
from starrynight.senses.facets import KINDS, facets, kind_of, words_of

HELD_OUT = 9_000_000  # the first seed of pictures that no model is trained on (senses/verbs.py)
CAPTIONS = 600
Place = tuple[str, int, int]  # kind, start, end

# What a person marks: the kind's letter and the words.
LETTERS = {"s": "style", "t": "time", "w": "weather", "p": "place", "x": "thing"}
BY_HAND = {
    "星夜村庄": "t星夜|p村庄",
    "星夜下的静谧村庄，梵高风格": "t星夜|p村庄|s梵高风格",
    "雨夜的霓虹都市，赛博朋克": "t雨夜|s霓虹|p都市|s赛博朋克",
    "水墨画：江上渔翁，细雨": "s水墨画|p江上|x渔翁|w细雨",
    "雪后的小镇黄昏": "w雪后|p小镇|t黄昏",
    "桌上的花瓶": "",
    "花园里的猫": "x猫",
    "马路上的手机": "",
    "上海外滩": "",
    "没有月亮的夜晚": "t夜晚",
    "敦煌壁画里的飞天，祥云": "s敦煌壁画|x飞天|x祥云",
    "A starry night over a quiet village, van Gogh style": "tA starry night|pvillage|svan Gogh style",
    "Sunflowers": "xSunflowers",
    "a sunflower in a vase": "xsunflower",
    "two foxes in the snow at dusk": "xtwo foxes|win the snow|tat dusk",
    "Monet's water lilies in the morning": "sMonet|xwater lilies|tin the morning",
    "a fisherman’s boat, no moon": "xa fisherman|xboat",
    "villages and castles by the sea": "pvillages|xcastles|pby the sea",
    "ink wash, 竹林里的熊猫": "sink wash|p竹林|x熊猫",
    "watercolour of a foggy harbour at sunrise": "swatercolour|wfoggy|pharbour|tat sunrise",
    "🌙 山顶的古寺 🌙 at night": "p山顶|x古寺|tat night",
    "İstanbul at night": "tat night",
    "": "",
    "，。!?": "",
}


@pytest.mark.parametrize("text", BY_HAND)
def test_the_words_that_a_person_marks(text: str) -> None:
    marked = [(LETTERS[one[0]], one[1:]) for one in BY_HAND[text].split("|") if one]
    found = facets(text)
    assert [(span.kind, span.text) for span in found] == marked
    assert all(text[span.start : span.end] == span.text for span in found)


def phrases() -> Iterator[tuple[str, str, str]]:
    """Every phrase of a fact with its table and name."""
    for table in ("style", "hour", "weather", "kind", "thing"):
        for language in LANGUAGES:
            for name, some in captions.PHRASES[table][language].items():
                yield from ((table, name, phrase) for phrase in some)


def test_every_phrase_of_the_captions_is_found_where_it_stands() -> None:
    kinds = {"style": {"style"}, "hour": {"time"}, "weather": {"weather"}}
    wrong = []
    for table, name, phrase in phrases():
        # A space would join the letters of two Latin words, a comma parts everything.
        text = f"8k, {phrase}, 高清"
        spans = facets(text)
        right = [(4, 4 + len(phrase))] == [(span.start, span.end) for span in spans]
        if not right or spans[0].kind not in kinds.get(table, {"place", "thing", "weather"}):
            wrong.append((table, name, phrase, spans))
    assert wrong == []
    assert len(list(phrases())) >= 342


def test_words_that_are_no_phrase_are_found_in_the_further_words() -> None:
    tables = json.loads((Path(sense.__file__).parent / "facet_words.json").read_text("utf-8"))
    nothing = tables.pop("none")
    assert set(tables) == set(KINDS)
    for phrase in (*nothing[""]["zh"], *nothing[""]["en"]):
        assert facets(phrase) == (), phrase
    for kind, table in tables.items():
        for value, languages in table.items():
            for phrase in (*languages["zh"], *languages["en"]):
                (span,) = facets(phrase)
                assert (span.text, span.kind) == (phrase, kind), value
            assert value in {*captions.PHRASES["thing"]["en"], *captions.PHRASES["kind"]["en"],
                             *captions.PHRASES["style"]["en"], *captions.PHRASES["hour"]["en"],
                             *captions.PHRASES["weather"]["en"]}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_spans_of_held_out_captions(language: str) -> None:
    """Precision and recall of spans over captions that Firefly's grammar writes: where it put which phrase is recorded as it
    writes; in a whole line those words count that name the line's facts.
    """
    right = found = marked = values = 0
    for seed in range(HELD_OUT, HELD_OUT + CAPTIONS):
        text, truth = written(seed)
        if any("\u4e00" <= sign <= "\u9fff" for sign in text) != (language == "zh"):
            continue
        spans = {(span.kind, span.start, span.end): span.value for span in facets(text)}
        hits = spans.keys() & truth.keys()
        right, found, marked = right + len(hits), found + len(spans), marked + len(truth)
        values += sum(spans[place] in truth[place] for place in hits)
    precision, recall = right / found, right / marked
    f1 = 2 * precision * recall / (precision + recall)
    print(f"{language}: {marked} spans, precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f}")
    assert marked > 500
    assert f1 >= 0.95
    assert values / right >= 0.98


def written(seed: int) -> tuple[str, dict[Place, frozenset[str]]]:
    """A caption, and the places of the facts in it with the names that they may have there."""
    picked: list[tuple[Sequence[str], str]] = []
    pick = captions._pick

    def recorded(rng: np.random.Generator, choices: Sequence[str]) -> str:
        picked.append((choices, pick(rng, choices)))
        return picked[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captions, "_pick", recorded)
        text = captions.caption(compose(seed), np.random.default_rng(seed))
    truth: dict[Place, frozenset[str]] = {}
    for choices, one in picked:
        if id(choices) in whole():
            _mark(text, one, 0, len(text), truth)
    for choices, one in picked:
        plain = one.replace("{}", "").strip(" ，,").lower()
        start = text.lower().find(plain)
        if (names := within().get(id(choices))) and start >= 0:
            for word in sorted((w for w, (_, some) in meanings().items() if some & names), key=len)[::-1]:
                while _mark(text, word, start, start + len(plain), truth):
                    pass
    return text, truth


def _mark(text: str, word: str, low: int, high: int, truth: dict[Place, frozenset[str]]) -> bool:
    """Mark the next place of ``word`` between ``low`` and ``high`` that is free and no part of a Latin word; False for none."""
    begun = [text[:k].lower() for k in range(len(text) + 1)]
    for start in range(low, high - len(word) + 1):
        end = start + len(word)
        if text[start:end].lower() != word.lower():
            continue
        end += next(
            (len(more) for more in ("es", "s") if text[end:].startswith(more) and word[-1].isascii()), 0
        )
        inner = text[max(start - 1, 0) : start + 1], text[end - 1 : end + 1]
        joined = any(len(pair) == 2 and pair.isascii() and pair.isalpha() for pair in inner)
        if joined or any(start < old_end and old < end for _, old, old_end in truth):
            continue
        number = next((n for n in COUNTS if counted(word) and begun[start].endswith(n)), "")
        kind, names = meanings()[word.lower()] if word.lower() in meanings() else ("thing", counted(word))
        truth[kind, start - len(number), end] = names
        return True
    return False


COUNTS = ("a pair of ", "three ", "two ", "一", "两", "三")


def counted(phrase: str) -> frozenset[str]:
    """The animals of which a phrase follows a number."""
    tables = captions.PHRASES["counted"].values()
    return frozenset(name for table in tables for name, some in table.items() if phrase in some)


@cache
def meanings() -> dict[str, tuple[str, frozenset[str]]]:
    """The kind and the names of every phrase."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for kind, name, languages in sense._entries():
        for phrase in (*languages["zh"], *languages["en"]):
            first, names = found.get(phrase.lower(), (kind, frozenset()))
            found[phrase.lower()] = first, names | {name}
    return found


@cache
def whole() -> frozenset[int]:
    """The lists of the grammar whose phrases each are one fact."""
    tables = ("style", "hour", "weather", "thing", "counted")
    return frozenset(id(some) for t in tables for by in captions.PHRASES[t].values() for some in by.values())


@cache
def within() -> dict[int, frozenset[str]]:
    """The lists of whole lines and of templates with an hour or a weather: the names that stand in them."""
    found: dict[int, frozenset[str]] = {}
    for language in LANGUAGES:
        found |= {id(some): frozenset({name}) for name, some in captions.PHRASES["at"][language].items()}
        for needs, lines in (
            *captions.PHRASES["line"][language],
            *captions.PHRASES["kind"][language].items(),
        ):
            names = set(needs.split())
            names |= {"moon", "crescent"} if "moonlit" in names else set()
            names |= {kind for kind, some in captions.MAIN.items() if names & set(some) and len(some) < 5}
            found[id(lines)] = frozenset(names)
    return found


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        (["style"], ["style"]),
        (["风格", "事物"], ["风格", "事物"]),
        (["景物"], ["景物"]),
        (["Time"], ["Time"]),
        ([], []),
    ],
)
def test_a_schema_chooses_kinds_and_names_them(schema: list[str], kinds: list[str]) -> None:
    found = facets("黄昏的村庄，一只狐狸，水墨", schema)
    assert sorted({span.kind for span in found}) == sorted(kinds)


@pytest.mark.parametrize("name", ["person", "人物", "", "风 格"])
def test_an_unknown_kind_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadRequest) as refused:
        kind_of(name)
    assert "style, time, weather, place, thing" in refused.value.en
    assert "风格、时间" in refused.value.zh


@pytest.mark.parametrize("schema", [["style", "风格"], ["thing", "景物"], ["time", "time"]])
def test_one_kind_by_two_names_is_refused(schema: list[str]) -> None:
    with pytest.raises(BadRequest, match="one kind"):
        facets("雪夜", schema)


def test_words_of_a_kind_are_found_again() -> None:
    for kind in KINDS:
        for language in LANGUAGES:
            for value, phrase in words_of(kind, language).items():
                (span,) = facets(phrase)
                assert (span.kind, span.text) == (kind, phrase), value


def run(*words: str, given: str | None = None) -> Any:
    return CliRunner().invoke(app, ["facets", *words], input=given)


def test_the_command_lists_facets_in_the_language_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARRY_LANG", "en")
    assert run("雪夜的村庄").stdout == "time  雪夜  night\nplace  村庄  village\n"
    assert run("雪夜的村庄", "--lang", "zh").stdout == "时间  雪夜  night\n地点  村庄  village\n"
    assert run("-", given="[bold]fox\n").stdout == "thing  fox  fox\n"
    nothing = run("xyzzy")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "lexicon" in nothing.stderr


def test_the_command_prints_json_with_code_points() -> None:
    found = json.loads(run("🌙 a fox", "--json").stdout)
    assert found == {
        "text": "🌙 a fox",
        "facets": [{"kind": "thing", "text": "a fox", "start": 2, "end": 7, "value": "fox"}],
        "by": "lexicon",
    }


@pytest.mark.parametrize("words", [("",), ("  ",), ("x" * (MAX_TEXT + 1),), ("fox", "--lang", "fr")])
def test_the_command_refuses_what_it_cannot_read(words: tuple[str, ...]) -> None:
    refused = run(*words).exception
    assert isinstance(refused, BadRequest)
    assert refused.en != refused.zh


def test_a_terminal_shows_each_facet_in_its_kinds_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("STARRY_LANG", "zh")
    first, *rest = run("[雪夜] of a fox").stdout.splitlines()
    painted = re.findall("\x1b\\[([\\d;]+)m(.*?)\x1b\\[0m", first)
    assert [words for _, words in painted] == ["雪夜", "a fox"]
    assert len({colour for colour, _ in painted}) == 2
    assert re.sub("\x1b\\[[\\d;]*m", "", first) == "[雪夜] of a fox"
    assert rest == ["时间  雪夜  night", "事物  a fox  fox"]

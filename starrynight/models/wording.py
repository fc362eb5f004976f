"""Words in prompts and captions, Chinese and English: tokens, whole-phrase matching, common words.

A word is matched whole and the longest phrase first: "sunflower" is no sun, 向日葵 is no 日. Common words
(articles, adjectives, praise) and words for things that are near known ones are in common_words.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator
from functools import cache
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

from opencc import OpenCC

# A Latin word with its hyphens and apostrophes, a number, one Han character, a space between two (which parts
# 海 浪花), or one other sign.
_HAN = r"\u3400-\u9fff"
TOKEN = re.compile(rf"[^\W\d_{_HAN}]+(?:['’-][^\W\d_{_HAN}]+)*|\d+|[{_HAN}]|(?<=[{_HAN}])\s+(?=[{_HAN}])|\S")
HAN_RUN = re.compile(rf"[{_HAN}]+")
# Two of these beside each other that no phrase joins are another animal: 河马 and 海马 are no horses.
_ANIMALS = frozenset("猫狗鹿马兔鹤鱼鲸")
# What a part of a Chinese sentence is: a word that was read or is common; a noun that was not, and that two
# known words make by chance (上海) or not (大船, a large 船); a character of none. And what each costs a division
# into parts.
_KNOWN, _NOUN, _PHRASE, _ALIEN = range(4)
_COSTS = (1.0, 1.5, 2.5, 10.0)
# What is called otherwise in Taiwan and Hong Kong than in the captions, as OpenCC writes it.
_NAMES = {"梵谷": "梵高", "莫内": "莫奈", "赛博庞克": "赛博朋克"}


@cache
def _converter() -> OpenCC:
    return OpenCC("t2s")


def simplified(text: str) -> str:
    """``text`` with traditional Chinese characters as simplified ones (OpenCC), as long as before: every place stays what it was."""
    if not HAN_RUN.search(text):
        return text
    found = _converter().convert(text)
    if len(found) != len(text):
        found = "".join(one if len(one := _converter().convert(sign)) == 1 else sign for sign in text)
    for name, ours in _NAMES.items():
        found = found.replace(name, ours)
    return found


def tokens(text: str) -> tuple[str, ...]:
    """``text`` in lower case and simplified as words, numbers, single Han characters, spaces between these and other signs."""
    return tuple(TOKEN.findall(simplified(text).lower()))


class PhraseBook:
    """What phrases mean, found in a text from left to right, the longest first and never part of a word."""

    def __init__(self, entries: Iterable[tuple[str, Iterable[str]]]) -> None:
        """``entries``: phrases with what they mean. The meanings of a phrase that comes twice are joined."""
        self._meanings: dict[tuple[str, ...], frozenset[str]] = {}
        for phrase, meaning in entries:
            key = tokens(phrase)
            self._meanings[key] = self._meanings.get(key, frozenset()) | frozenset(meaning)
        self._longest: dict[str, int] = {}
        for key in filter(None, self._meanings):
            self._longest[key[0]] = max(self._longest.get(key[0], 0), len(key))

    def find(self, words: tuple[str, ...]) -> Iterator[tuple[int, int, frozenset[str]]]:
        """The start, end and meaning of every phrase in ``words`` (see ``tokens``); they do not overlap."""
        start = 0
        while start < len(words):
            longest = min(self._longest.get(words[start], 0), len(words) - start)
            ends = range(start + longest, start, -1)
            end = next((end for end in ends if words[start:end] in self._meanings), None)
            if end is not None:
                yield start, end, self._meanings[words[start:end]]
            start = end or start + 1

    def everywhere(self, words: tuple[str, ...]) -> Iterator[tuple[int, int, frozenset[str]]]:
        """As ``find``, but every phrase that there is, also those that overlap."""
        for start, word in enumerate(words):
            for end in range(start + 1, min(start + self._longest.get(word, 0), len(words)) + 1):
                if words[start:end] in self._meanings:
                    yield start, end, self._meanings[words[start:end]]

    def named(self, text: str) -> tuple[str, ...]:
        """Everything that the phrases of ``text`` mean, in its order there."""
        found = (name for _, _, meaning in self.find(tokens(text)) for name in sorted(meaning))
        return tuple(dict.fromkeys(found))


@cache
def _tables() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("common_words.json").read_text("utf-8"))


@cache
def common(table: str) -> frozenset[str]:
    """One table of common words. "en", "zh": words that say nothing to paint; "inside": Latin words that mean
    something only beside others, as "bear" in "panda bear"; "function": Han characters that are words by
    themselves, of which "joining" stand between two others; "vague": Han characters that end words for all
    kinds of things; "nouns": Chinese words that look like two known ones.
    """
    return frozenset(" ".join(_tables()["stop"][table]).split())


@cache
def near() -> dict[str, tuple[str, ...]]:
    """The names of things and styles that a word which no caption has is near to: puppy, a dog."""
    found: dict[str, tuple[str, ...]] = {}
    for name, words in _tables()["near"].items():
        for word in " ".join(words.values()).split():
            found[word] = (*found.get(word, ()), name)
    return found


def stem(word: str) -> str:
    """A Latin word without the ending of its plural, so that "boats" and "boat" are one."""
    for ending, replacement in (
        ("ies", "y"),
        ("ves", "f"),
        ("sses", "ss"),
        ("shes", "sh"),
        ("ches", "ch"),
        ("xes", "x"),
    ):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + replacement
    return (
        word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word
    )


def content_runs(phrase: str) -> list[str]:
    """The runs of Han characters of a phrase between the words that only join others."""
    return [run for run in re.split(f"[{''.join(common('joining'))}]|[^{_HAN}]", phrase) if run]


def unread(
    run: str, read: Container[str], single: Container[str], longest: int = 16
) -> list[tuple[int, int]]:
    """The start and end of every part of a run of Han characters that is no word of ``read`` (two characters
    and more), ``single`` (one) or the common ones.

    Single characters beside an unread one belong to it: 长颈鹿 is no 鹿.
    """
    parts = _segments(run, read, single, longest)
    alien = [kind == _ALIEN for _, _, kind in parts]
    for place, pair in enumerate(pairwise(parts)):
        signs = [run[start:end] for start, end, _ in pair]
        if signs[1] in _ANIMALS and all(sign in single for sign in signs):
            alien[place] = alien[place + 1] = True
    for place in range(1, len(parts)):
        start, end, _ = parts[place]
        alien[place] |= alien[place - 1] and end - start == 1 and run[start] in single
    for place in reversed(range(len(parts) - 1)):
        start, end, _ = parts[place]
        alien[place] |= alien[place + 1] and end - start == 1 and run[start] not in common("function")
    grouped = groupby(zip(parts, alien, strict=True), key=itemgetter(1))
    groups = [[part for part, _ in group] for strange, group in grouped if strange]
    nouns = [(start, end) for start, end, kind in parts if kind in (_NOUN, _PHRASE)]
    return sorted([*nouns, *((group[0][0], group[-1][1]) for group in groups)])


def _segments(
    run: str, read: Container[str], single: Container[str], longest: int
) -> list[tuple[int, int, int]]:
    """The cheapest division of a run into known words, nouns that are not, and other characters: start, end and
    which of them.
    """
    # For every end the least cost up to it, and the start and kind of the last part.
    best: list[tuple[float, int, int]] = [(0.0, 0, _KNOWN)]
    for end in range(1, len(run) + 1):
        choices = [(best[end - 1][0] + _COSTS[_ALIEN], end - 1, _ALIEN)]
        for start in range(max(0, end - longest), end):
            if (kind := _kind_of(run[start:end], read, single)) is not None:
                choices.append((best[start][0] + _COSTS[kind], start, kind))
        best.append(min(choices))
    parts: list[tuple[int, int, int]] = []
    end = len(run)
    while end:
        _, start, kind = best[end]
        parts.append((start, end, kind))
        end = start
    return parts[::-1]


def _kind_of(word: str, read: Container[str], single: Container[str]) -> int | None:
    if word in common("zh") or word in (single if len(word) == 1 else read):
        return _KNOWN
    if len(word) == 1:
        return _KNOWN if word in common("function") else None
    return _NOUN if word in common("nouns") else _PHRASE if word in near() else None

"""A model's vocabulary: what its training captions name, as data beside the weights, so that an interface can
say which words of a prompt the model never read and suggest ones that it did.

``vocabulary.json`` lies in the model's folder and holds every phrase of the captions in Chinese and English.
Nothing here imports torch, and a model folder need not have the file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from starrynight.models.wording import (
    HAN_RUN,
    TOKEN,
    PhraseBook,
    common,
    content_runs,
    near,
    simplified,
    stem,
    tokens,
    unread,
)

FILE_NAME = "vocabulary.json"
FORMAT, VERSION = "starry-night-vocabulary", 1
LANGUAGES = ("zh", "en")

# Phrases by name and language: {"fox": {"zh": ["狐狸"], "en": ["a fox"]}}.
Table = dict[str, dict[str, list[str]]]

_WORD = re.compile(r"[^\W\d_]+")
# What stands between Latin words, signs of it that part them, and what joins them.
_BETWEEN = re.compile(r"(?<=[A-Za-z])[\s,;.|/，、；。]+(?=[A-Za-z])")
_PARTING = re.compile(r"[,;.|/，、；。\r\n]")
_JOINED = re.compile(r"(?<=[A-Za-z])_+(?=[A-Za-z])")
_ARTICLE = re.compile(r"^(?:an?|the|some) ")
# A tag such as <lora:name:0.8>, which is no word.
_TAG = re.compile("<[^<>]*>")
# The share of equal letters above which a word is taken for a known one with a slip of the pen.
_SIMILAR = 0.82


@dataclass(frozen=True)
class Vocabulary:
    """What a model can be asked for. ``lines`` are captions' phrases that name several things, by language."""

    things: Table
    styles: Table
    hours: Table
    weathers: Table
    kinds: Table
    lines: dict[str, list[str]]

    @classmethod
    def read(cls, folder: Path | str) -> Vocabulary | None:
        """The vocabulary in a model's folder; None where there is none that this program can read."""
        try:
            content = json.loads((Path(folder) / FILE_NAME).read_text("utf-8"))
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                return None
            return cls.of(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary that ``content``, the object of a vocabulary.json, holds.

        Raises KeyError, TypeError or AttributeError when it holds none.
        """
        things, styles, hours, weathers, kinds = (
            {str(key): _phrases(entry) for key, entry in content[name].items()}
            for name in ("things", "styles", "hours", "weathers", "kinds")
        )
        return cls(things, styles, hours, weathers, kinds, _phrases(content["lines"]))

    def write(self, folder: Path) -> None:
        """Write vocabulary.json into a model's folder."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        (folder / FILE_NAME).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")

    def unknown(self, prompt: str) -> tuple[str, ...]:
        """The words of ``prompt`` that say what to paint and that the model never read, in their order there.

        Latin words are as they are written; of a Chinese sentence it is what stays between known words.
        """
        prompt = _TAG.sub(lambda tag: " " * len(tag.group()), prompt)
        found = sorted([*self._unknown_latin(prompt), *self._unknown_han(prompt)])
        return tuple(dict.fromkeys(word for _, word in found))

    def as_captioned(self, text: str) -> str:
        """``text`` as captions are written: in simplified Chinese; Latin words in lower case, but for names that some write otherwise
        (Van Gogh), with a comma and a space where anything else parts them ("castle,hill", a new line), and spaces for
        underscores. Tokenizers split what is written otherwise into pieces that the model never read.
        """
        text = _BETWEEN.sub(
            lambda between: ", " if _PARTING.search(between.group()) else between.group(), simplified(text)
        )
        text = _JOINED.sub(" ", text)
        return _WORD.sub(
            lambda word: word.group() if word.group() in self._capitals else word.group().lower(), text
        )

    def unknown_at(self, text: str) -> Iterator[tuple[int, int]]:
        """The start and end of each part of the Chinese in ``text`` that stays between known words."""
        for run in HAN_RUN.finditer(simplified(text)):
            for start, end in unread(run.group(), self._han_words, self._han_signs):
                yield run.start() + start, run.start() + end

    def suggestions(self, word: str, language: str, count: int = 3) -> tuple[str, ...]:
        """Up to ``count`` things or styles that the model knows and that are near ``word``, said in
        ``language`` ("zh" or "en"), the nearest first; often there are none.
        """
        word = word.lower()
        names = [*(_named_near(word) or self._misspelt(word)), *_named_within(word)]
        labels = [label for name in names if (label := self._label(name, language))]
        return tuple(dict.fromkeys(labels))[:count]

    def styles_named(self, prompt: str) -> tuple[str, ...]:
        """The styles (their keys) that ``prompt`` names, in their order there."""
        return self._style_book.named(prompt)

    def things_named(self, prompt: str) -> tuple[str, ...]:
        """The things (their keys) that ``prompt`` names, in their order there."""
        return self._thing_book.named(prompt)

    def names(self, language: str) -> dict[str, list[str]]:
        """What things, styles, hours and weathers are called in ``language`` ("zh" or "en"), without articles."""
        return {
            table: [
                _ARTICLE.sub("", phrases[language][0])
                for phrases in getattr(self, table).values()
                if phrases[language]
            ]
            for table in ("things", "styles", "hours", "weathers")
        }

    def _unknown_latin(self, prompt: str) -> Iterator[tuple[int, str]]:
        matches = list(TOKEN.finditer(prompt))
        parts = [(k, stem(part)) for k, match in enumerate(matches) for part in _parts(match.group().lower())]
        found = self._book.find(tuple(part for _, part in parts))
        covered = {place for start, end, _ in found for place in range(start, end)}
        open_ones = {parts[place][0] for place in range(len(parts)) if place not in covered}
        for k, match in enumerate(matches):
            word = match.group()
            latin = len(word) > 1 and word[0].isalpha() and not HAN_RUN.match(word)
            if latin and k in open_ones and not all(map(self._knows, _parts(word.lower()))):
                yield match.start(), word

    def _knows(self, word: str) -> bool:
        """Whether a Latin word was read or is common, in this form, as one thing or as "rocky" for rocks."""
        return not {word, stem(word), word.removesuffix("y")}.isdisjoint(self._words | common("en"))

    def _unknown_han(self, prompt: str) -> Iterator[tuple[int, str]]:
        for start, end in self.unknown_at(prompt):
            yield start, prompt[start:end]

    def _misspelt(self, word: str) -> list[str]:
        """The names of the things and styles that are written almost like ``word`` (Latin ones with the same first
        letter), the nearest first.
        """
        begin = word[:1] if word.isascii() else ""
        heads = [head for head in self._heads if head.startswith(begin)]
        near_ones = difflib.get_close_matches(word, heads, n=3, cutoff=_SIMILAR)
        return [self._heads[one] for one in near_ones]

    def _label(self, name: str, language: str) -> str:
        """What a thing or style is called in ``language``, without an article; empty when it is not known."""
        phrases = (self.things.get(name) or self.styles.get(name) or {}).get(language, [])
        return _ARTICLE.sub("", phrases[0]) if phrases else ""

    @cached_property
    def _heads(self) -> dict[str, str]:
        """The names of things and styles by their phrases without articles."""
        entries = [*self.things.items(), *self.styles.items()]
        return {
            _ARTICLE.sub("", phrase.lower()): name
            for name, phrases in entries
            for language in LANGUAGES
            for phrase in phrases[language]
        }

    @cached_property
    def phrases(self) -> list[str]:
        """Every phrase, in both languages."""
        tables = (self.things, self.styles, self.hours, self.weathers, self.kinds)
        entries = [entry for table in tables for entry in table.values()]
        return [phrase for entry in (*entries, self.lines) for some in entry.values() for phrase in some]

    @cached_property
    def _book(self) -> PhraseBook:
        phrases = {*self.phrases, *(_ARTICLE.sub("", phrase.lower()) for phrase in self.phrases)}
        return PhraseBook(
            (" ".join(stem(part) for word in tokens(phrase) for part in _parts(word)), ())
            for phrase in phrases
        )

    @cached_property
    def _capitals(self) -> frozenset[str]:
        """The Latin words that captions write with capitals."""
        return frozenset(
            word for phrase in self.phrases for word in _WORD.findall(phrase) if word != word.lower()
        )

    @cached_property
    def _style_book(self) -> PhraseBook:
        return _book(self.styles)

    @cached_property
    def _thing_book(self) -> PhraseBook:
        return _book(self.things)

    @cached_property
    def _words(self) -> frozenset[str]:
        """Every Latin word that the model read and that means something alone, with and without its ending."""
        words = (part for phrase in self.phrases for word in tokens(phrase) for part in _parts(word))
        written = {word for word in words if not HAN_RUN.match(word)}
        return frozenset((written | set(map(stem, written))) - common("inside"))

    @cached_property
    def _han_words(self) -> frozenset[str]:
        """Every run of two or more Han characters between joining words in what the model read, and whole ones."""
        runs = {run for phrase in self.phrases for run in content_runs(phrase)}
        pieces = (
            run[start:end]
            for run in runs
            for start in range(len(run))
            for end in range(start + 2, len(run) + 1)
        )
        return frozenset([*pieces, *(run for phrase in self.phrases for run in HAN_RUN.findall(phrase))])

    @cached_property
    def _han_signs(self) -> frozenset[str]:
        """The phrases of a single Han character."""
        return frozenset(phrase for phrase in self.phrases if len(phrase) == 1)


def _book(table: Table) -> PhraseBook:
    return PhraseBook(
        (phrase, (name,)) for name, entry in table.items() for some in entry.values() for phrase in some
    )


def _phrases(content: Any) -> dict[str, list[str]]:
    for language in LANGUAGES:
        if not isinstance(content[language], list) or not all(
            isinstance(one, str) for one in content[language]
        ):
            raise TypeError(f"{content[language]!r} is no list of phrases")
    return {language: list(content[language]) for language in LANGUAGES}


def _parts(word: str) -> list[str]:
    """A word between its hyphens and apostrophes."""
    return [part for part in re.split("['’-]", word) if part] or [word]


def near_names(word: str) -> tuple[str, ...]:
    """The things and styles that a word which no caption has is near to, or a part of it; the nearest first."""
    word = word.lower()
    return tuple(dict.fromkeys([*_named_near(word), *_named_within(word)]))


def _named_near(word: str) -> tuple[str, ...]:
    """The names that the table of near words has for ``word``."""
    return near().get(word) or near().get(stem(word), ())


def _named_within(word: str) -> list[str]:
    """The names near to a part of a Chinese word, the longest first; a single character only at its end, where
    the noun stands.
    """
    if not HAN_RUN.fullmatch(word):
        return []
    parts = [part for part in near() if len(part) > 1 and part in word]
    ends = [word[-1]] if word[-1] not in common("vague") else []
    return [name for part in (*sorted(parts, key=len, reverse=True), *ends) for name in near().get(part, ())]


def of_model(folder: Path) -> Vocabulary | None:
    """As ``Vocabulary.read``, read again only when the file has changed."""
    try:
        return _of_file(folder, (folder / FILE_NAME).stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=8)
def _of_file(folder: Path, _changed: int) -> Vocabulary | None:
    return Vocabulary.read(folder)

"""Captions of scenes, Chinese or English, written the way people write prompts: short, varied, the main things
first, with parts left out, and always true of the scene.

phrases.json has, in both languages: phrases of every "style", "thing", "hour", "weather" and "kind"; "counted"
phrases that follow a number; "place" templates; and whole "line"s, each with the facts that must hold for it.
Facts are the names of subjects, style, kind, hour and weather, and those of ``facts_of``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from starrynight.firefly.drawing.scene import ANIMALS, COUNTED, PEOPLE, Scene
from starrynight.models.vocabulary import LANGUAGES, Vocabulary
from starrynight.models.wording import PhraseBook

Rng = np.random.Generator
# Left, top, right and bottom edge of every subject, as shares of the picture's side.
Boxes = Mapping[str, Sequence[float]]

PHRASES: dict[str, Any] = json.loads((Path(__file__).parent / "phrases.json").read_text("utf-8"))

FIGURES = (*PEOPLE, *ANIMALS)
# The kinds of scenes that are about a person or an animal.
_FIGURES_OF = {"portrait": PEOPLE, "creature": ANIMALS}
_LANDMARKS = (
    "pagoda", "lighthouse", "castle", "windmill", "temple", "teahouse", "stonebridge", "greatwall", "train",
    "balloon", "island", "volcano", "waterfall", "church", "boat", "bridge",
)  # fmt: skip
_LIGHTS = ("moon", "crescent", "sun")
# What people mention last: it is there in most pictures of a kind.
_BACKGROUND = ("reflection", "clouds", "mountains", "trees", "swirls", "stars")
# The subjects that a kind of scene is about, where its name is not the subject's.
MAIN: dict[str, tuple[str, ...]] = {
    "pond": ("pond", "lilies", "lotus"),
    "mountain": ("mountains",),
    "city": ("skyline",),
    "forest": ("forest", "maple", "pine"),
    "meadow": ("meadow", "flowers"),
    "gorge": ("waterfall",),
    "portrait": PEOPLE,
    "creature": ANIMALS,
}
# How much sooner than other subjects these are named.
_FIRST = {**dict.fromkeys(_BACKGROUND, 0.6), **dict.fromkeys(_LANDMARKS, 3.0), **dict.fromkeys(FIGURES, 6.0)}
# Subjects of which a caption says on which side they are, the distant ones only as far as they are small.
_SIDED = (*FIGURES, *_LANDMARKS, *_LIGHTS, "cypress", "willow", "maple", "pine", "plum")
_DISTANT = ("fox", "deer", "horse", "camel", "crane", "whale", *PEOPLE, "island", "volcano", "mountains")
_SKY = (*_LIGHTS, "stars", "swirls", "comet", "aurora", "clouds", "rainbow", "rain", "snow")
# Of these, what a thing is said to be under.
_OVERHEAD = (*_LIGHTS, "stars", "aurora", "clouds", "rainbow")
# Less than this share of the picture's height is in the distance.
_FAR = 0.25
_NUMBERS = {"zh": ("一", "两", "三"), "en": ("a ", "two ", "three ")}
# A part with one of these takes no hour: 夜晚的左边有灯塔 is no phrase.
_SENTENCE = frozenset("，,有是")
_COUNTS = ("one", "two", "three")
# Phrases that people add to prompts and that show nothing. One caption in eight gets one, so that the model
# learns to ignore them.
_ORNAMENTS = (
    "masterpiece", "best quality", "8k", "highly detailed", "beautiful", "a painting", "art", "wallpaper",
    "高清", "精美", "杰作", "细节丰富", "唯美", "绘画作品", "大师之作", "一幅画",
)  # fmt: skip


def caption(scene: Scene, rng: Rng, boxes: Boxes | None = None) -> str:
    """A short true description of the scene, never empty: 50 % Chinese, 45 % English, 5 % in both.

    ``boxes``, the places of the painted subjects, let it say on which side one is.
    """
    draw = rng.uniform()
    if draw < 0.5:
        return _write(scene, rng, "zh", boxes)
    if draw < 0.95:
        return _write(scene, rng, "en", boxes)
    language, other = ("zh", "en") if draw < 0.975 else ("en", "zh")
    line, _ = _line(scene, rng, language)
    comma = "，" if language == "zh" else ", "
    return f"{line}{comma}{_pick(rng, PHRASES['style'][other][scene.style])}"


def ornament(text: str, rng: Rng) -> str:
    """``text``, one time in eight with a meaningless phrase before or after it."""
    if not text or rng.random() >= 1 / 8:
        return text
    extra = str(rng.choice(_ORNAMENTS))
    comma = "，" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else ", "
    return f"{extra}{comma}{text}" if rng.random() < 0.3 else f"{text.rstrip('。.')}{comma}{extra}"


@lru_cache(4096)
def named_in(text: str) -> frozenset[str]:
    """The subjects, style, hour and weather that a caption states: phrases and lines count whole, the longest
    first.
    """
    return frozenset(_book().named(text))


def mentions(text: str, kind: str, name: str) -> bool:
    """Whether ``text`` contains a phrase that captions use for ``name``, a "style", "thing" or "hour"."""
    if name not in PHRASES[kind]["en"]:
        raise KeyError(name)
    return name in named_in(text)


def facts_of(scene: Scene) -> set[str]:
    """What holds in a scene: its subjects, style, kind, hour and weather; "one", "two" or "three" and
    "several" animals; "close" or "small" for its person or animal; "moonlit".
    """
    facts = {*scene.subjects, scene.style, scene.kind, scene.hour, scene.weather}
    if scene.has(*FIGURES):
        facts |= {_COUNTS[scene.count - 1], "close" if scene.close else "small"}
    if scene.count > 1:
        facts.add("several")
    if scene.has("moon", "crescent"):
        facts.add("moonlit")
    return facts


def vocabulary(without: Collection[str] = ()) -> Vocabulary:
    """What the captions name, to be written beside the weights that were trained on them.

    ``without`` are subjects that were named but that the weights do not paint so that one knows them: they, and
    the lines and kinds of scenes that need them, are left out. Raises KeyError for a name that is no subject.
    """
    for name in without:
        PHRASES["thing"]["en"][name]
    gone = {*without, *(kind for kind, some in _FIGURES_OF.items() if set(some) <= set(without))}
    things, styles, hours, weathers, kinds = (
        {
            name: {language: list(_all_phrases(kind, language, name)) for language in LANGUAGES}
            for name in PHRASES[kind]["en"]
            if not gone & set(name.split())
        }
        for kind in ("thing", "style", "hour", "weather", "kind")
    )
    lines = {
        language: [
            line
            for needs, some in PHRASES["line"][language]
            if not gone & set(needs.split())
            for line in some
        ]
        for language in LANGUAGES
    }
    for language, templates in PHRASES["place"].items():
        lines[language] += [
            template.format("").strip(" ，,") for some in templates.values() for template in some
        ]
    for one in _ORNAMENTS:
        lines["en" if one.isascii() else "zh"].append(one)
    return Vocabulary(things, styles, hours, weathers, kinds, lines)


def _all_phrases(kind: str, language: str, name: str) -> Iterator[str]:
    """A name's phrases; of a thing that is counted also those with a number, the Chinese ones with 一."""
    yield from PHRASES[kind][language][name]
    for counted in PHRASES["counted"][language].get(name, ()) if kind == "thing" else ():
        for number in ("一", "两", "三") if language == "zh" else ("", "two ", "three ", "a pair of "):
            yield number + counted


@cache
def _book() -> PhraseBook:
    """Every phrase with the names it states; a line of several entries states what they share."""
    entries: list[tuple[str, frozenset[str]]] = [
        (phrase, frozenset({name}))
        for kind in ("style", "thing", "hour", "weather")
        for language in LANGUAGES
        for name in PHRASES[kind][language]
        for phrase in _all_phrases(kind, language, name)
    ]
    names = frozenset().union(*(meaning for _, meaning in entries))
    taken = {phrase for phrase, _ in entries}
    lines: dict[str, frozenset[str]] = {}
    for language in LANGUAGES:
        kinds = PHRASES["kind"][language].items()
        for needs, some in (*PHRASES["line"][language], *kinds):
            for line in set(some) - taken:
                lines[line] = lines.get(line, names) & frozenset(needs.split())
    return PhraseBook([*entries, *lines.items()])


def _write(scene: Scene, rng: Rng, language: str, boxes: Boxes | None) -> str:
    draw = rng.uniform(size=3)
    parts = _parts(scene, rng, language, boxes)
    if draw[0] < 0.9:
        style = _pick(rng, PHRASES["style"][language][scene.style])
        parts.insert(int(rng.choice((0, 1, len(parts)), p=(0.2, 0.4, 0.4))), style)
    parts = list(dict.fromkeys(parts))
    if language == "zh":
        text = ("，" if draw[1] < 0.85 else " ").join(parts)
        return text + ("。" if draw[1] > 0.95 else "")
    text = ", ".join(parts)
    return text[0].upper() + text[1:] if draw[1] < 0.2 else text


def _parts(scene: Scene, rng: Rng, language: str, boxes: Boxes | None) -> list[str]:
    """One phrase or line, or several, what is named first and what matters most mostly in front."""
    draw = rng.uniform(size=4)
    order = _order(scene, rng)
    stated: set[str] = set()
    lines: list[str] = []
    if draw[0] < 0.14:
        names = order[:1]
    elif draw[0] < 0.34:
        names = order[: int(rng.integers(2, 5))]
    else:
        line, stated = _line(scene, rng, language)
        more = int(rng.choice((0, 1, 2, 3), p=(0.4, 0.3, 0.2, 0.1)))
        names, lines = [name for name in order if name not in stated][:more], [line]
    figure = next((name for name in scene.subjects if name in FIGURES), None)
    missing = figure is not None and figure not in {*names, *stated}
    if figure and missing and draw[1] < (0.97 if figure in MAIN.get(scene.kind, ()) else 0.5):
        names.insert(0, figure)
    phrases = _phrases(scene, rng, names, language, boxes)
    parts = phrases + lines if missing or draw[2] < 0.2 else lines + phrases
    return _with_time(scene, rng, parts, stated, language)


def _phrases(scene: Scene, rng: Rng, names: Sequence[str], language: str, boxes: Boxes | None) -> list[str]:
    """What the subjects are called; one time in three the first two in one phrase: "a fox under the moon"."""
    if len(names) < 2 or rng.uniform() > 0.35:
        return [_phrase(scene, rng, name, language, boxes) for name in names]
    first, second = (_called(scene, rng, name, language) for name in names[:2])
    under = names[1] in _OVERHEAD and names[0] not in _SKY
    pair = _pick(rng, PHRASES["pair"][language]["under" if under else "and"]).format(first, second)
    return [pair, *(_phrase(scene, rng, name, language, boxes) for name in names[2:])]


def _with_time(scene: Scene, rng: Rng, parts: list[str], stated: set[str], language: str) -> list[str]:
    """The parts, half the time with the hour and with the weather: by themselves, or as "a fox at night"."""
    for kind, name in (("hour", scene.hour), ("weather", scene.weather)):
        draw = rng.uniform()
        phrases = PHRASES[kind][language][name]
        if draw > 0.5 or not phrases or name in stated:
            continue
        if draw < 0.2 and not set(parts[0]) & _SENTENCE:
            parts = [_pick(rng, PHRASES["at"][language][name]).format(parts[0]), *parts[1:]]
        else:
            parts = [*parts, _pick(rng, phrases)]
    return parts


def _order(scene: Scene, rng: Rng) -> list[str]:
    """The subjects in the order in which people name them: mostly the main things first."""
    main = MAIN.get(scene.kind, (scene.kind,))
    weights = [max(_FIRST.get(name, 1.0), 3.0 if name in main else 0.0) for name in scene.subjects]
    keys = rng.exponential(size=len(weights)) / np.array(weights)
    return [scene.subjects[place] for place in np.argsort(keys)]


def _line(scene: Scene, rng: Rng, language: str) -> tuple[str, set[str]]:
    return line(facts_of(scene), scene.kind, rng, language)


def line(facts: frozenset[str] | set[str], kind: str, rng: Rng, language: str) -> tuple[str, set[str]]:
    """A line whose facts (see ``facts_of``) all hold in a scene of a kind, and those facts. A line with more facts, or with
    the main subject, a person, an animal or a landmark among them, is drawn more often.
    """
    fitting = [
        (set(needs.split()), lines)
        for needs, lines in PHRASES["line"][language]
        if facts.issuperset(needs.split())
    ]
    fitting.append(({kind}, PHRASES["kind"][language][kind]))
    main = {*MAIN.get(kind, (kind,))}
    weights = [
        len(needs) ** 2 * (5 if main & needs else 1) * (3 if needs & {*FIGURES, *_LANDMARKS} else 1)
        for needs, _ in fitting
    ]
    needs, lines = fitting[int(rng.choice(len(fitting), p=np.array(weights) / sum(weights)))]
    return _pick(rng, lines), needs


def _phrase(scene: Scene, rng: Rng, name: str, language: str, boxes: Boxes | None) -> str:
    """What a subject is called, at times with where it is or that it is seen from near."""
    text = _called(scene, rng, name, language)
    where = _places(scene, name, boxes)
    if where and rng.uniform() < (0.45 if where[0] in ("close", "portrait") else 0.15):
        return _pick(rng, PHRASES["place"][language][_pick(rng, where)]).format(text)
    return text


def _called(scene: Scene, rng: Rng, name: str, language: str) -> str:
    """What a subject is called, and how many animals there are."""
    draw = rng.uniform()
    if name in COUNTED and (scene.count > 1 or language == "zh"):
        counted = _pick(rng, PHRASES["counted"][language][name])
        number = _NUMBERS[language][scene.count - 1]
        if scene.count == 2 and language == "en" and draw < 0.15:
            number = "a pair of "
        if draw < (0.8 if scene.count > 1 else 0.3):
            return f"{number}{counted}"
        if language == "en":
            return counted
    return _pick(rng, PHRASES["thing"][language][name])


def _places(scene: Scene, name: str, boxes: Boxes | None) -> list[str]:
    """The "place" templates that are true of a subject."""
    if name in FIGURES and scene.close:
        return ["portrait" if name in PEOPLE else "close"]
    _, top, _, bottom = (boxes or {}).get(name, (0.0, 0.0, 1.0, 1.0))
    found = ["far"] if name == "mountains" or (name in _DISTANT and bottom - top < _FAR) else []
    if name in _SIDED and (side := _side(scene, name, boxes)):
        found.append(side)
    return found


def _side(scene: Scene, name: str, boxes: Boxes | None) -> str | None:
    """ "left" or "right" where a subject clearly is there, else None. What is not in ``boxes`` is nowhere."""
    x = scene.light[0] if name in _LIGHTS else 0.5
    left, _, right, _ = (boxes or {}).get(name, (x, 0.0, x, 0.0))
    middle = (max(left, 0.0) + min(right, 1.0)) / 2
    if middle < 0.42 and right < 0.62:
        return "left"
    return "right" if middle > 0.58 and left > 0.38 else None


def _pick(rng: Rng, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]

"""Words for a scene, Chinese or English, the way people write prompts: short, varied, parts left out, always true.

Knows the scene, not the picture; the phrases themselves are in phrases.json. Never returns an empty caption; the trainer
drops captions itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from starrynight.firefly.drawing.scene import Scene

Rng = np.random.Generator

# The words, Chinese and English: of each "style", "thing", "hour" and "weather"; and whole "line"s, each with the facts
# it needs to be true ("night" and "mist" count as facts).
_PHRASES: dict[str, Any] = json.loads((Path(__file__).parent / "phrases.json").read_text("utf-8"))

# What a kind of scene is about: lines that name it are told more often.
_ABOUT = {
    "pond": "lilies",
    "mountain": "mountains",
    "city": "skyline",
    **{kind: kind for kind in ("village", "sea", "apsara", "sunflowers", "wheat", "snow", "river")},
}


def caption(scene: Scene, rng: Rng) -> str:
    """A short true description of the scene, about half Chinese, half English, now and then both."""
    draw = rng.uniform()
    if draw < 0.5:
        return _write(scene, rng, chinese=True)
    if draw < 0.95:
        return _write(scene, rng, chinese=False)
    line, _ = _line(scene, rng, "zh" if draw < 0.975 else "en")
    if draw < 0.975:
        return f"{line}，{_pick(rng, _PHRASES['style']['en'][scene.style])}"
    return f"{line}, {_pick(rng, _PHRASES['style']['zh'][scene.style])}"


def names(text: str, kind: str, what: str) -> bool:
    """Whether ``text`` holds one of the phrases that captions use for ``what``, a "style", "thing" or "hour"."""
    return any(phrase.lower() in text.lower() for table in _PHRASES[kind].values() for phrase in table[what])


def _write(scene: Scene, rng: Rng, chinese: bool) -> str:
    language = "zh" if chinese else "en"
    styles, things, hours, weathers = (
        _PHRASES[kind][language] for kind in ("style", "thing", "hour", "weather")
    )
    draw = rng.uniform(size=5)
    style = _pick(rng, styles[scene.style])
    named = list(scene.subjects)
    rng.shuffle(named)
    said: set[str] = set()
    if draw[0] < 0.12:
        parts = [_pick(rng, things[named[0]])]
    elif draw[0] < 0.3:
        parts = [_pick(rng, things[name]) for name in named[: int(rng.integers(2, 6))]]
    else:
        line, said = _line(scene, rng, language)
        parts = [line]
        named = [name for name in named if name not in said]
        parts += [
            _pick(rng, things[name])
            for name in named[: int(rng.choice((0, 1, 2, 3), p=(0.35, 0.3, 0.22, 0.13)))]
        ]
    if draw[1] < 0.5 and scene.hour not in said:
        parts.append(_pick(rng, hours[scene.hour]))
    if draw[2] < 0.5 and weathers[scene.weather] and not said & {scene.weather}:
        parts.append(_pick(rng, weathers[scene.weather]))
    if draw[3] < 0.9:
        parts.insert(int(rng.choice((0, 1, len(parts)), p=(0.2, 0.4, 0.4))), style)
    parts = list(dict.fromkeys(parts))
    if chinese:
        text = ("，" if draw[4] < 0.85 else " ").join(parts)
        return text + ("。" if draw[4] > 0.95 else "")
    text = ", ".join(parts)
    return text[0].upper() + text[1:] if draw[4] < 0.2 else text


def _line(scene: Scene, rng: Rng, language: str) -> tuple[str, set[str]]:
    """A line whose every fact holds, the more particular ones more often, and the facts it tells."""
    facts = {*scene.subjects, scene.hour, scene.weather}
    fitting = [
        (set(needs.split()), lines)
        for needs, lines in _PHRASES["line"][language]
        if facts.issuperset(needs.split())
    ]
    main = _ABOUT[scene.kind]
    weights = np.array([len(needs) ** 2 * (5 if main in needs else 1) for needs, _ in fitting], dtype=float)
    needs, lines = fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]
    return _pick(rng, lines), needs


def _pick(rng: Rng, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]

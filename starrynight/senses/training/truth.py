"""What is known of a picture of a set, drawn or painted, in numbers for the loss.

Of a drawing everything is known. Of a painting of Firefly's only the prompt is: what it names is taken as there, a little
doubted; what no scene of that kind at that hour shows, and what never stands beside what was asked, is taken as absent; of all else nothing is known, and it counts in
no loss. As facts for the comparison with texts it counts with its frequency in such scenes. Of some paintings a person wrote down what can be
seen (judged.json).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from starrynight.firefly.drawing.scene import GROUPS, Scene, compose
from starrynight.firefly.training import captions
from starrynight.senses.asked import wanted_of
from starrynight.senses.facts import CHOICES, FACTS, THINGS

SCENES = range(21_000_000, 21_004_000)  # scenes of no set, whose facts are counted
IMPOSSIBLE = 0.004  # below this frequency a thing is taken as absent from a kind of scene at an hour
NOT_KNOWN = -100  # the class that torch's cross-entropy passes over
# What was seen by eye in the paintings of one Firefly ("weights", see painted.weights), by the seed of the scene: the things that are
# "there", and those of which that could not be decided ("unsure").
JUDGED = Path(__file__).with_name("judged.json")


class Truth(NamedTuple):
    """``choices``: the class of each of facts.CHOICES, or NOT_KNOWN. ``things`` 0/1 [T] where ``known`` [T]; ``doubted`` [T]: asked
    of a painter, who may have left it out. ``facts`` [F]: the probability of every fact. ``asked`` [T]: what its prompt asks for.
    """

    choices: dict[str, int]
    things: np.ndarray
    known: np.ndarray
    doubted: np.ndarray
    facts: np.ndarray
    asked: np.ndarray


def facts_of(shows: Mapping[str, Any]) -> frozenset[str]:
    """The facts of a record's "shows"."""
    return frozenset({*(shows[name] for name in CHOICES), *shows["subjects"]})


def asked_of(text: str, shows: Mapping[str, Any]) -> frozenset[str]:
    """The facts that a true caption states of its picture: 月亮 is the moon or the crescent, whichever is there. One that
    names none, such as "seaport", states the kind.
    """
    return (captions.named_in(text) & facts_of(shows)) or frozenset({shows["kind"]})


def names_kind(text: str, kind: str) -> bool:
    """Whether a caption names a kind of scene, or what such scenes are about."""
    main = {*captions.MAIN.get(kind, (kind,))}
    phrases = (phrase for some in captions.PHRASES["kind"].values() for phrase in some[kind])
    return bool(main & captions.named_in(text)) or any(one.lower() in text.lower() for one in phrases)


def hot(facts: frozenset[str]) -> np.ndarray:
    """0/1 over FACTS, float32 [F]."""
    return np.array([name in facts for name in FACTS], np.float32)


@cache
def judged() -> tuple[str, dict[int, dict[str, list[str]]]]:
    """Which Firefly's paintings were looked at, and what was seen in them by the seed of the scene: "there" and "unsure"."""
    content = json.loads(JUDGED.read_text("utf-8"))
    return content["weights"], {int(seed): one for seed, one in content["pictures"].items()}


def by_eye(record: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """What was seen by eye in the painting of a record: nothing where other weights painted it, or nobody looked."""
    weights, pictures = judged()
    return pictures.get(record.get("seed", -1)) if record.get("weights") == weights else None


def of_record(record: Mapping[str, Any]) -> Truth:
    """The truth about the picture of a record: a painting where it has "asked", else a drawing."""
    shows = record["shows"]
    if "asked" in record:
        seen = by_eye(record)
        found = _of_painting(shows, frozenset(record["asked"]), record["captions"][0])
        return found if seen is None else _looked_at(found, seen)
    choices = {name: some.index(shows[name]) for name, some in CHOICES.items()}
    things = np.array([name in shows["subjects"] for name in THINGS], np.float32)
    nothing = np.zeros_like(things)
    return Truth(choices, things, np.ones_like(things), nothing, hot(facts_of(shows)), nothing)


def _of_painting(shows: Mapping[str, Any], asked: frozenset[str], text: str) -> Truth:
    stated = {name for name in CHOICES if shows[name] in asked}
    if names_kind(text, shows["kind"]):
        stated.add("kind")
    choices = {
        name: some.index(shows[name]) if name in stated else NOT_KNOWN for name, some in CHOICES.items()
    }
    usual = _frequencies()[shows["kind"], shows["hour"] if "hour" in stated else ""]
    facts = np.maximum(usual, hot(asked & facts_of(shows)))
    things = np.array([name in asked and name in shows["subjects"] for name in THINGS], np.float32)
    others = {name for group in GROUPS if asked & set(group) for name in group} - asked
    possible = np.array([
        name in asked or (usual[FACTS.index(name)] >= IMPOSSIBLE and name not in others) for name in THINGS
    ])  # fmt: skip
    known = np.where(possible, things, 1.0).astype(np.float32)
    wanted = wanted_of(text)
    return Truth(
        choices, things, known, things, facts, np.array([one in wanted for one in THINGS], np.float32)
    )


def _looked_at(asked: Truth, seen: Mapping[str, Sequence[str]]) -> Truth:
    """The truth about a painting that a person looked at, from what its prompt says."""
    things, unsure = (
        np.array([name in seen[key] for name in THINGS], np.float32) for key in ("there", "unsure")
    )
    facts = asked.facts.copy()
    for k, name in enumerate(THINGS):
        if not unsure[k]:
            facts[FACTS.index(name)] = things[k]
    return Truth(asked.choices, things, 1 - unsure, np.zeros_like(things), facts, asked.asked)


@cache
def _frequencies() -> dict[tuple[str, str], np.ndarray]:
    """How often each fact holds in composed scenes, float32 [F], by kind and hour, and by kind and ""."""
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for seed in SCENES:
        scene = compose(seed)
        facts = hot(facts_of(shown(scene)))
        found[scene.kind, scene.hour].append(facts)
        found[scene.kind, ""].append(facts)
    return {key: np.stack(some).mean(0) for key, some in found.items()}


def shown(scene: Scene) -> dict[str, Any]:
    """A scene's "shows"."""
    return {**{name: getattr(scene, name) for name in CHOICES}, "subjects": list(scene.subjects)}

"""What a Firefly painting shows: style, kind of scene, hour, weather, subjects and the large proportions.

A scene is composed from a seed alone; nothing here knows pixels, colours or captions. All chances were chosen
by hand: they decide how often the model sees each subject.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

STYLES = (
    "oil", "monet", "dunhuang", "ink", "watercolor", "cyberpunk", "ukiyoe", "pointillism", "pastel",
    "papercut",
)  # fmt: skip
HOURS = ("night", "dusk", "dawn", "noon")
WEATHERS = ("clear", "rain", "snow", "mist")
KINDS = (
    "village", "pond", "mountain", "sea", "apsara", "sunflowers", "wheat", "city", "snow", "river", "desert",
    "street", "bamboo", "forest", "meadow", "harbour", "gorge", "portrait", "creature",
)  # fmt: skip
PEOPLE = ("fisherman", "dancer", "monk", "kite", "umbrella", "scholar", "couple", "farmer")
ANIMALS = (
    "fox", "cat", "dog", "deer", "horse", "panda", "rabbit", "camel", "owl", "crane", "butterflies", "fish",
    "whale",
)  # fmt: skip
SUBJECTS = (
    "stars", "swirls", "moon", "crescent", "sun", "comet", "aurora", "clouds", "village", "church",
    "cypress", "mountains", "river", "lake", "sea", "waves", "reflection", "lilies", "bridge", "boat",
    "pagoda", "apsara", "sunflowers", "wheat", "crows", "skyline", "snow", "rain", "trees", "blossoms",
    "lighthouse", "castle", "windmill", "temple", "teahouse", "stonebridge", "greatwall", "street", "harbour",
    "train", "balloon", "lanterns", "rainbow", "island", "volcano", "waterfall", "desert", "bamboo", "plum",
    "lotus", "willow", "maple", "pine", "flowers", "swallows", *ANIMALS, *PEOPLE,
)  # fmt: skip

# The subjects that each kind of scene always has, and those it may have, with their probabilities.
_ALWAYS: dict[str, tuple[str, ...]] = {
    "village": ("village",),
    "pond": ("lake", "reflection"),
    "mountain": ("mountains",),
    "sea": ("sea",),
    "apsara": ("apsara", "clouds"),
    "sunflowers": ("sunflowers",),
    "wheat": ("wheat",),
    "city": ("skyline",),
    "snow": ("snow",),
    "river": ("river", "mountains"),
    "desert": ("desert",),
    "street": ("street",),
    "bamboo": ("bamboo",),
    "forest": (),
    "meadow": ("flowers",),
    "harbour": ("sea", "harbour"),
    "gorge": ("waterfall",),
    "portrait": (),
    "creature": (),
}
_MAYBE: dict[str, dict[str, float]] = {
    "village": {
        "church": 0.45, "cypress": 0.45, "mountains": 0.6, "river": 0.15, "trees": 0.3, "balloon": 0.06,
        "rainbow": 0.12, "plum": 0.08, "swallows": 0.08,
    },
    "pond": {"bridge": 0.45, "trees": 0.25, "willow": 0.3, "boat": 0.1, "blossoms": 0.12, "swallows": 0.12},
    "mountain": {"lake": 0.4, "trees": 0.4, "blossoms": 0.15, "clouds": 0.5, "pine": 0.25, "waterfall": 0.15},
    "sea": {"boat": 0.65, "waves": 0.45, "mountains": 0.3, "reflection": 0.7, "island": 0.3, "rainbow": 0.1},
    "apsara": {"pagoda": 0.3, "mountains": 0.5},
    "sunflowers": {"village": 0.3, "mountains": 0.4, "cypress": 0.2},
    "wheat": {"crows": 0.4, "cypress": 0.4, "village": 0.2, "mountains": 0.4},
    "city": {"reflection": 0.92, "boat": 0.12},
    "snow": {
        "village": 0.45, "church": 0.25, "mountains": 0.75, "trees": 0.5, "lake": 0.3, "boat": 0.25,
        "plum": 0.2, "pine": 0.15,
    },
    "river": {
        "village": 0.3, "boat": 0.4, "trees": 0.35, "blossoms": 0.2, "stonebridge": 0.25, "willow": 0.2,
        "swallows": 0.15,
    },
    "desert": {"mountains": 0.2, "balloon": 0.15},
    "street": {"lanterns": 0.55, "church": 0.15, "swallows": 0.1},
    "bamboo": {"river": 0.2, "swallows": 0.1},
    "forest": {"maple": 0.5, "pine": 0.3, "trees": 0.4, "river": 0.3, "lake": 0.2, "mountains": 0.4},
    "meadow": {"mountains": 0.5, "trees": 0.2, "balloon": 0.25, "rainbow": 0.3, "train": 0.2},
    "harbour": {"reflection": 0.8, "mountains": 0.3, "swallows": 0.15, "lanterns": 0.15},
    "gorge": {"mountains": 0.7, "pine": 0.4, "rainbow": 0.3, "maple": 0.2, "stonebridge": 0.2},
    "portrait": {
        "mountains": 0.4, "village": 0.12, "bamboo": 0.12, "plum": 0.12, "blossoms": 0.1, "flowers": 0.12,
        "willow": 0.08, "lanterns": 0.1,
    },
    "creature": {
        "mountains": 0.3, "trees": 0.12, "flowers": 0.2, "bamboo": 0.08, "maple": 0.08, "snow": 0.1, "plum": 0.06,
    },
}  # fmt: skip
# Subjects of which a kind of scene has at most one, and the probability that it has any.
_LANDMARKS: dict[str, tuple[float, tuple[str, ...]]] = {
    "village": (0.12, ("windmill", "castle")),
    "pond": (0.3, ("teahouse", "pagoda")),
    "mountain": (0.85, ("pagoda", "temple", "castle", "greatwall", "volcano")),
    "sea": (0.4, ("lighthouse", "volcano")),
    "sunflowers": (0.3, ("windmill",)),
    "wheat": (0.3, ("windmill",)),
    "snow": (0.3, ("temple", "greatwall", "castle", "train")),
    "river": (0.45, ("pagoda", "windmill", "temple", "teahouse")),
    "desert": (0.3, ("castle", "train", "volcano")),
    "bamboo": (0.5, ("teahouse", "temple")),
    "forest": (0.35, ("temple", "castle", "pagoda")),
    "meadow": (0.45, ("windmill", "castle")),
    "harbour": (0.6, ("lighthouse",)),
    "gorge": (0.5, ("temple", "pagoda", "teahouse")),
    "portrait": (0.1, ("pagoda", "lighthouse")),
}
# People and animals that a kind of scene may have, and the probability that it has one.
_FIGURES: dict[str, tuple[float, tuple[str, ...]]] = {
    "village": (0.3, ("kite", "cat", "dog", "farmer", "couple", "owl")),
    "pond": (0.5, ("fish", "fish", "crane", "umbrella", "fisherman")),
    "mountain": (0.35, ("monk", "scholar", "crane", "deer", "horse")),
    "sea": (0.4, ("whale", "whale", "fisherman")),
    "sunflowers": (0.3, ("farmer", "butterflies", "dog", "couple")),
    "wheat": (0.35, ("farmer", "horse", "fox", "couple")),
    "snow": (0.45, ("fox", "rabbit", "fisherman", "umbrella", "deer", "crane", "monk")),
    "river": (0.4, ("fisherman", "horse", "crane", "scholar", "couple")),
    "desert": (0.65, ("camel", "camel", "camel", "monk", "horse", "fox")),
    "street": (0.65, ("umbrella", "cat", "dog", "couple", "dancer")),
    "bamboo": (0.7, ("panda", "panda", "panda", "monk", "scholar", "rabbit")),
    "forest": (0.75, ("deer", "fox", "owl", "rabbit", "monk", "horse")),
    "meadow": (0.75, ("horse", "kite", "rabbit", "butterflies", "dog", "couple", "dancer", "deer")),
    "harbour": (0.2, ("cat", "fisherman")),
    "gorge": (0.35, ("crane", "scholar", "monk", "deer")),
    "portrait": (1.0, PEOPLE),
    "creature": (1.0, ANIMALS[:11]),
}
# Animals that a picture may show two or three of.
COUNTED = ("fox", "cat", "deer", "horse", "panda", "rabbit", "camel", "crane", "fish")
# The styles that a kind of scene is drawn in more often.
_AFFINITY: dict[str, tuple[str, ...]] = {
    "village": ("oil", "watercolor", "papercut"),
    "pond": ("monet", "ink", "watercolor"),
    "mountain": ("ink", "ukiyoe", "dunhuang"),
    "sea": ("ukiyoe", "pointillism", "monet"),
    "apsara": ("dunhuang", "papercut"),
    "sunflowers": ("oil", "pastel", "pointillism"),
    "wheat": ("oil", "pastel"),
    "city": ("cyberpunk",),
    "snow": ("ink", "ukiyoe", "pastel"),
    "river": ("watercolor", "ink", "pointillism"),
    "desert": ("dunhuang", "oil", "watercolor"),
    "street": ("oil", "cyberpunk", "watercolor"),
    "bamboo": ("ink", "ukiyoe", "watercolor"),
    "forest": ("monet", "pastel", "papercut"),
    "meadow": ("monet", "pastel", "pointillism"),
    "harbour": ("monet", "oil", "ukiyoe"),
    "gorge": ("ink", "ukiyoe", "watercolor"),
    "portrait": ("dunhuang", "ukiyoe", "oil"),
    "creature": ("ink", "papercut", "watercolor"),
}
_KIND_WEIGHTS = (
    0.08, 0.07, 0.07, 0.06, 0.04, 0.035, 0.035, 0.05, 0.06, 0.05, 0.04, 0.05, 0.04, 0.05, 0.05, 0.04, 0.04, 0.07,
    0.07,
)  # fmt: skip
# The least probability of any style, so that every style is trained with every kind.
_STYLE_FLOOR = 0.08
# The kind of scene that a subject belongs to, the rarer subjects first.
_KIND_OF = {
    "apsara": "apsara", "lilies": "pond", "lotus": "pond", "fish": "pond", "sunflowers": "sunflowers",
    "wheat": "wheat", "desert": "desert", "camel": "desert", "bamboo": "bamboo", "panda": "bamboo",
    "harbour": "harbour", "street": "street", "lanterns": "street", "stonebridge": "river", "teahouse": "pond",
    "train": "meadow", "skyline": "city", "waterfall": "gorge", "snow": "snow",
    "whale": "sea", "sea": "sea", "lighthouse": "sea", "river": "river", "maple": "forest", "flowers": "meadow",
    "village": "village", "mountains": "mountain", "windmill": "meadow", "balloon": "meadow",
    "greatwall": "mountain", "temple": "mountain", "castle": "mountain", "pagoda": "mountain",
    "volcano": "mountain", "island": "sea", "fisherman": "river", **dict.fromkeys(PEOPLE, "portrait"),
    **dict.fromkeys(ANIMALS[:6], "creature"), "rabbit": "creature", "owl": "creature", "crane": "creature",
    "butterflies": "creature",
}  # fmt: skip
# Subjects of which a scene has at most one.
GROUPS = (
    ("moon", "crescent", "sun"), ("sea", "lake", "river"), ("lilies", "lotus"), (*PEOPLE, *ANIMALS),
    ("windmill", "castle", "pagoda", "temple", "teahouse", "greatwall", "volcano", "lighthouse", "train"),
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """The facts of one picture. Positions and sizes are shares of the picture's side, y pointing down.

    `light` is the x, y and radius of the moon or sun; `side` (-1 or 1) is the side of tall subjects; `amount`
    in 0..1 scales the number of countable ones. `figure` is the x of the person or animal, `close` whether it
    fills the picture, and `count` (1 to 3) how many of the animals in COUNTED there are.
    """

    seed: int
    style: str
    kind: str
    hour: str
    weather: str
    subjects: tuple[str, ...]
    horizon: float
    light: tuple[float, float, float]
    side: int
    amount: float
    figure: float = 0.5
    close: bool = False
    count: int = 1

    def has(self, *names: str) -> bool:
        """Whether any of the subjects is in the picture."""
        return any(name in self.subjects for name in names)


def compose(
    seed: int,
    *,
    style: str | None = None,
    kind: str | None = None,
    hour: str | None = None,
    weather: str | None = None,
    subjects: Iterable[str] | None = None,
) -> Scene:
    """Compose a scene from a seed. Given arguments are kept, all else is drawn.

    Raises ValueError when a name is not in STYLES, KINDS, HOURS, WEATHERS or SUBJECTS.
    """
    asked = tuple(subjects or ())
    given = ((style, STYLES), (kind, KINDS), (hour, HOURS), (weather, WEATHERS))
    for value, names in (*given, *((subject, SUBJECTS) for subject in asked)):
        if value is not None and value not in names:
            raise ValueError(f"{value!r} is none of {', '.join(names)}")
    rng = np.random.default_rng([seed, 1])
    drawn_kind = str(rng.choice(KINDS, p=_KIND_WEIGHTS))
    kind = kind or _kind_for(asked) or drawn_kind
    drawn_style = str(rng.choice(STYLES, p=_style_chances(kind)))
    style = style or drawn_style
    drawn_hour = str(rng.choice(HOURS, p=_hour_chances(kind, style)))
    hour = hour or _hour_for(asked) or drawn_hour
    drawn_weather = _draw_weather(rng, kind)
    weather = weather or _weather_for(asked) or drawn_weather
    found = _draw_subjects(rng, kind, style, hour, weather, asked)
    horizon = _horizon(rng, kind)
    side = int(rng.choice((-1, 1)))
    radius = rng.uniform(0.05, 0.085) * (1.25 if kind == "sea" else 1.0)
    low = hour in ("dusk", "dawn") and kind != "apsara"
    height = rng.uniform(*((0.55, 0.8) if low and "mountains" not in found else (0.26, 0.42))) * horizon
    if kind == "pond":
        height, radius = 0.42 * horizon, 0.8 * radius
    if kind == "city":
        height = 0.2 * horizon
    if kind == "apsara":
        height = 0.14
    light = (0.5 - side * rng.uniform(0.12, 0.32), max(height, radius + 0.05), radius)
    amount = float(rng.uniform())
    figure, close, count = _stage(rng, kind, found, side)
    return Scene(seed, style, kind, hour, weather, found, horizon, light, side, amount, figure, close, count)


def _stage(rng: np.random.Generator, kind: str, found: tuple[str, ...], side: int) -> tuple[float, bool, int]:
    """Where the person or animal stands, whether it is seen from near, and how many animals there are."""
    draws = rng.uniform(size=3)
    close = kind in ("portrait", "creature") or (draws[0] < 0.5 and bool({"fish", "whale"} & set(found)))
    if close:
        x = 0.5 + side * float(rng.choice((-0.14, 0.0, 0.14), p=(0.25, 0.5, 0.25)))
    else:
        x = 0.5 - side * (0.06 + 0.24 * draws[1])
    several = bool(set(COUNTED) & set(found)) and draws[2] < 0.4
    count = (2 if draws[2] < 0.26 else 3) if several else 1
    return float(x), close, count


def _style_chances(kind: str) -> np.ndarray:
    liked = np.array([style in _AFFINITY[kind] for style in STYLES], dtype=float)
    return _STYLE_FLOOR + (1 - _STYLE_FLOOR * len(STYLES)) * liked / liked.sum()


def _hour_chances(kind: str, style: str) -> tuple[float, ...]:
    if style == "cyberpunk" or kind == "city":
        return 0.6, 0.2, 0.1, 0.1
    if kind in ("sunflowers", "wheat", "pond", "meadow", "bamboo", "portrait", "creature"):
        return 0.22, 0.24, 0.22, 0.32
    return 0.42, 0.22, 0.18, 0.18


def _draw_weather(rng: np.random.Generator, kind: str) -> str:
    if kind == "snow":
        return str(rng.choice(("snow", "clear"), p=(0.65, 0.35)))
    if kind == "city":
        return str(rng.choice(("clear", "rain", "snow", "mist"), p=(0.4, 0.45, 0.05, 0.1)))
    if kind in ("sunflowers", "wheat", "meadow"):
        return str(rng.choice(("clear", "rain", "mist"), p=(0.8, 0.1, 0.1)))
    if kind == "desert":
        return str(rng.choice(("clear", "mist"), p=(0.95, 0.05)))
    if kind == "street":
        return str(rng.choice(("clear", "rain", "snow", "mist"), p=(0.55, 0.3, 0.08, 0.07)))
    return str(rng.choice(WEATHERS, p=(0.74, 0.09, 0.05, 0.12)))


def _horizon(rng: np.random.Generator, kind: str) -> float:
    ranges = {
        "pond": (0.26, 0.36), "apsara": (0.8, 0.86), "sea": (0.52, 0.64), "city": (0.66, 0.74),
        "street": (0.5, 0.58), "bamboo": (0.6, 0.7), "harbour": (0.48, 0.56), "portrait": (0.58, 0.7),
        "creature": (0.5, 0.62),
    }  # fmt: skip
    return float(rng.uniform(*ranges.get(kind, (0.5, 0.62))))


def _kind_for(asked: tuple[str, ...]) -> str | None:
    """The kind of scene that the first of the asked subjects belongs to."""
    return next((kind for name, kind in _KIND_OF.items() if name in asked), None)


def _hour_for(asked: tuple[str, ...]) -> str | None:
    return "night" if {"stars", "moon", "crescent", "aurora", "comet"} & set(asked) else None


def _weather_for(asked: tuple[str, ...]) -> str | None:
    if "rain" in asked:
        return "rain"
    return "clear" if {"stars", "moon", "crescent", "aurora", "comet", "sun"} & set(asked) else None


def _sky_subjects(rng: np.random.Generator, kind: str, style: str, hour: str, weather: str) -> set[str]:
    """Subjects in the sky. Rain and snow hide its lights; over a pond there is no comet or aurora."""
    found: set[str] = set()
    painterly = style in ("oil", "pastel", "pointillism", "watercolor", "papercut", "dunhuang")
    draws = rng.uniform(size=8)
    if weather in ("rain", "snow"):
        return {"clouds"} if draws[0] < 0.6 else found
    if hour == "night":
        if draws[0] < 0.72:
            found.add("crescent" if draws[1] < 0.5 else "moon")
        if draws[2] < 0.85:
            found.add("stars")
        if draws[3] < (0.75 if style == "oil" else 0.4 if painterly else 0.1):
            found.add("swirls")
        if draws[4] < 0.13 and kind != "pond":
            found.add("comet")
        if draws[5] < (0.35 if kind == "snow" else 0.12) and kind not in ("pond", "apsara"):
            found.add("aurora")
    else:
        if draws[0] < 0.7:
            found.add("sun")
        if draws[2] < 0.2 and hour == "dusk":
            found.add("stars")
        if draws[3] < (0.4 if style == "oil" else 0.08):
            found.add("swirls")
        if draws[6] < 0.5:
            found.add("clouds")
    if draws[7] < 0.2 and hour == "night":
        found.add("clouds")
    return found


def _draw_subjects(
    rng: np.random.Generator, kind: str, style: str, hour: str, weather: str, asked: tuple[str, ...]
) -> tuple[str, ...]:
    found = {*_ALWAYS[kind], *(name for name, chance in _MAYBE[kind].items() if rng.uniform() < chance)}
    found |= _sky_subjects(rng, kind, style, hour, weather) | ({weather} & {"rain", "snow"})
    found |= {_one_of(rng, _LANDMARKS.get(kind)), _one_of(rng, _FIGURES.get(kind))} - {""}
    if kind == "pond":
        found.add("lotus" if rng.uniform() < 0.35 else "lilies")
    for group in GROUPS:
        if set(group) & set(asked):
            found -= set(group)
    found |= set(asked)
    found -= _impossible(found, kind, hour, weather) - set(asked)
    found |= _needed(found, kind)
    return tuple(name for name in SUBJECTS if name in found)


def _one_of(rng: np.random.Generator, choice: tuple[float, tuple[str, ...]] | None) -> str:
    """One of the names with the choice's probability, else an empty string."""
    chance, names = choice or (0.0, ("",))
    drawn, name = rng.uniform(), str(rng.choice(names))
    return name if drawn < chance else ""


def _impossible(found: set[str], kind: str, hour: str, weather: str) -> set[str]:
    """Subjects that do not belong beside the others."""
    wrong: set[str] = set()
    if not found & {"lake", "river", "sea"} and not (kind == "city" and "reflection" in found):
        wrong |= {"boat", "fisherman"}
    if kind == "portrait":
        wrong.discard("fisherman")
    if not found & {"village", "street"}:
        wrong.add("church")
    if "boat" in found and kind == "snow":
        wrong |= {"village", "church"}
    if hour == "night" or weather in ("rain", "snow"):
        wrong |= {"rainbow"}
    if weather in ("rain", "snow"):
        wrong |= {"balloon", "butterflies", "kite"}
    if weather == "snow" or kind == "snow":
        wrong |= {"willow", "maple", "swallows", "flowers", "lotus"}
    if "volcano" in found:
        wrong.add("mountains")
    if found & {"stonebridge", "teahouse"}:
        wrong.add("bridge")
    if "waterfall" in found and (kind == "mountain" or found & {"temple", "pagoda", "teahouse"}):
        wrong.add("pine")  # its pads would hide the fall
    if {"lake", "river"} <= found:
        wrong.add("river")
    if found & {"train", "greatwall"} and kind != "village":
        wrong |= {"village", "church"}
    if "fisherman" in found and kind != "portrait":
        wrong.add("boat")  # the fisherman sits in his own
    return wrong


def _needed(found: set[str], kind: str) -> set[str]:
    """Subjects without which a kind of scene would be empty."""
    more: set[str] = set()
    if kind == "snow" and not found & {"village", "mountains"}:
        more.add("mountains")
    if kind == "snow" and not found & {"village", "trees", "boat", "pine", "temple", "castle", "train"}:
        more.add("trees")
    if kind == "sea" and not found & {
        "boat",
        "mountains",
        "island",
        "lighthouse",
        "whale",
        "volcano",
        "fisherman",
    }:
        more.add("boat")
    if kind == "mountain" and not found & {
        "pagoda",
        "lake",
        "trees",
        "village",
        "temple",
        "castle",
        "greatwall",
    }:
        more.add("trees" if "volcano" in found else "lake")
    if kind == "forest" and not found & {"maple", "pine", "trees"}:
        more.add("trees")
    if kind == "river" and "volcano" not in found:
        more.add("mountains")
    if not found & set(PEOPLE) and kind == "portrait":
        more.add("monk")
    if not found & set(ANIMALS) and kind == "creature":
        more.add("butterflies" if "flowers" in found else "cat")
    return more

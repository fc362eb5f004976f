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
KINDS = ("village", "pond", "mountain", "sea", "apsara", "sunflowers", "wheat", "city", "snow", "river")
SUBJECTS = (
    "stars", "swirls", "moon", "crescent", "sun", "comet", "aurora", "clouds", "village", "church",
    "cypress", "mountains", "river", "lake", "sea", "waves", "reflection", "lilies", "bridge", "boat",
    "pagoda", "apsara", "sunflowers", "wheat", "crows", "skyline", "snow", "rain", "trees", "blossoms",
)  # fmt: skip

# The subjects that each kind of scene always has, and those it may have, with their probabilities.
_ALWAYS: dict[str, tuple[str, ...]] = {
    "village": ("village",),
    "pond": ("lake", "lilies", "reflection"),
    "mountain": ("mountains",),
    "sea": ("sea",),
    "apsara": ("apsara", "clouds"),
    "sunflowers": ("sunflowers",),
    "wheat": ("wheat",),
    "city": ("skyline",),
    "snow": ("snow",),
    "river": ("river", "mountains"),
}
_MAYBE: dict[str, dict[str, float]] = {
    "village": {"church": 0.5, "cypress": 0.5, "mountains": 0.65, "river": 0.2, "trees": 0.3},
    "pond": {"bridge": 0.65, "trees": 0.5, "boat": 0.15, "blossoms": 0.2},
    "mountain": {"pagoda": 0.6, "lake": 0.45, "trees": 0.55, "blossoms": 0.2, "clouds": 0.5},
    "sea": {"boat": 0.8, "waves": 0.45, "mountains": 0.4, "reflection": 0.7},
    "apsara": {"pagoda": 0.3, "mountains": 0.5},
    "sunflowers": {"village": 0.35, "mountains": 0.4, "cypress": 0.25},
    "wheat": {"crows": 0.5, "cypress": 0.5, "village": 0.25, "mountains": 0.4},
    "city": {"reflection": 0.92, "boat": 0.12},
    "snow": {"village": 0.6, "church": 0.3, "mountains": 0.75, "trees": 0.6, "lake": 0.35, "boat": 0.3},
    "river": {"village": 0.35, "boat": 0.45, "trees": 0.45, "blossoms": 0.25, "pagoda": 0.2},
}
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
}
_KIND_WEIGHTS = (0.16, 0.1, 0.1, 0.1, 0.09, 0.09, 0.09, 0.09, 0.09, 0.09)
# The least probability of any style, so that every style is trained with every kind.
_STYLE_FLOOR = 0.08
# The kind of scene that a subject belongs to, the rarer subjects first.
_KIND_OF = {
    "apsara": "apsara", "lilies": "pond", "sunflowers": "sunflowers", "wheat": "wheat", "skyline": "city",
    "snow": "snow", "sea": "sea", "river": "river", "village": "village", "mountains": "mountain",
}  # fmt: skip
# Subjects of which a scene has at most one.
_GROUPS = (("moon", "crescent", "sun"), ("sea", "lake", "river"))


@dataclass(frozen=True)
class Scene:
    """The facts of one picture. Positions and sizes are shares of the picture's side, y pointing down.

    `light` is the x, y and radius of the moon or sun; `side` (-1 or 1) is the side of tall subjects; `amount`
    in 0..1 scales the number of countable ones.
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
    return Scene(seed, style, kind, hour, weather, found, horizon, light, side, float(rng.uniform()))


def _style_chances(kind: str) -> np.ndarray:
    liked = np.array([style in _AFFINITY[kind] for style in STYLES], dtype=float)
    return _STYLE_FLOOR + (1 - _STYLE_FLOOR * len(STYLES)) * liked / liked.sum()


def _hour_chances(kind: str, style: str) -> tuple[float, ...]:
    if style == "cyberpunk" or kind == "city":
        return 0.6, 0.2, 0.1, 0.1
    if kind in ("sunflowers", "wheat", "pond"):
        return 0.22, 0.24, 0.22, 0.32
    return 0.42, 0.22, 0.18, 0.18


def _draw_weather(rng: np.random.Generator, kind: str) -> str:
    if kind == "snow":
        return str(rng.choice(("snow", "clear"), p=(0.65, 0.35)))
    if kind == "city":
        return str(rng.choice(("clear", "rain", "snow", "mist"), p=(0.4, 0.45, 0.05, 0.1)))
    if kind in ("sunflowers", "wheat"):
        return str(rng.choice(("clear", "rain", "mist"), p=(0.8, 0.1, 0.1)))
    return str(rng.choice(WEATHERS, p=(0.74, 0.09, 0.05, 0.12)))


def _horizon(rng: np.random.Generator, kind: str) -> float:
    ranges = {"pond": (0.26, 0.36), "apsara": (0.8, 0.86), "sea": (0.52, 0.64), "city": (0.66, 0.74)}
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
    for group in _GROUPS:
        if set(group) & set(asked):
            found -= set(group)
    found |= set(asked)
    if not found & {"lake", "river", "sea"} and not (kind == "city" and "reflection" in found):
        found.discard("boat")
    if "village" not in found:
        found.discard("church")
    if "boat" in found and kind == "snow":
        found -= {"village", "church"}
    if kind == "snow" and not found & {"village", "mountains"}:
        found.add("mountains")
    if kind == "snow" and not found & {"village", "trees", "boat"}:
        found.add("trees")
    if kind == "sea" and not found & {"boat", "mountains"}:
        found.add("boat")
    if kind == "mountain" and not found & {"pagoda", "lake", "trees", "village"}:
        found.add("lake")
    return tuple(name for name in SUBJECTS if name in found)

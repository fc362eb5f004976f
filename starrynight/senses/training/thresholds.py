"""The thresholds that make the perceiver say only what it knows.

All are found on pictures that it was not trained on and that its evaluation does not use: drawings, of which everything is
known, and Firefly's paintings, of which a person wrote down what can be seen, or else only the prompt is known (see ``truth``).

Things: the logit of each thing is first brought to a probability on drawings (Platt 1999), a rare thing's near that of all things.
Paintings shift it: all things together, each a little, and those that the prompt asks for. Then one probability is the limit of
all things, the lowest at which few enough texts claim something that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from starrynight.senses.facts import CHOICES, THINGS
from starrynight.senses.perceiver import Sight, Thresholds
from starrynight.senses.training.truth import NOT_KNOWN, Truth

NEVER = 2.0  # a threshold that no probability reaches
PRECISION = 0.96  # of what is said of style, hour, weather and kind, at least
FALSE_TEXTS = 0.05  # at most this share of texts claims a thing that is not there
# How much of a false claim one is that the eye could not decide: of 221 such claims, looked at twice more by others, 18 were false, 41 stayed
# open.
UNDECIDED = 0.1
LIMITS = np.arange(0.5, 0.999, 0.002)  # of the probability of a thing, from which the limit is chosen
MISSED = 0.005  # of drawn things, at most this share is said to be missing; of a painting, nothing that by the picture alone is likelier than this
SURELY = 0.5  # of that threshold is the one in use: to say falsely that something is missing is worse than to say nothing
FEWEST = 16  # pictures that show a thing before it gets a threshold of its own
KNOWN_KEPT = 0.96  # the share of our pictures of which the perceiver says something; one in a hundred more, and photographs pass
FOLDS = 6  # of the paintings, for the limit
_RIDGE = 3.0  # how strongly a thing's map from logit to probability stays at that of all things, in pictures
_CLOSE = 1e-4  # a step of Newton's method below which it is done
_SHIFT_RIDGE = 1.5  # how strongly a thing's shift in paintings stays at that of all things

Seen = tuple[Sequence[Sight], Sequence[Truth]]


def thresholds(drawn: Seen, painted: Seen) -> Thresholds:
    """Thresholds from what was seen of drawings and paintings, and what is true of them."""
    sets = [one for one in (drawn, painted) if one[0]]
    confidence = min(
        float(np.quantile([sight.confidence for sight in sights], 1 - KNOWN_KEPT)) for sights, _ in sets
    )
    return Thresholds(confidence, _of_choices(sets), **_of_things(drawn, painted, confidence))


def _of_choices(sets: Sequence[Seen]) -> dict[str, float]:
    """The strictest of the sets' thresholds for each head that chooses."""
    found = {}
    for name in CHOICES:
        limits = []
        for sights, truths in sets:
            best = np.array([sight.choices[name].max() for sight in sights])
            chosen = np.array([sight.choices[name].argmax() for sight in sights])
            true = np.array([truth.choices[name] for truth in truths])
            known = true != NOT_KNOWN
            limits.append(claim(best[known], (chosen == true)[known], 0.0))
        found[name] = max(limits)
    return found


def claim(probabilities: np.ndarray, right: np.ndarray, lowest: float) -> float:
    """The lowest probability, at least ``lowest``, from which on ``PRECISION`` of the claims are right; NEVER where there
    is none, or fewer than FEWEST / 2 claims.
    """
    order = np.argsort(-probabilities, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero((precision >= PRECISION) & (probabilities[order] >= lowest))
    if not len(good) or good[-1] + 1 < FEWEST // 2:
        return NEVER
    return float(probabilities[order][good[-1]])


def _of_things(drawn: Seen, painted: Seen, confidence: float) -> dict[str, dict[str, float]]:
    """From which probability on each thing is said to be there: "claims" without a prompt; with one, "asked" for things that it
    asks for and "unasked" for all others. Below which one a thing that was asked for is said to be missing: "absent".
    """
    sights, truths = drawn
    logits = _logit(np.stack([sight.things for sight in sights]))
    there = np.stack([truth.things for truth in truths]) > 0
    pooled = platt(logits.ravel(), there.ravel(), (1.0, 0.0))
    maps = np.array([platt(logits[:, k], there[:, k], pooled) for k in range(len(THINGS))])
    usable = (maps[:, 0] > 0) & (there.sum(0) >= FEWEST)
    nothing = np.zeros_like(logits)
    alone, prompted = (_shift(painted, maps, prompt) for prompt in (False, True))
    on_drawings = _chances(logits, nothing, maps, alone) * usable
    limit = with_prompt = _limit(drawn, confidence, on_drawings)
    if painted[0]:
        limit = max(limit, _limit(painted, confidence, _crossed(painted, maps, False) * usable))
        with_prompt = _limit(painted, confidence, _crossed(painted, maps, True) * usable)
    kept = usable & ((on_drawings >= limit) & there).any(0)
    tables = {
        "claims": (limit, alone, 0.0), "asked": (with_prompt, prompted, 1.0), "unasked": (with_prompt, prompted, 0.0)
    }  # fmt: skip
    found = {name: np.where(kept, _least(*some, maps), NEVER) for name, some in tables.items()}
    found["absent"] = np.minimum(_quantiles(drawn), np.where(usable, _least(MISSED, alone, 0.0, maps), 0.0))
    return {name: dict(zip(THINGS, some.tolist(), strict=True)) for name, some in found.items()}


def _shift(painted: Seen, maps: np.ndarray, prompt: bool) -> np.ndarray:
    """How paintings differ from drawings: what a thing's logit on drawings is multiplied by, what is added to all, what is added to
    things that are asked for (0 unless ``prompt``), and what is added to each thing, [3 + T]; by logistic regression.
    """
    count = len(THINGS)
    found = start = np.array([1.0, *[0.0] * (2 + count)])
    if not painted[0]:
        return found
    sights, truths = painted
    logits = maps[:, 0] * _logit(np.stack([sight.things for sight in sights])) + maps[:, 1]
    sure = np.stack([(truth.known > 0) & (truth.doubted == 0) for truth in truths])
    asked = np.stack([truth.asked for truth in truths]) * prompt
    _, thing = np.nonzero(sure)
    columns = np.column_stack([logits[sure], np.ones(len(thing)), asked[sure], np.eye(count)[thing]])
    right = np.stack([truth.things for truth in truths])[sure] > 0
    ridge = np.diag([_RIDGE, 0.1, 0.1, *[_SHIFT_RIDGE] * count])
    for _ in range(25):
        chance = _sigmoid(columns @ found)
        gradient = columns.T @ (chance - right) + ridge @ (found - start)
        curvature = (columns * (chance * (1 - chance))[:, None]).T @ columns + ridge
        step = np.clip(np.linalg.solve(curvature, gradient), -0.5, 0.5)
        found = found - step
        if np.abs(step).max() < _CLOSE:
            break
    return found


def _chances(logits: np.ndarray, asked: np.ndarray, maps: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The probability of each thing in a painting, [N, T], from its logit, and from whether it was asked for."""
    return _sigmoid(shift[0] * (maps[:, 0] * logits + maps[:, 1]) + shift[1] + shift[2] * asked + shift[3:])


def _least(limit: float, shift: np.ndarray, asked: float, maps: np.ndarray) -> np.ndarray:
    """The perceiver's own probability of each thing at which ``_chances`` is ``limit``, [T]."""
    logit = (_logit(np.array(limit)) - shift[1] - shift[2] * asked - shift[3:]) / shift[0]
    return _sigmoid((logit - maps[:, 1]) / np.where(maps[:, 0] > 0, maps[:, 0], 1.0))


def _crossed(painted: Seen, maps: np.ndarray, prompt: bool) -> np.ndarray:
    """The probability of each thing in each painting, [N, T], by the shift of the other paintings: by its own a painting would look
    surer than a new one.
    """
    sights, truths = painted
    found = np.zeros((len(sights), len(THINGS)))
    for fold in range(FOLDS):
        rest = [row for row in range(len(sights)) if row % FOLDS != fold]
        shift = _shift(([sights[row] for row in rest], [truths[row] for row in rest]), maps, prompt)
        logits = _logit(np.stack([sight.things for sight in sights[fold::FOLDS]]))
        asked = np.stack([truth.asked for truth in truths[fold::FOLDS]])
        found[fold::FOLDS] = _chances(logits, asked, maps, shift)
    return found


def _limit(some: Seen, confidence: float, chances: np.ndarray) -> float:
    """The lowest of LIMITS for the pictures of which anything is said."""
    told = np.array([sight.confidence >= confidence for sight in some[0]])
    absent = np.stack([np.where(truth.known > 0, truth.things == 0, UNDECIDED) for truth in some[1]])
    return common_limit(chances[told], absent[told])


def common_limit(sure: np.ndarray, absent: np.ndarray) -> float:
    """The lowest of LIMITS at which at most FALSE_TEXTS of the pictures are expected to get a claim of what is absent: [N, T] the
    chances that things are there by the perceiver, and that they are absent in truth.
    """
    false = [float(1 - (1 - (sure >= limit) * absent).prod(1).mean()) for limit in LIMITS]
    return float(
        next((limit for limit, share in zip(LIMITS, false, strict=True) if share <= FALSE_TEXTS), 1.0)
    )


def platt(logits: np.ndarray, right: np.ndarray, prior: tuple[float, float]) -> tuple[float, float]:
    """Slope and offset that make logits [N] those of being right: logistic regression by Newton's method, drawn to ``prior``."""
    found, start = np.array(prior), np.array(prior)
    columns = np.stack([logits, np.ones_like(logits)], 1)
    for _ in range(25):
        chance = _sigmoid(columns @ found)
        gradient = columns.T @ (chance - right) + _RIDGE * (found - start)
        curvature = (columns * (chance * (1 - chance))[:, None]).T @ columns + _RIDGE * np.eye(2)
        found = found - np.clip(np.linalg.solve(curvature, gradient), -0.5, 0.5)
    return float(found[0]), float(found[1])


def _quantiles(drawn: Seen) -> np.ndarray:
    """Below which probability few drawings that show a thing are, halved, [T]; 0 where too few pictures show it."""
    sights, truths = drawn
    things = np.stack([sight.things for sight in sights])
    there = np.stack([truth.things for truth in truths]) > 0
    return np.array([
        SURELY * np.quantile(things[there[:, k], k], MISSED) if there[:, k].sum() >= FEWEST else 0.0
        for k in range(len(THINGS))
    ])  # fmt: skip


def _logit(probabilities: np.ndarray) -> np.ndarray:
    kept = np.clip(probabilities.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.log(kept / (1 - kept))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))

"""The thresholds that make the perceiver say only what it knows.

All are found on pictures that it was not trained on and that its evaluation does not use: drawings, of which everything is
known, and Firefly's paintings, of which only the prompt is (see ``truth``).

Things: the logit of each thing is first brought to a probability (Platt 1999), a rare thing's near that of all things; then one
probability is the limit of them all, the lowest at which few enough texts claim something that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from starrynight.senses.facts import CHOICES, THINGS
from starrynight.senses.perceiver import Sight, Thresholds
from starrynight.senses.training.truth import NOT_KNOWN, Truth

NEVER = 2.0  # a threshold that no probability reaches
PRECISION = 0.96  # of what is said of style, hour, weather and kind, at least
FALSE_TEXTS = 0.0175  # of texts about drawings, at most this share claims a thing that is not there
LIMITS = np.arange(0.5, 0.999, 0.002)  # of the probability of a thing, from which the limit is chosen
MISSED = 0.005  # of what is there, or was asked of Firefly, at most this share is said to be missing
SURELY = 0.5  # of that threshold is the one in use: to say falsely that something is missing is worse than to say nothing
FEWEST = 16  # pictures that show a thing before it gets a threshold of its own
KNOWN_KEPT = 0.93  # the share of our pictures of which the perceiver says something
_RIDGE = 3.0  # how strongly a thing's map from logit to probability stays at that of all things, in pictures

Seen = tuple[Sequence[Sight], Sequence[Truth]]


def thresholds(drawn: Seen, painted: Seen) -> Thresholds:
    """Thresholds from what was seen of drawings and paintings, and what is true of them."""
    sets = [one for one in (drawn, painted) if one[0]]
    confidence = min(
        float(np.quantile([sight.confidence for sight in sights], 1 - KNOWN_KEPT)) for sights, _ in sets
    )
    return Thresholds(confidence, _of_choices(sets), _of_claims(sets, confidence), _of_absent(sets))


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


def _of_claims(sets: Sequence[Seen], confidence: float) -> dict[str, float]:
    """From which probability on each thing is said to be there: maps and limit from the drawings, the first of the sets; the limit
    holds for the paintings too, as far as it is known what they do not show.
    """
    sights, truths = sets[0]
    logits = _logit(np.stack([sight.things for sight in sights]))
    there = np.stack([truth.things for truth in truths]) > 0
    pooled = platt(logits.ravel(), there.ravel(), (1.0, 0.0))
    maps = np.array([platt(logits[:, k], there[:, k], pooled) for k in range(len(THINGS))])
    usable = (maps[:, 0] > 0) & (there.sum(0) >= FEWEST)
    limit = max(common_limit(*_told(some, confidence, maps, usable)) for some in sets)
    found = {}
    for k, (slope, offset) in enumerate(maps):
        least = float(_sigmoid((_logit(np.array(limit)) - offset) / slope)) if usable[k] else NEVER
        for other_sights, other_truths in sets[1:]:
            seen = np.array([sight.things[k] for sight in other_sights])
            known = np.array([truth.known[k] > 0 for truth in other_truths])
            right = np.array([truth.things[k] > 0 for truth in other_truths])
            least = above_false(seen[known], right[known], least)
        ever = there[:, k] & (_sigmoid(slope * logits[:, k] + offset) >= limit)
        found[THINGS[k]] = least if ever.any() else NEVER
    return found


def _told(
    some: Seen, confidence: float, maps: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the pictures of which anything is said, the probability of each thing, 0 if it is not usable, and whether it is known to
    be absent, both [N, T].
    """
    told = [pair for pair in zip(*some, strict=True) if pair[0].confidence >= confidence]
    logits = _logit(np.stack([sight.things for sight, _ in told]))
    sure = _sigmoid(maps[:, 0] * logits + maps[:, 1]) * usable
    return sure, np.stack([(truth.known > 0) & (truth.things == 0) for _, truth in told])


def common_limit(sure: np.ndarray, absent: np.ndarray) -> float:
    """The lowest of LIMITS at which at most FALSE_TEXTS of the pictures get a claim of what is absent, [N, T] both."""
    false = [float(((sure >= limit) & absent).any(1).mean()) for limit in LIMITS]
    return float(
        next((limit for limit, share in zip(LIMITS, false, strict=True) if share <= FALSE_TEXTS), 1.0)
    )


def above_false(probabilities: np.ndarray, right: np.ndarray, lowest: float) -> float:
    """The lowest threshold, at least ``lowest``, at which PRECISION of the claims are right, or none is made."""
    for limit in [lowest, *sorted(probabilities[probabilities >= lowest] + 1e-6)]:
        claimed = probabilities >= limit
        if not claimed.any() or right[claimed].mean() >= PRECISION:
            return float(limit)
    return lowest


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


def _of_absent(sets: Sequence[Seen]) -> dict[str, float]:
    """Below which probability each thing is said to be missing: the lowest of the sets'; 0 where too few pictures show it."""
    found = {}
    for k, name in enumerate(THINGS):
        limits = []
        for sights, truths in sets:
            positive = [
                sight.things[k] for sight, truth in zip(sights, truths, strict=True) if truth.things[k] > 0
            ]
            if len(positive) >= FEWEST:
                limits.append(float(np.quantile(positive, MISSED)))
        found[name] = SURELY * min(limits, default=0.0)
    return found


def _logit(probabilities: np.ndarray) -> np.ndarray:
    kept = np.clip(probabilities.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.log(kept / (1 - kept))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))

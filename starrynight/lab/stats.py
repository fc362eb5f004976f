"""What a handful of measurements proves: rates, medians and paired differences, each with its 95 % interval.

Distribution-free wherever it can be had. Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
# Below this many values no two of them bracket a median with 95 % (2 · ½⁶ = 3 %).
FEWEST = 6


@dataclass(frozen=True)
class Estimate:
    """A value between ``low`` and ``high`` with 95 %; ``count`` values. With fewer than ``FEWEST`` the bounds are
    merely the least and the greatest, and ``sure`` is False.
    """

    value: float
    low: float
    high: float
    count: int
    sure: bool = True

    def excludes(self, number: float) -> bool:
        """Whether the interval rules ``number`` out; never with too few values."""
        return self.sure and not self.low <= number <= self.high


def rate(hits: int, tries: int) -> Estimate:
    """A share with its Clopper–Pearson interval. For none (or all) of ``tries`` the bound is the one-sided one:
    0 of 100 proves only "below 3.0 %", the rule of three.
    """
    from scipy.stats import beta

    if not tries:
        return Estimate(math.nan, 0.0, 1.0, 0, sure=False)
    tail = 1 - CONFIDENCE if hits in (0, tries) else (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, hits, tries - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, tries - hits)) if hits < tries else 1.0
    return Estimate(hits / tries, low, high, tries)


def needed(share: float, claimed: float) -> int | None:
    """How many tries tell a true ``share`` from a ``claimed`` one: the fewest whose interval, if the hits come as the
    share has it, leaves the claimed one out. Exact up to 200, above that within 2 %; None from 100,000 on.
    """
    tries = 1
    while tries < 100_000:
        found = rate(round(share * tries), tries)
        if not found.low <= claimed <= found.high:
            return tries
        tries = tries + 1 if tries < 200 else math.ceil(tries * 1.02)
    return None


def median(values: Sequence[float]) -> Estimate:
    """The median with the interval between two order statistics (the sign test turned round)."""
    from scipy.stats import binom

    ordered = np.sort([v for v in values if not math.isnan(v)])
    count = len(ordered)
    if not count:
        return Estimate(math.nan, math.nan, math.nan, 0, sure=False)
    middle = float(np.median(ordered))
    if count < FEWEST:
        return Estimate(middle, float(ordered[0]), float(ordered[-1]), count, sure=False)
    cut = int(binom.ppf((1 - CONFIDENCE) / 2, count, 0.5))
    cut = cut - 1 if binom.cdf(cut - 1, count, 0.5) > (1 - CONFIDENCE) / 2 else cut
    cut = max(cut, 1)
    return Estimate(middle, float(ordered[cut - 1]), float(ordered[count - cut]), count)


def negated(one: Estimate) -> Estimate:
    """The same difference, taken the other way round."""
    return Estimate(-one.value, -one.high, -one.low, one.count, one.sure)


def paired(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The median of second − first, pair by pair."""
    return median([b - a for a, b in zip(first, second, strict=True)])


def ratio(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The median of second ÷ first, pair by pair: for times, which noise multiplies."""
    return median([b / a for a, b in zip(first, second, strict=True)])

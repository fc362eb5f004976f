"""Rates, medians and paired differences with their 95 % intervals; distribution-free where possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
# The range of n values misses the median with probability 2 · ½ⁿ: 6.3 % for 5 values, 3.1 % for 6.
FEWEST = 6


@dataclass(frozen=True)
class Estimate:
    """An estimate from ``count`` values with its 95 % interval. With fewer than ``FEWEST`` values ``low`` and ``high`` are the
    least and greatest value, and ``sure`` is False.
    """

    value: float
    low: float
    high: float
    count: int
    sure: bool = True

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


def rate(hits: int, tries: int) -> Estimate:
    """A share with its Clopper–Pearson interval (C. Clopper, E. Pearson, Biometrika 26, 1934). If none or all of ``tries``
    hit, the interval is one-sided: 0 of 100 shows "below 3.0 %", the rule of three.
    """
    from scipy.stats import beta

    if not tries:
        return Estimate(math.nan, 0.0, 1.0, 0, sure=False)
    tail = 1 - CONFIDENCE if hits in (0, tries) else (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, hits, tries - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, tries - hits)) if hits < tries else 1.0
    return Estimate(hits / tries, low, high, tries)


def needed(share: float, claimed: float) -> int | None:
    """The number of tries that distinguishes a true ``share`` from a ``claimed`` one: the least at which the interval
    excludes the claim if the hits match the share. Exact up to 200, within 2 % above; None from 100,000 on.
    """
    tries = 1
    while tries < 100_000:
        found = rate(round(share * tries), tries)
        if not found.contains(claimed):
            return tries
        tries = tries + 1 if tries < 200 else math.ceil(tries * 1.02)
    return None


def median(values: Sequence[float]) -> Estimate:
    """The median with the interval between two order statistics, the inverse of the sign test. NaN is left out."""
    from scipy.stats import binom

    ordered = np.sort([v for v in values if not math.isnan(v)])
    count = len(ordered)
    if not count:
        return Estimate(math.nan, math.nan, math.nan, 0, sure=False)
    value = float(np.median(ordered))
    if count < FEWEST:
        return Estimate(value, float(ordered[0]), float(ordered[-1]), count, sure=False)
    cut = max(int(binom.ppf((1 - CONFIDENCE) / 2, count, 0.5)), 1)
    return Estimate(value, float(ordered[cut - 1]), float(ordered[count - cut]), count)


def negated(one: Estimate) -> Estimate:
    """The difference with its sign changed; 0 stays 0, where a minus sign would give −0.0."""
    return Estimate(0 - one.value, 0 - one.high, 0 - one.low, one.count, one.sure)


def paired(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The median of second − first, pair by pair."""
    return median([b - a for a, b in zip(first, second, strict=True)])


def ratio(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The median of second ÷ first, pair by pair: for times, whose noise is multiplicative."""
    return median([b / a for a, b in zip(first, second, strict=True)])

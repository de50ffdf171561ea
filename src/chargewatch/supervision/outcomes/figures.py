"""How good flags are: shares with intervals, and delays of which some are not over yet. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import beta, norm

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class CountedShare:
    """A share of what was counted, with two intervals of 95 %; NaN where nothing was counted.

    Attributes:
        low, high: Wilson's, near 95 % on average.
        exact_low, exact_high: Clopper and Pearson's, at least 95 %.
    """

    hits: int
    of: int
    value: float
    low: float
    high: float
    exact_low: float
    exact_high: float


def wilson(hits: int, of: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the score interval of a share; NaN of none.

    Equation: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    Source: Wilson 1927, JASA 22:209-212.
    """
    if not of:
        return math.nan, math.nan
    z = float(norm.ppf((1.0 + confidence) / 2.0))
    share = hits / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1.0 - share) / of + z * z / (4 * of * of))
    scale = 1.0 + z * z / of
    low = 0.0 if hits == 0 else (middle - half) / scale
    high = 1.0 if hits == of else (middle + half) / scale
    return low, high


def clopper_pearson(hits: int, of: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact interval of a share; NaN of none.

    Source: Clopper, Pearson 1934, Biometrika 26:404-413, as quantiles of beta distributions.
    """
    if not of:
        return math.nan, math.nan
    tail = (1.0 - confidence) / 2.0
    low = float(beta.ppf(tail, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1.0 - tail, hits + 1, of - hits)) if hits < of else 1.0
    return low, high


def share_of(hits: int, of: int) -> CountedShare:
    """Return a share with its intervals.

    Raises: ValueError when there are more hits than things counted.
    """
    if not 0 <= hits <= of:
        raise ValueError(f"{hits} of {of} is no share")
    low, high = wilson(hits, of)
    exact_low, exact_high = clopper_pearson(hits, of)
    return CountedShare(
        hits=hits,
        of=of,
        value=hits / of if of else math.nan,
        low=low,
        high=high,
        exact_low=exact_low,
        exact_high=exact_high,
    )


@dataclass(frozen=True, kw_only=True)
class Delay:
    """How long something takes, of which some is not over yet.

    Attributes:
        over, waiting: how many ended, and how many had not when they were last seen.
        median_days, quarter_days, most_days: days after which half, a quarter and nine tenths are
            over by the Kaplan-Meier estimate; NaN where the estimate does not come so far.
        curve: day and share that is over by then, at each day on which one ended.
    """

    over: int
    waiting: int
    median_days: float
    quarter_days: float
    most_days: float
    curve: tuple[tuple[float, float], ...]


def kaplan_meier(days: Sequence[float], over: Sequence[bool]) -> tuple[tuple[float, float], ...]:
    """Return the day and the share that is over by then, at each day on which one ended.

    Equation: 1 - prod(1 - d_i / n_i), d_i that end on day i of n_i that were seen so long.
    Source: Kaplan, Meier 1958, JASA 53:457-481.
    """
    left, standing = len(days), 1.0
    curve = []
    ordered = sorted(zip(days, over, strict=True), key=lambda pair: (pair[0], not pair[1]))
    place = 0
    while place < len(ordered):
        day, ended, gone = ordered[place][0], 0, 0
        while place < len(ordered) and ordered[place][0] == day:
            ended += ordered[place][1]
            gone += 1
            place += 1
        if ended:
            standing *= 1.0 - ended / left
            curve.append((day, 1.0 - standing))
        left -= gone
    return tuple(curve)


def delay_of(days: Sequence[float], over: Sequence[bool]) -> Delay:
    """Return the delay of what ended and of what is waited for.

    Args:
        days: until the end, or so far, at least 0.
        over: whether it ended.
    """
    curve = kaplan_meier(days, over)

    def day_of(share: float) -> float:
        return next((day for day, reached in curve if reached >= share - 1e-12), math.nan)

    ended = sum(over)
    return Delay(
        over=ended,
        waiting=len(days) - ended,
        median_days=day_of(0.5),
        quarter_days=day_of(0.25),
        most_days=day_of(0.9),
        curve=curve,
    )

"""Figures that compare assessments with a known truth (metrology.md, section 7); pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import beta, norm, t

from chargewatch.domain.arrays import Bools, Floats

NORMAL_975 = float(norm.ppf(0.975))
RELIABILITY_EDGES = (0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 1.0)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Assessments beside the truth, one row a connector; shape (n,). NaN: not identified."""

    relative_error: Floats
    standard_uncertainty: Floats
    p_nonconforming: Floats
    red: Bools
    true_error: Floats
    mpe: Floats
    bound: Floats  # Cramer-Rao bound of the standard uncertainty; NaN where not known

    @property
    def identified(self) -> Bools:
        """Connectors with an estimate."""
        return np.isfinite(self.relative_error)


@dataclass(frozen=True)
class Share:
    """A count of a count, with its 95 % interval."""

    part: int
    whole: int

    @property
    def value(self) -> float:
        """The share; NaN of nothing."""
        return self.part / self.whole if self.whole else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Clopper and Pearson (1934); NaN of nothing."""
        if not self.whole:
            return math.nan, math.nan
        low = beta.ppf(0.025, self.part, self.whole - self.part + 1) if self.part else 0.0
        misses = self.whole - self.part
        high = beta.ppf(0.975, self.part + 1, misses) if misses else 1.0
        return float(low), float(high)

    def plus(self, other: Share) -> Share:
        """Return the share of both wholes together."""
        return Share(self.part + other.part, self.whole + other.whole)


def root_mean_square(values: Floats) -> float:
    """Return the root mean square of the finite values; NaN without any."""
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else math.nan


def rmse_over_bound(compared: Compared) -> float:
    """Return the root mean square of error / Cramer-Rao bound over identified connectors.

    Equation: sqrt(mean(((e_i - eps_i) / b_i)^2)); 1 is the best an unbiased estimate can do.
    """
    return root_mean_square((compared.relative_error - compared.true_error) / compared.bound)


def coverage(compared: Compared) -> Share:
    """Return how many 95 % intervals hold the true error."""
    known = compared.identified
    miss = np.abs(compared.relative_error - compared.true_error)
    held = miss <= NORMAL_975 * compared.standard_uncertainty
    return Share(int(np.sum(held & known)), int(np.sum(known)))


def false_flags(compared: Compared, *, beyond_at_times: Bools | None = None) -> Share:
    """Return how many red connectors are within their MPE.

    Where: beyond_at_times: connectors that are beyond it in a situation, which is no false flag.
    """
    inside = np.abs(compared.true_error) <= compared.mpe
    if beyond_at_times is not None:
        inside = inside & ~beyond_at_times
    return Share(int(np.sum(compared.red & inside)), int(np.sum(compared.red)))


def recall(compared: Compared, *, at_mpe: float, among: Bools | None = None) -> Share:
    """Return how many connectors with |eps| >= at_mpe x MPE are red.

    Where: among: connectors that count, such as those with a station meter; default: all.
    """
    offenders = np.abs(compared.true_error) >= at_mpe * compared.mpe
    if among is not None:
        offenders = offenders & among
    return Share(int(np.sum(offenders & compared.red)), int(np.sum(offenders)))


def brier_score(p: Floats, outcome: Bools) -> float:
    """Return the mean squared difference of probability and outcome, over known probabilities.

    Source: Brier, Monthly Weather Review 78 (1950).
    """
    known = np.isfinite(p)
    return float(np.mean((p[known] - outcome[known]) ** 2)) if known.any() else math.nan


def ideal_brier_score(p: Floats) -> float:
    """Return the score that these probabilities would have if they were right: mean p (1 - p)."""
    known = p[np.isfinite(p)]
    return float(np.mean(known * (1 - known))) if known.size else math.nan


def reliability_table(
    p: Floats, outcome: Bools, *, edges: Sequence[float] = RELIABILITY_EDGES
) -> list[dict[str, float]]:
    """Return, by range of probability, how often the outcome came beside the mean probability."""
    rows = []
    known = np.isfinite(p)
    for k, (low, high) in enumerate(pairwise(edges)):
        upper = p <= high if k == len(edges) - 2 else p < high
        inside = known & (p >= low) & upper
        if inside.any():
            rows.append(
                {
                    "from": low,
                    "to": high,
                    "connectors": int(inside.sum()),
                    "mean_p": float(p[inside].mean()),
                    "observed": float(outcome[inside].mean()),
                }
            )
    return rows


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of independent values and its 95 % interval (Student's t); NaN are left out.

    With one value the interval is not known.
    """
    known = np.array([value for value in values if math.isfinite(value)])
    if known.size == 0:
        return math.nan, math.nan, math.nan
    mean = float(known.mean())
    if known.size == 1:
        return mean, math.nan, math.nan
    half = float(t.ppf(0.975, known.size - 1) * known.std(ddof=1) / math.sqrt(known.size))
    return mean, mean - half, mean + half


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Where a signal is, or must be: on connectors, and on stations as a whole."""

    connectors: frozenset[str] = frozenset()
    stations: frozenset[str] = frozenset()


NONE = Marks()


@dataclass(frozen=True, kw_only=True)
class Detection:
    """How one code was found."""

    precision: Share
    recall: Share
    false: tuple[str, ...]
    missed: tuple[str, ...]


def detection(
    found: Marks, true: Marks, *, allowed: Marks = NONE, station_of: Mapping[str, str]
) -> Detection:
    """Return precision and recall of one code.

    A signal on a connector is right when the truth has it on the connector or its station, one on
    a station when the truth has it there or on one of its connectors. What is allowed (a
    consequence of another fault) is neither right nor wrong.
    """
    true_places = true.stations | {station_of.get(name, "") for name in true.connectors}
    allowed_places = allowed.stations | {station_of.get(name, "") for name in allowed.connectors}
    right, false = 0, []
    for name in sorted(found.connectors):
        place = station_of.get(name, "")
        if name in true.connectors or place in true.stations:
            right += 1
        elif name not in allowed.connectors and place not in allowed.stations:
            false.append(name)
    for place in sorted(found.stations):
        if place in true_places:
            right += 1
        elif place not in allowed_places:
            false.append(place)
    found_places = found.stations | {station_of.get(name, "") for name in found.connectors}
    missed = [
        name
        for name in sorted(true.connectors)
        if name not in found.connectors and station_of.get(name, "") not in found.stations
    ]
    missed += [place for place in sorted(true.stations) if place not in found_places]
    wanted = len(true.connectors) + len(true.stations)
    return Detection(
        precision=Share(right, right + len(false)),
        recall=Share(wanted - len(missed), wanted),
        false=tuple(false),
        missed=tuple(missed),
    )

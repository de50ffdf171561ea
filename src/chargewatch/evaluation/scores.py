"""Figures that compare assessments with a known truth (metrology.md, section 7); pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

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
    conforming: Bools
    is_dc: Bools | None  # None where the truth does not tell
    method: tuple[str, ...]  # evidence as the engine names it, "" without estimate
    given: Mapping[str, Floats] = field(default_factory=dict)
    """Relative errors by the engine when truths are given, by the name of what is (`oracle`)."""

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
        return share_interval(self.value, float(self.whole))

    def plus(self, other: Share) -> Share:
        """Return the share of both wholes together."""
        return Share(self.part + other.part, self.whole + other.whole)


def share_interval(share: float, whole: float) -> tuple[float, float]:
    """Return the 95 % interval of a share of so many independent ones; NaN of nothing.

    Equation: quantiles of Beta(x, n - x + 1) and Beta(x + 1, n - x), x = n share; n need not be an
    integer. Source: Clopper, Pearson, Biometrika 26 (1934).
    """
    if not whole or math.isnan(share):
        return math.nan, math.nan
    part = share * whole
    low = beta.ppf(0.025, part, whole - part + 1) if part > 0 else 0.0
    high = beta.ppf(0.975, part + 1, whole - part) if part < whole else 1.0
    return float(low), float(high)


def share_json(share: Share) -> dict[str, Any]:
    """Return a share with its counts and 95 % interval."""
    low, high = share.interval
    return {"value": share.value, "low": low, "high": high, "part": share.part, "of": share.whole}


def effective_count(cities: Sequence[Share]) -> float:
    """Return so many independent ones as tell as much as the connectors of some cities.

    Connectors of one city are not independent: they share meters, vehicles and a level. Equation:
    n / D x (t_(n-1) / t_(k-1))^2, at most n; D: variance of the share between k cities,
    k / (k - 1) sum (x_c - p n_c)^2 / n^2, over p (1 - p) / n; t: 97.5 % points of Student's t, for
    a variance that few cities tell badly. Of one city, or where all or none count, nothing can be
    said of D and it is 1.
    Source: Korn, Graubard, Survey Methodology 24 (1998), 193-201.
    """
    counts = [share for share in cities if share.whole]
    k, whole = len(counts), sum(share.whole for share in counts)
    part = sum(share.part for share in counts)
    if k < 2 or part in (0, whole):
        return float(whole)
    p = part / whole
    between = k / (k - 1) * sum((share.part - p * share.whole) ** 2 for share in counts) / whole**2
    effect = between / (p * (1 - p) / whole)
    if effect <= 1:
        return float(whole)
    few = float(t.ppf(0.975, whole - 1) / t.ppf(0.975, k - 1)) ** 2
    return min(whole / effect * few, float(whole))


def pooled(cities: Sequence[Share]) -> dict[str, Any]:
    """Return the share of all cities together, its counts and 95 % interval.

    The interval is that of Clopper and Pearson for the `effective_count`.
    """
    total = Share(sum(share.part for share in cities), sum(share.whole for share in cities))
    low, high = share_interval(total.value, effective_count(cities))
    return {"value": total.value, "low": low, "high": high, "part": total.part, "of": total.whole}


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
) -> list[dict[str, Any]]:
    """Return, by range of probability, how often the outcome came beside the mean probability."""
    rows: list[dict[str, Any]] = []
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
                    "came": int(outcome[inside].sum()),
                }
            )
    return pooled_reliability([rows])


def pooled_reliability(cities: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of several reliability tables together, with 95 % intervals of what came."""
    edges = sorted({(row["from"], row["to"]) for table in cities for row in table})
    rows = []
    for low, high in edges:
        mine = [row for table in cities for row in table if row["from"] == low]
        of = sum(row["connectors"] for row in mine)
        came = pooled([Share(row["came"], row["connectors"]) for row in mine])
        rows.append(
            {
                "from": low,
                "to": high,
                "connectors": of,
                "mean_p": sum(row["mean_p"] * row["connectors"] for row in mine) / of,
                "came": came["part"],
                "observed": came["value"],
                "observed_low": came["low"],
                "observed_high": came["high"],
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


def ratio_of_cities(cities: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return the root of a ratio of sums over cities, with its 95 % interval.

    Equation: r = sqrt(sum a / sum b); ln r and its variance by leaving out one city at a time,
    (k - 1) / k sum (ln r_(c) - mean)^2, and Student's t of k - 1 degrees of freedom. Of one city
    the interval is not known.
    Source: Efron, The Jackknife, the Bootstrap and Other Resampling Plans, SIAM 1982.
    """
    pairs = np.array([pair for pair in cities if pair[1] > 0], dtype=np.float64).reshape(-1, 2)
    k = len(pairs)
    if k == 0:
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    total = pairs.sum(axis=0)
    value = float(np.sqrt(total[0] / total[1]))
    if k == 1 or value == 0:
        return {"value": value, "low": math.nan, "high": math.nan}
    left = total - pairs
    log = 0.5 * np.log(left[:, 0] / left[:, 1])
    u = math.sqrt((k - 1) / k * float(((log - log.mean()) ** 2).sum()))
    factor = math.exp(float(t.ppf(0.975, k - 1)) * u)
    return {"value": value, "low": value / factor, "high": value * factor}


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

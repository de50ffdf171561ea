"""Steps and drifts of a connector's error, from independent daily estimates.

Each day gives an estimate of each connector's error by that day's data alone (`balance`,
`direct`, `vehicles`). Its innovation against the mean of all earlier days since the last change is
standardised by the variances of both, so that without a change the innovations are independent
and standard normal, whatever the days' uncertainties: Kalman's innovations of a constant. A
two-sided CUSUM watches them. Source: Page, Biometrika 41 (1954); Hawkins, J. Qual. Technol. 19
(1987) for the self-starting form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.risk.priors import CHANGE_SHARE

CLIP = 6.0
"""An innovation counts as at most so many standard deviations: one wild day is no drift."""
NORMAL_QUARTILE = 0.6744897501960817
TREND_DAYS = 6
"""Days with data on its slope that a drift needs."""
LEAST_DAYS = 3
"""Days with data that a change needs after it to be found, and on either side to be suspected."""
CHANGE_PRIOR_SAMPLE = 5_000
DRIFT_MARGIN = 2.0
"""A drift must explain the days better than a step by this much log likelihood."""
LEAST_ODDS = -5.0
"""Logarithm of the odds below which a change is no more thought of."""
DATING_DROP = 1.92
"""Drop of the log likelihood that bounds a 95 % interval, half the chi-squared quantile."""


@dataclass(frozen=True, kw_only=True)
class Suspicions:
    """Changes that are too weak to be found but not to be thought of; shape (n,)."""

    chance: Floats  # probability that there was one, 0 where it is not thought of
    size: Floats  # the present error less the one that seems to be
    variance: Floats  # of the size

    @property
    def likely(self) -> Bools:
        """Changes that rather were than not: the estimate shown is then the mean over both."""
        return self.chance >= 0.5

    @property
    def doubt(self) -> Floats:
        """Variance of the present error from a change that may have been, fraction^2."""
        around_mean = self.chance * ((1.0 - self.chance) * self.size**2 + self.variance)
        return np.where(self.likely, around_mean, self.chance * self.size**2)

    @property
    def mean(self) -> Floats:
        """By how much such a change moves the estimate shown, fraction."""
        return np.where(self.likely, self.chance * self.size, 0.0)


def no_suspicions(n: int) -> Suspicions:
    """Return none of n connectors."""
    zero = np.zeros(n)
    return Suspicions(chance=zero, size=zero.copy(), variance=zero.copy())


@dataclass(frozen=True, kw_only=True)
class DriftFindings:
    """Changes found; shape (n,); days are columns of the series."""

    alarm: Bools
    statistic: Floats
    changed: Ints  # first column after the last change, -1 for none
    low: Ints
    high: Ints
    suspicions: Suspicions  # where there is no alarm


def cusum(innovation: Floats, *, reference: float, limit: float) -> tuple[Floats, Ints]:
    """Return the largest two-sided CUSUM after each day, and the first day above the limit.

    Args:
        innovation: standardised, shape (n, d); NaN on days without data.
        reference: k.
        limit: h.

    Returns: statistic (n, d) and column of the first alarm (n,), -1 for none.
    Equation: S+ = max(0, S+ + z - k), S- = max(0, S- - z - k), alarm when max(S+, S-) > h.
    """
    n, days = innovation.shape
    up, down = np.zeros(n), np.zeros(n)
    statistic = np.zeros((n, days))
    first = np.full(n, -1, dtype=np.int64)
    for k in range(days):
        z = np.nan_to_num(innovation[:, k])
        seen = np.isfinite(innovation[:, k])
        up = np.where(seen, np.maximum(up + z - reference, 0.0), up)
        down = np.where(seen, np.maximum(down - z - reference, 0.0), down)
        statistic[:, k] = np.maximum(up, down)
        first = np.where((first < 0) & (statistic[:, k] > limit), k, first)
    return statistic, first


def self_starting(estimate: Floats, precision: Floats, *, begin: Ints) -> Floats:
    """Return standardised innovations against the mean of the days since ``begin``.

    Args:
        estimate: daily estimates, shape (n, d).
        precision: 1 / variance, 0 without data.
        begin: first column that counts, shape (n,).

    Equation: z_k = (x_k - m_{k-1}) / sqrt(1 / p_k + 1 / P_{k-1}), P the sum of the precisions
    and m the weighted mean of the days before k. NaN on the first day and without data.
    """
    n, days = estimate.shape
    total, weighted = np.zeros(n), np.zeros(n)
    out = np.full((days, n), np.nan)
    # Day by day, so each day's numbers lie together.
    values, weights = np.ascontiguousarray(estimate.T), np.ascontiguousarray(precision.T)
    for k in range(days):
        p = np.where(k >= begin, weights[k], 0.0)
        x = np.where(p > 0, values[k], 0.0)
        ready = np.flatnonzero((p > 0) & (total > 0))
        before, now = total[ready], p[ready]
        away = x[ready] - weighted[ready] / before
        out[k, ready] = np.clip(away / np.sqrt(1.0 / now + 1.0 / before), -CLIP, CLIP)
        total += p
        weighted += p * x
    return np.asarray(out.T)


def _step_gains(estimate: Floats, precision: Floats) -> Floats:
    """Return the log likelihood that a step before each column gains, shape (n, d).

    Equation: half of p_1 p_2 / (p_1 + p_2) (m_1 - m_2)^2 with means and summed precisions before
    and after; -inf without data on one side.
    """
    px = precision * np.where(precision > 0, estimate, 0.0)
    none = np.zeros((precision.shape[0], 1))
    before_p = np.concatenate([none, np.cumsum(precision, axis=1)[:, :-1]], axis=1)
    before = np.concatenate([none, np.cumsum(px, axis=1)[:, :-1]], axis=1)
    after_p = precision.sum(axis=1)[:, None] - before_p
    after = px.sum(axis=1)[:, None] - before
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = 0.5 * before_p * after_p / (before_p + after_p)
        gain *= (before / before_p - after / after_p) ** 2
    return np.where(np.isfinite(gain), gain, -np.inf)


def _most_likely(gain: Floats) -> tuple[Ints, Ints, Ints]:
    """Return the best column and the first and last within 1.92 of it, shapes (n,)."""
    best = np.argmax(gain, axis=1)
    top = gain[np.arange(gain.shape[0]), best]
    possible = gain >= top[:, None] - DATING_DROP
    low = np.argmax(possible, axis=1)
    return best, low, gain.shape[1] - 1 - np.argmax(possible[:, ::-1], axis=1)


def suspicions(estimate: Floats, precision: Floats) -> Suspicions:
    """Return the steps that may have been, by their odds.

    Equation: P = L / (1 + L), L = share x exp(gain) / days, of the most likely step with at least
    three days on either side; its size the difference of the means after and before it.

    Args:
        estimate: daily estimates, shape (n, d).
        precision: 1 / variance, 0 without data.
    """
    n, days = estimate.shape
    found = no_suspicions(n)
    if n == 0 or days == 0:
        return found
    seen = (precision > 0).astype(np.int64)
    before = np.cumsum(seen, axis=1) - seen
    enough = (before >= LEAST_DAYS) & (seen.sum(axis=1)[:, None] - before >= LEAST_DAYS)
    gain = np.where(enough, _step_gains(estimate, precision), -np.inf)
    best = np.argmax(gain, axis=1)
    log = np.log(CHANGE_SHARE / days) + gain[np.arange(n), best]
    likely = np.flatnonzero(log > LEAST_ODDS)
    p, column = precision[likely], best[likely]
    found.chance[likely] = 1.0 / (1.0 + np.exp(-log[likely]))
    found.size[likely] = level_change(estimate[likely], p, column)
    later = np.arange(days) >= column[:, None]
    found.variance[likely] = sum(
        1.0 / np.where(side, p, 0.0).sum(axis=1) for side in (later, ~later)
    )
    return found


def dated(estimate: Floats, precision: Floats, *, begin: Ints, end: Ints) -> tuple[Ints, ...]:
    """Return the most likely first day of the new level, and its 95 % interval: columns (n,).

    All columns whose log likelihood is within 1.92 of the best are possible.
    """
    column = np.arange(estimate.shape[1])
    use = (column >= begin[:, None]) & (column <= end[:, None])
    gain = _step_gains(estimate, np.where(use, precision, 0.0))
    return _most_likely(np.where(use, gain, -np.inf))


@dataclass(frozen=True, kw_only=True)
class Drifts:
    """The straight rise or fall that fits each series best; shape (n,)."""

    is_drift: Bools  # explains the days better than any step
    begin: Ints  # column from which on the error moves
    low: Ints
    high: Ints
    slope: Floats  # a day
    variance: Floats  # of the slope


def risen(days: ArrayLike, begin: Ints) -> Floats:
    """Return for how many days a drift that began with column ``begin`` has gone on at a time."""
    return np.maximum(np.asarray(days, dtype=np.float64) - begin, 0.0)


def find_drifts(estimate: Floats, precision: Floats) -> Drifts:
    """Return the best line that is level up to a day and rises or falls from there to the end.

    A line and a step both have a level, a size and a day, so their likelihoods can be compared.

    Args:
        estimate: daily estimates, shape (n, d).
        precision: 1 / variance, 0 without data.

    Equation: x(t) = m + b max(0, t - c), t in the middle of the day; for each c weighted least
    squares, b = sum p r x / sum p r^2 with r the centred ramp, gain half of b^2 sum p r^2.
    """
    n, days = estimate.shape
    t = np.arange(days) + 0.5
    total = precision.sum(axis=1)
    safe = np.where(total > 0, total, 1.0)
    x = np.where(precision > 0, estimate, 0.0)
    gain = np.full((n, days), -np.inf)
    slope, spread = np.zeros((n, days)), np.zeros((n, days))
    for c in range(max(days - TREND_DAYS + 1, 0)):
        ramp = np.maximum(t - c, 0.0)
        centred = ramp - ((precision @ ramp) / safe)[:, None]
        spread[:, c] = (precision * centred**2).sum(axis=1)
        wide = np.where(spread[:, c] > 0, spread[:, c], 1.0)
        slope[:, c] = (precision * centred * x).sum(axis=1) / wide
        enough = ((precision > 0) & (ramp > 0)).sum(axis=1) >= TREND_DAYS
        gain[:, c] = np.where(enough, 0.5 * slope[:, c] ** 2 * spread[:, c], -np.inf)
    if days == 0:
        none = np.zeros(n, dtype=np.int64)
        zero = np.zeros(n)
        return Drifts(is_drift=none > 0, begin=none, low=none, high=none, slope=zero, variance=zero)
    begin, low, high = _most_likely(gain)
    row = np.arange(n)
    wide = spread[row, begin]
    best_step = _step_gains(estimate, precision).max(axis=1)
    return Drifts(
        is_drift=np.isfinite(gain[row, begin]) & (gain[row, begin] > best_step + DRIFT_MARGIN),
        begin=begin,
        low=low,
        high=high,
        slope=slope[row, begin],
        variance=1.0 / np.where(wide > 0, wide, 1.0),
    )


def level_change(
    estimate: Floats, precision: Floats, change: Ints, *, begin: Ints | int = 0
) -> Floats:
    """Return the mean from ``change`` on less the mean from ``begin`` to there, shape (n,)."""
    column = np.arange(estimate.shape[1])
    means = []
    for use in (
        column >= change[:, None],
        (column >= np.reshape(begin, (-1, 1))) & (column < change[:, None]),
    ):
        p = np.where(use, precision, 0.0)
        total = p.sum(axis=1)
        means.append((p * estimate).sum(axis=1) / np.where(total > 0, total, 1.0))
    return np.asarray(means[0] - means[1])


def present_level(
    estimate: Floats, precision: Floats, *, begin: Ints, slope: Floats, slope_variance: Floats
) -> tuple[Floats, Floats]:
    """Return the level at the end of the last day and its variance, shapes (n,).

    Args:
        estimate: daily estimates, shape (n, d).
        precision: 1 / variance, 0 without data.
        begin: first column after a step or of a drift, shape (n,).
        slope: of the drift, a day, 0 after a step.
        slope_variance: of the slope, 0 after a step.

    Equation: after a step the mean of the days since; along a drift the mean of all days plus
    slope x (R - r), R the days the drift has gone on, r their mean; u^2 = 1 / sum p + (R - r)^2
    u^2(slope). Variance infinite without data.
    """
    days = estimate.shape[1]
    column = np.arange(days)
    drifts = slope_variance > 0
    p = np.where(drifts[:, None] | (column >= begin[:, None]), precision, 0.0)
    total = p.sum(axis=1)
    safe = np.where(total > 0, total, 1.0)
    mean = (p * estimate).sum(axis=1) / safe
    ahead = risen(float(days), begin) - (p * risen(column + 0.5, begin[:, None])).sum(axis=1) / safe
    variance = np.where(total > 0, 1.0 / safe + ahead**2 * slope_variance, np.inf)
    return mean + slope * ahead, variance


def _robust_scale(innovation: Floats, *, axis: int, least: int) -> Floats:
    """Return the normal quantile of the median of |z| along an axis, 1 for fewer than ``least``."""
    z = np.abs(innovation)
    count = np.isfinite(z).sum(axis=axis)
    if z.shape[axis] == 0:
        return np.ones(count.shape)
    quiet = np.expand_dims(count < least, axis)
    median = np.nanmedian(np.where(quiet, 0.0, z), axis=axis)
    return np.where(count >= least, median / NORMAL_QUARTILE, 1.0)


def _steps(estimate: Floats, precision: Floats) -> Floats:
    """Return standardised differences of successive days, (n, d - 1), NaN without data.

    A step or a drift hardly touches them, so they tell a connector's own noise.
    """
    p = np.where(precision > 0, precision, np.nan)
    return np.asarray(np.diff(estimate, axis=1) / np.sqrt(1.0 / p[:, 1:] + 1.0 / p[:, :-1]))


def day_to_day_variance(estimate: Floats, precision: Floats, *, rounds: int = 20) -> float:
    """Return the variance between days that the daily estimates have beyond their own.

    For a set of connectors alike, shape (k, d): the value that makes the median of |z| that of a
    normal, by bisection between 0 and 3 %. A converter's loss depends on what was charged that
    day, which no single day can tell from the meter's error. 0 for fewer than 50 innovations.
    """
    # One number doesn't need a whole city: every k-th connector tells it as well.
    step = max(1, estimate.shape[0] // CHANGE_PRIOR_SAMPLE)
    estimate, precision = estimate[::step], precision[::step]
    begin = np.zeros(estimate.shape[0], dtype=np.int64)

    def scale(variance: float) -> float:
        z = self_starting(estimate, with_variance(precision, variance), begin=begin)
        z = z[np.isfinite(z)]
        return float(np.median(np.abs(z))) / NORMAL_QUARTILE if z.size >= 50 else 1.0

    if scale(0.0) <= 1.0:
        return 0.0
    low, high = 0.0, 0.03
    for _ in range(rounds):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if scale(middle**2) > 1.0 else (low, middle)
    return high**2


def with_variance(precision: Floats, variance: Floats | float) -> Floats:
    """Return precisions with a variance added, 0 where there was none."""
    known = precision > 0
    return np.where(known, 1.0 / (1.0 / np.where(known, precision, 1.0) + variance), 0.0)


def find_changes(
    estimate: Floats,
    precision: Floats,
    *,
    smallest: Floats,
    reference: float,
    limit: float,
    rounds: int = 5,
) -> DriftFindings:
    """Return the last change of each connector within the series, if any.

    Innovations are divided by the scale that the city has on that day and by the connector's own
    over the days (each at least 1), so that a wrong uncertainty makes no alarms.

    Args:
        estimate: daily estimates, shape (n, d).
        precision: 1 / variance, 0 without data.
        smallest: changes below this are none, fraction, shape (n,): temperature and season move
            every meter a little.
        reference: k of the CUSUM.
        limit: h of the CUSUM.
        rounds: changes looked for one after the other; each starts anew where the last began.
    """
    n, days = estimate.shape
    begin = np.zeros(n, dtype=np.int64)
    changed = np.full(n, -1, dtype=np.int64)
    low, high = changed.copy(), changed.copy()
    shown = np.zeros(n)
    todo = np.arange(n if days else 0)
    by_day, own = np.ones(days), np.ones(n)
    for turn in range(rounds):
        if todo.size == 0:
            break
        z = self_starting(estimate[todo], precision[todo], begin=begin[todo])
        if turn == 0:
            by_day = np.maximum(_robust_scale(z, axis=0, least=50), 1.0)
            own = np.maximum(_robust_scale(_steps(estimate, precision), axis=1, least=8), 1.0)
        z = z / by_day / own[todo][:, None]
        statistic, first = cusum(z, reference=reference, limit=limit)
        hit = first >= 0
        peak = np.where(hit, statistic[np.arange(todo.size), np.maximum(first, 0)], 0.0)
        shown[todo] = np.maximum(shown[todo], np.where(hit, peak, statistic[:, -1]))
        rows = todo[hit]
        best, first_day, last_day = dated(
            estimate[rows], precision[rows], begin=begin[rows], end=first[hit]
        )
        size = np.abs(level_change(estimate[rows], precision[rows], best, begin=begin[rows]))
        # What two days of one feeder have in common may be a fault in its data.
        since = ((precision[rows] > 0) & (np.arange(days) >= best[:, None])).sum(axis=1)
        large = (size >= smallest[rows]) & (since >= LEAST_DAYS)
        changed[rows[large]], low[rows[large]] = best[large], first_day[large]
        high[rows[large]] = last_day[large]
        begin[rows] = best
        todo = rows
    alarm = changed >= 0
    quiet = np.where(alarm[:, None], 0.0, precision / (own[:, None] * by_day) ** 2)
    return DriftFindings(
        alarm=alarm,
        statistic=shown,
        changed=changed,
        low=low,
        high=high,
        suspicions=suspicions(estimate, quiet),
    )

"""How much daily estimates and sessions scatter in time beyond what they state.

All of it is told by differences of what lies near in time: a change touches few of them, so no
change hides in the noise that it would make around a common mean.
"""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.risk.priors import DAY_WANDER_MPE, OWN_NOISE_COUNTS

NORMAL_QUARTILE = 0.6744897501960817
SAMPLE = 5_000
LEAST = 50
"""Differences below which nothing is said of a kind."""
LAG_DAYS = 3
"""What differs from one day to the next may stay for a few: a converter's loss depends on who
charges there these days."""
LARGEST = 9.0
"""A squared standardised difference counts as at most this."""


def with_variance(precision: Floats, variance: Floats | float) -> Floats:
    """Return precisions with a variance added, 0 where there was none."""
    known = precision > 0
    return np.where(known, 1.0 / (1.0 / np.where(known, precision, 1.0) + variance), 0.0)


def _excess(away: Floats, variance: Floats, *, rounds: int = 20) -> float:
    """Return the variance that each end of differences has beyond its own.

    The value that makes the median of |z| that of a normal, by bisection between 0 and 3 %.
    """
    if away.size < LEAST:
        return 0.0

    def scale(extra: float) -> float:
        z = np.abs(away) / np.sqrt(variance + 2.0 * extra)
        return float(np.median(z)) / NORMAL_QUARTILE

    if scale(0.0) <= 1.0:
        return 0.0
    low, high = 0.0, 0.03
    for _ in range(rounds):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if scale(middle**2) > 1.0 else (low, middle)
    return high**2


def _differences(estimate: Floats, precision: Floats, lag: int) -> tuple[Floats, Floats]:
    """Return differences of days so far apart and their variances, NaN without data."""
    v = 1.0 / np.where(precision > 0, precision, np.nan)
    return np.asarray(estimate[:, lag:] - estimate[:, :-lag]), v[:, lag:] + v[:, :-lag]


def day_to_day_variance(estimate: Floats, precision: Floats) -> float:
    """Return the variance between days that daily estimates have beyond their own.

    For a set of connectors alike, shape (k, d). A converter's loss depends on what was charged that
    day, which no single day can tell from the meter's error. 0 for fewer than 50 differences.
    """
    # One number doesn't need a whole city: every k-th connector tells it as well.
    step = max(1, estimate.shape[0] // SAMPLE)
    if estimate.shape[1] <= LAG_DAYS:
        return 0.0
    away, variance = _differences(estimate[::step], precision[::step], LAG_DAYS)
    known = np.isfinite(variance)
    return _excess(away[known], variance[known])


def metered_noise(estimate: Floats, precision: Floats, *, is_dc: Bools, mpe: Floats) -> Floats:
    """Return the precisions of daily estimates with all the noise that days show, shape (n, d).

    To each day comes the variance between days of its kind of connector, at least 0.1 MPE; then the
    noise of a connector whose days differ by more than that is scaled up.

    Args:
        estimate: shape (n, d).
        precision: 1 / variance, 0 without data.
        is_dc: shape (n,).
        mpe: shape (n,).
    """
    out = np.zeros(precision.shape)
    for kind in (False, True):
        mine = is_dc == kind
        extra = day_to_day_variance(estimate[mine], precision[mine])
        least = (DAY_WANDER_MPE * mpe[mine]) ** 2
        out[mine] = with_variance(precision[mine], np.maximum(extra, least).reshape(-1, 1))
    if estimate.shape[1] < 2:
        return out
    away, variance = _differences(estimate, out, 1)
    squared = np.minimum(away**2 / variance, LARGEST)
    count = np.isfinite(squared).sum(axis=1)
    own = (np.nansum(squared, axis=1) + OWN_NOISE_COUNTS) / (count + OWN_NOISE_COUNTS)
    return np.asarray(out / np.maximum(own, 1.0).reshape(-1, 1))


def session_noise(connector: Ints, value: Floats, variance: Floats, *, side: Ints) -> Floats:
    """Return the variances of sessions with what they scatter beyond, shape (s,).

    Args:
        connector: ascending, in the order of time for each, shape (s,).
        value: what each says of its connector, shape (s,).
        variance: as stated, shape (s,).
        side: 0 on AC, 1 on DC.
    """
    out = variance.copy()
    same = np.flatnonzero(connector[1:] == connector[:-1])
    away, both = value[same + 1] - value[same], variance[same + 1] + variance[same]
    for kind in (0, 1):
        mine = side[same] == kind
        step = max(1, int(mine.sum()) // (10 * SAMPLE))
        out[side == kind] += _excess(away[mine][::step], both[mine][::step])
    return out

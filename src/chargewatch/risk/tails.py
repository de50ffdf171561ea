"""How heavy the tails of sessions and of vehicles' scales are, estimated by kind.

Weights for tails that aren't there give information away or claim too much: with Student's five
degrees of freedom and one session of garbage in twenty, errors of normal sessions scatter by 6 %
more than they must; vehicles that are seen twice seem to tell 6 % more than they do.
"""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Floats
from chargewatch.risk.priors import (
    GARBAGE_SHARE,
    GARBAGE_SPREAD,
    SPREAD_COUNTS,
    VEHICLE_TAIL_DEGREES,
)
from chargewatch.risk.vehicles import FIRST_TAIL, Tail, log_student

FIRST_VEHICLE_TAIL = Tail(1.0 / VEHICLE_TAIL_DEGREES, 0.0)

TRIED_TAILS = np.array([1e-6, 0.01, 0.025, 0.05, 0.08, 0.125, 0.2, 0.33])
"""1 / nu that are weighed against one another, a priori alike; the first is the normal one."""
LEAST_THAT_TELL = 30
LARGEST_LEVERAGE = 0.5
"""A session that decides its own fit by more than this says nothing of tails; nor does a vehicle
whose scale is less known than that."""
LARGEST_SAMPLE = 300_000
STEPS = 15
BIN = 0.05
LOG_RANGE = (-14.0, 14.0)


def session_tail(residual: Floats, variance: Floats, *, leverage: Floats) -> Tail:
    """Return the tail of a kind's sessions; `FIRST_TAIL` where too few tell of it.

    Args:
        residual: of sessions, shape (s,).
        variance: as they were weighted, shape (s,).
        leverage: h, share of its own fitted value that a session decides, shape (s,).
    """
    squared, usual = _squared(residual, variance, leverage=leverage)
    if squared.size < LEAST_THAT_TELL:
        return FIRST_TAIL
    return _tail(squared, wide=1.0 + GARBAGE_SPREAD**2 / usual, believed=GARBAGE_SHARE)


def vehicle_tail(scale: Floats, variance: Floats, *, unknown: Floats) -> Tail:
    """Return the tail of a kind's vehicles, without garbage; `FIRST_VEHICLE_TAIL` where few tell.

    Args:
        scale: posterior mean of c_v, shape (v,).
        variance: sigma_c^2 as it was before, shape (v,).
        unknown: posterior variance of c_v over sigma_c^2: by that the mean is drawn to 0, (v,).
    """
    squared, _ = _squared(scale, variance, leverage=unknown)
    if squared.size < LEAST_THAT_TELL:
        return FIRST_VEHICLE_TAIL
    return _tail(squared, wide=1.0, believed=0.0)


def _squared(residual: Floats, variance: Floats, *, leverage: Floats) -> tuple[Floats, float]:
    """Return z^2 of those that tell of tails, and their usual variance.

    z^2 = r^2 / (v (1 - h)), because a fit shortens residuals, most where little carries it.
    """
    every = max(1, residual.size // LARGEST_SAMPLE)
    residual, variance, leverage = residual[::every], variance[::every], leverage[::every]
    free = (leverage < LARGEST_LEVERAGE) & (residual != 0.0)
    if not free.any():
        return np.zeros(0), np.nan
    squared = residual[free] ** 2 / (variance[free] * (1.0 - leverage[free]))
    return squared, float(np.median(variance[free]))


def _tail(squared: Floats, *, wide: float, believed: float) -> Tail:
    """Return the tail of z^2.

    Equation: L(k) = max over scale a and share g of sum ln[(1 - g) t(z^2 / a; k) / sqrt(a) + g N(0,
    w)], by expectation-maximisation; 1 / nu is the mean of k over exp L(k), g that of the best k.
    """
    # Likelihoods of bins cost the same for a hundred and for millions.
    place = (np.clip(np.log(squared), *LOG_RANGE) - LOG_RANGE[0]) / BIN
    count = np.bincount(place.astype(np.int64))
    centre = np.exp(LOG_RANGE[0] + BIN * (np.arange(count.size) + 0.5))
    seen = count > 0
    weights, squared = count[seen].astype(np.float64), centre[seen]
    found = [_fitted(squared, weights, k, wide=wide, believed=believed) for k in TRIED_TAILS]
    log = np.array([likelihood for likelihood, _ in found])
    chance = np.exp(log - log.max())
    return Tail(
        inverse_degrees=float(chance @ TRIED_TAILS / chance.sum()),
        garbage=found[int(np.argmax(log))][1],
    )


def _fitted(
    squared: Floats, weights: Floats, inverse_degrees: float, *, wide: float, believed: float
) -> tuple[float, float]:
    """Return the largest log likelihood of z^2 under one tail, and the share of garbage."""
    k, total = inverse_degrees, float(weights.sum())
    scale, garbage = 1.0, believed
    junk = -0.5 * squared / wide - 0.5 * np.log(wide)
    likelihood = 0.0
    for _ in range(STEPS):
        good = np.log1p(-garbage) + log_student(squared / scale, k) - 0.5 * np.log(scale)
        both = np.logaddexp(good, np.log(garbage) + junk) if garbage else good
        likelihood = float(weights @ both)
        mine = weights * np.exp(good - both)
        pull = (1.0 + k) / (1.0 + k * squared / scale)
        scale = float(mine @ (pull * squared)) / float(mine.sum())
        if garbage:
            spoilt = total - float(mine.sum()) + SPREAD_COUNTS * believed
            garbage = spoilt / (total + SPREAD_COUNTS)
    return likelihood, garbage

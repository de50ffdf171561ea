"""How heavy the tails of sessions are, estimated by kind.

Weights for tails that aren't there give information away: with Student's five degrees of freedom
and one session of garbage in twenty, errors of normal sessions scatter by 6 % more than they must.
"""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Floats
from chargewatch.risk.priors import GARBAGE_SHARE, GARBAGE_SPREAD, SPREAD_COUNTS
from chargewatch.risk.vehicles import FIRST_TAIL, Tail, log_student

TRIED_TAILS = np.array([1e-6, 0.01, 0.025, 0.05, 0.08, 0.125, 0.2, 0.33])
"""1 / nu that are weighed against one another, a priori alike; the first is the normal one."""
LEAST_FREE_SESSIONS = 30
LARGEST_LEVERAGE = 0.5
"""A session that decides its own fit by more than this says nothing of tails."""
LARGEST_SAMPLE = 300_000
STEPS = 15
BIN = 0.05
LOG_RANGE = (-14.0, 14.0)


def session_tail(residual: Floats, variance: Floats, *, leverage: Floats) -> Tail:
    """Return the tail of a kind's sessions; `FIRST_TAIL` where too few tell of it.

    Equation: L(k) = max over scale a and share g of sum ln[(1 - g) t(z^2 / a; k) / sqrt(a) + g N(0,
    w)], by expectation-maximisation; 1 / nu is the mean of k over exp L(k), g that of the best k.
    z^2 = r^2 / (v (1 - h)), because a fit shortens residuals, most where few sessions carry it.

    Args:
        residual: of sessions, shape (s,).
        variance: as they were weighted, shape (s,).
        leverage: h, share of its own fitted value that a session decides, shape (s,).
    """
    every = max(1, residual.size // LARGEST_SAMPLE)
    residual, variance, leverage = residual[::every], variance[::every], leverage[::every]
    free = (leverage < LARGEST_LEVERAGE) & (residual != 0.0)
    if int(free.sum()) < LEAST_FREE_SESSIONS:
        return FIRST_TAIL
    squared = residual[free] ** 2 / (variance[free] * (1.0 - leverage[free]))
    # Likelihoods of bins cost the same for a hundred sessions and for millions.
    place = (np.clip(np.log(squared), *LOG_RANGE) - LOG_RANGE[0]) / BIN
    count = np.bincount(place.astype(np.int64))
    centre = np.exp(LOG_RANGE[0] + BIN * (np.arange(count.size) + 0.5))
    seen = count > 0
    weights, squared = count[seen].astype(np.float64), centre[seen]
    wide = 1.0 + GARBAGE_SPREAD**2 / float(np.median(variance[free]))
    found = [_fitted(squared, weights, k, wide=wide) for k in TRIED_TAILS]
    log = np.array([likelihood for likelihood, _ in found])
    chance = np.exp(log - log.max())
    return Tail(
        inverse_degrees=float(chance @ TRIED_TAILS / chance.sum()),
        garbage=found[int(np.argmax(log))][1],
    )


def _fitted(
    squared: Floats, weights: Floats, inverse_degrees: float, *, wide: float
) -> tuple[float, float]:
    """Return the largest log likelihood of z^2 under one tail, and the share of garbage."""
    k, total = inverse_degrees, float(weights.sum())
    scale, garbage = 1.0, GARBAGE_SHARE
    junk = -0.5 * squared / wide - 0.5 * np.log(wide)
    likelihood = 0.0
    for _ in range(STEPS):
        good = log_student(squared / scale, k) - 0.5 * np.log(scale)
        both = np.logaddexp(np.log1p(-garbage) + good, np.log(garbage) + junk)
        likelihood = float(weights @ both)
        mine = weights * np.exp(np.log1p(-garbage) + good - both)
        pull = (1.0 + k) / (1.0 + k * squared / scale)
        scale = float(mine @ (pull * squared)) / float(mine.sum())
        garbage = (total - float(mine.sum()) + SPREAD_COUNTS * GARBAGE_SHARE) / (
            total + SPREAD_COUNTS
        )
    return likelihood, garbage

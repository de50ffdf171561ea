"""What share of the energy that drivers pay for was not delivered, and how sure that is.

Of each kWh that a meter with error e indicates, e / (1 + e) is not delivered; below 0 it is given
away. docs/decisions/money-owed.md says what is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.special import ndtr

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.risk.decision import Population, expected_positive, posterior_parts

SIDES_OF_INTERVAL = (0.025, 0.975)
HALVINGS = 26


@dataclass(frozen=True, kw_only=True)
class Undelivered:
    """Posterior of the share that is not delivered, shape (n,); NaN: not known."""

    mean: Floats
    over: Floats  # E[max(0, share)]
    under: Floats  # E[max(0, -share)]
    over_low: Floats  # 95 % interval of each side
    over_high: Floats
    under_low: Floats
    under_high: Floats
    variance: Floats
    variance_over: Floats
    variance_under: Floats

    def put(self, rows: Ints, other: Undelivered) -> None:
        """Put the values of other connectors into some rows."""
        for name in NAMES:
            getattr(self, name)[rows] = getattr(other, name)


NAMES = tuple(field.name for field in fields(Undelivered))


def undelivered(
    error: Floats, standard_uncertainty: Floats, *, mpe: Floats, population: Population
) -> Undelivered:
    """Return the posterior by a connector's own evidence and the city's errors.

    Args:
        error: relative error by its own evidence, shape (n,); NaN: not known.
        standard_uncertainty: of it.
        mpe: shape (n,); NaN: no rule names one, and nothing is known.
        population: prior of the city.

    Equation: for one normal N(m, s^2) of e: the mean of e / (1 + e) is m / (1 + m) - s^2 /
    (1 + m)^3, its standard deviation s / (1 + m)^2, to the second order in s; then over the parts
    of the mixture.
    """
    with np.errstate(invalid="ignore"):
        known = np.isfinite(error) & np.isfinite(standard_uncertainty) & (mpe > 0) & (error > -0.9)
    out = Undelivered(**{name: np.full(error.shape, np.nan) for name in NAMES})
    if not known.any():
        return out
    u = np.maximum(standard_uncertainty[known], 1e-9)
    weight, m, s = posterior_parts(
        error[known], mpe[known], standard_uncertainty=u, population=population
    )
    scale = 1.0 + np.maximum(m, -0.9)
    mean, spread = m / scale - s**2 / scale**3, s / scale**2
    over, under = expected_positive(mean, spread), expected_positive(-mean, spread)
    # E[max(0, x)^2] = (m^2 + s^2) Phi(m / s) + m s phi(m / s) = s^2 Phi + m E[max(0, x)].
    above = ndtr(mean / spread)
    square_over = spread**2 * above + mean * over
    square_under = spread**2 * (1.0 - above) - mean * under

    def mixed(values: Floats) -> Floats:
        return np.asarray((weight * values).sum(axis=1))

    middle = mixed(mean)
    low, high = (_quantile(p, weight, mean, spread) for p in SIDES_OF_INTERVAL)
    rows = np.flatnonzero(known)
    out.put(
        rows,
        Undelivered(
            mean=middle,
            over=mixed(over),
            under=mixed(under),
            # A wide part of little weight may bring the mean outside of the quantiles.
            over_low=np.minimum(np.maximum(low, 0.0), mixed(over)),
            over_high=np.maximum(high, mixed(over)),
            under_low=np.minimum(np.maximum(-high, 0.0), mixed(under)),
            under_high=np.maximum(-low, mixed(under)),
            variance=mixed(spread**2 + (mean - middle[:, None]) ** 2),
            variance_over=np.maximum(mixed(square_over) - mixed(over) ** 2, 0.0),
            variance_under=np.maximum(mixed(square_under) - mixed(under) ** 2, 0.0),
        ),
    )
    return out


def _quantile(p: float, weight: Floats, mean: Floats, spread: Floats) -> Floats:
    """Return a quantile of each mixture, by halving."""
    low, high = (mean - 8.0 * spread).min(axis=1), (mean + 8.0 * spread).max(axis=1)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        below = (weight * ndtr((middle[:, None] - mean) / spread)).sum(axis=1) < p
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(0.5 * (low + high))


def parted(inside: Undelivered, otherwise: Undelivered, share: Floats) -> Undelivered:
    """Return the posterior of energy of which a share has one error and the rest another one.

    Too much and too little do not make up for one another; intervals and deviations add up as if
    both were wrong together.
    """
    rest = 1.0 - share

    def sums(name: str) -> Floats:
        return np.asarray(share * getattr(inside, name) + rest * getattr(otherwise, name))

    def squares(name: str) -> Floats:
        one, other = np.sqrt(getattr(inside, name)), np.sqrt(getattr(otherwise, name))
        return np.asarray((share * one + rest * other) ** 2)

    return Undelivered(
        **{name: squares(name) if name.startswith("variance") else sums(name) for name in NAMES},
    )

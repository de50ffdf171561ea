"""Decisions on conformity with stated risks, JCGM 106:2012.

The prior of a connector's error is heavy-tailed: most are good, few are far off. In units of the
MPE it is a mixture of normals around zero: a narrow bulk, whose width and share are estimated from
the city, and wider ones for the others. A connector's own evidence N(e, u^2) times the mixture
is a mixture again, so every probability is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from chargewatch.domain.arrays import Floats
from chargewatch.risk.priors import (
    PART_SPREAD_COUNTS,
    PART_SPREAD_START,
    SHARE_COUNTS,
    SHARE_START,
    SPREAD_RANGE,
)

POPULATION_SAMPLE = 5_000


@dataclass(frozen=True)
class Population:
    """Prior of relative errors in units of the MPE: shares and standard deviations, shape (3,)."""

    share: Floats
    spread: Floats


PRIOR_POPULATION = Population(SHARE_START, PART_SPREAD_START)


def responsibilities(
    error: Floats, mpe: Floats, *, standard_uncertainty: Floats, population: Population
) -> Floats:
    """Return the probability of each part of the mixture for each connector, shape (n, 3)."""
    total = standard_uncertainty[:, None] ** 2 + (population.spread * mpe[:, None]) ** 2
    log = np.log(population.share) - 0.5 * np.log(total) - 0.5 * error[:, None] ** 2 / total
    log -= log.max(axis=1, keepdims=True)
    weight = np.exp(log)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def estimate_population(
    error: Floats, mpe: Floats, *, standard_uncertainty: Floats, rounds: int = 30
) -> Population:
    """Return the mixture that fits the city, by expectation-maximisation with weak priors.

    Connectors without an estimate (NaN or infinite u) are left out. A connector counts by how much
    more is known of it than the bulk is wide, so that ignorance does not widen the bulk.
    """
    known = np.isfinite(error) & np.isfinite(standard_uncertainty)
    # Three numbers don't need a whole city: every k-th connector tells them as well.
    step = max(1, int(known.sum()) // POPULATION_SAMPLE)
    x = (error[known] / mpe[known])[::step]
    u2 = ((standard_uncertainty[known] / mpe[known]) ** 2)[::step]
    share, spread = SHARE_START.copy(), PART_SPREAD_START.copy()
    if x.size == 0:
        return Population(share, spread)
    one = np.ones_like(x)
    for _ in range(rounds):
        weight = responsibilities(
            x, one, standard_uncertainty=np.sqrt(u2), population=Population(share, spread)
        )
        informed = spread[1] ** 2 / (spread[1] ** 2 + u2)
        counts = (weight * informed[:, None]).sum(axis=0) + SHARE_COUNTS
        share = counts / counts.sum()
        bulk2 = spread[0] ** 2
        gain = bulk2 / (bulk2 + u2)
        second = (gain * x) ** 2 + gain * u2
        mass = weight[:, 0]
        bulk2 = (float(mass @ second) + PART_SPREAD_COUNTS * PART_SPREAD_START[0] ** 2) / (
            float(mass.sum()) + PART_SPREAD_COUNTS
        )
        spread[0] = np.clip(np.sqrt(bulk2), *SPREAD_RANGE)
    return Population(share, spread)


def p_outside(error: ArrayLike, mpe: ArrayLike, *, standard_uncertainty: ArrayLike) -> Floats:
    """Return the probability that the true relative error lies outside +-MPE, normal posterior.

    Args:
        error: relative error, fraction, shape (n,) or ().
        mpe: maximum permissible error, fraction > 0.
        standard_uncertainty: u > 0, fraction.

    Returns: probability in [0, 1]; NaN in, NaN out.
    Raises: ValueError if an MPE or u is not positive.
    Equation: p = Phi((-MPE - e) / u) + Phi((e - MPE) / u).
    Source: JCGM 106:2012, clause 7.
    """
    e, limit, u = (np.asarray(x, dtype=np.float64) for x in (error, mpe, standard_uncertainty))
    if np.any(limit <= 0) or np.any(u <= 0):
        raise ValueError("MPE and standard uncertainty must be positive")
    # Sum both tails: 1 - p loses all digits when p is near 1.
    return np.asarray(ndtr((-limit - e) / u) + ndtr((e - limit) / u))


def posterior_parts(
    error: Floats, mpe: Floats, *, standard_uncertainty: Floats, population: Population
) -> tuple[Floats, Floats, Floats]:
    """Return weights, means and standard deviations of the posterior's normals, shapes (n, 3).

    Arguments and equation as of `p_nonconforming`, all of them known.
    """
    weight = responsibilities(
        error, mpe, standard_uncertainty=standard_uncertainty, population=population
    )
    prior2 = (population.spread * mpe[:, None]) ** 2
    u2 = standard_uncertainty[:, None] ** 2
    gain = prior2 / (prior2 + u2)
    return weight, gain * error[:, None], np.sqrt(gain * u2)


def p_nonconforming(
    error: Floats, mpe: Floats, *, standard_uncertainty: Floats, population: Population
) -> Floats:
    """Return the probability that the true relative error lies outside +-MPE.

    Args:
        error: relative error by the connector's own evidence, shape (n,).
        mpe: shape (n,), > 0.
        standard_uncertainty: u > 0, shape (n,).
        population: prior of the city.

    Returns: shape (n,); NaN where error, MPE or u is NaN or u is infinite.
    Equation: sum over the parts j of w_j p(m_j, s_j), w_j ~ share_j N(e; 0, u^2 + s_j0^2), m_j =
    e s_j0^2 / (s_j0^2 + u^2), s_j^2 = s_j0^2 u^2 / (s_j0^2 + u^2), p as in `p_outside`.
    Source: JCGM 106:2012, clauses 6 and 7 and annex with prior knowledge.
    """
    known = np.isfinite(error) & np.isfinite(standard_uncertainty) & (mpe > 0)
    out = np.full(error.shape, np.nan)
    if not known.any():
        return out
    e, limit, u = error[known], mpe[known], np.maximum(standard_uncertainty[known], 1e-9)
    weight, mean, spread = posterior_parts(e, limit, standard_uncertainty=u, population=population)
    outside = p_outside(mean, limit[:, None], standard_uncertainty=spread)
    out[known] = np.clip((weight * outside).sum(axis=1), 0.0, 1.0)
    return out


def expected_excess(
    error: Floats, mpe: Floats, *, standard_uncertainty: Floats, population: Population
) -> Floats:
    """Return E[max(0, eps - MPE)], shape (n,), a fraction; NaN in, NaN out.

    Too much is what counts: who indicates too little takes nothing from drivers.

    Equation: for one normal N(m, s^2): s [phi(a) - a Phi(-a)] with a = (MPE - m) / s; then the
    mean over the parts of the mixture.
    """
    known = np.isfinite(error) & np.isfinite(standard_uncertainty) & (mpe > 0)
    out = np.full(error.shape, np.nan)
    if not known.any():
        return out
    e, limit, u = error[known], mpe[known], np.maximum(standard_uncertainty[known], 1e-9)
    weight, mean, spread = posterior_parts(e, limit, standard_uncertainty=u, population=population)
    beyond = expected_positive(mean - limit[:, None], spread)
    out[known] = (weight * beyond).sum(axis=1)
    return out


def expected_positive(mean: Floats, spread: Floats) -> Floats:
    """Return E[max(0, x)] of normals, of any shape; spread > 0.

    Equation: s [phi(a) - a Phi(-a)] with a = -m / s.
    """
    a = -mean / spread
    density = np.exp(-0.5 * a**2) / np.sqrt(2.0 * np.pi)
    return np.asarray(np.maximum(spread * (density - a * ndtr(-a)), 0.0))


def prior_precision(
    error: Floats, mpe: Floats, *, standard_uncertainty: Floats, population: Population
) -> Floats:
    """Return E[1 / s_j^2] over the parts of the mixture, fraction^-2, shape (n,).

    With it a normal prior stands in for the mixture in the joint estimate: an offender is held
    by a wide one, a good connector by the bulk. Connectors without estimate get the bulk.
    """
    known = np.isfinite(error) & np.isfinite(standard_uncertainty)
    e = np.where(known, error, 0.0)
    u = np.where(known, np.minimum(standard_uncertainty, 10.0), 10.0)
    weight = responsibilities(e, mpe, standard_uncertainty=u, population=population)
    return np.asarray((weight / (population.spread * mpe[:, None]) ** 2).sum(axis=1))

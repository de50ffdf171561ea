"""What a field test would settle, before it is made: preposterior analysis of one more measurement.

A test of standard uncertainty u_ref has not been made; what it would show is distributed as the
error itself is, by all that is known now, and the test's own error. For each result the posterior
follows, and so the mean over all results of what would be left undecided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.special import ndtri

from chargewatch.domain.arrays import Floats
from chargewatch.risk.decision import Population, p_nonconforming, responsibilities
from chargewatch.risk.priors import PART_SPREAD_START, SHARE_START
from chargewatch.risk.results import EngineConfig

NODES = 41
"""Equally likely results of each part of the prior that the mean is taken over."""
PILES_AT_ONCE = 2_000
LEAST_P = 1e-9


@dataclass(frozen=True, kw_only=True)
class FieldTestOutcome:
    """What one more measurement would do, arrays of shape (n,)."""

    u_after: Floats  # standard uncertainty of own evidence and test together
    doubt_after: Floats  # mean of min(p, 1 - p)
    shown_nonconforming: Floats  # probability that p is then at least the verdict's limit
    shown_conforming: Floats  # probability that p is then at most the verdict's limit


def population_of(summary: Mapping[str, Any] | None) -> Population:
    """Return the prior of a run's city from its summary; the wide parts share as they began."""
    share, spread = SHARE_START.copy(), PART_SPREAD_START.copy()
    bulk = (summary or {}).get("population_bulk_share")
    width = (summary or {}).get("population_bulk_spread_mpe")
    if bulk is not None and width is not None:
        share[1:] *= (1.0 - bulk) / share[1:].sum()
        share[0] = bulk
        spread[0] = width
    return Population(share, spread)


@cache
def _nodes() -> Floats:
    return np.asarray(ndtri((np.arange(NODES) + 0.5) / NODES))


def settled_by(
    error: Floats,
    mpe: Floats,
    *,
    standard_uncertainty: Floats,
    p: Floats,
    u_test: Floats,
    population: Population,
) -> FieldTestOutcome:
    """Return what a measurement of each connector would settle.

    Args:
        error: relative error by the connector's own evidence, shape (n,).
        mpe: maximum permissible error, fraction > 0, shape (n,).
        standard_uncertainty: of the error, fraction > 0, shape (n,).
        p: probability now that the true error lies outside +-MPE, shape (n,).
        u_test: standard uncertainty of the measurement, fraction > 0; infinite: none is made.
        population: prior of the city's errors.

    Returns: arrays of shape (n,).
    Equation: own evidence N(e, u^2) and result y ~ sum_j w_j N(m_j, s_j^2 + u_test^2) make e' =
    (e / u^2 + y / u_test^2) u'^2, 1 / u'^2 = 1 / u^2 + 1 / u_test^2. p' follows from e', u' and the
    prior; its odds are multiplied by those of p against what prior and evidence say, so that its
    mean is p. The mean is over 41 equally likely y of each part.
    """
    out = [np.empty(error.shape) for _ in range(4)]
    for first in range(0, error.size, PILES_AT_ONCE):
        part = slice(first, first + PILES_AT_ONCE)
        found = _settled(
            error[part],
            mpe[part],
            u=standard_uncertainty[part],
            p=p[part],
            u_test=u_test[part],
            population=population,
        )
        for whole, piece in zip(out, found, strict=True):
            whole[part] = piece
    return FieldTestOutcome(
        u_after=out[0], doubt_after=out[1], shown_nonconforming=out[2], shown_conforming=out[3]
    )


def _settled(
    error: Floats, mpe: Floats, *, u: Floats, p: Floats, u_test: Floats, population: Population
) -> tuple[Floats, Floats, Floats, Floats]:
    config = EngineConfig()
    # Who is not measured learns nothing: a test as wide as 10^4 u says as little.
    test = np.minimum(u_test, 1e4 * u)
    weight = responsibilities(error, mpe, standard_uncertainty=u, population=population)
    prior2 = (population.spread * mpe[:, None]) ** 2
    gain = prior2 / (prior2 + u[:, None] ** 2)
    mean, spread2 = gain * error[:, None], gain * u[:, None] ** 2
    wide = np.sqrt(spread2 + test[:, None] ** 2)
    y = (mean[:, :, None] + wide[:, :, None] * _nodes()).reshape(error.size, -1)
    chance = np.repeat(weight / NODES, NODES, axis=1)
    u_after = 1.0 / np.sqrt(1.0 / u**2 + 1.0 / test**2)
    after = (error / u**2)[:, None] + y / test[:, None] ** 2
    after *= u_after[:, None] ** 2
    count = y.shape[1]
    p_after = p_nonconforming(
        after.ravel(),
        np.repeat(mpe, count),
        standard_uncertainty=np.repeat(u_after, count),
        population=population,
    ).reshape(y.shape)
    # Of what the run knew beyond prior and evidence only the odds are known.
    modelled = np.clip((chance * p_after).sum(axis=1), LEAST_P, 1 - LEAST_P)
    known = np.clip(p, LEAST_P, 1 - LEAST_P)
    outside = (known / modelled)[:, None] * p_after
    inside = ((1 - known) / (1 - modelled))[:, None] * (1 - p_after)
    chance = chance * (outside + inside)
    p_after = outside / (outside + inside)
    return (
        u_after,
        (chance * np.minimum(p_after, 1 - p_after)).sum(axis=1),
        (chance * (p_after >= config.p_nonconforming)).sum(axis=1),
        (chance * (p_after <= config.p_conforming)).sum(axis=1),
    )


def common_variance(common: Floats, own2: Floats, *, u_ref: float, tested: Floats) -> float:
    """Return what is left of the variance of what a station's piles share, 1 before any test.

    Args:
        common: standard uncertainty that each pile shares with the station, shape (n,).
        own2: variance of the rest, shape (n,), > 0.
        u_ref: standard uncertainty of the reference, which all tests share.
        tested: 1 for who is tested, else 0, shape (n,).

    Equation: each test compares the estimate with the truth: d_i = a_i z + o_i - r, z ~ N(0, 1),
    r ~ N(0, u_ref^2), both in common; the variance of z given all d_i.
    """
    zz = 1.0 + float((tested * common**2 / own2).sum())
    rr = 1.0 / u_ref**2 + float((tested / own2).sum())
    zr = float((tested * common / own2).sum())
    return rr / (zz * rr - zr**2)

"""Spreads that only a second witness of a connector shows: of cables, and since verification.

Verifications differ from what all else says of their connectors by more than both uncertainties:
errors wander since, and vehicles see a connector's cable with its meter. Few connectors
are verified, so each spread is believed in the light of its prior and of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RectBivariateSpline
from scipy.special import logsumexp

from chargewatch.domain.arrays import Floats, Ints, sum_by_row
from chargewatch.risk.estimator import CityEstimate, CitySystem
from chargewatch.risk.priors import (
    SITE_FACTOR,
    SITE_SPREAD_START,
    TAMPERED_SHARE,
    TAMPERED_SPREAD,
    WANDER_FACTOR,
    WANDER_RANGE,
)
from chargewatch.risk.vehicles import session_score
from chargewatch.risk.verifications import Stated, without

LEAST_LEFT = 0.2
"""Share of what is known of a connector that must be left to compare a verification with."""
SESSIONS_U, SERIES_U = 0.003, 0.004
"""Uncertainties up to which sessions are compared with a meter in series."""
MOST_COMPARED = 4000
"""Comparisons of a side that are weighed, evenly spaced: they tell a spread to 1 or 2 %."""
SITE_FACTORS = np.linspace(-3.0, 3.0, 13)
"""Spreads of sites that are thought of, in standard deviations of the prior's logarithm."""
COARSE, FINE = 21, 8


@dataclass(frozen=True, kw_only=True)
class Witnessed:
    """Differences between two witnesses of a connector, shape (d,)."""

    away: Floats
    known: Floats  # its variance without what is looked for
    shared: Floats  # factor on s^2 of cables in it
    grown: Floats  # factor on the wander's variance in it
    side: Ints

    def of_side(self, side: int) -> Witnessed:
        """Return those of one side, at most `MOST_COMPARED`."""
        mine = np.flatnonzero(self.side == side)
        if mine.size > MOST_COMPARED:
            mine = mine[np.linspace(0, mine.size - 1, MOST_COMPARED).astype(np.int64)]
        return Witnessed(**{name: values[mine] for name, values in vars(self).items()})


def witnessed(
    system: CitySystem,
    estimate: CityEstimate,
    kinds: Floats,
    *,
    stated: Stated,
    site: Floats,
    side: Ints,
) -> Witnessed:
    """Return verifications beside all else, and sessions beside meters in series.

    A verification's own statement is divided out of the posterior. Of what is left with precision P
    sessions are the share k = own / P, so that a cable's variance s^2 L^2 is in it k^2 times.

    Args:
        system: the evidence of the round.
        estimate: of the round.
        kinds: c_k and kappa.
        stated: verifications that count.
        site: spreads that the evidence was weighted with, AC and DC.
        side: 1 on DC, shape (n,).
    """
    n = side.size
    own, told = system.graph.own[:n], stated.among(n)
    who = told.connector
    variance = estimate.variance[who]
    other = without(estimate.error[who], variance, mean=told.value, precision=told.precision)
    use = other.variance < variance / LEAST_LEFT
    who, value, rest = who[use], told.value[use], other.mean[use]
    rest_variance = other.variance[use]
    share2 = np.minimum(own[who] * rest_variance, 1.0) ** 2

    anchor_p = sum_by_row(told.connector, told.precision, size=n)
    anchor_s = sum_by_row(told.connector, told.precision * told.value, size=n)
    series = system.direct_precision[:n] - anchor_p
    both = np.flatnonzero((own > SESSIONS_U**-2) & (series > SERIES_U**-2))
    meter = (system.direct_score[:n] - anchor_s)[both] / series[both]
    sessions = session_score(system.graph, estimate.error, level=kinds)[both] / own[both]

    place = np.concatenate([who, both])
    shared = np.concatenate([share2, np.ones(both.size)]) * system.graph.mean_load[place] ** 2
    one = np.concatenate([told.certificate[use], 1.0 / series[both]])
    # The cables' part is in the other one already, as it was assumed before.
    second = np.concatenate([rest_variance, 1.0 / own[both]]) - shared * site[side[place]] ** 2
    return Witnessed(
        away=np.concatenate([value - rest, sessions - meter]),
        known=one + np.maximum(second, 0.0),
        shared=shared,
        grown=np.concatenate([told.grown[use], np.zeros(both.size)]),
        side=side[place],
    )


def site_and_wander(found: Witnessed, *, expected: float) -> tuple[Floats, float]:
    """Return the spread of sites, AC and DC (2,), and q, the wander in a verification's first year.

    Equation: posterior means of ln s_AC, ln s_DC and ln q with the likelihood prod [0.95 N(d; 0, v)
    + 0.05 N(d; 0, v + (3 %)^2)], v = known + s^2 k^2 L^2 + q^2 w, each normal a priori around where
    it starts. The wide part keeps meters that were tampered with since from making the others look
    unsteady. A mean and no maximum: between rounds it moves as little as the evidence.

    Args:
        found: the comparisons.
        expected: the configured q.
    """
    if found.away.size == 0:
        return SITE_SPREAD_START.copy(), expected
    least, largest = np.log(WANDER_RANGE)
    steps = np.linspace(least, largest, COARSE)
    fine_q, fine_s = _between(steps), _between(SITE_FACTORS)
    prior_q = -0.5 * ((fine_q - np.log(expected)) / np.log(WANDER_FACTOR)) ** 2
    joint = [
        _log_likelihood(found.of_side(k), SITE_SPREAD_START[k], steps, fine=(fine_s, fine_q))
        - 0.5 * fine_s[:, None] ** 2
        for k in range(2)
    ]
    alone = [logsumexp(one, axis=0) for one in joint]
    by_q = prior_q + alone[0] + alone[1]
    site = SITE_SPREAD_START.copy()
    for k in range(2):
        by_s = logsumexp(joint[k] + prior_q + alone[1 - k], axis=1)
        site[k] *= SITE_FACTOR ** _mean(fine_s, by_s)
    return site, float(np.exp(_mean(fine_q, by_q)))


def _between(steps: Floats) -> Floats:
    """Return the steps with `FINE` places for each between two."""
    first, last = float(steps[0]), float(steps[-1])
    return np.linspace(first, last, (steps.size - 1) * FINE + 1)


def _mean(values: Floats, log_weight: Floats) -> float:
    weight = np.exp(log_weight - log_weight.max())
    return float((weight * values).sum() / weight.sum())


def _log_likelihood(
    found: Witnessed, start: float, steps: Floats, *, fine: tuple[Floats, Floats]
) -> Floats:
    """Return it over the spread of sites and ln q, from a coarse grid by a spline."""
    if found.away.size == 0:
        return np.zeros((fine[0].size, fine[1].size))
    log = np.empty((SITE_FACTORS.size, steps.size))
    away2, q2 = found.away**2, np.exp(2.0 * steps)
    for row, factor in enumerate(SITE_FACTORS):
        fixed = found.known + (start * SITE_FACTOR**factor) ** 2 * found.shared
        near = fixed + q2[:, None] * found.grown
        wide = near + TAMPERED_SPREAD**2
        good = np.log(1.0 - TAMPERED_SHARE) - 0.5 * (np.log(near) + away2 / near)
        bad = np.log(TAMPERED_SHARE) - 0.5 * (np.log(wide) + away2 / wide)
        log[row] = np.logaddexp(good, bad).sum(axis=1)
    return np.asarray(RectBivariateSpline(SITE_FACTORS, steps, log)(*fine))

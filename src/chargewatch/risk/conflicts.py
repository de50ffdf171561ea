"""Evidence of one connector that contradicts the rest of it.

The estimate is a weighted mean, and its uncertainty supposes that its parts belong together. Where
the vehicles, the feeder's meter or a verification say something else than all the others, by more
than three standard deviations of the difference, one of them is wrong, and it need not be the one
with the widest uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, by_row, sum_by_row
from chargewatch.risk.estimator import CityEstimate
from chargewatch.risk.evidence import Judgement, Pasts, Weighted, age_weights
from chargewatch.risk.rounds_input import RoundsInput
from chargewatch.risk.spreads import site_variance
from chargewatch.risk.vehicles import LEVELS, session_coupling, session_score
from chargewatch.risk.verifications import Said, said, together

WITNESSES = ("vehicles", "verification", "feeder", "series")
CONFLICT_Z = 3.0
"""Standard deviations by which a witness must disagree with all others."""
LEAST_TOLD = 1e-9
"""Share of what is known of a pile below which its feeder says nothing of it."""


@dataclass(frozen=True, kw_only=True)
class Disagreements:
    """The witness of each connector that disagrees most with all others; shape (n,)."""

    z: Floats  # the difference in its standard deviations, 0 where nothing can be compared
    witness: Ints  # place in `WITNESSES`
    said: Floats  # relative error by the witness
    said_u: Floats
    rest: Floats  # relative error by all others
    rest_u: Floats

    @property
    def found(self) -> Bools:
        """Connectors whose evidence contradicts itself."""
        return np.asarray(self.z > CONFLICT_Z)


def said_by_sessions(
    city: RoundsInput, known: Judgement, evidence: Weighted, estimate: CityEstimate, pasts: Pasts
) -> Said:
    """Return what the sessions since a change say of each connector, its vehicles judged elsewhere.

    Their weights are robust beside one another and not beside the estimate, which would find all of
    them garbage where they disagree with it. What sessions of one vehicle share is in them once,
    what they all share (`Spreads.site`, the levels) too.
    """
    n, rows, told = city.size, city.statistics.sessions, known.in_time
    if told is None:
        return Said(mean=np.full(n, np.nan), variance=np.full(n, np.inf))
    base = evidence.base * known.weights.inflation[rows.kind]
    weight = told.weight / base * age_weights(city, pasts.connector, size=n + pasts.of.size)
    weight = np.where(pasts.connector < n, weight, 0.0)
    pairs = city.pairs
    size = pairs.row_node.size
    p = sum_by_row(pairs.pair, weight, size=size)
    scores = sum_by_row(pairs.pair, weight * told.own, size=size)
    vehicle = sum_by_row(pairs.pair, weight * (told.variance - evidence.base), size=size)
    # 1 / (1 / p + variance of the vehicle's scale), and with it p x the mean.
    share = 1.0 / (1.0 + vehicle)
    who = np.repeat(np.arange(n), np.diff(pairs.row_begin))
    total = sum_by_row(who, p * share, size=n)
    seen = (total > 0) & (known.changes.slope_variance <= 0)
    safe = np.where(seen, total, 1.0)
    site = site_variance(known.spreads.site[city.side], evidence.graph.mean_load[:n])
    variance = 1.0 / safe + site + _shared(evidence, estimate, n)
    return Said(
        mean=np.where(seen, sum_by_row(who, scores * share, size=n) / safe, np.nan),
        variance=np.where(seen, variance, np.inf),
    )


def _shared(evidence: Weighted, estimate: CityEstimate, n: int) -> Floats:
    """Return the variance that the sessions' levels bring to what they say, shape (n,)."""
    own = evidence.graph.own[:n]
    coupling = session_coupling(evidence.graph)[0][:n] / np.where(own > 0, own, np.inf)[:, None]
    covariance = estimate.level_covariance[-LEVELS:, -LEVELS:]
    return np.asarray((by_row(coupling, covariance) * coupling).sum(axis=1))


def said_by_feeders(
    city: RoundsInput, evidence: Weighted, estimate: CityEstimate, *, prior_precision: Floats
) -> Said:
    """Return what feeders say of each connector, their other piles held by what else is known.

    Equation: with o what else is known of the feeder's piles, C = (Q + diag o)^-1; then a pile's
    own part is divided out again, 1 / V = 1 / C_ii - o_i. The reference meter's bias is in Q, the
    efficiency's mean in V.
    """
    n = city.size
    out = Said(mean=np.full(n, np.nan), variance=np.full(n, np.inf))
    first, last = city.models, estimate.level.size - LEVELS
    mu, mu_variance = (
        x[first:last] for x in (estimate.level, np.diagonal(estimate.level_covariance))
    )
    own = np.maximum(evidence.graph.own[:n], 0.0) + evidence.system.direct_precision[:n]
    score = session_score(evidence.graph, estimate.error, level=estimate.level[-LEVELS:])[:n]
    score = score + evidence.system.direct_score[:n]
    own = own + prior_precision
    score = score + prior_precision * estimate.level[city.model]
    for feeder in evidence.system.feeders:
        known = feeder.member >= 0
        member = np.where(known, feeder.member, 0)
        lossy = feeder.converter >= 0
        level = np.where(lossy, mu[feeder.converter], 0.0)
        held = np.where(known, own[member], 1.0)
        full = feeder.precision.copy()
        index = np.arange(full.shape[1])
        full[:, index, index] += held
        right = feeder.score - (feeder.precision @ level[..., None])[..., 0]
        right = right + np.where(known, score[member], 0.0)
        covariance = np.linalg.inv(full)
        marginal = covariance[:, index, index]
        left = 1.0 / marginal - held
        told = known & (left > LEAST_TOLD * held)
        safe = np.where(told, left, 1.0)
        mean = ((covariance @ right[..., None])[..., 0] / marginal - score[member]) / safe
        variance = 1.0 / safe + np.where(lossy, mu_variance[feeder.converter], 0.0)
        out.mean[member[told]], out.variance[member[told]] = mean[told], variance[told]
    return out


def conflicts(
    city: RoundsInput, known: Judgement, evidence: Weighted, estimate: CityEstimate, pasts: Pasts
) -> Disagreements:
    """Return which witness of each connector disagrees most with all its others.

    Each counts with all its weight, however little of it was believed.

    Args:
        city: what stays the same over the rounds.
        known: the last judgement.
        evidence: as it was solved, pasts included.
        estimate: the solution, pasts included.
        pasts: connectors before their steps.
    """
    n = city.size
    stated = evidence.stated.among(n)
    direct, direct_score = evidence.system.direct_precision[:n], evidence.system.direct_score[:n]
    believed = sum_by_row(stated.connector, stated.precision, size=n)
    told = sum_by_row(stated.connector, stated.precision * stated.value, size=n)
    full = 1.0 / stated.variance
    prior = known.prior_precision
    witnesses = (
        said_by_sessions(city, known, evidence, estimate, pasts),
        said(
            sum_by_row(stated.connector, full * stated.value, size=n),
            sum_by_row(stated.connector, full, size=n),
        ),
        said_by_feeders(city, evidence, estimate, prior_precision=prior),
        said(direct_score - told, np.where(city.direct_precision > 0, direct - believed, 0.0)),
    )
    rest = [together([one for one in witnesses if one is not each]) for each in witnesses]
    z = np.stack([_apart(one, other) for one, other in zip(witnesses, rest, strict=True)])
    witness = z.argmax(axis=0)

    def of_worst(values: list[Floats]) -> Floats:
        return np.asarray(np.stack(values)[witness, np.arange(n)])

    one, other = of_worst([x.mean for x in witnesses]), of_worst([x.mean for x in rest])
    one_u, other_u = (np.sqrt(of_worst([x.variance for x in all_])) for all_ in (witnesses, rest))
    return Disagreements(
        z=of_worst(list(z)),
        witness=witness,
        said=np.expm1(one),
        said_u=np.exp(one) * one_u,
        rest=np.expm1(other),
        rest_u=np.exp(other) * other_u,
    )


def _apart(one: Said, other: Said) -> Floats:
    """Return how many standard deviations lie between two statements, 0 where one is none."""
    variance = one.variance + other.variance
    both = np.isfinite(variance)
    away = np.where(both, one.mean - other.mean, 0.0)
    return np.asarray(np.abs(away) / np.sqrt(np.where(both, variance, 1.0)))

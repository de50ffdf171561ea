"""From a feeder's sufficient statistics to Gaussian statements on its connectors' errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.risk.feeders.balance import FeederStatistics
from chargewatch.risk.feeders.blocks import Group
from chargewatch.risk.feeders.nuisances import (
    nuisance_prior,
    prior_gain,
)
from chargewatch.risk.priors import (
    AC_EFFICIENCY,
    AC_SPREAD,
    DC_EFFICIENCY,
    LEAK,
    SUSPECT_U,
    WEAK_PRIOR,
)
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import Fleet

SUSPECT_ODDS = 20.0
SHIFT_GRID = np.arange(-60, 61) * 0.002


@dataclass(frozen=True, kw_only=True)
class FeederView:
    """A group's feeders at a linearisation point; b feeders of padded size q.

    With Lambda = precision, the log likelihood of z is -1/2 z' Lambda z + z' information, before
    the reference meter's own uncertainty.
    """

    group: Group
    precision: Floats  # (b, q, q)
    information: Floats  # (b, q)
    soft_precision: Floats  # (b, q, q), the same with the spread of efficiencies
    soft_information: Floats  # (b, q)
    spread: Floats  # (b, q), tau
    converter: Ints  # (b, q), class for mu or -1
    z: Floats  # (b, q), linearisation point


def effective_rows(statistics: FeederStatistics) -> Floats:
    """Return sum f / sum f^2 per feeder: what forgetting makes of the weights' scale.

    Days weigh f in the estimate, so its variance is sum f^2 I / (sum f I)^2 and not 1 / sum f I.
    """
    squared = statistics.weight_squared
    return np.where(squared > 0, statistics.weight / np.where(squared > 0, squared, 1.0), 1.0)


def converter_classes(fleet: Fleet, *, limit: int = 6) -> Ints:
    """Return the class of converter of each connector's model, shape (n,).

    The ``limit`` most frequent DC models have one each, the rest share one; class 0 is AC: what
    contactors and wiring of an AC pile lose before its meter.
    """
    out = np.zeros(fleet.size, dtype=np.int64)
    models, row, count = np.unique(
        fleet.model[fleet.is_dc], return_inverse=True, return_counts=True
    )
    rank = np.empty(models.size, dtype=np.int64)
    rank[np.argsort(-count, kind="stable")] = np.arange(models.size)
    out[fleet.is_dc] = 1 + np.minimum(rank[row], limit)
    return out


def converter_prior(classes: int) -> tuple[Floats, Floats]:
    """Return prior mean and precision of each class's log efficiency, shape (classes,)."""
    mean = np.full(classes, np.log(DC_EFFICIENCY.mean))
    u = np.full(classes, DC_EFFICIENCY.u / DC_EFFICIENCY.mean)
    mean[0], u[0] = np.log(AC_EFFICIENCY.mean), AC_EFFICIENCY.u
    return mean, u**-2.0


def first_gains(group: Group, statistics: FeederStatistics, fleet: Fleet) -> Floats:
    """Return the feeder's own estimate of z with a weak prior, shape (b, q)."""
    q = group.size
    mean, precision = nuisance_prior(group)
    start = np.broadcast_to(mean, statistics.vector.shape).copy()
    start[:, :q] = prior_gain(group, fleet)
    ridge = precision.copy()
    ridge[:q] = WEAK_PRIOR**-2.0
    full = statistics.matrix.copy()
    index = np.arange(full.shape[1])
    full[:, index, index] += ridge
    scale = 1.0 / np.sqrt(full[:, index, index])
    right = (statistics.vector + ridge * start) * scale
    gain = np.linalg.solve(full * scale[:, :, None] * scale[:, None, :], right[..., None])[..., 0]
    return np.asarray(-np.log(np.clip((gain * scale)[:, :q], 0.5, 2.0)))


@dataclass(frozen=True, kw_only=True)
class GainStatement:
    """A group's feeders on the gains g alone: -1/2 g' precision g + g' information."""

    group: Group
    precision: Floats  # (b, q, q)
    information: Floats  # (b, q)

    def less_sure(self, share: Floats) -> GainStatement:
        """Return the statement with a share of its information, shape (b,)."""
        return GainStatement(
            group=self.group,
            precision=self.precision * share[:, None, None],
            information=self.information * share[:, None],
        )


def gain_statement(group: Group, statistics: FeederStatistics) -> GainStatement:
    """Return the feeders' statements on the gains; the nuisances leave with their priors."""
    q = group.size
    mean, precision = nuisance_prior(group)
    scale = effective_rows(statistics)
    matrix = statistics.matrix * scale[:, None, None]
    vector = statistics.vector * scale[:, None]
    own = matrix[:, q:, q:].copy()
    index = np.arange(own.shape[1])
    own[:, index, index] += precision[q:]
    size = 1.0 / np.sqrt(own[:, index, index])
    own_scaled = own * size[:, :, None] * size[:, None, :]
    coupling = matrix[:, :q, q:] * size[:, None, :]
    right = (vector[:, q:] + precision[q:] * mean[q:]) * size
    solved = np.linalg.solve(
        own_scaled, np.concatenate([coupling.transpose(0, 2, 1), right[..., None]], axis=2)
    )
    reduced = matrix[:, :q, :q] - coupling @ solved[..., :-1]
    return GainStatement(
        group=group,
        precision=0.5 * (reduced + reduced.transpose(0, 2, 1)),
        information=vector[:, :q] - (coupling @ solved[..., -1:])[..., 0],
    )


def with_changed(
    statement: GainStatement, *, z: Floats, precision: Floats, changed: Bools
) -> GainStatement:
    """Return the statement with what is older than a connector's change left out.

    A changed connector's gain is integrated out of the statement, which holds both its errors, and
    what its meter said since the change is put in its place.

    Args:
        statement: of a group's feeders.
        z: since the change, shape (n,).
        precision: 1 / variance of z, 0 without data, shape (n,).
        changed: shape (n,).
    """
    member = statement.group.member
    here = (member >= 0) & changed[member]
    if not here.any():
        return statement
    matrix, vector = statement.precision.copy(), statement.information.copy()
    for k in np.flatnonzero(here.any(axis=0)):
        b = np.flatnonzero(here[:, k] & (matrix[:, k, k] > 0))
        column = matrix[b, :, k].copy()
        pivot = column[:, k].copy()
        matrix[b] -= column[:, :, None] * column[:, None, :] / pivot[:, None, None]
        vector[b] -= column * (vector[b, k] / pivot)[:, None]
        matrix[b, k, :], matrix[b, :, k], vector[b, k] = 0.0, 0.0, 0.0
        b = np.flatnonzero(here[:, k])
        gain = np.exp(-z[member[b, k]])
        own = precision[member[b, k]] / gain**2
        matrix[b, k, k] += own
        vector[b, k] += own * gain
    return GainStatement(group=statement.group, precision=matrix, information=vector)


def leaks(statement: GainStatement, *, size: Floats) -> Floats:
    """Return the variance that changes of errors bring to the other piles of a feeder, (b, q).

    One gain stands for a connector before and after its change, so what is left, + size before
    and - size after it, is put down to whoever charged along, as far as they did so more often
    before than after. Equation: LEAK^2 sum_k (size_k Lambda_jk / Lambda_jj)^2.

    Args:
        statement: of a group's feeders, with all that was before the changes in it.
        size: of each connector's change, 0 without, shape (n,).
    """
    member = statement.group.member
    moved = np.where(member >= 0, size[member], 0.0)
    index = np.arange(member.shape[1])
    own = statement.precision[:, index, index]
    coupled = (statement.precision**2) * (moved**2)[:, None, :]
    coupled[:, index, index] = 0.0
    return np.asarray(LEAK**2 * coupled.sum(axis=2) / np.where(own > 0, own, 1.0) ** 2)


def feeder_view(
    statement: GainStatement, *, z: Floats, spread: Floats, classes: Ints, leak: Floats
) -> FeederView:
    """Return the feeders' statements on z, linearised.

    Args:
        statement: on the gains.
        z: linearisation point, shape (b, q).
        spread: tau by connector, shape (n,).
        classes: of the converter, shape (n,).
        leak: variance from changes of the feeder's other piles, shape (b, q).

    Equation: R is linear in g = exp(-z), g = g* - g* (z - z*), so Lambda_z = G Lambda_g G and the
    gradient at z* is -G (eta - Lambda_g g*).
    """
    group = statement.group
    known = group.member >= 0
    gain = np.where(known, np.exp(-z), 1.0)
    lam = statement.precision * gain[:, :, None] * gain[:, None, :]
    predicted = (statement.precision @ gain[..., None])[..., 0]
    gradient = -gain * (statement.information - predicted)
    information = (lam @ np.where(known, z, 0.0)[..., None])[..., 0] + gradient
    crossing = known & ~group.same_side
    wide = np.where(crossing, spread[group.member], np.where(known, AC_SPREAD, 0.0))
    wide = np.sqrt(wide**2 + leak)
    soft, soft_information = with_spread(lam, information, spread=wide)
    # A DC meter above DC piles sees no converter; every AC pile has some loss of its own.
    dc = known & (classes[group.member] > 0)
    return FeederView(
        group=group,
        precision=lam,
        information=information,
        soft_precision=soft,
        soft_information=soft_information,
        spread=wide,
        converter=np.where(known & (crossing | ~dc), classes[group.member], -1),
        z=z,
    )


def with_spread(precision: Floats, information: Floats, *, spread: Floats) -> tuple[Floats, Floats]:
    """Return precision and information on gamma + mu - b, each pile's efficiency integrated out.

    Equation: (Lambda^-1 + T)^-1 = (I + Lambda T)^-1 Lambda, T = diag(spread^2), which needs no
    inverse of a singular Lambda.
    """
    wide = np.eye(precision.shape[1]) + precision * spread[:, None, :] ** 2
    both = np.concatenate([precision, information[..., None]], axis=2)
    solved = np.linalg.solve(wide, both)
    soft = 0.5 * (solved[..., :-1] + solved[..., :-1].transpose(0, 2, 1))
    return soft, solved[..., -1]


def with_meter(precision: Floats, information: Floats, *, u: Floats) -> tuple[Floats, Floats]:
    """Return precision and information on gamma + mu, the meter's bias b ~ N(0, u^2) integrated.

    Equation: Sherman-Morrison, Q = Lambda - c (Lambda 1)(Lambda 1)' with
    c = u^2 / (1 + u^2 1'Lambda 1).
    """
    column = precision.sum(axis=2)
    factor = u**2 / (1.0 + u**2 * column.sum(axis=1))
    q = precision - factor[:, None, None] * column[:, :, None] * column[:, None, :]
    return q, information - (factor * information.sum(axis=1))[:, None] * column


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What is known of each connector without its feeder: N(mean, 1 / precision), shape (n,)."""

    mean: Floats
    precision: Floats


@dataclass(frozen=True, kw_only=True)
class MeterFindings:
    """Shift of each feeder's reference meter; shape (b,)."""

    shift: Floats
    shift_u: Floats
    suspect: Bools


@dataclass(frozen=True, kw_only=True)
class _PilesAlone:
    """What a feeder says of each pile below it, and what is known of it outside, shape (b, q)."""

    informed: Bools
    own: Floats
    own_variance: Floats  # inf where not informed
    outside: Floats
    outside_p: Floats
    expected: Floats
    mpe: Floats


def _piles_alone(
    view: FeederView, *, outside: Outside, expected: Floats, mpe: Floats, converter_level: Floats
) -> _PilesAlone:
    """Return a feeder's own estimate of each pile, the others loosely held."""
    known = view.group.member >= 0
    member = np.where(known, view.group.member, 0)
    index = np.arange(view.group.size)
    # As in the daily estimates.
    full = view.soft_precision.copy()
    loose = np.where(known, WEAK_PRIOR**-2.0, 1.0)
    full[:, index, index] += loose
    covariance = np.linalg.inv(full)
    mu = np.where(view.converter >= 0, converter_level[view.converter], 0.0)
    centre = np.where(known, expected[member] + mu, 0.0)
    z = (covariance @ (view.soft_information + loose * centre)[..., None])[..., 0]
    marginal = covariance[:, index, index]
    left = 1.0 / marginal - loose
    informed = known & (left > 0.05 * loose)
    own_variance = np.where(informed, 1.0 / np.where(informed, left, 1.0), np.inf)
    own = np.where(informed, z / marginal - loose * centre, 0.0)
    own = own * np.where(informed, own_variance, 0.0)
    outside_p = np.where(informed, outside.precision[member], 0.0)
    return _PilesAlone(
        informed=informed,
        own=np.where(informed, own - mu, 0.0),
        own_variance=own_variance,
        outside=np.where(outside_p > 0, outside.mean[member], 0.0),
        outside_p=outside_p,
        expected=expected[member],
        mpe=mpe[member],
    )


def _log_of_shifts(piles: _PilesAlone, *, share: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Return the log density of a feeder's piles for each shift of its meter, and their means.

    Where: share and spread: of the parts of the city's mixture, the spread in MPE.
    Returns: log density, shape (b, shifts), and each pile's mean from outside if it belongs to the
    mixture's bulk, shape (b, q).
    """
    outside_p = piles.outside_p[..., None]
    part_p = (spread * piles.mpe[..., None]) ** -2.0
    joint_p = part_p + outside_p
    joint_m = (
        part_p * piles.expected[..., None] + (piles.outside_p * piles.outside)[..., None]
    ) / joint_p
    away = piles.outside[..., None] - piles.expected[..., None]
    with np.errstate(divide="ignore"):
        # Density of the outside estimate under each part, relative to the others.
        log_part = np.log(share) + 0.5 * np.log(part_p / joint_p)
    log_part = log_part - 0.5 * away**2 * part_p * outside_p / joint_p
    variance = np.where(piles.informed, piles.own_variance, 1.0)[..., None] + 1.0 / joint_p
    # One array a part of the mixture: sums over short last axes are slow.
    parts = [
        (log_part[..., j] - 0.5 * np.log(variance[..., j]), joint_m[..., j], variance[..., j])
        for j in range(variance.shape[2])
    ]
    log = np.zeros((piles.own.shape[0], SHIFT_GRID.size))
    for k, b in enumerate(SHIFT_GRID):
        terms = [base - 0.5 * (piles.own + b - mean) ** 2 / v for base, mean, v in parts]
        top = np.maximum.reduce(terms)
        value = top + np.log(np.add.reduce([np.exp(term - top) for term in terms]))
        log[:, k] = np.where(piles.informed, value, 0.0).sum(axis=1)
    return log, joint_m[..., 0]


def _log_evidence(log: Floats, spread: Floats) -> Floats:
    """Return the log of the integral over the shifts, whose prior has a spread, shape (b,)."""
    top = log.max(axis=1)
    total = np.exp(log - top[:, None]).sum(axis=1) * (SHIFT_GRID[1] - SHIFT_GRID[0])
    return np.asarray(top + np.log(total) - np.log(np.sqrt(2.0 * np.pi) * spread))


def meter_findings(
    view: FeederView,
    *,
    u: Floats,
    outside: Outside,
    expected: Floats,
    mpe: Floats,
    population_share: Floats,
    population_spread: Floats,
    converter_level: Floats,
    config: EngineConfig,
) -> MeterFindings:
    """Return for each feeder whether its reference meter rather than its piles is wrong.

    Two explanations are weighed for each feeder: the piles are what they are, each drawn from the
    city's mixture; or the meter is off by b ~ N(0, 3 %), which happens to a share
    ``config.meter_fault_prior`` of meters, and shifts all of them together. For each b on a grid
    the piles' densities multiply: each is the mixture times what is known outside the feeder
    (vehicles, verifications) at the feeder's estimate plus b. Odds above 20 make a suspect. A
    feeder with one or two piles can't be told apart this way unless vehicles say more.
    """
    piles = _piles_alone(
        view, outside=outside, expected=expected, mpe=mpe, converter_level=converter_level
    )
    log, usual = _log_of_shifts(piles, share=population_share, spread=population_spread)
    good = log + -0.5 * SHIFT_GRID**2 / np.maximum(u, 1e-3)[:, None] ** 2
    wrong = log - 0.5 * (SHIFT_GRID / SUSPECT_U) ** 2
    odds = _log_evidence(wrong, np.full(u.shape, SUSPECT_U))
    odds = odds - _log_evidence(good, np.maximum(u, 1e-3))
    odds += np.log(config.meter_fault_prior)
    best = SHIFT_GRID[np.argmax(wrong, axis=1)]
    suspect = (odds > np.log(SUSPECT_ODDS)) & (np.abs(best) > 4.0 * u)
    spread = np.where(suspect, SUSPECT_U, u)
    bulk = 1.0 / (
        np.where(piles.informed, piles.own_variance, np.inf)
        + 1.0 / (piles.outside_p + (population_spread[0] * piles.mpe) ** -2.0)
    )
    bulk = np.where(np.isfinite(bulk) & piles.informed, bulk, 0.0)
    near = np.abs(piles.own + best[:, None] * suspect[:, None] - usual) < 2.0 * piles.mpe
    bulk = np.where(near, bulk, 0.0)
    total = bulk.sum(axis=1) + spread**-2.0
    shift = (bulk * (usual - piles.own)).sum(axis=1) / total
    return MeterFindings(shift=shift, shift_u=1.0 / np.sqrt(total), suspect=suspect)

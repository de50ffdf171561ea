"""Spreads that empirical Bayes estimates: of sessions, vehicles, sites and converters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from chargewatch.domain.arrays import Floats, Ints, sum_by_row
from chargewatch.risk.decision import Population
from chargewatch.risk.estimator import CityEstimate
from chargewatch.risk.feeders.statements import FeederView
from chargewatch.risk.priors import (
    DC_SPREAD_FLOOR,
    DC_SPREAD_START,
    HABIT_SPREAD,
    SESSION_SPREAD_FLOOR,
    SESSION_SPREAD_START,
    SITE_SPREAD_START,
    SOC_FACTOR_START,
    SPREAD_COUNTS,
    VEHICLE_SPREAD_FLOOR,
    VEHICLE_START,
)
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.tails import session_tail, vehicle_tail
from chargewatch.risk.vehicles import (
    FIRST_TAIL,
    PAIR_KINDS,
    SessionRows,
    Tail,
    VehicleGraph,
    local_centres,
    student_weights,
    tail_inflation,
    tail_weights,
    trusted,
    vehicle_scales,
)

SOC_STEPS = 8
"""Steps of a round towards the two variances of sessions by SOC."""


@dataclass(frozen=True, kw_only=True)
class Spreads:
    """Standard deviations, fractions."""

    session: Floats  # (KINDS,), of n, resolution apart
    soc: Floats  # (KINDS,), factor on the variance that the resolution of SOC makes
    vehicle: Floats  # (KINDS,), of c_v
    converter: float  # tau of DC piles
    site: Floats  # (2,), AC and DC, of what a connector's cable loses at full load
    wander: float  # of an error one year after its verification


FIRST_SPREADS = Spreads(
    session=SESSION_SPREAD_START,
    soc=SOC_FACTOR_START,
    vehicle=VEHICLE_START,
    converter=DC_SPREAD_START,
    site=SITE_SPREAD_START,
    wander=EngineConfig.anchor_drift_per_year,
)


@dataclass(frozen=True, kw_only=True)
class SessionWeights:
    """How sessions and vehicles are weighted; s sessions, v nodes."""

    tail: Floats  # (s,)
    tails: tuple[Tail, ...]  # (KINDS,), what they are for
    inflation: Floats  # (KINDS,), what robust weights overstate
    node_tail: Floats  # (v,)


@dataclass(frozen=True, kw_only=True)
class SessionsInTime:
    """What sessions say of their connector at their time; s sessions."""

    own: Floats  # (s,), the session's own gamma, its vehicle judged at other connectors
    variance: Floats  # (s,)
    weight: Floats  # (s,), robust, beside the connector's sessions of the same time


def _fitted_variance(
    graph: VehicleGraph, estimate: CityEstimate, *, seed: int
) -> tuple[Floats, Floats]:
    """Return sums of weight times variance of vehicles' fitted sessions, and of their scales, (v,).

    Equation: sum w (d_i + c_v)^2 = (W' d^2)_v + 2 c_v (W' d)_v + c_v^2 (W' 1)_v, the
    mean over draws d of the connectors' errors and c_v of the scale given them.
    """
    d = estimate.deviations
    met = graph.weights_t @ np.concatenate([d, d**2], axis=1)
    sums, squares = met[:, : d.shape[1]], met[:, d.shape[1] :]
    noise = np.random.default_rng(seed).standard_normal((d.shape[1], graph.nodes)).T
    scale = np.sqrt(graph.pull)[:, None] * noise - graph.pull[:, None] * sums
    fitted = squares + 2.0 * scale * sums + scale**2 * graph.weight[:, None]
    return fitted.mean(axis=1), (scale**2).mean(axis=1)


def _elsewhere(
    node: Ints, graph: VehicleGraph, *, residual: Floats, precision: Floats
) -> tuple[Floats, Floats]:
    """Return each session's c_v and its variance by the vehicle's sessions elsewhere, shapes (s,).

    Judged by all its sessions, a vehicle takes on part of a change of the connector's error.

    Args:
        node: vehicle and kind of each session, shape (s,).
        graph: with the weights of this round.
        residual: y less all but c_v, shape (s,).
        precision: weight of each session, shape (s,).
    """
    total = sum_by_row(node, precision * residual, size=graph.nodes)
    pair = graph.pairs.pair
    here = sum_by_row(pair, precision, size=int(pair.max(initial=-1)) + 1)[pair]
    said = sum_by_row(pair, precision * residual, size=int(pair.max(initial=-1)) + 1)[pair]
    left = np.maximum(1.0 / graph.pull[node] - here, graph.vehicle_sd[node] ** -2.0)
    return (total[node] - said) / left, 1.0 / left


def session_spreads(
    rows: SessionRows,
    node: Ints,
    graph: VehicleGraph,
    before: Spreads,
    *,
    base: Floats,
    precision: Floats,
    estimate: CityEstimate,
    level: Floats,
    tails: SessionWeights | None,
    seed: int,
) -> tuple[Floats, Floats, Floats, SessionWeights]:
    """Return the spreads of sessions, factors of SOC, spreads of vehicles (KINDS,), and weights.

    Equation (fixed point of REML): sigma^2 = sum w r^2 / (s - tr(fit)), both sums over a kind's
    sessions, the trace from the draws; the same for the vehicles' scales. Source: MacKay, Neural
    Computation 11 (1999), effective number of parameters; w are robust weights.

    Args:
        rows: the sessions.
        node: vehicle and kind of each, shape (s,).
        graph: with the weights of this round.
        before: spreads of this round.
        base: variance of each session, shape (s,).
        precision: weight of each session, shape (s,).
        estimate: of this round.
        level: c_k and kappa, shape (LEVELS,).
        tails: those of the sessions and what they overstate, as known; None: to be found.
        seed: of the draws.
    """
    scale = vehicle_scales(graph, estimate.error, level=level)
    own = (
        rows.log_ratio - level[rows.kind] - level[PAIR_KINDS + rows.side] * rows.load - scale[node]
    )
    residual = own - estimate.error[rows.connector]
    fit, vehicle_fit = _fitted_variance(graph, estimate, seed=seed)
    session, soc, vehicle = before.session.copy(), before.soc.copy(), before.vehicle.copy()
    inflation, shapes = np.ones(PAIR_KINDS), [FIRST_TAIL] * PAIR_KINDS
    if tails is not None:
        inflation, shapes = tails.inflation, list(tails.tails)
    tail = np.ones(residual.size)
    node_variance = before.vehicle[graph.kind] ** 2
    node_tail = np.ones(graph.nodes)
    for kind in range(PAIR_KINDS):
        mine = rows.kind == kind
        if mine.any():
            r, v = residual[mine], base[mine]
            if tails is None:
                known = graph.pull[node[mine]] + estimate.variance[rows.connector[mine]]
                shapes[kind] = session_tail(r, v, leverage=precision[mine] * known)
                inflation[kind] = np.clip(tail_inflation(r, v, shapes[kind]), 1.0, 2.0)
            good = trusted(r, v, shapes[kind])
            weight = good * student_weights(r, v, shapes[kind])
            tail[mine] = weight
            used = fit[node[mine]] * precision[mine] / graph.weight[node[mine]]
            used *= min(1.0, 0.9 * float(good.sum()) / max(float(used.sum()), 1e-12))
            session[kind], soc[kind] = own_and_of_soc(
                weight * r**2 / rows.looseness[mine],
                good - used,
                resolution=rows.soc_variance[mine],
                before=(float(session[kind]), float(soc[kind])),
                by_soc=kind % 3 > 0,
            )
        here = graph.kind == kind
        if here.any():
            count, c, v = float(here.sum()), scale[here], node_variance[here]
            k = vehicle_tail(c, v, unknown=graph.pull[here] / v).inverse_degrees
            # What is not known of a scale may be large: the mean alone would be too near to 0.
            weight = (1.0 + k) / (1.0 + k * (c**2 + graph.pull[here]) / v)
            node_tail[here] = weight
            used = min(float((weight * vehicle_fit[here] / v).sum()), 0.95 * count)
            second = float((weight * c**2).sum())
            second += SPREAD_COUNTS * VEHICLE_START[kind] ** 2
            found = second / (count - used + SPREAD_COUNTS)
            vehicle[kind] = np.sqrt(max(found, VEHICLE_SPREAD_FLOOR**2))
    weights = SessionWeights(
        tail=tail, tails=tuple(shapes), inflation=inflation, node_tail=node_tail
    )
    return session, soc, vehicle, weights


def own_and_of_soc(
    squared: Floats,
    free: Floats,
    *,
    resolution: Floats,
    before: tuple[float, float],
    by_soc: bool,
) -> tuple[float, float]:
    """Return the spread of a kind's sessions, and the factor on the variance of their SOC.

    What a state of charge is off, by its steps and by how well a vehicle knows it, counts for more
    the less was charged: sigma^2 + f x, x ~ 1 / dSOC^2. Equation: fixed points that go to the
    maximum of the likelihood of both, sigma^2 <- sigma^2 sum(q d) / sum(free d) and likewise f, q =
    r^2 / v, d the part's share of v.

    Args:
        squared: robust r^2 of sessions, looseness taken off, shape (s,).
        free: degrees of freedom that each leaves, shape (s,).
        resolution: x, shape (s,).
        before: spread and factor of the round before.
        by_soc: the kind knows its battery energy by SOC; else the factor is 1.
    """
    if not by_soc:
        usual = float(np.median(resolution))
        ratio = float((squared / (before[0] ** 2 + resolution)).sum())
        ratio = (ratio + SPREAD_COUNTS) / (float(free.sum()) + SPREAD_COUNTS)
        variance = ratio * (before[0] ** 2 + usual) - usual
        return float(np.sqrt(max(variance, SESSION_SPREAD_FLOOR**2))), before[1]
    variance, factor = before[0] ** 2, before[1]
    for _ in range(SOC_STEPS):
        whole = variance + factor * resolution
        told, part = squared / whole, factor * resolution / whole
        of_soc, left = float((told * part).sum()), float((free * part).sum())
        own, own_left = float(told.sum()) - of_soc, float(free.sum()) - left
        variance *= (own + SPREAD_COUNTS) / (max(own_left, 0.0) + SPREAD_COUNTS)
        variance = max(variance, SESSION_SPREAD_FLOOR**2)
        factor = (factor * of_soc + SPREAD_COUNTS) / (max(left, 0.0) + SPREAD_COUNTS)
    return float(np.sqrt(variance)), factor


def sessions_in_time(
    rows: SessionRows,
    node: Ints,
    graph: VehicleGraph,
    *,
    base: Floats,
    precision: Floats,
    estimate: CityEstimate,
    level: Floats,
) -> SessionsInTime:
    """Return what sessions say of their connectors at their time; arguments: `session_spreads`."""
    told = rows.log_ratio - level[rows.kind] - level[PAIR_KINDS + rows.side] * rows.load
    elsewhere, its_variance = _elsewhere(
        node, graph, residual=told - estimate.error[rows.connector], precision=precision
    )
    own, variance = told - elsewhere, base + its_variance
    centre = local_centres(rows.connector, rows.ended_s, own)
    return SessionsInTime(own=own, variance=variance, weight=tail_weights(own - centre, variance))


def converter_spread(
    views: list[FeederView], population: Population, *, mpe: Floats, level: Floats
) -> float:
    """Return tau: what the spread of DC piles' z has beyond that of errors and statistics.

    Args:
        views: feeders with their own z.
        population: of errors; its bulk is taken off.
        mpe: shape (n,).
        level: mu by class of converter.
    """
    found, expected = [np.zeros(0)], [np.zeros(0)]
    for view in views:
        index = np.arange(view.group.size)
        own = view.precision[:, index, index]
        use = (view.converter > 0) & (own > 0.004**-2)
        found.append((view.z - level[view.converter])[use])
        expected.append((population.spread[0] * mpe[view.group.member[use]]) ** 2 + 1.0 / own[use])
    z, variance = np.concatenate(found), np.concatenate(expected)
    if z.size < 8:
        return DC_SPREAD_START
    bulk = (1.4826 * np.median(np.abs(z - np.median(z)))) ** 2
    excess = max(bulk - float(np.median(variance)), DC_SPREAD_FLOOR**2)
    total = z.size * excess + SPREAD_COUNTS * DC_SPREAD_START**2
    return float(np.sqrt(total / (z.size + SPREAD_COUNTS)))


def site_variance(site: ArrayLike, load: Floats) -> Floats:
    """Return the variance of what all sessions of connectors share, shape of the load.

    A longer cable loses in proportion to the load; habits are what they are at any load. Equation:
    tau^2 L^2 + (habits)^2.
    """
    return np.asarray((np.asarray(site) * load) ** 2 + HABIT_SPREAD**2)

"""Rounds of reweighting and empirical Bayes around the city's least squares.

A round solves the least squares with the weights and spreads of the round before, then judges
sessions, vehicles, populations and reference meters anew. The last round but one looks for changes
of errors; the last one leaves out what is older than them, and only it is solved to full accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from chargewatch.risk.changes import Changes, changes_of_city, daily_offset, no_changes
from chargewatch.risk.city import City, in_series_u, prepared
from chargewatch.risk.decision import (
    PRIOR_POPULATION,
    Population,
    estimate_population,
    prior_precision,
)
from chargewatch.risk.direct import anchor_variance
from chargewatch.risk.estimator import (
    ROUGH_TOLERANCE,
    TOLERANCE,
    CityEstimate,
    CitySystem,
    FeederEvidence,
    estimate_city,
    own_evidence,
)
from chargewatch.risk.feeders import (
    SUSPECT_U,
    FeederView,
    GainStatement,
    Outside,
    feeder_view,
    first_gains,
    meter_findings,
    with_changed,
    with_meter,
)
from chargewatch.risk.inputs import Bools, Floats, Ints, RunInputs, sum_by_row
from chargewatch.risk.layout import YEAR_S
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.spreads import (
    FIRST_SPREADS,
    SessionWeights,
    Spreads,
    anchor_wander,
    converter_spread,
    session_spreads,
    site_spread,
)
from chargewatch.risk.statistics import DAY_S, CityStatistics
from chargewatch.risk.vehicles import KINDS, VehicleGraph, session_score, vehicle_graph

FEW_DRAWS = 64_000
"""Rounds before the last draw so many numbers in all, at least 3 and at most 8 a connector."""
ANCHOR_DEGREES = 4.0


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one round hands to the next."""

    spreads: Spreads
    population: Population
    prior_precision: Floats  # (n,)
    z: tuple[Floats, ...]  # where feeders are linearised
    weights: SessionWeights
    estimate: CityEstimate | None
    changes: Changes
    shift: Floats  # (m,)
    shift_u: Floats
    suspect: Bools


@dataclass(frozen=True, kw_only=True)
class Stated:
    """Verifications that count, shape (a,)."""

    connector: Ints
    value: Floats  # ln(1 + stated error)
    certificate: Floats  # variance of the certificate alone
    years: Floats
    precision: Floats  # as it enters the least squares


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A round's evidence with its weights."""

    system: CitySystem
    views: tuple[FeederView, ...]
    graph: VehicleGraph
    base: Floats  # (s,), variance of a session
    precision: Floats  # (s,), with forgetting
    information: Floats  # (s,), without forgetting
    stated: Stated
    anchored: Ints  # (n,), verifications that count
    source: Bools  # (n,), something traceable bears on it


@dataclass(frozen=True, kw_only=True)
class Inference:
    """The last round."""

    weighted: Weighted
    estimate: CityEstimate
    error: Floats  # (n,), gamma by own evidence
    variance: Floats  # (n,)
    population: Population
    spreads: Spreads
    changes: Changes
    soc_share: Floats  # (s,), share of a session's variance that is SOC resolution
    traced: Bools  # (n,), something traceable in its graph
    meter_shift: Floats
    meter_shift_u: Floats
    meter_suspect: Bools
    meter_u: Floats  # (m,), as used


def _first_judgement(city: City) -> Judgement:
    sessions, m = city.node.size, city.meter_u.size
    layout, feeders = city.statistics.layout, city.statistics.feeders
    return Judgement(
        spreads=replace(FIRST_SPREADS, wander=city.config.anchor_drift_per_year),
        population=PRIOR_POPULATION,
        prior_precision=(PRIOR_POPULATION.spread[0] * city.mpe) ** -2.0,
        z=tuple(
            first_gains(g, s, city.inputs.fleet)
            for g, s in zip(layout.groups, feeders, strict=True)
        ),
        weights=SessionWeights(
            tail=np.ones(sessions),
            inflation=np.ones(KINDS),
            node_tail=np.ones(city.node_kind.size),
            local=np.ones(sessions),
            own=np.zeros(sessions),
        ),
        estimate=None,
        changes=no_changes(city.size),
        shift=np.full(m, np.nan),
        shift_u=np.full(m, np.nan),
        suspect=np.zeros(m, dtype=bool),
    )


def _age_weights(city: City, current: Bools) -> Floats:
    """Return the weights of sessions by age, scaled so that they state their own variance.

    With weights f the variance of a mean is sum f^2 / (sum f)^2 of a session's, so f is scaled by
    sum f / sum f^2 of its connector. 0 for a session from before its connector's change.
    """
    rows = city.statistics.sessions
    age = np.maximum(city.inputs.as_of_s - rows.ended_s, 0.0) / DAY_S
    f = np.where(current, 2.0 ** (-age / city.config.half_life_days), 0.0)
    total = sum_by_row(rows.connector, f, size=city.size)
    squared = sum_by_row(rows.connector, f**2, size=city.size)
    scale = np.where(squared > 0, total / np.where(squared > 0, squared, 1.0), 1.0)
    return np.asarray(f * scale[rows.connector])


def _session_graph(city: City, known: Judgement) -> tuple[VehicleGraph, Floats, Floats, Floats]:
    rows, spreads, changes = city.statistics.sessions, known.spreads, known.changes
    changed = changes.changed[rows.connector]
    since = rows.ended_s >= changed * DAY_S
    drifts = changes.slope_variance[rows.connector] > 0
    current = (changed < 0) | since | drifts
    # The usual weights judge the sessions of a connector that changed by its mean error.
    tail = np.where(changed >= 0, known.weights.local, known.weights.tail)
    base = rows.looseness * (spreads.session[rows.kind] ** 2 + rows.soc_variance)
    information = tail / (base * known.weights.inflation[rows.kind])
    precision = information * _age_weights(city, current)
    vehicle = known.weights.node_tail / spreads.vehicle[city.node_kind] ** 2
    weight = sum_by_row(city.node, precision, size=vehicle.size)
    pull = 1.0 / (weight + vehicle)
    # What all sessions of a connector share caps what they say together at 1 / tau^2.
    seen = precision / (1.0 + precision * pull[city.node])
    own = sum_by_row(rows.connector, seen, size=city.size)
    # Along a drift every session is brought to the present; the slope's error is in all of them.
    ahead = changes.ahead(rows.connector, rows.ended_s)
    mean_ahead = sum_by_row(rows.connector, precision * ahead, size=city.size)
    weight = sum_by_row(rows.connector, precision, size=city.size)
    mean_ahead /= np.where(weight > 0, weight, 1.0)
    shared = spreads.site[city.side] ** 2 + mean_ahead**2 * changes.slope_variance
    precision = precision / (1.0 + own * shared)[rows.connector]
    graph = vehicle_graph(
        city.pairs,
        node_kind=city.node_kind,
        log_ratio=rows.log_ratio + changes.slope[rows.connector] * ahead,
        load=rows.load,
        precision=precision,
        vehicle_precision=vehicle,
    )
    return graph, base, precision, information


def _stated(city: City, known: Judgement) -> Stated:
    anchors, inputs = city.inputs.anchors, city.inputs
    use = np.isfinite(anchors.relative_error) & np.isfinite(anchors.standard_uncertainty)
    use &= anchors.verified_s <= inputs.as_of_s
    changed = known.changes.changed[anchors.connector]
    use &= (changed < 0) | (anchors.verified_s >= changed * DAY_S)
    who = anchors.connector[use]
    value = np.log1p(anchors.relative_error[use])
    variance = anchor_variance(
        anchors, as_of_s=inputs.as_of_s, drift_per_year=known.spreads.wander
    )[use]
    weight = np.ones(value.size)
    if known.estimate is not None:
        # A verification long overtaken by events must not hold the present error.
        away = (value - known.estimate.error[who]) ** 2
        away = away / (variance + known.estimate.variance[who])
        weight = np.minimum((ANCHOR_DEGREES + 1.0) / (ANCHOR_DEGREES + away), 1.0)
        weight = np.where(away > 9.0, 0.1 * weight, weight)
    return Stated(
        connector=who,
        value=value,
        certificate=anchors.standard_uncertainty[use] ** 2,
        years=np.maximum(inputs.as_of_s - anchors.verified_s[use], 0.0) / YEAR_S,
        precision=weight / variance,
    )


def _since_changes(
    city: City, known: Judgement
) -> tuple[tuple[GainStatement, ...], Floats, Floats]:
    """Return feeders' statements and in-series evidence without what is older than a change."""
    changes = known.changes
    precision, score = city.direct_precision, city.direct_score
    if not changes.alarm.any():
        return city.statements, precision, score
    layout = city.statistics.layout
    z = np.full(city.size, np.nan)
    for group, values in zip(layout.groups, known.z, strict=True):
        inside = group.member >= 0
        z[group.member[inside]] = values[inside]
    place = layout.connector_group + layout.connector_row * (len(layout.groups) + 1)
    kind = np.unique(2 * (place + 1) + city.side, return_inverse=True)[1]
    offset = daily_offset(city.statistics, changes, z, kind=kind)
    present = changes.z - np.where(layout.connector_group >= 0, offset, 0.0)
    statements = tuple(
        with_changed(s, z=present, precision=changes.z_precision, changed=changes.alarm)
        for s in city.statements
    )
    series = changes.alarm & (precision > 0)
    u = in_series_u(city.statistics, city.meter_u)
    own = np.where(changes.z_precision > 0, changes.z_precision, 1e-12)
    precision = np.where(series, 1.0 / (1.0 / own + u**2), precision)
    return statements, precision, np.where(series, precision * changes.z, score)


def _evidence(view: FeederView, meter_u: Floats) -> FeederEvidence:
    q, score = with_meter(view.soft_precision, view.soft_information, u=meter_u[view.group.meter])
    q = 0.5 * (q + q.transpose(0, 2, 1))
    return FeederEvidence(
        member=view.group.member, converter=view.converter, precision=q, score=score
    )


def _weighted(city: City, known: Judgement) -> Weighted:
    statements, direct_p, direct_s = _since_changes(city, known)
    spread = np.full(city.size, known.spreads.converter)
    views = tuple(
        feeder_view(statement, z=z, spread=spread, classes=city.classes)
        for statement, z in zip(statements, known.z, strict=True)
    )
    graph, base, precision, information = _session_graph(city, known)
    stated = _stated(city, known)
    who, n = stated.connector, city.size
    anchor_p = sum_by_row(who, stated.precision, size=n)
    anchor_s = sum_by_row(who, stated.precision * stated.value, size=n)
    meter_u = np.where(known.suspect, SUSPECT_U, city.meter_u)
    metered = city.statistics.layout.connector_group >= 0
    metered &= city.statistics.rows.sum(axis=1) > 0
    return Weighted(
        system=CitySystem(
            feeders=tuple(_evidence(v, meter_u) for v in views),
            graph=graph,
            direct_precision=direct_p + anchor_p,
            direct_score=direct_s + anchor_s,
            prior_precision=known.prior_precision,
            model=city.model,
            model_precision=np.full(city.models, city.config.model_mean_spread**-2.0),
            converter_mean=city.converter_mean,
            converter_precision=city.converter_precision,
        ),
        views=views,
        graph=graph,
        base=base,
        precision=precision,
        information=information,
        stated=stated,
        anchored=np.bincount(who, minlength=n),
        source=(direct_p > 0) | (anchor_p > 0) | metered,
    )


def _levels(city: City, estimate: CityEstimate) -> tuple[Floats, Floats]:
    """Return mu by class of converter; c_k and kappa of the sessions."""
    split = city.models + city.converter_mean.size
    return estimate.level[city.models : split], estimate.level[split:]


def _judged(
    city: City, known: Judgement, weighted: Weighted, estimate: CityEstimate, *, turn: int
) -> Judgement:
    """Return the judgement of a round for the next one."""
    converters, kinds = _levels(city, estimate)
    error, variance = own_evidence(
        estimate, model=city.model, prior_precision=known.prior_precision
    )
    u = np.sqrt(variance)
    population = estimate_population(np.expm1(error), city.mpe, standard_uncertainty=u)
    session, vehicle, weights = session_spreads(
        city.statistics.sessions,
        city.node,
        weighted.graph,
        known.spreads,
        base=weighted.base,
        precision=weighted.precision,
        estimate=estimate,
        level=kinds,
        seed=city.config.seed + 1,
    )
    spreads = Spreads(
        session=session,
        vehicle=vehicle,
        converter=converter_spread(
            list(weighted.views), population, mpe=city.mpe, level=converters
        ),
        site=site_spread(
            weighted.system, estimate, kinds, before=known.spreads.site, side=city.side
        ),
        wander=anchor_wander(
            estimate.error[weighted.stated.connector],
            estimate.variance[weighted.stated.connector],
            stated=weighted.stated.value,
            stated_variance=weighted.stated.certificate,
            weight=weighted.stated.precision,
            years=weighted.stated.years,
            expected=city.config.anchor_drift_per_year,
        ),
    )
    judged = replace(
        known,
        spreads=spreads,
        population=population,
        prior_precision=prior_precision(
            np.expm1(error) - estimate.level[city.model],
            city.mpe,
            standard_uncertainty=u,
            population=population,
        ),
        z=_next_points(weighted.views, estimate, converters),
        weights=weights,
        estimate=estimate,
    )
    if turn in (1, city.config.iterations - 2):
        judged = _with_meters(city, judged, weighted, estimate)
    if turn == city.config.iterations - 2:
        pull = weighted.graph.pull[city.node]
        rows = city.statistics.sessions
        information = weights.local / (weighted.base * weights.inflation[rows.kind])
        changes = changes_of_city(
            city.inputs,
            city.statistics,
            residual=weights.own,
            information=information / (1.0 + information * pull),
            mpe=city.mpe,
            config=city.config,
        )
        judged = replace(judged, changes=changes)
    return judged


def _with_meters(
    city: City, judged: Judgement, weighted: Weighted, estimate: CityEstimate
) -> Judgement:
    converters, kinds = _levels(city, estimate)
    shift, shift_u, suspect = judged.shift.copy(), judged.shift_u.copy(), judged.suspect.copy()
    outside = _outside(weighted.system, estimate, kinds)
    for view in weighted.views:
        meter = view.group.meter
        found = meter_findings(
            view,
            u=city.meter_u[meter],
            outside=outside,
            expected=estimate.level[city.model],
            mpe=city.mpe,
            population_share=judged.population.share,
            population_spread=judged.population.spread,
            converter_level=converters,
            config=city.config,
        )
        shift[meter], shift_u[meter], suspect[meter] = found.shift, found.shift_u, found.suspect
    return replace(judged, shift=shift, shift_u=shift_u, suspect=suspect)


def _next_points(
    views: tuple[FeederView, ...], estimate: CityEstimate, converter_level: Floats
) -> tuple[Floats, ...]:
    """Return where to linearise next: the feeder's own z, pulled to the city's where unknown."""
    out = []
    for view in views:
        known = view.group.member >= 0
        mu = np.where(view.converter >= 0, converter_level[view.converter], 0.0)
        centre = np.where(known, estimate.error[view.group.member] + mu, 0.0)
        loose = np.where(known, 0.01**-2.0, 1.0)
        full = view.precision.copy()
        index = np.arange(view.group.size)
        full[:, index, index] += loose
        right = view.information + loose * centre
        out.append(np.clip(np.linalg.solve(full, right[..., None])[..., 0], -0.7, 0.7))
    return tuple(out)


def _outside(system: CitySystem, estimate: CityEstimate, kinds: Floats) -> Outside:
    """Return what vehicles, verifications and in-series meters say of each connector.

    From the rows of the normal equations without feeders and priors, all others at the estimate.
    """
    precision = system.graph.own + system.direct_precision
    score = session_score(system.graph, estimate.error, level=kinds) + system.direct_score
    known = precision > 1e-9
    return Outside(
        mean=np.where(known, score / np.where(known, precision, 1.0), 0.0),
        precision=np.where(known, precision, 0.0),
    )


def traced_connectors(
    connectors: int, connector: Ints, *, node: Ints, nodes: int, source: Bools
) -> Bools:
    """Return the connectors whose component of the vehicle graph has a traceable source.

    Args:
        connectors: n.
        connector: of each session, shape (s,).
        node: vehicle of each session, shape (s,).
        nodes: v.
        source: connectors with a meter or a verification, shape (n,).
    """
    size = connectors + nodes
    graph = sparse.coo_array(
        (np.ones(connector.size), (connector, connectors + node)), shape=(size, size)
    )
    count, label = connected_components(graph.tocsr(), directed=False)
    good = np.zeros(count, dtype=bool)
    good[label[:connectors][source]] = True
    return np.asarray(good[label[:connectors]])


def infer(inputs: RunInputs, statistics: CityStatistics, *, config: EngineConfig) -> Inference:
    """Return the posterior of the city after the configured number of rounds."""
    city = prepared(inputs, statistics, config=config)
    known = _first_judgement(city)
    draws = int(np.clip(FEW_DRAWS // max(city.size, 1), 3, 8))
    for turn in range(config.iterations - 1):
        weighted = _weighted(city, known)
        estimate = estimate_city(
            weighted.system, draws=draws, seed=config.seed, tolerance=ROUGH_TOLERANCE
        )
        known = _judged(city, known, weighted, estimate, turn=turn)
    weighted = _weighted(city, known)
    estimate = estimate_city(
        weighted.system, draws=config.draws, seed=config.seed, tolerance=TOLERANCE
    )
    error, variance = own_evidence(
        estimate, model=city.model, prior_precision=known.prior_precision
    )
    rows = statistics.sessions
    base = np.where(weighted.base > 0, weighted.base, 1.0)
    return Inference(
        weighted=weighted,
        estimate=estimate,
        error=error,
        variance=variance,
        population=estimate_population(
            np.expm1(error), city.mpe, standard_uncertainty=np.sqrt(variance)
        ),
        spreads=known.spreads,
        changes=known.changes,
        soc_share=rows.looseness * rows.soc_variance / base,
        traced=traced_connectors(
            city.size,
            rows.connector,
            node=city.node,
            nodes=city.node_kind.size,
            source=weighted.source,
        ),
        meter_shift=known.shift,
        meter_shift_u=known.shift_u,
        meter_suspect=known.suspect,
        meter_u=np.where(known.suspect, SUSPECT_U, city.meter_u),
    )

"""Rounds of reweighting and empirical Bayes around the city's least squares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

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
    DC_SPREAD_START,
    SUSPECT_U,
    FeederView,
    MeterFindings,
    Outside,
    converter_classes,
    converter_prior,
    feeder_view,
    first_gains,
    gain_statement,
    meter_findings,
    with_meter,
)
from chargewatch.risk.inputs import Bools, Floats, Ints, RunInputs, sum_by_row
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.statistics import DAY_S, CityStatistics
from chargewatch.risk.vehicles import (
    KINDS,
    SPREAD_START,
    VEHICLE_START,
    VehicleGraph,
    schur_product,
    tail_inflation,
    tail_weights,
    vehicle_graph,
    vehicle_scales,
)

MODEL_GROUPS = 10
FEW_DRAWS = 64_000
"""Rounds before the last draw so many numbers in all, at least 3 and at most 8 a connector."""
ANCHOR_DEGREES = 4.0
UNKNOWN_MPE = 0.02
SITE_SPREAD_START = np.array([0.0018, 0.0012])
"""Spread between connectors of what vehicles see beyond the meter's error, to start from: cables
after the meter lose 0.3 to 1 % at full load, the longer ones on AC. AC and DC."""
SPREAD_COUNTS = 20.0
"""Weight of the starting spreads against those of the data, in sessions or vehicles."""


@dataclass(frozen=True, kw_only=True)
class Spreads:
    """Standard deviations that empirical Bayes estimates."""

    session: Floats  # (KINDS,), of n, resolution apart
    vehicle: Floats  # (KINDS,), of c_v
    converter: float  # tau of DC piles
    site: Floats  # (2,), AC and DC, of what a connector's sessions share: cable, power, habits


@dataclass(frozen=True, kw_only=True)
class Inference:
    """The last round; n connectors, s session rows, m meters."""

    estimate: CityEstimate
    system: CitySystem
    views: tuple[FeederView, ...]
    error: Floats  # (n,), gamma by own evidence
    variance: Floats  # (n,)
    population: Population
    spreads: Spreads
    prior_precision: Floats  # (n,)
    converter_level: Floats
    node: Ints  # (s,)
    session_precision: Floats  # (s,), with forgetting
    session_information: Floats  # (s,), as of the session itself
    session_residual: Floats  # (s,), y - c_k - c_v: the session's own gamma
    soc_share: Floats  # (s,), share of the variance that is SOC resolution
    traced: Bools  # (n,), something traceable in its graph
    anchored: Ints  # (n,), verifications that count
    meter_shift: Floats
    meter_shift_u: Floats
    meter_suspect: Bools
    meter_u: Floats


@dataclass(frozen=True, kw_only=True)
class _Nodes:
    node: Ints  # (s,)
    kind: Ints  # (v,)


def model_groups(model: Ints, is_dc: Bools, *, limit: int = MODEL_GROUPS) -> tuple[Ints, int]:
    """Return the group of each connector for the mean error of its model, and their number.

    The ``limit`` most frequent models have one each; the rest share two, AC and DC.
    """
    models, row, count = np.unique(model, return_inverse=True, return_counts=True)
    rank = np.empty(models.size, dtype=np.int64)
    rank[np.argsort(-count, kind="stable")] = np.arange(models.size)
    out = np.where(rank[row] < limit, rank[row], limit + is_dc)
    return out, limit + 2


def _nodes(statistics: CityStatistics) -> _Nodes:
    rows = statistics.sessions
    vehicles = int(rows.vehicle.max(initial=0)) + 1
    # Sorted by kind, which `schur_product` relies on.
    keys, node = np.unique(rows.kind * vehicles + rows.vehicle, return_inverse=True)
    return _Nodes(node=node, kind=keys // vehicles)


def _anchors(
    inputs: RunInputs, config: EngineConfig, estimate: CityEstimate | None
) -> tuple[Floats, Floats, Ints]:
    anchors = inputs.anchors
    n = inputs.fleet.size
    known = np.isfinite(anchors.relative_error) & np.isfinite(anchors.standard_uncertainty)
    known &= anchors.verified_s <= inputs.as_of_s
    who = anchors.connector[known]
    value = np.log1p(anchors.relative_error[known])
    variance = anchor_variance(
        anchors, as_of_s=inputs.as_of_s, drift_per_year=config.anchor_drift_per_year
    )[known]
    weight = np.ones(value.size)
    if estimate is not None:
        # A verification long overtaken by events must not hold the present error.
        away = (value - estimate.error[who]) ** 2 / (variance + estimate.variance[who])
        weight = np.minimum((ANCHOR_DEGREES + 1.0) / (ANCHOR_DEGREES + away), 1.0)
        weight = np.where(away > 9.0, 0.1 * weight, weight)
    precision = weight / variance
    return (
        sum_by_row(who, precision, size=n),
        sum_by_row(who, precision * value, size=n),
        np.bincount(who, minlength=n),
    )


def _direct(inputs: RunInputs, statistics: CityStatistics) -> tuple[Floats, Floats]:
    """Return precision and score of in-series meters, their own uncertainty included."""
    weight = statistics.direct_weight
    seen = weight > 0
    safe = np.where(seen, weight, 1.0)
    squared = np.where(seen, statistics.direct_weight_squared, 1.0)
    u = np.zeros(weight.size)
    meter = statistics.layout.direct_meter
    if statistics.layout.meter_u.size:
        u = np.where(meter >= 0, statistics.layout.meter_u[np.maximum(meter, 0)], 0.0)
    variance = squared / safe**2 + np.nan_to_num(u, nan=0.01) ** 2
    precision = np.where(seen, 1.0 / variance, 0.0)
    return precision, precision * statistics.direct_sum / safe


def traced_connectors(
    connectors: int, connector: Ints, node: Ints, *, nodes: int, source: Bools
) -> Bools:
    """Return the connectors whose component of the vehicle graph has a traceable source.

    Args:
        connectors: n; ``connector`` and ``node`` of each session, shape (s,).
        nodes: v; ``source``: connectors with a meter or a verification, shape (n,).
    """
    size = connectors + nodes
    graph = sparse.coo_array(
        (np.ones(connector.size), (connector, connectors + node)), shape=(size, size)
    )
    count, label = connected_components(graph.tocsr(), directed=False)
    good = np.zeros(count, dtype=bool)
    good[label[:connectors][source]] = True
    return np.asarray(good[label[:connectors]])


@dataclass
class _Round:
    """What one round hands to the next."""

    spreads: Spreads
    population: Population
    prior_precision: Floats
    z: list[Floats]
    tail: Floats
    inflation: Floats
    node_tail: Floats
    estimate: CityEstimate | None
    meter_u: Floats


def _graph(
    statistics: CityStatistics,
    nodes: _Nodes,
    state: _Round,
    *,
    age_weight: Floats,
    is_dc: Ints,
) -> tuple[VehicleGraph, Floats, Floats, Floats]:
    rows, connectors = statistics.sessions, is_dc.size
    base = rows.looseness * (state.spreads.session[rows.kind] ** 2 + rows.soc_variance)
    information = state.tail / (base * state.inflation[rows.kind])
    precision = information * age_weight
    vehicle_variance = state.spreads.vehicle[nodes.kind] ** 2 / state.node_tail
    weight = sum_by_row(nodes.node, precision, size=nodes.kind.size)
    pull = 1.0 / (weight + 1.0 / vehicle_variance)
    seen = 1.0 / (1.0 / precision + pull[nodes.node])
    # What all sessions of a connector share caps what they say together at 1 / tau^2.
    own = sum_by_row(rows.connector, seen, size=connectors)
    precision = precision / (1.0 + own * state.spreads.site[is_dc] ** 2)[rows.connector]
    vehicle = state.node_tail / state.spreads.vehicle[nodes.kind] ** 2
    graph = vehicle_graph(
        rows.connector,
        nodes.node,
        node_kind=nodes.kind,
        log_ratio=rows.log_ratio,
        precision=precision,
        vehicle_precision=vehicle,
        connectors=connectors,
    )
    return graph, base, precision, information


def _age_weights(statistics: CityStatistics, inputs: RunInputs, config: EngineConfig) -> Floats:
    rows, n = statistics.sessions, inputs.fleet.size
    age = np.maximum(inputs.as_of_s - rows.ended_s, 0.0) / DAY_S
    f = 2.0 ** (-age / config.half_life_days)
    total = sum_by_row(rows.connector, f, size=n)
    squared = sum_by_row(rows.connector, f**2, size=n)
    scale = np.where(squared > 0, total / np.where(squared > 0, squared, 1.0), 1.0)
    return f * scale[rows.connector]


def _fitted_variance(
    graph: VehicleGraph, nodes: _Nodes, connector: Ints, estimate: CityEstimate, *, seed: int
) -> tuple[Floats, Floats]:
    """Return the posterior variances of each session's fit (s,) and each vehicle's scale (v,)."""
    deviations = estimate.deviations
    rng = np.random.default_rng(seed)
    session = np.zeros(connector.size)
    vehicle = np.zeros(graph.nodes)
    for r in range(deviations.shape[1]):
        noise = np.sqrt(graph.pull) * rng.standard_normal(graph.nodes)
        scale = noise - graph.pull * (graph.weights_t @ deviations[:, r])
        session += (deviations[connector, r] + scale[nodes.node]) ** 2
        vehicle += scale**2
    return session / deviations.shape[1], vehicle / deviations.shape[1]


def _vehicle_spreads(
    statistics: CityStatistics,
    nodes: _Nodes,
    graph: VehicleGraph,
    state: _Round,
    *,
    base: Floats,
    precision: Floats,
    estimate: CityEstimate,
    level: Floats,
    seed: int,
) -> tuple[Spreads, Floats, Floats, Floats, Floats]:
    """Return spreads, session weights, their inflation, vehicle weights and residuals.

    Equation (fixed point of REML): sigma^2 = sum w r^2 / (s - tr(fit)), both sums over a kind's
    sessions, the trace from the draws; the same for the vehicles' scales. Source: MacKay, Neural
    Computation 11 (1999), effective number of parameters; w are Student weights.
    """
    rows = statistics.sessions
    scale = vehicle_scales(graph, estimate.error, level=level)
    own = rows.log_ratio - level[rows.kind] - scale[nodes.node]
    residual = own - estimate.error[rows.connector]
    fit, vehicle_fit = _fitted_variance(graph, nodes, rows.connector, estimate, seed=seed)
    session, vehicle = state.spreads.session.copy(), state.spreads.vehicle.copy()
    inflation = np.ones(KINDS)
    tail = tail_weights(residual, base)
    node_variance = state.spreads.vehicle[nodes.kind] ** 2
    node_tail = np.minimum(5.0 / (4.0 + scale**2 / node_variance), 1.25)
    for kind in range(KINDS):
        mine = rows.kind == kind
        if mine.any():
            count = float(mine.sum())
            used = min(float((precision[mine] * fit[mine]).sum()), 0.9 * count)
            ratio = float((tail[mine] * residual[mine] ** 2 / base[mine]).sum())
            ratio = (ratio + SPREAD_COUNTS) / (count - used + SPREAD_COUNTS)
            soc = float(np.median(rows.soc_variance[mine]))
            total = ratio * (session[kind] ** 2 + soc)
            session[kind] = np.sqrt(max(total - soc, 0.002**2))
            inflation[kind] = np.clip(tail_inflation(residual[mine], base[mine]), 1.0, 2.0)
        here = nodes.kind == kind
        if here.any():
            count = float(here.sum())
            used = min(
                float((node_tail[here] * vehicle_fit[here] / node_variance[here]).sum()),
                0.95 * count,
            )
            second = float((node_tail[here] * scale[here] ** 2).sum())
            second += SPREAD_COUNTS * VEHICLE_START[kind] ** 2
            vehicle[kind] = np.sqrt(max(second / (count - used + SPREAD_COUNTS), 0.003**2))
    spreads = replace(state.spreads, session=session, vehicle=vehicle)
    return spreads, tail, inflation, node_tail, own


def _converter_spread(
    views: list[FeederView], error: Floats, population: Population, *, mpe: Floats, level: Floats
) -> float:
    """Return tau: what the spread of DC piles' z has beyond that of errors and statistics."""
    found, expected = [], []
    for view in views:
        lossy = view.converter > 0
        index = np.arange(view.group.size)
        own = view.precision[:, index, index]
        use = lossy & (own > 0.004**-2)
        found.append((view.z - level[view.converter])[use])
        expected.append((population.spread[0] * mpe[view.group.member[use]]) ** 2 + 1.0 / own[use])
    z, variance = np.concatenate(found), np.concatenate(expected)
    if z.size < 8:
        return DC_SPREAD_START
    bulk = (1.4826 * np.median(np.abs(z - np.median(z)))) ** 2
    excess = max(bulk - float(np.median(variance)), 0.0015**2)
    count = float(z.size)
    return float(
        np.sqrt((count * excess + SPREAD_COUNTS * DC_SPREAD_START**2) / (count + SPREAD_COUNTS))
    )


def _site_spread(
    system: CitySystem, estimate: CityEstimate, kinds: Floats, *, before: Floats, side: Ints
) -> Floats:
    """Return the spread between connectors of what vehicles see beyond the meter's error, (2,).

    From connectors that a verification or an in-series meter judges too: the squared difference
    of both has the variances of both and this one. AC and DC apart.
    """
    product, _ = schur_product(system.graph, estimate.error[:, None], level=kinds[:, None])
    own, direct = system.graph.own, system.direct_precision
    score = system.graph.score - product[:, 0] + own * estimate.error
    out = before.copy()
    for k in range(2):
        both = (own > 0.003**-2) & (direct > 0.004**-2) & (side == k)
        count = float(both.sum())
        if count < 5:
            continue
        away = score[both] / own[both] - system.direct_score[both] / direct[both]
        # The connectors' part is in 1 / own already, as it was assumed before.
        known = 1.0 / own[both] - before[k] ** 2 + 1.0 / direct[both]
        spread = (1.4826 * np.median(np.abs(away - np.median(away)))) ** 2
        excess = max(spread - float(np.median(known)), 0.0003**2)
        prior = SPREAD_COUNTS * SITE_SPREAD_START[k] ** 2
        out[k] = np.sqrt((count * excess + prior) / (count + SPREAD_COUNTS))
    return out


def _evidence(view: FeederView, meter_u: Floats) -> FeederEvidence:
    q, score = with_meter(view.soft_precision, view.soft_information, u=meter_u[view.group.meter])
    q = 0.5 * (q + q.transpose(0, 2, 1))
    return FeederEvidence(
        member=view.group.member, converter=view.converter, precision=q, score=score
    )


def infer(inputs: RunInputs, statistics: CityStatistics, *, config: EngineConfig) -> Inference:
    """Return the posterior of the city after the configured number of rounds."""
    fleet, n = inputs.fleet, inputs.fleet.size
    rows = statistics.sessions
    mpe = np.where(fleet.mpe > 0, fleet.mpe, UNKNOWN_MPE)
    group, groups = model_groups(fleet.model, fleet.is_dc)
    classes = converter_classes(fleet)
    converters = max(int(classes.max(initial=0)) + 1, 1)
    converter_mean, converter_precision = converter_prior(converters)
    nodes = _nodes(statistics)
    age_weight = _age_weights(statistics, inputs, config)
    side = fleet.is_dc.astype(np.int64)
    direct_p, direct_s = _direct(inputs, statistics)
    layout = statistics.layout
    state = _Round(
        spreads=Spreads(
            session=SPREAD_START.copy(),
            vehicle=VEHICLE_START.copy(),
            converter=DC_SPREAD_START,
            site=SITE_SPREAD_START.copy(),
        ),
        population=PRIOR_POPULATION,
        prior_precision=(PRIOR_POPULATION.spread[0] * mpe) ** -2.0,
        z=[
            first_gains(g, s, fleet) for g, s in zip(layout.groups, statistics.feeders, strict=True)
        ],
        tail=np.ones(rows.connector.size),
        inflation=np.ones(KINDS),
        node_tail=np.ones(nodes.kind.size),
        estimate=None,
        meter_u=np.maximum(np.nan_to_num(layout.meter_u, nan=0.01), 1e-4),
    )
    statements = [
        gain_statement(g, s) for g, s in zip(layout.groups, statistics.feeders, strict=True)
    ]
    shift = np.full(inputs.references.size, np.nan)
    shift_u, suspect = shift.copy(), np.zeros(shift.size, dtype=bool)
    for turn in range(config.iterations):
        last = turn == config.iterations - 1
        spread = np.full(n, state.spreads.converter)
        views = [
            feeder_view(statement, z=z, spread=spread, classes=classes)
            for statement, z in zip(statements, state.z, strict=True)
        ]
        graph, base, precision, information = _graph(
            statistics, nodes, state, age_weight=age_weight, is_dc=side
        )
        anchor_p, anchor_s, anchored = _anchors(inputs, config, state.estimate)
        system = CitySystem(
            feeders=tuple(_evidence(v, state.meter_u) for v in views),
            graph=graph,
            direct_precision=direct_p + anchor_p,
            direct_score=direct_s + anchor_s,
            prior_precision=state.prior_precision,
            model=group,
            model_precision=np.full(groups, config.model_mean_spread**-2.0),
            converter_mean=converter_mean,
            converter_precision=converter_precision,
        )
        estimate = estimate_city(
            system,
            draws=config.draws if last else int(np.clip(FEW_DRAWS // max(n, 1), 3, 8)),
            seed=config.seed,
            tolerance=TOLERANCE if last else ROUGH_TOLERANCE,
        )
        kinds = estimate.level[groups + converters :]
        converter_level = estimate.level[groups : groups + converters]
        error, variance = own_evidence(estimate, model=group, prior_precision=state.prior_precision)
        u = np.sqrt(variance)
        population = estimate_population(np.expm1(error), mpe, standard_uncertainty=u)
        spreads, tail, inflation, node_tail, own = _vehicle_spreads(
            statistics,
            nodes,
            graph,
            state,
            base=base,
            precision=precision,
            estimate=estimate,
            level=kinds,
            seed=config.seed + 1,
        )
        if any((v.converter > 0).any() for v in views):
            tau = _converter_spread(views, error, population, mpe=mpe, level=converter_level)
            spreads = replace(spreads, converter=tau)
        if rows.connector.size:
            site = _site_spread(system, estimate, kinds, before=state.spreads.site, side=side)
            spreads = replace(spreads, site=site)
        if turn in (1, config.iterations - 2):
            outside = _outside(system, estimate, kinds)
            expected = estimate.level[group]
            for view in views:
                found: MeterFindings = meter_findings(
                    view,
                    u=np.maximum(np.nan_to_num(layout.meter_u[view.group.meter], nan=0.01), 1e-4),
                    outside=outside,
                    expected=expected,
                    mpe=mpe,
                    population_share=population.share,
                    population_spread=population.spread,
                    converter_level=converter_level,
                    config=config,
                )
                shift[view.group.meter] = found.shift
                shift_u[view.group.meter] = found.shift_u
                suspect[view.group.meter] = found.suspect
        used_prior, used_u = state.prior_precision, state.meter_u
        if last:
            break
        state = _Round(
            spreads=spreads,
            population=population,
            prior_precision=prior_precision(
                np.expm1(error) - estimate.level[group],
                mpe,
                standard_uncertainty=u,
                population=population,
            ),
            z=_next_points(views, estimate, converter_level),
            tail=tail,
            inflation=inflation,
            node_tail=node_tail,
            estimate=estimate,
            meter_u=np.where(
                suspect, SUSPECT_U, np.maximum(np.nan_to_num(layout.meter_u, nan=0.01), 1e-4)
            ),
        )
    source = (direct_p > 0) | (anchor_p > 0)
    source |= (layout.connector_group >= 0) & (statistics.rows.sum(axis=1) > 0)
    soc_share = rows.looseness * rows.soc_variance / np.where(base > 0, base, 1.0)
    return Inference(
        estimate=estimate,
        system=system,
        views=tuple(views),
        error=error,
        variance=variance,
        population=population,
        spreads=spreads,
        prior_precision=used_prior,
        converter_level=converter_level,
        node=nodes.node,
        session_precision=precision,
        session_information=1.0 / (1.0 / information + graph.pull[nodes.node]),
        session_residual=own,
        soc_share=soc_share,
        traced=traced_connectors(
            n, rows.connector, nodes.node, nodes=nodes.kind.size, source=source
        ),
        anchored=anchored,
        meter_shift=shift,
        meter_shift_u=shift_u,
        meter_suspect=suspect,
        meter_u=used_u,
    )


def _next_points(
    views: list[FeederView], estimate: CityEstimate, converter_level: Floats
) -> list[Floats]:
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
    return out


def _outside(system: CitySystem, estimate: CityEstimate, kinds: Floats) -> Outside:
    """Return what vehicles, verifications and in-series meters say of each connector.

    From the rows of the normal equations without feeders and priors, all others at the estimate.
    """
    product, _ = schur_product(system.graph, estimate.error[:, None], level=kinds[:, None])
    precision = system.graph.own + system.direct_precision
    score = system.graph.score - product[:, 0] + system.graph.own * estimate.error
    score = score + system.direct_score
    known = precision > 1e-9
    return Outside(
        mean=np.where(known, score / np.where(known, precision, 1.0), 0.0),
        precision=np.where(known, precision, 0.0),
    )

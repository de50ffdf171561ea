"""Rounds of reweighting and empirical Bayes around the city's least squares.

A round solves the least squares with the weights and spreads of the round before, then judges
sessions, vehicles, populations and reference meters anew. The last round but one looks for changes
of errors; the last one leaves out what is older than them, and only it is solved to full accuracy.
A run that goes on from another one starts with its weights and spreads and needs two rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.risk.changes import Changes, changes_of_city, no_changes
from chargewatch.risk.decision import (
    PRIOR_POPULATION,
    Population,
    estimate_population,
    prior_precision,
)
from chargewatch.risk.estimator import (
    ROUGH_TOLERANCE,
    TOLERANCE,
    CityEstimate,
    CitySystem,
    estimate_city,
    own_evidence,
)
from chargewatch.risk.evidence import Judgement, Weighted, no_pasts, pasts_before, weighted
from chargewatch.risk.feeders.statements import (
    SUSPECT_U,
    FeederView,
    MeterFindings,
    Outside,
    first_gains,
    meter_findings,
)
from chargewatch.risk.memory import CityStatistics, LastJudgement
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.rounds_input import RoundsInput, prepared
from chargewatch.risk.run_inputs import RunInputs
from chargewatch.risk.spreads import (
    FIRST_SPREADS,
    SessionWeights,
    Spreads,
    anchor_wander,
    converter_spread,
    session_spreads,
    sessions_in_time,
    site_spread,
)
from chargewatch.risk.vehicles import PAIR_KINDS, session_score

FEW_DRAWS = 64_000
"""Rounds before the last draw so many numbers in all, at least 3 and at most 8 a connector."""


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
    judged: LastJudgement  # for the next run
    tail: Floats  # (s,), robust weights, for the next run


def _first_judgement(city: RoundsInput) -> Judgement:
    """Return what is known before the first round: nothing, or what the last run knew."""
    n, m, last = city.size, city.meter_u.size, city.statistics.judged
    layout, feeders = city.statistics.layout, city.statistics.feeders
    unknown = np.full(n, np.nan)
    bulk = (PRIOR_POPULATION.spread[0] * city.mpe) ** -2.0
    spreads = replace(FIRST_SPREADS, wander=city.config.anchor_drift_per_year)
    if last is not None:
        spreads = Spreads(
            session=last.session,
            vehicle=last.vehicle,
            converter=float(last.converter[0]),
            site=last.site,
            wander=float(last.wander[0]),
        )
    prior = bulk if last is None else last.prior_precision
    return Judgement(
        spreads=spreads,
        population=PRIOR_POPULATION if last is None else Population(last.share, last.spread),
        prior_precision=np.where(np.isfinite(prior), prior, bulk),
        z=tuple(
            first_gains(g, s, city.inputs.fleet)
            for g, s in zip(layout.groups, feeders, strict=True)
        ),
        weights=SessionWeights(
            tail=city.statistics.sessions.tail.astype(np.float64),
            inflation=np.ones(PAIR_KINDS) if last is None else last.inflation,
            node_tail=np.ones(city.node_kind.size),
        ),
        in_time=None,
        error=unknown if last is None else last.error,
        variance=unknown if last is None else last.variance,
        changes=no_changes(n),
        shift=np.full(m, np.nan),
        shift_u=np.full(m, np.nan),
        suspect=np.zeros(m, dtype=bool) if last is None else last.suspect,
    )


def _last_judgement(known: Judgement, estimate: CityEstimate) -> LastJudgement:
    """Return what the next run goes on from."""
    spreads = known.spreads
    return LastJudgement(
        session=spreads.session,
        vehicle=spreads.vehicle,
        converter=np.array([spreads.converter]),
        site=spreads.site,
        wander=np.array([spreads.wander]),
        inflation=known.weights.inflation,
        share=known.population.share,
        spread=known.population.spread,
        prior_precision=known.prior_precision,
        error=estimate.error,
        variance=estimate.variance,
        suspect=known.suspect,
    )


def _levels(city: RoundsInput, estimate: CityEstimate) -> tuple[Floats, Floats]:
    """Return mu by class of converter; c_k and kappa of the sessions."""
    split = city.models + city.converter_mean.size
    return estimate.level[city.models : split], estimate.level[split:]


def _judged(
    city: RoundsInput,
    known: Judgement,
    evidence: Weighted,
    estimate: CityEstimate,
    *,
    meters: bool,
    last: bool,
) -> Judgement:
    """Return the judgement of a round for the next one; before the last, changes are looked for."""
    converters, kinds = _levels(city, estimate)
    error, variance = own_evidence(
        estimate, model=city.model, prior_precision=known.prior_precision
    )
    u = np.sqrt(variance)
    population = estimate_population(np.expm1(error), city.mpe, standard_uncertainty=u)
    session, vehicle, weights = session_spreads(
        city.statistics.sessions,
        city.node,
        evidence.graph,
        known.spreads,
        base=evidence.base,
        precision=evidence.precision,
        estimate=estimate,
        level=kinds,
        seed=city.config.seed + 1,
    )
    spreads = Spreads(
        session=session,
        vehicle=vehicle,
        converter=converter_spread(
            list(evidence.views), population, mpe=city.mpe, level=converters
        ),
        site=site_spread(
            evidence.system, estimate, kinds, before=known.spreads.site, side=city.side
        ),
        wander=anchor_wander(
            estimate.error[evidence.stated.connector],
            estimate.variance[evidence.stated.connector],
            stated=evidence.stated.value,
            stated_variance=evidence.stated.certificate,
            weight=evidence.stated.precision,
            grown=evidence.stated.grown,
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
        z=_next_points(evidence.views, estimate, converters),
        weights=weights,
        error=estimate.error,
        variance=estimate.variance,
    )
    if meters:
        judged = _with_meters(city, judged, evidence, estimate)
    if last:
        rows = city.statistics.sessions
        in_time = sessions_in_time(
            rows,
            city.node,
            evidence.graph,
            base=evidence.base,
            precision=evidence.precision,
            estimate=estimate,
            level=kinds,
        )
        changes = changes_of_city(
            city.inputs,
            city.statistics,
            residual=in_time.own,
            information=in_time.weight / (in_time.variance * weights.inflation[rows.kind]),
            mpe=city.mpe,
            config=city.config,
        )
        judged = replace(judged, changes=changes, in_time=in_time)
    return judged


def _with_meters(
    city: RoundsInput, judged: Judgement, evidence: Weighted, estimate: CityEstimate
) -> Judgement:
    converters, kinds = _levels(city, estimate)
    shift, shift_u, suspect = judged.shift.copy(), judged.shift_u.copy(), judged.suspect.copy()
    outside = _outside(evidence.system, estimate, kinds)

    def findings(view: FeederView) -> MeterFindings:
        return meter_findings(
            view,
            u=city.meter_u[view.group.meter],
            outside=outside,
            expected=estimate.level[city.model],
            mpe=city.mpe,
            population_share=judged.population.share,
            population_spread=judged.population.spread,
            converter_level=converters,
            config=city.config,
        )

    for view, found in zip(evidence.views, in_threads(findings, evidence.views), strict=True):
        meter = view.group.meter
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
    present = no_pasts(city)
    rounds = config.iterations if statistics.judged is None else config.nightly_iterations
    for turn in range(rounds - 1):
        evidence = weighted(city, known, present)
        estimate = estimate_city(
            evidence.system, draws=draws, seed=config.seed, tolerance=ROUGH_TOLERANCE
        )
        last = turn == rounds - 2
        known = _judged(city, known, evidence, estimate, meters=last or turn == 1, last=last)
    pasts = pasts_before(city, known.changes)
    evidence = weighted(city, known, pasts)
    estimate = estimate_city(
        evidence.system, draws=config.draws, seed=config.seed, tolerance=TOLERANCE
    ).of_first(city.size)
    evidence = evidence.of_present(city, pasts)
    error, variance = own_evidence(
        estimate, model=city.model, prior_precision=known.prior_precision
    )
    rows = statistics.sessions
    base = np.where(evidence.base > 0, evidence.base, 1.0)
    return Inference(
        weighted=evidence,
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
            source=evidence.source,
        ),
        meter_shift=known.shift,
        meter_shift_u=known.shift_u,
        meter_suspect=known.suspect,
        meter_u=np.where(known.suspect, SUSPECT_U, city.meter_u),
        judged=_last_judgement(known, estimate),
        tail=known.weights.tail,
    )

"""Rounds of reweighting and empirical Bayes around the city's least squares.

A round solves the least squares with the weights and spreads of the round before, then judges
sessions, vehicles and populations anew. Rounds end when they move no estimate any more. Then
changes of errors are looked for; a last solution leaves out what is older than them, and only it is
solved to full accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.risk.changes import Changes, changes_of_city, no_changes
from chargewatch.risk.conflicts import Disagreements, conflicts
from chargewatch.risk.decision import (
    PRIOR_POPULATION,
    Population,
    estimate_population,
    prior_precision,
)
from chargewatch.risk.estimator import (
    MEAN_TOLERANCE,
    ROUGH_TOLERANCE,
    TOLERANCE,
    CityEstimate,
    CitySystem,
    estimate_city,
    moved_mean,
    own_evidence,
    swept,
)
from chargewatch.risk.evidence import (
    Held,
    Judgement,
    Pasts,
    Weighted,
    no_pasts,
    pasts_before,
    weighted,
)
from chargewatch.risk.feeders.statements import (
    FeederView,
    MeterFindings,
    Outside,
    first_gains,
    meter_findings,
)
from chargewatch.risk.given import NOTHING, Given
from chargewatch.risk.memory import CityStatistics
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.priors import LINE_U, SUSPECT_U
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.rounds_input import RoundsInput, prepared
from chargewatch.risk.run_inputs import RunInputs
from chargewatch.risk.second_witness import site_and_wander, witnessed
from chargewatch.risk.spreads import (
    FIRST_SPREADS,
    SessionWeights,
    Spreads,
    converter_spread,
    session_spreads,
    sessions_in_time,
)
from chargewatch.risk.vehicles import FIRST_TAIL, PAIR_KINDS, session_score
from chargewatch.risk.verifications import Stated, that_hold, with_doubt, without

NEARLY_SETTLED_U = 0.25
LEAST_ROUNDS = 4
"""That a city has in any case, however many sessions it has."""
FEW_DRAWS = 64_000
"""Rounds before the last draw so many numbers in all, at least 3 and at most 8 a connector."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """The last round."""

    weighted: Weighted
    whole: CityEstimate  # pasts included
    estimate: CityEstimate
    error: Floats  # (n,), gamma by own evidence
    variance: Floats  # (n,)
    population: Population
    spreads: Spreads
    changes: Changes
    conflicts: Disagreements
    soc_share: Floats  # (s,), share of a session's variance that is SOC resolution
    traced: Bools  # (n,), something traceable in its graph
    meter_shift: Floats
    meter_shift_u: Floats
    meter_suspect: Bools
    meter_u: Floats  # (m,), as used
    rounds: int
    moved_u: float  # by the last of them at most, in standard uncertainties


def _first_judgement(city: RoundsInput) -> Judgement:
    """Return what is known before the first round: nothing.

    Not what the last run knew: robust weights can rest in more than one place, and a run's figures
    must not depend on what ran before.
    """
    n, m = city.size, city.meter_u.size
    layout, feeders = city.statistics.layout, city.statistics.feeders
    unknown = np.full(n, np.nan)
    return Judgement(
        spreads=replace(FIRST_SPREADS, wander=city.config.anchor_drift_per_year),
        population=PRIOR_POPULATION,
        prior_precision=(PRIOR_POPULATION.spread[0] * city.mpe) ** -2.0,
        z=tuple(
            first_gains(g, s, city.inputs.fleet)
            for g, s in zip(layout.groups, feeders, strict=True)
        ),
        weights=SessionWeights(
            tail=np.ones(city.statistics.sessions.connector.size),
            tails=(FIRST_TAIL,) * PAIR_KINDS,
            inflation=np.ones(PAIR_KINDS),
            node_tail=np.ones(city.node_kind.size),
        ),
        in_time=None,
        holds=np.ones(city.inputs.anchors.connector.size),
        own=unknown,
        own_variance=unknown,
        changes=no_changes(city.inputs, city.statistics.sessions.connector.size),
        shift=np.full(m, np.nan),
        shift_u=np.full(m, np.nan),
        suspect=np.zeros(m, dtype=bool),
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
    given: Given,
    *,
    anew: bool,
) -> Judgement:
    """Return the judgement of a round for the next one.

    Unless the variances were made anew, what they and the shape of the city's errors decide stays:
    the population, its prior, and the tails of sessions.
    """
    converters, kinds = _levels(city, estimate)
    error, variance = own_evidence(
        estimate, model=city.model, prior_precision=known.prior_precision
    )
    population, prior = known.population, known.prior_precision
    if anew:
        u = np.sqrt(variance)
        population = _population(city, error, u, given)
        prior = prior_precision(
            np.expm1(error) - estimate.level[city.model],
            city.mpe,
            standard_uncertainty=u,
            population=population,
        )
    session, soc, vehicle, weights = session_spreads(
        city.statistics.sessions,
        city.node,
        evidence.graph,
        known.spreads,
        base=evidence.base,
        precision=evidence.precision,
        estimate=estimate,
        level=kinds,
        tails=None if anew else known.weights,
        seed=city.config.seed + 1,
    )
    found = witnessed(
        evidence.system,
        estimate,
        kinds,
        stated=evidence.stated,
        site=known.spreads.site,
        side=city.side,
    )
    site, wander = site_and_wander(found, expected=city.config.anchor_drift_per_year)
    spreads = Spreads(
        session=session,
        soc=soc,
        vehicle=vehicle,
        converter=converter_spread(
            list(evidence.views), population, mpe=city.mpe, level=converters
        ),
        site=site,
        wander=wander,
    )
    judged = replace(
        known,
        spreads=spreads,
        population=population,
        prior_precision=prior,
        z=_next_points(evidence.views, estimate, converters),
        weights=weights,
        holds=_that_hold(evidence.stated, known.holds, error, variance),
        own=error,
        own_variance=variance,
    )
    return given.in_place(judged)


def _population(city: RoundsInput, error: Floats, u: Floats, given: Given) -> Population:
    if given.population is not None:
        return given.population
    return estimate_population(np.expm1(error), city.mpe, standard_uncertainty=u)


def _that_hold(stated: Stated, before: Floats, error: Floats, variance: Floats) -> Floats:
    """Return the probability that each verification still holds, shape (a,)."""
    who = stated.connector
    other = without(error[who], variance[who], mean=stated.value, precision=stated.precision)
    holds = before.copy()
    holds[stated.anchor] = that_hold(stated, other)
    return holds


def _with_changes(
    city: RoundsInput, judged: Judgement, evidence: Weighted, estimate: CityEstimate, given: Given
) -> Judgement:
    """Return the judgement with the changes of errors that are found beside the estimate."""
    rows = city.statistics.sessions
    in_time = sessions_in_time(
        rows,
        city.node,
        evidence.graph,
        base=evidence.base,
        precision=evidence.precision,
        estimate=estimate,
        level=_levels(city, estimate)[1],
    )
    if given.no_changes:
        return replace(judged, in_time=in_time)
    changes = changes_of_city(
        city.inputs, city.statistics, in_time=in_time, mpe=city.mpe, config=city.config
    )
    beside = np.isfinite(changes.session_weight)
    weight = np.where(beside, changes.session_weight, in_time.weight)
    return replace(judged, changes=changes, in_time=replace(in_time, weight=weight))


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
        loose = np.where(known, LINE_U**-2.0, 1.0)
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


@dataclass(frozen=True, kw_only=True)
class Solved:
    """The judgement that the rounds came to rest at, and the city's solution with it."""

    city: RoundsInput
    known: Judgement
    pasts: Pasts
    evidence: Weighted
    whole: CityEstimate  # pasts included, before each block is solved once more
    rounds: int
    moved_u: float


def settled(
    inputs: RunInputs,
    statistics: CityStatistics,
    *,
    config: EngineConfig,
    given: Given = NOTHING,
) -> Solved:
    """Return the city's solution, after as many rounds as it takes."""
    city = prepared(inputs, statistics, config=config)
    known, rounds, moved = _settled(city, given.in_place(_first_judgement(city)), given)
    pasts = pasts_before(city, known.changes)
    evidence = weighted(city, known, pasts)
    whole = estimate_city(
        evidence.system, draws=config.draws, seed=config.seed, tolerance=TOLERANCE
    )
    return Solved(
        city=city,
        known=known,
        pasts=pasts,
        evidence=evidence,
        whole=whole,
        rounds=rounds,
        moved_u=moved,
    )


def concluded(solved: Solved, *, given: Given = NOTHING, held: Held | None = None) -> Inference:
    """Return the posterior of each connector that follows from a solution.

    Args:
        solved: of the city, or of an excerpt of it.
        given: truths that an evaluation gives in place of judgements.
        held: what the whole city tells, where it is an excerpt.
    """
    city, known, pasts, evidence = solved.city, solved.known, solved.pasts, solved.evidence
    whole = swept(evidence.system, solved.whole)
    if held is not None:
        whole = replace(whole, error=np.where(held.outside, held.error, whole.error))
    estimate = whole.of_first(city.size)
    error, variance = own_evidence(
        estimate, model=city.model, prior_precision=known.prior_precision
    )
    conflicting = conflicts(city, known, evidence, whole, pasts)
    evidence = evidence.of_present(city, pasts)
    error, variance = with_doubt(error, variance, evidence.stated)
    rows = city.statistics.sessions
    base = np.where(evidence.base > 0, evidence.base, 1.0)
    if held is None:
        population = _population(city, error, np.sqrt(variance), given)
        traced = traced_connectors(
            city.size,
            rows.connector,
            node=city.node,
            nodes=city.node_kind.size,
            source=evidence.source,
        )
    else:
        population, traced = held.population, held.traced
    return Inference(
        weighted=evidence,
        whole=whole,
        estimate=estimate,
        error=error,
        variance=variance,
        population=population,
        spreads=known.spreads,
        changes=known.changes,
        conflicts=conflicting,
        soc_share=rows.looseness * known.spreads.soc[rows.kind] * rows.soc_variance / base,
        traced=traced,
        meter_shift=known.shift,
        meter_shift_u=known.shift_u,
        meter_suspect=known.suspect,
        meter_u=np.where(known.suspect, SUSPECT_U, city.meter_u),
        rounds=solved.rounds,
        moved_u=solved.moved_u,
    )


def infer(
    inputs: RunInputs,
    statistics: CityStatistics,
    *,
    config: EngineConfig,
    given: Given = NOTHING,
) -> Inference:
    """Return the posterior of the city, after as many rounds as it takes."""
    return concluded(settled(inputs, statistics, config=config, given=given), given=given)


def _settled(city: RoundsInput, known: Judgement, given: Given) -> tuple[Judgement, int, float]:
    """Return the judgement once rounds move nothing any more, with the changes.

    And how many rounds there were, and by how much the last one moved an estimate, in u.

    Rounds make the variances anew until few connectors move much; then the mean moves beside them
    until it rests, which costs a fraction. A round that makes all anew must move nothing either.

    Reference meters are judged early on, again when little moves, and at the end: when that finds
    others suspect than before, the rounds go on.
    """
    config, present = city.config, no_pasts(city)
    draws = int(np.clip(FEW_DRAWS // max(city.size, 1), 3, 8))
    before: CityEstimate | None = None
    meters_at, moved = [np.inf, NEARLY_SETTLED_U], np.inf
    most = config.round_sessions // max(city.statistics.sessions.connector.size, 1)
    most = int(np.clip(most, LEAST_ROUNDS, config.most_rounds))
    nearly, rests = False, False
    for turn in range(1, most + 1):
        evidence = weighted(city, known, present)
        anew = not nearly or rests or turn == most
        if before is None or anew:
            estimate = estimate_city(
                evidence.system,
                draws=draws,
                seed=config.seed,
                tolerance=ROUGH_TOLERANCE,
                start=before,
            )
        else:
            estimate = moved_mean(evidence.system, before, tolerance=MEAN_TOLERANCE)
        judged = _judged(city, known, evidence, estimate, given, anew=anew)
        moved, mostly = (np.inf, np.inf) if before is None else _moved(judged, known)
        nearly |= mostly <= NEARLY_SETTLED_U
        rests = moved <= config.settled_u
        if rests or turn == most or (meters_at and turn > 1 and moved <= meters_at[0]):
            meters_at = meters_at[1:]
            judged = _with_meters(city, judged, evidence, estimate)
            rests &= bool((judged.suspect == known.suspect).all())
        known, before = judged, estimate
        if rests and anew:
            break
    return _with_changes(city, known, evidence, estimate, given), turn, moved


def _moved(now: Judgement, before: Judgement) -> tuple[float, float]:
    """Return by how much a round moved estimates or their uncertainties, in u: at most, and most.

    Most: all but one in a hundred connectors moved by less.
    """
    u = np.sqrt(now.own_variance)
    with np.errstate(invalid="ignore"):
        away = np.maximum(np.abs(now.own - before.own), np.abs(u - np.sqrt(before.own_variance)))
        share = away / u
    same = np.isnan(now.own) & np.isnan(before.own)
    share = np.where(same, 0.0, np.nan_to_num(share, nan=np.inf))
    if share.size == 0:
        return 0.0, 0.0
    return float(share.max()), float(np.quantile(share, 0.99, method="lower"))

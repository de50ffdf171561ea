"""An excerpt of a run: all that decided one connector, and its assessment computed from it again.

What is a connector's own, and that of the others under its feeder (the block), is there as the run
had it and goes through the same functions once more: intervals and sessions of the open days,
sufficient statistics of the closed ones, verifications, declared changes. What only a whole city
can tell is there as the run found it: spreads and weights (`Judgement`), levels with their
covariance, and of other connectors that the block's vehicles met, their estimates and those of
their sessions that these vehicles had (`Held`). The result is the run's, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Ints
from chargewatch.risk.engine import Course, result_of
from chargewatch.risk.estimator import CityEstimate
from chargewatch.risk.evidence import Held, Judgement, Pasts, pasts_before, weighted
from chargewatch.risk.excerpt_parts import anchors_of, inputs_part, judgement_part, statistics_part
from chargewatch.risk.feeders.blocks import FeederLayout, feeder_layout, meters_above
from chargewatch.risk.inference import Solved, concluded
from chargewatch.risk.memory import CityStatistics, extended
from chargewatch.risk.rebuilding import Rebuilt, with_wider_anchors
from chargewatch.risk.results import EngineConfig, RunResult
from chargewatch.risk.rounds_input import CityFacts, RoundsInput, prepared
from chargewatch.risk.run_inputs import RunInputs
from chargewatch.risk.situation_odds import Conditional
from chargewatch.risk.vehicles import SessionRows


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """What decided one connector; n connectors, those of its block and those that are held."""

    connector: int  # its row
    own: Bools  # (n,), of its block: all that is known of them is there
    config: EngineConfig
    inputs: RunInputs  # of the block: registry, open days, verifications, declared changes
    days: tuple[int, int]  # first and one after the last of the open days, since 1970
    closed: CityStatistics  # up to the last closed day, of the block
    statistics: CityStatistics  # up to the run; of those that are held only sessions
    evened: CityStatistics | None  # without the errors in situations that were found
    situations: tuple[Conditional, ...]
    unclosed: Bools  # (n,), see `Rebuilt`
    facts: CityFacts
    known: Judgement
    whole: CityEstimate  # (n + m,), pasts behind the connectors
    held: Held
    rounds: int
    moved_u: float


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """Rows of the city that an excerpt has, each ascending."""

    block: Ints
    connectors: Ints
    meters: Ints
    sessions: Ints
    nodes: Ints
    vehicles: Ints  # keys, what was -1 left out

    @property
    def own(self) -> Bools:
        """Which of the connectors are of the block."""
        return np.isin(self.connectors, self.block)

    def rows(self, connector: Ints) -> Ints:
        """Return rows of the excerpt from rows of the city."""
        return np.searchsorted(self.connectors, connector)


def _cut(course: Course, connector: int) -> _Cut:
    city = course.solved.city
    rows, layout = city.statistics.sessions, city.statistics.layout
    block = np.array([connector])
    group = int(layout.connector_group[connector])
    if group >= 0:
        block = layout.groups[group].member[layout.connector_row[connector]]
        block = np.sort(block[block >= 0])
    met = np.zeros(city.node_kind.size, dtype=bool)
    met[city.node[np.isin(rows.connector, block)]] = True
    sessions = np.flatnonzero(met[city.node])
    meters = np.concatenate([meters_above(layout)[block], layout.direct_meter[block]])
    fresh, closed = course.inputs.sessions, course.closed.sessions
    vehicles = np.concatenate(
        [
            rows.vehicle[sessions],
            closed.vehicle[np.isin(closed.connector, block)],
            fresh.vehicle[np.isin(fresh.connector, block)],
        ]
    )
    return _Cut(
        block=block,
        connectors=np.union1d(block, rows.connector[sessions]),
        meters=np.unique(meters[meters >= 0]),
        sessions=sessions,
        nodes=np.flatnonzero(met),
        vehicles=np.unique(vehicles[vehicles >= 0]),
    )


def excerpt_of(course: Course, connector: int) -> Excerpt:
    """Return the excerpt of a connector (row of the fleet)."""
    cut = _cut(course, connector)
    solved, found, config = course.solved, course.found, course.config
    inputs = inputs_part(course.inputs, cut.connectors, cut.own, cut.meters, cut.vehicles)

    # A change parts what came before it from what came since.
    dated = cut.own | solved.known.changes.taken[cut.connectors]

    def part(city: CityStatistics, sessions: Ints) -> CityStatistics:
        return statistics_part(
            city,
            inputs,
            connectors=cut.connectors,
            own=cut.own,
            meters=cut.meters,
            sessions=sessions,
            vehicles=cut.vehicles,
            dated=dated,
        )

    closed = course.closed
    situations = tuple(
        replace(one, connector=int(cut.rows(np.array([one.connector]))[0]))
        for one in found.conditional
        if one.connector in set(cut.block.tolist())
    )
    statistics = part(course.statistics, cut.sessions)
    evened = part(found.statistics, cut.sessions)
    known = judgement_part(
        solved.known,
        solved.city,
        connectors=cut.connectors,
        meters=cut.meters,
        sessions=cut.sessions,
        nodes=cut.nodes,
        anchors=anchors_of(solved.city.inputs, cut.block),
        layout=statistics.layout,
        dated=dated,
    )
    facts = _facts_part(solved.city.facts, solved.city, cut, statistics)
    city = prepared(with_wider_anchors(inputs, situations), evened, config=config, facts=facts)
    of = pasts_before(city, known.changes).of
    rows = np.concatenate([cut.connectors, solved.pasts.number[cut.connectors[of]]])
    return Excerpt(
        connector=int(cut.rows(np.array([connector]))[0]),
        own=cut.own,
        config=config,
        inputs=inputs,
        days=_open_days(course),
        closed=part(closed, np.flatnonzero(np.isin(closed.sessions.connector, cut.block))),
        statistics=statistics,
        evened=None if _same(statistics, evened) else evened,
        situations=situations,
        unclosed=found.unclosed[cut.connectors],
        facts=facts,
        known=known,
        whole=_estimate_part(solved.whole, rows),
        held=Held(
            outside=~np.concatenate([cut.own, cut.own[of]]),
            age=solved.pasts.age[cut.sessions],
            widening=solved.evidence.widening[rows],
            error=course.inference.whole.error[rows],
            traced=course.inference.traced[cut.connectors],
            population=course.inference.population,
        ),
        rounds=solved.rounds,
        moved_u=solved.moved_u,
    )


def _open_days(course: Course) -> tuple[int, int]:
    known, before = course.statistics.days, course.closed.days
    new = known[known > before.max(initial=-1)]
    return (int(new.min()), int(new.max()) + 1) if new.size else (0, 0)


def _facts_part(
    facts: CityFacts, city: RoundsInput, cut: _Cut, statistics: CityStatistics
) -> CityFacts:
    layout, sizes = city.statistics.layout, [g.size for g in city.statistics.layout.groups]
    return CityFacts(
        model=facts.model[cut.connectors],
        models=facts.models,
        classes=facts.classes[cut.connectors],
        converters=facts.converters,
        misfit=tuple(
            facts.misfit[sizes.index(g.size)][layout.meter_row[cut.meters[g.meter]]]
            for g in statistics.layout.groups
        ),
    )


def _estimate_part(whole: CityEstimate, rows: Ints) -> CityEstimate:
    cut = ("error", "variance", "sensitivity", "deviations", "own_precision")
    return replace(whole, **{name: getattr(whole, name)[rows] for name in cut})


def _same(one: Any, other: Any) -> bool:
    """Return whether two records of arrays are equal to the last bit."""
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
        for first, second in pairs:
            if hasattr(first, "__dataclass_fields__"):
                if not _same(first, second):
                    return False
            elif not np.array_equal(first, second, equal_nan=True):
                return False
    return True


def replayed(excerpt: Excerpt) -> RunResult:
    """Return the assessments of an excerpt's connectors; those of its block are the run's.

    The statistics of the open days are made anew from their intervals and sessions.
    """
    config = excerpt.config
    told = excerpt.inputs
    layout = feeder_layout(told.fleet, told.references, as_of_s=told.as_of_s)
    statistics = _with_open_days(excerpt, layout)
    evened = statistics
    if excerpt.evened is not None:
        evened = replace(excerpt.evened, layout=layout)
    inputs = with_wider_anchors(excerpt.inputs, excerpt.situations)
    city = prepared(inputs, evened, config=config, facts=excerpt.facts)
    pasts = _pasts(city, excerpt)
    solved = Solved(
        city=city,
        known=excerpt.known,
        pasts=pasts,
        evidence=weighted(city, excerpt.known, pasts, held=excerpt.held),
        whole=excerpt.whole,
        rounds=excerpt.rounds,
        moved_u=excerpt.moved_u,
    )
    return result_of(
        Course(
            inputs=excerpt.inputs,
            closed=statistics,
            statistics=statistics,
            found=Rebuilt(
                statistics=evened, conditional=excerpt.situations, unclosed=excerpt.unclosed
            ),
            solved=solved,
            inference=concluded(solved, held=excerpt.held),
            config=config,
        )
    )


def _pasts(city: RoundsInput, excerpt: Excerpt) -> Pasts:
    pasts = pasts_before(city, excerpt.known.changes)
    outside = excerpt.held.outside
    if outside.size != city.size + pasts.of.size:
        raise ValueError("the changes of the excerpt are not those that its estimates belong to")
    age = np.where(outside[pasts.connector], excerpt.held.age, pasts.age)
    return replace(pasts, age=age)


def _with_open_days(excerpt: Excerpt, layout: FeederLayout) -> CityStatistics:
    """Return the statistics up to the run, those of the block made anew from the open days."""
    told = excerpt.statistics
    made = extended(
        replace(excerpt.closed, layout=layout),
        excerpt.inputs,
        until_s=excerpt.inputs.as_of_s,
        config=excerpt.config,
        days=range(*excerpt.days),
    )
    mine = excerpt.own[told.sessions.connector]
    if int(mine.sum()) != made.sessions.connector.size:
        raise ValueError("the block's sessions of the excerpt are not those that the run counted")
    rows: dict[str, Any] = {}
    for name, values in vars(told.sessions).items():
        rows[name] = values.copy()
        rows[name][mine] = getattr(made.sessions, name)
    return replace(made, sessions=SessionRows(**rows))

"""The evidence of one round as a weighted least squares.

A connector whose error stepped has two errors. What its feeder says is what it said since the step
(`changes`); its sessions and verifications from before stay, as those of a connector of their own
that no longer is ("past"), because they calibrate the vehicles that came before and after.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.domain.times import DAY_S
from chargewatch.risk.changes import Changes, daily_offset
from chargewatch.risk.decision import Population
from chargewatch.risk.direct import since_verified
from chargewatch.risk.estimator import CitySystem, FeederEvidence
from chargewatch.risk.feeders.statements import (
    FeederView,
    GainStatement,
    feeder_view,
    leaks,
    with_changed,
    with_meter,
)
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.priors import SUSPECT_U, VERIFIED_AT_MPE
from chargewatch.risk.rounds_input import RoundsInput, in_series_u
from chargewatch.risk.spreads import SessionsInTime, SessionWeights, Spreads, site_variance
from chargewatch.risk.vehicles import SessionPairs, VehicleGraph, session_pairs, vehicle_graph
from chargewatch.risk.verifications import Stated, believed_precision

Number = TypeVar("Number", np.float64, np.int64)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one round hands to the next."""

    spreads: Spreads
    population: Population
    prior_precision: Floats  # (n,)
    z: tuple[Floats, ...]  # where feeders are linearised
    weights: SessionWeights
    in_time: SessionsInTime | None  # once changes have been looked for
    holds: Floats  # (a,), probability that each verification still holds
    own: Floats  # (n,), gamma by own evidence in the round before; NaN: not known
    own_variance: Floats
    changes: Changes
    shift: Floats  # (m,)
    shift_u: Floats
    suspect: Bools


@dataclass(frozen=True, kw_only=True)
class Pasts:
    """Connectors before the step of their error; n connectors, m pasts, s sessions."""

    of: Ints  # (m,), the connector of each past
    number: Ints  # (n,), the past of each connector as a row of n + m, -1 without
    connector: Ints  # (s,), of each session, pasts included
    pairs: SessionPairs
    age: Floats  # (s,), weights of sessions by age

    def padded(self, values: NDArray[Number]) -> NDArray[Number]:
        """Return values of connectors (n,) with those of the pasts' connectors behind, (n + m,)."""
        return np.concatenate([values, values[self.of]])

    def rows(self, values: Floats) -> Floats:
        """Return evidence of connectors (n,) with none for the pasts behind, (n + m,)."""
        return np.concatenate([values, np.zeros(self.of.size)])


def no_pasts(city: RoundsInput) -> Pasts:
    """Return the connectors as they are."""
    return Pasts(
        of=np.zeros(0, dtype=np.int64),
        number=np.full(city.size, -1, dtype=np.int64),
        connector=city.statistics.sessions.connector,
        pairs=city.pairs,
        age=age_weights(city, city.statistics.sessions.connector, size=city.size),
    )


def pasts_before(city: RoundsInput, changes: Changes) -> Pasts:
    """Return a past for each connector whose error stepped and that has evidence from before."""
    rows, anchors = city.statistics.sessions, city.inputs.anchors
    step_s = changes.step_s
    before = rows.ended_s < step_s[rows.connector]
    with_past = np.zeros(city.size, dtype=bool)
    with_past[rows.connector[before]] = True
    with_past[anchors.connector[anchors.verified_s < step_s[anchors.connector]]] = True
    of = np.flatnonzero(with_past)
    if of.size == 0:
        return no_pasts(city)
    number = np.full(city.size, -1, dtype=np.int64)
    number[of] = city.size + np.arange(of.size)
    connector = np.where(before, number[rows.connector], rows.connector)
    pairs = session_pairs(
        connector, city.node, connectors=city.size + of.size, nodes=city.node_kind.size
    )
    age = age_weights(city, connector, size=city.size + of.size)
    return Pasts(of=of, number=number, connector=connector, pairs=pairs, age=age)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What an excerpt is told of the whole city and of connectors outside of it; s sessions."""

    outside: Bools  # (n + m,), connectors and pasts of which only some sessions are there
    age: Floats  # (s,), weights of their sessions by age
    widening: Floats  # (n + m,), see `Weighted`
    error: Floats  # (n + m,), their gamma
    traced: Bools  # (n,), something traceable in the whole graph
    population: Population


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A round's evidence with its weights; pasts come behind the connectors."""

    system: CitySystem
    views: tuple[FeederView, ...]
    graph: VehicleGraph
    base: Floats  # (s,), variance of a session
    precision: Floats  # (s,), with forgetting
    widening: Floats  # (n + m,), by how much what all sessions of a connector share widens them
    stated: Stated
    anchored: Ints  # (n,), verifications that count
    source: Bools  # (n,), something traceable bears on it

    def of_present(self, city: RoundsInput, pasts: Pasts) -> Weighted:
        """Return the evidence of the n connectors alone, what leads through pasts in it."""
        size = city.size
        system = self.system
        cut = {
            name: getattr(system, name)[:size]
            for name in ("direct_precision", "direct_score", "prior_precision", "model")
        }
        graph = replace(self.graph, own=self.graph.own[:size], pairs=city.pairs)
        return replace(
            self,
            system=replace(system, graph=graph, **cut),
            graph=graph,
            precision=np.where(pasts.connector < size, self.precision, 0.0),
            anchored=self.anchored[:size],
        )


def age_weights(city: RoundsInput, connector: Ints, *, size: int) -> Floats:
    """Return the weights of sessions by age, scaled so that they state their own variance.

    With weights f the variance of a mean is sum f^2 / (sum f)^2 of a session's, so f is scaled by
    sum f / sum f^2 of its connector.
    """
    rows = city.statistics.sessions
    age = np.maximum(city.inputs.as_of_s - rows.ended_s, 0.0) / DAY_S
    f = 2.0 ** (-age / city.config.half_life_days)
    total = sum_by_row(connector, f, size=size)
    squared = sum_by_row(connector, f**2, size=size)
    scale = np.where(squared > 0, total / np.where(squared > 0, squared, 1.0), 1.0)
    return np.asarray(f * scale[connector])


def _session_graph(
    city: RoundsInput, known: Judgement, pasts: Pasts, held: Held | None
) -> tuple[VehicleGraph, Floats, Floats, Floats]:
    rows, spreads, changes = city.statistics.sessions, known.spreads, known.changes
    connector, size = pasts.connector, city.size + pasts.of.size
    # The usual weights judge the sessions of a connector that changed by its mean error.
    changed = changes.taken[rows.connector]
    tail = known.weights.tail
    if known.in_time is not None:
        tail = np.where(changed, known.in_time.weight, tail)
    resolution = spreads.soc[rows.kind] * rows.soc_variance
    base = rows.looseness * (spreads.session[rows.kind] ** 2 + resolution)
    precision = tail / (base * known.weights.inflation[rows.kind])
    precision = precision * pasts.age
    vehicle = known.weights.node_tail / spreads.vehicle[city.node_kind] ** 2
    pull = 1.0 / (sum_by_row(city.node, precision, size=vehicle.size) + vehicle)
    # What all sessions of a connector share caps what they say together at 1 / tau^2.
    seen = precision / (1.0 + precision * pull[city.node])
    own = sum_by_row(connector, seen, size=size)
    weight = sum_by_row(connector, precision, size=size)
    mean_load = sum_by_row(connector, precision * rows.load, size=size)
    mean_load /= np.where(weight > 0, weight, 1.0)
    shared = site_variance(spreads.site[pasts.padded(city.side)], mean_load)
    log_ratio = rows.log_ratio
    if changes.slope.any():
        # Along a drift every session is brought to the present; the slope's error is in them all.
        ahead = changes.ahead(rows.connector, rows.ended_s)
        mean_ahead = sum_by_row(connector, precision * ahead, size=size)
        mean_ahead /= np.where(weight > 0, weight, 1.0)
        shared += mean_ahead**2 * pasts.padded(changes.slope_variance)
        log_ratio = log_ratio + changes.slope[rows.connector] * ahead
    widening = 1.0 + own * shared
    if held is not None:
        widening = np.where(held.outside, held.widening, widening)
    precision = precision / widening[connector]
    graph = vehicle_graph(
        pasts.pairs,
        node_kind=city.node_kind,
        log_ratio=log_ratio,
        load=rows.load,
        precision=precision,
        vehicle_precision=vehicle,
    )
    return graph, base, precision, widening


def _stated(city: RoundsInput, known: Judgement, pasts: Pasts) -> Stated:
    anchors, inputs = city.inputs.anchors, city.inputs
    use = np.isfinite(anchors.relative_error) & np.isfinite(anchors.standard_uncertainty)
    use &= anchors.verified_s <= inputs.as_of_s
    changed = np.where(known.changes.changed >= 0, known.changes.changed * DAY_S, -np.inf)
    before = anchors.verified_s < np.maximum(changed, known.changes.step_s)[anchors.connector]
    past = np.where(before, pasts.number[anchors.connector], anchors.connector)
    use &= past >= 0
    who = past[use]
    certificate = anchors.standard_uncertainty[use] ** 2
    of = anchors.connector[use]
    certificate += (VERIFIED_AT_MPE[city.side[of]] * city.mpe[of]) ** 2
    grown = since_verified(anchors, as_of_s=inputs.as_of_s)[use]
    variance = certificate + known.spreads.wander**2 * grown
    # One long overtaken by events must not hold the present error.
    holds = np.where(who < city.size, known.holds[use], 1.0)
    return Stated(
        anchor=np.flatnonzero(use),
        connector=who,
        value=np.log1p(anchors.relative_error[use]),
        certificate=certificate,
        grown=grown,
        variance=variance,
        precision=believed_precision(variance, holds),
    )


def _since_changes(
    city: RoundsInput, known: Judgement
) -> tuple[tuple[GainStatement, ...], Floats, Floats]:
    """Return feeders' statements and in-series evidence without what is older than a change."""
    changes = known.changes
    precision, score = city.direct_precision, city.direct_score
    if not changes.taken.any():
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
        with_changed(s, z=present, precision=changes.z_precision, changed=changes.taken)
        for s in city.statements
    )
    series = changes.taken & (precision > 0)
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


def weighted(
    city: RoundsInput, known: Judgement, pasts: Pasts, *, held: Held | None = None
) -> Weighted:
    """Return the evidence with the weights and spreads of the round before.

    Args:
        city: what stays the same over the rounds.
        known: the judgement of the round before.
        pasts: connectors before their steps.
        held: of an excerpt, what is known of those outside of it.
    """
    statements, direct_p, direct_s = _since_changes(city, known)
    spread = np.full(city.size, known.spreads.converter)

    def view(one: tuple[GainStatement, GainStatement, Floats]) -> FeederView:
        statement, whole, z = one
        return feeder_view(
            statement,
            z=z,
            spread=spread,
            classes=city.classes,
            leak=leaks(whole, size=known.changes.size),
        )

    views = tuple(in_threads(view, zip(statements, city.statements, known.z, strict=True)))
    graph, base, precision, widening = _session_graph(city, known, pasts, held)
    stated = _stated(city, known, pasts)
    who, n = stated.connector, city.size
    anchor_p = sum_by_row(who, stated.precision, size=n + pasts.of.size)
    anchor_s = sum_by_row(who, stated.precision * stated.value, size=n + pasts.of.size)
    meter_u = np.where(known.suspect, SUSPECT_U, city.meter_u)
    metered = city.statistics.layout.connector_group >= 0
    metered &= city.statistics.rows.sum(axis=1) > 0
    return Weighted(
        system=CitySystem(
            feeders=tuple(_evidence(v, meter_u) for v in views),
            graph=graph,
            direct_precision=pasts.rows(direct_p) + anchor_p,
            direct_score=pasts.rows(direct_s) + anchor_s,
            prior_precision=pasts.padded(known.prior_precision),
            model=pasts.padded(city.model),
            model_precision=np.full(city.models, city.config.model_mean_spread**-2.0),
            converter_mean=city.converter_mean,
            converter_precision=city.converter_precision,
        ),
        views=views,
        graph=graph,
        base=base,
        precision=precision,
        widening=widening,
        stated=stated,
        anchored=np.bincount(who, minlength=n + pasts.of.size),
        source=(direct_p > 0) | (anchor_p[:n] > 0) | metered,
    )

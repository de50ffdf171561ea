"""Rows of a run's records, numbered anew for an excerpt; others' names and facts are left out."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Ints
from chargewatch.risk.evidence import Judgement
from chargewatch.risk.feeders.blocks import FeederLayout, feeder_layout
from chargewatch.risk.feeders.coverage import NEVER
from chargewatch.risk.memory import PER_CONNECTOR, SERIES, CityStatistics
from chargewatch.risk.rebuilding import part_of
from chargewatch.risk.rounds_input import RoundsInput
from chargewatch.risk.run_inputs import Fleet, RunInputs
from chargewatch.risk.spreads import SessionsInTime
from chargewatch.risk.vehicles import SessionRows, chosen


def _taken(record: Any, rows: Ints | Bools) -> Any:
    """Return some rows of a record all of whose fields are columns."""
    return type(record)(**{f.name: getattr(record, f.name)[rows] for f in fields(record)})


def _numbered(vehicle: Ints, vehicles: Ints) -> Ints:
    """Return running numbers in place of vehicles' keys, in the same order; -1 stays."""
    return np.where(vehicle >= 0, np.searchsorted(vehicles, vehicle), -1)


def _without_others(fleet: Fleet, own: Bools) -> Fleet:
    """Return a fleet of which nothing but the own connectors' facts is told."""
    told: dict[str, Any] = {}
    for field in fields(fleet):
        values = getattr(fleet, field.name)
        if field.name == "connector":
            told[field.name] = [
                name if mine else "" for name, mine in zip(values, own.tolist(), strict=True)
            ]
        else:
            blank = np.nan if values.dtype.kind == "f" else 0
            told[field.name] = np.where(own, values, blank).astype(values.dtype)
    return Fleet(**told)


def _without_times(rows: SessionRows, dated: Bools, own: Bools) -> SessionRows:
    """Return sessions of which only some have a time, and only own ones their course."""
    return replace(
        rows,
        ended_s=np.where(dated, rows.ended_s, 0.0),
        **{
            name: np.where(own, getattr(rows, name), 0.0)
            for name in ("started_s", "charge_s", "energy_wh")
        },
    )


def anchors_of(inputs: RunInputs, connectors: Ints) -> Ints:
    """Return the rows of the verifications of some connectors."""
    return np.flatnonzero(np.isin(inputs.anchors.connector, connectors))


def inputs_part(
    inputs: RunInputs, connectors: Ints, own: Bools, meters: Ints, vehicles: Ints
) -> RunInputs:
    """Return a run's inputs of some connectors, all but the fleet's rows of own ones alone.

    Args:
        inputs: of the run.
        connectors: rows, ascending.
        own: which of them are told of, shape (n,).
        meters: rows, ascending.
        vehicles: keys that become running numbers, ascending.
    """
    part = part_of(inputs, meters, connectors, inputs.from_s)
    mine = np.flatnonzero(own[part.connector_intervals.instrument])
    number = np.full(inputs.fleet.size, -1, dtype=np.int64)
    number[connectors[own]] = np.flatnonzero(own)

    def of_own(record: Any) -> Any:
        taken = _taken(record, np.flatnonzero(number[record.connector] >= 0))
        return replace(taken, connector=number[taken.connector])

    sessions = of_own(inputs.sessions)
    return replace(
        part,
        from_s=inputs.from_s,
        fleet=_without_others(part.fleet, own),
        connector_intervals=part.connector_intervals.take(mine),
        sessions=replace(sessions, vehicle=_numbered(sessions.vehicle, vehicles)),
        anchors=of_own(inputs.anchors),
        declared=of_own(inputs.declared),
    )


def statistics_part(
    city: CityStatistics,
    inputs: RunInputs,
    *,
    connectors: Ints,
    own: Bools,
    meters: Ints,
    sessions: Ints,
    vehicles: Ints,
    dated: Bools,
) -> CityStatistics:
    """Return a city's statistics of the connectors of inputs made by `inputs_part`.

    Args:
        city: the statistics.
        inputs: of the excerpt.
        connectors: their rows in the city.
        own: which of them are told of, shape (n,).
        meters: rows in the city.
        sessions: rows of the sessions that are told.
        vehicles: keys that become running numbers.
        dated: whose sessions' times are told, shape (n,).
    """
    layout = feeder_layout(inputs.fleet, inputs.references, as_of_s=inputs.as_of_s)
    sizes = [group.size for group in city.layout.groups]
    feeders = []
    for group in layout.groups:
        whole = city.feeders[sizes.index(group.size)]
        feeders.append(_taken(whole, city.layout.meter_row[meters[group.meter]]))
    blank: dict[str, Any] = dict.fromkeys(PER_CONNECTOR, 0.0)
    blank |= {"first_s": np.nan, "last_s": np.nan, "heard": NEVER}
    told: dict[str, Any] = {}
    for name in PER_CONNECTOR:
        values = getattr(city, name)
        told[name] = np.where(own, values[connectors], blank[name]).astype(values.dtype)
    for name in SERIES:
        values = getattr(city, name)
        told[name] = np.where(own[:, None], values[connectors], 0).astype(values.dtype)
    rows = chosen(city.sessions, sessions)
    rows = replace(
        rows,
        connector=np.searchsorted(connectors, rows.connector),
        vehicle=_numbered(rows.vehicle, vehicles),
    )
    rows = _without_times(rows, dated[rows.connector], own[rows.connector])
    return replace(
        city,
        layout=layout,
        feeders=tuple(feeders),
        meter_heard=city.meter_heard[meters],
        sessions=rows,
        **told,
    )


def judgement_part(
    known: Judgement,
    city: RoundsInput,
    *,
    connectors: Ints,
    meters: Ints,
    sessions: Ints,
    nodes: Ints,
    anchors: Ints,
    layout: FeederLayout,
    dated: Bools,
) -> Judgement:
    """Return a judgement of some rows of the city, each ascending; feeders as in a layout.

    Of sessions at connectors without a date there is only how far they are believed.
    """
    changes, possible = known.changes, known.changes.possible
    of_city = city.statistics.layout
    sizes = [group.size for group in of_city.groups]
    told = dated[np.searchsorted(connectors, city.statistics.sessions.connector[sessions])]
    cut = {
        field.name: getattr(changes, field.name)[connectors]
        for field in fields(changes)
        if field.name not in ("possible", "last_day", "session_weight")
    }
    return replace(
        known,
        prior_precision=known.prior_precision[connectors],
        z=tuple(
            known.z[sizes.index(group.size)][of_city.meter_row[meters[group.meter]]]
            for group in layout.groups
        ),
        weights=replace(
            known.weights,
            tail=known.weights.tail[sessions],
            node_tail=known.weights.node_tail[nodes],
        ),
        in_time=_in_time_part(known, sessions, told),
        holds=known.holds[anchors],
        own=known.own[connectors],
        own_variance=known.own_variance[connectors],
        changes=replace(
            changes,
            possible=_taken(possible, connectors),
            session_weight=np.where(told, changes.session_weight[sessions], np.nan),
            **cut,
        ),
        shift=known.shift[meters],
        shift_u=known.shift_u[meters],
        suspect=known.suspect[meters],
    )


def _in_time_part(known: Judgement, sessions: Ints, told: Bools) -> SessionsInTime | None:
    if known.in_time is None:
        return None
    part = _taken(known.in_time, sessions)
    return SessionsInTime(
        **{name: np.where(told, values, 0.0) for name, values in vars(part).items()}
    )

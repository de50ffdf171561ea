"""The short road for evaluation: a simulated city as the arrays of one risk run, in memory.

The readings are those that the gateways would send, at their times and with their quantisation,
and go through the platform's own `risk.registers.interval_energy`; only wire, broker and database
are left out. Faults of messages (lost, late, doubled, a silent gateway) are not applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats
from chargewatch.domain.times import DAY_S, SLOT_S
from chargewatch.risk.registers import interval_energy
from chargewatch.risk.run_inputs import (
    Anchors,
    FinishedSessions,
    Fleet,
    Intervals,
    References,
    RunInputs,
)
from chargewatch.simulators.batteries import ToldBatteries
from chargewatch.simulators.bills import Finished
from chargewatch.simulators.charging import ChargingSessions
from chargewatch.simulators.city import City
from chargewatch.simulators.feeders import grid_times
from chargewatch.simulators.metering import Block
from chargewatch.simulators.readings import RESET, Readings
from chargewatch.simulators.stream import PacketStream
from chargewatch.simulators.truth import present_error
from chargewatch.simulators.wire_form import OFFSET_S


@dataclass(frozen=True, kw_only=True)
class SessionTruth:
    """What is true of the inputs' sessions, shape (s,)."""

    relative_error: Floats  # of the meter over the session's energy, its register's step apart
    garbage: Bools  # its battery energy or state of charge is nonsense, or falsified


@dataclass(frozen=True, kw_only=True)
class Known:
    """Inputs of a run together with the true errors at its time, fractions, shape (n,)."""

    inputs: RunInputs
    relative_error: Floats
    sessions: SessionTruth
    stream: PacketStream


def known_inputs(city: City, *, as_of_s: float | None = None) -> Known:
    """Return what a risk run as of a time (epoch s; default: the history's end) would read.

    With it the truth: present errors as of the same time.
    """
    as_of_s = city.to_s if as_of_s is None else as_of_s
    stream = city.new_stream()
    begin_s, end_s = city.from_s - city.origin_s, as_of_s - city.origin_s
    readings: list[Readings] = []
    meters: list[tuple[Floats, Floats]] = []
    sessions: list[dict[str, Any]] = []
    cadence = city.history_cadence
    for day in range(math.ceil(end_s / DAY_S)):
        block = stream.block(day)
        low, high = max(begin_s, day * DAY_S), min(end_s, (day + 1) * DAY_S)
        if low >= high:
            continue
        readings.append(stream.sampler.readings(block, cadence, begin_s=low, end_s=high))
        times = grid_times(low, high, step_s=cadence.reference_s)
        if city.layout.meters.size and times.size:
            meters.append((times, stream.feeders.registers(block, times)[0]))
        sessions.append(_sessions_of_day(stream, block, low, high))
    finished, session_truth = _sessions(city, sessions)
    inputs = RunInputs(
        as_of_s=as_of_s,
        from_s=city.from_s,
        fleet=_fleet(city),
        references=_references(city),
        connector_intervals=_connector_intervals(city, readings, as_of_s),
        meter_intervals=_meter_intervals(city, meters, as_of_s),
        sessions=finished,
        anchors=_anchors(city),
    )
    return Known(
        inputs=inputs,
        relative_error=present_error(city, stream, end_s),
        sessions=session_truth,
        stream=stream,
    )


def _slots(city: City, as_of_s: float) -> dict[str, int]:
    return {"first_slot": int(city.from_s // SLOT_S), "last_slot": int(as_of_s // SLOT_S)}


def _connector_intervals(city: City, readings: list[Readings], as_of_s: float) -> Intervals:
    connector = np.concatenate([r.connector for r in readings])
    t_s = np.concatenate([r.t_s for r in readings])
    energy = np.concatenate([r.energy_wh for r in readings])
    reset = np.concatenate([r.context for r in readings]) == RESET
    station, clocks = city.layout.connectors.station[connector], city.clocks
    told_s = clocks.read_s(station, t_s) + clocks.shift_s(station, t_s)
    at = told_s + city.origin_s
    order = np.lexsort((at, connector))
    return interval_energy(
        connector[order],
        at[order],
        energy[order],
        reset=reset[order],
        resolution_wh=city.layout.connectors.resolution_wh,
        rated_w=city.layout.connectors.rated_w,
        **_slots(city, as_of_s),
    )


def _meter_intervals(city: City, meters: list[tuple[Floats, Floats]], as_of_s: float) -> Intervals:
    size = city.layout.meters.size
    times = np.concatenate([m[0] for m in meters]) if meters else np.zeros(0)
    registers = np.concatenate([m[1] for m in meters], axis=1) if meters else np.zeros((size, 0))
    station = city.layout.meters.station[:, None]
    shift = city.clocks.shift_s(station, np.broadcast_to(times, (size, times.size)))
    return interval_energy(
        np.repeat(np.arange(size), times.size),
        (times + city.origin_s + shift).ravel(),
        registers.ravel(),
        reset=np.zeros(registers.size, dtype=bool),
        resolution_wh=city.layout.meters.resolution_wh,
        rated_w=np.full(size, np.nan),
        **_slots(city, as_of_s),
    )


def _sessions_of_day(stream: PacketStream, block: Block, low: float, high: float) -> dict[str, Any]:
    s = block.sessions
    ended = (s.vehicle >= 0) & (s.end_s >= low) & (s.end_s < high) & ~stream.sampler.hidden(block)
    ended &= s.end_s < stream.sampler.silent_from[s.connector]
    rows = np.flatnonzero(ended)
    finished: Finished = stream.bills.finished(block, rows)
    money = (finished.energy_cents + finished.service_cents) / 100
    batteries = stream.bills.batteries.told(s, rows)
    true, indicated = block.true_wh[rows, -1], block.indicated_wh[rows, -1]
    return {
        "relative_error": np.divide(indicated, true, out=np.ones_like(true), where=true > 0) - 1.0,
        "garbage": _garbage(s.rows(rows), batteries),
        "connector": s.connector[rows],
        "vehicle": s.vehicle[rows],
        "started_s": s.start_s[rows] + stream.origin_s,
        "ended_s": s.end_s[rows] + stream.origin_s,
        "energy_wh": finished.metered_wh,
        "billed_wh": finished.billed_wh,
        **vars(batteries),
        "interrupted": s.interrupted[rows],
        "energy_price": np.divide(
            money * 1000,
            finished.billed_wh,
            out=np.full(rows.size, np.nan),
            where=finished.billed_wh > 0,
        ),
    }


def _garbage(s: ChargingSessions, told: ToldBatteries) -> Bools:
    """Return which sessions tell something else of their battery than it is like."""
    pairs = (
        (told.bms_energy_wh, s.bms_wh),
        (told.battery_capacity_wh, s.nominal_wh),
        (told.soc_start_pct, np.clip(np.round(s.soc_begin * 100), 0, 100)),
        (told.soc_stop_pct, np.clip(np.round(s.soc_end * 100), 0, 100)),
    )
    spoiled = [np.isfinite(said) & (said != true) for said, true in pairs]
    return np.asarray(np.any(spoiled, axis=0))


def _sessions(city: City, days: list[dict[str, Any]]) -> tuple[FinishedSessions, SessionTruth]:
    columns = {name: np.concatenate([day[name] for day in days]) for name in days[0]}
    order = np.lexsort((columns["connector"], columns["ended_s"]))
    columns = {name: column[order] for name, column in columns.items()}
    # Numbers without gaps, as the platform gives them.
    columns["vehicle"] = np.unique(columns["vehicle"], return_inverse=True)[1].astype(np.int64)
    truth = SessionTruth(**{f.name: columns.pop(f.name) for f in fields(SessionTruth)})
    return FinishedSessions(**columns), truth


def _fleet(city: City) -> Fleet:
    c, s = city.layout.connectors, city.layout.stations
    registered = np.ones(c.size, dtype=bool)
    registered[list(city.faults.of_kind("unregistered"))] = False
    return Fleet(
        connector=c.name,
        number=np.arange(c.size),
        station=c.station,
        operator=s.operator[c.station],
        model=c.model,
        is_dc=c.is_dc,
        cable_loss_compensated=c.compensated,
        mpe=np.where(registered, c.mpe, np.nan),
        rated_power_w=np.where(registered, c.rated_w, np.nan),
        max_current_a=np.where(c.is_dc, 250.0, np.where(c.rated_w > 7_000, 48.0, 32.0)),
        resolution_wh=c.resolution_wh,
        registered=registered,
    )


def _references(city: City) -> References:
    m, first = city.layout.meters, city.layout.stations.first
    members = [
        np.array([c]) if c >= 0 else np.arange(first[s], first[s + 1])
        for s, c in zip(m.station.tolist(), m.connector.tolist(), strict=True)
    ]
    sizes = [len(x) for x in members]
    return References(
        meter=m.name,
        number=np.arange(m.size),
        station=m.station,
        in_series=m.connector >= 0,
        is_dc=m.is_dc,
        standard_uncertainty=m.standard_uncertainty,
        resolution_wh=m.resolution_wh,
        valid_until_s=np.full(m.size, city.to_s + 165 * DAY_S),
        member_start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        members=np.concatenate([*members, np.zeros(0, dtype=np.int64)]).astype(np.int64),
    )


def _anchors(city: City) -> Anchors:
    rows = {name: i for i, name in enumerate(city.layout.connectors.name)}
    stated = [v for v in city.registry()["verifications"] if v["relative_error"] is not None]
    return Anchors(
        connector=np.array([rows[v["connector"]] for v in stated], dtype=np.int64),
        verified_s=np.array([_day_end_s(v["verified_on"]) for v in stated], dtype=np.float64),
        valid_until_s=np.array([_day_end_s(v["valid_until"]) for v in stated], dtype=np.float64),
        relative_error=np.array([v["relative_error"] for v in stated], dtype=np.float64),
        standard_uncertainty=np.array(
            [v["expanded_uncertainty"] / v["coverage_factor"] for v in stated], dtype=np.float64
        ),
    )


def _day_end_s(day: str) -> float:
    midnight = float(np.datetime64(day, "s").astype(np.int64))
    return midnight + DAY_S - OFFSET_S

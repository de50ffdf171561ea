"""A small city with its own physics, for the tests of the risk engine."""

from collections import defaultdict
from dataclasses import dataclass, fields

import numpy as np

from chargewatch.risk.run_inputs import (
    Anchors,
    FinishedSessions,
    Fleet,
    Intervals,
    References,
    RunInputs,
)

DAY = 86400.0

START_DAY = 20500

MINUTES = 1440


@dataclass
class City:
    """Inputs with the truth beside them."""

    inputs: RunInputs
    error: np.ndarray  # present relative error
    meter_bias: np.ndarray
    vehicle_scale: np.ndarray


def finished_sessions(connector, **told):
    """Return sessions of which nothing is known but what is told."""
    untold = np.full(len(connector), np.nan)
    columns = {field.name: untold for field in fields(FinishedSessions)}
    columns["interrupted"] = np.zeros(len(connector), dtype=bool)
    return FinishedSessions(**(columns | {"connector": connector} | told))


def no_sessions():
    ints = np.zeros(0, dtype=np.int64)
    return finished_sessions(ints, vehicle=ints)


def no_intervals():
    none, ints = np.zeros(0), np.zeros(0, dtype=np.int64)
    return Intervals(
        instrument=ints, slot=ints, energy_wh=none, u_wh=none, quality=np.zeros(0, dtype=np.int16)
    )


def no_anchors():
    none = np.zeros(0)
    return Anchors(
        connector=np.zeros(0, dtype=np.int64),
        verified_s=none,
        valid_until_s=none,
        relative_error=none,
        standard_uncertainty=none,
    )


def _plan(rng, days, per_day, is_dc, power):
    """Return start minutes, lengths and powers of one connector's sessions, not overlapping."""
    count = rng.poisson(per_day * days)
    start = np.sort(rng.uniform(0, days * MINUTES - 300, count))
    length = rng.uniform(15, 50, count) if is_dc else rng.uniform(60, 280, count)
    level = power * (rng.uniform(0.4, 0.9, count) if is_dc else rng.choice([0.5, 1.0], count))
    keep, end = [], -1.0
    for k in range(count):
        if start[k] > end + 3:
            keep.append(k)
            end = start[k] + length[k]
    return start[keep], length[keep], level[keep]


def make_city(
    seed,
    *,
    stations=6,
    size=6,
    days=30,
    dc_stations=0,
    spread_mpe=0.3,
    offenders=2,
    offence_mpe=2.5,
    meter_u=0.001,
    meters=True,
    vehicles=200,
    garbage=0.0,
    anchors=0,
    wrong_meter=None,
    step_day=None,
    feeder_step_wh=10.0,
    sessions_per_day=None,
    soc_noise=0.012,
):
    """Return a city: one station is a row of connectors under one feeder meter."""
    rng = np.random.default_rng(seed)
    n = stations * size
    station = np.repeat(np.arange(stations), size)
    is_dc = station >= stations - dc_stations
    mpe = np.where(is_dc, 0.01, 0.02)
    power = np.where(is_dc, 60_000.0, 7_000.0)
    error = rng.normal(0, spread_mpe * mpe)
    bad = rng.choice(n, offenders, replace=False)
    error[bad] = rng.choice([-1, 1], offenders) * offence_mpe * mpe[bad]
    before = error.copy()
    if step_day is not None:
        before[bad] = rng.normal(0, spread_mpe * mpe[bad])
    efficiency = np.where(is_dc, rng.normal(0.965, 0.004, n), 1.0)
    bias = rng.normal(0, meter_u, stations)
    if wrong_meter is not None:
        bias[wrong_meter[0]] = wrong_meter[1]
    scale = np.exp(rng.normal(0, 0.03, vehicles)) * 1.04
    total = days * MINUTES
    feeder = np.zeros((stations, total + 1))
    own, rows = [], defaultdict(list)
    slots_own = []
    resolution = 1.0
    for i in range(n):
        per_day = sessions_per_day or (6.0 if is_dc[i] else 1.6)
        start, length, level = _plan(rng, days, per_day, is_dc[i], power[i])
        minute = np.arange(total + 1)
        # Energy up to each minute; DC tapers in the last third of a session.
        true = np.zeros(total + 1)
        for a, d, p in zip(start, length, level, strict=True):
            t = np.clip(minute - a, 0, d)
            if is_dc[i]:
                cut = 2 * d / 3
                late = np.maximum(t - cut, 0)
                t = np.minimum(t, cut) + late - 0.6 * late**2 / (2 * (d - cut))
            true += p * t / 60.0
        time_s = minute * 60.0
        gain = np.where(time_s < (step_day or 0) * DAY, 1 + before[i], 1 + error[i])
        shown = np.concatenate([[0.0], np.cumsum(np.diff(true) * gain[1:])])
        flow = np.diff(true) * 60.0
        loss = np.where(flow > 0, 0.004 * power[i] + 0.01 * flow**2 / power[i], 0.0)
        source = flow / efficiency[i] + (loss if is_dc[i] else 0.0)
        feeder[station[i], 1:] += np.cumsum(source / 60.0)
        register = np.floor(shown / resolution) * resolution
        energy = np.diff(register[::15])
        of_day = np.arange(energy.size) % 96
        active = np.flatnonzero((energy > 0) | (of_day == 0) | (of_day == 95))
        slots_own.append((np.full(active.size, i), active, energy[active]))
        for a, d in zip(start, length, strict=True):
            e_true = np.interp(a + d, minute, true) - np.interp(a, minute, true)
            e_shown = np.interp(a + d, minute, shown) - np.interp(a, minute, shown)
            if e_true < 600:
                continue
            v = rng.integers(vehicles)
            capacity = 60_000.0
            dsoc = e_true / scale[v] / capacity * np.exp(rng.normal(0, soc_noise))
            if dsoc > 0.85:
                continue
            soc = rng.uniform(5, 95 - 100 * dsoc)
            if rng.uniform() < garbage:
                e_shown *= np.exp(rng.choice([-1, 1]) * rng.uniform(0.1, 0.8))
            values = {
                "connector": i,
                "vehicle": v,
                "started_s": a * 60.0,
                "ended_s": (a + d) * 60.0,
                "energy_wh": np.floor(e_shown),
                "billed_wh": np.floor(e_shown),
                "soc_start_pct": np.round(soc),
                "soc_stop_pct": np.round(soc + 100 * dsoc),
                "battery_capacity_wh": capacity,
                "energy_price": 1.0,
            }
            for name, value in values.items():
                rows[name].append(value)
        own.append(shown)
    slot0 = START_DAY * 96
    instrument, slot, energy = (np.concatenate([x[k] for x in slots_own]) for k in range(3))
    connector_intervals = Intervals(
        instrument=instrument.astype(np.int64),
        slot=slot + slot0,
        energy_wh=energy,
        u_wh=np.full(energy.size, 0.41 * resolution),
        quality=np.zeros(energy.size, np.int16),
    )
    aux = 150.0 + 60.0 * np.cos(2 * np.pi * np.arange(total + 1) / MINUTES - 1.0)
    feeder += np.cumsum(aux / 60.0)
    feeder *= 1 + bias[:, None]
    offset = rng.normal(0, 1.0, stations)
    at = np.arange(0, total + 1, 15)
    register = (
        np.stack(
            [
                np.floor(
                    np.interp(at + offset[s] / 60, np.arange(total + 1), feeder[s]) / feeder_step_wh
                )
                for s in range(stations)
            ]
        )
        * feeder_step_wh
    )
    energy = np.diff(register, axis=1)
    k = energy.shape[1]
    meter_intervals = Intervals(
        instrument=np.repeat(np.arange(stations), k),
        slot=np.tile(np.arange(k), stations) + slot0,
        energy_wh=energy.ravel(),
        u_wh=np.full(energy.size, 0.41 * feeder_step_wh),
        quality=np.zeros(energy.size, np.int16),
    )
    if not meters:
        meter_intervals = no_intervals()
    order = np.argsort(rows["ended_s"], kind="stable")
    ints = ("connector", "vehicle")
    table = {
        name: np.asarray(v, dtype=np.int64 if name in ints else None)[order]
        for name, v in rows.items()
    }
    for name in ("started_s", "ended_s"):
        table[name] = table[name] + START_DAY * DAY
    who = rng.choice(n, anchors, replace=False)
    m = stations if meters else 0
    inputs = RunInputs(
        as_of_s=(START_DAY + days) * DAY,
        from_s=START_DAY * DAY,
        fleet=Fleet(
            connector=[f"C{i:04d}" for i in range(n)],
            number=np.arange(n),
            station=station,
            operator=np.zeros(n, np.int64),
            model=is_dc.astype(np.int64),
            is_dc=is_dc,
            cable_loss_compensated=np.zeros(n, bool),
            mpe=mpe,
            rated_power_w=power,
            max_current_a=np.where(is_dc, 200.0, 32.0),
            resolution_wh=np.full(n, resolution),
            registered=np.ones(n, bool),
        ),
        references=References(
            meter=[f"M{s:03d}" for s in range(m)],
            number=np.arange(m),
            station=np.arange(m),
            in_series=np.zeros(m, bool),
            is_dc=np.zeros(m, bool),
            standard_uncertainty=np.full(m, meter_u),
            resolution_wh=np.full(m, feeder_step_wh),
            valid_until_s=np.full(m, (START_DAY + 400) * DAY),
            member_start=np.arange(m + 1) * size,
            members=np.arange(m * size),
        ),
        connector_intervals=connector_intervals,
        meter_intervals=meter_intervals,
        sessions=finished_sessions(**table),
        anchors=Anchors(
            connector=who,
            verified_s=np.full(anchors, (START_DAY - 60) * DAY),
            valid_until_s=np.full(anchors, (START_DAY + 900) * DAY),
            relative_error=before[who] + rng.normal(0, 0.0007, anchors),
            standard_uncertainty=np.full(anchors, 0.0007),
        ),
    )
    return City(inputs, error, bias, scale)

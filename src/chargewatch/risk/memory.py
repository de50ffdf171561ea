"""Sufficient statistics of a city, day by day with forgetting, so that a night reads a few days.

A state holds whole days that are closed: those that ended `OPEN_DAYS` before the run. What came
since is added on a copy, each night anew, so that what is late by less than that is no late data.
Connectors and meters are known by the database's number, and with each connector goes a
fingerprint of what its statistics were built with: where that has changed, they can't be gone on
from (`outdated`) and are made again (`joined_states`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.domain.times import DAY_S, SLOT_S, SLOTS_A_DAY
from chargewatch.risk.direct import direct_day
from chargewatch.risk.feeders.balance import (
    FeederStatistics,
    empty_statistics,
    feeders_day,
    forget,
)
from chargewatch.risk.feeders.blocks import FeederLayout, feeder_layout
from chargewatch.risk.feeders.coverage import NEVER, coverage
from chargewatch.risk.fingerprint import fingerprints
from chargewatch.risk.priors import UNKNOWN_METER_STEP_WH
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import FinishedSessions, Intervals, RunInputs
from chargewatch.risk.vehicles import SessionRows, chosen, joined, session_rows

STATE_VERSION = 7
OPEN_DAYS = 2
"""So many days before a run are not closed yet: readings and sessions of them may still come."""

Arrays = Mapping[str, NDArray]  # type: ignore[type-arg]


@dataclass(frozen=True, kw_only=True)
class CityStatistics:
    """All that a run keeps; n connectors, m meters, d days of the series."""

    layout: FeederLayout
    feeders: tuple[FeederStatistics, ...]
    last_slot: int  # first slot that is not in yet
    sessions_until_s: float
    decayed_to_s: float
    days: Ints  # (d,), days since 1970, ascending
    metered: Floats  # (n, d), daily estimate by meters; precision 0 without
    metered_precision: Floats  # (n, d)
    rows: Ints  # (n, d), intervals with energy
    direct_rows: Ints  # (n, d)
    direct_weight: Floats  # (n,), sum f p
    direct_weight_squared: Floats  # (n,), sum f^2 p
    direct_sum: Floats  # (n,), sum f p x
    energy_wh: Floats  # (n,), sum f E
    energy_days: Floats  # (n,), sum f of the days, as far as they are covered
    price_sum: Floats  # (n,), sum E price
    price_wh: Floats  # (n,)
    first_s: Floats  # (n,)
    last_s: Floats  # (n,)
    heard: Ints  # (n,), one after the last slot that is covered, see `Coverage`
    meter_heard: Ints  # (m,)
    sessions: SessionRows


def closed_until_s(as_of_s: float) -> float:
    """Return the end of the last day that a run as of a time closes."""
    return float(np.floor(as_of_s / DAY_S) - OPEN_DAYS) * DAY_S


def _mapping(old: Ints, new: Ints) -> Ints:
    """Return for every old number its row among the new ones, -1 when it is gone."""
    if new.size == 0:
        return np.full(old.size, -1, dtype=np.int64)
    order = np.argsort(new, kind="stable")
    place = np.minimum(np.searchsorted(new[order], old), new.size - 1)
    return np.where(new[order][place] == old, order[place], -1)


def outdated(state: Arrays, inputs: RunInputs) -> Bools:
    """Return the connectors that a state can't be gone on from, shape (n,).

    It doesn't know them, or was built with other facts of the registry.
    """
    row = _mapping(inputs.fleet.number, state["connector"])
    same = state["fingerprint"][row] == fingerprints(inputs) if state["connector"].size else False
    return np.asarray((row < 0) | ~np.asarray(same, dtype=bool))


def _session_rows(inputs: RunInputs) -> SessionRows:
    """Return the sessions, with the precision that a state keeps."""
    rows = session_rows(inputs.sessions, inputs.fleet, intervals=inputs.connector_intervals)
    kept = {
        name: values.astype(_COMPACT.get(name, values.dtype)) for name, values in vars(rows).items()
    }
    return SessionRows(
        **{name: values.astype(vars(rows)[name].dtype) for name, values in kept.items()}
    )


def empty_city(inputs: RunInputs) -> CityStatistics:
    """Return the statistics of a city of which nothing is known yet."""
    layout = feeder_layout(inputs.fleet, inputs.references, as_of_s=inputs.as_of_s)
    n = inputs.fleet.size
    none = np.zeros(0, dtype=np.int64)
    zero = np.zeros(n)
    return CityStatistics(
        layout=layout,
        feeders=tuple(empty_statistics(g) for g in layout.groups),
        last_slot=-(2**62),
        sessions_until_s=-np.inf,
        decayed_to_s=np.nan,
        days=none,
        metered=np.zeros((n, 0)),
        metered_precision=np.zeros((n, 0)),
        rows=np.zeros((n, 0), dtype=np.int64),
        direct_rows=np.zeros((n, 0), dtype=np.int64),
        direct_weight=zero,
        direct_weight_squared=zero.copy(),
        direct_sum=zero.copy(),
        energy_wh=zero.copy(),
        energy_days=zero.copy(),
        price_sum=zero.copy(),
        price_wh=zero.copy(),
        first_s=np.full(n, np.nan),
        last_s=np.full(n, np.nan),
        heard=np.full(n, NEVER),
        meter_heard=np.full(inputs.references.size, NEVER),
        sessions=chosen(_session_rows(inputs), none),
    )


PER_CONNECTOR = (
    "direct_weight",
    "direct_weight_squared",
    "direct_sum",
    "energy_wh",
    "energy_days",
    "price_sum",
    "price_wh",
    "first_s",
    "last_s",
    "heard",
)
_COMPACT = {
    "connector": np.int32,
    "kind": np.int8,
    "soc_variance": np.float32,
    "looseness": np.float32,
    "load": np.float32,
    "charge_s": np.float32,
    "energy_wh": np.float32,
}
"""Columns of sessions that a state keeps with fewer bytes: millions of rows each night."""
SERIES = ("metered", "metered_precision", "rows", "direct_rows")


def to_arrays(statistics: CityStatistics, inputs: RunInputs) -> dict[str, NDArray]:  # type: ignore[type-arg]
    """Return the state as named arrays; connectors and meters by number, so that rows may move."""
    out: dict[str, NDArray] = {  # type: ignore[type-arg]
        "version": np.array([STATE_VERSION]),
        "connector": inputs.fleet.number,
        "fingerprint": fingerprints(inputs),
        "meter": inputs.references.number,
        "meter_heard": statistics.meter_heard,
        "clock": np.array(
            [statistics.last_slot, statistics.sessions_until_s, statistics.decayed_to_s]
        ),
        "days": statistics.days,
    }
    for name in PER_CONNECTOR:
        out[name] = getattr(statistics, name)
    out["metered"] = statistics.metered.astype(np.float32)
    out["metered_precision"] = statistics.metered_precision.astype(np.float32)
    out["rows"] = statistics.rows.astype(np.int16)
    out["direct_rows"] = statistics.direct_rows.astype(np.int16)
    for name, values in vars(statistics.sessions).items():
        out[f"sessions.{name}"] = values.astype(_COMPACT.get(name, values.dtype))
    for group, feeder in zip(statistics.layout.groups, statistics.feeders, strict=True):
        out[f"{group.key}.meter"] = group.meter
        out[f"{group.key}.member"] = group.member
        for option in fields(FeederStatistics):
            out[f"{group.key}.{option.name}"] = getattr(feeder, option.name)
    return out


def from_arrays(state: Arrays, inputs: RunInputs) -> CityStatistics:
    """Return the statistics of a state on the rows of today's fleet.

    What is gone from the fleet is dropped, what is `outdated` starts empty. Raises:
    ValueError when the state is of another version.
    """
    if int(state["version"][0]) != STATE_VERSION:
        raise ValueError(
            f"state of version {int(state['version'][0])}, this engine reads {STATE_VERSION}: "
            "run once with --full"
        )
    city = empty_city(inputs)
    row = _mapping(state["connector"], inputs.fleet.number)
    meter = _mapping(state["meter"], inputs.references.number)
    row = np.where((row >= 0) & ~outdated(state, inputs)[row], row, -1) if row.size else row
    kept = row >= 0
    meter_heard = city.meter_heard.copy()
    meter_heard[meter[meter >= 0]] = state["meter_heard"][meter >= 0]
    values: dict[str, object] = {
        "days": state["days"].astype(np.int64),
        "meter_heard": meter_heard,
    }
    for name in PER_CONNECTOR:
        array = getattr(city, name).copy()
        array[row[kept]] = state[name][kept]
        values[name] = array
    for name in SERIES:
        series = np.zeros((inputs.fleet.size, state["days"].size), getattr(city, name).dtype)
        series[row[kept]] = state[name][kept]
        values[name] = series
    rows = SessionRows(
        **{
            name: state[f"sessions.{name}"].astype(values.dtype, copy=False)
            for name, values in vars(city.sessions).items()
        }
    )
    rows = chosen(rows, row[rows.connector] >= 0)
    rows = replace(rows, connector=row[rows.connector])
    feeders = []
    for group, empty in zip(city.layout.groups, city.feeders, strict=True):
        feeders.append(_feeder_from(state, group.key, group.meter, group.member, empty, row, meter))
    slot, session, decayed = state["clock"]
    return replace(
        city,
        feeders=tuple(feeders),
        last_slot=int(slot),
        sessions_until_s=float(session),
        decayed_to_s=float(decayed),
        sessions=rows,
        **values,  # type: ignore[arg-type]
    )


def _feeder_from(
    state: Arrays,
    key: str,
    meters: Ints,
    members: Ints,
    empty: FeederStatistics,
    row: Ints,
    meter: Ints,
) -> FeederStatistics:
    if f"{key}.meter" not in state:
        return empty
    old_meter = meter[state[f"{key}.meter"]]
    old_member = state[f"{key}.member"]
    old_member = np.where(old_member >= 0, row[old_member], -1)
    place = np.minimum(np.searchsorted(meters, old_meter), meters.size - 1)
    same = (meters[place] == old_meter) & (old_member == members[place]).all(axis=1)
    found = {}
    for option in fields(FeederStatistics):
        array = getattr(empty, option.name).copy()
        array[place[same]] = state[f"{key}.{option.name}"][same]
        found[option.name] = array
    return FeederStatistics(**found)


def _days_of(
    inputs: RunInputs, first_slot: int, last_slot: int, days: range | None
) -> Iterator[tuple[int, Intervals, Intervals]]:
    """Yield day, connectors' and meters' intervals of slots in [first_slot, last_slot)."""
    own, other = inputs.connector_intervals, inputs.meter_intervals
    if days is None:
        days = _days_with_data(inputs, first_slot, last_slot)
    for day in days:
        begin = max(day * SLOTS_A_DAY, first_slot)
        end = min((day + 1) * SLOTS_A_DAY, last_slot)
        yield (
            day,
            own.take(np.flatnonzero((own.slot >= begin) & (own.slot < end))),
            other.take(np.flatnonzero((other.slot >= begin) & (other.slot < end))),
        )


def _days_with_data(inputs: RunInputs, first_slot: int, last_slot: int) -> range:
    own, other = inputs.connector_intervals, inputs.meter_intervals
    found = [x.slot[(x.slot >= first_slot) & (x.slot < last_slot)] for x in (own, other)]
    slots = [x for x in found if x.size]
    if not slots:
        return range(0)
    low, high = min(int(x.min()) for x in slots), max(int(x.max()) for x in slots)
    return range(low // SLOTS_A_DAY, high // SLOTS_A_DAY + 1)


def updated(
    inputs: RunInputs, *, config: EngineConfig, state: Arrays | None = None
) -> CityStatistics:
    """Return the statistics with all of the inputs added that is newer than the state."""
    city = empty_city(inputs) if state is None else from_arrays(state, inputs)
    return extended(city, inputs, until_s=inputs.as_of_s, config=config)


def closed_and_open(
    inputs: RunInputs, *, config: EngineConfig, state: Arrays | None = None
) -> tuple[CityStatistics, CityStatistics]:
    """Return the statistics up to the last day that is closed, and those up to the run."""
    city = empty_city(inputs) if state is None else from_arrays(state, inputs)
    until_s = max(closed_until_s(inputs.as_of_s), city.last_slot * float(SLOT_S))
    closed = extended(city, inputs, until_s=until_s, config=config)
    return closed, extended(closed, inputs, until_s=inputs.as_of_s, config=config)


def extended(
    city: CityStatistics,
    inputs: RunInputs,
    *,
    until_s: float,
    config: EngineConfig,
    days: range | None = None,
) -> CityStatistics:
    """Return the statistics with the inputs added that are newer than they, up to a time.

    Args:
        city: the statistics.
        inputs: with what is newer.
        until_s: the time.
        config: for the forgetting.
        days: since 1970, that are counted; None: from the first to the last one with data.
    """
    until = int(np.floor(until_s / SLOT_S))
    for day, own, other in _days_of(inputs, city.last_slot, until, days):
        city = _with_day(city, inputs, day=day, own=own, other=other, config=config)
    city = replace(city, last_slot=max(city.last_slot, until))
    return _with_sessions(city, inputs, until_s=until_s, config=config)


def _with_sessions(
    city: CityStatistics, inputs: RunInputs, *, until_s: float, config: EngineConfig
) -> CityStatistics:
    sessions, n = inputs.sessions, inputs.fleet.size
    fresh = (sessions.ended_s > city.sessions_until_s) & (sessions.ended_s <= until_s)
    sessions = FinishedSessions(**{name: values[fresh] for name, values in vars(sessions).items()})
    rows = joined(city.sessions, _session_rows(replace(inputs, sessions=sessions)))
    rows = chosen(rows, rows.ended_s > until_s - config.drift_days * DAY_S)
    priced = np.isfinite(sessions.energy_price) & (sessions.energy_wh > 0)
    who, energy = sessions.connector[priced], sessions.energy_wh[priced]
    first, last = city.first_s.copy(), city.last_s.copy()
    np.fmin.at(first, sessions.connector, sessions.started_s)
    np.fmax.at(last, sessions.connector, sessions.ended_s)
    return replace(
        city,
        sessions=rows,
        price_sum=city.price_sum + sum_by_row(who, energy * sessions.energy_price[priced], size=n),
        price_wh=city.price_wh + sum_by_row(who, energy, size=n),
        first_s=first,
        last_s=last,
        sessions_until_s=max(city.sessions_until_s, until_s),
    )


def _with_day(
    city: CityStatistics,
    inputs: RunInputs,
    *,
    day: int,
    own: Intervals,
    other: Intervals,
    config: EngineConfig,
) -> CityStatistics:
    n = inputs.fleet.size
    cover = coverage(
        city.layout,
        connector_day=own,
        meter_day=other,
        day=day,
        heard=city.heard,
        meter_heard=city.meter_heard,
    )
    end_s = float((day + 1) * DAY_S)
    passed = 0.0 if np.isnan(city.decayed_to_s) else (end_s - city.decayed_to_s) / DAY_S
    factor = 2.0 ** (-max(passed, 0.0) / config.half_life_days)
    direct = direct_day(
        inputs.fleet, inputs.references, layout=city.layout, connector_day=own, meter_day=other
    )
    estimate = np.where(direct.precision > 0, direct.estimate, np.nan)
    precision = direct.precision.copy()
    rows = direct.rows.copy()
    feeders, found = feeders_day(
        city.layout,
        [forget(old, factor=factor) for old in city.feeders],
        fleet=inputs.fleet,
        meter_resolution_wh=np.nan_to_num(
            inputs.references.resolution_wh, nan=UNKNOWN_METER_STEP_WH
        ),
        connector_day=own,
        meter_day=other.take(np.flatnonzero(cover.counts(other, layout=city.layout))),
        day=day,
        utc_offset_s=config.utc_offset_s,
    )
    mine = (found.precision > 0) & (precision <= 0)
    estimate[mine], precision[mine] = found.estimate[mine], found.precision[mine]
    rows += np.where(direct.rows > 0, 0, found.rows)
    energy = sum_by_row(own.instrument, own.energy_wh, size=n)
    first, last = city.first_s.copy(), city.last_s.copy()
    moved = own.energy_wh > 0
    np.fmin.at(first, own.instrument[moved], own.slot[moved] * float(SLOT_S))
    np.fmax.at(last, own.instrument[moved], (own.slot[moved] + 1.0) * SLOT_S)
    x = np.where(direct.precision > 0, direct.estimate, 0.0)
    return replace(
        _with_column(
            city,
            day,
            estimate=estimate,
            precision=precision,
            rows=rows,
            direct_rows=direct.rows,
            keep=config.drift_days,
        ),
        feeders=feeders,
        decayed_to_s=end_s,
        direct_weight=factor * city.direct_weight + direct.precision,
        direct_weight_squared=factor**2 * city.direct_weight_squared + direct.precision,
        direct_sum=factor * city.direct_sum + direct.precision * x,
        energy_wh=factor * city.energy_wh + energy,
        energy_days=factor * city.energy_days + cover.slots / SLOTS_A_DAY,
        first_s=first,
        last_s=last,
        heard=cover.heard,
        meter_heard=cover.meter_heard,
    )


def _with_column(
    city: CityStatistics,
    day: int,
    *,
    estimate: Floats,
    precision: Floats,
    rows: Ints,
    direct_rows: Ints,
    keep: int,
) -> CityStatistics:
    """Return the series with a day added."""
    x = np.where(precision > 0, estimate, 0.0).astype(np.float32).astype(np.float64)
    p = precision.astype(np.float32).astype(np.float64)
    days = np.append(city.days, day)
    first = int(np.searchsorted(days, day - keep + 1))

    def column(series: NDArray, new: NDArray) -> NDArray:  # type: ignore[type-arg]
        return np.concatenate([series, new[:, None]], axis=1)[:, first:]

    return replace(
        city,
        days=days[first:],
        metered=column(city.metered, x),
        metered_precision=column(city.metered_precision, p),
        rows=column(city.rows, rows),
        direct_rows=column(city.direct_rows, direct_rows),
    )

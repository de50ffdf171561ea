"""Sufficient statistics of a city, day by day with forgetting, so that a night reads one day."""

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
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import Intervals, RunInputs
from chargewatch.risk.vehicles import SessionRows, chosen, joined, session_rows

STATE_VERSION = 3

Arrays = Mapping[str, NDArray]  # type: ignore[type-arg]


@dataclass(frozen=True, kw_only=True)
class LastJudgement:
    """What a run knew at its end, from which the next one's rounds go on; all of it arrays.

    n connectors, m meters. NaN for connectors that were not there.
    """

    session: Floats  # spreads by kind, see `spreads.Spreads`
    vehicle: Floats
    converter: Floats  # (1,)
    site: Floats  # (2,)
    wander: Floats  # (1,)
    inflation: Floats  # by kind, of robust weights
    share: Floats  # (3,), of the population
    spread: Floats  # (3,)
    prior_precision: Floats  # (n,)
    error: Floats  # (n,), posterior mean of gamma
    variance: Floats  # (n,)
    suspect: Bools  # (m,)


@dataclass(frozen=True, kw_only=True)
class CityStatistics:
    """All that a run keeps; n connectors, d days of the series."""

    layout: FeederLayout
    feeders: tuple[FeederStatistics, ...]
    last_slot: int  # first slot that is not in yet
    last_session_s: float
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
    energy_days: Floats  # (n,), sum f
    price_sum: Floats  # (n,), sum E price
    price_wh: Floats  # (n,)
    first_s: Floats  # (n,)
    last_s: Floats  # (n,)
    sessions: SessionRows
    judged: LastJudgement | None = None


def _mapping(old: NDArray[np.str_], new: NDArray[np.str_]) -> Ints:
    """Return for every old name its first row among the new ones, -1 when it is gone."""
    names, first = np.unique(new, return_index=True)
    place = np.minimum(np.searchsorted(names, old), max(names.size - 1, 0))
    if names.size == 0:
        return np.full(old.size, -1, dtype=np.int64)
    return np.where(names[place] == old, first[place], -1)


def _session_rows(inputs: RunInputs) -> SessionRows:
    return session_rows(inputs.sessions, inputs.fleet, intervals=inputs.connector_intervals)


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
        last_session_s=-np.inf,
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
        sessions=chosen(_session_rows(inputs), none),
    )


_PER_CONNECTOR = (
    "direct_weight",
    "direct_weight_squared",
    "direct_sum",
    "energy_wh",
    "energy_days",
    "price_sum",
    "price_wh",
    "first_s",
    "last_s",
)
_COMPACT = {
    "connector": np.int32,
    "kind": np.int8,
    "soc_variance": np.float32,
    "looseness": np.float32,
    "load": np.float32,
}
"""Columns of sessions that a state keeps with fewer bytes: millions of rows each night."""
_SERIES = ("metered", "metered_precision", "rows", "direct_rows")


def to_arrays(statistics: CityStatistics, inputs: RunInputs) -> dict[str, NDArray]:  # type: ignore[type-arg]
    """Return the state as named arrays; connectors and meters by name, so that rows may move."""
    out: dict[str, NDArray] = {  # type: ignore[type-arg]
        "version": np.array([STATE_VERSION]),
        "connector": np.array(inputs.fleet.connector, dtype=np.str_),
        "meter": np.array(inputs.references.meter, dtype=np.str_),
        "clock": np.array(
            [statistics.last_slot, statistics.last_session_s, statistics.decayed_to_s]
        ),
        "days": statistics.days,
    }
    for name in _PER_CONNECTOR:
        out[name] = getattr(statistics, name)
    out["metered"] = statistics.metered.astype(np.float32)
    out["metered_precision"] = statistics.metered_precision.astype(np.float32)
    out["rows"] = statistics.rows.astype(np.int16)
    out["direct_rows"] = statistics.direct_rows.astype(np.int16)
    for name, values in vars(statistics.sessions).items():
        out[f"sessions.{name}"] = values.astype(_COMPACT.get(name, values.dtype))
    if statistics.judged is not None:
        out |= {f"judged.{name}": values for name, values in vars(statistics.judged).items()}
    for group, feeder in zip(statistics.layout.groups, statistics.feeders, strict=True):
        out[f"{group.key}.meter"] = group.meter
        out[f"{group.key}.member"] = group.member
        for option in fields(FeederStatistics):
            out[f"{group.key}.{option.name}"] = getattr(feeder, option.name)
    return out


def from_arrays(state: Arrays, inputs: RunInputs) -> CityStatistics:
    """Return the statistics of a state on the rows of today's fleet.

    What is gone from the fleet is dropped, what is new starts empty; a feeder starts anew when its
    members have changed. Raises: ValueError when the state is of another version.
    """
    if int(state["version"][0]) != STATE_VERSION:
        raise ValueError(
            f"state of version {int(state['version'][0])}, this engine reads {STATE_VERSION}: "
            "run once with --full"
        )
    city = empty_city(inputs)
    row = _mapping(state["connector"], np.array(inputs.fleet.connector, dtype=np.str_))
    meter = _mapping(state["meter"], np.array(inputs.references.meter, dtype=np.str_))
    kept = row >= 0
    values: dict[str, object] = {"days": state["days"].astype(np.int64)}
    for name in _PER_CONNECTOR:
        array = getattr(city, name).copy()
        array[row[kept]] = state[name][kept]
        values[name] = array
    for name in _SERIES:
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
        last_session_s=float(session),
        decayed_to_s=float(decayed),
        sessions=rows,
        judged=_judged_from(state, row, meter, inputs),
        **values,  # type: ignore[arg-type]
    )


def _judged_from(state: Arrays, row: Ints, meter: Ints, inputs: RunInputs) -> LastJudgement | None:
    if "judged.error" not in state:
        return None
    found = {option.name: state[f"judged.{option.name}"] for option in fields(LastJudgement)}
    kept = row >= 0
    for name in ("prior_precision", "error", "variance"):
        values = np.full(inputs.fleet.size, np.nan)
        values[row[kept]] = found[name][kept]
        found[name] = values
    suspect = np.zeros(inputs.references.size, dtype=bool)
    suspect[meter[meter >= 0]] = found["suspect"][meter >= 0]
    return LastJudgement(**{**found, "suspect": suspect})


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


def _days_of(inputs: RunInputs, first_slot: int) -> Iterator[tuple[int, Intervals, Intervals]]:
    """Yield day, connectors' and meters' intervals that are not in the statistics yet."""
    own, other = inputs.connector_intervals, inputs.meter_intervals
    last_slot = int(np.floor(inputs.as_of_s / SLOT_S))
    found = [x.slot[(x.slot >= first_slot) & (x.slot < last_slot)] for x in (own, other)]
    slots = [x for x in found if x.size]
    if not slots:
        return
    low, high = min(int(x.min()) for x in slots), max(int(x.max()) for x in slots)
    for day in range(low // SLOTS_A_DAY, high // SLOTS_A_DAY + 1):
        begin = max(day * SLOTS_A_DAY, first_slot)
        end = min((day + 1) * SLOTS_A_DAY, last_slot)
        yield (
            day,
            own.take(np.flatnonzero((own.slot >= begin) & (own.slot < end))),
            other.take(np.flatnonzero((other.slot >= begin) & (other.slot < end))),
        )


def updated(
    inputs: RunInputs, *, config: EngineConfig, state: Arrays | None = None
) -> CityStatistics:
    """Return the statistics with all of the inputs added that is newer than the state."""
    city = empty_city(inputs) if state is None else from_arrays(state, inputs)
    for day, own, other in _days_of(inputs, city.last_slot):
        city = _with_day(city, inputs, day=day, own=own, other=other, config=config)
    city = replace(city, last_slot=max(city.last_slot, int(np.floor(inputs.as_of_s / SLOT_S))))
    return _with_sessions(city, inputs, config=config)


def _with_sessions(
    city: CityStatistics, inputs: RunInputs, *, config: EngineConfig
) -> CityStatistics:
    sessions, n = inputs.sessions, inputs.fleet.size
    fresh = (sessions.ended_s > city.last_session_s) & (sessions.ended_s <= inputs.as_of_s)
    rows = _session_rows(inputs)
    rows = chosen(rows, (rows.ended_s > city.last_session_s) & (rows.ended_s <= inputs.as_of_s))
    rows = joined(city.sessions, rows)
    oldest = inputs.as_of_s - config.drift_days * DAY_S
    rows = chosen(rows, rows.ended_s > oldest)
    priced = fresh & np.isfinite(sessions.energy_price) & (sessions.energy_wh > 0)
    who, energy = sessions.connector[priced], sessions.energy_wh[priced]
    first, last = city.first_s.copy(), city.last_s.copy()
    np.fmin.at(first, sessions.connector[fresh], sessions.started_s[fresh])
    np.fmax.at(last, sessions.connector[fresh], sessions.ended_s[fresh])
    ended = sessions.ended_s[fresh]
    return replace(
        city,
        sessions=rows,
        price_sum=city.price_sum + sum_by_row(who, energy * sessions.energy_price[priced], size=n),
        price_wh=city.price_wh + sum_by_row(who, energy, size=n),
        first_s=first,
        last_s=last,
        last_session_s=max(city.last_session_s, float(ended.max()) if ended.size else -np.inf),
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
        meter_resolution_wh=np.nan_to_num(inputs.references.resolution_wh, nan=10.0),
        connector_day=own,
        meter_day=other,
        day=day,
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
        energy_days=factor * city.energy_days
        + np.count_nonzero(np.bincount(own.slot - day * SLOTS_A_DAY)) / SLOTS_A_DAY,
        first_s=first,
        last_s=last,
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
    """Return the series with a day added; a day that comes in two batches is their mean."""
    x = np.where(precision > 0, estimate, 0.0).astype(np.float32).astype(np.float64)
    p = precision.astype(np.float32).astype(np.float64)
    if city.days.size and city.days[-1] == day:
        old_p = city.metered_precision[:, -1]
        total = old_p + p
        x = np.where(total > 0, old_p * city.metered[:, -1] + p * x, 0.0) / np.where(
            total > 0, total, 1.0
        )
        p = total
        rows, direct_rows = rows + city.rows[:, -1], direct_rows + city.direct_rows[:, -1]
        days, end = city.days, -1
    else:
        days, end = np.append(city.days, day), None
    first = int(np.searchsorted(days, day - keep + 1))

    def column(series: NDArray, new: NDArray) -> NDArray:  # type: ignore[type-arg]
        return np.concatenate([series[:, :end], new[:, None]], axis=1)[:, first:]

    return replace(
        city,
        days=days[first:],
        metered=column(city.metered, x),
        metered_precision=column(city.metered_precision, p),
        rows=column(city.rows, rows),
        direct_rows=column(city.direct_rows, direct_rows),
    )

"""States of the same days put together: most connectors from one, the others from another."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.risk.feeders.balance import FeederStatistics, forget
from chargewatch.risk.fingerprint import mixed
from chargewatch.risk.memory import (
    PER_CONNECTOR,
    SERIES,
    Arrays,
    CityStatistics,
    from_arrays,
    to_arrays,
)
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import RunInputs
from chargewatch.risk.vehicles import SessionRows, chosen, joined, session_rows

_FADING = ("direct_weight", "direct_sum", "energy_wh", "energy_days")


def _aged(city: CityStatistics, *, to_s: float, config: EngineConfig) -> CityStatistics:
    """Return the statistics with the forgetting up to a time."""
    if not city.decayed_to_s < to_s:
        return city
    factor = 2.0 ** (-(to_s - city.decayed_to_s) / DAY_S / config.half_life_days)
    return replace(
        city,
        feeders=tuple(forget(feeder, factor=factor) for feeder in city.feeders),
        decayed_to_s=to_s,
        direct_weight_squared=factor**2 * city.direct_weight_squared,
        **{name: factor * getattr(city, name) for name in _FADING},
    )


def _columns(city: CityStatistics, name: str, days: Ints) -> NDArray:  # type: ignore[type-arg]
    series = getattr(city, name)
    out = np.zeros((series.shape[0], days.size), series.dtype)
    out[:, np.searchsorted(days, city.days)] = series
    return out


def spliced(
    state: Arrays, other: Arrays, *, of_other: Bools, inputs: RunInputs, config: EngineConfig
) -> Arrays:
    """Return a state with some connectors as another one has them.

    Args:
        state: of all connectors.
        other: of the same days, and of some of the connectors.
        of_other: whose part is taken from `other`, with all that share their feeders, shape (n,).
        inputs: today's fleet and meters.
        config: for the forgetting.
    """
    one, two = from_arrays(state, inputs), from_arrays(other, inputs)
    until_s = float(np.fmax(one.decayed_to_s, two.decayed_to_s))
    one, two = (_aged(city, to_s=until_s, config=config) for city in (one, two))
    days = np.union1d(one.days, two.days).astype(np.int64)
    mine = {
        name: np.where(of_other, getattr(two, name), getattr(one, name)) for name in PER_CONNECTOR
    }
    for name in SERIES:
        mine[name] = np.where(
            of_other[:, None], _columns(two, name, days), _columns(one, name, days)
        )
    feeders, meter_heard = [], one.meter_heard.copy()
    for group, first, second in zip(one.layout.groups, one.feeders, two.feeders, strict=True):
        taken = of_other[group.member[:, 0]]
        meter_heard[group.meter[taken]] = two.meter_heard[group.meter[taken]]
        feeders.append(_either(first, second, taken))
    series = one.layout.direct_meter[of_other]
    series = series[series >= 0]
    meter_heard[series] = two.meter_heard[series]
    rows = joined(
        chosen(one.sessions, ~of_other[one.sessions.connector]),
        chosen(two.sessions, of_other[two.sessions.connector]),
    )
    order = np.lexsort((rows.log_ratio, rows.connector, rows.ended_s))
    return to_arrays(
        replace(
            one,
            days=days,
            decayed_to_s=until_s,
            feeders=tuple(feeders),
            meter_heard=meter_heard,
            sessions=chosen(rows, order),
            **mine,
        ),
        inputs,
    )


def _either(first: FeederStatistics, second: FeederStatistics, taken: Bools) -> FeederStatistics:
    out = {}
    for option in fields(FeederStatistics):
        a, b = getattr(first, option.name), getattr(second, option.name)
        out[option.name] = np.where(taken.reshape(-1, *[1] * (a.ndim - 1)), b, a)
    return FeederStatistics(**out)


def _marks(rows: SessionRows, *, size: int, since_s: float) -> NDArray[np.uint64]:
    """Return a number for each connector that tells which sessions it has, shape (size,)."""
    out = np.zeros(size, dtype=np.uint64)
    late = rows.ended_s > since_s
    told: tuple[Floats | Ints, ...] = (rows.ended_s, rows.log_ratio, rows.vehicle)
    np.add.at(out, rows.connector[late], mixed([values[late] for values in told]))
    return out


def other_sessions(state: Arrays, inputs: RunInputs, *, since_s: float) -> Bools:
    """Return the connectors that have other sessions than a state knows, shape (n,).

    Args:
        state: with the sessions of its days.
        inputs: all sessions of those days as they are now; intervals are not needed.
        since_s: sessions that ended up to this time don't count.
    """
    known = from_arrays(state, inputs)
    now = session_rows(inputs.sessions, inputs.fleet, intervals=inputs.connector_intervals)
    now = chosen(now, now.ended_s <= known.sessions_until_s)
    size = inputs.fleet.size
    before = _marks(known.sessions, size=size, since_s=since_s)
    return np.asarray(before != _marks(now, size=size, since_s=since_s))

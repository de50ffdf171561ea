"""Tariffs and bills: time-of-use periods in local time, money in whole cents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.wire_form import HOME_ZONE, OFFSET_S


@dataclass(frozen=True)
class DayPrices:
    """A day's prices: begin of each period (h), energy and service price (1e-4 CNY per kWh)."""

    begin_h: tuple[int, ...]
    energy_price_e4: tuple[int, ...]
    service_price_e4: tuple[int, ...]


PLANS = (
    DayPrices(
        (0, 7, 10, 15, 18, 21, 23), (3500, 7000, 10500, 7000, 10500, 7000, 3500), (4000,) * 7
    ),
    DayPrices((0, 8, 11, 13, 19, 22), (3800, 7400, 11200, 7400, 11800, 3800), (4500,) * 6),
    DayPrices((0, 6, 22), (4000, 8200, 4000), (3000, 3600, 3000)),
)


@dataclass(frozen=True, kw_only=True)
class Periods:
    """Parts of sessions between the edges of their tariff; rows are sorted by session."""

    session: Ints
    begin_s: Floats
    end_s: Floats
    energy_price_e4: Ints
    service_price_e4: Ints


def split_periods(
    plan: Ints,
    begin_s: Floats,
    *,
    end_s: Floats,
    from_local_s: float,
    shift_s: Floats,
    zone: str = HOME_ZONE,
) -> Periods:
    """Return the tariff periods of sessions, shape (k,); ``shift_s`` moves the billing clock.

    A billing clock that is late by ``shift_s`` changes price that much after the true edge. In
    another zone prices change by the clocks on its walls, daylight saving included.
    """
    parts = []
    for number, prices in enumerate(PLANS):
        rows = np.flatnonzero(plan == number)
        if rows.size:
            parts.append(_split(prices, rows, (begin_s, end_s, shift_s), from_local_s, zone))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    session, begin, end, energy, service = (column[order] for column in columns)
    return Periods(
        session=session,
        begin_s=begin,
        end_s=end,
        energy_price_e4=energy,
        service_price_e4=service,
    )


def _split(
    plan: DayPrices,
    rows: Ints,
    times: tuple[Floats, Floats, Floats],
    from_local_s: float,
    zone: str,
) -> tuple[Ints, Floats, Floats, Ints, Ints]:
    begin, end, shift = (x[rows] for x in times)
    # Local clock as the billing sees it.
    to_clock = from_local_s - shift
    first_day = np.floor((begin + to_clock).min() / DAY_S)
    days = int((end + to_clock).max() / DAY_S - first_day) + 2
    if zone == HOME_ZONE:
        starts = np.array(plan.begin_h) * 3600.0
        edges = ((first_day + np.arange(days)[:, None]) * DAY_S + starts).ravel()
    else:
        edges = _wall_edges(plan, int(first_day) - 1, days + 2, ZoneInfo(zone))
    low = np.searchsorted(edges, begin + to_clock, side="right") - 1
    high = np.searchsorted(edges, end + to_clock, side="left") - 1
    count = np.maximum(high - low, 0) + 1
    part = np.repeat(np.arange(rows.size), count)
    step = np.arange(part.size) - np.repeat(np.cumsum(count) - count, count)
    edge = low[part] + step
    slot = edge % len(plan.begin_h)
    part_begin = np.where(step == 0, begin[part], edges[edge] - to_clock[part])
    is_last = step == count[part] - 1
    following = edges[np.minimum(edge + 1, edges.size - 1)]
    part_end = np.where(is_last, end[part], following - to_clock[part])
    return (
        rows[part],
        part_begin,
        part_end,
        np.array(plan.energy_price_e4)[slot],
        np.array(plan.service_price_e4)[slot],
    )


def _wall_edges(plan: DayPrices, first_day: int, days: int, zone: ZoneInfo) -> Floats:
    """Return when prices change by a zone's clocks, as seconds of the home zone's clock."""
    dates = [date(1970, 1, 1) + timedelta(days=first_day + k) for k in range(days)]
    moments = [
        datetime.combine(day, time(hour), tzinfo=zone) for day in dates for hour in plan.begin_h
    ]
    return np.array([moment.timestamp() + OFFSET_S for moment in moments])


def fee_cents(energy_wh: Floats, price_e4: Ints) -> Ints:
    """Return energy times price in cents, half a cent rounded up, shape of the inputs."""
    milliwatthours = np.round(energy_wh * 1000).astype(np.int64)
    return np.asarray((milliwatthours * price_e4 + 50_000_000) // 100_000_000)


def money(cents: int) -> str:
    """Return cents as a decimal text: 3682 is '36.82'."""
    return f"{cents // 100}.{cents % 100:02d}"


def price(e4: int) -> str:
    """Return a price in 1e-4 per kWh as a decimal text: 7800 is '0.7800'."""
    return f"{e4 // 10_000}.{e4 % 10_000:04d}"


def dearest_hours(plan: int) -> tuple[tuple[float, float], ...]:
    """Return the spans of the local day in which a plan's energy costs most."""
    prices = PLANS[plan]
    ends = (*prices.begin_h[1:], 24)
    spans = zip(prices.begin_h, ends, prices.energy_price_e4, strict=True)
    return tuple((a, b) for a, b, energy in spans if energy == max(prices.energy_price_e4))


def tariff_rows(plan: int) -> list[dict[str, str]]:
    """Return the periods of a plan as the registry has them."""
    prices = PLANS[plan]
    ends = (*prices.begin_h[1:], 24)
    return [
        {
            "from": f"{begin:02d}:00",
            "to": f"{end:02d}:00",
            "energy_price": price(energy),
            "service_price": price(service),
        }
        for begin, end, energy, service in zip(
            prices.begin_h, ends, prices.energy_price_e4, prices.service_price_e4, strict=True
        )
    ]

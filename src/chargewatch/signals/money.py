"""Facts of checks: fees, priced periods and registered tariffs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any

import numpy as np
import orjson

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.times import DAY_S

LONGEST_DAY_S = DAY_S + 7_200
"""A local day on which clocks are set back."""


@dataclass(frozen=True, kw_only=True)
class Fees:
    """Money of sessions, shape (s,); NaN: not told."""

    name: Ints
    connector: Ints
    started_s: Floats
    ended_s: Floats
    start_wh: Floats
    stop_wh: Floats
    billed_wh: Floats
    energy_fee: Floats
    service_fee: Floats
    other_fee: Floats  # parking, occupancy
    discount: Floats  # taken off, positive
    total_fee: Floats


@dataclass(frozen=True, kw_only=True)
class BilledPeriods:
    """Parts of sessions at one price, sorted by (session, from); shape (p,). NaN: not told."""

    session: Ints  # row of Fees
    from_s: Floats
    to_s: Floats
    energy_wh: Floats
    energy_price: Floats  # money per kWh
    service_price: Floats


@dataclass(frozen=True, kw_only=True)
class TariffCurve:
    """Registered prices of one operator and station over time: price k holds from from_s[k]."""

    from_s: Floats
    energy_price: Floats  # NaN: no tariff is registered for that time
    service_price: Floats


def tariff_curve(
    tariffs: Sequence[Mapping[str, Any]],
    *,
    from_s: float,
    to_s: float,
    midnights_s: Sequence[float],
    zone: tzinfo = UTC,
) -> TariffCurve:
    """Return the curve of registered prices between two times.

    Where:
        tariffs: rows with valid_from_s and periods [{"from": s, "to": s, "energy_price": ...,
            "service_price": ...}], from and to in seconds of the local day; to <= from wraps.
        midnights_s: beginnings of the local days in ascending order, from before from_s on.
        zone: whose clocks on the wall the periods go by, also on the days they are changed.
    """
    ordered = sorted(tariffs, key=lambda tariff: tariff["valid_from_s"])
    pieces: dict[float, tuple[float, float]] = {from_s: (np.nan, np.nan)}
    for number, tariff in enumerate(ordered):
        begin = max(tariff["valid_from_s"], from_s)
        end = ordered[number + 1]["valid_from_s"] if number + 1 < len(ordered) else to_s
        if end <= begin:
            continue
        inside = [midnight for midnight in midnights_s if begin - LONGEST_DAY_S < midnight < end]
        pieces[begin] = (np.nan, np.nan)
        for midnight in inside:
            for start, prices in _day_pieces(tariff["periods"]):
                at = _wall_s(midnight, start, zone)
                if at < end:
                    # What began before the tariff holds from its beginning on.
                    pieces[max(at, begin)] = prices
    times = sorted(pieces)
    return TariffCurve(
        from_s=np.array(times),
        energy_price=np.array([pieces[at][0] for at in times]),
        service_price=np.array([pieces[at][1] for at in times]),
    )


def _wall_s(midnight_s: float, second: float, zone: tzinfo) -> float:
    """Return when clocks on the wall show a second of the local day."""
    midnight = datetime.fromtimestamp(midnight_s, zone)
    # Sums of times in a zone go by the wall; a time that is skipped comes out after the change.
    return (midnight + timedelta(seconds=second)).timestamp()


def _day_pieces(periods: Sequence[Mapping[str, Any]]) -> list[tuple[float, tuple[float, float]]]:
    """Return (second of the day, prices) in order, with holes as NaN."""
    spans = []
    for period in periods:
        prices = float(period["energy_price"]), float(period["service_price"])
        start, end = float(period["from"]), float(period["to"])
        if end <= start:
            spans += [(start, float(DAY_S), prices), (0.0, end, prices)]
        else:
            spans.append((start, end, prices))
    pieces: list[tuple[float, tuple[float, float]]] = []
    at = 0.0
    for start, end, prices in sorted(spans):
        if end <= start:
            continue
        if start > at:
            pieces.append((at, (np.nan, np.nan)))
        pieces.append((start, prices))
        at = end
    if at < DAY_S:
        pieces.append((at, (np.nan, np.nan)))
    return pieces


def _clock_s(text: str) -> float:
    hours, _, minutes = text.partition(":")
    return int(hours) * 3600.0 + float(minutes or 0) * 60.0


def day_periods(periods: Any) -> list[dict[str, float]]:
    """Return the periods of a registered tariff, as JSON or read, for `tariff_curve`."""
    rows = orjson.loads(periods) if isinstance(periods, str | bytes) else periods
    return [
        {
            "from": _clock_s(row["from"]),
            # Midnight as an end is the end of the day.
            "to": _clock_s(row["to"]) or float(DAY_S),
            "energy_price": float(row["energy_price"]),
            "service_price": float(row["service_price"]),
        }
        for row in rows
    ]


def local_midnights(first: datetime, last: datetime, zone: tzinfo) -> list[float]:
    """Return the beginnings of the local days that touch [first, last], s."""
    day = first.astimezone(zone).date() - timedelta(days=1)
    found: list[float] = []
    while True:
        midnight = datetime.combine(day, time(), zone)
        if midnight > last:
            return found
        found.append(midnight.timestamp())
        day += timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Money:
    """Sessions with their money, and the prices that they should have."""

    fees: Fees
    periods: BilledPeriods
    resolution_wh: Floats
    """Of each session's connector, shape (s,)."""
    curves: Sequence[TariffCurve]
    curve_of: Ints
    """The curve of each connector, row of Fleet; -1: no tariff registered."""
    clock_limit_s: float

"""The sessions of a connector in a month, each with what it should have been."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.arrays import Floats
from chargewatch.domain.times import DAY_S
from chargewatch.signals.billing import Billing
from chargewatch.signals.bills import BillDifferences, Terms, charged, differences, terms_of
from chargewatch.signals.grain import steps_of_sessions
from chargewatch.signals.money import (
    BilledPeriods,
    Fees,
    TariffCurve,
    day_periods,
    local_midnights,
    tariff_curve,
)
from chargewatch.signals.sessions import BilledSessions
from chargewatch.storage.office import money as store

BEFORE = timedelta(days=7)
"""So far back a session tells where the register of the month's first one stood."""


@dataclass(frozen=True, kw_only=True)
class SessionOwed:
    """One session; money in its own currency, NaN: not known."""

    session: str
    started_at: datetime
    ended_at: datetime
    metered_wh: float  # by the register
    charged_wh: float
    currency: str | None
    paid: float  # for energy and service, before discounts
    should_have_been: float
    bill_difference: float  # charged too much (positive) or too little by the bill
    error_difference: float  # by the meter's error
    difference: float  # both
    why: tuple[str, ...]  # energy, price, error; no_money, no_energy, no_error
    counted: bool  # whether both differences are known, and so in the sums


@dataclass(frozen=True, kw_only=True)
class PlaceOfSessions:
    """Whose sessions they are."""

    connector_id: int
    operator_id: str
    station_id: str
    resolution_wh: float | None
    rated_power_w: float | None


def month_bounds(month: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return begin and end of a month of a zone."""
    following = (month.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (
        datetime.combine(month.replace(day=1), time(), zone),
        datetime.combine(following, time(), zone),
    )


def share_at(row: Mapping[Any, Any] | None, at_s: Floats) -> Floats:
    """Return the share of indicated energy that was not delivered, over time; NaN: not known.

    Where: row: by error, of `storage.office.money.of_connector`; None: none was kept.
    """
    if row is None:
        return np.full(at_s.size, math.nan)
    now, before = row["undelivered_share"], row["undelivered_share_before"]
    known_from, changed, settled = (
        row[name].timestamp() for name in ("known_from", "changed_at", "settled_at")
    )
    if settled > changed:
        part = np.clip((at_s - changed) / (settled - changed), 0.0, 1.0)
    else:
        part = (at_s >= changed).astype(float)
    share = np.where(part > 0, part * now, 0.0) + np.where(part < 1, (1.0 - part) * before, 0.0)
    return np.where(at_s >= known_from, share, math.nan)


async def sessions_owed(
    connection: AsyncConnection,
    place: PlaceOfSessions,
    *,
    month: date,
    zone: ZoneInfo,
    clock_limit_s: float,
) -> list[SessionOwed]:
    """Return the sessions of a month, newest first, each with its differences.

    Where: clock_limit_s: how far clocks may be off at tariff edges, by the rule set.
    """
    since, until = month_bounds(month, zone)
    owed = await store.of_connector(connection, place.connector_id, operator_id=place.operator_id)
    by_error = {row["month"]: row for row in owed if row["cause"] == "error"}.get(month)
    # What came after the month was counted is not in it.
    until = min(until, by_error["counted_to"]) if by_error else until
    rows = await store.sessions(connection, place.connector_id, since=since - BEFORE, until=until)
    if not rows:
        return []
    tariffs = await store.tariffs(
        connection, operator_id=place.operator_id, station_id=place.station_id, until=until
    )
    curve = _curve(tariffs, first=since - BEFORE, last=until, zone=zone)
    told = _Told.of(rows)
    terms, found = _differences(told, curve, place, clock_limit_s=clock_limit_s)
    share = share_at(by_error, told.fees.ended_s)
    by_row = [_session(row, k, told, terms, found, float(share[k])) for k, row in enumerate(rows)]
    return [one for one in reversed(by_row) if one.ended_at >= since]


def _curve(
    tariffs: Sequence[Mapping[Any, Any]], *, first: datetime, last: datetime, zone: ZoneInfo
) -> TariffCurve | None:
    if not tariffs:
        return None
    begin = first - timedelta(days=3)
    return tariff_curve(
        [
            {
                "valid_from_s": row["valid_from"].astimezone(UTC).timestamp(),
                "periods": day_periods(row["periods"]),
            }
            for row in tariffs
        ],
        from_s=begin.timestamp(),
        to_s=last.timestamp() + DAY_S,
        midnights_s=local_midnights(begin, last + timedelta(days=1), zone),
        zone=zone,
    )


@dataclass(frozen=True, kw_only=True)
class _Told:
    """Sessions as arrays."""

    fees: Fees
    periods: BilledPeriods
    asked: Floats

    @classmethod
    def of(cls, rows: Sequence[Mapping[Any, Any]]) -> _Told:
        def column(name: str) -> Floats:
            return np.array([math.nan if r[name] is None else float(r[name]) for r in rows])

        def times(name: str) -> Floats:
            return np.array([row[name].timestamp() for row in rows])

        numbers = {
            field.name: column(field.name)
            for field in fields(Fees)
            if field.name not in ("name", "connector", "started_s", "ended_s")
        }
        fees = Fees(
            name=np.arange(len(rows)),
            connector=np.zeros(len(rows), np.int64),
            started_s=times("started_at"),
            ended_s=times("ended_at"),
            **numbers,
        )
        told = [_periods(row["periods"]) for row in rows]
        session = np.repeat(np.arange(len(rows)), [len(periods) for periods in told])
        every = [period for periods in told for period in periods]
        names = ("from", "to", "energy_wh", "energy_price", "service_price")
        columns = [np.array([period[name] for period in every], float) for name in names]
        fee_names = ("energy_fee", "service_fee", "other_fee", "discount", "total_fee")
        return cls(
            fees=fees,
            periods=BilledPeriods(
                session=session,
                from_s=columns[0],
                to_s=columns[1],
                energy_wh=columns[2],
                energy_price=columns[3],
                service_price=columns[4],
            ),
            asked=charged(**{name: numbers[name] for name in fee_names}),
        )


def _periods(told: Any) -> list[dict[str, float]]:
    """Return priced periods as numbers; NaN: not told."""
    rows = orjson.loads(told) if isinstance(told, str | bytes) else told
    if not isinstance(rows, list):
        return []
    return [
        {
            **{
                name: math.nan if row.get(name) is None else float(row[name])
                for name in ("energy_wh", "energy_price", "service_price")
            },
            **{name: datetime.fromisoformat(row[name]).timestamp() for name in ("from", "to")},
        }
        for row in rows
    ]


def _differences(
    told: _Told, curve: TariffCurve | None, place: PlaceOfSessions, *, clock_limit_s: float
) -> tuple[Terms, BillDifferences]:
    fees = told.fees
    terms, _ = terms_of(
        fees,
        told.periods,
        curves=[] if curve is None else [curve],
        curve_of=np.array([-1 if curve is None else 0]),
        clock_limit_s=clock_limit_s,
    )
    order = np.argsort(fees.started_s, kind="stable")
    sessions = BilledSessions(**{f.name: getattr(fees, f.name) for f in fields(BilledSessions)})
    registered = math.nan if place.resolution_wh is None else place.resolution_wh
    [step] = steps_of_sessions(fees.connector, fees.start_wh, fees.stop_wh, np.array([registered]))
    rated = math.nan if place.rated_power_w is None else place.rated_power_w
    billing = Billing(
        sessions=sessions.take(order),
        resolution_wh=np.full(order.size, step),
        rated_w=np.full(order.size, rated),
    )
    zero = billing.from_zero
    metered, tolerance = np.empty(order.size), np.empty(order.size)
    metered[order] = np.where(zero.is_so, zero.grew_wh, billing.metered_wh)
    tolerance[order] = billing.tolerance_wh
    return terms, differences(terms, metered, tolerance_wh=tolerance)


def _session(
    row: Mapping[Any, Any], k: int, told: _Told, terms: Terms, found: BillDifferences, share: float
) -> SessionOwed:
    bill, rightful = float(found.bill[k]), float(found.rightful[k])
    by_error = max(rightful, 0.0) * share if math.isfinite(rightful) else math.nan
    asked, metered = float(told.asked[k]), float(found.metered_wh[k])
    paid = asked if math.isfinite(asked) else float(terms.rightful[k] + terms.above[k])
    why = {
        "energy": math.isfinite(bill) and found.energy_wh[k] != 0 and bill != terms.above[k],
        "price": terms.above[k] > 0,
        "error": by_error != 0 and math.isfinite(by_error),
        "no_money": not math.isfinite(float(terms.rightful[k])),
        "no_energy": not math.isfinite(metered),
        "no_error": not math.isfinite(share),
    }
    return SessionOwed(
        session=row["session"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        metered_wh=metered,
        charged_wh=float(terms.charged_wh[k]),
        currency=row["currency"],
        paid=paid,
        should_have_been=paid - bill - by_error,
        bill_difference=bill,
        error_difference=by_error,
        difference=bill + by_error,
        why=tuple(code for code, holds in why.items() if holds),
        counted=math.isfinite(bill) and math.isfinite(by_error),
    )

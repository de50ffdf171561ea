"""Integrity signals of one run: streams readings in blocks and puts all checks together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S, EPOCH
from chargewatch.runs.apart import each_apart, rows_of
from chargewatch.runs.find_register_signals import Say, Scan, ScanContext, scan_readings
from chargewatch.runs.find_station_signals import LateEnergy, station_findings
from chargewatch.runs.load import Loaded, Rows, as_told
from chargewatch.runs.tariff_curves import load_curves
from chargewatch.runs.verify_signed import Verified, signature_checks
from chargewatch.signals.billing import Billing
from chargewatch.signals.declarations import Declarations
from chargewatch.signals.findings import DAY_KEY, Finding
from chargewatch.signals.money import BilledPeriods, Fees, Money, TariffCurve
from chargewatch.signals.registers import Piles
from chargewatch.signals.registry import findings_of, without_explained
from chargewatch.signals.sessions import BatterySessions, BilledSessions, Charges
from chargewatch.signals.stations import Cadence, LeftOut
from chargewatch.storage.archive import window as archives
from chargewatch.storage.bulk import seconds_of
from chargewatch.storage.runs import inputs as store

OVERLAP_S = 600.0
"""Sessions that came so long before the last run began may have been committed after it read."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """All findings of a run, and what later steps need of the readings."""

    findings: list[Finding]
    cadence: Cadence
    verified: Verified
    left: list[LeftOut]  # stations that a check failed for


def billed_sessions(loaded: Loaded) -> tuple[BilledSessions, Ints]:
    """Return the window's sessions by (connector, started_s), and their rows in Loaded."""
    records = loaded.sessions
    connector = loaded.registry.connector_rows(records["connector_id"])
    started = seconds_of(records["started_at"])
    order = np.lexsort((started, connector))
    return (
        BilledSessions(
            name=records["session_id"][order],
            connector=connector[order],
            started_s=started[order],
            ended_s=seconds_of(records["ended_at"])[order],
            **as_told(records[order], BilledSessions),
        ),
        order,
    )


async def find_signals(
    connection: asyncpg.Connection,
    loaded: Loaded,
    scan: Scan,
    *,
    prior: list[Finding],
    usual_gap_s: Floats,
    verified: Verified,
    late: LateEnergy,
    zone: ZoneInfo,
    say: Say,
) -> Found:
    """Return all findings of the window as of the run.

    Where:
        prior: findings of the last run; those of days that are checked again are dropped.
        usual_gap_s: of each connector as the last run knew it; NaN: not known.
        verified: signed records that earlier runs verified.
        late: energy of registers after the end of their verification.
    """
    fleet = loaded.inputs.fleet
    billed, order = billed_sessions(loaded)
    holes = await store.rows(connection, store.HOLES, as_of=scan.as_of)
    complete = _complete(loaded, holes)
    complete_sessions = _complete(loaded, [hole for hole in holes if hole["topic"] == "sessions"])
    new_rows, checked_fees = _new_sessions(loaded, scan)
    fees, periods = await _money(connection, loaded, scan, new_rows)
    context = ScanContext(
        loaded=loaded,
        piles=Piles(rated_power_w=fleet.rated_power_w, resolution_wh=fleet.resolution_wh),
        billed=billed,
        fees=fees,
        periods=periods,
        complete=complete,
        declarations=await _declarations(connection, loaded, scan),
        as_of_s=scan.as_of.timestamp(),
        base_s=scan.first.timestamp() - 10 * DAY_S,
    )
    left: list[LeftOut] = []
    by_readings, gap_s, count, checked = await scan_readings(
        connection, context, scan, left=left, say=say
    )
    cadence = Cadence(
        last_s=loaded.last_reading_s,
        usual_gap_s=np.where(np.isnan(gap_s), usual_gap_s, gap_s),
        readings=np.maximum(count, np.where(np.isfinite(loaded.last_reading_s), 2, 0)),
    )
    curves, curve_of = await load_curves(connection, loaded, scan.first, scan.as_of, zone=zone)
    everywhere = np.arange(len(loaded.registry.places))
    by_fees, out = await asyncio.to_thread(
        each_apart,
        "fees and tariffs",
        everywhere,
        lambda part: _check_fees(context, curves, curve_of, part),
    )
    left += out
    stations, out = await station_findings(
        connection,
        loaded,
        first=scan.first,
        as_of=scan.as_of,
        holes=holes,
        cadence=cadence,
        late=late,
        day=scan.day,
    )
    left += out
    signed, verified, out = await signature_checks(
        connection, loaded, known=verified, complete=complete_sessions
    )
    left += out
    kept = _kept(prior, scan, checked=checked, checked_fees=checked_fees)
    findings = [*kept, *by_readings, *by_fees, *stations, *signed]
    findings += [replace(finding, origin="window") for finding in findings_of(context.declarations)]
    by_sessions, out = await asyncio.to_thread(
        each_apart,
        "bills and states of charge",
        everywhere,
        lambda part: _by_sessions(loaded, billed, order, findings, part),
    )
    findings += by_sessions
    return Found(
        findings=without_explained(findings), cadence=cadence, verified=verified, left=left + out
    )


def _check_fees(
    context: ScanContext, curves: Sequence[TariffCurve], curve_of: Ints, stations: Ints
) -> list[Finding]:
    """Return the findings of the fees and prices of some stations."""
    fleet, fees, periods = context.loaded.inputs.fleet, context.fees, context.periods
    wanted = np.isin(fleet.station[fees.connector], stations)
    if not wanted.all():
        number = np.cumsum(wanted) - 1
        periods = rows_of(periods, wanted[periods.session])
        periods = replace(periods, session=number[periods.session])
        fees = rows_of(fees, wanted)
    money = Money(
        fees=fees,
        periods=periods,
        resolution_wh=fleet.resolution_wh[fees.connector],
        curves=curves,
        curve_of=curve_of,
        clock_limit_s=context.loaded.clock_limit_s,
    )
    return [replace(finding, origin="fees") for finding in findings_of(money)]


async def _declarations(connection: asyncpg.Connection, loaded: Loaded, scan: Scan) -> Declarations:
    """Return the changes of registers that gateways declared by events."""
    records = await store.declared_changes(connection, first=scan.first, last=scan.as_of)
    rows = loaded.registry.connector_rows(records["connector_id"])
    at_s = seconds_of(records["at"])
    order = np.lexsort((at_s, rows))
    return Declarations(
        connector=rows[order], at_s=at_s[order], replaced=records["replaced"][order].copy()
    )


def _complete(loaded: Loaded, holes: Rows) -> Bools:
    """Return the connectors of stations without a hole in their sequence numbers."""
    rows = {loaded.registry.place_rows[hole["operator_id"], hole["station_id"]] for hole in holes}
    return ~np.isin(loaded.inputs.fleet.station, np.array(sorted(rows), np.int64))


def _kept(prior: list[Finding], scan: Scan, *, checked: Ints, checked_fees: Ints) -> list[Finding]:
    """Return findings of the last run that this one doesn't check again.

    Where:
        checked: first day whose readings are checked again, by row of Fleet.
        checked_fees: (connector, day) keys whose fees are checked again.
    """
    if scan.is_full:
        return []
    oldest = int(scan.first.timestamp() // DAY_S)
    kept = []
    again = set(checked_fees.tolist())
    for finding in prior:
        if finding.day < oldest or finding.origin == "window":
            continue
        if finding.origin == "readings" and finding.day >= checked[finding.row]:
            continue
        if finding.origin == "messages" and finding.day >= scan.day:
            continue
        if finding.origin == "fees" and finding.row * DAY_KEY + finding.day in again:
            continue
        kept.append(finding)
    return kept


def _new_sessions(loaded: Loaded, scan: Scan) -> tuple[Ints, Ints]:
    """Return rows of sessions whose fees are checked, and the keys of their (connector, day).

    A day of a connector is checked again as a whole when one of its sessions is new.
    """
    records = loaded.sessions
    received, ended = seconds_of(records["received_at"]), seconds_of(records["ended_at"])
    key = _day_keys(loaded.registry.connector_rows(records["connector_id"]), ended)
    new = received > scan.received_after.timestamp() - OVERLAP_S
    new |= ended > scan.ended_after.timestamp()
    checked = np.unique(key[new])
    return np.flatnonzero(np.isin(key, checked)), checked


def _day_keys(row: Ints, at_s: Floats) -> Ints:
    return row * DAY_KEY + np.floor(at_s / DAY_S).astype(np.int64)


async def _money(
    connection: asyncpg.Connection, loaded: Loaded, scan: Scan, rows: Ints
) -> tuple[Fees, BilledPeriods]:
    """Return fees and priced periods of some sessions."""
    records = loaded.sessions
    rows = rows[np.argsort(records["session_id"][rows])]
    part = records[rows]
    fees = Fees(
        name=part["session_id"].copy(),
        connector=loaded.registry.connector_rows(part["connector_id"]),
        started_s=seconds_of(part["started_at"]),
        ended_s=seconds_of(part["ended_at"]),
        **as_told(part, Fees),
    )
    priced = await archives.periods(
        connection,
        loaded.archive,
        first=scan.first,
        last=scan.as_of,
        session_ids=None if rows.size == records.size else part["session_id"].tolist(),
        known=part["session_id"],
    )
    periods = BilledPeriods(
        session=np.searchsorted(fees.name, priced["session_id"]),
        from_s=seconds_of(priced["from_at"]),
        to_s=seconds_of(priced["to_at"]),
        energy_wh=priced["energy_wh"].copy(),
        energy_price=priced["energy_price"].copy(),
        service_price=priced["service_price"].copy(),
    )
    return fees, periods


def _by_sessions(
    loaded: Loaded,
    billed: BilledSessions,
    order: Ints,
    findings: list[Finding],
    stations: Ints,
) -> list[Finding]:
    """Return findings of some stations' billed energies and states of charge, whole window."""
    records = loaded.sessions[order]
    wanted = np.isin(loaded.inputs.fleet.station[billed.connector], stations)
    if not wanted.all():
        records, billed = records[wanted], rows_of(billed, wanted)
    resolution = loaded.inputs.fleet.resolution_wh[billed.connector]
    found = findings_of(Billing(sessions=billed, resolution_wh=resolution))
    battery = BatterySessions(**as_told(records, BatterySessions))
    charges = Charges(sessions=billed, battery=battery, found=[*findings, *found])
    found += findings_of(charges)
    return [replace(finding, origin="window") for finding in found]


def full_scan(first: datetime, as_of: datetime) -> Scan:
    """Return the scan that checks the whole window."""
    return Scan(
        first=first,
        as_of=as_of,
        day=int(first.timestamp() // DAY_S),
        late={},
        received_after=EPOCH,
        ended_after=EPOCH,
    )


def next_scan(
    first: datetime,
    as_of: datetime,
    *,
    prior_as_of: datetime,
    prior_started: datetime,
    late: Mapping[int, int],
) -> Scan:
    """Return the scan of a run that goes on from an earlier one: the days since, and one more."""
    day = int((prior_as_of - timedelta(days=1)).timestamp() // DAY_S)
    return Scan(
        first=first,
        as_of=as_of,
        day=max(day, int(first.timestamp() // DAY_S)),
        late={k: v for k, v in late.items() if v < day},
        received_after=prior_started,
        ended_after=prior_as_of,
    )

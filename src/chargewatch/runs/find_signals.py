"""Integrity signals of one run: streams readings in blocks and puts all checks together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from zoneinfo import ZoneInfo

import asyncpg
import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.runs.apart import each_apart, rows_of
from chargewatch.runs.context import RunContext
from chargewatch.runs.find_register_signals import ScanContext, scan_readings
from chargewatch.runs.find_station_signals import LateEnergy, station_findings
from chargewatch.runs.load import Loaded, Rows, as_told, column
from chargewatch.runs.owed import ODD_BILL
from chargewatch.runs.plan import scan_of
from chargewatch.runs.scan import OVERLAP_S, Scan
from chargewatch.runs.state import RunState
from chargewatch.runs.tariff_curves import load_curves
from chargewatch.runs.verify_signed import Verified, signature_checks
from chargewatch.signals.billing import Billing
from chargewatch.signals.bills import Terms, terms_of
from chargewatch.signals.declarations import Declarations, Resets
from chargewatch.signals.findings import DAY_KEY, Finding
from chargewatch.signals.money import BilledPeriods, Fees, Money, TariffCurve
from chargewatch.signals.registers import Piles
from chargewatch.signals.registry import findings_of, without_explained
from chargewatch.signals.sessions import BatterySessions, BilledSessions, Charges
from chargewatch.signals.stations import Cadence, LeftOut
from chargewatch.storage.archive import window as archives
from chargewatch.storage.bulk import Records, seconds_of
from chargewatch.storage.runs import inputs as store


@dataclass(frozen=True, kw_only=True)
class Found:
    """All findings of a run, and what later steps need of the readings."""

    findings: list[Finding]
    cadence: Cadence
    resets: Resets  # that readings declared in the window
    verified: Verified
    left: list[LeftOut]  # stations that a check failed for
    billed_rows: Ints  # rows of Loaded.sessions by (connector, started_s)
    odd_bills: Records  # of the window, dtype ODD_BILL, ascending


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
    context: RunContext,
    loaded: Loaded,
    *,
    prior: RunState,
    late: LateEnergy,
) -> Found:
    """Return all findings of the window as of the run.

    Where:
        prior: what the last run knew; its findings of days that are checked again are dropped.
        late: energy of registers after the end of their verification.
    """
    scan = scan_of(context.plan, context.as_of)
    holes = await store.rows(connection, store.HOLES, as_of=scan.as_of)
    scanned, checked_fees = await _scan_context(connection, loaded, scan, holes)
    left: list[LeftOut] = []
    new_resets: list[Resets] = []
    by_readings, gap_s, count, checked = await scan_readings(
        connection, scanned, scan, left=left, resets=new_resets, say=context.say
    )
    resets = _kept_resets(prior.resets, scan, checked=checked).joined(new_resets)
    cadence = Cadence(
        last_s=loaded.last_reading_s,
        usual_gap_s=np.where(np.isnan(gap_s), prior.usual_gap_s, gap_s),
        readings=np.maximum(count, np.where(np.isfinite(loaded.last_reading_s), 2, 0)),
    )
    (by_fees, odd), fees_left = await _by_fees(connection, scanned, scan, zone=context.zone)
    stations, stations_left = await station_findings(
        connection, loaded, scan, holes=holes, cadence=cadence, late=late
    )
    signed, verified, signed_left = await signature_checks(
        connection,
        loaded,
        known=prior.verified,
        complete=_complete(loaded, [hole for hole in holes if hole["topic"] == "sessions"]),
    )
    kept = _kept(prior.findings, scan, checked=checked, checked_fees=checked_fees)
    findings = [*kept, *by_readings, *by_fees, *stations, *signed]
    declared = scanned.declarations.with_resets(resets)
    findings += [replace(finding, origin="window") for finding in findings_of(declared)]
    by_sessions, sessions_left = await asyncio.to_thread(
        each_apart,
        "bills and states of charge",
        np.arange(len(loaded.registry.places)),
        lambda part: _by_sessions(scanned, findings, part),
    )
    return Found(
        findings=without_explained([*findings, *by_sessions]),
        cadence=cadence,
        resets=resets,
        verified=verified,
        left=[*left, *fees_left, *stations_left, *signed_left, *sessions_left],
        billed_rows=scanned.billed_rows,
        odd_bills=_kept_odd(prior.odd_bills, odd, scanned),
    )


async def _scan_context(
    connection: asyncpg.Connection, loaded: Loaded, scan: Scan, holes: Rows
) -> tuple[ScanContext, Ints]:
    """Return what the checks need, and the keys of the (connector, day) whose fees are checked."""
    fleet = loaded.inputs.fleet
    billed, billed_rows = billed_sessions(loaded)
    new_rows, checked_fees = _new_sessions(loaded, scan)
    fees, periods = await _money(connection, loaded, scan, new_rows)
    scanned = ScanContext(
        loaded=loaded,
        piles=Piles(
            rated_power_w=fleet.rated_power_w,
            # As told: of readings the checks see the step themselves.
            resolution_wh=column(loaded.registry.connectors, "resolution_wh"),
        ),
        billed=billed,
        billed_rows=billed_rows,
        fees=fees,
        periods=periods,
        complete=_complete(loaded, holes),
        declarations=await _declarations(connection, loaded, scan),
        as_of_s=scan.as_of.timestamp(),
        base_s=scan.first.timestamp() - 10 * DAY_S,
    )
    return scanned, checked_fees


async def _by_fees(
    connection: asyncpg.Connection, scanned: ScanContext, scan: Scan, *, zone: ZoneInfo
) -> tuple[tuple[list[Finding], Records], list[LeftOut]]:
    """Return the findings of fees and prices, odd bills, and the stations that they failed for."""
    loaded = scanned.loaded
    curves, curve_of = await load_curves(connection, loaded, scan.first, scan.as_of, zone=zone)
    return await asyncio.to_thread(
        each_apart,
        "fees and tariffs",
        np.arange(len(loaded.registry.places)),
        lambda part: _check_fees(scanned, curves, curve_of, part),
    )


def _check_fees(
    scanned: ScanContext, curves: Sequence[TariffCurve], curve_of: Ints, stations: Ints
) -> tuple[list[Finding], Records]:
    """Return the findings of the fees and prices of some stations, and their odd bills."""
    fleet, fees, periods = scanned.loaded.inputs.fleet, scanned.fees, scanned.periods
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
        clock_limit_s=scanned.loaded.clock_limit_s,
    )
    found = [replace(finding, origin="fees") for finding in findings_of(money)]
    terms, odd = terms_of(
        fees, periods, curves=curves, curve_of=curve_of, clock_limit_s=money.clock_limit_s
    )
    bills = np.empty(int(odd.sum()), ODD_BILL)
    bills["session_id"] = fees.name[odd]
    for field in fields(Terms):
        bills[field.name] = getattr(terms, field.name)[odd]
    return found, bills


def _kept_odd(prior: Records, found: Records, scanned: ScanContext) -> Records:
    """Return the odd bills of the window: those found, and earlier ones not looked at again."""
    kept = np.isin(prior["session_id"], scanned.billed.name)
    kept &= ~np.isin(prior["session_id"], scanned.fees.name)
    every = np.concatenate([prior[kept], found])
    return every[np.argsort(every["session_id"], kind="stable")]


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


def _kept_resets(prior: Resets, scan: Scan, *, checked: Ints) -> Resets:
    """Return resets that readings declared on days that this run doesn't read again."""
    if scan.is_full:
        return Resets.none()
    kept = prior.at_s >= scan.first.timestamp()
    return prior.take(kept & (prior.at_s < checked[prior.connector] * float(DAY_S)))


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


def _by_sessions(scanned: ScanContext, findings: list[Finding], stations: Ints) -> list[Finding]:
    """Return findings of some stations' billed energies and states of charge, whole window."""
    loaded, billed = scanned.loaded, scanned.billed
    records = loaded.sessions[scanned.billed_rows]
    asked = np.isin(loaded.inputs.fleet.station, stations)
    mine = billed if asked.all() else rows_of(billed, asked[billed.connector])
    fleet = loaded.inputs.fleet
    billing = Billing(
        sessions=mine,
        resolution_wh=fleet.resolution_wh[mine.connector],
        rated_w=fleet.rated_power_w[mine.connector],
    )
    found = findings_of(billing)
    charges = Charges(
        sessions=billed,
        battery=BatterySessions(**as_told(records, BatterySessions)),
        vehicle=records["vehicle"].copy(),
        found=[*findings, *found],
        asked=asked,
    )
    found += findings_of(charges)
    return [replace(finding, origin="window") for finding in found]

"""Integrity signals that raw readings prove, read and checked in blocks of connectors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg
import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.runs.apart import each_apart
from chargewatch.runs.context import Say
from chargewatch.runs.load import Loaded
from chargewatch.runs.scan import OVERLAP_S, Scan
from chargewatch.signals.block import Block
from chargewatch.signals.cadence import asleep_between_charges, usual_gaps
from chargewatch.signals.declarations import Declarations, Resets
from chargewatch.signals.findings import Finding
from chargewatch.signals.money import BilledPeriods, Fees
from chargewatch.signals.registers import Piles, Readings
from chargewatch.signals.registry import findings_of
from chargewatch.signals.sessions import LONGEST_SESSION_S, BilledSessions
from chargewatch.signals.stations import LeftOut
from chargewatch.storage.bulk import Records, seconds_of
from chargewatch.storage.runs import inputs as store
from chargewatch.wire.payloads import CONTEXTS

RESET_CONTEXT = CONTEXTS.index("Register.Reset")
BEGIN_CONTEXT = CONTEXTS.index("Transaction.Begin")
END_CONTEXT = CONTEXTS.index("Transaction.End")
READINGS_A_BLOCK = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ScanContext:
    """What every block of connectors needs."""

    loaded: Loaded
    piles: Piles
    billed: BilledSessions  # sorted by (connector, started_s)
    billed_rows: Ints  # their rows in Loaded.sessions
    fees: Fees  # rows of new sessions
    periods: BilledPeriods
    complete: Bools
    declarations: Declarations
    as_of_s: float
    base_s: float


async def scan_readings(
    connection: asyncpg.Connection,
    context: ScanContext,
    scan: Scan,
    *,
    left: list[LeftOut],
    resets: list[Resets],
    say: Say,
) -> tuple[list[Finding], Floats, Ints, Ints]:
    """Return findings, usual gaps, counts and first checked day from readings, block by block.

    Stations that a block can't be checked for are added to `left`, resets that readings declare
    to `resets`.
    """
    registry = context.loaded.registry
    size = registry.connector_ids.size
    gap_s, count = np.full(size, np.nan), np.zeros(size, np.int64)
    checked = _first_days(context.loaded, scan)
    alive = np.flatnonzero(np.isfinite(context.loaded.last_reading_s))
    alive = alive[context.loaded.last_reading_s[alive] >= (checked[alive] - 1) * DAY_S]
    # Connectors whose late readings reach far back come together, so that others stay cheap.
    alive = alive[np.argsort(checked[alive], kind="stable")]
    found = _without_readings(context)
    position, step = 0, 8
    while position < alive.size:
        rows = np.sort(alive[position : position + step])
        day = int(checked[rows].min())
        checked[rows] = day
        # A day more, so that the first pair of the first day is whole.
        begin = max(scan.first, datetime.fromtimestamp((day - 1) * DAY_S, UTC))
        records = await store.readings(
            connection,
            registry.connector_ids[rows].tolist(),
            first=begin,
            last=scan.as_of,
        )
        more, out = await asyncio.to_thread(
            _check_apart, context, records, rows, gap_s, count, first_day=day
        )
        found += more
        left += out
        resets.append(_resets(context.loaded, records, first_day=day))
        position += step
        per_connector = max(records.size / rows.size, 1.0)
        step = int(np.clip(READINGS_A_BLOCK / per_connector, 8, 5_000))
        if alive.size > 2_000:
            say(f"signals: readings of {min(position, alive.size)} of {alive.size} connectors")
    return found, gap_s, count, checked


def _resets(loaded: Loaded, records: Records, *, first_day: int) -> Resets:
    """Return the resets that readings declare from a day on."""
    declared = records[records["context"] == RESET_CONTEXT]
    found = Resets(
        loaded.registry.connector_rows(declared["connector_id"]), seconds_of(declared["at"])
    )
    return found.take(found.at_s >= first_day * DAY_S)


def _first_days(loaded: Loaded, scan: Scan) -> Ints:
    """Return the first day whose readings are checked again, by row of Fleet.

    An earlier one than others' where readings or sessions came late: a session's record explains
    the energy of its readings, and is held against them, from the day on that it began.
    """
    registry, sessions = loaded.registry, loaded.sessions
    checked = np.full(registry.connector_ids.size, scan.day, np.int64)
    for connector_id, day in scan.late.items():
        row = int(registry.connector_rows(np.array([connector_id]))[0])
        checked[row] = min(checked[row], day)
    late = seconds_of(sessions["received_at"]) > scan.received_after.timestamp() - OVERLAP_S
    ended = seconds_of(sessions["ended_at"])[late]
    # A begin that was told by a clock that wasn't set says nothing.
    begun = np.maximum(seconds_of(sessions["started_at"])[late], ended - LONGEST_SESSION_S.value)
    days = np.floor(np.maximum(begun, scan.first.timestamp()) / DAY_S).astype(np.int64)
    np.minimum.at(checked, registry.connector_rows(sessions["connector_id"][late]), days)
    return checked


def _without_readings(context: ScanContext) -> list[Finding]:
    """Return the findings of sessions of connectors that sent no reading."""
    silent = np.flatnonzero(~np.isfinite(context.loaded.last_reading_s))
    none = np.empty(0)
    nothing = Readings(
        connector=none.astype(np.int64),
        at_s=none,
        energy_wh=none,
        power_w=none,
        session=none.astype(np.int64),
        is_reset=none.astype(bool),
        is_begin=none.astype(bool),
        is_end=none.astype(bool),
    )
    return findings_of(_block(context, nothing, silent))


def _block(context: ScanContext, readings: Readings, rows: Ints) -> Block:
    """Return the readings of some connectors (rows ascending) with what lies beside them."""
    return Block(
        readings=readings,
        piles=context.piles,
        sessions=sessions_of(context.billed, rows),
        declarations=context.declarations.of(rows),
        fees=context.fees,
        periods=_periods_of(context, rows),
        complete=context.complete,
        as_of_s=context.as_of_s,
        base_s=context.base_s,
        clock_limit_s=context.loaded.clock_limit_s,
    )


def _check_apart(
    context: ScanContext,
    records: Records,
    rows: Ints,
    gap_s: Floats,
    count: Ints,
    *,
    first_day: int,
) -> tuple[list[Finding], list[LeftOut]]:
    """Return what `_check_block` finds, and the stations that it fails for."""
    loaded = context.loaded
    station = loaded.inputs.fleet.station

    def check(stations: Ints) -> list[Finding]:
        mine = np.isin(station[rows], stations)
        if mine.all():
            return _check_block(context, records, rows, gap_s, count, first_day=first_day)
        ids = loaded.registry.connector_ids[rows[mine]]
        part = records[np.isin(records["connector_id"], ids)]
        return _check_block(context, part, rows[mine], gap_s, count, first_day=first_day)

    return each_apart("registers", np.unique(station[rows]), check)


def _check_block(
    context: ScanContext,
    records: Records,
    rows: Ints,
    gap_s: Floats,
    count: Ints,
    *,
    first_day: int,
) -> list[Finding]:
    """Return the findings of some connectors' readings; fill in their usual gaps and counts."""
    readings = Readings(
        connector=context.loaded.registry.connector_rows(records["connector_id"]),
        at_s=seconds_of(records["at"]),
        energy_wh=records["energy_wh"].copy(),
        power_w=records["power_w"].astype(float),
        session=records["session_key"].copy(),
        is_reset=records["context"] == RESET_CONTEXT,
        is_begin=records["context"] == BEGIN_CONTEXT,
        is_end=records["context"] == END_CONTEXT,
    )
    if readings.at_s.size < 2:
        return []
    block = _block(context, readings, rows)
    _fill_cadence(block, gap_s, count)
    return [replace(f, origin="readings") for f in findings_of(block) if f.day >= first_day]


def sessions_of(billed: BilledSessions, rows: Ints) -> BilledSessions:
    """Return the sessions of some connectors (rows ascending)."""
    first = np.searchsorted(billed.connector, rows, side="left")
    last = np.searchsorted(billed.connector, rows, side="right")
    count = last - first
    begin = np.cumsum(count) - count
    return billed.take(np.repeat(first - begin, count) + np.arange(int(count.sum())))


def _periods_of(context: ScanContext, rows: Ints) -> BilledPeriods:
    """Return the priced periods of some connectors' sessions."""
    periods = context.periods
    if periods.session.size == 0:
        return periods
    keep = np.flatnonzero(np.isin(context.fees.connector[periods.session], rows))
    return BilledPeriods(
        **{name: getattr(periods, name)[keep] for name in periods.__dataclass_fields__}
    )


def _fill_cadence(block: Block, gap_s: Floats, count: Ints) -> None:
    """Fill in the usual gap between readings, and how many readings there are."""
    pairs = block.pairs
    order = np.flatnonzero(pairs.valid)
    row = pairs.row[order]
    rows, size = np.unique(row, return_counts=True)
    count[rows] = size + 1
    gap_s[rows] = usual_gaps(row, pairs.span_s[order])[rows]
    asleep = asleep_between_charges(block)
    gap_s[asleep.rows] = np.fmax(gap_s[asleep.rows], asleep.gap_s)

"""Rollups: 15-minute energies kept up to date from the readings, exactly.

After a refresh the stored rows are those that a computation from all readings would store, to the
bit, however late and in whatever order the readings came. Which rows are stored:

- reference meters: every slot;
- connectors: every slot with energy or a defect (`Quality` other than INTERPOLATED alone), the
  first and the last slot of every UTC day, and the first and the last slot that is covered at all.
  Between two stored rows no row means no energy.

Where retention has deleted readings (before `retention_horizon`) late readings can't be joined to
their neighbours any more: there they only fill what was not covered, or was covered with GAP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

import asyncpg
import numpy as np

from chargewatch.risk.inputs import SLOT_S, Bools, Intervals, Ints
from chargewatch.risk.registers import Quality, interval_energy
from chargewatch.storage import rollups as store
from chargewatch.storage.bulk import Records, seconds_of
from chargewatch.storage.database import Database
from chargewatch.storage.rollups import INTERVAL, SLOTS_A_DAY, IntervalColumns, Kind
from chargewatch.wire.payloads import CONTEXTS

UNREGISTERED_RESOLUTION_WH = 10.0
"""Step assumed for a register that the registry doesn't describe: the coarsest usual one."""

BLOCK_INSTRUMENTS = 10_000
"""Instruments of one day that are taken together."""
BLOCK_SLOTS = 2_000_000
"""Slots that are computed at once; long outages make blocks of fewer instruments."""
WRITERS_TIMEOUT_S = 60.0

DEFECTS = int(Quality.GAP | Quality.RESET | Quality.FAULT)


@dataclass(frozen=True, kw_only=True)
class RollupReport:
    """What a refresh did."""

    pairs: int = 0  # (instrument, day) pairs brought up to date
    days: int = 0
    readings: int = 0
    rows_written: int = 0
    rows_removed: int = 0
    waiting: int = 0  # pairs still due at the end
    seconds: float = 0.0


@dataclass(frozen=True)
class _Affected:
    """Instruments of a block with the slots that their day's readings bear on."""

    ids: Ints  # shape (n,), ascending
    start: Ints  # readings of instrument i: [start[i], start[i + 1]), shape (n + 1,)
    first_slot: Ints
    last_slot: Ints  # one after the last
    covered_from: Ints  # slot of the very first reading; -1 if there are older ones than at hand
    covered_to: Ints  # last slot covered by any reading; -1 if there are newer ones


@dataclass(frozen=True)
class _Changes:
    stale: Records
    rows: Records


@dataclass
class _Tally:
    pairs: int = 0
    days: set[date] = field(default_factory=set)
    readings: int = 0
    written: int = 0
    removed: int = 0


def rollup_kinds() -> tuple[Kind, Kind]:
    """Return the two kinds of instruments: connectors, reference meters."""
    return store.kinds(CONTEXTS.index("Register.Reset"))


def _affected(readings: Records, *, day: date) -> _Affected:
    """Return which slots can have changed because of the readings of a day.

    A reading changes the slots that overlap the spans on either side of it: from the last reading
    before the day to the first one after it; and one slot more, whose being the first or last one
    covered may have changed.
    """
    at_s = seconds_of(readings["at"])
    ids, start = np.unique(readings["instrument"], return_index=True)
    start = np.append(start, len(readings)).astype(np.int64)
    begin, end = (moment.timestamp() for moment in store.day_bounds(day))
    # Readings are sorted: those before the day come first, those after it last.
    owner = np.repeat(np.arange(len(ids)), np.diff(start))
    before = np.bincount(owner[at_s < begin], minlength=len(ids))
    after = np.bincount(owner[at_s >= end], minlength=len(ids))
    earliest, latest = at_s[start[:-1]], at_s[start[1:] - 1]
    near_before = at_s[start[:-1] + np.maximum(before - 1, 0)]
    near_after = at_s[start[1:] - np.maximum(after, 1)]
    first = np.floor(near_before / SLOT_S).astype(np.int64) - (before > 0)
    last = np.ceil(near_after / SLOT_S).astype(np.int64) + (after > 0)
    begins = (before == 0) | (earliest >= first * SLOT_S)
    ends = (after == 0) | (latest <= last * SLOT_S)
    return _Affected(
        ids.astype(np.int64),
        start,
        first,
        last,
        np.where(begins, np.floor(earliest / SLOT_S), -1).astype(np.int64),
        np.where(ends, np.ceil(latest / SLOT_S) - 1, -1).astype(np.int64),
    )


def _blocks(affected: _Affected) -> Iterator[slice]:
    """Yield runs of instruments with at most about BLOCK_SLOTS slots together."""
    slots = np.cumsum(affected.last_slot - affected.first_slot)
    group = slots // BLOCK_SLOTS
    edges = np.flatnonzero(np.diff(group)) + 1
    bounds = [0, *edges.tolist(), len(group)]
    for begin, end in pairwise(bounds):
        if end > begin:
            yield slice(begin, end)


def _part(affected: _Affected, part: slice) -> _Affected:
    return _Affected(
        affected.ids[part],
        affected.start[part.start : part.stop + 1],
        affected.first_slot[part],
        affected.last_slot[part],
        affected.covered_from[part],
        affected.covered_to[part],
    )


def _worth_storing(intervals: Intervals, affected: _Affected, *, dense: bool) -> Bools:
    """Return which intervals are stored; see the module's description."""
    row, slot = intervals.instrument, intervals.slot
    wanted = (slot >= affected.first_slot[row]) & (slot < affected.last_slot[row])
    if dense:
        return wanted
    edge = (slot == affected.covered_from[row]) | (slot == affected.covered_to[row])
    of_day = slot % SLOTS_A_DAY
    full = (intervals.energy_wh != 0) | ((intervals.quality & DEFECTS) != 0)
    return np.asarray(wanted & (full | edge | (of_day == 0) | (of_day == SLOTS_A_DAY - 1)))


def compute_rows(
    readings: Records, affected: _Affected, *, resolution_wh: Mapping[int, float], dense: bool
) -> Records:
    """Return the rows that belong in the affected slots, dtype INTERVAL, sorted by instrument."""
    counts = np.diff(affected.start)
    part = readings[affected.start[0] : affected.start[-1]]
    intervals = interval_energy(
        np.repeat(np.arange(len(affected.ids), dtype=np.int64), counts),
        seconds_of(part["at"]),
        part["energy_wh"],
        reset=part["reset"],
        resolution_wh=np.array(
            [resolution_wh.get(int(i), UNREGISTERED_RESOLUTION_WH) for i in affected.ids]
        ),
        first_slot=int(affected.first_slot.min()),
        last_slot=int(affected.last_slot.max()),
    )
    keep = _worth_storing(intervals, affected, dense=dense)
    rows = np.empty(int(keep.sum()), dtype=INTERVAL)
    rows["slot_at"] = (intervals.slot[keep] * store.SLOT_US).view("M8[us]")
    rows["instrument"] = affected.ids[intervals.instrument[keep]]
    rows["energy_wh"] = intervals.energy_wh[keep]
    rows["u_wh"] = intervals.u_wh[keep]
    rows["quality"] = intervals.quality[keep]
    return rows


def _key(rows: Records) -> Ints:
    return (rows["instrument"].astype(np.int64) << 32) | store.slots_of(rows["slot_at"])


def _changes(stored: Records, computed: Records, *, affected: _Affected) -> _Changes:
    """Return the stored rows to delete and the computed rows to write, where the two differ."""
    row = np.searchsorted(affected.ids, stored["instrument"])
    slot = store.slots_of(stored["slot_at"])
    stored = stored[(slot >= affected.first_slot[row]) & (slot < affected.last_slot[row])]
    stored = stored[np.argsort(_key(stored))]
    computed = computed[np.argsort(_key(computed))]
    _, in_stored, in_computed = np.intersect1d(
        _key(stored), _key(computed), assume_unique=True, return_indices=True
    )
    equal = stored[in_stored] == computed[in_computed]
    stale = np.ones(len(stored), dtype=bool)
    stale[in_stored[equal]] = False
    fresh = np.ones(len(computed), dtype=bool)
    fresh[in_computed[equal]] = False
    return _Changes(stored[stale], computed[fresh])


def _protect(
    stored: Records,
    computed: Records,
    *,
    every_slot: Records,
    readings: Records,
    affected: _Affected,
    horizon_slot: int,
    coverage: Mapping[int, tuple[int, int]],
) -> Records:
    """Return what belongs where readings were deleted: stored rows, filled where they may be.

    A slot is protected if it begins before the horizon, or if it has lost the reading before it:
    up to the first reading that was kept. It takes its computed row only if it was not covered
    before, or was covered with GAP and no longer is.
    """
    bounds = np.array([coverage.get(int(i), (2**40, -1)) for i in affected.ids]).reshape(-1, 2)
    lost = (affected.covered_from >= 0) & (bounds[:, 0] < affected.covered_from)
    slot = store.slots_of(readings["at"])
    counts = np.diff(affected.start)
    owner = np.repeat(np.arange(len(counts)), counts)
    # A late reading from before the horizon has not its neighbours any more.
    old = np.bincount(owner[slot < horizon_slot], minlength=len(counts))
    begin = affected.start[:-1] - affected.start[0]
    first_kept = np.where(old < counts, slot[begin + np.minimum(old, counts - 1)], 2**40)
    limit = np.where(lost | (old > 0), np.maximum(first_kept + 1, horizon_slot), horizon_slot)

    def protected(rows: Records) -> Bools:
        row = np.searchsorted(affected.ids, rows["instrument"])
        slot = store.slots_of(rows["slot_at"])
        return np.asarray(
            (slot >= affected.first_slot[row]) & (slot < np.minimum(limit, affected.last_slot)[row])
        )

    held, fresh = stored[protected(stored)], computed[protected(computed)]
    row = np.searchsorted(affected.ids, fresh["instrument"])
    at = store.slots_of(fresh["slot_at"])
    uncovered = fresh[(at < bounds[row, 0]) | (at > bounds[row, 1])]
    gaps = _key(held)[(held["quality"] & int(Quality.GAP)) != 0]
    # Among all slots: a gap may turn out to have been idle.
    known = every_slot[protected(every_slot) & ((every_slot["quality"] & int(Quality.GAP)) == 0)]
    mended = known[np.isin(_key(known), gaps)]
    kept = held[~np.isin(_key(held), _key(mended))]
    return np.concatenate([computed[~protected(computed)], uncovered, mended, kept])


async def _refresh_part(
    connection: asyncpg.Connection,
    kind: Kind,
    *,
    readings: Records,
    affected: _Affected,
    resolution_wh: Mapping[int, float],
    horizon_slot: int | None,
) -> _Changes:
    """Write what changed of a few instruments; runs in the caller's transaction."""
    computed = await asyncio.to_thread(
        compute_rows, readings, affected, resolution_wh=resolution_wh, dense=kind.number == 1
    )
    ids = affected.ids.astype(np.int32)
    stored = await store.read_stored(
        connection,
        kind,
        ids=ids,
        first_slot=int(affected.first_slot.min()),
        last_slot=int(affected.last_slot.max()),
    )
    if horizon_slot is not None and (
        int(affected.first_slot.min()) < horizon_slot or (affected.covered_from >= 0).any()
    ):
        coverage = await store.stored_coverage(connection, kind, ids=ids)
        computed = _protect(
            stored,
            computed,
            every_slot=compute_rows(readings, affected, resolution_wh=resolution_wh, dense=True),
            readings=readings[affected.start[0] : affected.start[-1]],
            affected=affected,
            horizon_slot=horizon_slot,
            coverage=coverage,
        )
    changes = _changes(stored, computed, affected=affected)
    await store.replace_rows(connection, kind, stale=changes.stale, rows=changes.rows)
    return changes


async def _refresh_block(
    connection: asyncpg.Connection,
    kind: Kind,
    *,
    day: date,
    resolution_wh: Mapping[int, float],
    tally: _Tally,
) -> bool:
    """Bring one block of a day's claims up to date in one transaction; return whether it could."""
    if not await store.wait_for_older_writers(
        connection, kind, day=day, timeout_s=WRITERS_TIMEOUT_S
    ):
        return False
    async with connection.transaction(isolation="repeatable_read"):
        ids = await store.claimed_instruments(connection, kind, day=day, limit=BLOCK_INSTRUMENTS)
        readings = await store.read_readings(connection, kind, day=day, ids=ids)
        horizon = await store.kept_from(connection, kind.readings)
        affected = _affected(readings, day=day)
        written = removed = 0
        for part in _blocks(affected):
            changes = await _refresh_part(
                connection,
                kind,
                readings=readings,
                affected=_part(affected, part),
                resolution_wh=resolution_wh,
                horizon_slot=None if horizon is None else store.slot_of(horizon),
            )
            written += len(changes.rows)
            removed += len(changes.stale)
        # Though no row may differ: the day's raw readings do, and an archive holds both.
        await store.renew_versions(connection, kind, days=[day])
        await store.release_claims(connection, kind, day=day, ids=ids)
    tally.pairs += len(ids)
    tally.days.add(day)
    tally.readings += len(readings)
    tally.written += written
    tally.removed += removed
    return True


async def _refresh_kind(
    connection: asyncpg.Connection,
    kind: Kind,
    *,
    up_to: date | None,
    limit_days: int | None,
    tally: _Tally,
) -> None:
    resolution_wh = await store.resolutions(connection, kind, unknown_wh=UNREGISTERED_RESOLUTION_WH)
    days: set[date] = set()
    while True:
        # Claims that a refresh before this one left come first.
        day = await store.next_due_day(connection, kind, up_to=None, claimed=True)
        if day is None:
            day = await store.next_due_day(connection, kind, up_to=up_to, claimed=False)
            if day is None or (limit_days is not None and len(days | {day}) > limit_days):
                return
            # All of the day at once, so that older writers are waited for once and not a block.
            while await store.claim(connection, kind, day=day, limit=BLOCK_INSTRUMENTS):
                pass
        days.add(day)
        if not await _refresh_block(
            connection, kind, day=day, resolution_wh=resolution_wh, tally=tally
        ):
            return


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def refresh_rollups(
    database: Database,
    *,
    up_to: date | None = None,
    limit_days: int | None = None,
    recompute_all: bool = False,
) -> RollupReport:
    """Bring the rollups of all days that are due up to date; return what was done.

    Every block of instruments and days is one transaction: it may be ended at any moment and
    repeated. Days that come due meanwhile are taken as well.

    Args:
        database: the open database.
        up_to: leave later UTC days for another time.
        limit_days: at most this many days of connectors, and of meters.
        recompute_all: make every day due that has readings.

    Raises: DatabaseError if another refresh does not end.
    """
    begun = time.monotonic()
    tally = _Tally()

    async def refresh(kind: Kind) -> None:
        async with database.raw() as connection:
            if recompute_all:
                await store.mark_all_pending(connection, kind)
            await _refresh_kind(connection, kind, up_to=up_to, limit_days=limit_days, tally=tally)

    async with database.raw() as connection, store.refresh_lock(connection):
        # Connectors and meters at once: they share no table but that of what is due.
        try:
            async with asyncio.TaskGroup() as group:
                for kind in rollup_kinds():
                    group.create_task(refresh(kind))
        except BaseExceptionGroup as failed:
            raise _first_of(failed) from None
        waiting = await store.due_pairs(connection)
    return RollupReport(
        pairs=tally.pairs,
        days=len(tally.days),
        readings=tally.readings,
        rows_written=tally.written,
        rows_removed=tally.removed,
        waiting=waiting,
        seconds=time.monotonic() - begun,
    )


def intervals_of(columns: IntervalColumns, *, row_of_id: Mapping[int, int]) -> Intervals:
    """Return stored rollups as the risk engine reads them; instruments not listed are left out.

    Args:
        columns: sorted by (instrument id, slot).
        row_of_id: row of Fleet or References by instrument id.
    """
    ids = np.fromiter(row_of_id.keys(), dtype=np.int64, count=len(row_of_id))
    rows = np.fromiter(row_of_id.values(), dtype=np.int64, count=len(row_of_id))
    size = int(max(ids.max(initial=0), columns.instrument.max(initial=0))) + 1
    table = np.full(size, -1, dtype=np.int64)
    table[ids] = rows
    instrument = table[columns.instrument]
    listed = instrument >= 0
    ordered = bool((np.diff(rows[np.argsort(ids)]) > 0).all())
    if listed.all() and ordered:
        return Intervals(
            instrument=instrument,
            slot=columns.slot,
            energy_wh=columns.energy_wh,
            u_wh=columns.u_wh,
            quality=columns.quality,
        )
    order = np.flatnonzero(listed)
    if not ordered:
        order = order[np.lexsort((columns.slot[order], instrument[order]))]
    return Intervals(
        instrument=instrument[order],
        slot=columns.slot[order],
        energy_wh=columns.energy_wh[order],
        u_wh=columns.u_wh[order],
        quality=columns.quality[order],
    )

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
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import asyncpg
import numpy as np

from chargewatch.domain.times import EPOCH
from chargewatch.runs.apart import is_of_the_data
from chargewatch.runs.rollup_rows import (
    Affected,
    RollupChanges,
    affected_by,
    blocks_of,
    changes_between,
    compute_rows,
    part_of,
    protected,
)
from chargewatch.storage import rollup_due as due
from chargewatch.storage.bulk import Records
from chargewatch.storage.database import Database
from chargewatch.storage.runs import rollups as store
from chargewatch.storage.runs.rollups import Kind, RegisterFacts
from chargewatch.wire.payloads import CONTEXTS

log = logging.getLogger("chargewatch.runs")

MOST_TRIES = 100
"""Blocks of one refresh that may be repeated because a claim was merged meanwhile."""
ROLLUP_INSTRUMENTS = 10_000
"""Instruments of one day that are taken together."""
WRITERS_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class RollupReport:
    """What a refresh did."""

    pairs: int = 0  # (instrument, day) pairs brought up to date
    days: int = 0
    readings: int = 0
    rows_written: int = 0
    rows_removed: int = 0
    waiting: int = 0  # pairs still due at the end
    failed: Sequence[tuple[str, int]] = ()  # (connector or meter, its id) that no day was made of
    seconds: float = 0.0


@dataclass(frozen=True)
class FirstDays:
    """The earliest day that was due of each instrument by its number, days since 1970."""

    connectors: dict[int, int] = field(default_factory=dict)
    meters: dict[int, int] = field(default_factory=dict)

    def of(self, kind: Kind) -> dict[int, int]:
        """Return the days of one kind of instruments."""
        return self.meters if kind.number else self.connectors


@dataclass
class _Tally:
    pairs: int = 0
    days: set[date] = field(default_factory=set)
    readings: int = 0
    written: int = 0
    removed: int = 0
    failed: dict[int, set[tuple[int, date]]] = field(default_factory=dict)  # by kind
    first_days: FirstDays = field(default_factory=FirstDays)


def rollup_kinds() -> tuple[Kind, Kind]:
    """Return the two kinds of instruments: connectors, reference meters."""
    return store.kinds(CONTEXTS.index("Register.Reset"))


async def _refresh_part(
    connection: asyncpg.Connection,
    kind: Kind,
    *,
    readings: Records,
    affected: Affected,
    facts: Mapping[int, RegisterFacts],
    horizon_slot: int | None,
) -> RollupChanges:
    """Write what changed of a few instruments; runs in the caller's transaction."""
    computed = await asyncio.to_thread(
        compute_rows, readings, affected, facts=facts, dense=kind.number == 1
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
        computed = protected(
            stored,
            computed,
            every_slot=compute_rows(readings, affected, facts=facts, dense=True),
            readings=readings[affected.start[0] : affected.start[-1]],
            affected=affected,
            horizon_slot=horizon_slot,
            coverage=coverage,
        )
    changes = changes_between(stored, computed, affected=affected)
    await store.replace_rows(connection, kind, stale=changes.stale, rows=changes.rows)
    return changes


async def _refresh_apart(
    connection: asyncpg.Connection,
    kind: Kind,
    part: slice,
    *,
    readings: Records,
    affected: Affected,
    facts: Mapping[int, RegisterFacts],
    horizon_slot: int | None,
) -> tuple[list[RollupChanges], list[int]]:
    """Write what changed of some instruments; return it, and those that it can't be done for.

    Halved until each that fails stands alone: one instrument's readings must not keep the others'
    rollups from being made.
    """
    try:
        changes = await _refresh_part(
            connection,
            kind,
            readings=readings,
            affected=part_of(affected, part),
            facts=facts,
            horizon_slot=horizon_slot,
        )
        return [changes], []
    except Exception as exc:
        if not is_of_the_data(exc):
            raise
        if part.stop - part.start == 1:
            instrument = int(affected.ids[part.start])
            log.exception("rollup_failed kind=%s instrument=%d", kind.identifier, instrument)
            return [], [instrument]
    middle = (part.start + part.stop) // 2
    done: list[RollupChanges] = []
    failed: list[int] = []
    for half in (slice(part.start, middle), slice(middle, part.stop)):
        more, bad = await _refresh_apart(
            connection,
            kind,
            half,
            readings=readings,
            affected=affected,
            facts=facts,
            horizon_slot=horizon_slot,
        )
        done += more
        failed += bad
    return done, failed


async def _refresh_block(
    connection: asyncpg.Connection,
    kind: Kind,
    *,
    day: date,
    facts: Mapping[int, RegisterFacts],
    tally: _Tally,
) -> bool:
    """Bring one block of a day's claims up to date in one transaction; return whether it could."""
    if not await due.wait_for_older_writers(connection, kind, day=day, timeout_s=WRITERS_TIMEOUT_S):
        return False
    async with connection.transaction(isolation="repeatable_read"):
        ids = await due.claimed_instruments(connection, kind, day=day, limit=ROLLUP_INSTRUMENTS)
        readings = await store.read_readings(connection, kind, day=day, ids=ids)
        horizon = await store.kept_from(connection, kind.readings)
        affected = affected_by(readings, day=day)
        written = removed = 0
        for part in blocks_of(affected):
            done, failed = await _refresh_apart(
                connection,
                kind,
                part,
                readings=readings,
                affected=affected,
                facts=facts,
                horizon_slot=None if horizon is None else store.slot_of(horizon),
            )
            written += sum(len(changes.rows) for changes in done)
            removed += sum(len(changes.stale) for changes in done)
            tally.failed.setdefault(kind.number, set()).update((i, day) for i in failed)
        # Though no row may differ: the day's raw readings do, and an archive holds both.
        await store.renew_versions(connection, kind, days=[day])
        await due.release_claims(connection, kind, day=day, ids=ids)
    number, first_days = (day - EPOCH.date()).days, tally.first_days.of(kind)
    for instrument in ids.tolist():
        first_days[instrument] = min(number, first_days.get(instrument, number))
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
    since: date | None,
    up_to: date | None,
    limit_days: int | None,
    tally: _Tally,
) -> None:
    facts = await store.register_facts(connection, kind)
    days: set[date] = set()
    tries_left = MOST_TRIES
    while True:
        # Claims that a refresh before this one left come first.
        day = await due.next_due_day(connection, kind, up_to=None, claimed=True)
        if day is None:
            day = await due.next_due_day(connection, kind, since=since, up_to=up_to, claimed=False)
            if day is None or (limit_days is not None and len(days | {day}) > limit_days):
                return
            # All of the day at once, so that older writers are waited for once and not a block.
            while await due.claim(connection, kind, day=day, limit=ROLLUP_INSTRUMENTS):
                pass
        days.add(day)
        try:
            whole = await _refresh_block(connection, kind, day=day, facts=facts, tally=tally)
        except asyncpg.SerializationError:
            # An import has merged a claim meanwhile: its days are due again, this one still.
            tries_left -= 1
            if not tries_left:
                raise
            continue
        if not whole:
            return


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def refresh_rollups(
    database: Database,
    *,
    since: date | None = None,
    up_to: date | None = None,
    limit_days: int | None = None,
    recompute_all: bool = False,
    first_days: FirstDays | None = None,
) -> RollupReport:
    """Bring the rollups of all days that are due up to date; return what was done.

    Every block of instruments and days is one transaction: it may be ended at any moment and
    repeated. Days that come due meanwhile are taken as well.

    Args:
        database: the open database.
        since: leave earlier UTC days for another time.
        up_to: leave later UTC days for another time.
        limit_days: at most this many days of connectors, and of meters.
        recompute_all: make every day due that has readings.
        first_days: filled in with the earliest day that was due of each instrument, also of those
            that failed.

    Raises: DatabaseError if another refresh does not end.
    """
    begun = time.monotonic()
    tally = _Tally(first_days=FirstDays() if first_days is None else first_days)

    async def refresh(kind: Kind) -> None:
        async with database.raw() as connection:
            if recompute_all:
                await due.mark_all_pending(connection, kind)
            await _refresh_kind(
                connection, kind, since=since, up_to=up_to, limit_days=limit_days, tally=tally
            )
            # Only now, so that the loop above ends: the next refresh tries them again.
            await due.mark_again(connection, kind, sorted(tally.failed.get(kind.number, ())))

    async with database.raw() as connection, store.refresh_lock(connection):
        # Connectors and meters at once: they share no table but that of what is due.
        try:
            async with asyncio.TaskGroup() as group:
                for kind in rollup_kinds():
                    group.create_task(refresh(kind))
        except BaseExceptionGroup as failed:
            raise _first_of(failed) from None
        waiting = await due.due_pairs(connection)
    return RollupReport(
        pairs=tally.pairs,
        days=len(tally.days),
        readings=tally.readings,
        rows_written=tally.written,
        rows_removed=tally.removed,
        waiting=waiting,
        failed=sorted(
            {
                ("meter" if number else "connector", instrument)
                for number, pairs in tally.failed.items()
                for instrument, _ in pairs
            }
        ),
        seconds=time.monotonic() - begun,
    )

"""Which rows of rollups a day's readings ask for, and what of the stored ones they replace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np

from chargewatch.domain.arrays import Bools, Ints
from chargewatch.domain.times import SLOT_S, SLOTS_A_DAY
from chargewatch.risk.registers import Quality, interval_energy
from chargewatch.risk.run_inputs import Intervals
from chargewatch.storage.bulk import Records, seconds_of
from chargewatch.storage.runs import rollups as store
from chargewatch.storage.runs.rollups import INTERVAL, UNKNOWN_REGISTER, RegisterFacts

BLOCK_SLOTS = 2_000_000
"""Slots that are computed at once; long outages make blocks of fewer instruments."""

DEFECTS = int(Quality.GAP | Quality.RESET | Quality.FAULT)


@dataclass(frozen=True)
class Affected:
    """Instruments of a block with the slots that their day's readings bear on."""

    ids: Ints  # shape (n,), ascending
    start: Ints  # readings of instrument i: [start[i], start[i + 1]), shape (n + 1,)
    first_slot: Ints
    last_slot: Ints  # one after the last
    covered_from: Ints  # slot of the very first reading; -1 if there are older ones than at hand
    covered_to: Ints  # last slot covered by any reading; -1 if there are newer ones


@dataclass(frozen=True)
class RollupChanges:
    """Stored rows to delete and computed rows to write."""

    stale: Records
    rows: Records


def affected_by(readings: Records, *, day: date) -> Affected:
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
    return Affected(
        ids.astype(np.int64),
        start,
        first,
        last,
        np.where(begins, np.floor(earliest / SLOT_S), -1).astype(np.int64),
        np.where(ends, np.ceil(latest / SLOT_S) - 1, -1).astype(np.int64),
    )


def blocks_of(affected: Affected) -> Iterator[slice]:
    """Yield runs of instruments with at most about BLOCK_SLOTS slots together."""
    slots = np.cumsum(affected.last_slot - affected.first_slot)
    group = slots // BLOCK_SLOTS
    edges = np.flatnonzero(np.diff(group)) + 1
    bounds = [0, *edges.tolist(), len(group)]
    for begin, end in pairwise(bounds):
        if end > begin:
            yield slice(begin, end)


def part_of(affected: Affected, part: slice) -> Affected:
    """Return some of the instruments."""
    return Affected(
        affected.ids[part],
        affected.start[part.start : part.stop + 1],
        affected.first_slot[part],
        affected.last_slot[part],
        affected.covered_from[part],
        affected.covered_to[part],
    )


def _worth_storing(intervals: Intervals, affected: Affected, *, dense: bool) -> Bools:
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
    readings: Records, affected: Affected, *, facts: Mapping[int, RegisterFacts], dense: bool
) -> Records:
    """Return the rows that belong in the affected slots, dtype INTERVAL, sorted by instrument."""
    counts = np.diff(affected.start)
    known = [facts.get(int(i), UNKNOWN_REGISTER) for i in affected.ids]
    part = readings[affected.start[0] : affected.start[-1]]
    intervals = interval_energy(
        np.repeat(np.arange(len(affected.ids), dtype=np.int64), counts),
        seconds_of(part["at"]),
        part["energy_wh"],
        reset=part["reset"],
        resolution_wh=np.array([told.resolution_wh for told in known]),
        rated_w=np.array([told.rated_w for told in known]),
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


def changes_between(stored: Records, computed: Records, *, affected: Affected) -> RollupChanges:
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
    return RollupChanges(stored[stale], computed[fresh])


def protected(
    stored: Records,
    computed: Records,
    *,
    every_slot: Records,
    readings: Records,
    affected: Affected,
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

    def inside(rows: Records) -> Bools:
        row = np.searchsorted(affected.ids, rows["instrument"])
        slot = store.slots_of(rows["slot_at"])
        return np.asarray(
            (slot >= affected.first_slot[row]) & (slot < np.minimum(limit, affected.last_slot)[row])
        )

    held, fresh = stored[inside(stored)], computed[inside(computed)]
    row = np.searchsorted(affected.ids, fresh["instrument"])
    at = store.slots_of(fresh["slot_at"])
    uncovered = fresh[(at < bounds[row, 0]) | (at > bounds[row, 1])]
    gaps = _key(held)[(held["quality"] & int(Quality.GAP)) != 0]
    # Among all slots: a gap may turn out to have been idle.
    known = every_slot[inside(every_slot) & ((every_slot["quality"] & int(Quality.GAP)) == 0)]
    mended = known[np.isin(_key(known), gaps)]
    kept = held[~np.isin(_key(held), _key(mended))]
    return np.concatenate([computed[~inside(computed)], uncovered, mended, kept])

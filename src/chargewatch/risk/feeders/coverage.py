"""Which slots of a feeder count: those that the meter and all its members have told of.

A register that nobody has read yet is not one that stands still. A slot whose member is missing
would put its energy down to the others, so it is left out until the member's readings have come.
A member that has been silent for `OUT_OF_SERVICE_DAYS` is taken as out of service, and then it
delivers nothing: otherwise one dead pile, or one that was registered and never built, would blind
its feeder for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Ints
from chargewatch.domain.times import SLOTS_A_DAY
from chargewatch.risk.feeders.blocks import FeederLayout
from chargewatch.risk.registers import Quality
from chargewatch.risk.run_inputs import Intervals

NEVER = np.int64(-(2**40))
"""No slot of an instrument was ever covered."""
OUT_OF_SERVICE_DAYS = 7


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What a day's intervals cover; n connectors, m meters."""

    day: int
    first: Ints  # (n,), first covered slot of the day, 0 to 95
    last: Ints  # (n,), last covered slot; -1: none
    before: Ints  # (n,), as of the day's begin
    heard: Ints  # (n,), as of the day's end
    meter_heard: Ints  # (m,)

    @property
    def slots(self) -> Ints:
        """Number of slots that each connector's intervals cover, shape (n,)."""
        return np.asarray(np.maximum(self.last - self.first + 1, 0))

    def counts(self, meter_day: Intervals, *, layout: FeederLayout) -> Bools:
        """Return which of the meters' intervals count in the balance of their feeder, (k,)."""
        size = self.meter_heard.size
        low, high = np.zeros(size, dtype=np.int64), np.full(size, SLOTS_A_DAY)
        begin = self.day * SLOTS_A_DAY
        for group in layout.groups:
            known = group.member >= 0
            member = np.where(known, group.member, 0)
            since = np.where(self.before[member] == NEVER, begin, self.before[member])
            absent = self.last[member] < 0
            absent &= since <= begin - OUT_OF_SERVICE_DAYS * SLOTS_A_DAY
            counted = known & ~absent
            low[group.meter] = np.where(counted, self.first[member], 0).max(axis=1)
            high[group.meter] = np.where(counted, self.last[member], SLOTS_A_DAY).min(axis=1)
        slot = meter_day.slot - begin
        return np.asarray(
            (slot >= low[meter_day.instrument]) & (slot <= high[meter_day.instrument])
        )


def _bounds(intervals: Intervals, *, size: int, day: int) -> tuple[Ints, Ints, Bools, Bools]:
    """Return first and last slot of the day of each instrument, -1 without, and their gaps."""
    slot = intervals.slot - day * SLOTS_A_DAY
    first, last = np.full(size, SLOTS_A_DAY), np.full(size, -1)
    np.minimum.at(first, intervals.instrument, slot)
    np.maximum.at(last, intervals.instrument, slot)
    gap = (intervals.quality & int(Quality.GAP)) != 0
    at_first, at_last = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    at_first[intervals.instrument[gap & (slot == first[intervals.instrument])]] = True
    at_last[intervals.instrument[gap & (slot == last[intervals.instrument])]] = True
    return first, last, at_first, at_last


def coverage(
    layout: FeederLayout,
    *,
    connector_day: Intervals,
    meter_day: Intervals,
    day: int,
    heard: Ints,
    meter_heard: Ints,
) -> Coverage:
    """Return what a day's intervals cover.

    Args:
        layout: where connectors and meters are.
        connector_day: of all connectors; the first and the last covered slot are there.
        meter_day: of all meters.
        day: days since 1970.
        heard: one after the last slot that was covered before, or where the silence of one that
            was never heard begins: when its meter began to tell; NEVER without, shape (n,).
        meter_heard: likewise of the meters, shape (m,).
    """
    begin = day * SLOTS_A_DAY
    first, last, gap_first, gap_last = _bounds(connector_day, size=heard.size, day=day)
    told = last >= 0
    # A register's very first reading, or its last one, is seldom at the edge of a slot.
    first = first + (told & gap_first & (heard == NEVER))
    last = last - (told & gap_last & (last < SLOTS_A_DAY - 1))
    _, meter_last, _, _ = _bounds(meter_day, size=meter_heard.size, day=day)
    awaited = np.zeros(heard.size, dtype=bool)
    for group in layout.groups:
        known = (group.member >= 0) & (meter_last[group.meter] >= 0)[:, None]
        awaited[group.member[known]] = True
    silent = np.where(awaited & (heard == NEVER), begin, heard)
    return Coverage(
        day=day,
        first=np.where(told, first, SLOTS_A_DAY),
        last=last,
        before=heard,
        heard=np.where(told, begin + last + 1, silent),
        meter_heard=np.where(meter_last >= 0, begin + meter_last + 1, meter_heard),
    )

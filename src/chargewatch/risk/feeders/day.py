"""One day's intervals under feeders as dense rows, a portion of feeders at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.domain.times import SLOTS_A_DAY
from chargewatch.risk.feeders.blocks import FeederLayout, Group
from chargewatch.risk.feeders.noise import SLOT_H
from chargewatch.risk.priors import UNKNOWN_METER_STEP_WH
from chargewatch.risk.registers import Quality
from chargewatch.risk.run_inputs import Fleet, Intervals

CHUNK_VALUES = 1_000_000
"""Values of a portion's design: small enough for a cache, large enough for numpy."""
LARGEST_STEP = 0.05
"""Of a register, over the energy of rated power in a slot."""
OTHER_COLUMNS = 25
"""About so many columns come to those of the connectors: nuisances, wander, reference."""


@dataclass(frozen=True, kw_only=True)
class FeederRows:
    """One day of some feeders, dense; b feeders, t slots."""

    energy: Floats  # (b, t, q)
    reference: Floats  # (b, t)
    present: Bools  # (b, t)
    variance: Floats  # (b, t), Wh^2, from interpolation


def too_much(intervals: Intervals, fleet: Fleet) -> Bools:
    """Return the intervals of connectors with more energy than 1.15 rated power x time, (k,)."""
    rated = np.nan_to_num(fleet.rated_power_w, nan=1e6)[intervals.instrument]
    step = np.nan_to_num(fleet.resolution_wh, nan=UNKNOWN_METER_STEP_WH)[intervals.instrument]
    return np.asarray(intervals.energy_wh > 1.15 * rated * SLOT_H + 2.0 * step)


def coarse(intervals: Intervals, fleet: Fleet) -> Bools:
    """Return intervals with energy of registers too coarse to be set beside a feeder meter, (k,).

    A step above 5 % of what rated power gives in a slot would bias the gain by its own variance
    (step^2 / 6 over the energies' variance) by more than a tenth of an MPE.
    """
    rated = np.nan_to_num(fleet.rated_power_w, nan=1e6)[intervals.instrument]
    step = np.nan_to_num(fleet.resolution_wh, nan=0.0)[intervals.instrument]
    return np.asarray((step > LARGEST_STEP * rated * SLOT_H) & (intervals.energy_wh > 0))


def _step(group: Group) -> int:
    """Return how many feeders of a group are taken at once."""
    return max(1, CHUNK_VALUES // (SLOTS_A_DAY * (group.size + OTHER_COLUMNS)))


def _chunks(group: Group) -> Iterator[slice]:
    step = _step(group)
    for begin in range(0, group.meter.size, step):
        yield slice(begin, min(begin + step, group.meter.size))


@dataclass(frozen=True, kw_only=True)
class FeederDay:
    """One day's intervals under feeders, sorted by the chunk of feeders they belong to.

    Chunks are groups' feeders in portions that fit in memory; ``bounds`` has one more than chunks.
    """

    chunks: tuple[tuple[int, slice], ...]  # number of the group, feeders
    connector: Intervals
    believed_wh: Floats  # 0 where it was too much
    too_much: Bools
    coarse: Bools
    connector_bounds: Ints
    meter: Intervals
    meter_bounds: Ints


def split_day(
    layout: FeederLayout, fleet: Fleet, *, connector_day: Intervals, meter_day: Intervals
) -> FeederDay:
    """Return a day's intervals by chunk of feeders; those under no feeder are left out."""
    chunks = [(k, part) for k, group in enumerate(layout.groups) for part in _chunks(group)]
    first = np.zeros(len(layout.groups) + 1, dtype=np.int64)
    numbers = np.array([k for k, _ in chunks], dtype=np.int64)
    np.cumsum(np.bincount(numbers, minlength=len(layout.groups)), out=first[1:])
    steps = np.array([_step(group) for group in layout.groups] + [1], dtype=np.int64)

    def by_chunk(group: Ints, row: Ints, instrument: Ints) -> tuple[Ints, Ints]:
        """Return the order of intervals by chunk, and where chunks begin."""
        chunk = np.where(group >= 0, first[group] + row // steps[group], len(chunks))
        key = chunk[instrument]
        order = np.argsort(key, kind="stable")
        return order, np.searchsorted(key[order], np.arange(len(chunks) + 1))

    own, own_bounds = by_chunk(
        layout.connector_group, layout.connector_row, connector_day.instrument
    )
    other, other_bounds = by_chunk(layout.meter_group, layout.meter_row, meter_day.instrument)
    connector, meter = connector_day.take(own), meter_day.take(other)
    excess = too_much(connector, fleet)
    return FeederDay(
        chunks=tuple(chunks),
        connector=connector,
        believed_wh=np.where(excess, 0.0, connector.energy_wh),
        too_much=excess,
        coarse=coarse(connector, fleet),
        connector_bounds=own_bounds,
        meter=meter,
        meter_bounds=other_bounds,
    )


def dense_rows(
    group: Group,
    number: int,
    split: FeederDay,
    *,
    layout: FeederLayout,
    day: int,
    resolution_wh: Floats,
) -> FeederRows:
    """Return the day's rows of one chunk of a group's feeders.

    Args:
        group: of the chunk.
        number: of the chunk in `split`.
        split: the day's intervals.
        layout: where connectors and meters are.
        day: days since 1970.
        resolution_wh: of the chunk's meters, shape (b,).
    """
    picked = split.chunks[number][1]
    b = group.meter[picked].size
    energy = np.zeros((b, SLOTS_A_DAY, group.size))
    bad = np.zeros((b, SLOTS_A_DAY), dtype=bool)
    mine = slice(*split.connector_bounds[number : number + 2])
    own = split.connector
    instrument = own.instrument[mine]
    row = layout.connector_row[instrument] - picked.start
    slot = own.slot[mine] - day * SLOTS_A_DAY
    energy[row, slot, layout.connector_column[instrument]] = split.believed_wh[mine]
    moved = np.where(own.energy_wh[mine] > 0, own.u_wh[mine] ** 2, 0.0)
    variance = sum_by_row(row * SLOTS_A_DAY + slot, moved, size=b * SLOTS_A_DAY)
    wrecked = (own.quality[mine] & int(Quality.RESET | Quality.FAULT)) != 0
    wrecked |= split.too_much[mine]
    bad[row[wrecked], slot[wrecked]] = True
    rough = split.coarse[mine]
    # What a coarse register shows flowed in the slots beside, too.
    for beside in (-1, 0, 1):
        bad[row[rough], np.clip(slot[rough] + beside, 0, SLOTS_A_DAY - 1)] = True

    reference = np.zeros((b, SLOTS_A_DAY))
    present = np.zeros((b, SLOTS_A_DAY), dtype=bool)
    mine = slice(*split.meter_bounds[number : number + 2])
    other = split.meter
    row = layout.meter_row[other.instrument[mine]] - picked.start
    slot, u_wh = other.slot[mine] - day * SLOTS_A_DAY, other.u_wh[mine]
    reference[row, slot] = other.energy_wh[mine]
    wrecked = (other.quality[mine] & int(Quality.RESET | Quality.FAULT)) != 0
    partial = ((other.quality[mine] & int(Quality.GAP)) != 0) & (u_wh <= 0)
    present[row, slot] = ~wrecked & ~partial
    # The register's resolution is modelled at the boundaries, apart from interpolation.
    step = resolution_wh[row] ** 2 / 6.0
    rest = np.maximum(u_wh**2 - step, 0.0)
    variance += sum_by_row(row * SLOTS_A_DAY + slot, rest, size=b * SLOTS_A_DAY)
    return FeederRows(
        energy=energy,
        reference=reference,
        present=present & ~bad,
        variance=variance.reshape(b, SLOTS_A_DAY),
    )

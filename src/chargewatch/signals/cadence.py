"""How often connectors are read: always, or only while they charge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.signals.block import Block
from chargewatch.signals.rule import USE, Limit
from chargewatch.signals.timeline import SESSION_CLOCK_S

PERCENTILE = 0.95
LEAST_ASLEEP_S = Limit(
    28_800.0, "s", "the least cadence of a pile that is read only while it charges", USE
)


@dataclass(frozen=True)
class Asleep:
    """Connectors that are read only while they charge, and that don't charge now."""

    rows: Ints
    gap_s: Floats  # how long they usually wait for the next charge


def usual_gaps(row: Ints, gap_s: Floats) -> Floats:
    """Return the 95th percentile of the gaps of each row, s; NaN of a row without any."""
    size = int(row.max(initial=-1)) + 1
    result = np.full(size, np.nan)
    order = np.lexsort((gap_s, row))
    rows, first, count = np.unique(row[order], return_index=True, return_counts=True)
    result[rows] = gap_s[order[first + np.ceil(PERCENTILE * (count - 1)).astype(np.int64)]]
    return result


def asleep_between_charges(block: Block) -> Asleep:
    """Return connectors all of whose readings are of charges, the last one of a finished charge.

    Such a pile says nothing until the next vehicle comes: its cadence is that of its charges,
    and at least 8 hours.
    """
    readings, sessions = block.readings, block.sessions
    last = np.flatnonzero(np.diff(readings.connector, append=-1) != 0)
    rows = readings.connector[last]
    size = int(rows.max(initial=-1)) + 1
    of_charge = (readings.session != 0) | readings.is_begin | readings.is_end
    of_charge |= readings.power_w > 0
    read_idle = np.bincount(readings.connector[~of_charge], minlength=size) > 0
    ended = np.full(size, -np.inf)
    mine = sessions.connector < size
    np.maximum.at(ended, sessions.connector[mine], sessions.ended_s[mine])
    finished = readings.is_end[last] | (readings.at_s[last] <= ended[rows] + SESSION_CLOCK_S.value)
    chosen = rows[finished & ~read_idle[rows]]
    if not chosen.size:
        return Asleep(chosen, np.empty(0))
    gap_s = np.maximum(sessions.started_s[1:] - sessions.ended_s[:-1], 0.0)
    same = np.flatnonzero(np.diff(sessions.connector) == 0)
    usual = np.full(size, np.nan)
    known = usual_gaps(sessions.connector[same], gap_s[same])[:size]
    usual[: known.size] = known
    return Asleep(chosen, np.fmax(usual[chosen], LEAST_ASLEEP_S.value))

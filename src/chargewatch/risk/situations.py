"""Situations in which a meter may err otherwise than usual, and sums that tell of it cheaply.

A pile can be right on average and at every verification, and wrong in the evening, above a load or
after the first kilowatt hours. Its active slots are put into bins of five families; for each bin
the sums of score and information about the connector's z say by how much its feeder's balance is
off there, from residuals that no weight has touched. Sums over neighbouring bins make windows. A
sixth family, below I_min or not, is for the error at light load; no window is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S, SLOT_S
from chargewatch.risk.feeders.noise import SLOT_H

HOURS, DAYS, LOAD, ENERGY, DURATION, LIGHT = range(6)
FAMILY_NAMES = ("hours", "days", "load", "energy", "duration", "light")
LOAD_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of power over rated power; the fullest of a slot and its neighbours counts."""
LOAD_SCALES = (0.1, 0.25, 0.6)
"""Of windows that fade with load as exp(-load / scale): a meter's error grows steadily there."""
LIGHT_MIDDLE = 0.15
"""Load from which downward such a window is whole."""
ENERGY_EDGES_WH = (2_000.0, 5_000.0, 10_000.0, 20_000.0, 40_000.0)
"""Of the energy since charging began."""
DURATION_EDGES_H = (0.5, 1.0, 2.0)
"""Of how long charging goes on without a pause, in whole slots."""
BINS = (24, 2, len(LOAD_EDGES) + 1, len(ENERGY_EDGES_WH) + 1, len(DURATION_EDGES_H) + 1, 2)
FIRST = tuple(int(x) for x in np.concatenate([[0], np.cumsum(BINS)]))
SIZE = FIRST[-1]
HOUR_BIN_S = DAY_S // BINS[HOURS]
LONGEST_HOURS = 12
"""Bins in the longest window of hours: half a day."""
THURSDAY = 3
"""1970-01-01, counted from Monday."""
SCORE, INFORMATION, SQUARE, SEEN_DAYS = range(4)
SUMS = 4


@dataclass(frozen=True, kw_only=True)
class Window:
    """Neighbouring bins of a family in which a connector may err otherwise."""

    family: int
    bins: tuple[int, ...]  # numbers among all SIZE bins
    grades: tuple[float, ...] = ()  # by how much each of them is in it, all wholly where empty

    @property
    def grade(self) -> Floats:
        """By how much each of all bins is in the window, shape (SIZE,)."""
        out = np.zeros(SIZE)
        out[list(self.bins)] = self.grades or 1.0
        return out

    @property
    def code(self) -> str:
        """Name of the family, as reasons and exports tell it."""
        return FAMILY_NAMES[self.family]

    @property
    def limits(self) -> tuple[float, float]:
        """Where the window begins and ends, in the family's unit; infinite where it is open.

        Hours of the local day (the end may be at or before the beginning: over midnight), weekdays
        as 0 to 5 or 5 to 7 from Monday on, fractions of rated power, Wh since the beginning, hours.
        """
        first, last = self.bins[0] - FIRST[self.family], self.bins[-1] - FIRST[self.family]
        if self.family == HOURS:
            hours = HOUR_BIN_S / 3600
            return first * hours, (last + 1) * hours % 24
        if self.family == DAYS:
            return ((0.0, 5.0), (5.0, 7.0))[first]
        edges = (LOAD_EDGES, ENERGY_EDGES_WH, DURATION_EDGES_H)[self.family - LOAD]
        bounds = (0.0, *edges, np.inf)
        return bounds[first], bounds[last + 1]

    @property
    def complement(self) -> tuple[float, float] | None:
        """Limits of what is not in the window, None where that is no window."""
        low, high = self.limits
        if self.family == HOURS:
            return high, low
        if self.family == DAYS:
            return (0.0, 5.0) if low else (5.0, 7.0)
        if low == 0:
            return high, np.inf
        return (0.0, low) if np.isinf(high) else None


def _windows() -> tuple[Window, ...]:
    found = []
    for length in range(1, LONGEST_HOURS + 1):
        for begin in range(BINS[HOURS]):
            bins = tuple((begin + k) % BINS[HOURS] for k in range(length))
            found.append(Window(family=HOURS, bins=bins))
    found.append(Window(family=DAYS, bins=(FIRST[DAYS] + 1,)))
    for family in (LOAD, ENERGY, DURATION):
        count = BINS[family]
        for begin in range(count):
            for end in range(begin + 1, count + 1):
                # The whole family is no situation; a window and its complement are the same.
                middle = begin > 0 and end < count
                if (begin == 0) != (end == count) or (middle and family == LOAD):
                    bins = tuple(FIRST[family] + k for k in range(begin, end))
                    found.append(Window(family=family, bins=bins))
    bins = tuple(range(FIRST[LOAD], FIRST[LOAD + 1]))
    middle = (np.array((0.0, *LOAD_EDGES)) + np.array((*LOAD_EDGES, 1.0))) / 2.0
    for scale in LOAD_SCALES:
        grades = np.minimum(np.exp((LIGHT_MIDDLE - middle) / scale), 1.0)
        found.append(Window(family=LOAD, bins=bins, grades=tuple(grades.tolist())))
    return tuple(found)


WINDOWS = _windows()


IN_WINDOW = np.array([window.grade for window in WINDOWS])
"""By how much each bin is in each window, shape (w, SIZE)."""
FAMILY_OF = np.array([window.family for window in WINDOWS])
IN_FAMILY = np.array(
    [
        [FIRST[window.family] <= k < FIRST[window.family + 1] for k in range(SIZE)]
        for window in WINDOWS
    ],
    dtype=np.float64,
)
"""Bins of each window's family, shape (w, SIZE)."""


@dataclass(frozen=True, kw_only=True)
class ActiveSlots:
    """Slots with energy of some connectors, k of them; bins: shape (6, k), numbers below SIZE."""

    feeder: Ints
    slot: Ints  # row of the day or history
    column: Ints
    energy_wh: Floats
    bins: Ints


def active_slots(energy: Floats, rated_w: Floats, *, light: Floats, begin_s: float) -> ActiveSlots:
    """Return the active slots of feeders' connectors and the bin of each in every family.

    Charging that goes on over the first or last slot is seen as far as the slots go.

    Args:
        energy: Wh, shape (b, t, q), successive slots.
        rated_w: rated power, shape (b, q); 0 where padded.
        light: fraction of rated power below which a load is light, shape (b, q).
        begin_s: of the first slot, by local clocks, since 1970.
    """
    by_connector = np.ascontiguousarray(energy.transpose(0, 2, 1))
    _, q, t = by_connector.shape
    flat = by_connector.reshape(-1)
    rows = np.flatnonzero(flat > 0)
    place, slot = rows // t, rows % t
    value = flat[rows]
    # Runs of successive active slots.
    begins = np.ones(rows.size, dtype=bool)
    begins[1:] = (np.diff(rows) != 1) | (np.diff(place) != 0)
    run = np.cumsum(begins) - 1
    total = np.cumsum(value)
    first = np.flatnonzero(begins)
    before = total - value - (total[first] - value[first])[run]
    hours = np.bincount(run, minlength=first.size)[run] * SLOT_H
    left = np.where(begins, 0.0, flat[np.maximum(rows - 1, 0)])
    ends = np.append(begins[1:], True)
    right = np.where(ends, 0.0, flat[np.minimum(rows + 1, flat.size - 1)])
    rated = rated_w.reshape(-1)[place]
    fullest = np.maximum(np.maximum(left, right), value) / SLOT_H
    load = np.where(rated > 0, fullest / np.where(rated > 0, rated, 1.0), 0.0)
    local_s = slot * SLOT_S + int(begin_s)
    weekend = (local_s // DAY_S + THURSDAY) % 7 >= 5
    bins = np.stack(
        [
            local_s % DAY_S // HOUR_BIN_S,
            weekend.astype(np.int64),
            np.searchsorted(LOAD_EDGES, load, side="right"),
            np.searchsorted(ENERGY_EDGES_WH, before + 0.5 * value, side="right"),
            np.searchsorted(DURATION_EDGES_H, hours, side="left"),
            (load >= light.reshape(-1)[place]).astype(np.int64),
        ]
    )
    return ActiveSlots(
        feeder=place // q,
        slot=slot,
        column=place % q,
        energy_wh=value,
        bins=bins + np.array(FIRST[:-1])[:, None],
    )


def situation_sums(
    active: ActiveSlots, residual: Floats, variance: Floats, *, present: Bools, gain: Floats
) -> NDArray[np.float32]:
    """Return one day's sums by connector and bin, shape (b, q, SIZE, SUMS).

    Args:
        active: the day's active slots.
        residual: reference less what the balance explains, Wh, shape (b, t).
        variance: of it, before any robust weight, Wh^2, shape (b, t).
        present: rows that count, shape (b, t).
        gain: present gains, shape (b, q).

    Equation: a connector's column for z is -g E, so score = -g E r / v and information
    (g E)^2 / v; their quotient is how far z is off in the bin. The square of a day's score over
    its information tells, over days, how much such quotients scatter.
    """
    b, q = gain.shape
    use = present[active.feeder, active.slot]
    feeder, slot, column = active.feeder[use], active.slot[use], active.column[use]
    moved = active.energy_wh[use] * gain[feeder, column]
    weight = moved / variance[feeder, slot]
    score, information = -weight * residual[feeder, slot], weight * moved
    out = np.zeros((b * q * SIZE, SUMS), dtype=np.float32)
    for bins in active.bins[:, use]:
        place = (feeder * q + column) * SIZE + bins
        for kind, values in ((SCORE, score), (INFORMATION, information)):
            out[:, kind] += np.bincount(place, weights=values, minlength=out.shape[0])
    seen = out[:, INFORMATION] > 0
    out[seen, SQUARE] = out[seen, SCORE] ** 2 / out[seen, INFORMATION]
    out[:, SEEN_DAYS] = seen
    return out.reshape(b, q, SIZE, SUMS)

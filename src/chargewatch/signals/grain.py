"""How finely registers tell: their step and how often they are refreshed, seen in the readings.

The registry may not tell a register's step, and never how often it is refreshed. Both show: every
increment is a multiple of the step, and under charge the register stands between two refreshes.
"""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.signals.rule import SIMULATED, Limit

LONGEST_REFRESH_S = Limit(900.0, "s", "the longest refresh of a register", SIMULATED)
STEPS_WH = np.array([1000.0, 500.0, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0])
CHANCE = 1e-6
"""So unlikely must it be that a finer register shows only multiples of a step."""
VARIED_CHANGES = 6
"""Least increments where the register never stands under charge."""
CHANGES = 10
"""Least refreshes seen of a connector."""
STANDS_SHARE = 0.25
"""Least part of the increments before which a slow register stood."""


def seen_steps(row: Ints, energy_wh: Floats, told_wh: Floats, *, usable: Bools) -> Floats:
    """Return the step of each pair's register, at least the told one, Wh; shape (k,).

    A coarser step than the told one is taken when (nearly) all increments and registers are
    multiples of it, so many that chance can't be the reason, and the register either stood
    between two increments or grew by different multiples.

    Where:
        row: connector of each pair of readings; shape (k,).
        energy_wh: registers, shape (k + 1,).
        told_wh: step by the registry.
        usable: both readings are of one charge, close to each other.
    """
    result = told_wh.astype(np.float64)
    step = np.diff(energy_wh)
    moved = np.flatnonzero(usable & (step != 0))
    if not moved.size:
        return result
    size = int(row.max()) + 1
    changes = np.bincount(row[moved], minlength=size)
    stood = np.bincount(row[usable & (step == 0)], minlength=size) > 0
    told = np.ones(size)
    told[row] = told_wh
    least = np.full(size, np.inf)
    np.minimum.at(least, row[moved], np.abs(step[moved]))
    most = np.zeros(size)
    np.maximum.at(most, row[moved], np.abs(step[moved]))
    enough = stood & (changes >= 2)
    enough |= (most > 1.5 * least) & (changes >= VARIED_CHANGES)
    seen = told.copy()
    for size_wh in STEPS_WH:
        multiple = _is_multiple(step[moved], size_wh) & _is_multiple(energy_wh[1:][moved], size_wh)
        share = np.bincount(row[moved], weights=multiple, minlength=size) / np.maximum(changes, 1)
        sure = changes * np.log10(np.maximum(size_wh / told, 1.0)) >= -np.log10(CHANCE)
        take = (seen <= told) & (size_wh > told) & enough & sure & (share >= 0.95)
        seen[take] = size_wh
    return np.maximum(result, seen[row])


def steps_of_sessions(
    connector: Ints, start_wh: Floats, stop_wh: Floats, told_wh: Floats
) -> Floats:
    """Return the step of connectors' registers as their sessions show it, at least the told one.

    As `seen_steps`, of sessions with energy: nearly all registers that they tell are multiples.

    Args:
        connector: row of each session, shape (s,).
        start_wh: registers, Wh, shape (s,).
        stop_wh: likewise.
        told_wh: step by the registry, shape (n,); NaN stays where nothing coarser shows.
    """
    size = told_wh.size
    rows = np.flatnonzero(stop_wh > start_wh)
    count = np.bincount(connector[rows], minlength=size)
    told = np.where(told_wh > 0, told_wh, 1.0)
    result = told_wh.astype(np.float64)
    seen = told.copy()
    for size_wh in STEPS_WH:
        multiple = _is_multiple(start_wh[rows], size_wh) & _is_multiple(stop_wh[rows], size_wh)
        good = np.bincount(connector[rows], weights=multiple, minlength=size)
        share = good / np.maximum(count, 1)
        # Of each session one register is new: the next one begins where it ended.
        sure = count * np.log10(np.maximum(size_wh / told, 1.0)) >= -np.log10(CHANCE)
        take = (seen <= told) & (size_wh > told) & sure & (share >= 0.95)
        seen[take] = size_wh
        result[take] = size_wh
    return result


def _is_multiple(value: Floats, step: float) -> Bools:
    return np.asarray(np.abs(value / step - np.round(value / step)) * step < 1e-3)


def seen_refresh(
    row: Ints, end_s: Floats, step_wh: Floats, resolution_wh: Floats, *, usable: Bools
) -> Floats:
    """Return how long each pair's register goes without a refresh, s; 0 where that isn't seen.

    The 90th percentile of the times between two increments under charge, where the register stood
    before a quarter of them at least. Increments below 3 steps tell of the step, not of a refresh.
    """
    none = np.zeros(row.size)
    moved = np.flatnonzero(usable & (step_wh > 0))
    if moved.size < CHANGES:
        return none
    outside = np.cumsum(~usable)
    before, after = moved[:-1], moved[1:]
    one = (row[before] == row[after]) & (outside[before] == outside[after])
    one &= step_wh[after] >= 3 * resolution_wh[after]
    before, after = before[one], after[one]
    size = int(row.max()) + 1
    count = np.bincount(row[after], minlength=size)
    stood = np.bincount(row[after], weights=after - before > 1, minlength=size)
    refresh = np.zeros(size)
    for k in np.flatnonzero((count >= CHANGES) & (stood >= STANDS_SHARE * count)).tolist():
        mine = row[after] == k
        refresh[k] = np.quantile(end_s[after[mine]] - end_s[before[mine]], 0.9)
    return np.asarray(np.minimum(refresh, LONGEST_REFRESH_S.value)[row])

"""Where on a connector's register a moment lies: the readings before and after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.signals.registers import Pairs, Readings, time_keys
from chargewatch.signals.rule import DATA_FORM, SIMULATED, Limit

OFFSET_SESSIONS = Limit(3, "sessions", "a lag of two clocks is one only over several", SIMULATED)
STEADY_OFFSET_S = Limit(2.0, "s", "median absolute deviation of two clocks' lag", DATA_FORM)
SESSION_CLOCK_S = Limit(5.0, "s", "a session's times against those of its readings", DATA_FORM)


@dataclass(frozen=True)
class Timeline:
    """Finds readings of a connector by time."""

    key: Ints
    base_s: float
    readings: Readings

    def at_or_before(self, connector: Ints, at_s: Floats) -> Ints:
        """Return the index of the last reading at or before a time, -1 where there is none."""
        if self.key.size == 0:
            return np.full(at_s.size, -1)
        keys = time_keys(connector, at_s, base_s=self.base_s)
        k = np.searchsorted(self.key, keys, side="right") - 1
        ok = (k >= 0) & (self.readings.connector[np.maximum(k, 0)] == connector)
        return np.where(ok, k, -1)

    def at_or_after(self, connector: Ints, at_s: Floats) -> Ints:
        """Return the index of the first reading at or after a time, -1 where there is none."""
        size = self.key.size
        if size == 0:
            return np.full(at_s.size, -1)
        keys = time_keys(connector, at_s, base_s=self.base_s)
        k = np.searchsorted(self.key, keys, side="left")
        ok = (k < size) & (self.readings.connector[np.minimum(k, size - 1)] == connector)
        return np.where(ok, k, -1)


def timeline(readings: Readings, *, base_s: float) -> Timeline:
    """Return the index by connector and time; base_s is before every reading."""
    return Timeline(time_keys(readings.connector, readings.at_s, base_s=base_s), base_s, readings)


def resolution_at(pairs: Pairs, line: Timeline, connector: Ints, at_s: Floats) -> Floats:
    """Return the step of connectors' registers at times, Wh; 1 where there is no reading."""
    k = np.maximum(line.at_or_before(connector, at_s), line.at_or_after(connector, at_s))
    k = np.clip(k - 1, 0, max(pairs.resolution_wh.size - 1, 0))
    if pairs.resolution_wh.size == 0:
        return np.ones(at_s.size)
    return np.asarray(pairs.resolution_wh[k])


def unsound_before(pairs: Pairs) -> Ints:
    """Return how many falls, jumps and resets lie before each reading, shape (n,)."""
    broken = pairs.valid & ~pairs.sound
    return np.concatenate([[0], np.cumsum(broken)])


def bracket(line: Timeline, pairs: Pairs, connector: Ints, at_s: Floats) -> tuple[Floats, Floats]:
    """Return between which values the register was at a time; NaN where that isn't known."""
    energy = pairs.readings.energy_wh
    if energy.size == 0:
        return np.full(at_s.size, np.nan), np.full(at_s.size, np.nan)
    before = line.at_or_before(connector, at_s - SESSION_CLOCK_S.value)
    after = line.at_or_after(connector, at_s + SESSION_CLOCK_S.value)
    broken = unsound_before(pairs)
    known = (before >= 0) & (after >= 0)
    known &= broken[np.maximum(before, 0)] == broken[np.maximum(after, 0)]
    low = np.where(known, energy[before], np.nan)
    high = np.where(known, energy[after], np.nan)
    return low, high


def clock_offsets(
    line: Timeline, connector: Ints, started_s: Floats, *, clock_limit_s: float
) -> Floats:
    """Return by how much the clock of readings is ahead of that of sessions, s; 0: not known.

    The median over a connector's sessions of its `Transaction.Begin` readings less the begins
    that sessions tell, where it is steady and within the clock limit; shape (s,).
    """
    readings = line.readings
    result = np.zeros(connector.size)
    begins = np.flatnonzero(readings.is_begin)
    if not begins.size or not connector.size:
        return result
    place = np.searchsorted(line.key[begins], time_keys(connector, started_s, base_s=line.base_s))
    lag = np.full(connector.size, np.inf)
    for near in (place - 1, place):
        at = begins[np.clip(near, 0, begins.size - 1)]
        away = np.where(readings.connector[at] == connector, readings.at_s[at] - started_s, np.inf)
        lag = np.where(np.abs(away) < np.abs(lag), away, lag)
    known = np.flatnonzero(np.abs(lag) <= clock_limit_s)
    for row in np.unique(connector[known]).tolist():
        mine = lag[known[connector[known] == row]]
        middle = float(np.median(mine))
        steady = float(np.median(np.abs(mine - middle))) <= STEADY_OFFSET_S.value
        if steady and mine.size >= OFFSET_SESSIONS.value:
            result[connector == row] = middle
    return result

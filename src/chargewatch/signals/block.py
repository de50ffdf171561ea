"""Facts of checks: the readings of some connectors, with all that lies beside them in time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.signals.baseline import FromZero, from_zero
from chargewatch.signals.billing import billing_tolerance
from chargewatch.signals.declarations import Declarations
from chargewatch.signals.money import BilledPeriods, Fees
from chargewatch.signals.outside import outside_sessions
from chargewatch.signals.registers import (
    CHARGING_FRACTION,
    LONGEST_POWER_S,
    Pairs,
    Piles,
    Readings,
    pairs_of,
)
from chargewatch.signals.rule import SIMULATED, Limit
from chargewatch.signals.sessions import BilledSessions
from chargewatch.signals.timeline import Timeline, bracket, clock_offsets, resolution_at, timeline

STUCK_WH = Limit(200.0, "Wh", "energy by power while the register stands", SIMULATED)
POWER_MISMATCH = Limit(0.05, "of the energy", "register against power, beside 3 u", SIMULATED)
POWER_MISMATCH_FROM_WH = Limit(1_000.0, "Wh", "days of less energy tell too little", SIMULATED)


@dataclass(frozen=True, kw_only=True)
class StuckRuns:
    """Runs of pairs over which the register stood while power flowed, shape (r,)."""

    first: Ints  # pair
    last: Ints
    energy_wh: Floats  # by power
    limit_wh: Floats
    pairs: Bools  # those in such a run, shape of all pairs


@dataclass(frozen=True, kw_only=True)
class PowerDays:
    """Days of connectors with register and power beside each other, shape (d,)."""

    first: Ints  # pair
    last: Ints
    by_power_wh: Floats
    by_register_wh: Floats
    ratio: Floats
    allowed: Floats  # how far from 1 the ratio may be
    is_unit: Bools  # the ratio is about 1,000 or 1/1,000
    is_off: Bools  # too far from 1 otherwise


@dataclass(frozen=True, kw_only=True)
class OffRegister:
    """Sessions one end of which is not the register at that time, shape (o,)."""

    end: str  # start or stop
    sessions: BilledSessions
    at_s: Floats
    told_wh: Floats
    nearest_wh: Floats
    tolerance_wh: Floats
    is_unit: Bools  # by a factor of 1,000

    def take(self, rows: Ints) -> OffRegister:
        """Return some of them."""
        return OffRegister(
            end=self.end,
            sessions=self.sessions.take(rows),
            at_s=self.at_s[rows],
            told_wh=self.told_wh[rows],
            nearest_wh=self.nearest_wh[rows],
            tolerance_wh=self.tolerance_wh[rows],
            is_unit=self.is_unit[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Block:
    """Readings of some connectors; what several checks need of them is computed once."""

    readings: Readings
    piles: Piles
    sessions: BilledSessions
    declarations: Declarations
    """A declared change of the register explains its step, between two sessions too."""
    fees: Fees
    periods: BilledPeriods
    complete: Bools
    """Shape (n,) over all connectors: no message of the station is missing."""
    as_of_s: float
    base_s: float
    """Before every reading."""
    clock_limit_s: float

    @cached_property
    def pairs(self) -> Pairs:
        """Consecutive readings."""
        return pairs_of(self.readings, self.piles, declarations=self.declarations)

    @cached_property
    def line(self) -> Timeline:
        """The readings by connector and time."""
        return timeline(self.readings, base_s=self.base_s)

    @cached_property
    def outside(self) -> Bools:
        """Pairs that are outside any session."""
        return outside_sessions(
            self.pairs,
            self.sessions,
            complete=self.complete,
            as_of_s=self.as_of_s,
            base_s=self.base_s,
        )

    @cached_property
    def stuck(self) -> StuckRuns:
        """Registers that stand still while power says charging.

        The power's energy over one run of equal registers must pass max(200 Wh, 3 resolutions),
        and that of two refreshes.
        """
        pairs = self.pairs
        still = _charging(pairs) & ~pairs.declared & (pairs.step_wh == 0)
        run = _runs(still, pairs.row)
        inside = np.flatnonzero(still)
        number = run[inside]
        count = int(number.max()) + 1 if number.size else 0
        energy = np.bincount(number, weights=pairs.power_wh[inside], minlength=count).astype(float)
        first = np.full(count, -1)
        last = np.full(count, -1)
        first[number[::-1]] = inside[::-1]
        last[number] = inside
        span = np.bincount(number, weights=pairs.span_s[inside], minlength=count).astype(float)
        limit = np.fmax(STUCK_WH.value, 3 * pairs.resolution_wh[first])
        limit = np.fmax(limit, energy * 2 * pairs.refresh_s[first] / np.maximum(span, 1.0))
        bad = np.flatnonzero(energy > limit)
        stuck = np.zeros(still.size, bool)
        stuck[inside] = np.isin(number, bad)
        return StuckRuns(
            first=first[bad],
            last=last[bad],
            energy_wh=energy[bad],
            limit_wh=limit[bad],
            pairs=stuck,
        )

    @cached_property
    def power_days(self) -> PowerDays:
        """Days of a connector whose power and register can be compared.

        Pairs with power at both ends are summed over a day of a connector; a day counts from 1 kWh.
        Power below zero feeds the grid and gives no energy to the vehicle: a register that grows
        meanwhile is off by all of it.
        A ratio near 1,000 or 1/1,000 is a unit fault, another difference over 5 % and three times
        the trapezoid rule's uncertainty, u^2 = sum (dt dP)^2 / 12, a mismatch.
        """
        pairs = self.pairs
        power = pairs.readings.power_w
        use = self._comparable
        day = np.floor(pairs.end_s[use] / DAY_S).astype(np.int64)
        new = np.ones(use.size, bool)
        new[1:] = (np.diff(day) != 0) | (np.diff(pairs.row[use]) != 0)
        group = np.cumsum(new) - 1
        by_power = np.bincount(group, weights=np.maximum(pairs.power_wh[use], 0.0)).astype(float)
        by_register = np.bincount(group, weights=pairs.step_wh[use]).astype(float)
        wobble = (pairs.span_s[use] * (power[1:][use] - power[:-1][use]) / 3600) ** 2 / 12
        lag = pairs.refresh_s * np.nan_to_num(pairs.rated_w) / 3600
        lag = np.hypot(pairs.resolution_wh, lag)[use[new]]
        u = np.sqrt(np.bincount(group, weights=wobble) + 2 * lag**2)
        large = np.fmax(by_power, by_register) > POWER_MISMATCH_FROM_WH.value
        # Where all power was below zero any energy is too much: as if one watt-hour were told.
        by_power = np.maximum(by_power, 1.0)
        ratio = by_register / by_power
        unit = large & (((ratio > 500) & (ratio < 2000)) | ((ratio > 5e-4) & (ratio < 2e-3)))
        unit &= by_power > 1.0
        allowed = POWER_MISMATCH.value + 3 * u / by_power
        return PowerDays(
            first=use[new],
            last=_lasts(use, new),
            by_power_wh=by_power,
            by_register_wh=by_register,
            ratio=ratio,
            allowed=allowed,
            is_unit=unit,
            is_off=large & ~unit & (np.abs(ratio - 1) > allowed),
        )

    @property
    def _comparable(self) -> Ints:
        """Pairs with power at both ends, of one charge, whose step can be energy."""
        pairs = self.pairs
        power = pairs.readings.power_w
        told = (power[:-1] * power[1:] > 0) & (pairs.span_s <= LONGEST_POWER_S.value)
        told &= pairs.one_charge
        rate = pairs.step_wh * 3600 / np.where(pairs.span_s > 0, pairs.span_s, np.inf)
        least = CHARGING_FRACTION.value * np.nan_to_num(pairs.rated_w)
        active = np.minimum(np.abs(power[:-1]), np.abs(power[1:])) > least
        active |= rate > least
        # A factor of 1,000 makes every step a jump; only then do jumps take part.
        scale = pairs.step_wh / np.where(pairs.power_wh > 0, pairs.power_wh, np.nan)
        usable = pairs.sound | (pairs.jump & (scale > 500) & (scale < 2000))
        return np.flatnonzero(told & active & usable & ~self.stuck.pairs)

    @cached_property
    def from_zero(self) -> FromZero:
        """Sessions that count from the register's zero, by readings or by themselves."""
        sessions = self.sessions
        low, _ = bracket(self.line, self.pairs, sessions.connector, sessions.started_s)
        return self._from_zero(low)

    @cached_property
    def from_zero_alone(self) -> FromZero:
        """Those that show it by themselves."""
        return self._from_zero(np.full(self.sessions.connector.size, np.nan))

    def _from_zero(self, at_begin_wh: Floats) -> FromZero:
        connector = self.sessions.connector
        return from_zero(
            self.sessions,
            tolerance_wh=billing_tolerance(self.piles.resolution_wh[connector]),
            rated_w=self.piles.rated_power_w[connector],
            at_begin_wh=at_begin_wh,
        )

    @cached_property
    def off_register(self) -> tuple[OffRegister, ...]:
        """Sessions whose start or stop is not the register at that time, starts first.

        A register never falls, so at any time it lies between the reading before and the reading
        after; no interpolation is needed, and a session is off only when it is outside that
        bracket (with 5 s for the clock and two resolutions).
        """
        sessions = self.sessions
        offset_s = clock_offsets(
            self.line, sessions.connector, sessions.started_s, clock_limit_s=self.clock_limit_s
        )
        return (
            self._off("start", sessions.started_s + offset_s, sessions.start_wh),
            self._off("stop", sessions.ended_s + offset_s, sessions.stop_wh),
        )

    def _off(self, end: str, at_s: Floats, told_wh: Floats) -> OffRegister:
        connector = self.sessions.connector
        low, high = bracket(self.line, self.pairs, connector, at_s)
        tolerance = 2 * resolution_at(self.pairs, self.line, connector, at_s) + 1.0
        miss = np.fmax(low - tolerance - told_wh, told_wh - high - tolerance)
        nearest = np.where(told_wh < low, low, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = told_wh / nearest
        every = OffRegister(
            end=end,
            sessions=self.sessions,
            at_s=at_s,
            told_wh=told_wh,
            nearest_wh=nearest,
            tolerance_wh=tolerance,
            is_unit=(np.abs(ratio / 1000 - 1) < 0.02) | (np.abs(ratio * 1000 - 1) < 0.02),
        )
        # What begins at zero has a signal of its own.
        return every.take(np.flatnonzero((miss > 0) & ~self.from_zero.is_so))


def _lasts(use: Ints, new: Bools) -> Ints:
    """Return the last pair of each group, `new` marking the first ones."""
    return use[np.append(np.flatnonzero(new)[1:], use.size) - 1] if use.size else use


def _charging(pairs: Pairs) -> Bools:
    """Return pairs at both ends of which power says that a vehicle charges."""
    power = pairs.readings.power_w
    least = np.fmax(CHARGING_FRACTION.value * np.nan_to_num(pairs.rated_w), 100.0)
    both = (power[:-1] > least) & (power[1:] > least)
    near = pairs.valid & pairs.one_charge & (pairs.span_s <= LONGEST_POWER_S.value)
    return np.asarray(near & both)


def _runs(marked: Bools, connector: Ints) -> Ints:
    """Return the number of the run of consecutive marked pairs, -1 outside."""
    begins = marked.copy()
    begins[1:] &= ~marked[:-1] | (connector[1:] != connector[:-1])
    return np.where(marked, np.cumsum(begins) - 1, -1)

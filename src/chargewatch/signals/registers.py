"""Registers of connectors: readings, and pairs of consecutive ones with their falls and jumps.

All checks of registers work on pairs of consecutive readings of one connector. A pair says nothing
where a reset is declared, where the register rolls over, or where readings are far apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.rollover import rollover_energy
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.declarations import Declarations, declared_steps
from chargewatch.signals.grain import seen_refresh, seen_steps
from chargewatch.signals.rule import DATA_FORM, SIMULATED, Limit
from chargewatch.signals.setback import out_of_order

POWER_MARGIN = Limit(1.1, "x rated power", "the most power that a connector can give", SIMULATED)
CLOCK_STEP_S = Limit(2.0, "s", "times of readings may be rounded to the second", DATA_FORM)
LONGEST_POWER_S = Limit(900.0, "s", "power is not integrated over longer spans", SIMULATED)
CHARGING_FRACTION = Limit(0.02, "of rated power", "less power is not charging", SIMULATED)
RESTORED_WH = Limit(50.0, "Wh", "what a reboot between two sessions may lose", SIMULATED)

LEAST_JITTER = 0.5
"""Of a step: a fall of less is noise of a register that is told in floating point."""
KEY_SPAN = np.int64(1) << 40
"""More milliseconds than any window has, 35 years; 64 bits hold 8 million connectors of them."""


def time_keys(connector: Ints, at_s: Floats, *, base_s: float) -> Ints:
    """Return one number for (connector, time) that sorts by connector, then by time.

    Times outside the 35 years from base_s on count as its first or last moment: a session that
    a pile without a clock dates to 1970 must not reach into another connector's numbers.

    Args:
        connector: row of Fleet, shape (n,).
        at_s: s since 1970, shape (n,).
        base_s: begin of the 35 years, s since 1970.
    """
    at_ms = np.rint((at_s - base_s) * 1e3)
    inside = np.clip(at_ms, 0.0, float(KEY_SPAN - 1)).astype(np.int64)
    return np.asarray(connector * KEY_SPAN + inside)


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Register readings, sorted by (connector, time); shape (n,). NaN: not told."""

    connector: Ints  # row of Fleet
    at_s: Floats
    energy_wh: Floats
    power_w: Floats
    session: Ints  # key of the running session; 0: the reading names none
    is_reset: Bools  # context Register.Reset
    is_begin: Bools  # context Transaction.Begin
    is_end: Bools  # context Transaction.End


@dataclass(frozen=True, kw_only=True)
class Piles:
    """What the registry tells of the connectors, by row of Fleet; shape (n,). NaN: not told."""

    rated_power_w: Floats
    resolution_wh: Floats


@dataclass(frozen=True)
class Pairs:
    """Consecutive readings k and k + 1 of one connector; shape (n - 1,)."""

    readings: Readings
    valid: Bools  # same connector, later in time
    step_wh: Floats
    span_s: Floats
    power_wh: Floats  # integral of power by the trapezoid rule; NaN: power not told
    resolution_wh: Floats  # the register's step: by the registry, or coarser as seen
    refresh_s: Floats  # how long the register goes without a refresh, as seen; 0: not
    rated_w: Floats
    declared: Bools  # reset or rollover: the step says nothing
    restored: Bools  # no energy: a small fall by a reboot, or a clock set back
    fall: Bools
    jump: Bools
    unit: Bools  # the register's scale changes by a factor of 1,000

    @property
    def row(self) -> Ints:
        """Row of Fleet of each pair."""
        return self.readings.connector[1:]

    @property
    def end_s(self) -> Floats:
        """Time of the later reading."""
        return self.readings.at_s[1:]

    @property
    def start_s(self) -> Floats:
        """Time of the earlier reading."""
        return self.readings.at_s[:-1]

    @property
    def one_charge(self) -> Bools:
        """Pairs that don't reach over the end of one session or the begin of another."""
        return _one_charge(self.readings)

    @property
    def jitter(self) -> Bools:
        """Pairs over which the register falls back by a step, and not by noise far below it."""
        part = self.step_wh / self.resolution_wh
        small = (part <= -LEAST_JITTER) & (part >= -1.0)
        return np.asarray(self.valid & small & ~self.declared & ~self.restored)

    @property
    def sound(self) -> Bools:
        """Pairs whose step can be energy."""
        odd = self.declared | self.restored | self.fall | self.jump | self.unit
        return np.asarray(self.valid & ~odd)


def most_energy(
    rated_w: Floats, span_s: Floats, resolution_wh: Floats, *, refresh_s: Floats
) -> Floats:
    """Return the most energy that a register can show of a span, Wh.

    Equation: E = 1.1 P (t + refresh + 2 s) + 2 steps.
    """
    whole_s = span_s + refresh_s + CLOCK_STEP_S.value
    return POWER_MARGIN.value * rated_w * whole_s / 3600 + 2 * resolution_wh


def _one_charge(readings: Readings) -> Bools:
    known = (readings.session[1:] != 0) & (readings.session[:-1] != 0)
    other = known & (readings.session[1:] != readings.session[:-1])
    return np.asarray(~other & ~readings.is_end[:-1] & ~readings.is_begin[1:])


def _in_charge(readings: Readings, *, span_s: Floats, rated_w: Floats) -> Bools:
    """Return pairs, close to each other, of which power or session say that they are charging."""
    power = readings.power_w
    least = np.fmax(CHARGING_FRACTION.value * np.nan_to_num(rated_w), 100.0)
    flows = (power[:-1] > least) & (power[1:] > least)
    untold = np.isnan(power[:-1]) | np.isnan(power[1:])
    flows |= untold & (readings.session[:-1] != 0)
    near = (span_s > 0) & (span_s <= LONGEST_POWER_S.value)
    same = readings.connector[1:] == readings.connector[:-1]
    return np.asarray(same & near & flows & _one_charge(readings))


def _restored(readings: Readings, fall: Bools, *, step_wh: Floats, charging: Bools) -> Bools:
    """Return small falls outside of a charge, the only fall of their connector on a UTC day."""
    result = np.zeros(fall.size, bool)
    falls = np.flatnonzero(fall)
    if not falls.size:
        return result
    day = np.floor(readings.at_s[1:][falls] / DAY_S)
    key = np.stack([readings.connector[1:][falls].astype(float), day])
    _, group, count = np.unique(key, axis=1, return_inverse=True, return_counts=True)
    inside = (readings.session[:-1] != 0) & (readings.session[1:] == readings.session[:-1])
    small = (step_wh >= -RESTORED_WH.value) & ~charging & ~inside
    result[falls] = small[falls] & (count[group.reshape(-1)] == 1)
    return result


def _scale_changes(before: Floats, after: Floats) -> Bools:
    """Return where a value becomes 1,000 times larger or smaller, within 2 %."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = after / before
        near = (np.abs(ratio / 1000.0 - 1.0) < 0.02) | (np.abs(ratio * 1000.0 - 1.0) < 0.02)
    return np.asarray(near & (np.maximum(before, after) > 10_000.0))


def pairs_of(
    readings: Readings,
    piles: Piles,
    *,
    declarations: Declarations | None = None,
) -> Pairs:
    """Return the pairs of consecutive readings with their falls and jumps.

    A jump is a step above 1.1 x rated power x (span + refresh + 2 s) + 2 steps. Of a single reading
    that is out of line and comes back only the way out is marked, not the way back.
    """
    connector, at, energy = readings.connector, readings.at_s, readings.energy_wh
    row = connector[1:]
    span, step = np.diff(at), np.diff(energy)
    same = connector[1:] == connector[:-1]
    resolution = np.where(piles.resolution_wh[row] > 0, piles.resolution_wh[row], 1.0)
    rated = piles.rated_power_w[row]
    charging = _in_charge(readings, span_s=span, rated_w=rated)
    resolution = seen_steps(row, energy, resolution, usable=charging)
    refresh = seen_refresh(row, at[1:], step, resolution, usable=charging)
    most = most_energy(rated, span, resolution, refresh_s=refresh)
    most = np.where(np.isnan(most), np.inf, most)
    rolled = rollover_energy(energy[:-1], energy[1:], span_s=span, rated_w=rated)
    declared = readings.is_reset[1:] | np.isfinite(rolled)
    valid = same & (span > 0)
    open_ = valid & ~declared
    # A register that begins near zero grows a thousandfold by energy that can be.
    grows = np.isfinite(most) & (step > 0) & (step <= most)
    unit = open_ & ~grows & _scale_changes(energy[:-1], energy[1:])
    fall = open_ & ~unit & (step < -resolution)
    jump = open_ & ~unit & (step > most)
    power = (readings.power_w[1:] + readings.power_w[:-1]) / 2 * span / 3600
    mixed = out_of_order(connector, at, energy, fall=fall, rated_w=rated)
    fall, jump = fall & ~mixed, jump & ~mixed
    _drop_way_back(fall, jump, energy=energy, most=most, resolution=resolution, valid=open_)
    if declarations is not None and declarations.at_s.size:
        explained = declared_steps(
            declarations,
            connector=row,
            start_s=at[:-1],
            end_s=at[1:],
            valid=valid,
            odd=fall | jump | unit,
        )
        if explained.any():
            is_reset = readings.is_reset | np.append(False, explained)
            return pairs_of(replace(readings, is_reset=is_reset), piles)
    restored = mixed | _restored(readings, fall, step_wh=step, charging=charging)
    return Pairs(
        readings=readings,
        valid=valid,
        step_wh=step,
        span_s=span,
        power_wh=power,
        resolution_wh=resolution,
        refresh_s=refresh,
        rated_w=rated,
        declared=declared,
        restored=restored,
        fall=fall & ~restored,
        jump=jump,
        unit=unit,
    )


def _drop_way_back(
    fall: Bools, jump: Bools, *, energy: Floats, most: Floats, resolution: Floats, valid: Bools
) -> None:
    """Clear the mark of the pair by which a single outlying reading comes back."""
    if energy.size < 3:
        return
    around = energy[2:] - energy[:-2]
    fits = (around >= -resolution[1:]) & (around <= most[:-1] + most[1:]) & valid[1:] & valid[:-1]
    out_down = fall[:-1] & (energy[2:] > energy[1:-1]) & fits
    out_up = jump[:-1] & fall[1:] & fits
    jump[1:] &= ~out_down
    fall[1:] &= ~out_up


def pair_record(pairs: Pairs, k: int) -> dict[str, Any]:
    """Return pair k as evidence."""
    energy = pairs.readings.energy_wh
    return {
        "from": time_text(pairs.start_s[k]),
        "to": time_text(pairs.end_s[k]),
        "before_wh": float(energy[k]),
        "after_wh": float(energy[k + 1]),
    }

"""Signals that the registers of connectors prove: falls, jumps, stand-still, power, units.

All checks work on pairs of consecutive readings of one connector. A pair says nothing where a
reset is declared, where the register rolls over, or where readings are far apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.signals.declarations import Declarations, declared_steps
from chargewatch.signals.findings import Finding, Limits, findings_by_day, time_text

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
    resolution_wh: Floats
    rated_w: Floats
    declared: Bools  # reset or rollover: the step says nothing
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
        readings = self.readings
        known = (readings.session[1:] != 0) & (readings.session[:-1] != 0)
        other = known & (readings.session[1:] != readings.session[:-1])
        return np.asarray(~other & ~readings.is_end[:-1] & ~readings.is_begin[1:])

    @property
    def sound(self) -> Bools:
        """Pairs whose step can be energy."""
        return self.valid & ~self.declared & ~self.fall & ~self.jump & ~self.unit


def is_rollover(before_wh: Floats, after_wh: Floats, *, most_wh: Floats) -> Bools:
    """Return where a register passed a power of ten (at least 10^5) and goes on from zero.

    Where:
        before_wh, after_wh: register before and after, Wh, shape (n,).
        most_wh: the most energy the span can hold, Wh, shape (n,).

    Equation: E = 10^d - before + after, with 10^(d-1) <= before < 10^d, 0 <= E <= most.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        top = 10.0 ** (np.floor(np.log10(np.maximum(before_wh, 1.0))) + 1.0)
    energy = top - before_wh + after_wh
    near = (top >= 1e5) & (before_wh >= 0.9 * top) & (after_wh < 0.1 * top)
    return np.asarray((after_wh < before_wh) & near & (energy >= 0) & (energy <= most_wh))


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
    limits: Limits,
    declarations: Declarations | None = None,
) -> Pairs:
    """Return the pairs of consecutive readings with their falls and jumps.

    A jump is a step above 1.1 x rated power x (span + 2 s) + 2 resolutions. Of a single reading
    that is out of line and comes back only the way out is marked, not the way back.
    """
    connector, at, energy = readings.connector, readings.at_s, readings.energy_wh
    row = connector[1:]
    span, step = np.diff(at), np.diff(energy)
    same = connector[1:] == connector[:-1]
    resolution = np.where(piles.resolution_wh[row] > 0, piles.resolution_wh[row], 1.0)
    rated = piles.rated_power_w[row]
    most = limits.power_margin * rated * (span + limits.clock_step_s) / 3600 + 2 * resolution
    most = np.where(np.isnan(most), np.inf, most)
    declared = readings.is_reset[1:] | is_rollover(energy[:-1], energy[1:], most_wh=most)
    valid = same & (span > 0)
    open_ = valid & ~declared
    unit = open_ & _scale_changes(energy[:-1], energy[1:])
    fall = open_ & ~unit & (step < -resolution)
    jump = open_ & ~unit & (step > most)
    power = (readings.power_w[1:] + readings.power_w[:-1]) / 2 * span / 3600
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
            return pairs_of(replace(readings, is_reset=is_reset), piles, limits=limits)
    return Pairs(readings, valid, step, span, power, resolution, rated, declared, fall, jump, unit)


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


def _pair_record(pairs: Pairs, k: int) -> dict[str, Any]:
    energy = pairs.readings.energy_wh
    return {
        "from": time_text(pairs.start_s[k]),
        "to": time_text(pairs.end_s[k]),
        "before_wh": float(energy[k]),
        "after_wh": float(energy[k + 1]),
    }


def register_steps(pairs: Pairs, *, limits: Limits) -> list[Finding]:
    """Return findings of registers that fall without a declared reset, and that jump."""
    energy = pairs.readings.energy_wh

    def record(k: int) -> Mapping[str, Any]:
        return _pair_record(pairs, k)

    falls = np.flatnonzero(pairs.fall)
    jumps = np.flatnonzero(pairs.jump)
    most = (
        limits.power_margin * pairs.rated_w * (pairs.span_s + limits.clock_step_s) / 3600
        + 2 * pairs.resolution_wh
    )
    return [
        *findings_by_day(
            "register_decrease",
            pairs.row[falls],
            pairs.end_s[falls],
            first_s=pairs.start_s[falls],
            value=pairs.step_wh[falls],
            limit=-pairs.resolution_wh[falls],
            detail=lambda k: (
                f"register fell from {energy[falls[k]]:.0f} to {energy[falls[k] + 1]:.0f} Wh "
                "without a declared reset"
            ),
            record=lambda k: record(int(falls[k])),
        ),
        *findings_by_day(
            "register_jump",
            pairs.row[jumps],
            pairs.end_s[jumps],
            first_s=pairs.start_s[jumps],
            value=pairs.step_wh[jumps],
            limit=most[jumps],
            excess=pairs.step_wh[jumps] / most[jumps],
            detail=lambda k: (
                f"{pairs.step_wh[jumps[k]]:.0f} Wh in {pairs.span_s[jumps[k]]:.0f} s; "
                f"{pairs.rated_w[jumps[k]]:.0f} W can't give more than {most[jumps[k]]:.0f} Wh"
            ),
            record=lambda k: record(int(jumps[k])),
        ),
    ]


def _charging(pairs: Pairs, limits: Limits) -> Bools:
    """Return pairs at both ends of which power says that a vehicle charges."""
    power = pairs.readings.power_w
    least = np.fmax(limits.charging_fraction * np.nan_to_num(pairs.rated_w), 100.0)
    both = (power[:-1] > least) & (power[1:] > least)
    near = pairs.valid & pairs.one_charge & (pairs.span_s <= limits.longest_power_s)
    return np.asarray(near & both)


def _runs(marked: Bools, connector: Ints) -> Ints:
    """Return the number of the run of consecutive marked pairs, -1 outside."""
    begins = marked.copy()
    begins[1:] &= ~marked[:-1] | (connector[1:] != connector[:-1])
    return np.where(marked, np.cumsum(begins) - 1, -1)


def stuck_registers(pairs: Pairs, *, limits: Limits) -> tuple[list[Finding], Bools]:
    """Return findings of registers that stand still while power says charging, and their pairs.

    The power's energy over one run of equal registers must pass max(200 Wh, 3 resolutions).
    """
    still = _charging(pairs, limits) & ~pairs.declared & (pairs.step_wh == 0)
    run = _runs(still, pairs.row)
    inside = np.flatnonzero(still)
    number = run[inside]
    count = int(number.max()) + 1 if number.size else 0
    energy = np.bincount(number, weights=pairs.power_wh[inside], minlength=count).astype(float)
    first = np.full(count, -1)
    last = np.full(count, -1)
    first[number[::-1]] = inside[::-1]
    last[number] = inside
    limit = np.fmax(limits.stuck_wh, 3 * pairs.resolution_wh[first])
    bad = np.flatnonzero(energy > limit)
    start_s, end_s = pairs.start_s[first[bad]], pairs.end_s[last[bad]]
    register = pairs.readings.energy_wh[first[bad]]
    found = findings_by_day(
        "stuck_register",
        pairs.row[first[bad]],
        end_s,
        first_s=start_s,
        value=energy[bad],
        limit=limit[bad],
        detail=lambda k: (
            f"power says {energy[bad[k]]:.0f} Wh in {end_s[k] - start_s[k]:.0f} s, "
            f"the register stays at {register[k]:.0f} Wh"
        ),
        record=lambda k: {
            "from": time_text(start_s[k]),
            "to": time_text(end_s[k]),
            "register_wh": float(register[k]),
            "power_wh": float(energy[bad[k]]),
        },
    )
    stuck = np.zeros(still.size, bool)
    stuck[inside] = np.isin(number, bad)
    return found, stuck


def power_mismatches(pairs: Pairs, *, stuck: Bools, limits: Limits) -> list[Finding]:
    """Return findings of days whose power and register tell different energies.

    Pairs with power at both ends are summed over a day of a connector; a day counts from 1 kWh.
    Power below zero feeds the grid and gives no energy to the vehicle: a register that grows
    meanwhile is off by all of it.
    A ratio near 1,000 or 1/1,000 is a unit fault, another difference over 5 % and three times the
    trapezoid rule's uncertainty, u^2 = sum (dt dP)^2 / 12, a mismatch.
    """
    power = pairs.readings.power_w
    told = (power[:-1] * power[1:] > 0) & (pairs.span_s <= limits.longest_power_s)
    told &= pairs.one_charge
    rate = pairs.step_wh * 3600 / np.where(pairs.span_s > 0, pairs.span_s, np.inf)
    least = limits.charging_fraction * np.nan_to_num(pairs.rated_w)
    active = np.minimum(np.abs(power[:-1]), np.abs(power[1:])) > least
    active |= rate > least
    # A factor of 1,000 makes every step a jump; only then do jumps take part.
    scale = pairs.step_wh / np.where(pairs.power_wh > 0, pairs.power_wh, np.nan)
    usable = pairs.sound | (pairs.jump & (scale > 500) & (scale < 2000))
    use = np.flatnonzero(told & active & usable & ~stuck)
    if use.size == 0:
        return []
    day = np.floor(pairs.end_s[use] / DAY_S).astype(np.int64)
    new = np.ones(use.size, bool)
    new[1:] = (np.diff(day) != 0) | (np.diff(pairs.row[use]) != 0)
    group = np.cumsum(new) - 1
    by_power = np.bincount(group, weights=np.maximum(pairs.power_wh[use], 0.0)).astype(float)
    by_register = np.bincount(group, weights=pairs.step_wh[use]).astype(float)
    wobble = (pairs.span_s[use] * (power[1:][use] - power[:-1][use]) / 3600) ** 2 / 12
    u = np.sqrt(np.bincount(group, weights=wobble) + 2 * pairs.resolution_wh[use[new]] ** 2)
    first, last = use[new], use[np.append(np.flatnonzero(new)[1:], use.size) - 1]
    large = np.fmax(by_power, by_register) > limits.power_mismatch_from_wh
    # Where all power was below zero any energy is too much: as if one watt-hour were told.
    by_power = np.maximum(by_power, 1.0)
    ratio = by_register / by_power
    unit = large & (((ratio > 500) & (ratio < 2000)) | ((ratio > 5e-4) & (ratio < 2e-3)))
    unit &= by_power > 1.0
    allowed = limits.power_mismatch + 3 * u / by_power
    off = large & ~unit & (np.abs(ratio - 1) > allowed)
    found = []
    for code, bad in (("unit_fault", unit), ("power_register_mismatch", off)):
        k_bad = np.flatnonzero(bad)
        found += _ratio_findings(
            code,
            pairs,
            first[k_bad],
            last[k_bad],
            ratio=ratio[k_bad],
            allowed=allowed[k_bad],
            by_power=by_power[k_bad],
            by_register=by_register[k_bad],
        )
    return found


def _ratio_findings(
    code: str,
    pairs: Pairs,
    first: Ints,
    last: Ints,
    *,
    ratio: Floats,
    allowed: Floats,
    by_power: Floats,
    by_register: Floats,
) -> list[Finding]:
    is_unit = code == "unit_fault"
    return findings_by_day(
        code,
        pairs.row[first],
        pairs.end_s[last],
        first_s=pairs.start_s[first],
        value=ratio if is_unit else ratio - 1,
        limit=1.0 if is_unit else allowed,
        excess=np.abs(np.log(np.maximum(ratio, 1e-9))),
        detail=lambda k: (
            f"the register grew by {by_register[k]:.0f} Wh, power says {by_power[k]:.0f} Wh "
            f"(ratio {ratio[k]:.4g})"
        ),
        record=lambda k: {
            "from": time_text(pairs.start_s[first[k]]),
            "to": time_text(pairs.end_s[last[k]]),
            "register_wh": float(by_register[k]),
            "power_wh": float(by_power[k]),
        },
    )


def unit_changes(pairs: Pairs) -> list[Finding]:
    """Return findings of registers that go on 1,000 times larger or smaller."""
    k_bad = np.flatnonzero(pairs.unit)
    energy = pairs.readings.energy_wh
    ratio = energy[1:][k_bad] / energy[:-1][k_bad]
    return findings_by_day(
        "unit_fault",
        pairs.row[k_bad],
        pairs.end_s[k_bad],
        first_s=pairs.start_s[k_bad],
        value=ratio,
        limit=1.0,
        excess=np.abs(np.log(ratio)),
        detail=lambda k: (
            f"register went from {energy[k_bad[k]]:.0f} to {energy[k_bad[k] + 1]:.0f} Wh: "
            "a factor of 1,000"
        ),
        record=lambda k: _pair_record(pairs, int(k_bad[k])),
    )


def without_unit_days(findings: list[Finding]) -> list[Finding]:
    """Return findings less those that a unit fault of the same connector and day explains."""
    unit = {(f.row, f.day) for f in findings if f.code == "unit_fault"}
    explained = {
        "register_decrease",
        "register_jump",
        "stuck_register",
        "power_register_mismatch",
        "idle_consumption",
        "session_register_mismatch",
        "register_discontinuity",
    }
    return [f for f in findings if f.code not in explained or (f.row, f.day) not in unit]


def register_findings(
    readings: Readings,
    piles: Piles,
    *,
    limits: Limits,
    declarations: Declarations | None = None,
) -> tuple[list[Finding], Pairs]:
    """Return all findings that readings alone prove, and the pairs for the checks of sessions."""
    pairs = pairs_of(readings, piles, limits=limits, declarations=declarations)
    stuck_found, stuck = stuck_registers(pairs, limits=limits)
    found = [
        *register_steps(pairs, limits=limits),
        *stuck_found,
        *power_mismatches(pairs, stuck=stuck, limits=limits),
        *unit_changes(pairs),
    ]
    return found, pairs

"""Signals of money: fees that don't add up, prices that aren't the registered tariff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sums_between
from chargewatch.domain.times import DAY_S
from chargewatch.signals.findings import Finding, Limits, findings_by_day, time_text
from chargewatch.signals.idle import Timeline
from chargewatch.signals.registers import Pairs


@dataclass(frozen=True, kw_only=True)
class Fees:
    """Money of sessions, shape (s,); NaN: not told."""

    name: Ints
    connector: Ints
    started_s: Floats
    ended_s: Floats
    start_wh: Floats
    stop_wh: Floats
    billed_wh: Floats
    energy_fee: Floats
    service_fee: Floats
    other_fee: Floats  # parking, occupancy
    discount: Floats  # taken off, positive
    total_fee: Floats


@dataclass(frozen=True, kw_only=True)
class BilledPeriods:
    """Parts of sessions at one price, sorted by (session, from); shape (p,). NaN: not told."""

    session: Ints  # row of Fees
    from_s: Floats
    to_s: Floats
    energy_wh: Floats
    energy_price: Floats  # money per kWh
    service_price: Floats


def fee_findings(
    fees: Fees, periods: BilledPeriods, *, resolution_wh: Floats, limits: Limits
) -> list[Finding]:
    """Return findings of fees that are not the sum of period energy x price.

    Rounding to a cent per period is allowed. total_fee must be energy_fee + service_fee + other_fee
    - discount; it isn't checked where energy_fee or service_fee isn't told, the other two count
    where they are told. The periods' energies must add up to billed_wh where that is the metered
    energy (where it isn't, the session has another signal).
    """
    size = fees.name.size
    count = np.bincount(periods.session, minlength=size)
    allowed = limits.fee_per_period * np.maximum(count, 1) + 1e-6
    kwh = periods.energy_wh / 1000
    energy = _sum(periods.session, kwh * periods.energy_price, size, count)
    service = _sum(periods.session, kwh * periods.service_price, size, count)
    total_of_parts = fees.energy_fee + fees.service_fee
    total_of_parts += np.nan_to_num(fees.other_fee) - np.nan_to_num(fees.discount)
    energies = _sum(periods.session, periods.energy_wh, size, count)
    step = np.fmax(limits.billing_step_wh, 2 * np.nan_to_num(resolution_wh, nan=1.0))
    metered = fees.stop_wh - fees.start_wh
    consistent = np.abs(metered - fees.billed_wh) <= step
    differences = [
        ("energy_fee", fees.energy_fee, energy, allowed),
        ("service_fee", fees.service_fee, service, allowed),
        ("total_fee", fees.total_fee, total_of_parts, np.full(size, 0.01 + 1e-6)),
        (
            "billed_wh",
            np.where(consistent, fees.billed_wh, np.nan),
            energies,
            step * np.maximum(count, 1),
        ),
    ]
    found = []
    taken = np.zeros(size, bool)
    for name, told, expected, limit in differences:
        # A session counts once, for the first sum that is off.
        bad = np.flatnonzero((np.abs(told - expected) > limit) & ~taken)
        taken[bad] = True
        found += _fee_findings(name, fees, bad, told=told, expected=expected, limit=limit)
    return found


def _sum(session: Ints, values: Floats, size: int, count: Ints) -> Floats:
    """Return sums by session, NaN for sessions without periods (or with one not told)."""
    return np.where(count > 0, np.bincount(session, weights=values, minlength=size), np.nan)


def _fee_findings(
    name: str, fees: Fees, bad: Ints, *, told: Floats, expected: Floats, limit: Floats
) -> list[Finding]:
    words = {
        "total_fee": "energy_fee + service_fee + other_fee - discount",
        "billed_wh": "the sum of its periods",
    }
    source = words.get(name, "the sum of period energy x price")
    return findings_by_day(
        "fee_mismatch",
        fees.connector[bad],
        fees.ended_s[bad],
        first_s=fees.started_s[bad],
        value=told[bad] - expected[bad],
        limit=limit[bad],
        detail=lambda k: f"{name} is {told[bad[k]]:.2f}, {source} is {expected[bad[k]]:.2f}",
        record=lambda k: {
            "session": int(fees.name[bad[k]]),
            name: float(told[bad[k]]),
            "expected": round(float(expected[bad[k]]), 4),
        },
    )


@dataclass(frozen=True, kw_only=True)
class TariffCurve:
    """Registered prices of one operator and station over time: price k holds from from_s[k]."""

    from_s: Floats
    energy_price: Floats  # NaN: no tariff is registered for that time
    service_price: Floats


def tariff_curve(
    tariffs: Sequence[Mapping[str, Any]],
    *,
    from_s: float,
    to_s: float,
    midnights_s: Sequence[float],
) -> TariffCurve:
    """Return the curve of registered prices between two times.

    Where:
        tariffs: rows with valid_from_s and periods [{"from": s, "to": s, "energy_price": ...,
            "service_price": ...}], from and to in seconds of the local day; to <= from wraps.
        midnights_s: beginnings of the local days in ascending order, from before from_s on.
    """
    ordered = sorted(tariffs, key=lambda tariff: tariff["valid_from_s"])
    pieces: dict[float, tuple[float, float]] = {from_s: (np.nan, np.nan)}
    for number, tariff in enumerate(ordered):
        begin = max(tariff["valid_from_s"], from_s)
        end = ordered[number + 1]["valid_from_s"] if number + 1 < len(ordered) else to_s
        if end <= begin:
            continue
        inside = [midnight for midnight in midnights_s if begin - DAY_S < midnight < end]
        pieces[begin] = (np.nan, np.nan)
        for midnight in inside:
            for start, prices in _day_pieces(tariff["periods"]):
                at = midnight + start
                if at < end:
                    # What began before the tariff holds from its beginning on.
                    pieces[max(at, begin)] = prices
    times = sorted(pieces)
    return TariffCurve(
        from_s=np.array(times),
        energy_price=np.array([pieces[at][0] for at in times]),
        service_price=np.array([pieces[at][1] for at in times]),
    )


def _day_pieces(periods: Sequence[Mapping[str, Any]]) -> list[tuple[float, tuple[float, float]]]:
    """Return (second of the day, prices) in order, with holes as NaN."""
    spans = []
    for period in periods:
        prices = float(period["energy_price"]), float(period["service_price"])
        start, end = float(period["from"]), float(period["to"])
        if end <= start:
            spans += [(start, float(DAY_S), prices), (0.0, end, prices)]
        else:
            spans.append((start, end, prices))
    pieces: list[tuple[float, tuple[float, float]]] = []
    at = 0.0
    for start, end, prices in sorted(spans):
        if end <= start:
            continue
        if start > at:
            pieces.append((at, (np.nan, np.nan)))
        pieces.append((start, prices))
        at = end
    if at < DAY_S:
        pieces.append((at, (np.nan, np.nan)))
    return pieces


def tariff_findings(
    fees: Fees,
    periods: BilledPeriods,
    curves: Sequence[TariffCurve],
    *,
    curve_of: Ints,
    limits: Limits,
) -> list[Finding]:
    """Return findings of prices that are not the registered tariff of their time.

    A price must hold over its whole period, less 180 s at each end for the clock; a period
    shorter than that must have a price of some time within 180 s of it.

    Where:
        curve_of: the curve of each connector, row of Fleet; -1: no tariff registered.
    """
    chosen = curve_of[fees.connector[periods.session]] if periods.session.size else np.empty(0, int)
    worst = np.full(periods.session.size, np.nan)
    for number in np.unique(chosen[chosen >= 0]):
        rows = np.flatnonzero(chosen == number)
        worst[rows] = _price_difference(periods, rows, curves[number], limits.clock_limit_s)
    bad = np.flatnonzero(np.abs(worst) > 1e-6)
    session = periods.session[bad]
    return findings_by_day(
        "tariff_mismatch",
        fees.connector[session],
        fees.ended_s[session],
        first_s=periods.from_s[bad],
        value=worst[bad],
        limit=0.0,
        detail=lambda k: (
            f"{periods.energy_price[bad[k]]:.4f} + {periods.service_price[bad[k]]:.4f} per kWh "
            f"from {time_text(periods.from_s[bad[k]])} is not the registered tariff "
            f"(off by {worst[bad[k]]:+.4f})"
        ),
        record=lambda k: {
            "session": int(fees.name[session[k]]),
            "from": time_text(periods.from_s[bad[k]]),
            "to": time_text(periods.to_s[bad[k]]),
            "energy_price": float(periods.energy_price[bad[k]]),
            "service_price": float(periods.service_price[bad[k]]),
        },
    )


def _price_difference(
    periods: BilledPeriods, rows: Ints, curve: TariffCurve, clock_s: float
) -> Floats:
    """Return by how much prices differ from the curve at their worst time; 0 where they hold."""
    begin, end = periods.from_s[rows] + clock_s, periods.to_s[rows] - clock_s
    brief = end <= begin
    begin = np.where(brief, periods.from_s[rows] - clock_s, begin)
    end = np.where(brief, periods.to_s[rows] + clock_s, end)
    first = np.maximum(np.searchsorted(curve.from_s, begin, side="right") - 1, 0)
    last = np.maximum(np.searchsorted(curve.from_s, end, side="left") - 1, first)
    result = np.zeros(rows.size)
    best = np.full(rows.size, np.inf)
    for offset in range(int((last - first).max()) + 1 if rows.size else 0):
        piece = np.minimum(first + offset, last)
        difference = np.nan_to_num(periods.energy_price[rows] - curve.energy_price[piece])
        service = np.nan_to_num(periods.service_price[rows] - curve.service_price[piece])
        larger = np.where(np.abs(difference) > 1e-6, difference, service)
        result = np.where(np.abs(larger) > np.abs(result), larger, result)
        best = np.where(np.abs(larger) < np.abs(best), larger, best)
    return np.where(brief, best, result)


def clock_findings(
    fees: Fees,
    periods: BilledPeriods,
    line: Timeline,
    pairs: Pairs,
    *,
    limits: Limits,
) -> list[Finding]:
    """Return findings of sessions whose clock shifts energy across a tariff edge.

    At the edge between two periods the register must be start_wh plus the periods' energy so
    far; it lies outside the readings within 180 s of the edge only when the clock is off.
    """
    if periods.session.size < 2 or pairs.readings.at_s.size == 0:
        return []
    edge = np.flatnonzero(
        (np.diff(periods.session) == 0)
        & (np.diff(periods.energy_price) != 0)
        & (np.abs(periods.from_s[1:] - periods.to_s[:-1]) < 1.0)
    )
    session = periods.session[edge]
    begin = np.searchsorted(periods.session, session, side="left")
    told = fees.start_wh[session] + sums_between(periods.energy_wh, begin, edge + 1)
    at_s, connector = periods.to_s[edge], fees.connector[session]
    before = line.at_or_before(connector, at_s - limits.clock_limit_s)
    after = line.at_or_after(connector, at_s + limits.clock_limit_s)
    broken = np.concatenate(
        [[0], np.cumsum(pairs.valid & (pairs.declared | pairs.fall | pairs.jump | pairs.unit))]
    )
    known = (before >= 0) & (after >= 0)
    known &= broken[np.maximum(before, 0)] == broken[np.maximum(after, 0)]
    known &= _metered(fees, limits)[session]
    energy = pairs.readings.energy_wh
    slack = limits.billing_step_wh + 2 * pairs.resolution_wh[np.maximum(before - 1, 0)]
    low, high = energy[before] - slack, energy[after] + slack
    shift = np.where(told < low, told - energy[before], told - energy[after])
    bad = np.flatnonzero(known & ((told < low) | (told > high)))
    return findings_by_day(
        "tariff_mismatch",
        connector[bad],
        fees.ended_s[session[bad]],
        first_s=at_s[bad],
        value=shift[bad],
        limit=slack[bad],
        detail=lambda k: (
            f"{abs(shift[bad[k]]):.0f} Wh are billed on the wrong side of the tariff edge at "
            f"{time_text(at_s[bad[k]])}"
        ),
        record=lambda k: {
            "session": int(fees.name[session[bad[k]]]),
            "edge": time_text(at_s[bad[k]]),
            "told_wh": float(told[bad[k]]),
            "register_low_wh": float(energy[before[bad[k]]]),
            "register_high_wh": float(energy[after[bad[k]]]),
        },
    )


def _metered(fees: Fees, limits: Limits) -> Bools:
    """Return sessions whose billed energy is the metered energy: only these tell the clock."""
    return np.asarray(
        np.abs(fees.billed_wh - (fees.stop_wh - fees.start_wh)) <= limits.billing_step_wh
    )

"""A price is not the registered tariff of its time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sums_between
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import time_text
from chargewatch.signals.block import Block
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.money import BilledPeriods, Fees, Money, TariffCurve
from chargewatch.signals.registers import Pairs
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.sessions import BILLING_STEP_WH
from chargewatch.signals.timeline import Timeline, unsound_before

CODE = "tariff_mismatch"
PRICE_STEP = 1e-6
"""Prices a kWh that differ by less are one price."""
PRICE = Sentence(
    "price_not_tariff",
    "{energy:.4f} + {service:.4f} per kWh from {at:time} is not the registered tariff "
    "(off by {off:+.4f})",
)
EDGE = Sentence(
    "energy_over_edge",
    "{energy:.0f} Wh are billed on the wrong side of the tariff edge at {at:time}",
)


def find_prices(money: Money) -> list[Finding]:
    """Return findings of prices that are not the registered tariff."""
    return tariff_findings(
        money.fees,
        money.periods,
        money.curves,
        curve_of=money.curve_of,
        clock_limit_s=money.clock_limit_s,
    )


def find_edges(block: Block) -> list[Finding]:
    """Return findings of energy that is billed on the wrong side of a tariff edge."""
    return edge_findings(
        block.fees, block.periods, block.line, block.pairs, clock_limit_s=block.clock_limit_s
    )


def tariff_findings(
    fees: Fees,
    periods: BilledPeriods,
    curves: Sequence[TariffCurve],
    *,
    curve_of: Ints,
    clock_limit_s: float,
) -> list[Finding]:
    """Return findings of prices above the registered tariff of their time.

    Energy and service price together must not pass it over the whole period, less 180 s at each
    end for the clock; a period shorter than that must have a price of some time within 180 s of it.

    Where:
        curve_of: the curve of each connector, row of Fleet; -1: no tariff registered.
    """
    chosen = curve_of[fees.connector[periods.session]] if periods.session.size else np.empty(0, int)
    worst = np.full(periods.session.size, np.nan)
    for number in np.unique(chosen[chosen >= 0]):
        rows = np.flatnonzero(chosen == number)
        worst[rows] = price_difference(periods, rows, curves[number], clock_limit_s)
    bad = np.flatnonzero(worst > PRICE_STEP)
    session = periods.session[bad]
    return findings_by_day(
        CODE,
        fees.connector[session],
        fees.ended_s[session],
        first_s=periods.from_s[bad],
        value=worst[bad],
        limit=0.0,
        detail=lambda k: PRICE(
            energy=periods.energy_price[bad[k]],
            service=periods.service_price[bad[k]],
            at=periods.from_s[bad[k]],
            off=worst[bad[k]],
        ),
        record=lambda k: {
            "session": int(fees.name[session[k]]),
            "from": time_text(periods.from_s[bad[k]]),
            "to": time_text(periods.to_s[bad[k]]),
            "energy_price": float(periods.energy_price[bad[k]]),
            "service_price": float(periods.service_price[bad[k]]),
        },
    )


def price_difference(
    periods: BilledPeriods, rows: Ints, curve: TariffCurve, clock_s: float
) -> Floats:
    """Return by how much prices pass the curve at their worst time; 0 where they don't."""
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
        # Energy and service together: a bundled price is what the customer pays, too.
        over = np.maximum(difference + service, 0.0)
        result = np.maximum(result, over)
        best = np.minimum(best, over)
    return np.where(brief, best, result)


def edge_findings(
    fees: Fees,
    periods: BilledPeriods,
    line: Timeline,
    pairs: Pairs,
    *,
    clock_limit_s: float,
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
    before = line.at_or_before(connector, at_s - clock_limit_s)
    after = line.at_or_after(connector, at_s + clock_limit_s)
    broken = unsound_before(pairs)
    known = (before >= 0) & (after >= 0)
    known &= broken[np.maximum(before, 0)] == broken[np.maximum(after, 0)]
    known &= _metered(fees)[session]
    energy = pairs.readings.energy_wh
    slack = BILLING_STEP_WH.value + 2 * pairs.resolution_wh[np.maximum(before - 1, 0)]
    low, high = energy[before] - slack, energy[after] + slack
    shift = np.where(told < low, told - energy[before], told - energy[after])
    bad = np.flatnonzero(known & ((told < low) | (told > high)))
    return findings_by_day(
        CODE,
        connector[bad],
        fees.ended_s[session[bad]],
        first_s=at_s[bad],
        value=shift[bad],
        limit=slack[bad],
        detail=lambda k: EDGE(energy=abs(shift[bad[k]]), at=at_s[bad[k]]),
        record=lambda k: {
            "session": int(fees.name[session[bad[k]]]),
            "edge": time_text(at_s[bad[k]]),
            "told_wh": float(told[bad[k]]),
            "register_low_wh": float(energy[before[bad[k]]]),
            "register_high_wh": float(energy[after[bad[k]]]),
        },
    )


def _metered(fees: Fees) -> Bools:
    """Return sessions whose billed energy is the metered energy: only these tell the clock."""
    return np.asarray(
        np.abs(fees.billed_wh - (fees.stop_wh - fees.start_wh)) <= BILLING_STEP_WH.value
    )


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Not the registered tariff",
    raised=(
        "energy and service price together pass the registered tariff in their period, less "
        "the clock limit of the rule set (180 s in those that ship) at each end; or energy is "
        "billed on the wrong side of a tariff edge: the register told for the edge lies outside "
        "the readings that limit before and after"
    ),
    left_alone="times without a registered tariff; lower, free and bundled prices",
    limits=(BILLING_STEP_WH,),
    of_rule_set=("clock_limit_s",),
    sentences=(PRICE, EDGE),
    checks=(Check(Block, find_edges), Check(Money, find_prices)),
)

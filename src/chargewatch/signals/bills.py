"""What bills should have been: each session's charge, and by how much it is too much or too little.

docs/decisions/money-owed.md has the definitions. Energies in Wh, money in the platform's currency;
NaN: not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.signals.money import BilledPeriods, Fees, TariffCurve
from chargewatch.signals.rules.fee_mismatch import FEE_PER_PERIOD
from chargewatch.signals.rules.tariff_mismatch import PRICE_STEP, price_difference

UNIT = 1000.0
UNIT_BAND = 0.02
"""A bill so near to 1,000 times the register's energy, or a thousandth, is in another unit."""
USUAL_PRICE = 0.8
"""Money per kWh, between which and a thousand times that or a thousandth a bill's unit is told."""

MOST_PRICE = 25 * USUAL_PRICE
"""No energy costs more: where a bill is not of the register's energy, such a price values none."""
NOTHING_WH = 1e-3
"""What registers and bills are told to; less is nothing."""


def charged(
    *,
    energy_fee: Floats,
    service_fee: Floats,
    other_fee: Floats,
    discount: Floats,
    total_fee: Floats,
) -> Floats:
    """Return what was asked for energy and service before discounts; NaN where nothing is told.

    By the total less what is for something else, or by the two fees.
    """
    by_total = total_fee - np.nan_to_num(other_fee) + np.nan_to_num(discount)
    by_fees = energy_fee + np.nan_to_num(service_fee)
    return np.where(np.isnan(by_total), by_fees, by_total)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What sessions were billed by, shape (s,)."""

    charged_wh: Floats  # energy that is charged for
    rightful: Floats  # its rightful price: by the session's own terms, as far as the tariff allows
    above: Floats  # what was charged beyond that, >= 0

    def take(self, rows: Ints) -> Terms:
        """Return the terms of some sessions."""
        return Terms(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def plain_terms(billed_wh: Floats, asked: Floats) -> Terms:
    """Return the terms of sessions whose money is as their periods and the tariff make it."""
    return Terms(charged_wh=billed_wh, rightful=asked, above=np.zeros(asked.size))


def terms_of(
    fees: Fees,
    periods: BilledPeriods,
    *,
    curves: Sequence[TariffCurve],
    curve_of: Ints,
    clock_limit_s: float,
) -> tuple[Terms, Bools]:
    """Return sessions' terms by their priced periods, and which of them are not the plain ones.

    Args:
        fees: as they were told, shape (s,).
        periods: their periods.
        curves: registered prices.
        curve_of: the curve of each connector, row of Fleet; -1: no tariff registered.
        clock_limit_s: how far clocks may be off at the edges of a period.
    """
    size = fees.name.size
    asked = charged(
        energy_fee=fees.energy_fee,
        service_fee=fees.service_fee,
        other_fee=fees.other_fee,
        discount=fees.discount,
        total_fee=fees.total_fee,
    )
    plain = plain_terms(fees.billed_wh, asked)
    count = np.bincount(periods.session, minlength=size)
    kwh = periods.energy_wh / 1000.0
    price = periods.energy_price + np.nan_to_num(periods.service_price)
    own = sum_by_row(periods.session, kwh * price, size=size)
    over = _above_tariff(fees, periods, curves, curve_of=curve_of, clock_limit_s=clock_limit_s)
    beyond = np.maximum(sum_by_row(periods.session, kwh * over, size=size), 0.0)
    energy = sum_by_row(periods.session, periods.energy_wh, size=size)
    priced = (count > 0) & np.isfinite(own) & np.isfinite(energy) & (energy > 0)
    rightful = own - beyond
    known = np.isfinite(asked)
    rounding = FEE_PER_PERIOD.value * np.maximum(count, 1) + 1e-6
    # Money that isn't told is what the session's own terms make.
    above = np.where(known, asked, own) - rightful
    above = np.where(above > rounding, above, 0.0)
    near = known & (np.abs(asked - rightful) <= rounding)
    same = np.abs(energy - fees.billed_wh) <= 1.0
    odd = priced & ~(near & same)
    return Terms(
        charged_wh=np.where(odd & ~same, energy, plain.charged_wh),
        rightful=np.where(odd & ~near, rightful, plain.rightful),
        above=np.where(odd, above, 0.0),
    ), odd


def _above_tariff(
    fees: Fees,
    periods: BilledPeriods,
    curves: Sequence[TariffCurve],
    *,
    curve_of: Ints,
    clock_limit_s: float,
) -> Floats:
    """Return by how much each period's price passes the tariff in the mean over its time.

    Only of sessions that pass it somewhere beyond what clocks explain, but there of all periods:
    what one asks too much another one may have given. Others count as the tariff's own.
    """
    out = np.zeros(periods.session.size)
    chosen = curve_of[fees.connector[periods.session]] if periods.session.size else np.empty(0, int)
    for number in np.unique(chosen[chosen >= 0]):
        rows = np.flatnonzero(chosen == number)
        worst = price_difference(periods, rows, curves[number], clock_limit_s)
        passing = np.unique(periods.session[rows[worst > PRICE_STEP]])
        rows = rows[np.isin(periods.session[rows], passing)]
        if rows.size:
            out[rows] = _mean_difference(periods, rows, curves[number])
    return out


def _mean_difference(periods: BilledPeriods, rows: Ints, curve: TariffCurve) -> Floats:
    """Return prices less the curve's in the mean over each period; where none is known, 0."""
    begin, end = periods.from_s[rows], np.maximum(periods.to_s[rows], periods.from_s[rows] + 1.0)
    edges = np.append(curve.from_s, np.inf)
    first = np.maximum(np.searchsorted(curve.from_s, begin, side="right") - 1, 0)
    last = np.maximum(np.searchsorted(curve.from_s, end, side="left") - 1, first)
    total = np.zeros(rows.size)
    for offset in range(int((last - first).max()) + 1):
        piece = np.minimum(first + offset, last)
        span = np.minimum(end, edges[piece + 1]) - np.maximum(begin, edges[piece])
        span = np.where(first + offset <= last, np.maximum(span, 0.0), 0.0)
        energy = np.nan_to_num(periods.energy_price[rows] - curve.energy_price[piece])
        service = np.nan_to_num(periods.service_price[rows] - curve.service_price[piece])
        total += span * (energy + service)
    return np.asarray(total / (end - begin))


@dataclass(frozen=True, kw_only=True)
class BillDifferences:
    """What sessions were charged too much (positive) or too little by their bills; shape (s,)."""

    bill: Floats  # NaN: not known
    energy_wh: Floats  # charged for beyond (or short of) the register, 0 within the tolerance
    rightful: Floats  # rightful price of the energy by the register; NaN: not known
    metered_wh: Floats  # NaN: not known


def differences(terms: Terms, metered_wh: Floats, *, tolerance_wh: Floats) -> BillDifferences:
    """Return the differences of bills, given what the registers say.

    Args:
        terms: of the sessions, shape (s,).
        metered_wh: energy by the register; NaN: not known.
        tolerance_wh: how far a bill may be from the register.

    Equation: (W - M) Q / W + above, the first beyond the tolerance only; the rightful price of M
    is M Q / W, with W the energy charged for and Q its rightful price.
    """
    metered = np.where(metered_wh >= 0, metered_wh, np.nan)
    metered = np.where(metered < NOTHING_WH, 0.0, metered)
    wh = np.where(np.abs(terms.charged_wh) < NOTHING_WH, 0.0, terms.charged_wh)
    wh = _in_the_unit_of_money(terms, wh, metered)
    with np.errstate(divide="ignore", invalid="ignore"):
        price = np.where(wh > 0, terms.rightful / wh, np.nan)
    # No energy, no money: nothing is owed for nothing.
    price = np.where((wh == 0) & (terms.rightful == 0), 0.0, price)
    away = wh - metered
    near = np.abs(away) <= tolerance_wh
    price = np.where(near | (price <= MOST_PRICE / 1000.0), price, np.nan)
    nothing = near & np.isnan(price) & np.isfinite(terms.rightful)
    price = np.where(nothing, 0.0, price)
    bill = np.where(near, 0.0, away * price) + terms.above
    # Money for no energy at all.
    bill = np.where(nothing, terms.above + np.maximum(terms.rightful, 0.0), bill)
    unknown = np.isnan(terms.rightful) | np.isnan(metered) | (~near & np.isnan(price))
    bill = np.where(unknown, np.nan, bill)
    return BillDifferences(
        bill=bill,
        energy_wh=np.where(near, 0.0, away),
        rightful=np.where(near, wh, metered) * price,
        metered_wh=metered,
    )


def _in_the_unit_of_money(terms: Terms, wh: Floats, metered: Floats) -> Floats:
    """Return the energy charged for, in the register's unit where the bill's is another one.

    The money tells which of the two it was made with: the one with a price that is one.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = wh / metered
        far = np.flatnonzero((ratio > 0.5 * UNIT) | (ratio < 2 / UNIT))
        ratio, rightful = ratio[far], terms.rightful[far]
        other = (np.abs(ratio / UNIT - 1) < UNIT_BAND) | (np.abs(ratio * UNIT - 1) < UNIT_BAND)
        usual = USUAL_PRICE / 1000.0
        off = np.abs(np.log(rightful / wh[far] / usual))
        off_metered = np.abs(np.log(rightful / metered[far] / usual))
    out = wh.copy()
    out[far] = np.where(other & (off_metered < off), metered[far], wh[far])
    return out

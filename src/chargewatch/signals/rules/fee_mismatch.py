"""A fee is not the sum of its periods."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.money import BilledPeriods, Fees, Money
from chargewatch.signals.rule import DATA_FORM, Check, Limit, Rule
from chargewatch.signals.sessions import BILLING_STEP_WH

CODE = "fee_mismatch"
FEE_PER_PERIOD = Limit(0.01, "", "rounding of money, a period", DATA_FORM)
PARTS = Sentence(
    "fee_not_parts", "{name} is {told:.2f}, the sum of period energy x price is {expected:.2f}"
)
TOTAL = Sentence(
    "fee_not_total",
    "{name} is {told:.2f}, energy_fee + service_fee + other_fee - discount is {expected:.2f}",
)
ENERGY = Sentence(
    "fee_not_energy", "{name} is {told:.2f}, the sum of its periods is {expected:.2f}"
)


def find(money: Money) -> list[Finding]:
    """Return findings of sessions whose money or energy doesn't add up."""
    return fee_findings(money.fees, money.periods, resolution_wh=money.resolution_wh)


def fee_findings(fees: Fees, periods: BilledPeriods, *, resolution_wh: Floats) -> list[Finding]:
    """Return findings of fees that are more than the sum of period energy x price.

    Rounding to a cent per period is allowed. total_fee must not pass energy_fee + service_fee +
    other_fee - discount; it isn't checked where energy_fee or service_fee isn't told, the other
    two count where they are told. The periods' energies must add up to billed_wh where that is
    the metered energy (where it isn't, the session has another signal).
    """
    size = fees.name.size
    count = np.bincount(periods.session, minlength=size)
    allowed = FEE_PER_PERIOD.value * np.maximum(count, 1) + 1e-6
    kwh = periods.energy_wh / 1000
    energy = _sum(periods.session, kwh * periods.energy_price, size, count)
    service = _sum(periods.session, kwh * periods.service_price, size, count)
    total_of_parts = fees.energy_fee + fees.service_fee
    total_of_parts += np.nan_to_num(fees.other_fee) - np.nan_to_num(fees.discount)
    energies = _sum(periods.session, periods.energy_wh, size, count)
    step = np.fmax(BILLING_STEP_WH.value, 2 * np.nan_to_num(resolution_wh, nan=1.0))
    metered = fees.stop_wh - fees.start_wh
    consistent = np.abs(metered - fees.billed_wh) <= step
    differences = [
        (PARTS, "energy_fee", fees.energy_fee, energy, allowed),
        (PARTS, "service_fee", fees.service_fee, service, allowed),
        (TOTAL, "total_fee", fees.total_fee, total_of_parts, np.full(size, 0.01 + 1e-6)),
        (
            ENERGY,
            "billed_wh",
            np.where(consistent, fees.billed_wh, np.nan),
            energies,
            step * np.maximum(count, 1),
        ),
    ]
    found = []
    taken = np.zeros(size, bool)
    for words, name, told, expected, limit in differences:
        # A session counts once, for the first sum that is off.
        # Who pays less (a coupon, paid before) is not wronged; energy must add up both ways.
        off = np.abs(told - expected) if words is ENERGY else told - expected
        bad = np.flatnonzero((off > limit) & ~taken)
        taken[bad] = True
        found += _fee_findings(words, name, fees, bad, told=told, expected=expected, limit=limit)
    return found


def _sum(session: Ints, values: Floats, size: int, count: Ints) -> Floats:
    """Return sums by session, NaN for sessions without periods (or with one not told)."""
    return np.where(count > 0, np.bincount(session, weights=values, minlength=size), np.nan)


def _fee_findings(
    words: Sentence,
    name: str,
    fees: Fees,
    bad: Ints,
    *,
    told: Floats,
    expected: Floats,
    limit: Floats,
) -> list[Finding]:
    return findings_by_day(
        CODE,
        fees.connector[bad],
        fees.ended_s[bad],
        first_s=fees.started_s[bad],
        value=told[bad] - expected[bad],
        limit=limit[bad],
        detail=lambda k: words(name=name, told=told[bad[k]], expected=expected[bad[k]]),
        record=lambda k: {
            "session": int(fees.name[bad[k]]),
            name: float(told[bad[k]]),
            "expected": round(float(expected[bad[k]]), 4),
        },
    )


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Fee does not add up",
    raised=(
        f"a fee is more than the sum of period energy x price, beyond {FEE_PER_PERIOD} a period; "
        "the total is more than energy + service + other fee - discount; the periods don't add "
        "up to the metered bill"
    ),
    left_alone="what is not told; fees that ask for less",
    limits=(FEE_PER_PERIOD, BILLING_STEP_WH),
    sentences=(PARTS, TOTAL, ENERGY),
    checks=(Check(Money, find),),
)

"""A day's power and register tell different energies."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Bools
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import time_text
from chargewatch.signals.block import POWER_MISMATCH, POWER_MISMATCH_FROM_WH, Block
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.registers import CHARGING_FRACTION, LONGEST_POWER_S
from chargewatch.signals.rule import Check, Rule

CODE = "power_register_mismatch"
GREW = Sentence(
    "register_grew",
    "the register grew by {register:.0f} Wh, power says {power:.0f} Wh (ratio {ratio:.4g})",
)


def find(block: Block) -> list[Finding]:
    """Return findings of days whose ratio is too far from 1, and not about 1,000."""
    return ratio_findings(CODE, block, block.power_days.is_off)


def ratio_findings(code: str, block: Block, bad: Bools) -> list[Finding]:
    """Return findings of some days whose register and power don't fit."""
    pairs, days = block.pairs, block.power_days
    k_bad = np.flatnonzero(bad)
    first, last = days.first[k_bad], days.last[k_bad]
    by_power, by_register = days.by_power_wh[k_bad], days.by_register_wh[k_bad]
    ratio, is_unit = days.ratio[k_bad], code != CODE
    return findings_by_day(
        code,
        pairs.row[first],
        pairs.end_s[last],
        first_s=pairs.start_s[first],
        value=ratio if is_unit else ratio - 1,
        limit=1.0 if is_unit else days.allowed[k_bad],
        excess=np.abs(np.log(np.maximum(ratio, 1e-9))),
        detail=lambda k: GREW(register=by_register[k], power=by_power[k], ratio=ratio[k]),
        record=lambda k: {
            "from": time_text(pairs.start_s[first[k]]),
            "to": time_text(pairs.end_s[last[k]]),
            "register_wh": float(by_register[k]),
            "power_wh": float(by_power[k]),
        },
    )


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Power against register",
    raised=(
        "on a UTC day with more than 1 kWh, register and integral of power differ by more than "
        "5 % + 3 u, power below zero counting as none; u is the trapezoid rule's, "
        "sqrt(sum (dt dP)^2 / 12)"
    ),
    left_alone="as above; days of a unit fault",
    limits=(POWER_MISMATCH, POWER_MISMATCH_FROM_WH, CHARGING_FRACTION, LONGEST_POWER_S),
    sentences=(GREW,),
    checks=(Check(Block, find),),
    explained_by="unit_fault",
)

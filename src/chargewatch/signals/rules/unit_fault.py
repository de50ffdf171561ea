"""A value is 1,000 times too large or small."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.signals.billing import Billing
from chargewatch.signals.block import Block
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.registers import pair_record
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.rules.power_register_mismatch import GREW, ratio_findings
from chargewatch.signals.rules.session_register_mismatch import (
    BILLED,
    OFF,
    billed_findings,
    off_findings,
)

CODE = "unit_fault"
WENT = Sentence(
    "register_scale", "register went from {before:.0f} to {after:.0f} Wh: a factor of 1,000"
)


def find_power(block: Block) -> list[Finding]:
    """Return findings of days whose register and power differ by a factor of 1,000."""
    return ratio_findings(CODE, block, block.power_days.is_unit)


def find_scale(block: Block) -> list[Finding]:
    """Return findings of registers that go on 1,000 times larger or smaller."""
    pairs = block.pairs
    k_bad = np.flatnonzero(pairs.unit)
    energy = pairs.readings.energy_wh
    before, after = energy[:-1][k_bad], energy[1:][k_bad]
    ratio = after / before
    return findings_by_day(
        CODE,
        pairs.row[k_bad],
        pairs.end_s[k_bad],
        first_s=pairs.start_s[k_bad],
        value=ratio,
        limit=1.0,
        excess=np.abs(np.log(ratio)),
        detail=lambda k: WENT(before=before[k], after=after[k]),
        record=lambda k: pair_record(pairs, int(k_bad[k])),
    )


def find_sessions(block: Block) -> list[Finding]:
    """Return findings of sessions whose start or stop is off by a factor of 1,000."""
    return [
        finding
        for off in block.off_register
        for finding in off_findings(CODE, off.take(np.flatnonzero(off.is_unit)))
    ]


def find_bills(billing: Billing) -> list[Finding]:
    """Return findings of bills that are off by a factor of 1,000."""
    return billed_findings(CODE, billing, np.flatnonzero(billing.is_unit))


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Unit fault (1,000×)",
    raised=(
        "a value is 1,000 times too large or small: register against power, register against "
        "itself, session against register, bill against register"
    ),
    left_alone=(
        "what it explains on the same day (falls, jumps, mismatches) is not raised as well; a "
        "register near zero that grows by no more than rated power gives"
    ),
    sentences=(GREW, WENT, *OFF.values(), BILLED),
    checks=(
        Check(Block, find_power),
        Check(Block, find_scale),
        Check(Block, find_sessions),
        Check(Billing, find_bills),
    ),
)

"""A register falls without a declared reset."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.signals.block import Block
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.registers import RESTORED_WH, pair_record
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.setback import SET_BACK_S

CODE = "register_decrease"
FELL = Sentence(
    "register_fell",
    "register fell from {before:.0f} to {after:.0f} Wh without a declared reset",
)


def find(block: Block) -> list[Finding]:
    """Return findings of pairs whose register falls."""
    pairs = block.pairs
    energy = pairs.readings.energy_wh
    falls = np.flatnonzero(pairs.fall)
    return findings_by_day(
        CODE,
        pairs.row[falls],
        pairs.end_s[falls],
        first_s=pairs.start_s[falls],
        value=pairs.step_wh[falls],
        limit=-pairs.resolution_wh[falls],
        detail=lambda k: FELL(before=energy[falls[k]], after=energy[falls[k] + 1]),
        record=lambda k: pair_record(pairs, int(falls[k])),
    )


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Register fell",
    raised="a register falls by more than its resolution",
    left_alone=(
        "a declared `Register.Reset` or change (below); a rollover: the register was in the last "
        "tenth below a power of ten (10^5 Wh or more), goes on in the first, and the energy fits "
        "rated power (1.1 P (t + 902 s) + 2 kWh), as the engine counts it; a fall of at most "
        f"{RESTORED_WH} outside of a charge, the only one of a UTC day (a reboot); "
        f"readings that a clock set back once, by up to {SET_BACK_S}, has mixed"
    ),
    limits=(RESTORED_WH, SET_BACK_S),
    sentences=(FELL,),
    checks=(Check(Block, find),),
    explained_by="unit_fault",
)

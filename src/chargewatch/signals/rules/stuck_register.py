"""Power says charging, and the register stands still."""

from __future__ import annotations

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import time_text
from chargewatch.signals.block import STUCK_WH, Block
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.grain import LONGEST_REFRESH_S
from chargewatch.signals.registers import CHARGING_FRACTION, LONGEST_POWER_S
from chargewatch.signals.rule import Check, Rule

CODE = "stuck_register"
STANDS = Sentence(
    "register_stands",
    "power says {energy:.0f} Wh in {span:.0f} s, the register stays at {register:.0f} Wh",
)


def find(block: Block) -> list[Finding]:
    """Return findings of registers that stand still while power says charging."""
    pairs, stuck = block.pairs, block.stuck
    start_s, end_s = pairs.start_s[stuck.first], pairs.end_s[stuck.last]
    register = pairs.readings.energy_wh[stuck.first]
    return findings_by_day(
        CODE,
        pairs.row[stuck.first],
        end_s,
        first_s=start_s,
        value=stuck.energy_wh,
        limit=stuck.limit_wh,
        detail=lambda k: STANDS(
            energy=stuck.energy_wh[k], span=end_s[k] - start_s[k], register=register[k]
        ),
        record=lambda k: {
            "from": time_text(start_s[k]),
            "to": time_text(end_s[k]),
            "register_wh": float(register[k]),
            "power_wh": float(stuck.energy_wh[k]),
        },
    )


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Stuck register",
    raised=(
        "power (above 2 % of rated power and 100 W) adds up to more than "
        f"max({STUCK_WH}, 3 resolutions), and that of 2 refreshes, while the register stands"
    ),
    left_alone=(
        "pairs of readings more than 15 min apart; from one session's end to the next one's begin"
    ),
    limits=(STUCK_WH, CHARGING_FRACTION, LONGEST_POWER_S, LONGEST_REFRESH_S),
    sentences=(STANDS,),
    checks=(Check(Block, find),),
    explained_by="unit_fault",
)

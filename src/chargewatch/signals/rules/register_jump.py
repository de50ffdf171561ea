"""A register steps further than rated power can fill."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.signals.block import Block
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.grain import LONGEST_REFRESH_S
from chargewatch.signals.registers import CLOCK_STEP_S, POWER_MARGIN, most_energy, pair_record
from chargewatch.signals.rule import Check, Rule

CODE = "register_jump"
STEP = Sentence("register_step", "{energy:.0f} Wh in {span:.0f} s")
MOST = Sentence("rated_most", "{rated:.0f} W can't give more than {most:.0f} Wh")


def find(block: Block) -> list[Finding]:
    """Return findings of pairs whose step is more than rated power can give."""
    pairs = block.pairs
    jumps = np.flatnonzero(pairs.jump)
    step, span = pairs.step_wh[jumps], pairs.span_s[jumps]
    rated = pairs.rated_w[jumps]
    most = most_energy(rated, span, pairs.resolution_wh[jumps], refresh_s=pairs.refresh_s[jumps])
    return findings_by_day(
        CODE,
        pairs.row[jumps],
        pairs.end_s[jumps],
        first_s=pairs.start_s[jumps],
        value=step,
        limit=most,
        excess=step / most,
        detail=lambda k: (
            f"{STEP(energy=step[k], span=span[k])}; {MOST(rated=rated[k], most=most[k])}"
        ),
        record=lambda k: pair_record(pairs, int(jumps[k])),
    )


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Register jumped",
    raised=f"a step above {POWER_MARGIN} x (time + refresh + {CLOCK_STEP_S}) + 2 resolutions",
    left_alone=(
        "connectors without rated power; the way back of a single outlying reading; a declared "
        "change"
    ),
    limits=(POWER_MARGIN, CLOCK_STEP_S, LONGEST_REFRESH_S),
    sentences=(STEP, MOST),
    checks=(Check(Block, find),),
    explained_by="unit_fault",
)

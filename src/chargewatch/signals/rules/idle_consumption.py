"""Energy flows outside any session."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.block import Block
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.outside import IDLE_WH_PER_DAY, LONGEST_PAIR_S
from chargewatch.signals.rule import Check, Rule

CODE = "idle_consumption"
IDLE = Sentence("idle_energy", "{energy:.0f} Wh in a day outside any session")


def find(block: Block) -> list[Finding]:
    """Return findings of days with more than 50 Wh outside any session."""
    pairs = block.pairs
    # Steps back of a register that wavers count as well: what it comes back by is no energy.
    use = np.flatnonzero(block.outside & (pairs.step_wh != 0))
    if use.size == 0:
        return []
    day = np.floor(pairs.end_s[use] / DAY_S).astype(np.int64)
    new = np.ones(use.size, bool)
    new[1:] = (np.diff(day) != 0) | (np.diff(pairs.row[use]) != 0)
    group = np.cumsum(new) - 1
    energy = np.bincount(group, weights=pairs.step_wh[use]).astype(float)
    # A day's sum is known to one step of the register only.
    limit = IDLE_WH_PER_DAY.value + pairs.resolution_wh[use[new]]
    first, last = use[new], use[np.append(np.flatnonzero(new)[1:], use.size) - 1]
    bad = np.flatnonzero(energy > limit)
    return findings_by_day(
        CODE,
        pairs.row[first[bad]],
        pairs.end_s[last[bad]],
        first_s=pairs.start_s[first[bad]],
        value=energy[bad],
        limit=limit[bad],
        detail=lambda k: IDLE(energy=energy[bad[k]]),
        record=lambda k: {
            "from": time_text(pairs.start_s[first[bad[k]]]),
            "to": time_text(pairs.end_s[last[bad[k]]]),
            "energy_wh": float(energy[bad[k]]),
        },
    )


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Energy outside sessions",
    raised=f"more than {IDLE_WH_PER_DAY} (+ 1 resolution) a UTC day outside any session",
    left_alone=(
        "readings that name a session, even when its record is missing; spans over 30 min where a "
        "message of the station is missing; charging that may still run: that of the last day, "
        "what leads up to it without a pause, and that in whose middle the readings end"
    ),
    limits=(IDLE_WH_PER_DAY, LONGEST_PAIR_S),
    sentences=(IDLE,),
    checks=(Check(Block, find),),
    explained_by="unit_fault",
)

"""A register wavers by its last digit."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.block import Block
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.registers import pair_record
from chargewatch.signals.rule import SIMULATED, Check, Limit, Rule

CODE = "register_jitter"
MOST_A_DAY = Limit(10, "times", "a UTC day that a register may waver", SIMULATED)
WAVERED = Sentence(
    "register_wavered", "the register fell back by up to one step {count:d} times in a day"
)


def find(block: Block) -> list[Finding]:
    """Return findings of days on which a register fell back by a step or less again and again."""
    pairs = block.pairs
    falls = np.flatnonzero(pairs.jitter)
    if not falls.size:
        return []
    day = np.floor(pairs.end_s[falls] / DAY_S).astype(np.int64)
    new = np.ones(falls.size, bool)
    new[1:] = (np.diff(day) != 0) | (np.diff(pairs.row[falls]) != 0)
    first = np.flatnonzero(new)
    count = np.diff(np.append(first, falls.size))
    often = np.flatnonzero(count > MOST_A_DAY.value)
    begin, last = falls[first[often]], falls[first[often] + count[often] - 1]
    count = count[often]
    return findings_by_day(
        CODE,
        pairs.row[begin],
        pairs.end_s[last],
        first_s=pairs.start_s[begin],
        value=count.astype(float),
        limit=MOST_A_DAY.value,
        detail=lambda k: WAVERED(count=count[k]),
        record=lambda k: {
            **pair_record(pairs, int(begin[k])),
            "times": int(count[k]),
            "last_at": time_text(pairs.end_s[last[k]]),
        },
    )


RULE = Rule(
    code=CODE,
    severity=Severity.INFO,
    title="Register wavers",
    raised=(
        f"a register falls back by one resolution (half of it at least) more than {MOST_A_DAY} "
        "a UTC day: rounding or noise of its last digit, which costs nobody anything"
    ),
    left_alone="small falls of a reboot; larger ones are `register_decrease`",
    limits=(MOST_A_DAY,),
    sentences=(WAVERED,),
    checks=(Check(Block, find),),
    explained_by="unit_fault",
)

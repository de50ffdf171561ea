"""A session's bill or registers aren't those of the connector."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Ints
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import time_text
from chargewatch.signals.billing import Billing
from chargewatch.signals.block import Block, OffRegister
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.sessions import BILLING_STEP_WH
from chargewatch.signals.timeline import OFFSET_SESSIONS, SESSION_CLOCK_S, STEADY_OFFSET_S

CODE = "session_register_mismatch"
OFF = {
    end: Sentence(
        f"session_{end}_off",
        f"{end}_wh of the session is {{told:.0f}} Wh, "
        "the register at {at:time} was {register:.0f} Wh",
    )
    for end in ("start", "stop")
}
BILLED = Sentence(
    "billed_otherwise", "billed {billed:.0f} Wh, stop_wh - start_wh is {metered:.0f} Wh"
)


def find_off(block: Block) -> list[Finding]:
    """Return findings of sessions whose start or stop is not the register at that time."""
    return [
        finding
        for off in block.off_register
        for finding in off_findings(CODE, off.take(np.flatnonzero(~off.is_unit)))
    ]


def find_billed(billing: Billing) -> list[Finding]:
    """Return findings of sessions whose billed energy is not stop - start."""
    return billed_findings(CODE, billing, np.flatnonzero(billing.is_mismatch))


def off_findings(code: str, off: OffRegister) -> list[Finding]:
    """Return findings of sessions that are off the register."""
    is_unit = code != CODE
    told_wh, nearest_wh = off.told_wh, off.nearest_wh
    return findings_by_day(
        code,
        off.sessions.connector,
        off.sessions.ended_s,
        first_s=off.sessions.started_s,
        value=told_wh / nearest_wh if is_unit else told_wh - nearest_wh,
        limit=1.0 if is_unit else off.tolerance_wh,
        excess=np.abs(told_wh - nearest_wh),
        detail=lambda k: OFF[off.end](told=told_wh[k], at=off.at_s[k], register=nearest_wh[k]),
        record=lambda k: {
            "session": int(off.sessions.name[k]),
            "at": time_text(off.at_s[k]),
            f"{off.end}_wh": float(told_wh[k]),
            "register_wh": float(nearest_wh[k]),
        },
    )


def billed_findings(code: str, billing: Billing, rows: Ints) -> list[Finding]:
    """Return findings of sessions whose bill is off."""
    is_unit = code != CODE
    sessions, metered = billing.sessions.take(rows), billing.metered_wh[rows]
    return findings_by_day(
        code,
        sessions.connector,
        sessions.ended_s,
        first_s=sessions.started_s,
        value=billing.ratio[rows] if is_unit else sessions.billed_wh - metered,
        limit=1.0 if is_unit else billing.tolerance_wh[rows],
        excess=np.abs(sessions.billed_wh - metered),
        detail=lambda k: BILLED(billed=sessions.billed_wh[k], metered=metered[k]),
        record=lambda k: {
            "session": int(sessions.name[k]),
            "start_wh": float(sessions.start_wh[k]),
            "stop_wh": float(sessions.stop_wh[k]),
            "billed_wh": float(sessions.billed_wh[k]),
        },
    )


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Session against register",
    raised=(
        "`billed_wh` differs from `stop_wh - start_wh` by more than "
        f"max({BILLING_STEP_WH}, 2 resolutions); or start or stop lies outside the readings before "
        f"and after ({SESSION_CLOCK_S} for the clock, 2 resolutions + 1 Wh)"
    ),
    left_alone=(
        "sessions of a loss ratio (next line); brackets with a fall, jump or reset inside; a "
        "steady lag between the clocks of sessions and of begin readings, within the clock limit"
    ),
    limits=(BILLING_STEP_WH, SESSION_CLOCK_S, OFFSET_SESSIONS, STEADY_OFFSET_S),
    of_rule_set=("clock_limit_s",),
    sentences=(*OFF.values(), BILLED),
    checks=(Check(Block, find_off), Check(Billing, find_billed)),
    explained_by="unit_fault",
)

"""A session counts from the register's zero: its whole life is billed for one charge."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Ints
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import time_text
from chargewatch.signals.baseline import FromZero
from chargewatch.signals.billing import Billing
from chargewatch.signals.block import Block
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.registers import POWER_MARGIN
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.sessions import BILLING_STEP_WH, BilledSessions

CODE = "zero_baseline"
GREW = Sentence(
    "zero_baseline_grew",
    "billed {billed:.0f} Wh from register {start:.0f} to {stop:.0f} Wh, "
    "which grew by {grew:.0f} Wh",
)
MOST = Sentence(
    "zero_baseline_most",
    "billed {billed:.0f} Wh from register {start:.0f} to {stop:.0f} Wh, "
    "rated power can't give more than {most:.0f} Wh",
)


def find(billing: Billing) -> list[Finding]:
    """Return findings of sessions that show it by themselves."""
    zero = billing.from_zero
    return _findings(billing.sessions, zero, np.flatnonzero(zero.is_so))


def find_by_readings(block: Block) -> list[Finding]:
    """Return findings of sessions of which only the readings beside them show it."""
    zero, alone = block.from_zero, block.from_zero_alone
    return _findings(block.sessions, zero, np.flatnonzero(zero.is_so & ~alone.is_so))


def _findings(sessions: BilledSessions, zero: FromZero, rows: Ints) -> list[Finding]:
    part, grew, most = sessions.take(rows), zero.grew_wh[rows], zero.most_wh[rows]
    fair = np.where(np.isnan(grew), most, grew)

    def words(k: int) -> str:
        told = {"billed": part.billed_wh[k], "start": part.start_wh[k], "stop": part.stop_wh[k]}
        return MOST(**told, most=most[k]) if np.isnan(grew[k]) else GREW(**told, grew=grew[k])

    return findings_by_day(
        CODE,
        part.connector,
        part.ended_s,
        first_s=part.started_s,
        value=part.billed_wh,
        limit=fair,
        excess=part.billed_wh - fair,
        detail=words,
        record=lambda k: {
            "session": int(part.name[k]),
            "started_at": time_text(part.started_s[k]),
            "ended_at": time_text(part.ended_s[k]),
            "start_wh": float(part.start_wh[k]),
            "stop_wh": float(part.stop_wh[k]),
            "billed_wh": float(part.billed_wh[k]),
            "register_grew_wh": None if np.isnan(grew[k]) else float(grew[k]),
        },
    )


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Billed from register zero",
    raised=(
        "`billed_wh` is `stop_wh`, the lifetime register, and not `stop_wh - start_wh` (within "
        f"max({BILLING_STEP_WH}, 2 resolutions)); or a session begins at register 0 though "
        f"readings say that it stood elsewhere, or though {POWER_MARGIN} over the session "
        "(and 6 min) can't give what it ends with"
    ),
    left_alone=(
        "a new or reset register that really begins at 0; sessions that end before where the "
        "register stood"
    ),
    limits=(BILLING_STEP_WH, POWER_MARGIN),
    sentences=(GREW, MOST),
    checks=(Check(Block, find_by_readings), Check(Billing, find)),
)

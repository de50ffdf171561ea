"""The bill is the metered energy times one ratio, session after session."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.signals.billing import LOSS_RATIO_STEP, LOSS_SESSIONS, Billing
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.rule import Check, Rule

CODE = "loss_adjusted_billing"
RATIO = Sentence(
    "loss_ratio",
    "billed energy is {ratio:.4f} times the metered energy, session after session",
)


def find(billing: Billing) -> list[Finding]:
    """Return findings of sessions that keep to their connector's loss ratio."""
    rows = np.flatnonzero(np.isfinite(billing.loss_ratio))
    part, energy = billing.sessions.take(rows), billing.metered_wh[rows]
    ratio = billing.loss_ratio[rows]
    return findings_by_day(
        CODE,
        part.connector,
        part.ended_s,
        first_s=part.started_s,
        value=ratio,
        limit=1.0 + LOSS_RATIO_STEP.value,
        excess=np.abs(part.billed_wh - energy),
        detail=lambda k: RATIO(ratio=ratio[k]),
        record=lambda k: {
            "session": int(part.name[k]),
            "billed_wh": float(part.billed_wh[k]),
            "metered_wh": float(energy[k]),
        },
    )


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Loss-adjusted billing",
    raised=(
        f"at least {LOSS_SESSIONS} of a connector differ, four of five by one ratio (within 0.1 % "
        "and a billing step), at least 0.2 % from 1"
    ),
    limits=(LOSS_SESSIONS, LOSS_RATIO_STEP),
    sentences=(RATIO,),
    checks=(Check(Billing, find),),
)

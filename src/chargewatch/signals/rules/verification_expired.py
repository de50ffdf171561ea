"""Energy is sold without a valid verification."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.findings import Finding
from chargewatch.signals.rule import SIMULATED, Check, Limit, Rule
from chargewatch.signals.stations import Sold

CODE = "verification_expired"
SOLD_WH = Limit(100.0, "Wh", "what a test of the pile may take", SIMULATED)
ENDED = Sentence("verification_ended", "verification ended {at:time}")
NONE = Sentence("verification_none", "no passed verification")
WITHOUT = Sentence("sold_without", "{energy:.1f} kWh sold without one")


def find(sold: Sold) -> list[Finding]:
    """Return findings of connectors that sell energy without a valid verification."""
    found = []
    for k in np.flatnonzero(sold.registered & (sold.energy_wh > SOLD_WH.value)).tolist():
        until = float(sold.valid_until_s[k])
        known = np.isfinite(until)
        words = ENDED(at=until) if known else NONE()
        found.append(
            Finding(
                code=CODE,
                row=k,
                day=int(sold.last_s[k] // DAY_S),
                first_s=float(sold.first_s[k]),
                last_s=float(sold.last_s[k]),
                count=1,
                value=float(sold.energy_wh[k]),
                limit=SOLD_WH.value,
                detail=f"{words}; {WITHOUT(energy=sold.energy_wh[k] / 1000)}",
                records=[
                    {
                        "valid_until": time_text(until) if known else None,
                        "sold_wh": float(sold.energy_wh[k]),
                        "last_sold_at": time_text(sold.last_s[k]),
                    }
                ],
            )
        )
    return found


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Verification expired",
    raised=(
        f"more than {SOLD_WH} sold (finished sessions, or the register's growth) after the newest "
        "verification ended, after a failed one, or without any"
    ),
    left_alone="connectors nobody registered: they have their own signal",
    limits=(SOLD_WH,),
    sentences=(ENDED, NONE, WITHOUT),
    checks=(Check(Sold, find),),
)

"""A connector's register is declared to have changed again and again."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.declarations import Declarations
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.rule import USE, Check, Limit, Rule

CODE = "frequent_declarations"
MOST_DAYS = Limit(3, "days", "works on a meter may take a few days, not every week", USE)
WITHIN_DAYS = Limit(30, "days", "over which days with a declaration count", USE)
DECLARED = Sentence(
    "declared_often", "changes of the register were declared on {days:d} of {of:d} days"
)

_DAY_SPAN = 1_000_000


def find(declarations: Declarations) -> list[Finding]:
    """Return findings of connectors whose register is declared to have changed again and again.

    More than 3 days with a declaration in 30 days.
    """
    day = np.floor(declarations.at_s / DAY_S).astype(np.int64)
    new = np.ones(day.size, bool)
    new[1:] = (np.diff(day) != 0) | (np.diff(declarations.connector) != 0)
    rows, days, at_s = declarations.connector[new], day[new], declarations.at_s[new]
    # Days of a connector from the first one within the span to this one.
    keys = rows * _DAY_SPAN + days
    count = np.arange(keys.size) + 1
    count -= np.searchsorted(
        keys, np.maximum(keys - (int(WITHIN_DAYS.value) - 1), rows * _DAY_SPAN), side="left"
    )
    bad = np.flatnonzero(count > MOST_DAYS.value)
    return findings_by_day(
        CODE,
        rows[bad],
        at_s[bad],
        value=count[bad].astype(float),
        limit=float(MOST_DAYS.value),
        detail=lambda k: DECLARED(days=count[bad[k]], of=int(WITHIN_DAYS.value)),
        record=lambda k: {"at": time_text(at_s[bad[k]])},
    )


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Register changes declared often",
    raised=(
        "changes of a connector's register were declared by events on more than "
        f"{MOST_DAYS.value} of {WITHIN_DAYS}"
    ),
    left_alone="several declarations of one day",
    limits=(MOST_DAYS, WITHIN_DAYS),
    sentences=(DECLARED,),
    checks=(Check(Declarations, find),),
    not_simulated="no simulated meter is replaced again and again",
)

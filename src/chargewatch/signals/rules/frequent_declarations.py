"""A connector's register is declared to have changed again and again."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Ints
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.declarations import Declarations
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.rule import USE, Check, Limit, Rule

CODE = "frequent_declarations"
MOST_DAYS = Limit(3, "days", "works on a meter may take a few days, not every week", USE)
WITHIN_DAYS = Limit(30, "days", "over which days with a declaration count", USE)
MOST_CHANGES = Limit(10, "changes", "a new meter is declared once or twice", USE)
TIMES = Sentence(
    "declared_many_times", "{times:d} changes of the register were declared in {of:d} days"
)
DECLARED = Sentence(
    "declared_often", "changes of the register were declared on {days:d} of {of:d} days"
)

_DAY_SPAN = 1_000_000


def find(declarations: Declarations) -> list[Finding]:
    """Return findings of connectors whose register is declared to have changed again and again.

    More than 3 days with a declaration in 30 days, or more than 10 declarations.
    """
    at_s, rows_of_all = declarations.at_s, declarations.connector
    whole = _within(rows_of_all, np.floor(at_s / DAY_S).astype(np.int64))
    often = np.flatnonzero(whole > MOST_CHANGES.value)
    found = findings_by_day(
        CODE,
        rows_of_all[often],
        at_s[often],
        value=whole[often].astype(float),
        limit=float(MOST_CHANGES.value),
        detail=lambda k: TIMES(times=whole[often[k]], of=int(WITHIN_DAYS.value)),
        record=lambda k: {"at": time_text(at_s[often[k]])},
    )
    known = {(finding.row, finding.day) for finding in found}
    return found + [f for f in _on_many_days(declarations) if (f.row, f.day) not in known]


def _within(rows: Ints, day: Ints) -> Ints:
    """Return how many of the sorted (row, day) lie in the 30 days up to each."""
    keys = rows * _DAY_SPAN + day
    first = np.maximum(keys - (int(WITHIN_DAYS.value) - 1), rows * _DAY_SPAN)
    return np.asarray(np.arange(keys.size) + 1 - np.searchsorted(keys, first, side="left"))


def _on_many_days(declarations: Declarations) -> list[Finding]:
    day = np.floor(declarations.at_s / DAY_S).astype(np.int64)
    new = np.ones(day.size, bool)
    new[1:] = (np.diff(day) != 0) | (np.diff(declarations.connector) != 0)
    rows, days, at_s = declarations.connector[new], day[new], declarations.at_s[new]
    count = _within(rows, days)
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
        "changes of a connector's register were declared, by events or by readings "
        f"(`Register.Reset`), on more than {MOST_DAYS.value} of {WITHIN_DAYS}, or more than "
        f"{MOST_CHANGES.value} times in them"
    ),
    left_alone="a few declarations of one day",
    limits=(MOST_DAYS, WITHIN_DAYS, MOST_CHANGES),
    sentences=(DECLARED, TIMES),
    checks=(Check(Declarations, find),),
    not_simulated="no simulated meter is replaced again and again",
)

"""The signed counter of a meter has a hole, or a number twice."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Ints
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.signed import Signatures

CODE = "signature_pagination_gap"
GOES = Sentence("signed_counter", "the signed counter goes from {before:d} to {after:d}")


def find(signatures: Signatures) -> list[Finding]:
    """Return findings of holes in signed counters, and of numbers that come twice.

    A counter goes on by the same step from session to session: 1, or 2 where each session has a
    record at its begin and one at its end. Sessions are compared in the order of their numbers:
    they may be told in any order, and one gateway may count for several connectors. A hole where
    session messages of the station are missing tells nothing more than that.
    """
    signed, complete = signatures.signed, signatures.complete
    rows = np.flatnonzero(signed.first >= 0)
    order = np.lexsort((signed.ended_s[rows], signed.first[rows], signed.counter[rows]))
    rows = rows[order]
    before, after = rows[:-1], rows[1:]
    same = signed.counter[before] == signed.counter[after]
    before, after = before[same], after[same]
    step = signed.first[after] - signed.last[before]
    usual = _usual_step(signed.counter[after], step)
    hole = np.flatnonzero((step < usual) | ((step > usual) & complete[signed.connector[after]]))
    return findings_by_day(
        CODE,
        signed.connector[after[hole]],
        signed.ended_s[after[hole]],
        first_s=np.minimum(signed.ended_s[before[hole]], signed.ended_s[after[hole]]),
        value=step[hole].astype(float),
        limit=1.0,
        detail=lambda k: GOES(
            before=signed.last[before[hole[k]]], after=signed.first[after[hole[k]]]
        ),
        record=lambda k: {
            "session_before": int(signed.name[before[hole[k]]]),
            "session": int(signed.name[after[hole[k]]]),
            "pagination_before": int(signed.last[before[hole[k]]]),
            "pagination": int(signed.first[after[hole[k]]]),
        },
    )


def _usual_step(counter: Ints, step: Ints) -> Ints:
    """Return 2 for counters most of whose steps are 2, else 1; shape as step."""
    number = np.unique(counter, return_inverse=True)[1]
    ones = np.bincount(number[step == 1], minlength=number.size)
    twos = np.bincount(number[step == 2], minlength=number.size)
    return np.where(twos[number] > ones[number], 2, 1)


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Gap in signed records",
    raised=(
        "the signed counter has a hole or a number twice; counters are compared by number, a "
        "gateway's over all of its connectors"
    ),
    left_alone="holes where session messages of the station are missing",
    sentences=(GOES,),
    checks=(Check(Signatures, find),),
)

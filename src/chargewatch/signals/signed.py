"""Signals of signed meter records: forged ones, ones of another charge, holes in the counter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.signals.findings import Finding, findings_by_day, time_text


@dataclass(frozen=True, kw_only=True)
class SignedSessions:
    """Outcome of checking signed records; shape (q,)."""

    name: Ints
    connector: Ints
    ended_s: Floats
    forged: Bools  # the signature is wrong under the registered key
    reason: tuple[str, ...]  # what failed, in words; empty: nothing did
    first: Ints  # counter of the first record; -1 when it has none
    last: Ints
    counter: Ints  # which counter it is; a gateway may count for several connectors
    first_record: Ints  # key of the first record, 0 for none
    last_record: Ints


def signature_findings(signed: SignedSessions, *, complete: Bools) -> list[Finding]:
    """Return findings of forged records, of records that aren't the session's, and of holes.

    Where:
        complete: shape (n,) over connectors: no session message of the station is missing.
    """
    told = np.array([bool(reason) for reason in signed.reason], bool)
    used = _used_before(signed)
    found = _record_findings(
        "signature_invalid", signed, np.flatnonzero(signed.forged), lambda k: signed.reason[k]
    )
    found += _record_findings(
        "signed_record_mismatch",
        signed,
        np.flatnonzero((told | (used >= 0)) & ~signed.forged),
        lambda k: "; ".join(
            words
            for words in (
                signed.reason[k],
                "the record was used for another session too" if used[k] >= 0 else "",
            )
            if words
        ),
    )
    return found + _counter_findings(signed, complete=complete)


def _record_findings(
    code: str, signed: SignedSessions, rows: Ints, words: Callable[[int], str]
) -> list[Finding]:
    return findings_by_day(
        code,
        signed.connector[rows],
        signed.ended_s[rows],
        value=np.ones(rows.size),
        limit=0.0,
        detail=lambda k: words(int(rows[k])),
        record=lambda k: {
            "session": int(signed.name[rows[k]]),
            "ended_at": time_text(signed.ended_s[rows[k]]),
            "reason": words(int(rows[k])),
        },
    )


def _used_before(signed: SignedSessions) -> Ints:
    """Return the row of an earlier session with one of this one's records, -1 for none."""
    rows = np.arange(signed.name.size)
    key = np.concatenate([signed.first_record, signed.last_record])
    owner = np.concatenate([rows, rows])
    order = np.lexsort((signed.name[owner], signed.ended_s[owner], key))
    key, owner = key[order], owner[order]
    begins = np.flatnonzero(np.diff(key, prepend=key[:1] - 1))
    first_owner = np.repeat(owner[begins], np.diff(np.append(begins, key.size)))
    result = np.full(signed.name.size, -1, np.int64)
    again = (key != 0) & (owner != first_owner)
    result[owner[again]] = first_owner[again]
    return result


def _counter_findings(signed: SignedSessions, *, complete: Bools) -> list[Finding]:
    """Return findings of holes in signed counters, and of numbers that come twice.

    A counter goes on by the same step from session to session: 1, or 2 where each session has a
    record at its begin and one at its end. Sessions are compared in the order of their numbers:
    they may be told in any order, and one gateway may count for several connectors. A hole where
    session messages of the station are missing tells nothing more than that.
    """
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
        "signature_pagination_gap",
        signed.connector[after[hole]],
        signed.ended_s[after[hole]],
        first_s=np.minimum(signed.ended_s[before[hole]], signed.ended_s[after[hole]]),
        value=step[hole].astype(float),
        limit=1.0,
        detail=lambda k: (
            f"the signed counter goes from {signed.last[before[hole[k]]]} to "
            f"{signed.first[after[hole[k]]]}"
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

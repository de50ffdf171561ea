"""A genuine signed record doesn't belong to the session that carries it."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Ints
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.signed_words import SIGNED_SENTENCES
from chargewatch.signals.findings import Finding
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.signed import Signatures, SignedSessions, record_findings

CODE = "signed_record_mismatch"
USED = Sentence("record_used_before", "the record was used for another session too")
FAILED = Sentence("record_check_failed", "{check:check}: {reason:words}")


def find(signatures: Signatures) -> list[Finding]:
    """Return findings of records that aren't their session's."""
    signed = signatures.signed
    told = np.array([bool(reason) for reason in signed.reason], bool)
    used = _used_before(signed)

    def words(k: int) -> str:
        parts = (signed.reason[k], USED() if used[k] >= 0 else "")
        return "; ".join(part for part in parts if part)

    return record_findings(
        CODE, signed, np.flatnonzero((told | (used >= 0)) & ~signed.forged), words
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


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Signed record of another charge",
    raised=(
        "a record that isn't forged doesn't belong to its session: the signed register grew by "
        "something else than `stop_wh - start_wh` (beyond 2 steps of both and 1 Wh); signed times "
        "are more than 3 min (synchronised clock) or 1 h (informative) from the session's; the "
        "meter is registered at another connector; the key told is not the registered one; the "
        "record can't be read; or it was used for another session too"
    ),
    left_alone=(
        "meters without a set clock (states U, R); energies that the meter itself calls unusable"
    ),
    sentences=(USED, *SIGNED_SENTENCES, FAILED),
    checks=(Check(Signatures, find),),
    not_simulated="a replayed record shows by its counter first",
)

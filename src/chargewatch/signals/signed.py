"""Facts of checks: what the signed meter records of sessions proved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import time_text
from chargewatch.signals.findings import Finding, findings_by_day


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


@dataclass(frozen=True, kw_only=True)
class Signatures:
    """Signed sessions, and of which connectors all sessions are known."""

    signed: SignedSessions
    complete: Bools
    """Shape (n,) over connectors: no session message of the station is missing."""


def record_findings(
    code: str, signed: SignedSessions, rows: Ints, words: Callable[[int], str]
) -> list[Finding]:
    """Return findings of some records, `words` saying what is wrong with each."""
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

"""Signed records of sessions: checked once, remembered from run to run."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import numpy as np

from chargewatch.domain.arrays import Bools, Ints
from chargewatch.runs.apart import is_of_the_data
from chargewatch.runs.load import Loaded
from chargewatch.signals.findings import Finding
from chargewatch.signals.registry import findings_of
from chargewatch.signals.signed import Signatures, SignedSessions
from chargewatch.signals.stations import LeftOut
from chargewatch.storage.archive.window import signed_rows
from chargewatch.storage.bulk import Records, seconds_of
from chargewatch.supervision.ocmf_checks import (
    Facts,
    SignedVerdict,
    check_records,
    plain_serial,
)

log = logging.getLogger("chargewatch.runs")

BLOCK = 2_000
OUTCOME = np.dtype(
    [
        ("session_id", "i8"),
        ("forged", "?"),
        ("first", "i8"),  # signed counter of the first record, -1 without one
        ("last", "i8"),
        ("counter", "i8"),  # key of which counter
        ("first_record", "i8"),  # keys of the first and the last record
        ("last_record", "i8"),
        ("facts", "i8"),  # key of what the registry said when it was checked
    ]
)


@dataclass(frozen=True)
class Verified:
    """Outcomes (dtype OUTCOME) by session_id, ascending, and what failed, in words; shape (v,)."""

    outcomes: Records
    reason: tuple[str, ...]

    @staticmethod
    def none() -> Verified:
        """Return no outcomes."""
        return Verified(np.empty(0, OUTCOME), ())


def _number(*parts: str | bytes | None) -> int:
    """Return texts as one number of 64 bits, never 0."""
    whole = hashlib.blake2b(digest_size=8)
    for part in parts:
        content = part if isinstance(part, bytes) else (part or "").encode("utf-8", "replace")
        whole.update(len(content).to_bytes(8, "big") + content)
    return int.from_bytes(whole.digest(), "big", signed=True) or 1


def _meters(loaded: Loaded) -> dict[str, dict[str, frozenset[str]]]:
    """Return an operator's connectors by the serial number that the registry has of them.

    By operator: two makers may number alike, and two operators may name alike.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for row in loaded.registry.connectors:
        serial = plain_serial(row["serial"])
        if serial:
            of_operator = found.setdefault(row["operator_id"], {})
            of_operator.setdefault(serial, set()).add(row["connector"])
    return {
        operator: {serial: frozenset(names) for serial, names in serials.items()}
        for operator, serials in found.items()
    }


@dataclass(frozen=True, kw_only=True)
class _Checker:
    """Checks the records of sessions against the registry and against the sessions."""

    loaded: Loaded
    meters: Mapping[str, Mapping[str, frozenset[str]]]  # by operator

    def facts_key(self, connector: int) -> int:
        """Return the key of what the registry says of a connector's meter."""
        row = self.loaded.registry.connectors[connector]
        return _number(row["signing_key"], row["serial"])

    def outcome(
        self, record: Records, row: dict[str, Any], connector: int
    ) -> tuple[tuple[Any, ...], str]:
        """Return a session's OUTCOME and what failed, in words."""
        instrument = self.loaded.registry.connectors[connector]
        number, facts_key = int(record["session_id"]), self.facts_key(connector)
        if (row["signed_format"] or "").upper() != "OCMF":
            return (number, False, -1, -1, 0, 0, 0, facts_key), ""
        facts = Facts(
            start_wh=float(record["start_wh"]),
            stop_wh=float(record["stop_wh"]),
            started_s=float(seconds_of(record["started_at"])),
            ended_s=float(seconds_of(record["ended_at"])),
            resolution_wh=float(instrument["resolution_wh"] or 1.0),
            registered_key=instrument["signing_key"],
            told_key=row["signed_public_key"],
            connector=instrument["connector"],
            meters=self.meters.get(instrument["operator_id"], {}),
        )
        verdict = check_records(row["signed_data"] or "", facts)
        place = instrument["operator_id"], instrument["station_id"]
        counter = verdict.counter
        # A counter without a name is the connector's own.
        own = instrument["connector"] if counter.endswith("|") else ""
        records = [_number(digest) for digest in verdict.digests] or [0]
        outcome = (
            number,
            verdict.is_forged,
            verdict.first,
            verdict.last,
            _number(*place, counter, own),
            records[0],
            records[-1],
            facts_key,
        )
        return outcome, _words(verdict)


def _words(verdict: SignedVerdict) -> str:
    if verdict.is_forged:
        return verdict.of("signature").detail
    return "; ".join(f"{check.name}: {check.detail}" for check in verdict.failed)


async def signature_checks(
    connection: asyncpg.Connection, loaded: Loaded, *, known: Verified, complete: Bools
) -> tuple[list[Finding], Verified, list[LeftOut]]:
    """Return the findings of signed records in the window, and all outcomes of the window.

    Third come the stations for whose records the check itself failed.

    Where: complete: connectors of stations whose session messages have no hole.
    """
    records = loaded.sessions[loaded.sessions["signed"]]
    records = records[np.argsort(records["session_id"])]
    rows_of = loaded.registry.connector_rows(records["connector_id"])
    checker = _Checker(loaded=loaded, meters=_meters(loaded))
    outcomes, reason = _remembered(records, rows_of, known, checker)
    left: list[LeftOut] = []
    new = np.flatnonzero(outcomes["session_id"] == 0)
    for start in range(0, new.size, BLOCK):
        part = new[start : start + BLOCK]
        ids = records["session_id"][part].tolist()
        rows = await signed_rows(connection, loaded.archive, ids)
        left += await asyncio.to_thread(
            _check_part, checker, records, rows_of, part, rows, outcomes, reason
        )
    verified = Verified(outcomes, tuple(reason))
    signed = SignedSessions(
        name=outcomes["session_id"].copy(),
        connector=rows_of,
        ended_s=seconds_of(records["ended_at"]),
        forged=outcomes["forged"].copy(),
        reason=tuple(reason),
        **{
            name: outcomes[name].copy()
            for name in ("first", "last", "counter", "first_record", "last_record")
        },
    )
    found = await asyncio.to_thread(findings_of, Signatures(signed=signed, complete=complete))
    return found, verified, left


def _remembered(
    records: Records, rows_of: Ints, known: Verified, checker: _Checker
) -> tuple[Records, list[str]]:
    """Return outcomes that still hold, with session_id 0 where a session is to be checked."""
    outcomes = np.zeros(records.size, OUTCOME)
    reason = [""] * records.size
    if known.outcomes.size == 0 or records.size == 0:
        return outcomes, reason
    at = np.searchsorted(known.outcomes["session_id"], records["session_id"])
    at = np.minimum(at, known.outcomes.size - 1)
    facts = {int(row): checker.facts_key(int(row)) for row in np.unique(rows_of)}
    same = known.outcomes["session_id"][at] == records["session_id"]
    same &= known.outcomes["facts"][at] == np.array([facts[int(row)] for row in rows_of], np.int64)
    outcomes[same] = known.outcomes[at[same]]
    for k in np.flatnonzero(same).tolist():
        reason[k] = known.reason[at[k]]
    return outcomes, reason


def _check_part(
    checker: _Checker,
    records: Records,
    rows_of: Ints,
    part: Ints,
    rows: Sequence[dict[str, Any]],
    outcomes: Records,
    reason: list[str],
) -> list[LeftOut]:
    """Fill in outcomes of some sessions; return the stations for which the check failed."""
    left = []
    for k, row in zip(part.tolist(), rows, strict=True):
        connector = int(rows_of[k])
        try:
            outcomes[k], reason[k] = checker.outcome(records[k], row, connector)
        except Exception as exc:
            if not is_of_the_data(exc):
                raise
            log.exception("signed_record_failed session_id=%d", records["session_id"][k])
            outcomes[k] = (records["session_id"][k], False, -1, -1, 0, 0, 0, 0)
            station = int(checker.loaded.inputs.fleet.station[connector])
            left.append(LeftOut(station, "signed records", type(exc).__name__))
    return left

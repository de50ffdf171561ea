"""Signed records of sessions: verified once, remembered from run to run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import numpy as np

from chargewatch.risk.inputs import Bools, Ints
from chargewatch.risk.signals import Finding
from chargewatch.risk.signals_sessions import SignedSessions, signature_findings
from chargewatch.runs.load import Loaded
from chargewatch.storage.archive import signed_rows
from chargewatch.storage.bulk import seconds_of
from chargewatch.supervision.ocmf import (
    OcmfError,
    UnverifiableError,
    is_genuine,
    read_record,
    same_key,
    split_records,
)

BLOCK = 2_000


@dataclass(frozen=True)
class Verified:
    """Outcomes by session_id, ascending; shape (v,)."""

    session_id: Ints
    valid: Bools
    pagination: Ints
    last_pagination: Ints
    reason: tuple[str, ...]

    @staticmethod
    def none() -> Verified:
        """Return no outcomes."""
        empty = np.empty(0, np.int64)
        return Verified(empty, np.empty(0, bool), empty, empty, ())


def _outcome(row: dict[str, Any], registered_key: str | None) -> tuple[bool, int, int, str]:
    """Return whether a session's records are genuine, first and last counter, and why not.

    What can't be verified here (no key, another format, an unknown algorithm) counts as genuine:
    the signal says that a record is false, not that it is unknown.
    """
    if (row["signed_format"] or "").upper() != "OCMF":
        return True, -1, -1, ""
    try:
        records = [read_record(text) for text in split_records(row["signed_data"])]
        if not records:
            return False, -1, -1, "the signed record is empty"
        numbers = [record.pagination for record in records if record.pagination is not None]
        first, last = (numbers[0], numbers[-1]) if numbers else (-1, -1)
        told = row["signed_public_key"]
        if told and registered_key and not same_key(told, registered_key):
            return False, first, last, "the public key is not the registered one"
        key = registered_key or told
        for record in records if key else ():
            if not is_genuine(record, key):
                return False, first, last, "the signature doesn't fit the record's bytes"
    except OcmfError as exc:
        return False, -1, -1, str(exc)
    except UnverifiableError:
        return True, first, last, ""
    return True, first, last, ""


def _outcomes(
    rows: Sequence[dict[str, Any]], keys: Sequence[str | None]
) -> list[tuple[bool, int, int, str]]:
    return [_outcome(row, key) for row, key in zip(rows, keys, strict=True)]


async def signature_checks(
    connection: asyncpg.Connection, loaded: Loaded, *, known: Verified, complete: Bools
) -> tuple[list[Finding], Verified]:
    """Return the findings of signed records in the window, and all outcomes of the window.

    Where: complete: connectors of stations whose session messages have no hole.
    """
    records = loaded.sessions[loaded.sessions["signed"]]
    records = records[np.argsort(records["session_id"])]
    ids = records["session_id"].astype(np.int64)
    rows_of = loaded.registry.connector_rows(records["connector_id"])
    at = np.searchsorted(known.session_id, ids)
    old = np.zeros(ids.size, bool)
    if known.session_id.size:
        at = np.minimum(at, known.session_id.size - 1)
        old = known.session_id[at] == ids
    valid = np.ones(ids.size, bool)
    first, last = np.full(ids.size, -1, np.int64), np.full(ids.size, -1, np.int64)
    reason = [""] * ids.size
    valid[old] = known.valid[at[old]]
    first[old], last[old] = known.pagination[at[old]], known.last_pagination[at[old]]
    for k in np.flatnonzero(old).tolist():
        reason[k] = known.reason[at[k]]
    new = np.flatnonzero(~old)
    for start in range(0, new.size, BLOCK):
        part = new[start : start + BLOCK]
        rows = await signed_rows(connection, loaded.archive, ids[part].tolist())
        keys = [loaded.registry.connectors[rows_of[k]]["signing_key"] for k in part]
        outcomes = await asyncio.to_thread(_outcomes, rows, keys)
        for k, outcome in zip(part.tolist(), outcomes, strict=True):
            valid[k], first[k], last[k], reason[k] = outcome
    verified = Verified(ids, valid, first, last, tuple(reason))
    order = np.lexsort((seconds_of(records["ended_at"]), rows_of))
    signed = SignedSessions(
        name=ids[order],
        connector=rows_of[order],
        ended_s=seconds_of(records["ended_at"])[order],
        valid=valid[order],
        pagination=first[order],
        last_pagination=last[order],
        reason=tuple(reason[k] for k in order.tolist()),
    )
    return await asyncio.to_thread(signature_findings, signed, complete=complete), verified

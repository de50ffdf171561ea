"""SQL of integrity signals: opened, updated and closed by risk runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from chargewatch.domain.signal import Signal
from chargewatch.storage import sql
from chargewatch.storage.database import Database

Key = tuple[str, str, str, str]

OPEN = sql.statement(
    "run signals: open",
    "SELECT signal_id, code, operator_id, station_id, subject FROM signal WHERE closed_run IS NULL",
)
INSERT = sql.statement(
    "run signals: insert",
    """
INSERT INTO signal (code, severity, subject, connector, station_id, operator_id, first_at,
  last_at, count, value, "limit", detail, evidence, rule_version, opened_run, last_run)
VALUES (:code, :severity, :subject, :connector, :station_id, :operator_id, :first_at, :last_at,
  :count, :value, :limit, :detail, :evidence, :rule_version, :run_id, :run_id)
""",
)
UPDATE = sql.statement(
    "run signals: update",
    """
UPDATE signal SET severity = :severity, first_at = least(first_at, :first_at), last_at = :last_at,
  count = :count, value = :value, "limit" = :limit, detail = :detail, evidence = :evidence,
  rule_version = :rule_version, last_run = :run_id
WHERE signal_id = :signal_id
""",
)
CLOSE = sql.statement(
    "run signals: close",
    "UPDATE signal SET closed_run = :run_id WHERE signal_id = ANY(CAST(:signal_ids AS bigint[]))",
)
SIGNALS = sql.statement(
    "run signals: signals",
    """
SELECT code, severity, connector, station_id, operator_id, first_at, last_at, count, value,
  "limit", detail, subject, closed_run IS NULL AS open
FROM signal WHERE :closed_too OR closed_run IS NULL
ORDER BY operator_id COLLATE "C", station_id COLLATE "C", subject COLLATE "C", code, signal_id
""",
)


def _key(signal: Signal) -> Key:
    return (
        signal.code,
        signal.operator_id or "",
        signal.station_id or "",
        str(signal.evidence["subject"]),
    )


async def store_signals(
    connection: asyncpg.Connection, run_id: int, signals: Sequence[Signal]
) -> dict[str, int]:
    """Open, update and close signals so that those given are the open ones; return the counts."""
    known: dict[Key, int] = {
        (row["code"], row["operator_id"] or "", row["station_id"] or "", row["subject"]): row[
            "signal_id"
        ]
        for row in await sql.rows(connection, OPEN, timeout_s=600)
    }
    found = {_key(signal): signal for signal in signals}
    ended = [number for key, number in known.items() if key not in found]
    await sql.run(connection, CLOSE, signal_ids=ended, run_id=run_id)
    kept = [
        {"signal_id": known[key], "run_id": run_id, **_changing_values(signal)}
        for key, signal in found.items()
        if key in known
    ]
    await sql.run_each(connection, UPDATE, kept)
    fresh = [
        {"run_id": run_id, **_changing_values(signal), **_lasting_values(signal)}
        for key, signal in found.items()
        if key not in known
    ]
    await sql.run_each(connection, INSERT, fresh)
    return {"opened": len(fresh), "kept": len(found) - len(fresh), "closed": len(ended)}


def _lasting_values(signal: Signal) -> dict[str, Any]:
    """Return what a signal is known by as long as it is open."""
    return {
        "code": signal.code,
        "subject": str(signal.evidence["subject"]),
        "connector": signal.connector,
        "station_id": signal.station_id,
        "operator_id": signal.operator_id,
    }


def _changing_values(signal: Signal) -> dict[str, Any]:
    """Return what each run says anew."""
    return {
        "severity": signal.severity.value,
        "first_at": signal.first_at,
        "last_at": signal.last_at,
        "count": signal.count,
        "value": signal.value,
        "limit": signal.limit,
        "detail": signal.detail,
        "evidence": orjson.dumps(signal.evidence).decode(),
        "rule_version": signal.rule_version,
    }


async def signals(database: Database, *, closed_too: bool) -> list[dict[str, Any]]:
    """Return signals in the columns and order of the contract, with subject and open."""
    async with database.raw() as connection:
        found = await sql.rows(connection, SIGNALS, closed_too=closed_too, timeout_s=600)
        return [dict(row) for row in found]

"""SQL of integrity signals: opened, updated and closed by risk runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from chargewatch.domain.signal import Signal
from chargewatch.storage.database import Database

Key = tuple[str, str, str, str]

OPEN = """
SELECT signal_id, code, operator_id, station_id, subject FROM signal WHERE closed_run IS NULL
"""
INSERT = """
INSERT INTO signal (code, severity, subject, connector, station_id, operator_id, first_at,
  last_at, count, value, "limit", detail, evidence, rule_version, opened_run, last_run)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)
"""
UPDATE = """
UPDATE signal SET severity = $2, first_at = least(first_at, $3), last_at = $4, count = $5,
  value = $6, "limit" = $7, detail = $8, evidence = $9, rule_version = $10, last_run = $11
WHERE signal_id = $1
"""
CLOSE = "UPDATE signal SET closed_run = $2 WHERE signal_id = ANY($1::bigint[])"
SIGNALS = """
SELECT code, severity, connector, station_id, operator_id, first_at, last_at, count, value,
  "limit", detail, subject, closed_run IS NULL AS open
FROM signal WHERE $1 OR closed_run IS NULL
ORDER BY operator_id COLLATE "C", station_id COLLATE "C", subject COLLATE "C", code, signal_id
"""


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
        for row in await connection.fetch(OPEN, timeout=600)
    }
    found = {_key(signal): signal for signal in signals}
    ended = [number for key, number in known.items() if key not in found]
    await connection.execute(CLOSE, ended, run_id)
    await connection.executemany(
        UPDATE, [_update_values(known[k], s, run_id) for k, s in found.items() if k in known]
    )
    fresh = [_insert_values(s, run_id) for k, s in found.items() if k not in known]
    await connection.executemany(INSERT, fresh)
    return {"opened": len(fresh), "kept": len(found) - len(fresh), "closed": len(ended)}


def _insert_values(signal: Signal, run_id: int) -> tuple[Any, ...]:
    return (
        signal.code,
        signal.severity.value,
        str(signal.evidence["subject"]),
        signal.connector,
        signal.station_id,
        signal.operator_id,
        signal.first_at,
        signal.last_at,
        signal.count,
        signal.value,
        signal.limit,
        signal.detail,
        orjson.dumps(signal.evidence).decode(),
        signal.rule_version,
        run_id,
    )


def _update_values(signal_id: int, signal: Signal, run_id: int) -> tuple[Any, ...]:
    return (
        signal_id,
        signal.severity.value,
        signal.first_at,
        signal.last_at,
        signal.count,
        signal.value,
        signal.limit,
        signal.detail,
        orjson.dumps(signal.evidence).decode(),
        signal.rule_version,
        run_id,
    )


async def signals(database: Database, *, closed_too: bool) -> list[dict[str, Any]]:
    """Return signals in the columns and order of the contract, with subject and open."""
    async with database.raw() as connection:
        return [dict(row) for row in await connection.fetch(SIGNALS, closed_too, timeout=600)]

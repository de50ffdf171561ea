"""Statements on the evidence files of flags, and on what the next run is asked to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.watched import watched

KEPT = sql.statement(
    "evidence: kept",
    "SELECT DISTINCT operator_id, station_id, connector, tier FROM evidence_file "
    "WHERE made_at > :since",
)
# A flag that ended and came back is another one.
CAME_BACK = sql.statement(
    "evidence: flags that came back",
    """
SELECT c.operator_id, c.station_id, c.connector, a.tier
FROM assessment a JOIN connector c USING (connector_id)
WHERE a.run_id = (
  SELECT run_id FROM risk_run WHERE state = 'finished' AND as_of < :as_of
  ORDER BY as_of DESC, run_id DESC LIMIT 1)
  AND a.tier = ANY(CAST(:tiers AS text[]))
""",
)
WANTED = sql.statement(
    "evidence: wanted", "SELECT operator_id, station_id, connector FROM evidence_wanted"
)
IS_WANTED = sql.statement(
    "evidence: is wanted",
    "SELECT EXISTS (SELECT FROM evidence_wanted WHERE operator_id = :operator_id "
    "AND station_id = :station_id AND connector = :connector)",
)
TAKEN = sql.statement(
    "evidence: taken",
    "DELETE FROM evidence_wanted WHERE operator_id = :operator_id "
    "AND station_id = :station_id AND connector = :connector",
)
WANT = sql.statement(
    "evidence: want",
    "INSERT INTO evidence_wanted (operator_id, station_id, connector, asked_at, asked_by) "
    "VALUES (:operator_id, :station_id, :connector, :asked_at, :asked_by) ON CONFLICT DO NOTHING",
)
ADD = sql.statement(
    "evidence: add",
    "INSERT INTO evidence_file "
    "(run_id, operator_id, station_id, connector, tier, made_at, digest, size, content) "
    "VALUES (:run_id, :operator_id, :station_id, :connector, :tier, now(), :digest, :size, "
    ":content)",
)
_OF_PILE = "connector = :connector AND operator_id = :operator_id AND station_id = :station_id"
_LISTED = (
    "SELECT run_id, operator_id, station_id, connector, tier, made_at, digest, size "
    "FROM evidence_file"
)
FILES = sql.statement(
    "evidence: files of a pile",
    f"{_LISTED} WHERE {_OF_PILE} ORDER BY run_id DESC LIMIT 50",
)
ONE = sql.statement(
    "evidence: one file",
    f"SELECT run_id, tier, made_at, digest, content FROM evidence_file WHERE {_OF_PILE} "  # noqa: S608 - a constant
    "AND (CAST(:run_id AS bigint) IS NULL OR run_id = :run_id) ORDER BY run_id DESC LIMIT 1",
)
NAMED = sql.statement(
    "evidence: piles of a name",
    "SELECT DISTINCT operator_id, station_id, connector FROM evidence_file "
    "WHERE connector = :connector "
    "AND (CAST(:operator_id AS text) IS NULL OR operator_id = :operator_id) "
    "ORDER BY 1, 2 LIMIT 20",
)
ENTRIES = sql.statement(
    "evidence: audit entry",
    "SELECT entry FROM audit_entry WHERE subject = :subject AND action = 'evidence_made' "
    "AND content::jsonb -> 'detail' ->> 'sha256' = :digest ORDER BY entry LIMIT 1",
)


@dataclass(frozen=True, kw_only=True)
class KeptFile:
    """An evidence file as it is kept."""

    operator_id: str
    station_id: str
    connector: str
    tier: str
    digest: str
    content: bytes


async def kept_tiers(connection: asyncpg.Connection, *, since: datetime) -> Sequence[Any]:
    """Return operator, station, connector and tier of the files that were taken since a time."""
    return await sql.rows(connection, KEPT, since=since)


async def flags_before(
    connection: asyncpg.Connection, *, as_of: datetime, tiers: Sequence[str]
) -> Sequence[Any]:
    """Return operator, station, connector and tier of the flags of the run before a time."""
    return await sql.rows(connection, CAME_BACK, as_of=as_of, tiers=list(tiers))


async def wanted(connection: asyncpg.Connection) -> Sequence[Any]:
    """Return operator, station and connector of what the next run is asked to take."""
    return await sql.rows(connection, WANTED)


async def is_wanted(
    connection: AsyncConnection, *, operator_id: str, station_id: str, connector: str
) -> bool:
    """Return whether the next run is asked for a pile's evidence."""
    return bool(
        await sql.value(
            connection,
            IS_WANTED,
            operator_id=operator_id,
            station_id=station_id,
            connector=connector,
        )
    )


async def want(
    connection: AsyncConnection,
    *,
    operator_id: str,
    station_id: str,
    connector: str,
    asked_at: datetime,
    asked_by: str,
) -> bool:
    """Ask the next run for a file; return whether nobody had."""
    asked = await sql.run(
        connection,
        WANT,
        operator_id=operator_id,
        station_id=station_id,
        connector=connector,
        asked_at=asked_at,
        asked_by=asked_by,
    )
    return asked > 0


async def add_files(connection: asyncpg.Connection, run_id: int, files: Sequence[KeptFile]) -> None:
    """Keep the files of a run; what was asked for is done with them."""
    piles = [
        {"operator_id": f.operator_id, "station_id": f.station_id, "connector": f.connector}
        for f in files
    ]
    told = [
        {
            **pile,
            "run_id": run_id,
            "tier": file.tier,
            "digest": file.digest,
            "size": len(file.content),
            "content": file.content,
        }
        for pile, file in zip(piles, files, strict=True)
    ]
    await sql.run_each(connection, ADD, told)
    await sql.run_each(connection, TAKEN, piles)


@watched(
    {
        "evidence: files of a pile": lambda s: {
            "operator_id": s.operator_id,
            "station_id": s.station_id,
            "connector": s.connector,
        }
    }
)
async def files_of(
    connection: AsyncConnection, *, operator_id: str, station_id: str, connector: str
) -> Sequence[RowMapping]:
    """Return what files there are of a pile, the newest first, without their content."""
    return await sql.rows(
        connection,
        FILES,
        operator_id=operator_id,
        station_id=station_id,
        connector=connector,
    )


async def one_file(
    connection: AsyncConnection,
    *,
    operator_id: str,
    station_id: str,
    connector: str,
    run_id: int | None,
) -> RowMapping | None:
    """Return a pile's file of a run, or its newest one."""
    found: RowMapping | None = await sql.row(
        connection,
        ONE,
        operator_id=operator_id,
        station_id=station_id,
        connector=connector,
        run_id=run_id,
    )
    return found


async def piles_named(
    connection: AsyncConnection, *, connector: str, operator_id: str | None
) -> Sequence[RowMapping]:
    """Return operator, station and connector of the piles of a name that have files."""
    return await sql.rows(connection, NAMED, connector=connector, operator_id=operator_id)


async def audit_entry(connection: AsyncConnection, *, subject: str, digest: str) -> int | None:
    """Return the number of the audit entry that tells a file's digest."""
    found = await sql.value(connection, ENTRIES, subject=subject, digest=digest)
    return None if found is None else int(found)

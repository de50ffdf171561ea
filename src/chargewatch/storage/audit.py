"""Statements on the audit trail. Who writes an entry takes the lock AUDIT, after all others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.database import Database
from chargewatch.storage.locks import LOCK_IN_TRANSACTION, AdvisoryLock

LAST_ENTRY = sql.statement(
    "audit: last entry", "SELECT entry, chain FROM audit_entry ORDER BY entry DESC LIMIT 1"
)
ADD_ENTRY = sql.statement(
    "audit: add entry",
    "INSERT INTO audit_entry (entry, content, chain) VALUES (:entry, :content, :chain)",
)
ENTRIES = sql.statement(
    "audit: entries in order",
    "SELECT entry, content, chain FROM audit_entry WHERE entry >= :first ORDER BY entry",
)
NEWEST = sql.statement(
    "audit: newest entries",
    "SELECT entry, content FROM audit_entry "
    "WHERE (CAST(:before AS bigint) IS NULL OR entry < :before) "
    "AND (:subject = '' OR subject = :subject) AND (:actor = '' OR actor = :actor) "
    "ORDER BY entry DESC LIMIT :limit",
)
CHECKPOINTS = sql.statement(
    "audit: checkpoints", "SELECT size, made_at, note FROM audit_checkpoint ORDER BY size"
)
ADD_CHECKPOINT = sql.statement(
    "audit: add checkpoint",
    "INSERT INTO audit_checkpoint (size, made_at, note) VALUES (:size, :made_at, :note) "
    "ON CONFLICT (size) DO NOTHING",
)
BLOCK = 5_000


async def last_entry(connection: sql.Connection) -> Any | None:
    """Return number and chain value of the last entry, which stays the last until the commit."""
    await sql.rows(connection, LOCK_IN_TRANSACTION, key=int(AdvisoryLock.AUDIT))
    return await sql.row(connection, LAST_ENTRY)


async def add_entry(connection: sql.Connection, *, entry: int, content: str, chain: bytes) -> None:
    """Add an entry after `last_entry`, in the same transaction."""
    await sql.run(connection, ADD_ENTRY, entry=entry, content=content, chain=chain)


async def entries(database: Database, *, first: int = 0) -> AsyncIterator[Any]:
    """Yield number, content and chain value of all entries from one on, as of one moment."""
    async with (
        database.raw() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        async for block in sql.blocks(connection, ENTRIES, size=BLOCK, timeout_s=60, first=first):
            for row in block:
                yield row


async def newest(
    connection: AsyncConnection,
    *,
    limit: int,
    before: int | None = None,
    subject: str = "",
    actor: str = "",
) -> Sequence[RowMapping]:
    """Return the newest entries, the newest first."""
    return await sql.rows(
        connection, NEWEST, limit=limit, before=before, subject=subject, actor=actor
    )


async def checkpoints(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Return all signed checkpoints, the smallest first."""
    return await sql.rows(connection, CHECKPOINTS)


async def add_checkpoint(
    connection: AsyncConnection, *, size: int, made_at: datetime, note: str
) -> None:
    """Keep a signed checkpoint; one of the same size stays."""
    await sql.run(connection, ADD_CHECKPOINT, size=size, made_at=made_at, note=note)

"""Whether the server archives its write-ahead log to a second place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql


@dataclass(frozen=True, kw_only=True)
class WalArchive:
    """What the server says of its archive."""

    is_on: bool
    last_archived_at: datetime | None
    failed_file: str | None
    """The file that waits since archiving it failed; None while archiving works."""


ARCHIVER = sql.statement(
    "wal archive: archiver",
    "SELECT current_setting('archive_mode') <> 'off' AS is_on, "
    "last_archived_time AS last_archived_at, "
    "CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') "
    "THEN last_failed_wal END AS failed_file FROM pg_stat_archiver",
)


async def wal_archive(connection: AsyncConnection) -> WalArchive:
    """Ask the server; every role may."""
    [found] = await sql.rows(connection, ARCHIVER)
    return WalArchive(**found)

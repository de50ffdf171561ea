"""Whether the server archives its write-ahead log to a second place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, kw_only=True)
class WalArchive:
    """What the server says of its archive."""

    is_on: bool
    last_archived_at: datetime | None
    failed_file: str | None
    """The file that waits since archiving it failed; None while archiving works."""


async def wal_archive(connection: AsyncConnection) -> WalArchive:
    """Ask the server; every role may."""
    result = await connection.execute(
        text(
            "SELECT current_setting('archive_mode') <> 'off', last_archived_time, "
            "CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') "
            "THEN last_failed_wal END FROM pg_stat_archiver"
        )
    )
    is_on, archived_at, failed_file = result.one()
    return WalArchive(is_on=is_on, last_archived_at=archived_at, failed_file=failed_file)

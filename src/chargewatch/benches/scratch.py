"""A database for one measurement: made beside the configured one, dropped afterwards."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from chargewatch.errors import DatabaseError
from chargewatch.storage.database import address_of, open_database
from chargewatch.storage.migrate import migrate


@asynccontextmanager
async def scratch_database(url: str, purpose: str) -> AsyncIterator[str]:
    """Yield the URL of a fresh migrated database on the server of `url`.

    Raises: DatabaseError when the role may not create databases.
    """
    name = f"chargewatch_{purpose}_{os.getpid()}"
    parts = urlsplit("postgresql://" + url.partition("://")[2])
    admin_url = urlunsplit(parts)
    try:
        admin = await asyncpg.connect(admin_url, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError) as exc:
        raise DatabaseError(f"no connection to {address_of(url)}: {exc}") from exc
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        try:
            await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0", timeout=120)
        except asyncpg.InsufficientPrivilegeError as exc:
            raise DatabaseError(
                f"the role of {address_of(url)} may not create the measurement's own database: "
                "use a role with CREATEDB"
            ) from exc
        try:
            scratch_url = urlunsplit(parts._replace(path=f"/{name}"))
            async with open_database(scratch_url) as database:
                await migrate(database)
            yield scratch_url
        finally:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", timeout=120)
    finally:
        await admin.close(timeout=10)


async def register_fleet(
    url: str, stations: list[tuple[str, str]], connectors: list[tuple[str, str, str]]
) -> None:
    """Register (operator_id, station_id) and (connector, operator_id, station_id)."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        operators = sorted({operator for operator, _ in stations})
        await connection.executemany(
            "INSERT INTO operator (operator_id, name) VALUES ($1, $1)",
            [(operator,) for operator in operators],
        )
        await connection.copy_records_to_table(
            "station",
            records=[(station, operator, station) for operator, station in stations],
            columns=["station_id", "operator_id", "name"],
        )
        await connection.copy_records_to_table(
            "connector",
            records=[(*row, True) for row in connectors],
            columns=["connector", "operator_id", "station_id", "registered"],
        )
    finally:
        await connection.close(timeout=10)


async def staged_copy(
    connection: asyncpg.Connection, batch: bytes, *, create: bool = False
) -> None:
    """Write one encoded batch of register readings through a staging table, in a transaction.

    The plainest way that keeps every key once: what ingest is measured against.
    """
    if create:
        await connection.execute(
            "CREATE TEMP TABLE limit_stage (LIKE register_reading) ON COMMIT DELETE ROWS"
        )
    async with connection.transaction():
        await connection.copy_to_table(
            "limit_stage", source=_Source(batch), format="binary", timeout=120
        )
        await connection.execute(
            "INSERT INTO register_reading SELECT * FROM limit_stage ON CONFLICT DO NOTHING",
            timeout=120,
        )


class _Source:
    """Bytes as asyncpg's COPY reads them, without copying them first."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        part = self._content[self._at : self._at + size]
        self._at += size
        return bytes(part)


async def scratch_connection(url: str) -> asyncpg.Connection:
    """Return a plain connection."""
    return await asyncpg.connect(url, timeout=10)

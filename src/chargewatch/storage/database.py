"""The connection to the database: one engine a process, opened and closed in sight."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from chargewatch.errors import DatabaseError
from chargewatch.storage.capabilities import Capabilities, find_capabilities


def asyncpg_url(url: str) -> str:
    """Return the URL in the form SQLAlchemy needs for asyncpg."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in {"postgresql", "postgres", "timescaledb"}:
        raise DatabaseError(
            f"CHARGEWATCH_DATABASE_URL: {scheme!r} is not a PostgreSQL address; "
            "use postgresql://user@host:port/name"
        )
    return f"postgresql+asyncpg://{rest}"


def address_of(url: str) -> str:
    """Return host, port and database name of a URL, without its user and password."""
    parts = urlsplit(url)
    host = parts.hostname or parts.query or "local socket"
    return f"{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


@dataclass(frozen=True)
class Database:
    """An open engine and what the database behind it can do."""

    engine: AsyncEngine
    capabilities: Capabilities
    url: str

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction that commits on success."""
        async with self.engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for reading."""
        async with self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[asyncpg.Connection]:
        """Yield asyncpg's own connection (for binary COPY and LISTEN), outside SQLAlchemy's pool.

        Raises: DatabaseError if the database can't be reached.
        """
        try:
            connection = await asyncpg.connect(self.raw_dsn, timeout=10)
        except (OSError, TimeoutError, asyncpg.PostgresError) as exc:
            raise DatabaseError(f"no connection to {address_of(self.url)}: {exc}") from exc
        try:
            yield connection
        finally:
            await connection.close(timeout=10)

    @property
    def raw_dsn(self) -> str:
        """The URL in the form asyncpg and libpq programs take."""
        return "postgresql://" + self.url.partition("://")[2]


@asynccontextmanager
async def open_database(url: str, *, pool_size: int = 5) -> AsyncIterator[Database]:
    """Yield the database at a URL; the engine is disposed of afterwards.

    Raises: DatabaseError that names the address and the next step.
    """
    engine = create_async_engine(
        make_url(asyncpg_url(url)), pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True
    )
    try:
        try:
            async with engine.connect() as connection:
                capabilities = await find_capabilities(connection)
        except (OSError, TimeoutError, SQLAlchemyError, asyncpg.PostgresError) as exc:
            cause = exc.orig if isinstance(exc, DBAPIError) else exc
            raise DatabaseError(
                f"no connection to the database at {address_of(url)}: {cause}; "
                "check CHARGEWATCH_DATABASE_URL and that the server runs (`chargewatch doctor`)"
            ) from exc
        yield Database(engine, capabilities, url)
    finally:
        await engine.dispose()

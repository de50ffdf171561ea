"""The connection to the database: one engine a process, opened and closed in sight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
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


RAW_CONNECTIONS = 8
"""Of a pool at most; a risk run has four at once."""
ACQUIRE_S = 60.0
ANSWER_S = 5.0
_IDLE_S = 60.0
_BROKEN = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


def _raw_dsn(url: str) -> str:
    return "postgresql://" + url.partition("://")[2]


async def _clean(connection: asyncpg.Connection) -> None:
    """Make a connection as good as new: no locks, settings, cursors or temporary tables."""
    await connection.execute(connection.get_reset_query())
    await connection.execute("DISCARD TEMP")


@asynccontextmanager
async def _open_pool(url: str) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool that connects when it is asked, and closes what is idle for a minute."""
    pool = await asyncpg.create_pool(
        _raw_dsn(url),
        min_size=0,
        max_size=RAW_CONNECTIONS,
        max_inactive_connection_lifetime=_IDLE_S,
        reset=_clean,
        timeout=10,
    )
    try:
        yield pool
    finally:
        try:
            async with asyncio.timeout(10):
                await pool.close()
        except TimeoutError:
            pool.terminate()


@dataclass(frozen=True)
class Database:
    """An open engine, a pool beside it, and what the database behind them can do."""

    engine: AsyncEngine
    capabilities: Capabilities
    url: str
    pool: asyncpg.Pool

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
        """Yield a connection of asyncpg's own (for binary COPY), as good as new.

        It goes back to a pool that is apart from SQLAlchemy's; locks, settings and temporary
        tables that were made on it end there.
        Raises: DatabaseError if the database can't be reached, or all connections are taken.
        """
        connection = await self._working_connection()
        try:
            yield connection
        finally:
            # One that can't be cleaned is ended by the pool; what was done on it stands.
            with suppress(*_BROKEN):
                await self.pool.release(connection, timeout=10)

    async def _working_connection(self) -> asyncpg.Connection:
        """Return a connection that answers; idle ones may have lost their server."""
        fault: Exception | None = None
        for _ in range(RAW_CONNECTIONS + 1):
            connection = await self._acquire()
            try:
                await connection.execute("SELECT 1", timeout=ANSWER_S)
            except _BROKEN as exc:
                fault = exc
                with suppress(asyncpg.InterfaceError):  # the pool may have noticed first
                    connection.terminate()
            else:
                return connection
        raise DatabaseError(f"{address_of(self.url)} does not answer: {fault}") from fault

    async def _acquire(self) -> asyncpg.Connection:
        try:
            return await self.pool.acquire(timeout=ACQUIRE_S)
        except (OSError, TimeoutError, asyncpg.PostgresError) as exc:
            if isinstance(exc, TimeoutError) and self._all_taken():
                raise DatabaseError(
                    f"all {RAW_CONNECTIONS} connections of this process to "
                    f"{address_of(self.url)} have been in use for over {ACQUIRE_S:g} s; repeat"
                ) from exc
            raise DatabaseError(f"no connection to {address_of(self.url)}: {exc}") from exc

    def _all_taken(self) -> bool:
        return self.pool.get_size() == RAW_CONNECTIONS and not self.pool.get_idle_size()

    @property
    def raw_dsn(self) -> str:
        """The URL in the form asyncpg and libpq programs take."""
        return _raw_dsn(self.url)


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
        async with _open_pool(url) as pool:
            yield Database(engine, capabilities, url, pool)
    finally:
        await engine.dispose()

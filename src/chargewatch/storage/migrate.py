"""Bring a database to the newest schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chargewatch.errors import DatabaseError
from chargewatch.storage import sql
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.locks import LOCK, UNLOCK, AdvisoryLock
from chargewatch.storage.pile_index import rebuild_if_missing


def migrations_folder() -> Path:
    """Return the folder of the migration scripts: in the wheel, or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    in_wheel = package / "_migrations"
    return in_wheel if in_wheel.is_dir() else package.parents[1] / "migrations"


def alembic_config() -> Config:
    """Return Alembic's configuration without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.set_main_option("path_separator", "os")
    return config


def newest_revision() -> str:
    """Return the revision that this version of chargewatch needs."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if head is None:
        raise DatabaseError("the migrations folder holds no migration; reinstall chargewatch")
    return head


def _revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def current_revision(engine: AsyncEngine) -> str | None:
    """Return the revision of the database, None when it is empty."""
    async with engine.connect() as connection:
        return await connection.run_sync(_revision_of)


TIMESCALE_USABLE = sql.statement(
    "migrate: timescale usable",
    "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') "
    "AND current_setting('shared_preload_libraries') LIKE '%timescaledb%'",
)


async def _enable_timescale(engine: AsyncEngine) -> None:
    """Create the extension where the server has it and the role may; else go on without."""
    async with engine.connect() as connection:
        usable = await sql.value(connection, TIMESCALE_USABLE)
    if not usable:
        return
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS timescaledb")


def _upgrade(connection: Connection, revision: str) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def migrate(database: Database, *, revision: str = "head") -> tuple[str | None, str]:
    """Upgrade to a revision; return the revisions before and after. Safe to repeat.

    Raises: DatabaseError, with the server's words, when a migration is refused.
    """
    before = await current_revision(database.engine)
    try:
        async with asyncio.timeout(600), database.engine.connect() as connection:
            # Two migrations at once would trip over each other: the second one waits here.
            await sql.run(connection, LOCK, key=AdvisoryLock.MIGRATION)
            await connection.commit()
            try:
                if before is None:
                    await _enable_timescale(database.engine)
                await connection.run_sync(_upgrade, revision)
                await connection.commit()
            finally:
                await sql.run(connection, UNLOCK, key=AdvisoryLock.MIGRATION)
                await connection.commit()
    except DBAPIError as exc:
        raise DatabaseError(
            f"migration from {before or 'an empty database'} failed: {exc.orig}; "
            "nothing of the failed step was kept, repeat `chargewatch migrate` after mending it"
        ) from exc
    after = await current_revision(database.engine)
    if after == newest_revision():
        async with database.raw() as connection, connection.transaction():
            await rebuild_if_missing(connection)
    return before, after or ""


async def require_newest_schema(database: Database) -> None:
    """Raise DatabaseError with the next step when the schema isn't the one this version needs."""
    have, need = await current_revision(database.engine), newest_revision()
    if have != need:
        raise DatabaseError(
            f"the database has schema {have or 'none'}, this version needs {need}: "
            "run `chargewatch migrate`"
        )


@asynccontextmanager
async def open_migrated(url: str, *, pool_size: int = 5) -> AsyncIterator[Database]:
    """Yield the database at a URL, when it has the schema that this version needs.

    Raises: DatabaseError that names the address, or what to run first.
    """
    async with open_database(url, pool_size=pool_size) as database:
        await require_newest_schema(database)
        yield database

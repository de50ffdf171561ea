"""The migrations make the schema that the code's tables say, on both engines."""

from __future__ import annotations

import asyncio

import pytest
from alembic import command
from sqlalchemy import Connection, text

from chargewatch.errors import DatabaseError
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.migrate import (
    alembic_config,
    current_revision,
    migrate,
    newest_revision,
    require_newest_schema,
)
from chargewatch.storage.tables import HYPERTABLES, metadata
from running import RunCommand


async def table_names(database: Database) -> set[str]:
    query = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    async with database.connect() as connection:
        return set((await connection.execute(query)).scalars())


def _check(connection: Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.check(config)


async def test_empty_database_gets_every_table(empty_database_url: str) -> None:
    async with open_database(empty_database_url) as database:
        before, after = await migrate(database)
        assert (before, after) == (None, newest_revision())
        assert await table_names(database) == {*metadata.tables, "alembic_version"}
        await require_newest_schema(database)


async def test_migrations_and_tables_in_code_agree(empty_database_url: str) -> None:
    async with open_database(empty_database_url) as database:
        await migrate(database)
        async with database.engine.connect() as connection:
            await connection.run_sync(_check)


async def test_every_index_in_code_is_in_the_database(any_database_url: str) -> None:
    wanted = {index.name for table in metadata.tables.values() for index in table.indexes}
    query = text("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")
    async with open_database(any_database_url) as database, database.connect() as connection:
        found = set((await connection.execute(query)).scalars())
    assert wanted - found == set()


async def test_second_migration_changes_nothing(empty_database_url: str) -> None:
    async with open_database(empty_database_url) as database:
        await migrate(database)
        newest = newest_revision()
        assert await migrate(database) == (newest, newest)


async def test_two_migrations_at_once_both_succeed(empty_database_url: str) -> None:
    async def one() -> tuple[str | None, str]:
        async with open_database(empty_database_url) as database:
            return await migrate(database)

    results = await asyncio.gather(one(), one(), one())
    assert {after for _, after in results} == {newest_revision()}


async def test_empty_database_is_refused_with_the_next_step(empty_database_url: str) -> None:
    async with open_database(empty_database_url) as database:
        assert await current_revision(database.engine) is None
        with pytest.raises(DatabaseError, match="chargewatch migrate"):
            await require_newest_schema(database)


async def test_downgrade_leaves_no_table_behind(empty_database_url: str) -> None:
    def down(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    async with open_database(empty_database_url) as database:
        await migrate(database)
        async with database.engine.connect() as connection:
            await connection.run_sync(down)
            await connection.commit()
        assert await table_names(database) == {"alembic_version"}


async def test_big_tables_are_hypertables_on_timescale(timescale_url: str) -> None:
    async with open_database(timescale_url) as database:
        assert database.capabilities.hypertables
        query = text("SELECT hypertable_name FROM timescaledb_information.hypertables")
        async with database.connect() as connection:
            assert set((await connection.execute(query)).scalars()) == set(HYPERTABLES)


async def test_same_tables_are_plain_tables_without_timescale(database_url: str) -> None:
    async with open_database(database_url) as database:
        assert not database.capabilities.hypertables
        assert set(HYPERTABLES) <= await table_names(database)


async def test_command_migrates_and_tells_both_revisions(
    empty_database_url: str, run_command: RunCommand
) -> None:
    environment = {"CHARGEWATCH_DATABASE_URL": empty_database_url}
    first = await asyncio.to_thread(run_command, "migrate", "--json", env=environment)
    second = await asyncio.to_thread(run_command, "migrate", env=environment)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert f'"after":"{newest_revision()}"' in first.stdout
    assert second.stdout == ""
    assert "is the newest" in second.stderr


async def test_downgrade_restores_the_indexes_that_were_dropped(empty_database_url: str) -> None:
    def down(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")

    query = text("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'assessment'")
    async with open_database(empty_database_url) as database:
        await migrate(database, revision="0001")
        async with database.engine.connect() as connection:
            first = set(await connection.execute(query))
        await migrate(database)
        async with database.engine.connect() as connection:
            assert first - set(await connection.execute(query))
            await connection.run_sync(down)
            await connection.commit()
            assert set(await connection.execute(query)) == first

"""Connections of asyncpg's own come from a pool: clean, answering, and not without end."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack

import pytest

from chargewatch.errors import DatabaseError
from chargewatch.storage import database as pools
from chargewatch.storage.database import open_database


async def test_a_connection_comes_back_as_good_as_new(database_url: str) -> None:
    async with open_database(database_url) as database:
        async with database.raw() as connection:
            pid = connection.get_server_pid()
            await connection.execute("SELECT pg_advisory_lock(4711)")
            await connection.execute("SET statement_timeout = '1h'")
            await connection.execute("CREATE TEMP TABLE left_behind (n int)")
            await connection.execute("BEGIN")
            await connection.execute("CREATE TABLE public.half_done (n int)")
        async with database.raw() as connection, database.raw() as other:
            assert connection.get_server_pid() == pid != other.get_server_pid()
            assert await other.fetchval("SELECT pg_try_advisory_lock(4711)")
            assert await connection.fetchval("SHOW statement_timeout") == "0"
            assert await connection.fetchval("SELECT to_regclass('left_behind')") is None
            assert await connection.fetchval("SELECT to_regclass('half_done')") is None


async def test_idle_connections_that_lost_their_server_are_left(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "ANSWER_S", 0.5)
    async with open_database(database_url) as database:
        async with database.raw() as first, database.raw() as second:
            ended, hung = first.get_server_pid(), second.get_server_pid()
            third = await database.pool.acquire()
        await third.execute("SELECT pg_terminate_backend($1)", ended)
        os.kill(hung, signal.SIGSTOP)
        try:
            async with database.raw() as one, database.raw() as two:
                found = {one.get_server_pid(), two.get_server_pid()}
                assert not found & {ended, hung}
                assert await two.fetchval("SELECT 1") == 1
        finally:
            os.kill(hung, signal.SIGCONT)
            await database.pool.release(third)


async def test_what_was_done_stands_although_the_connection_is_lost_after_it(
    database_url: str,
) -> None:
    async with open_database(database_url) as database:
        async with database.raw() as connection, database.raw() as other:
            await connection.execute("CREATE TABLE public.done (n int)")
            pid = connection.get_server_pid()
            await other.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        async with database.raw() as connection:
            assert await connection.fetchval("SELECT to_regclass('public.done')") is not None


async def test_more_connections_than_the_pool_has_are_refused_in_words(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "ACQUIRE_S", 0.2)
    async with open_database(database_url) as database:
        async with AsyncExitStack() as held:
            for _ in range(pools.RAW_CONNECTIONS):
                await held.enter_async_context(database.raw())
            with pytest.raises(DatabaseError, match=r"all 8 connections of this process .* repeat"):
                async with database.raw():
                    pass
        async with database.raw() as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_database_that_is_gone_is_told(database_url: str) -> None:
    async with open_database(database_url) as database:
        async with database.raw() as connection:
            name = await connection.fetchval("SELECT current_database()")
        address = database_url.replace(name, "postgres")
        async with open_database(address) as admin, admin.raw() as connection:
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        with pytest.raises(DatabaseError, match=r"no connection to .*does not exist"):
            async with database.raw():
                pass

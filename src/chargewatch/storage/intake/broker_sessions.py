"""Which sessions ingest has at the broker, so that none is forgotten there with messages in it.

A session's client id ends in a part that nobody can guess: whoever connects with the client id of
a session gets its messages, and access lists don't prevent it. The id is a secret like a password.
It is kept here, so that a worker finds its session again.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import asyncpg

from chargewatch.storage import sql
from chargewatch.storage.locks import AdvisoryLock

CONNECT_TIMEOUT_S = 10.0
SECRET_BYTES = 16


@dataclass(frozen=True)
class Slot:
    """One worker's place: the client id of the settings, and the shard."""

    base: str
    index: int
    count: int

    @property
    def name(self) -> str:
        """What the worker is called; of workers of one name one at a time may run."""
        return self.base if self.count == 1 else f"{self.base}-{self.index}-of-{self.count}"


@dataclass(frozen=True)
class LeftSession:
    """A session that no present worker uses, and the name to hold while it is emptied."""

    client_id: str
    hold: str


@dataclass(frozen=True)
class LeftSessions:
    """What earlier workers left; it may be ended when every present worker is subscribed."""

    sessions: tuple[LeftSession, ...]
    all_subscribed: bool


_SLOT = "base = :base AND shard_index = :index AND shard_count = :count"
_USE = sql.statement(
    "broker sessions: use",
    "UPDATE ingest_session SET used_at = now(), subscribed_at = NULL "  # noqa: S608 - a constant
    f"WHERE {_SLOT} AND NOT retired RETURNING client_id",
)
_RETIRE = sql.statement(
    "broker sessions: retire",
    f"UPDATE ingest_session SET retired = true WHERE {_SLOT}",  # noqa: S608 - a constant
)
_INSERT = sql.statement(
    "broker sessions: insert",
    "INSERT INTO ingest_session (client_id, base, shard_index, shard_count, used_at) "
    "VALUES (:client_id, :base, :index, :count, now())",
)
_SUBSCRIBED = sql.statement(
    "broker sessions: subscribed",
    "UPDATE ingest_session SET subscribed_at = coalesce(subscribed_at, now()), "
    "used_at = now() WHERE client_id = :client_id",
)
_COUNT_SUBSCRIBED = sql.statement(
    "broker sessions: count subscribed",
    "SELECT count(DISTINCT shard_index) FROM ingest_session "
    "WHERE base = :base AND shard_count = :count AND NOT retired AND subscribed_at IS NOT NULL "
    "AND used_at > now() - make_interval(secs => :fresh_s)",
)
_LEFT = sql.statement(
    "broker sessions: left",
    "SELECT client_id, shard_index, shard_count, retired FROM ingest_session "
    "WHERE base = :base AND (retired OR shard_count IS DISTINCT FROM :count) "
    "ORDER BY used_at, client_id",
)
_FORGET = sql.statement(
    "broker sessions: forget", "DELETE FROM ingest_session WHERE client_id = :client_id"
)
_HOLDER = sql.statement(
    "broker sessions: holder",
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = :names "
    "AND objid = (hashtext(:name)::bigint & 4294967295)::oid AND objsubid = 2 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
)


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=30)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def open_session(connection: asyncpg.Connection, slot: Slot) -> str:
    """Return the client id of a slot's session, a new one when it has none.

    Written down before the session is opened. The connection holds the slot's name.
    """
    async with connection.transaction():
        found = await sql.value(connection, _USE, **asdict(slot))
        return str(found) if found is not None else await _insert(connection, slot)


async def renew_session(dsn: str, slot: Slot) -> str:
    """Return a new client id for a slot; its present session counts as left."""
    async with _connection(dsn) as connection, connection.transaction():
        await sql.run(connection, _RETIRE, **asdict(slot))
        return await _insert(connection, slot)


async def _insert(connection: asyncpg.Connection, slot: Slot) -> str:
    client_id = f"{slot.name}-{secrets.token_hex(SECRET_BYTES)}"
    await sql.run(connection, _INSERT, client_id=client_id, **asdict(slot))
    return client_id


async def note_subscribed(dsn: str, client_id: str) -> None:
    """Write down that the broker has confirmed a session's subscription, and that it is in use."""
    async with _connection(dsn) as connection:
        await sql.run(connection, _SUBSCRIBED, client_id=client_id)


async def left_sessions(dsn: str, slot: Slot, *, fresh_s: float) -> LeftSessions:
    """Return what workers of another number, or of version 0.1.0, left.

    fresh_s: how long after its last use the broker surely has a session still.
    """
    async with _connection(dsn) as connection:
        subscribed = await sql.value(
            connection, _COUNT_SUBSCRIBED, base=slot.base, count=slot.count, fresh_s=fresh_s
        )
        rows = await sql.rows(connection, _LEFT, base=slot.base, count=slot.count)
    present = {Slot(slot.base, index, slot.count).name for index in range(slot.count)}
    left = []
    for row in rows:
        hold = row["client_id"]
        if not row["retired"] and row["shard_count"] is not None:
            hold = Slot(slot.base, row["shard_index"], row["shard_count"]).name
        # A present worker holds this name, so no other one runs with the session.
        left.append(LeftSession(row["client_id"], f"{hold} left" if hold in present else hold))
    return LeftSessions(tuple(left), subscribed == slot.count)


async def forget_session(dsn: str, client_id: str) -> None:
    """Write down that a session is empty and ended."""
    async with _connection(dsn) as connection:
        await sql.run(connection, _FORGET, client_id=client_id)


async def name_holder(dsn: str, name: str) -> int | None:
    """Return the server process that holds a name (see `hold_name`), None when nobody does."""
    async with _connection(dsn) as connection:
        found = await sql.value(connection, _HOLDER, names=AdvisoryLock.NAMES, name=name)
    return None if found is None else int(found)

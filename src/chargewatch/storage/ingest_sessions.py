"""Which sessions ingest has at the broker, so that none is forgotten there with messages in it."""

from __future__ import annotations

import asyncpg

CONNECT_TIMEOUT_S = 10.0


async def _connection(dsn: str) -> asyncpg.Connection:
    return await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=30)


async def note_session(connection: asyncpg.Connection, client_id: str, *, base: str) -> None:
    """Write down that a session is about to be opened."""
    await connection.execute(
        "INSERT INTO ingest_session (client_id, base, used_at) VALUES ($1, $2, now()) "
        "ON CONFLICT (client_id) DO UPDATE SET used_at = now()",
        client_id,
        base,
    )


async def left_sessions(dsn: str, *, base: str, current: list[str]) -> list[str]:
    """Return the client ids of earlier sessions that none of the present workers has."""
    connection = await _connection(dsn)
    try:
        rows = await connection.fetch(
            "SELECT client_id FROM ingest_session WHERE base = $1 AND client_id <> ALL($2::text[]) "
            "ORDER BY client_id",
            base,
            current,
        )
        return [row["client_id"] for row in rows]
    finally:
        await connection.close(timeout=5)


async def forget_session(dsn: str, client_id: str) -> None:
    """Write down that a session is empty and ended."""
    connection = await _connection(dsn)
    try:
        await connection.execute("DELETE FROM ingest_session WHERE client_id = $1", client_id)
    finally:
        await connection.close(timeout=5)

"""Statements on users, their log-in sessions and operators' tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.watched import watched
from chargewatch.storage.tables import api_token, app_user, login_session, operator_token

# One round trip a request: the key of a session, or of a user's own token, finds its user.
USER_OF_SESSION = sql.statement(
    "users: user of session",
    "SELECT u.user_id, u.username, u.role, u.operator_id, 'session' AS scope, "
    "u.totp_confirmed_at IS NOT NULL AS has_second_factor, s.strong "
    "FROM login_session s JOIN app_user u USING (user_id) "
    "WHERE s.token_hash = :token_hash AND s.expires_at > :now AND NOT u.disabled",
)
USER_OF_API_TOKEN = sql.statement(
    "users: user of API token",
    "SELECT u.user_id, u.username, u.role, u.operator_id, t.scope, "
    "u.totp_confirmed_at IS NOT NULL AS has_second_factor, false AS strong "
    "FROM api_token t JOIN app_user u USING (user_id) "
    "WHERE t.token_hash = :token_hash AND t.expires_at > :now AND t.revoked_at IS NULL "
    "AND NOT u.disabled",
)
API_TOKENS = sql.statement(
    "users: API tokens of user",
    "SELECT token_id, label, scope, created_at, expires_at, revoked_at FROM api_token "
    "WHERE user_id = :user_id ORDER BY token_id DESC",
)
REVOKE_API_TOKENS = sql.statement(
    "users: revoke API tokens",
    "UPDATE api_token SET revoked_at = :now WHERE user_id = :user_id AND revoked_at IS NULL "
    "AND (CAST(:token_id AS bigint) IS NULL OR token_id = :token_id)",
)
# A code counts once: of two log-ins with the same one, one comes too late.
TAKE_STEP = sql.statement(
    "users: take step of second factor",
    "UPDATE app_user SET totp_last_step = :step WHERE user_id = :user_id "
    "AND (totp_last_step IS NULL OR totp_last_step < :step)",
)

OPERATOR_OF_TOKEN = sql.statement(
    "users: operator of token",
    "SELECT operator_id FROM operator_token WHERE token_hash = :token_hash AND revoked_at IS NULL",
)

USER_BY_NAME = sql.statement(
    "users: user by name", "SELECT * FROM app_user WHERE username = :username"
)

ALL_USERS = sql.statement(
    "users: all users",
    "SELECT user_id, username, role, operator_id, created_at, disabled, "
    "totp_confirmed_at IS NOT NULL AS second_factor FROM app_user "
    "ORDER BY username",
)

OPERATOR_EXISTS = sql.statement(
    "users: operator exists",
    "SELECT EXISTS (SELECT FROM operator WHERE operator_id = :operator_id)",
)


async def user_by_name(connection: AsyncConnection, username: str) -> RowMapping | None:
    """Return a user's row with its password hash."""
    return await sql.row(connection, USER_BY_NAME, username=username)


async def all_users(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Return all users by name, without their password hashes."""
    return await sql.rows(connection, ALL_USERS)


async def insert_user(connection: AsyncConnection, values: dict[str, Any]) -> int:
    """Insert a user and return its user_id."""
    statement = insert(app_user).values(**values).returning(app_user.c.user_id)
    return int((await connection.execute(statement)).scalar_one())


async def update_user(connection: AsyncConnection, user_id: int, values: dict[str, Any]) -> None:
    """Change columns of a user."""
    await connection.execute(update(app_user).where(app_user.c.user_id == user_id).values(**values))


async def insert_session(
    connection: AsyncConnection,
    token_hash: bytes,
    *,
    user_id: int,
    expires_at: datetime,
    strong: bool = False,
) -> None:
    """Open a log-in session."""
    await connection.execute(
        insert(login_session).values(
            token_hash=token_hash, user_id=user_id, expires_at=expires_at, strong=strong
        )
    )


@watched({"log-in": lambda s: {"token_hash": bytes(32), "now": s.now}})
async def user_of_session(
    connection: AsyncConnection, token_hash: bytes, *, now: datetime
) -> RowMapping | None:
    """Return the enabled user of an unexpired session."""
    return await sql.row(connection, USER_OF_SESSION, token_hash=token_hash, now=now)


async def user_of_api_token(
    connection: AsyncConnection, token_hash: bytes, *, now: datetime
) -> RowMapping | None:
    """Return the enabled user of a token of its own that is neither expired nor revoked."""
    return await sql.row(connection, USER_OF_API_TOKEN, token_hash=token_hash, now=now)


async def insert_api_token(connection: AsyncConnection, values: dict[str, Any]) -> int:
    """Keep the hash of a user's new token and return its number."""
    statement = insert(api_token).values(**values).returning(api_token.c.token_id)
    return int((await connection.execute(statement)).scalar_one())


async def api_tokens(connection: AsyncConnection, user_id: int) -> Sequence[RowMapping]:
    """Return a user's own tokens, the newest first, without what opens anything."""
    return await sql.rows(connection, API_TOKENS, user_id=user_id)


async def revoke_api_tokens(
    connection: AsyncConnection, user_id: int, *, now: datetime, token_id: int | None = None
) -> int:
    """Revoke one or all of a user's valid tokens and return how many there were."""
    return await sql.run(connection, REVOKE_API_TOKENS, user_id=user_id, now=now, token_id=token_id)


async def take_step(connection: AsyncConnection, user_id: int, *, step: int) -> bool:
    """Use up a step of a user's second factor; False when it or a later one was used already."""
    return bool(await sql.run(connection, TAKE_STEP, user_id=user_id, step=step))


async def delete_session(connection: AsyncConnection, token_hash: bytes) -> None:
    """End one log-in session."""
    await connection.execute(delete(login_session).where(login_session.c.token_hash == token_hash))


async def delete_sessions_of(connection: AsyncConnection, user_id: int) -> None:
    """End all log-in sessions of a user."""
    await connection.execute(delete(login_session).where(login_session.c.user_id == user_id))


async def delete_expired_sessions(connection: AsyncConnection, *, now: datetime) -> None:
    """Forget the sessions that have run out."""
    await connection.execute(delete(login_session).where(login_session.c.expires_at <= now))


async def operator_exists(connection: AsyncConnection, operator_id: str) -> bool:
    """Return whether the registry has an operator."""
    return bool(await sql.value(connection, OPERATOR_EXISTS, operator_id=operator_id))


async def insert_operator_token(
    connection: AsyncConnection, token_hash: bytes, *, operator_id: str, label: str
) -> None:
    """Keep the hash of a new operator token."""
    await connection.execute(
        insert(operator_token).values(token_hash=token_hash, operator_id=operator_id, label=label)
    )


async def operator_of_token(connection: AsyncConnection, token_hash: bytes) -> str | None:
    """Return the operator of a token that is not revoked."""
    found = await sql.value(connection, OPERATOR_OF_TOKEN, token_hash=token_hash)
    return None if found is None else str(found)


async def revoke_operator_tokens(
    connection: AsyncConnection, operator_id: str, *, now: datetime
) -> int:
    """Revoke all valid tokens of an operator and return how many there were."""
    statement = (
        update(operator_token)
        .where(operator_token.c.operator_id == operator_id, operator_token.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return (await connection.execute(statement)).rowcount

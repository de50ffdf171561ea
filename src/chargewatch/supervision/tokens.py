"""Tokens: operators' for the HTTP door, and users' own for the API. Kept as SHA-256 only."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from chargewatch.errors import NotFoundError
from chargewatch.storage import users
from chargewatch.storage.database import Database
from chargewatch.supervision.accounts import TOKEN_BEGINNING, Account, AccountError, token_hash
from chargewatch.supervision.audit import Action, Actor, record

MOST_DAYS = 400
SCOPES = ("read", "all")
"""What a user's own token may do: change nothing, or all that its user may."""


async def issue_operator_token(
    database: Database, operator_id: str, *, label: str, actor: Actor
) -> str:
    """Return a new token with which an operator may send telemetry over HTTP.

    Raises: AccountError when the registry has no such operator.
    """
    token = "cwo_" + secrets.token_urlsafe(32)
    async with database.begin() as connection:
        if not await users.operator_exists(connection, operator_id):
            raise AccountError(
                f"no operator {operator_id!r} in the registry: `chargewatch registry import` first"
            )
        await users.insert_operator_token(
            connection, token_hash(token), operator_id=operator_id, label=label
        )
        await record(
            connection, actor, Action.OPERATOR_TOKEN_ISSUED, f"operator:{operator_id}", label=label
        )
    return token


async def revoke_operator_tokens(
    database: Database, operator_id: str, *, now: datetime, actor: Actor
) -> int:
    """Revoke all valid tokens of an operator and return how many there were."""
    async with database.begin() as connection:
        count = await users.revoke_operator_tokens(connection, operator_id, now=now)
        if count:
            await record(
                connection,
                actor,
                Action.OPERATOR_TOKEN_REVOKED,
                f"operator:{operator_id}",
                at=now,
                tokens=count,
            )
    return count


async def operator_of(database: Database, token: str) -> str | None:
    """Return the operator_id of an operator token; None when it is unknown or revoked."""
    async with database.connect() as connection:
        return await users.operator_of_token(connection, token_hash(token))


async def issue_api_token(
    database: Database,
    user: Account,
    *,
    label: str,
    scope: str,
    days: int,
    now: datetime,
) -> tuple[int, str]:
    """Return number and text of a new token of a user; the text is never shown again.

    Raises: AccountError for a scope that there isn't or a time beyond 400 days.
    """
    if scope not in SCOPES:
        raise AccountError(f"scope {scope!r}: use {' or '.join(SCOPES)}")
    if not 1 <= days <= MOST_DAYS:
        raise AccountError(f"a token is valid for 1 to {MOST_DAYS} days, not {days}")
    if not 0 < len(label) <= 100:
        raise AccountError("give the token a label of 1 to 100 characters: what it is for")
    token, expires_at = TOKEN_BEGINNING + secrets.token_urlsafe(32), now + timedelta(days=days)
    async with database.begin() as connection:
        token_id = await users.insert_api_token(
            connection,
            {
                "token_hash": token_hash(token),
                "user_id": user.user_id,
                "label": label,
                "scope": scope,
                "expires_at": expires_at,
            },
        )
        await record(
            connection,
            user.actor,
            Action.API_TOKEN_ISSUED,
            f"user:{user.username}",
            at=now,
            token_id=token_id,
            label=label,
            scope=scope,
            days=days,
        )
    return token_id, token


async def revoke_api_token(
    database: Database, user: Account, token_id: int, *, now: datetime
) -> None:
    """Revoke one of a user's tokens.

    Raises: NotFoundError when it has no such valid token.
    """
    async with database.begin() as connection:
        if not await users.revoke_api_tokens(connection, user.user_id, now=now, token_id=token_id):
            raise NotFoundError(f"no valid token {token_id} of {user.username}")
        await record(
            connection,
            user.actor,
            Action.API_TOKEN_REVOKED,
            f"user:{user.username}",
            at=now,
            token_id=token_id,
        )

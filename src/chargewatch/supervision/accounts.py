"""Who may log in and what they may see.

Passwords are kept as argon2id hashes, tokens as SHA-256: who reads the tables can't log in.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import RowMapping

from chargewatch.domain.identity import is_identity
from chargewatch.errors import ChargewatchError, NotFoundError
from chargewatch.storage import users
from chargewatch.storage.database import Database
from chargewatch.supervision.audit import Actor, record

SESSION_LIFETIME = timedelta(hours=12)
MIN_PASSWORD_LENGTH = 10


class AccountError(ChargewatchError):
    """A user can't be made or changed as asked."""


class Role(StrEnum):
    """What a user is here for."""

    ADMINISTRATOR = "administrator"
    SUPERVISOR = "supervisor"
    INSPECTOR = "inspector"
    OPERATOR = "operator"


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user that has shown who it is."""

    user_id: int
    username: str
    role: Role
    operator_id: str | None

    @property
    def scope(self) -> str | None:
        """The one operator whose data this user may see; None: everybody's.

        An operator's user without an operator sees nothing: no operator has an empty name.
        """
        return (self.operator_id or "") if self.role is Role.OPERATOR else None


@dataclass(frozen=True, kw_only=True)
class LogIn:
    """A fresh log-in: the account, its secret token and when that runs out."""

    account: Account
    token: str
    expires_at: datetime


def token_hash(token: str) -> bytes:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def generate_password() -> str:
    """Return a fresh password of 96 random bits that can be read out on the telephone."""
    letters = secrets.token_hex(12)
    return "-".join(letters[i : i + 6] for i in range(0, 24, 6))


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _hash_of_nobody() -> str:
    return _hasher().hash(secrets.token_hex(16))


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _hasher().verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def _account(row: RowMapping) -> Account:
    return Account(
        user_id=row["user_id"],
        username=row["username"],
        role=Role(row["role"]),
        operator_id=row["operator_id"],
    )


async def add_user(
    database: Database,
    username: str,
    *,
    role: Role,
    password: str,
    actor: Actor,
    operator_id: str | None = None,
) -> Account:
    """Make a user and return it.

    Raises: AccountError that names what is wrong (name taken, password too short, no operator).
    """
    if not is_identity(username):
        raise AccountError(f"user name {username!r}: use 1 to 64 of A-Z a-z 0-9 _ -")
    if len(password) < MIN_PASSWORD_LENGTH:
        raise AccountError(f"the password is shorter than {MIN_PASSWORD_LENGTH} characters")
    if (role is Role.OPERATOR) != (operator_id is not None):
        raise AccountError("--operator ID belongs to --role operator, and only to it")
    password_hash = await asyncio.to_thread(_hasher().hash, password)
    async with database.begin() as connection:
        if operator_id is not None and not await users.operator_exists(connection, operator_id):
            raise AccountError(
                f"no operator {operator_id!r} in the registry: `chargewatch registry import` first"
            )
        if await users.user_by_name(connection, username) is not None:
            raise AccountError(f"user {username!r} exists already: choose another name")
        values = {
            "username": username,
            "password_hash": password_hash,
            "role": role.value,
            "operator_id": operator_id,
        }
        user_id = await users.insert_user(connection, values)
        await record(
            connection,
            actor,
            "user.added",
            f"user:{username}",
            role=role.value,
            operator_id=operator_id,
        )
    return Account(user_id=user_id, username=username, role=role, operator_id=operator_id)


async def set_password(database: Database, username: str, *, password: str, actor: Actor) -> None:
    """Change a user's password, enable it and end its sessions.

    Raises: NotFoundError, AccountError.
    """
    if len(password) < MIN_PASSWORD_LENGTH:
        raise AccountError(f"the password is shorter than {MIN_PASSWORD_LENGTH} characters")
    password_hash = await asyncio.to_thread(_hasher().hash, password)
    async with database.begin() as connection:
        row = await users.user_by_name(connection, username)
        if row is None:
            raise NotFoundError(f"no user {username!r}: see `chargewatch user list`")
        values = {"password_hash": password_hash, "disabled": False}
        await users.update_user(connection, row["user_id"], values)
        await users.delete_sessions_of(connection, row["user_id"])
        await record(connection, actor, "user.password_changed", f"user:{username}")


async def disable_user(database: Database, username: str, *, actor: Actor) -> None:
    """Shut a user out at once: no new log-in, and its sessions end.

    Raises: NotFoundError.
    """
    async with database.begin() as connection:
        row = await users.user_by_name(connection, username)
        if row is None:
            raise NotFoundError(f"no user {username!r}: see `chargewatch user list`")
        await users.update_user(connection, row["user_id"], {"disabled": True})
        await users.delete_sessions_of(connection, row["user_id"])
        await record(connection, actor, "user.disabled", f"user:{username}")


async def log_in(
    database: Database, username: str, *, password: str, now: datetime
) -> LogIn | None:
    """Return a fresh session, or None when name and password don't belong together."""
    async with database.connect() as connection:
        row = await users.user_by_name(connection, username)
    # An unknown name takes as long as a wrong password, so that names can't be found out.
    password_hash = _hash_of_nobody() if row is None else row["password_hash"]
    right = await asyncio.to_thread(_verify, password_hash, password)
    if row is None or row["disabled"] or not right:
        return None
    token = secrets.token_urlsafe(32)
    expires_at = now + SESSION_LIFETIME
    async with database.begin() as connection:
        await users.delete_expired_sessions(connection, now=now)
        await users.insert_session(
            connection, token_hash(token), user_id=row["user_id"], expires_at=expires_at
        )
        await record(
            connection,
            Actor(name=username, role=row["role"]),
            "session.opened",
            f"user:{username}",
            at=now,
        )
    return LogIn(account=_account(row), token=token, expires_at=expires_at)


async def account_of(database: Database, token: str, *, now: datetime) -> Account | None:
    """Return whose session a token is; None when it is unknown, ended or expired."""
    async with database.connect() as connection:
        row = await users.user_of_session(connection, token_hash(token), now=now)
    return None if row is None else _account(row)


async def log_out(database: Database, token: str) -> None:
    """End the session of a token."""
    async with database.begin() as connection:
        await users.delete_session(connection, token_hash(token))


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
            connection, actor, "operator_token.issued", f"operator:{operator_id}", label=label
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
                "operator_token.revoked",
                f"operator:{operator_id}",
                at=now,
                tokens=count,
            )
    return count


async def operator_of(database: Database, token: str) -> str | None:
    """Return the operator_id of an operator token; None when it is unknown or revoked."""
    async with database.connect() as connection:
        return await users.operator_of_token(connection, token_hash(token))

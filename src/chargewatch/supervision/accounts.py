"""Who may log in and what they may see.

Passwords are kept as argon2id hashes, tokens as SHA-256: who reads the tables can't log in.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import RowMapping

from chargewatch.domain.identity import is_identity
from chargewatch.errors import ChargewatchError, NotFoundError
from chargewatch.storage import users
from chargewatch.storage.database import Database
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.permissions import (
    ALWAYS_TWO_FACTORS,
    PERMISSIONS,
    READS,
    Permission,
    Role,
)

TOKEN_BEGINNING = "cwt_"  # noqa: S105 - no secret
"""How a user's own token begins."""
SESSION_LIFETIME = timedelta(hours=12)
MIN_PASSWORD_LENGTH = 10


class AccountError(ChargewatchError):
    """A user can't be made or changed as asked."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user that has shown who it is."""

    user_id: int
    username: str
    role: Role
    operator_id: str | None
    permissions: frozenset[Permission]
    has_second_factor: bool = False
    lacks_second_factor: bool = False  # must set one up before anything else

    @property
    def actor(self) -> Actor:
        """Who does what this user does, for the audit trail."""
        return Actor(name=self.username, role=self.role.value)

    def may(self, permission: str) -> bool:
        """Whether something is permitted; by its value, for templates."""
        return permission in self.permissions

    @property
    def scope(self) -> str | None:
        """The one operator whose data this user may see; None: everybody's.

        An operator's user without an operator sees nothing: no operator has an empty name.
        """
        return (self.operator_id or "") if self.role is Role.OPERATOR else None


@dataclass(frozen=True, kw_only=True)
class LogIn:
    """A fresh log-in: whose, its secret token and when that runs out."""

    username: str
    role: Role
    operator_id: str | None
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


def account_with(row: RowMapping, *, second_factor: str) -> Account:
    """Return the account of a user's row, with what it may do by its role and its token's scope.

    Who must have a second factor, and has none, may only set one up. What looks after the account
    itself takes a log-in: a token makes no tokens.
    """
    role = Role(row["role"])
    has = row["has_second_factor"] or row["strong"]
    lacks = role in ALWAYS_TWO_FACTORS[second_factor] and not has
    permissions = frozenset({Permission.OWN_ACCOUNT}) if lacks else PERMISSIONS[role]
    if row["scope"] != "session":
        permissions -= {Permission.OWN_ACCOUNT}
    return Account(
        user_id=row["user_id"],
        username=row["username"],
        role=role,
        operator_id=row["operator_id"],
        permissions=permissions & READS if row["scope"] == "read" else permissions,
        has_second_factor=row["has_second_factor"],
        lacks_second_factor=lacks,
    )


async def add_user(
    database: Database,
    username: str,
    *,
    role: Role,
    password: str,
    actor: Actor,
    operator_id: str | None = None,
) -> int:
    """Make a user and return its user_id.

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
            Action.USER_ADDED,
            f"user:{username}",
            role=role.value,
            operator_id=operator_id,
        )
    return user_id


async def set_password(database: Database, username: str, *, password: str, actor: Actor) -> None:
    """Change a user's password, enable it, and end its sessions and tokens.

    One that somebody else gives unbinds the user from the identity provider, too.

    Raises: NotFoundError, AccountError.
    """
    if len(password) < MIN_PASSWORD_LENGTH:
        raise AccountError(f"the password is shorter than {MIN_PASSWORD_LENGTH} characters")
    password_hash = await asyncio.to_thread(_hasher().hash, password)
    async with database.begin() as connection:
        row = await users.user_by_name(connection, username)
        if row is None:
            raise NotFoundError(f"no user {username!r}: see `chargewatch user list`")
        values: dict[str, Any] = {"password_hash": password_hash, "disabled": False}
        if actor.name != username:
            values["oidc_subject"] = None
        await users.update_user(connection, row["user_id"], values)
        await users.delete_sessions_of(connection, row["user_id"])
        await users.revoke_api_tokens(connection, row["user_id"], now=datetime.now(UTC))
        await record(connection, actor, Action.USER_PASSWORD_CHANGED, f"user:{username}")


async def disable_user(database: Database, username: str, *, actor: Actor) -> None:
    """Shut a user out at once: no new log-in, and its sessions and tokens end.

    Raises: NotFoundError.
    """
    async with database.begin() as connection:
        row = await users.user_by_name(connection, username)
        if row is None:
            raise NotFoundError(f"no user {username!r}: see `chargewatch user list`")
        await users.update_user(connection, row["user_id"], {"disabled": True})
        await users.delete_sessions_of(connection, row["user_id"])
        await users.revoke_api_tokens(connection, row["user_id"], now=datetime.now(UTC))
        await record(connection, actor, Action.USER_DISABLED, f"user:{username}")


async def checked_password(
    database: Database, username: str, *, password: str
) -> RowMapping | None:
    """Return the row of an enabled user, or None when name and password don't belong together."""
    async with database.connect() as connection:
        row = await users.user_by_name(connection, username)
    # An unknown name takes as long as a wrong password, so that names can't be found out.
    password_hash = _hash_of_nobody() if row is None else row["password_hash"]
    right = await asyncio.to_thread(_verify, password_hash, password)
    return None if row is None or row["disabled"] or not right else row


async def open_session(
    database: Database, user: RowMapping, *, now: datetime, by: str = "", strong: bool = False
) -> LogIn:
    """Return a fresh session of a user that has shown who it is.

    Args:
        database: with the users.
        user: its row.
        now: when it begins.
        by: how it has, where not by a password here; for the audit trail.
        strong: whether by more than a password.
    """
    token = secrets.token_urlsafe(32)
    expires_at = now + SESSION_LIFETIME
    async with database.begin() as connection:
        await users.delete_expired_sessions(connection, now=now)
        await users.insert_session(
            connection,
            token_hash(token),
            user_id=user["user_id"],
            expires_at=expires_at,
            strong=strong,
        )
        actor = Actor(name=user["username"], role=user["role"])
        told = {"by": by} if by else {}
        await record(connection, actor, Action.SESSION_OPENED, f"user:{actor.name}", at=now, **told)
    return LogIn(
        username=user["username"],
        role=Role(user["role"]),
        operator_id=user["operator_id"],
        token=token,
        expires_at=expires_at,
    )


async def tell_refused(
    database: Database, username: str, *, why: str, address: str, now: datetime
) -> None:
    """Enter a refused log-in of a user in the audit trail; names that nobody has are not told.

    Args:
        database: with the users.
        username: as it was given.
        why: what was wrong.
        address: where it came from.
        now: when.
    """
    async with database.begin() as connection:
        if await users.user_by_name(connection, username) is not None:
            await record(
                connection,
                Actor(name="nobody"),
                Action.SESSION_REFUSED,
                f"user:{username}",
                at=now,
                why=why,
                address=address,
            )


async def account_of(
    database: Database, token: str, *, now: datetime, second_factor: str
) -> Account | None:
    """Return whose session or own token it is; None when it is unknown, ended or expired.

    Args:
        database: with the users.
        token: as it was sent.
        now: what is expired is by then.
        second_factor: value of the setting that says who must have one.
    """
    find = users.user_of_api_token if token.startswith(TOKEN_BEGINNING) else users.user_of_session
    async with database.connect() as connection:
        row = await find(connection, token_hash(token), now=now)
    return None if row is None else account_with(row, second_factor=second_factor)


async def log_out(database: Database, token: str) -> None:
    """End the session of a token."""
    async with database.begin() as connection:
        await users.delete_session(connection, token_hash(token))

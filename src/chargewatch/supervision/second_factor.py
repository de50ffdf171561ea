"""The second factor of a log-in: codes of six digits by time (TOTP), as authenticator apps show.

Source: RFC 6238, by pyotp. A code counts once, and the one before and after are taken too, for
clocks that are up to half a minute off.
"""

from __future__ import annotations

from datetime import datetime

import pyotp
from sqlalchemy import RowMapping

from chargewatch.errors import NotFoundError
from chargewatch.storage import users
from chargewatch.storage.database import Database
from chargewatch.supervision.accounts import Account, AccountError
from chargewatch.supervision.audit import Action, Actor, record

ISSUER = "chargewatch"
CODE_STEP_S = 30
STEPS_OFF = 1


def _step_of(secret: str, code: str, *, now: datetime) -> int | None:
    """Return the step of a code that is right about now."""
    totp, present = pyotp.TOTP(secret), int(now.timestamp()) // CODE_STEP_S
    code = "".join(code.split())
    if len(code) != totp.digits or not code.isascii() or not code.isdigit():
        return None
    steps = range(present - STEPS_OFF, present + STEPS_OFF + 1)
    return next((s for s in steps if pyotp.utils.strings_equal(totp.generate_otp(s), code)), None)


async def is_right(database: Database, user: RowMapping, code: str, *, now: datetime) -> bool:
    """Return whether a code is a user's one of now that was not used yet, and use it up."""
    step = _step_of(user["totp_secret"], code, now=now)
    if step is None:
        return False
    async with database.begin() as connection:
        return await users.take_step(connection, user["user_id"], step=step)


async def begin(database: Database, user: Account) -> tuple[str, str]:
    """Return a fresh secret of a user and its address for authenticator apps.

    It counts once a code of it was shown (`confirm`).

    Raises: AccountError when the user has a second factor already.
    """
    if user.has_second_factor:
        raise AccountError("you have a second factor already: end it first")
    secret = pyotp.random_base32()
    async with database.begin() as connection:
        await users.update_user(
            connection, user.user_id, {"totp_secret": secret, "totp_last_step": None}
        )
    return secret, pyotp.TOTP(secret).provisioning_uri(name=user.username, issuer_name=ISSUER)


async def confirm(database: Database, user: Account, code: str, *, now: datetime) -> None:
    """Make the secret that was begun count, by a code of it.

    Raises: AccountError for a wrong code, or when none was begun.
    """
    async with database.begin() as connection:
        row = await users.user_by_name(connection, user.username)
        if row is None or row["totp_secret"] is None or user.has_second_factor:
            raise AccountError("no second factor was begun: begin with a fresh secret")
        step = _step_of(row["totp_secret"], code, now=now)
        if step is None:
            raise AccountError(
                "the code is wrong: is the clock of the telephone right? Try the next code"
            )
        await users.update_user(
            connection, user.user_id, {"totp_confirmed_at": now, "totp_last_step": step}
        )
        await record(
            connection, user.actor, Action.SECOND_FACTOR_BEGUN, f"user:{user.username}", at=now
        )


async def end(database: Database, username: str, *, actor: Actor, now: datetime) -> None:
    """Take a user's second factor away, as when the telephone is lost; ends its sessions.

    Raises: NotFoundError when there is no such user or it has none.
    """
    async with database.begin() as connection:
        row = await users.user_by_name(connection, username)
        if row is None or row["totp_confirmed_at"] is None:
            raise NotFoundError(f"no user {username!r} with a second factor")
        await users.update_user(
            connection,
            row["user_id"],
            {"totp_secret": None, "totp_confirmed_at": None, "totp_last_step": None},
        )
        await users.delete_sessions_of(connection, row["user_id"])
        await record(connection, actor, Action.SECOND_FACTOR_ENDED, f"user:{username}", at=now)

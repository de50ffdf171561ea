"""How users wish to be told."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import notices as rows
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.audit import Action, record
from chargewatch.supervision.notices.kinds import kinds_for
from chargewatch.supervision.notices.sending import NoticeError

_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\\x00-\x1f]{1,64}@[A-Za-z0-9.-]{1,190}\.[A-Za-z]{2,60}")
WISH_LANGUAGES = ("zh", "en")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a user wishes to be told: kinds of notices that come by mail, where, and in what."""

    mail: str = ""
    language: str = "zh"
    mail_kinds: tuple[str, ...] = ()


async def wish_of(connection: AsyncConnection, account: Account) -> Wish:
    """Return a user's wish."""
    row = await rows.wish(connection, account.user_id)
    if row is None:
        return Wish()
    return Wish(mail=row["mail"], language=row["language"], mail_kinds=tuple(row["mail_kinds"]))


async def set_wish(
    connection: AsyncConnection,
    account: Account,
    *,
    mail: str,
    language: str,
    mail_kinds: Iterable[str],
) -> Wish:
    """Keep a user's wish; as the last thing of a transaction.

    Raises: NoticeError that names what is wrong.
    """
    mail, kinds, possible = mail.strip(), tuple(sorted(set(mail_kinds))), kinds_for(account.role)
    if mail and not _ADDRESS.fullmatch(mail):
        raise NoticeError(f"{mail!r} is no mail address: write name@host")
    if kinds and not mail:
        raise NoticeError("give the mail address that notices shall go to")
    if unknown := sorted(set(kinds) - set(possible)):
        raise NoticeError(f"choose some of {', '.join(possible)}, not {', '.join(unknown)}")
    if language not in WISH_LANGUAGES:
        raise NoticeError(f"language {language!r}: use {' or '.join(WISH_LANGUAGES)}")
    await rows.set_wish(connection, account.user_id, mail=mail, language=language, kinds=kinds)
    # Where mail goes is the user's own matter; that it was changed is not.
    await record(
        connection,
        account.actor,
        Action.NOTICE_WISH_CHANGED,
        f"user:{account.username}",
        kinds=list(kinds),
    )
    return Wish(mail=mail, language=language, mail_kinds=kinds)

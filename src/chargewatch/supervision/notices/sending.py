"""How notices leave the platform: mail, signed webhooks, messengers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import ssl
from collections.abc import Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import aiosmtplib
import httpx2
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import ChargewatchError, NotFoundError, SettingError
from chargewatch.storage.office import notices as rows
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.jobs.kinds import NotNowError
from chargewatch.supervision.notices.kinds import FOR_PROGRAMS

SENDING_TIMEOUT_S = 20.0
SECRET_BEGINNING = "whsec_"  # noqa: S105 - no secret


class NoticeError(ChargewatchError):
    """A notice can't be sent, or a wish can't be kept, as asked."""


def mail_message(
    *, sender: str, to: str, subject: str, text: str, key: str, at: datetime
) -> EmailMessage:
    """Return a mail; the same key gives the same Message-ID, so that a repeated one is one.

    Raises: NoticeError for an address that can't be one.
    """
    message = EmailMessage()
    try:
        message["From"], message["To"] = sender, to
        message["Subject"] = " ".join(subject.split())
    except ValueError as exc:
        raise NoticeError(f"{to!r} is no mail address: {exc}") from exc
    message["Date"] = format_datetime(at)
    host = sender.rpartition("@")[2].strip("> ") or "chargewatch.invalid"
    message["Message-ID"] = f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@{host}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    message.set_content(text)
    return message


async def send_mail(message: EmailMessage, *, server: str) -> None:
    """Hand a mail to the server of CHARGEWATCH_SMTP_URL.

    Args:
        message: to send.
        server: smtp://user:password@host:port (STARTTLS where the server offers it, always with a
            password) or smtps://...

    Raises: SettingError; NotNowError when the server is away or says "later"; NoticeError when it
        refuses the mail for good.
    """
    parts = urlsplit(server)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise SettingError("CHARGEWATCH_SMTP_URL: write smtp://user@host:587 or smtps://user@host")
    implicit = parts.scheme == "smtps"
    client = aiosmtplib.SMTP(
        hostname=parts.hostname,
        port=parts.port or (465 if implicit else 25),
        use_tls=implicit,
        # A password never goes out in the clear.
        start_tls=None if implicit or not parts.username else True,
        tls_context=ssl.create_default_context(),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        timeout=SENDING_TIMEOUT_S,
    )
    try:
        async with client:
            await client.send_message(message)
    except aiosmtplib.SMTPResponseException as exc:
        if exc.code >= 500:
            raise NoticeError(f"the mail server refuses: {exc.code} {exc.message}") from exc
        raise NotNowError(f"the mail server says later: {exc.code} {exc.message}") from exc
    except aiosmtplib.SMTPRecipientsRefused as exc:
        codes = [one.code for one in exc.recipients]
        refused = NoticeError if all(code >= 500 for code in codes) else NotNowError
        raise refused(f"the mail server refuses the address: {codes}") from exc
    except (aiosmtplib.SMTPException, OSError) as exc:
        raise NotNowError(f"the mail server is away: {exc}") from exc


def new_webhook_secret() -> str:
    """Return a fresh secret as Standard Webhooks has it."""
    return SECRET_BEGINNING + base64.b64encode(secrets.token_bytes(32)).decode()


def webhook_headers(secret: str, *, message_id: str, body: bytes, at: datetime) -> dict[str, str]:
    """Return what shows a receiver that a call is ours, and when it was made.

    Source: the Standard Webhooks specification 1.0.0: HMAC-SHA-256 over `id.timestamp.body`.
    """
    key = base64.b64decode(secret.removeprefix(SECRET_BEGINNING))
    timestamp = str(int(at.timestamp()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
        "content-type": "application/json",
        "user-agent": "chargewatch",
    }


async def call_webhook(
    address: str, secret: str, *, message_id: str, said: Any, at: datetime
) -> int:
    """Tell a program something; return the status of its answer.

    Args:
        address: of the program.
        secret: of the webhook.
        message_id: the same for every try, so that the receiver can tell.
        said: what it is told, JSON.
        at: time of the try.

    Raises: NotNowError when it is away or does not take it.
    """
    body = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    headers = webhook_headers(secret, message_id=message_id, body=body, at=at)
    try:
        # No redirects: the body goes to the address that was set, and to no other.
        async with httpx2.AsyncClient(timeout=SENDING_TIMEOUT_S, follow_redirects=False) as client:
            answer = await client.post(address, content=body, headers=headers)
    except httpx2.HTTPError as exc:
        raise NotNowError(f"{address} does not answer: {type(exc).__name__} {exc}") from exc
    if not 200 <= answer.status_code < 300:
        raise NotNowError(f"{address} answers {answer.status_code}, not 2xx")
    return int(answer.status_code)


async def tell_messengers(addresses: str, *, title: str, text: str) -> None:
    """Tell the office's messengers (WeCom, DingTalk and others, by apprise).

    Raises: SettingError for an address that apprise doesn't know; NotNowError when one failed.
    """
    import apprise  # slow to import, and most installations have no messenger

    told = apprise.Apprise()
    for address in addresses.split():
        if not told.add(address):
            raise SettingError("CHARGEWATCH_MESSENGERS holds an address that apprise doesn't know")
    if not await told.async_notify(title=title, body=text):
        raise NotNowError("a messenger did not take the notice")


async def add_webhook(
    connection: AsyncConnection,
    actor: Actor,
    *,
    label: str,
    address: str,
    kinds: Sequence[str],
    now: datetime,
) -> tuple[int, str]:
    """Keep a program's address and return its number and its secret, which is shown only now.

    Raises: NoticeError that names what is wrong.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise NoticeError(f"{address!r} is no address: write https://host/path, without a password")
    unknown = sorted(set(kinds) - set(FOR_PROGRAMS))
    if unknown or not kinds:
        raise NoticeError(f"choose some of {', '.join(FOR_PROGRAMS)}, not {unknown or 'none'}")
    if not 0 < len(label.strip()) <= 100:
        raise NoticeError("give the webhook a label of 1 to 100 characters: what it is for")
    secret = new_webhook_secret()
    webhook_id = await rows.add_webhook(
        connection,
        label=label.strip(),
        address=address,
        secret=secret,
        kinds=sorted(set(kinds)),
        made_by=actor.name,
    )
    await record(
        connection,
        actor,
        Action.WEBHOOK_ADDED,
        f"webhook:{webhook_id}",
        at=now,
        label=label.strip(),
        host=parts.hostname,
        kinds=sorted(set(kinds)),
    )
    return webhook_id, secret


async def end_webhook(
    connection: AsyncConnection, actor: Actor, webhook_id: int, *, now: datetime
) -> None:
    """Tell a program nothing more.

    Raises: NotFoundError.
    """
    if not await rows.end_webhook(connection, webhook_id, now=now):
        raise NotFoundError(f"no webhook {webhook_id} in use")
    await record(connection, actor, Action.WEBHOOK_ENDED, f"webhook:{webhook_id}", at=now)

"""Notices in words, on their way out: the jobs that mail them and tell programs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from typing import Any

from chargewatch.errors import SettingError
from chargewatch.settings import Settings
from chargewatch.storage.office import jobs as job_rows
from chargewatch.storage.office import notices as rows
from chargewatch.storage.users import user_by_name
from chargewatch.supervision.jobs.kinds import JobKind, Work
from chargewatch.supervision.jobs.table import JOB_KINDS
from chargewatch.supervision.notices import sending
from chargewatch.supervision.notices.brief import Brief, brief_of
from chargewatch.supervision.notices.collect import (
    CALL_WEBHOOK,
    COLLECT,
    SEND_MAIL,
    TELL_MESSENGERS,
    collect_job,
)
from chargewatch.web.language import Translator

BRIEFS = "send_briefs"
SEND_BRIEF = "send_brief"
SHOWN_RED = 20


def sentence(t: Translator, kind: str, detail: Mapping[str, Any]) -> str:
    """Return what a notice says, in one sentence; its kind where words are missing."""
    try:
        return t(f"notice.{kind}", **detail)
    except KeyError:
        return t.known("notice.name", kind)


def link(settings: Settings, path: str) -> str:
    """Return the address of a page, as far as it is known."""
    return settings.public_url.rstrip("/") + path if settings.public_url else path


def _mail_settings(settings: Settings) -> tuple[str, str]:
    if not settings.smtp_url or not settings.mail_from:
        raise SettingError("no mail goes out: set CHARGEWATCH_SMTP_URL and CHARGEWATCH_MAIL_FROM")
    return settings.smtp_url, settings.mail_from


async def _send_mail(work: Work) -> dict[str, Any]:
    server, sender = _mail_settings(work.settings)
    async with work.database.connect() as connection:
        row = await rows.one_for_mail(connection, work.arguments["notice_id"])
    if row is None:
        return {"sent": False}
    t = Translator(row["language"])
    said = sentence(t, row["kind"], row["detail"])
    message = sending.mail_message(
        sender=sender,
        to=row["mail"],
        subject=said[:150],
        text=f"{said}\n\n{link(work.settings, row['path'])}\n\n{t('notice.mail_foot')}\n",
        key=f"{row['key']} {row['notice_id']}",
        at=row["made_at"],
    )
    await sending.send_mail(message, server=server)
    return {"sent": True}


def brief_lines(t: Translator, brief: Brief) -> list[str]:
    """Return a brief in lines of words; what is zero is left out."""
    lines = []
    if brief.newly_red:
        shown = ", ".join(brief.newly_red[:SHOWN_RED])
        more = len(brief.newly_red) - SHOWN_RED
        names = shown + (f" + {more}" if more > 0 else "")
        lines.append(t("brief.newly_red", n=len(brief.newly_red), names=names))
    counts = {"no_longer_red": brief.no_longer_red, **brief.counts}
    return lines + [t(f"brief.{name}", n=count) for name, count in counts.items() if count]


async def _ask_for_briefs(work: Work) -> None:
    async with work.database.begin() as connection:
        told = [
            row["username"]
            for row in await rows.wishes_for_mail(connection)
            if "brief" in row["mail_kinds"]
        ]
        for username in told:
            await job_rows.add(
                connection,
                kind=SEND_BRIEF,
                arguments={"username": username},
                wanted_by=BRIEFS,
                key=f"{SEND_BRIEF} {username} {work.now:%Y-%m-%d}",
            )
        await work.done(connection, {"users": len(told)})


async def _send_brief(work: Work) -> dict[str, Any]:
    server, sender = _mail_settings(work.settings)
    username, zone = work.arguments["username"], work.settings.zone
    async with work.database.connect() as connection:
        user = await user_by_name(connection, username)
        wish = await rows.wish(connection, user["user_id"]) if user else None
        if user is None or user["disabled"] or wish is None or "brief" not in wish["mail_kinds"]:
            return {"sent": False}
        brief = await brief_of(
            connection, user_id=user["user_id"], username=username, now=work.now, zone=zone
        )
    if brief.is_empty:
        return {"sent": False}
    t = Translator(wish["language"])
    since = f"{brief.since.astimezone(zone):%Y-%m-%d %H:%M}"
    lines = "\n".join(f"- {line}" for line in brief_lines(t, brief))
    message = sending.mail_message(
        sender=sender,
        to=wish["mail"],
        subject=t("brief.subject", since=since),
        text=f"{lines}\n\n{link(work.settings, '/brief')}\n\n{t('notice.mail_foot')}\n",
        key=f"{SEND_BRIEF} {username} {work.job_id}",
        at=work.now,
    )
    await sending.send_mail(message, server=server)
    return {"sent": True, "lines": len(brief_lines(t, brief))}


async def _call_webhook(work: Work) -> dict[str, Any]:
    said = work.arguments
    async with work.database.connect() as connection:
        row = await rows.webhook(connection, said["webhook_id"])
    if row is None:
        return {"called": False}
    told = {
        "type": said["kind"],
        "timestamp": work.now.isoformat(),
        "data": {
            **said["detail"],
            "link": link(work.settings, said["path"]),
            "text": sentence(Translator("en"), said["kind"], said["detail"]),
        },
    }
    status = await sending.call_webhook(
        row["address"], row["secret"], message_id=f"job-{work.job_id}", said=told, at=work.now
    )
    return {"called": True, "status": status}


async def _tell_messengers(work: Work) -> dict[str, Any]:
    said, addresses = work.arguments, work.settings.messengers
    if not addresses:
        return {"told": False}
    text = "\n".join(
        sentence(Translator(one), said["kind"], said["detail"]) for one in ("zh", "en")
    )
    await sending.tell_messengers(
        addresses, title="chargewatch", text=f"{text}\n{link(work.settings, said['path'])}"
    )
    return {"told": True}


ALL_JOBS = (
    *JOB_KINDS,
    JobKind(
        name=COLLECT,
        meaning="find what users and programs have to be told of",
        work=collect_job,
        every_s=120,
    ),
    JobKind(
        name=BRIEFS,
        meaning="ask for the morning briefs of those who wish one by mail",
        work=_ask_for_briefs,
        daily_at=time(7, 30),
    ),
    JobKind(name=SEND_BRIEF, meaning="mail one brief", work=_send_brief, by_hand=False),
    JobKind(name=SEND_MAIL, meaning="mail one notice", work=_send_mail, by_hand=False),
    JobKind(name=CALL_WEBHOOK, meaning="call one webhook", work=_call_webhook, by_hand=False),
    JobKind(
        name=TELL_MESSENGERS, meaning="tell the messengers", work=_tell_messengers, by_hand=False
    ),
)
"""Every kind of job, in the order of docs/operating.md."""

"""Finds what people have to be told of, and tells each of them once.

Every source is looked at from its mark on, under a lock of the mark: two workers tell nothing
twice, and the key of a notice is unique for a user besides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import jobs as job_rows
from chargewatch.storage.office import notices as rows
from chargewatch.storage.pages import city as city_rows
from chargewatch.supervision.jobs.kinds import Work
from chargewatch.supervision.notices.kinds import FOR_PROGRAMS
from chargewatch.supervision.permissions import Role

CLOCK_SOON = timedelta(days=2)
VERIFICATION_SOON = timedelta(days=30)
NAMED = 5
"""Things that a notice of several names."""
SEND_MAIL, CALL_WEBHOOK, TELL_MESSENGERS = "send_mail", "call_webhook", "tell_messengers"
COLLECT = "collect_notices"


@dataclass(frozen=True, kw_only=True)
class News:
    """Something that some people have to be told.

    usernames: whom.
    kind: row of `notices.kinds`.
    key: what it is about, so that it is told once.
    path: the page to look at.
    detail: what its sentence holds.
    """

    usernames: tuple[str, ...]
    kind: str
    key: str
    path: str
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class People:
    """Who there is."""

    rows: Sequence[Mapping[Any, Any]]

    def of(self, *roles: Role) -> tuple[str, ...]:
        """Return the names of everybody in some roles."""
        return tuple(row["username"] for row in self.rows if row["role"] in roles)

    def of_operator(self, operator_id: str | None) -> tuple[str, ...]:
        """Return the names of an operator's users."""
        return tuple(
            row["username"]
            for row in self.rows
            if row["role"] == Role.OPERATOR and operator_id and row["operator_id"] == operator_id
        )

    @property
    def leads(self) -> tuple[str, ...]:
        """Who decides in the office."""
        return self.of(Role.ADMINISTRATOR, Role.SUPERVISOR)


@dataclass(kw_only=True)
class SourceLook:
    """One look at one source."""

    connection: AsyncConnection
    people: People
    now: datetime
    zone: ZoneInfo
    after: int  # the mark
    position: int = field(default=0)  # the next mark

    def take(self, found: Sequence[Any]) -> Sequence[Any]:
        """Move the mark behind rows that have a position, and return them."""
        self.position = max([self.after, *(row["position"] for row in found)])
        return found


async def _newly_red(look: SourceLook) -> Iterable[News]:
    runs = await rows.finished_runs(look.connection)
    look.position = look.after
    if not runs or runs[0]["run_id"] == look.after:
        return ()
    look.position = run_id = runs[0]["run_id"]
    before = runs[1]["run_id"] if len(runs) > 1 else None
    found = await rows.newly_red(look.connection, run_id, before=before)
    if not found:
        return ()
    named = [row["connector"] for row in found[:NAMED]]
    detail = {"count": len(found), "names": ", ".join(named), "more": len(found) - len(named)}
    return (
        News(
            usernames=look.people.leads,
            kind="newly_red",
            key=f"newly_red {run_id}",
            path="/piles?tier=red",
            detail=detail,
        ),
    )


async def _case_entries(look: SourceLook) -> Iterable[News]:
    return [
        news
        for row in look.take(await rows.case_entries(look.connection, after=look.after))
        for news in _of_entry(row, look.people)
    ]


def _of_entry(row: Mapping[Any, Any], people: People) -> Iterator[News]:
    """Yield whom an entry of a case concerns; nobody is told of what they wrote themselves."""

    def news(kind: str, *usernames: str | None) -> News:
        told = tuple(name for name in usernames if name and name != row["author"])
        return News(
            usernames=told,
            kind=kind,
            key=f"{kind} {row['position']}",
            path=f"/cases/{row['number']}",
            detail={"number": row["number"], "thing": row["thing"], "author": row["author"]},
        )

    if row["kind"] == "assigned":
        yield news("case_assigned", row["detail"].get("owner", row["owner"]))
    if row["kind"] in ("reply", "objection"):
        yield news("case_answered", *([row["owner"]] if row["owner"] else people.leads))
    if row["for_operator"] and row["author"] not in people.of_operator(row["operator_id"]):
        yield news("case_for_operator", *people.of_operator(row["operator_id"]))
    mentions = row["detail"].get("mentions", [])
    if mentions:
        yield news("case_mentioned", *mentions)


def _today(look: SourceLook) -> Any:
    return look.now.astimezone(look.zone).date()


async def _cases_due(look: SourceLook) -> Iterable[News]:
    soon = _today(look) + CLOCK_SOON
    return [
        News(
            usernames=(row["owner"],),
            kind="case_due",
            key=f"case_due {row['number']} {row['deadline']}",
            path=f"/cases/{row['number']}",
            detail={
                "number": row["number"],
                "thing": row["thing"],
                "due": row["deadline"].isoformat(),
            },
        )
        for row in await rows.cases_due(look.connection, soon=soon)
    ]


async def _inspections(look: SourceLook) -> Iterable[News]:
    found = look.take(await rows.new_inspections(look.connection, after=look.after))
    return [
        News(
            usernames=(row["username"],),
            kind="inspection_assigned",
            key=f"inspection_assigned {row['position']}",
            path=f"/inspections/{row['draw_id']}" if row["draw_id"] else "/inspections",
            detail={"thing": row["connector"], "due": row["due_on"].isoformat()},
        )
        for row in found
        if row["username"]
    ]


async def _complaints(look: SourceLook) -> Iterable[News]:
    found = look.take(await rows.new_complaints(look.connection, after=look.after))
    return [
        News(
            usernames=look.people.leads,
            kind="complaint_received",
            key=f"complaint_received {row['position']}",
            path="/complaints",
            detail={"thing": row["connector"], "due": row["accept_by"].isoformat()},
        )
        for row in found
    ]


async def _complaints_due(look: SourceLook) -> Iterable[News]:
    found = await rows.late_complaints(look.connection, soon=_today(look) + CLOCK_SOON)
    return [
        News(
            usernames=look.people.leads,
            kind="complaint_due",
            key=f"complaint_due {row['complaint_id']} {row['due']}",
            path="/complaints",
            detail={"thing": row["connector"], "due": row["due"].isoformat()},
        )
        for row in found
    ]


async def _verifications_due(look: SourceLook) -> Iterable[News]:
    """Tell once a week how many verifications run out, the office and every operator its own."""
    today = _today(look)
    week = "{}-W{:02}".format(*today.isocalendar()[:2])
    told = [(None, look.people.leads)]
    operators = {row["operator_id"] for row in look.people.rows if row["role"] == Role.OPERATOR}
    told += [(one, look.people.of_operator(one)) for one in sorted(filter(None, operators))]
    news = []
    for scope, usernames in told:
        counts = await city_rows.verification_coverage(
            look.connection, today=today, soon=today + VERIFICATION_SOON, scope=scope
        )
        if counts["due_soon"] or counts["expired"]:
            key = f"verifications_due {week}" + (f" {scope}" if scope else "")
            detail = {"due": counts["due_soon"], "expired": counts["expired"]}
            news.append(
                News(
                    usernames=usernames,
                    kind="verifications_due",
                    key=key,
                    path="/registry/due",
                    detail=detail,
                )
            )
    return news


async def _grades(look: SourceLook) -> Iterable[News]:
    since = datetime.fromtimestamp(look.after, look.now.tzinfo) - timedelta(hours=1)
    return [
        News(
            usernames=look.people.of_operator(row["operator_id"]),
            kind="grade_published",
            key=f"grade_published {row['operator_id']} {row['month']} {row['revision']}",
            path=f"/operators/{row['operator_id']}",
            detail={
                "operator": row["operator_id"],
                "month": f"{row['month']:%Y-%m}",
                "grade": row["grade"] or "–",
            },
        )
        for row in await rows.new_grades(look.connection, since=since)
    ]


async def _jobs(look: SourceLook) -> Iterable[News]:
    since = datetime.fromtimestamp(look.after, look.now.tzinfo) - timedelta(hours=1)
    return [
        News(
            usernames=look.people.of(Role.ADMINISTRATOR),
            kind="job_failed",
            key=f"job_failed {row['job_id']}",
            path="/jobs?state=failed",
            detail={"job": row["job_id"], "what": row["kind"], "error": row["error"][:200]},
        )
        for row in await rows.failed_jobs(look.connection, since=since)
        # A webhook that is away must not call itself.
        if row["kind"] not in (SEND_MAIL, CALL_WEBHOOK, TELL_MESSENGERS)
    ]


SOURCES: Mapping[str, Callable[[SourceLook], Awaitable[Iterable[News]]]] = {
    "newly_red": _newly_red,
    "case_entries": _case_entries,
    "cases_due": _cases_due,
    "inspections": _inspections,
    "complaints": _complaints,
    "complaints_due": _complaints_due,
    "verifications_due": _verifications_due,
    "grades": _grades,
    "jobs": _jobs,
}


async def collect(
    connection: AsyncConnection, *, now: datetime, zone: ZoneInfo, messengers: bool
) -> int:
    """Tell what is new since the last look; return how many notices there are of it.

    Args:
        connection: in a transaction; who reads the trail finds no entry of it, as nothing is
            decided.
        now: the time.
        zone: in which days end.
        messengers: whether there are any to be told.
    """
    people = People(await rows.users(connection))
    mails = {row["username"]: row for row in await rows.wishes_for_mail(connection)}
    told = 0
    for source, find in SOURCES.items():
        after = await rows.mark(connection, source)
        look = SourceLook(
            connection=connection,
            people=people,
            now=now,
            zone=zone,
            after=after or 0,
            position=int(now.timestamp()),
        )
        news = await find(look)
        if after is None:
            # There is no telling what is new at the first look: nothing of it is told.
            news = ()
            while look.position != look.after:
                look.after = look.position
                await find(look)
        for one in news:
            told += await _tell(connection, one, mails, messengers=messengers)
        await rows.set_mark(connection, source, look.position)
    return told


async def _tell(
    connection: AsyncConnection,
    news: News,
    mails: Mapping[str, Mapping[Any, Any]],
    *,
    messengers: bool,
) -> int:
    told = 0
    for username in dict.fromkeys(news.usernames):
        notice_id = await rows.add(
            connection,
            username=username,
            kind=news.kind,
            key=news.key,
            path=news.path,
            detail=news.detail,
        )
        if notice_id is None:
            continue
        told += 1
        if username in mails and news.kind in mails[username]["mail_kinds"]:
            await job_rows.add(
                connection,
                kind=SEND_MAIL,
                arguments={"notice_id": notice_id},
                wanted_by=COLLECT,
                key=f"{SEND_MAIL} {notice_id}",
            )
    if news.kind in FOR_PROGRAMS:
        await _tell_programs(connection, news, messengers=messengers)
    return told


async def _tell_programs(connection: AsyncConnection, news: News, *, messengers: bool) -> None:
    said = {"kind": news.kind, "key": news.key, "path": news.path, "detail": dict(news.detail)}
    for webhook_id in await rows.webhooks_of(connection, news.kind):
        await job_rows.add(
            connection,
            kind=CALL_WEBHOOK,
            arguments={"webhook_id": webhook_id, **said},
            wanted_by=COLLECT,
            key=f"{CALL_WEBHOOK} {webhook_id} {news.key}",
        )
    if messengers:
        await job_rows.add(
            connection,
            kind=TELL_MESSENGERS,
            arguments=said,
            wanted_by=COLLECT,
            key=f"{TELL_MESSENGERS} {news.key}",
        )


async def collect_job(work: Work) -> None:
    """Do the job that a timer asks for."""
    settings = work.settings
    async with work.database.begin() as connection:
        told = await collect(
            connection,
            now=work.now,
            zone=settings.zone,
            messengers=bool(settings.messengers),
        )
        await job_rows.forget_done(connection, kind=work.kind)
        await work.done(connection, {"told": told})

"""Statements on notices: what they come from, whom they are for, how they go out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql

MARK = sql.statement(
    "notices: mark", "SELECT position FROM notice_mark WHERE source = :source FOR UPDATE"
)
SET_MARK = sql.statement(
    "notices: set mark",
    "INSERT INTO notice_mark (source, position) VALUES (:source, :position) "
    "ON CONFLICT (source) DO UPDATE SET position = excluded.position",
)
USERS = sql.statement(
    "notices: users",
    "SELECT username, role, operator_id FROM app_user WHERE NOT disabled ORDER BY username",
)
# By run and connector: a city's newest two runs, read once a night.
NEWLY_RED = sql.statement(
    "notices: newly red",
    "SELECT c.connector, c.operator_id FROM assessment a "
    "JOIN connector c USING (connector_id) LEFT JOIN assessment b "
    "ON b.connector_id = a.connector_id AND b.run_id = :before "
    "WHERE a.run_id = :run_id AND a.tier = 'red' AND b.tier IS DISTINCT FROM 'red' "
    "ORDER BY a.priority_money DESC NULLS LAST, c.connector",
)
FINISHED_RUNS = sql.statement(
    "notices: newest finished runs",
    "SELECT run_id, as_of FROM risk_run WHERE state = 'finished' "
    "AND as_of < now() + interval '1 day' ORDER BY as_of DESC, run_id DESC LIMIT 2",
)
CASE_ENTRIES = sql.statement(
    "notices: new case entries",
    "SELECT e.entry_id AS position, e.author, e.kind, e.for_operator, e.detail, c.number, "
    "c.owner, c.operator_id, c.state, coalesce(c.connector, c.subject) AS thing "
    "FROM case_entry e JOIN office_case c USING (case_id) "
    "WHERE e.entry_id > :after ORDER BY e.entry_id LIMIT :limit",
)
CASES_DUE = sql.statement(
    "notices: cases due",
    "SELECT number, owner, deadline, coalesce(connector, subject) AS thing FROM office_case "
    "WHERE state <> 'closed' AND coalesce(deadline, 'infinity'::date) <= :soon "
    "AND owner IS NOT NULL ORDER BY deadline, case_id LIMIT :limit",
)
INSPECTIONS_NEW = sql.statement(
    "notices: new inspections",
    "SELECT n.inspection_id AS position, n.draw_id, n.connector, n.due_on, i.username "
    "FROM inspection n LEFT JOIN inspector i ON i.name = ANY(n.crew) "
    "WHERE n.inspection_id > :after AND n.state = 'planned' "
    "ORDER BY n.inspection_id LIMIT :limit",
)
COMPLAINTS_NEW = sql.statement(
    "notices: new complaints",
    "SELECT complaint_id AS position, connector, operator_id, accept_by FROM complaint "
    "WHERE complaint_id > :after ORDER BY complaint_id LIMIT :limit",
)
COMPLAINTS_LATE = sql.statement(
    "notices: late complaints",
    "SELECT complaint_id, connector, CASE WHEN state = 'received' THEN accept_by "
    "ELSE end_by END AS due FROM complaint WHERE state IN ('received', 'accepted', 'answered') "
    "AND CASE WHEN state = 'received' THEN accept_by ELSE end_by END <= :soon "
    "ORDER BY complaint_id LIMIT :limit",
)
GRADES_NEW = sql.statement(
    "notices: new grades",
    "SELECT operator_id, month, revision, grade FROM credit_grade WHERE made_at > :since "
    "ORDER BY made_at, operator_id LIMIT :limit",
)
JOBS_FAILED = sql.statement(
    "notices: failed jobs",
    "SELECT job_id, kind, error FROM job WHERE state = 'failed' AND finished_at > :since "
    "ORDER BY job_id LIMIT :limit",
)
ADD = sql.statement(
    "notices: add",
    "INSERT INTO notice (username, kind, key, path, detail) VALUES "
    "(:username, :kind, :key, :path, CAST(:detail AS jsonb)) "
    "ON CONFLICT (username, key) DO NOTHING RETURNING notice_id",
)
WISHES_FOR_MAIL = sql.statement(
    "notices: wishes for mail",
    "SELECT u.username, w.mail, w.language, w.mail_kinds FROM notice_wish w "
    "JOIN app_user u USING (user_id) WHERE w.mail <> '' AND NOT u.disabled",
)
OWN = sql.statement(
    "notices: own",
    "SELECT notice_id, kind, key, path, detail, made_at, read_at FROM notice "
    "WHERE username = :username AND (CAST(:before AS bigint) IS NULL OR notice_id < :before) "
    "ORDER BY notice_id DESC LIMIT :limit",
)
ONE_WITH_WISH = sql.statement(
    "notices: one with wish",
    "SELECT n.notice_id, n.kind, n.key, n.path, n.detail, n.made_at, w.mail, w.language "
    "FROM notice n JOIN app_user u USING (username) JOIN notice_wish w USING (user_id) "
    "WHERE n.notice_id = :notice_id AND NOT u.disabled AND w.mail <> '' "
    "AND n.kind = ANY(w.mail_kinds)",
)
UNREAD = sql.statement(
    "notices: unread",
    "SELECT count(*) FROM notice WHERE username = :username AND read_at IS NULL",
)
READ_ALL = sql.statement(
    "notices: read all",
    "UPDATE notice SET read_at = :now WHERE username = :username AND read_at IS NULL "
    "AND notice_id <= :up_to",
)
WISH = sql.statement(
    "notices: wish", "SELECT mail, language, mail_kinds FROM notice_wish WHERE user_id = :user_id"
)
SET_WISH = sql.statement(
    "notices: set wish",
    "INSERT INTO notice_wish (user_id, mail, language, mail_kinds) "
    "VALUES (:user_id, :mail, :language, :mail_kinds) ON CONFLICT (user_id) DO UPDATE SET "
    "mail = excluded.mail, language = excluded.language, mail_kinds = excluded.mail_kinds",
)
WEBHOOKS = sql.statement(
    "notices: webhooks",
    "SELECT webhook_id, label, address, kinds, made_at, made_by, ended_at FROM webhook "
    "ORDER BY webhook_id DESC",
)
WEBHOOK = sql.statement(
    "notices: webhook",
    "SELECT webhook_id, label, address, secret, kinds FROM webhook "
    "WHERE webhook_id = :webhook_id AND ended_at IS NULL",
)
WEBHOOKS_OF = sql.statement(
    "notices: webhooks of kind",
    "SELECT webhook_id FROM webhook WHERE ended_at IS NULL AND :kind = ANY(kinds)",
)
ADD_WEBHOOK = sql.statement(
    "notices: add webhook",
    "INSERT INTO webhook (label, address, secret, kinds, made_by) "
    "VALUES (:label, :address, :secret, :kinds, :made_by) RETURNING webhook_id",
)
END_WEBHOOK = sql.statement(
    "notices: end webhook",
    "UPDATE webhook SET ended_at = :now, secret = '' "
    "WHERE webhook_id = :webhook_id AND ended_at IS NULL",
)
SEEN_AT = sql.statement(
    "notices: brief seen", "SELECT seen_at FROM brief_seen WHERE user_id = :user_id"
)
SET_SEEN_AT = sql.statement(
    "notices: set brief seen",
    "INSERT INTO brief_seen (user_id, seen_at) VALUES (:user_id, :now) "
    "ON CONFLICT (user_id) DO UPDATE SET seen_at = excluded.seen_at",
)
AT_ONCE = 500
"""Rows of a source that one look takes; the next look takes the next."""


async def mark(connection: AsyncConnection, source: str) -> int | None:
    """Return up to where a source was looked at, and keep others from looking meanwhile."""
    found = await sql.value(connection, MARK, source=source)
    return None if found is None else int(found)


async def set_mark(connection: AsyncConnection, source: str, position: int) -> None:
    """Say up to where a source was looked at."""
    await sql.run(connection, SET_MARK, source=source, position=position)


async def users(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Return name, role and operator of all enabled users."""
    return await sql.rows(connection, USERS)


async def finished_runs(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Return the newest two finished runs, the newest first."""
    return await sql.rows(connection, FINISHED_RUNS)


async def newly_red(
    connection: AsyncConnection, run_id: int, *, before: int | None
) -> Sequence[RowMapping]:
    """Return connectors that are red in a run and were not in another, the dearest first."""
    return await sql.rows(connection, NEWLY_RED, run_id=run_id, before=before)


async def case_entries(connection: AsyncConnection, *, after: int) -> Sequence[RowMapping]:
    """Return what was done and said in cases since."""
    return await sql.rows(connection, CASE_ENTRIES, after=after, limit=AT_ONCE)


async def cases_due(connection: AsyncConnection, *, soon: date) -> Sequence[RowMapping]:
    """Return open cases of somebody whose deadline has come."""
    return await sql.rows(connection, CASES_DUE, soon=soon, limit=AT_ONCE)


async def new_inspections(connection: AsyncConnection, *, after: int) -> Sequence[RowMapping]:
    """Return inspections planned since, a row for each of their crews."""
    return await sql.rows(connection, INSPECTIONS_NEW, after=after, limit=AT_ONCE)


async def new_complaints(connection: AsyncConnection, *, after: int) -> Sequence[RowMapping]:
    """Return complaints received since."""
    return await sql.rows(connection, COMPLAINTS_NEW, after=after, limit=AT_ONCE)


async def late_complaints(connection: AsyncConnection, *, soon: date) -> Sequence[RowMapping]:
    """Return open complaints whose next clock runs out."""
    return await sql.rows(connection, COMPLAINTS_LATE, soon=soon, limit=AT_ONCE)


async def new_grades(connection: AsyncConnection, *, since: datetime) -> Sequence[RowMapping]:
    """Return grades published since."""
    return await sql.rows(connection, GRADES_NEW, since=since, limit=AT_ONCE)


async def failed_jobs(connection: AsyncConnection, *, since: datetime) -> Sequence[RowMapping]:
    """Return jobs that failed since."""
    return await sql.rows(connection, JOBS_FAILED, since=since, limit=AT_ONCE)


async def add(
    connection: AsyncConnection,
    *,
    username: str,
    kind: str,
    key: str,
    path: str,
    detail: Mapping[str, Any],
) -> int | None:
    """Tell a user something and return the notice's number; None when it was told before."""
    found = await sql.value(
        connection, ADD, username=username, kind=kind, key=key, path=path,
        detail=json.dumps(detail),
    )  # fmt: skip
    return None if found is None else int(found)


async def wishes_for_mail(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Return who gets mail, at which address and of which kinds."""
    return await sql.rows(connection, WISHES_FOR_MAIL)


async def own(
    connection: AsyncConnection, username: str, *, limit: int, before: int | None = None
) -> Sequence[RowMapping]:
    """Return what a user was told, the newest first."""
    return await sql.rows(connection, OWN, username=username, limit=limit, before=before)


async def one_for_mail(connection: AsyncConnection, notice_id: int) -> RowMapping | None:
    """Return a notice with the address it goes to; None when its user wishes no mail of it now."""
    return await sql.row(connection, ONE_WITH_WISH, notice_id=notice_id)


async def unread(connection: AsyncConnection, username: str) -> int:
    """Return how many notices a user has not read."""
    return int(await sql.value(connection, UNREAD, username=username))


async def read_all(
    connection: AsyncConnection, username: str, *, up_to: int, now: datetime
) -> None:
    """Mark a user's notices up to a number as read."""
    await sql.run(connection, READ_ALL, username=username, up_to=up_to, now=now)


async def wish(connection: AsyncConnection, user_id: int) -> RowMapping | None:
    """Return how a user wishes to be told; None: on the pages only."""
    return await sql.row(connection, WISH, user_id=user_id)


async def set_wish(
    connection: AsyncConnection, user_id: int, *, mail: str, language: str, kinds: Sequence[str]
) -> None:
    """Keep how a user wishes to be told."""
    await sql.run(
        connection, SET_WISH, user_id=user_id, mail=mail, language=language,
        mail_kinds=list(kinds),
    )  # fmt: skip


async def webhooks(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Return all webhooks without their secrets, the newest first."""
    return await sql.rows(connection, WEBHOOKS)


async def webhook(connection: AsyncConnection, webhook_id: int) -> RowMapping | None:
    """Return a webhook in use, with its secret."""
    return await sql.row(connection, WEBHOOK, webhook_id=webhook_id)


async def webhooks_of(connection: AsyncConnection, kind: str) -> Sequence[int]:
    """Return the webhooks that are told of a kind."""
    return [row["webhook_id"] for row in await sql.rows(connection, WEBHOOKS_OF, kind=kind)]


async def add_webhook(
    connection: AsyncConnection,
    *,
    label: str,
    address: str,
    secret: str,
    kinds: Sequence[str],
    made_by: str,
) -> int:
    """Keep a webhook and return its number."""
    found = await sql.value(
        connection, ADD_WEBHOOK, label=label, address=address, secret=secret, kinds=list(kinds),
        made_by=made_by,
    )  # fmt: skip
    return int(found)


async def end_webhook(connection: AsyncConnection, webhook_id: int, *, now: datetime) -> bool:
    """End a webhook and forget its secret; False when there is none."""
    return bool(await sql.run(connection, END_WEBHOOK, webhook_id=webhook_id, now=now))


async def seen_at(connection: AsyncConnection, user_id: int) -> datetime | None:
    """Return when a user last said that it has seen what changed."""
    found: datetime | None = await sql.value(connection, SEEN_AT, user_id=user_id)
    return found


async def set_seen_at(connection: AsyncConnection, user_id: int, *, now: datetime) -> None:
    """Keep that a user has seen what changed."""
    await sql.run(connection, SET_SEEN_AT, user_id=user_id, now=now)

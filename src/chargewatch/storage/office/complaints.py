"""Complaints of the public, and whom to tell how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.city import PAGE_ROWS, Scope, narrowed
from chargewatch.storage.pages.messages import SIGNAL_COLUMNS
from chargewatch.storage.pages.watched import watched
from chargewatch.storage.tables import complaint, complaint_contact
from chargewatch.storage.tables.complaints import OPEN_COMPLAINT

OVERDUE = (
    "CASE state WHEN 'received' THEN accept_by < :today "
    "WHEN 'accepted' THEN end_by < :today WHEN 'answered' THEN end_by < :today "
    "ELSE notified_at IS NULL AND notify_by < :today END"
)
LISTED = sql.statement(
    "complaints: list",
    "SELECT complaint_id, reference, received_at, connector, station_id, operator_id, kind, state, "  # noqa: S608
    "accept_by, end_by, notify_by, accepted_at, refused_at, answered_at, ended_at, notified_at, "
    f"case_id, clocks, {OVERDUE} AS overdue FROM complaint{{where}} "
    "ORDER BY complaint_id DESC LIMIT :limit",
)
COUNTS = sql.statement(
    "complaints: counts",
    f"SELECT state, count(*) AS complaints, count(*) FILTER (WHERE {OVERDUE}) AS overdue "  # noqa: S608
    "FROM complaint{where} GROUP BY state",
)
ONE = sql.statement(
    "complaints: one",
    f"SELECT *, {OVERDUE} AS overdue, "  # noqa: S608
    "(SELECT number FROM office_case k WHERE k.case_id = complaint.case_id) AS case_number "
    "FROM complaint "
    "WHERE complaint_id = :complaint_id "
    "AND (CAST(:scope AS text) IS NULL OR operator_id = :scope)",
)
LOCKED = sql.statement(
    "complaints: locked",
    "SELECT * FROM complaint WHERE complaint_id = :complaint_id FOR UPDATE",
)
# What anybody who has the number may know.
OF_REFERENCE = sql.statement(
    "complaints: of reference",
    "SELECT complaint_id, state, received_at, accept_by, end_by, notify_by, accepted_at, "
    "refused_at, answered_at, ended_at, answer, EXISTS (SELECT FROM complaint_contact k "
    "WHERE k.complaint_id = c.complaint_id) AS has_contact "
    "FROM complaint c WHERE reference = :reference",
)
ID_OF_REFERENCE = sql.statement(
    "complaints: number of reference",
    "SELECT complaint_id FROM complaint WHERE reference = :reference",
)
CONTACT = sql.statement(
    "complaints: contact",
    "SELECT contact FROM complaint_contact WHERE complaint_id = :complaint_id",
)
REGISTERED = sql.statement(
    "complaints: registered connector",
    "SELECT connector_id, connector, station_id, operator_id, signing_key, resolution_wh "
    "FROM connector WHERE connector = :connector AND registered",
)

ACCEPT = sql.statement(
    "complaints: accept",
    "UPDATE complaint SET state = 'accepted', accepted_at = :now, end_by = :end_by "
    "WHERE complaint_id = :complaint_id",
)
REFUSE = sql.statement(
    "complaints: refuse",
    "UPDATE complaint SET state = 'refused', refused_at = :now, answer = :answer, "
    "notify_by = accept_by WHERE complaint_id = :complaint_id",
)
ANSWER = sql.statement(
    "complaints: answer",
    "UPDATE complaint SET state = 'answered', answered_at = :now, answer = :answer "
    "WHERE complaint_id = :complaint_id",
)
END = sql.statement(
    "complaints: end",
    "UPDATE complaint SET state = 'ended', ended_at = :now, notify_by = :notify_by "
    "WHERE complaint_id = :complaint_id",
)
TELL = sql.statement(
    "complaints: told",
    "UPDATE complaint SET notified_at = :now WHERE complaint_id = :complaint_id",
)
LINK_CASE = sql.statement(
    "complaints: link case",
    "UPDATE complaint SET case_id = :case_id WHERE complaint_id = :complaint_id",
)
CONTACT_ENDS = sql.statement(
    "complaints: contact ends",
    "UPDATE complaint_contact SET ended_at = :now WHERE complaint_id = :complaint_id",
)
ERASE_CONTACT = sql.statement(
    "complaints: erase contact",
    "DELETE FROM complaint_contact WHERE complaint_id = :complaint_id",
)
REPLACE_WORDS = sql.statement(
    "complaints: replace words",
    "UPDATE complaint SET text = :text, session_text = :session_text "
    "WHERE complaint_id = :complaint_id",
)

# Near what is complained of: sessions and signals of the connector that the complaint names.
NEAR_SESSIONS = sql.statement(
    "complaints: sessions near",
    "SELECT session, started_at, ended_at, start_wh, stop_wh, billed_wh, total_fee, currency "
    "FROM charging_session WHERE connector_id = :connector_id "
    "AND ended_at >= :since AND ended_at < :until ORDER BY ended_at DESC LIMIT :limit",
)
NAMED_SESSION = sql.statement(
    "complaints: named session",
    "SELECT session, started_at, ended_at, start_wh, stop_wh, billed_wh, total_fee, currency "
    "FROM charging_session WHERE operator_id = :operator_id AND station_id = :station_id "
    "AND session = :session AND connector_id = :connector_id",
)
NEAR_SIGNALS = sql.statement(
    "complaints: signals near",
    f"SELECT {SIGNAL_COLUMNS} FROM signal "  # noqa: S608 - a constant
    "WHERE connector = :connector AND operator_id = :operator_id AND station_id = :station_id "
    "AND first_at < :until AND last_at >= :since ORDER BY last_at DESC LIMIT :limit",
)

MOST_NEAR = 20


@watched(
    {
        "complaints: open": lambda s: {
            "scope": None,
            "today": s.now.date(),
            "limit": PAGE_ROWS,
            "state": "open",
        },
        "complaints: scope": lambda s: {
            "scope": s.operator_id,
            "today": s.now.date(),
            "limit": PAGE_ROWS,
            "state": "all",
        },
        "complaints: of pile": lambda s: {
            "scope": None,
            "today": s.now.date(),
            "limit": PAGE_ROWS,
            "state": "all",
            "connector": s.connector,
        },
    }
)
async def complaints(
    connection: AsyncConnection,
    *,
    scope: Scope,
    today: date,
    limit: int,
    state: str = "open",
    connector: str = "",
    before_id: int | None = None,
) -> Sequence[RowMapping]:
    """Return one page of complaints, the newest first, without their texts.

    state: open (something is left to do), overdue, all, or a state.
    """
    clauses = [] if before_id is None else ["complaint_id < :before_id"]
    if state in {"open", "overdue"}:
        clauses.append(OPEN_COMPLAINT)
    if state == "overdue":
        clauses.append(f"({OVERDUE})")
    one_state = "" if state in {"open", "overdue", "all"} else state
    where, values = narrowed(*clauses, scope=scope, connector=connector, state=one_state)
    if before_id is not None:
        values["before_id"] = before_id
    return await sql.rows(
        connection, LISTED.filled(where=where), limit=limit, today=today, **values
    )


@watched({"complaints: counts": lambda s: {"scope": None, "today": s.now.date()}})
async def open_counts(
    connection: AsyncConnection, *, scope: Scope, today: date
) -> Sequence[RowMapping]:
    """Return how many complaints of each state have something left to do, and how many overdue."""
    where, values = narrowed(OPEN_COMPLAINT, scope=scope)
    return await sql.rows(connection, COUNTS.filled(where=where), today=today, **values)


@watched({"complaints: one": lambda s: {"complaint_id": 1, "scope": None, "today": s.now.date()}})
async def complaint_of(
    connection: AsyncConnection, complaint_id: int, *, scope: Scope, today: date
) -> RowMapping | None:
    """Return a complaint with its text; None when it is not there or another operator's."""
    return await sql.row(connection, ONE, complaint_id=complaint_id, scope=scope, today=today)


@watched({"complaints: of reference": lambda _: {"reference": "00000-00000-00000"}})
async def by_reference(connection: AsyncConnection, reference: str) -> RowMapping | None:
    """Return what the holder of a reference may know of its complaint."""
    return await sql.row(connection, OF_REFERENCE, reference=reference)


@watched({"complaints: number of reference": lambda _: {"reference": "00000-00000-00000"}})
async def number_of(connection: AsyncConnection, reference: str) -> int | None:
    """Return the number of the complaint with a reference."""
    found = await sql.value(connection, ID_OF_REFERENCE, reference=reference)
    return None if found is None else int(found)


@watched({"complaints: contact": lambda _: {"complaint_id": 1}})
async def contact_of(connection: AsyncConnection, complaint_id: int) -> str | None:
    """Return whom to tell; None when nobody is left to tell."""
    found = await sql.value(connection, CONTACT, complaint_id=complaint_id)
    return None if found is None else str(found)


@watched({"complaints: registered": lambda s: {"connector": s.connector}})
async def registered(connection: AsyncConnection, connector: str) -> RowMapping | None:
    """Return a registered connector: number, station, operator, key and step of its meter."""
    return await sql.row(connection, REGISTERED, connector=connector)


@watched(
    {
        "complaints: sessions near": lambda s: {
            "connector_id": s.connector_id,
            "since": s.now - timedelta(days=2),
            "until": s.now,
        }
    }
)
async def sessions_near(
    connection: AsyncConnection, connector_id: int, *, since: datetime, until: datetime
) -> Sequence[RowMapping]:
    """Return sessions of a connector that ended in a span of time, the newest first."""
    return await sql.rows(
        connection,
        NEAR_SESSIONS,
        connector_id=connector_id,
        since=since,
        until=until,
        limit=MOST_NEAR,
    )


@watched(
    {
        "complaints: named session": lambda s: {
            "connector_id": s.connector_id,
            "operator_id": s.operator_id,
            "station_id": s.station_id,
            "session": "S-1",
        }
    }
)
async def named_session(
    connection: AsyncConnection,
    connector_id: int,
    *,
    operator_id: str,
    station_id: str,
    session: str,
) -> RowMapping | None:
    """Return the session of a connector that a complaint names."""
    return await sql.row(
        connection,
        NAMED_SESSION,
        connector_id=connector_id,
        operator_id=operator_id,
        station_id=station_id,
        session=session,
    )


@watched(
    {
        "complaints: signals near": lambda s: {
            "connector": s.connector,
            "operator_id": s.operator_id,
            "station_id": s.station_id,
            "since": s.now - timedelta(days=2),
            "until": s.now,
        }
    }
)
async def signals_near(
    connection: AsyncConnection,
    connector: str,
    *,
    operator_id: str,
    station_id: str,
    since: datetime,
    until: datetime,
) -> Sequence[RowMapping]:
    """Return signals of a connector that were seen in a span of time."""
    return await sql.rows(
        connection,
        NEAR_SIGNALS,
        connector=connector,
        operator_id=operator_id,
        station_id=station_id,
        since=since,
        until=until,
        limit=MOST_NEAR,
    )


async def locked(transaction: AsyncConnection, complaint_id: int) -> RowMapping | None:
    """Return a complaint, which nobody else changes until the transaction ends."""
    return await sql.row(transaction, LOCKED, complaint_id=complaint_id)


async def add(transaction: AsyncConnection, values: dict[str, Any], *, contact: str | None) -> int:
    """Insert a complaint with whom to tell, and return its number."""
    statement = insert(complaint).values(**values).returning(complaint.c.complaint_id)
    complaint_id = int((await transaction.execute(statement)).scalar_one())
    if contact is not None:
        await transaction.execute(
            insert(complaint_contact).values(complaint_id=complaint_id, contact=contact)
        )
    return complaint_id

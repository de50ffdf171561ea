"""Instruments whose verification ends or is over, and the steps to the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.database import Database
from chargewatch.storage.office.instruments import InstrumentFilter, narrowing
from chargewatch.storage.pages.watched import SampleValues, watched

STEPS = ("filed", "booked", "accepted", "verified", "certificate")
"""In the order of the national flow: filing, appointment, acceptance, on site, certificate."""

_OF_INSTRUMENT = (
    "c.connector_id, c.connector, c.station_id, s.name AS station_name, s.district, "
    "c.operator_id, o.name AS operator_name, c.model, c.serial, v.until, "
    "coalesce(v.failed, false) AS failed, coalesce(v.verification_id, 0) AS cycle"
)
_JOINED = (
    "JOIN station s ON s.station_id = c.station_id "
    "JOIN operator o ON o.operator_id = c.operator_id "
)
ENDING = sql.statement(
    "due: ending",
    "SELECT {columns} FROM instrument_validity v JOIN connector c USING (connector_id) {joins}"
    "WHERE c.registered AND v.until < :before{where} ORDER BY v.until, v.connector_id{page}",
)
NEVER = sql.statement(
    "due: never verified",
    "SELECT {columns} FROM connector c {joins}"
    "LEFT JOIN instrument_validity v ON v.connector_id = c.connector_id "
    "WHERE c.registered AND v.until IS NULL{where} ORDER BY c.connector_id{page}",
)
COUNTS = sql.statement(
    "due: counts",
    "SELECT count(*) FILTER (WHERE v.until >= :today AND v.until < :before) AS ending, "
    "count(*) FILTER (WHERE v.until < :today) AS over, "
    "count(*) FILTER (WHERE v.until IS NULL) AS never FROM connector c "
    "LEFT JOIN instrument_validity v ON v.connector_id = c.connector_id "
    "WHERE c.registered{where}",
)
STEPS_OF = sql.statement(
    "due: steps",
    "SELECT d.connector_id, d.cycle, d.step, d.done_on, d.note, d.at, d.actor FROM due_step d "
    "WHERE d.connector_id = ANY(CAST(:connector_ids AS integer[])) "
    "ORDER BY d.connector_id, d.cycle, d.done_on, d.step_id",
)
CYCLE = sql.statement(
    "due: cycle",
    "SELECT c.connector_id, c.operator_id, v.until, coalesce(v.verification_id, 0) AS cycle "
    "FROM connector c LEFT JOIN instrument_validity v ON v.connector_id = c.connector_id "
    "WHERE c.registered AND c.connector = :connector",
)
PUT_STEP = sql.statement(
    "due: put step",
    "INSERT INTO due_step (connector_id, cycle, step, done_on, note, at, actor) "
    "VALUES (:connector_id, :cycle, :step, :done_on, :note, :at, :actor) "
    "ON CONFLICT (connector_id, cycle, step) DO UPDATE SET done_on = excluded.done_on, "
    "note = excluded.note, at = excluded.at, actor = excluded.actor",
)
TAKE_STEP = sql.statement(
    "due: take step",
    "DELETE FROM due_step WHERE connector_id = :connector_id AND cycle = :cycle AND step = :step",
)
LACKS = (
    "NOT EXISTS (SELECT FROM due_step d WHERE d.connector_id = c.connector_id "
    "AND d.cycle = coalesce(v.verification_id, 0) AND d.step = :lacks)"
)
STREAMED = 1_000


def _due(
    wanted: InstrumentFilter,
    *,
    scope: str | None,
    before: date,
    lacks: str,
    after: tuple[date | None, int] | None,
    limit: int | None,
) -> tuple[sql.Statement, dict[str, Any]]:
    clauses, values = narrowing(wanted, scope=scope)
    if lacks:
        clauses.append(LACKS)
        values["lacks"] = lacks
    never = wanted.state == "never"
    if after is not None and never:
        clauses.append("c.connector_id > :after_id")
        values["after_id"] = after[1]
    elif after is not None:
        clauses.append("(v.until, v.connector_id) > (:after, :after_id)")
        values |= {"after": after[0], "after_id": after[1]}
    if not never:
        values["before"] = before
    if limit is not None:
        values["limit"] = limit
    statement = (NEVER if never else ENDING).filled(
        columns=_OF_INSTRUMENT,
        joins=_JOINED,
        where="".join(f" AND {clause}" for clause in clauses),
        page="" if limit is None else " LIMIT :limit",
    )
    return statement, values


def _sample(s: SampleValues, **more: Any) -> dict[str, Any]:
    day = s.now.date()
    lacks = more.pop("lacks", "")
    return {
        "wanted": InstrumentFilter(today=day, soon=day, **more),
        "scope": None,
        "before": day,
        "lacks": lacks,
        "after": None,
        "limit": 51,
    }


@watched(
    {
        "due: list": lambda s: _sample(s),
        "due: list never": lambda s: _sample(s, state="never"),
        "due: list lacks": lambda s: _sample(s, lacks="booked"),
        "due: list operator": lambda s: _sample(s, operator_id=s.operator_id),
    }
)
async def due(
    connection: AsyncConnection,
    *,
    wanted: InstrumentFilter,
    scope: str | None,
    before: date,
    lacks: str,
    after: tuple[date | None, int] | None,
    limit: int,
) -> Sequence[RowMapping]:
    """Return instruments whose verification ends before a day, the earliest first.

    Args:
        connection: to the registry.
        wanted: narrows; with state `never` those that have none are wanted instead.
        scope: the one operator whose instruments may be seen; None: everybody's.
        before: the first day that is too late to be in the list.
        lacks: a step that was not taken yet, or "".
        after: `until` and connector_id of the last row before this page.
        limit: rows.
    """
    statement, values = _due(
        wanted, scope=scope, before=before, lacks=lacks, after=after, limit=limit
    )
    return await sql.rows(connection, statement, **values)


async def stream_due(
    database: Database, *, wanted: InstrumentFilter, scope: str | None, before: date, lacks: str
) -> AsyncIterator[Sequence[Any]]:
    """Yield the whole list, some rows at a time."""
    statement, values = _due(
        wanted, scope=scope, before=before, lacks=lacks, after=None, limit=None
    )
    async with database.raw() as connection, connection.transaction(readonly=True):
        async for block in sql.blocks(connection, statement, size=STREAMED, timeout_s=60, **values):
            yield block


@watched(
    {
        "due: counts": lambda s: {
            "wanted": InstrumentFilter(today=s.now.date(), soon=s.now.date()),
            "scope": None,
            "before": s.now.date(),
        }
    }
)
async def counts(
    connection: AsyncConnection, *, wanted: InstrumentFilter, scope: str | None, before: date
) -> RowMapping:
    """Return how many instruments end before a day, are over, and were never verified."""
    where = "" if scope is None else " AND c.operator_id = :scope"
    values: dict[str, Any] = {} if scope is None else {"scope": scope}
    [found] = await sql.rows(
        connection, COUNTS.filled(where=where), today=wanted.today, before=before, **values
    )
    return found  # type: ignore[no-any-return]


@watched({"due: steps": lambda s: {"connector_ids": [s.connector_id]}})
async def steps(
    connection: AsyncConnection, *, connector_ids: Sequence[int]
) -> Sequence[RowMapping]:
    """Return the steps of instruments, of all their verifications."""
    return await sql.rows(connection, STEPS_OF, connector_ids=list(connector_ids))


async def cycle(connection: AsyncConnection, connector: str) -> RowMapping | None:
    """Return connector_id, operator, end of validity and the verification that ends."""
    return await sql.row(connection, CYCLE, connector=connector)


async def put_step(connection: AsyncConnection, **values: Any) -> None:
    """Keep a step; one that was taken already is told anew."""
    await sql.run(connection, PUT_STEP, **values)


async def take_step(connection: AsyncConnection, **values: Any) -> int:
    """Take a step back; return 0 when there was none."""
    return await sql.run(connection, TAKE_STEP, **values)

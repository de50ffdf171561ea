"""What each operator's stations sent, summed by UTC day once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.watched import watched
from chargewatch.storage.tables import operator_day

# Stream by stream, by the key of their index: no engine has to read the other days. The broker
# tells of a station's end in its name (topic status): that is no sign of life. `hours` is a bit an
# hour of the day.
DAY = sql.statement(
    "operator days: messages of a day",
    "WITH stream AS (SELECT s.operator_id, s.station_id, d.messages, d.items, d.rejected, "
    "CASE WHEN r.station_id IS NULL OR s.topic = 'status' THEN 0 ELSE d.hours END AS hours "
    "FROM ledger_stream s "
    "LEFT JOIN station r ON r.station_id = s.station_id AND r.operator_id = s.operator_id "
    "CROSS JOIN LATERAL (SELECT count(*) AS messages, "
    "coalesce(sum(l.stored + l.duplicate + l.rejected), 0) AS items, "
    "coalesce(sum(l.rejected), 0) AS rejected, coalesce(bit_or(1 << CAST(extract(hour FROM "
    "l.received_at AT TIME ZONE 'UTC') AS integer)), 0) AS hours FROM message_ledger l "
    "WHERE l.stream_id = s.stream_id AND l.received_at >= :since AND l.received_at < :until) d "
    "WHERE s.last_received_at >= :since AND s.first_received_at < :until), "
    "place AS (SELECT operator_id, sum(messages) AS messages, sum(items) AS items, "
    "sum(rejected) AS rejected, bit_or(hours) AS hours FROM stream "
    "GROUP BY operator_id, station_id) "
    "SELECT operator_id, sum(messages) AS messages, sum(items) AS items, "
    "sum(rejected) AS rejected, sum(bit_count(CAST(hours AS bit(24)))) AS heard, "
    "bit_or(hours) AS hours FROM place GROUP BY operator_id",
)
FIRST = sql.statement(
    "operator days: first",
    "SELECT least((SELECT min(first_received_at) FROM ledger_stream), "
    "(SELECT min(ended_at) FROM charging_session))",
)
SUMMED_DAY = sql.statement(
    "operator days: summed messages of a day",
    "SELECT s.operator_id, sum(d.messages) AS messages, "
    "sum(d.stored + d.duplicate + d.rejected) AS items, sum(d.rejected) AS rejected "
    "FROM ledger_day d JOIN ledger_stream s USING (stream_id) "
    "WHERE d.day = :day GROUP BY s.operator_id",
)
SINGLE_FROM = sql.statement(
    "operator days: single messages kept from",
    "SELECT kept_from FROM retention_horizon WHERE table_name = 'message_ledger'",
)
OWN_FAULTS = sql.statement(
    "operator days: faults of the platform",
    "SELECT operator_id, sum(rejected) AS rejected FROM quarantine q "
    "WHERE received_at >= :since AND received_at < :until AND codes @> ARRAY['internal_error'] "
    "AND operator_id IS NOT NULL AND NOT EXISTS "
    "(SELECT FROM quarantine_replay r WHERE r.quarantine_id = q.quarantine_id) "
    "GROUP BY operator_id",
)
SESSIONS = sql.statement(
    "operator days: sessions",
    "SELECT operator_id, count(*) AS sessions FROM charging_session "
    "WHERE ended_at >= :since AND ended_at < :until GROUP BY operator_id",
)
# A station counts from its opening on; where that isn't told, from its first message on.
STATIONS = sql.statement(
    "operator days: stations",
    "SELECT o.operator_id, count(*) FILTER (WHERE coalesce(s.opened_on, h.first) <= :day) "
    "AS stations FROM operator o LEFT JOIN station s USING (operator_id) LEFT JOIN "
    "(SELECT operator_id, station_id, "
    "CAST(min(first_received_at) AT TIME ZONE 'UTC' AS date) AS first "
    "FROM ledger_stream GROUP BY operator_id, station_id) h "
    "ON h.operator_id = s.operator_id AND h.station_id = s.station_id "
    "GROUP BY o.operator_id ORDER BY o.operator_id",
)
FINAL_DAYS = sql.statement(
    "operator days: final",
    "SELECT day FROM operator_day WHERE day >= :since AND day < :until GROUP BY day "
    "HAVING min(summed_at) >= day + interval '25 hours'",
)
WEEKS = sql.statement(
    "operator days: weeks",
    "WITH w AS (SELECT CAST(date_trunc('week', day) AS date) AS week, "
    "sum(station_hours) AS station_hours, sum(heard_hours) AS heard_hours, "
    "sum(messages) AS messages, sum(items) AS items, sum(rejected) AS rejected, "
    "sum(sessions) AS sessions, count(*) AS days FROM operator_day "
    "WHERE operator_id = :operator_id AND day >= :since AND day < :until GROUP BY 1), "
    "g AS (SELECT g.from_at, g.to_at FROM ledger_stream s JOIN ledger_gap g USING (stream_id) "
    "WHERE s.operator_id = :operator_id AND s.topic = 'registers' AND g.closed_at IS NULL "
    "AND NOT g.implausible AND g.to_at > :since) "
    "SELECT w.*, (SELECT coalesce(sum(extract(epoch FROM "
    "least(g.to_at, CAST(w.week + 7 AS timestamp) AT TIME ZONE 'UTC') - "
    "greatest(g.from_at, CAST(w.week AS timestamp) AT TIME ZONE 'UTC'))), 0) / 3600 FROM g "
    "WHERE g.from_at < CAST(w.week + 7 AS timestamp) AT TIME ZONE 'UTC' "
    "AND g.to_at > CAST(w.week AS timestamp) AT TIME ZONE 'UTC') AS lost_hours "
    "FROM w ORDER BY week DESC",
)


async def day_sums(
    connection: AsyncConnection, *, since: datetime, until: datetime
) -> Sequence[RowMapping]:
    """Return by operator what came in a UTC day or its beginning, and in which hours.

    `heard` is the number of hours in which its stations were heard, summed over them.
    """
    return await sql.rows(connection, DAY, since=since, until=until)


async def first_time(connection: AsyncConnection) -> datetime | None:
    """Return when the first message came or the first session ended; None before both."""
    found: datetime | None = await sql.value(connection, FIRST)
    return found


async def summed_day(connection: AsyncConnection, day: date) -> Sequence[RowMapping]:
    """Return by operator what came on a UTC day whose single messages retention has summed."""
    return await sql.rows(connection, SUMMED_DAY, day=day)


async def single_messages_from(connection: AsyncConnection) -> datetime | None:
    """Return from when on single messages are kept; None when none has gone."""
    found: datetime | None = await sql.value(connection, SINGLE_FROM)
    return found


async def own_faults(
    connection: AsyncConnection, *, since: datetime, until: datetime
) -> Sequence[RowMapping]:
    """Return by operator how many items were rejected because the platform failed on them."""
    return await sql.rows(connection, OWN_FAULTS, since=since, until=until)


async def sessions(
    connection: AsyncConnection, *, since: datetime, until: datetime
) -> Sequence[RowMapping]:
    """Return by operator how many sessions ended in a span of time."""
    return await sql.rows(connection, SESSIONS, since=since, until=until)


async def station_counts(connection: AsyncConnection, day: date) -> Sequence[RowMapping]:
    """Return for every operator of the registry how many of its stations were open on a day."""
    return await sql.rows(connection, STATIONS, day=day)


async def final_days(connection: AsyncConnection, *, since: date, until: date) -> set[date]:
    """Return the days that were summed after their end."""
    found = await sql.rows(connection, FINAL_DAYS, since=since, until=until)
    return {row["day"] for row in found}


async def keep_day(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep the sums of a day, in place of those it had."""
    if not rows:
        return
    statement = insert(operator_day)
    changed = {
        column.name: statement.excluded[column.name]
        for column in operator_day.columns
        if not column.primary_key
    }
    await connection.execute(
        statement.on_conflict_do_update(index_elements=["operator_id", "day"], set_=changed),
        list(rows),
    )


@watched(
    {
        "operator: weeks": lambda s: {
            "operator_id": s.operator_id,
            "since": s.now.date() - timedelta(weeks=26),
            "until": s.now.date() + timedelta(days=1),
        }
    }
)
async def weeks(
    connection: AsyncConnection, operator_id: str, *, since: date, until: date
) -> Sequence[RowMapping]:
    """Return an operator's sums by week, the newest first; `since` is a Monday."""
    return await sql.rows(connection, WEEKS, operator_id=operator_id, since=since, until=until)

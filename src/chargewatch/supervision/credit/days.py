"""Sums of what operators' stations sent, a UTC day at a time, each once it is over for good."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

from chargewatch.storage.database import Database
from chargewatch.storage.office import credit_facts
from chargewatch.storage.office import operator_days as rows

_DAY = timedelta(days=1)


async def sum_days(
    database: Database, *, since: date, until: date, now: datetime, afresh: bool = False
) -> int:
    """Bring the sums of UTC days up to date, each in a transaction of its own.

    A day that was summed after its end stays as it was. Days before the first message and the first
    session have no sums.

    Args:
        database: with the ledger.
        since: the first day.
        until: the day after the last one; days to come are left out.
        now: the present time.
        afresh: sum finished days again, too: messages of theirs were read again meanwhile.

    Returns: how many days were summed.
    """
    until = min(until, now.astimezone(UTC).date() + _DAY)
    async with database.connect() as connection:
        first = await rows.first_time(connection)
        if first is None:
            return 0
        since = max(since, first.astimezone(UTC).date())
        final = await rows.final_days(connection, since=since, until=until)
    wanted = [since + n * _DAY for n in range((until - since).days)]
    wanted = [day for day in wanted if afresh or day not in final]
    for day in wanted:
        await _sum_day(database, day, now=now)
    return len(wanted)


async def _sum_day(database: Database, day: date, *, now: datetime) -> None:
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    # Of a day that is not over its whole hours.
    end = min(begin + _DAY, now.replace(minute=0, second=0, microsecond=0))
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    async with database.begin() as connection:
        await credit_facts.allow_long_statements(connection)
        kept_from = await rows.single_messages_from(connection)
        single = kept_from is None or begin >= kept_from
        hours = 0
        if single:
            city = 0
            for row in await rows.day_sums(connection, since=begin, until=end):
                _add(sums[row["operator_id"]], row, ("messages", "items", "rejected", "heard"))
                city |= int(row["hours"])
            # Hours in which nobody was heard are the platform's own: they count for nobody.
            hours = city.bit_count()
        else:
            for row in await rows.summed_day(connection, day):
                _add(sums[row["operator_id"]], row, ("messages", "items", "rejected"))
        for row in await rows.own_faults(connection, since=begin, until=begin + _DAY):
            own = sums[row["operator_id"]]
            # What the platform failed on was neither sent badly nor is it to be counted as good.
            own["rejected"] -= int(row["rejected"])
            own["items"] -= int(row["rejected"])
        for row in await rows.sessions(connection, since=begin, until=begin + _DAY):
            _add(sums[row["operator_id"]], row, ("sessions",))
        stations = await rows.station_counts(connection, day)
        kept = [
            {
                "operator_id": row["operator_id"],
                "day": day,
                "station_hours": int(row["stations"]) * hours if single else None,
                "heard_hours": (
                    min(sums[row["operator_id"]]["heard"], int(row["stations"]) * hours)
                    if single
                    else None
                ),
                "messages": sums[row["operator_id"]]["messages"],
                "items": max(0, sums[row["operator_id"]]["items"]),
                "rejected": max(0, sums[row["operator_id"]]["rejected"]),
                "sessions": sums[row["operator_id"]]["sessions"],
                "summed_at": now,
            }
            for row in stations
        ]
        await rows.keep_day(connection, kept)


def _add(sums: dict[str, int], row: Any, names: tuple[str, ...]) -> None:
    for name in names:
        sums[name] += int(row[name])

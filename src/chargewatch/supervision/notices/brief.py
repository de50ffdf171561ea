"""What changed since somebody last looked: the first thing in the morning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import brief as rows
from chargewatch.storage.office import notices as notice_rows
from chargewatch.storage.pages.city import newest_run

FIRST_BRIEF = timedelta(days=1)
"""What somebody who never looked is told of."""


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What changed.

    since: from when on.
    newly_red: connectors that are red and were not, the dearest first.
    no_longer_red: how many were red and are not.
    run_at: as_of of the newest finished run; None before the first.
    is_new_run: whether there was a run since.
    counts: of everything else, by name.
    """

    since: datetime
    newly_red: tuple[str, ...]
    no_longer_red: int
    run_at: datetime | None
    is_new_run: bool
    counts: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed and nothing is late."""
        own = sum(count for name, count in self.counts.items() if name != "cases_own")
        return not (self.newly_red or self.no_longer_red or own)


async def brief_of(
    connection: AsyncConnection, *, user_id: int, username: str, now: datetime, zone: ZoneInfo
) -> Brief:
    """Return what changed since a user last said that it has seen it.

    Args:
        connection: for reading.
        user_id: of the user.
        username: of the user.
        now: the time.
        zone: in which days end.
    """
    since = await notice_rows.seen_at(connection, user_id) or now - FIRST_BRIEF
    newest = await newest_run(connection)
    before = await rows.run_before(connection, since=since)
    is_new = newest is not None and (before is None or newest["run_id"] != before["run_id"])
    red: tuple[str, ...] = ()
    gone = 0
    if newest is not None and is_new:
        earlier = before["run_id"] if before else None
        found = await notice_rows.newly_red(connection, newest["run_id"], before=earlier)
        red = tuple(row["connector"] for row in found)
        if earlier is not None:
            gone = await rows.no_longer_red(connection, newest["run_id"], before=earlier)
    counts = await rows.changes(
        connection,
        since=since,
        since_day=since.astimezone(zone).date(),
        today=now.astimezone(zone).date(),
        username=username,
    )
    return Brief(
        since=since,
        newly_red=red,
        no_longer_red=gone,
        run_at=newest["as_of"] if newest is not None else None,
        is_new_run=is_new,
        counts=counts,
    )

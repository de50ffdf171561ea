"""One look at the newest readings for all live views: each gets what it asked for and may see."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from chargewatch.storage.database import Database
from chargewatch.storage.pages import messages as message_rows
from chargewatch.storage.pages.city import Scope

log = logging.getLogger(__name__)

PERIOD_S = 5.0
# What a view hasn't taken by then is old: the newest value is what it shows.
MAX_UNSENT = 500

DATABASE_AWAY = (OSError, TimeoutError, SQLAlchemyError, asyncpg.PostgresError,
                 asyncpg.InterfaceError)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LiveFilter:
    """What a live view wants to see; an empty field narrows nothing."""

    scope: Scope
    connector: str = ""
    station_id: str = ""
    operator_id: str = ""

    def takes(self, row: Mapping[Any, Any]) -> bool:
        """Return whether a reading belongs into the view."""
        return (
            self.scope in (None, row["operator_id"])
            and self.connector in ("", row["connector"])
            and self.station_id in ("", row["station_id"])
            and self.operator_id in ("", row["operator_id"])
        )


Readings = asyncio.Queue[dict[str, Any]]


class LiveFeed:
    """Asks the database once a period for all views; nothing is asked while nobody looks."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._views: dict[Readings, LiveFilter] = {}
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def subscribe(self, wanted: LiveFilter) -> AsyncIterator[Readings]:
        """Yield a queue into which new readings come."""
        queue = Readings(MAX_UNSENT)
        self._views[queue] = wanted
        if self._task is None:
            self._task = asyncio.create_task(self._follow())
        try:
            yield queue
        finally:
            del self._views[queue]
            if not self._views and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _follow(self) -> None:
        since = self._clock() - timedelta(seconds=PERIOD_S)
        away = False
        while True:
            try:
                since = await self._look(since)
            except DATABASE_AWAY as exc:
                if not away:
                    log.warning("live_views_wait error=%s", exc)
                away = True
            else:
                away = False
            await asyncio.sleep(PERIOD_S)

    async def _look(self, since: datetime) -> datetime:
        views = list(self._views.values())
        async with self._database.connect() as connection:
            rows = await message_rows.live_readings(
                connection,
                since=since,
                connectors=sorted({view.connector for view in views if view.connector}),
                station_ids=sorted({view.station_id for view in views if not view.connector}),
            )
        for row in rows:
            for queue, view in self._views.items():
                if view.takes(row):
                    if queue.full():
                        queue.get_nowait()
                    queue.put_nowait(dict(row))
            since = max(since, row["received_at"])
        return since

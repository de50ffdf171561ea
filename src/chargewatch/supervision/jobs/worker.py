"""Does jobs, one after the other, until it is told to stop.

A job is taken by one worker (`FOR UPDATE SKIP LOCKED`), which says every few seconds that it
lives. One that says nothing for `DEAD_AFTER_S`, because it was killed or the machine is gone, loses
the job to another. What a job does in the database and its end are one transaction, which fails
when the job was lost meanwhile: so nothing is done twice, and nothing half.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
from sqlalchemy import RowMapping
from sqlalchemy.exc import DBAPIError

from chargewatch.errors import ChargewatchError, DatabaseError
from chargewatch.settings import Settings
from chargewatch.storage.database import Database
from chargewatch.storage.intake.faults import Blame, blame_of
from chargewatch.storage.office import jobs as rows
from chargewatch.supervision.jobs.kinds import JobKind, LostJobError, NotNowError, Work

log = logging.getLogger(__name__)

ALIVE_EVERY_S = 5.0
DEAD_AFTER_S = 30.0
LOOK_EVERY_S = 1.0
TRIES_OF_A_JOB = 12
"""Three and a half hours of waiting; then a job has failed, and somebody has to look."""
FIRST_DELAY_S = 10.0
LONGEST_DELAY_S = 3_600.0
LONGEST_ERROR = 2_000
TIMER = "timer"
"""Who wants what a timer asks for."""


def passes(error: BaseException) -> bool:
    """Return whether an error passes by itself: the work is tried again, later and later."""
    if isinstance(error, DBAPIError):
        cause = error.orig.__cause__ if error.orig is not None else None
        return error.connection_invalidated or (cause is not None and passes(cause))
    if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
        return blame_of(error) in (Blame.PASSING, Blame.ENVIRONMENT)
    return isinstance(error, NotNowError | DatabaseError | OSError)  # TimeoutError is an OSError


def delay_s(tries: int) -> float:
    """Return how long a job waits after so many tries, s."""
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (tries - 1)))


def due_key(kind: JobKind, now: datetime, zone: ZoneInfo) -> str:
    """Return the key of the newest job that a timer asks for; "" when it asks for none.

    One that was missed, because no worker ran, is made up for once.
    """
    if kind.daily_at is not None:
        local = now.astimezone(zone)
        day = local.date()
        if local.time() < kind.daily_at:
            day -= timedelta(days=1)
        return f"{kind.name} {day.isoformat()}"
    if kind.every_s:
        begin = int(now.timestamp()) // kind.every_s * kind.every_s
        return f"{kind.name} {datetime.fromtimestamp(begin, UTC).isoformat()}"
    return ""


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:LONGEST_ERROR]


class Worker:
    """Does jobs of some kinds."""

    def __init__(self, database: Database, settings: Settings, kinds: Iterable[JobKind]) -> None:
        self._database = database
        self._settings = settings
        self._kinds = {kind.name: kind for kind in kinds}
        self._zone = settings.zone
        self._stop = asyncio.Event()
        self._asked: set[str] = set()
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    def stop(self) -> None:
        """End after the job in hand."""
        self._stop.set()

    async def run(self, *, until_idle: bool = False) -> int:
        """Do jobs until stopped, or until none is due; return how many were tried."""
        tried = 0
        while not self._stop.is_set():
            found = await self._next(patient=not until_idle)
            if found is not None:
                tried += 1
                await self._try(found)
            elif until_idle:
                break
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), LOOK_EVERY_S)
        return tried

    async def _next(self, *, patient: bool) -> RowMapping | None:
        try:
            await self._ask_for_timed()
            async with self._database.begin() as connection:
                return await rows.take(connection, worker=self.name, kinds=list(self._kinds))
        except Exception as exc:
            if not patient or not passes(exc):
                raise
            log.warning("jobs_wait error=%s", exc)
            return None

    async def _ask_for_timed(self) -> None:
        now = datetime.now(UTC)
        keys = {due_key(kind, now, self._zone): kind for kind in self._kinds.values()}
        async with self._database.begin() as connection:
            for key, kind in keys.items():
                # Each once, because every try takes a number.
                if key and key not in self._asked:
                    await rows.add(
                        connection, kind=kind.name, arguments={}, wanted_by=TIMER, key=key
                    )
            await rows.give_up_dead(
                connection,
                dead_after_s=DEAD_AFTER_S,
                most_tries=TRIES_OF_A_JOB,
                error=f"the worker said nothing for {DEAD_AFTER_S:g} s",
            )
        self._asked = set(keys)

    async def _try(self, row: RowMapping) -> None:
        work = Work(
            job_id=row["job_id"],
            kind=row["kind"],
            arguments=row["arguments"],
            wanted_by=row["wanted_by"],
            tries=row["tries"],
            worker=self.name,
            database=self._database,
            settings=self._settings,
            now=datetime.now(UTC),
        )
        log.info("job_begins job=%d kind=%s tries=%d", work.job_id, work.kind, work.tries)
        try:
            async with self._alive(work):
                result = await self._kinds[work.kind].work(work)
            if not work.ended:
                async with self._database.begin() as connection:
                    await work.done(connection, result)
        except LostJobError as exc:
            log.warning("job_lost job=%d kind=%s error=%s", work.job_id, work.kind, exc)
        except Exception as exc:
            await self._failed(work, exc)
        else:
            log.info("job_done job=%d kind=%s", work.job_id, work.kind)

    async def _failed(self, work: Work, exc: Exception) -> None:
        if passes(exc) and work.tries < TRIES_OF_A_JOB:
            wait_s = delay_s(work.tries)
            log.warning(
                "job_put_off job=%d kind=%s wait_s=%g error=%s",
                *(work.job_id, work.kind, wait_s, exc),
            )
            async with self._database.begin() as connection:
                await rows.try_later(
                    connection, delay_s=wait_s, error=_in_words(exc), mine=work.mine()
                )
            return
        if isinstance(exc, ChargewatchError) or passes(exc):
            log.warning("job_failed job=%d kind=%s error=%s", work.job_id, work.kind, exc)
            told = str(exc)
        else:
            log.exception("job_broke job=%d kind=%s", work.job_id, work.kind)
            told = f"the platform failed, report it: {_in_words(exc)}"
        async with self._database.begin() as connection:
            await rows.fail(connection, error=told[:LONGEST_ERROR], mine=work.mine())

    @asynccontextmanager
    async def _alive(self, work: Work) -> AsyncIterator[None]:
        """Say so while something is worked on; stop the work when the job was lost."""
        worker = asyncio.current_task()
        lost = False

        async def say_so() -> None:
            nonlocal lost
            while True:
                await asyncio.sleep(ALIVE_EVERY_S)
                try:
                    async with self._database.begin() as connection:
                        lost = not await rows.stay_alive(connection, mine=work.mine())
                except Exception as exc:
                    # Not being heard for a moment is no reason to stop.
                    log.warning("job_unheard job=%d error=%s", work.job_id, exc)
                if lost and worker is not None:
                    worker.cancel()
                    return

        heart = asyncio.create_task(say_so())
        try:
            yield
        except asyncio.CancelledError:
            if not lost:
                raise
            if worker is not None:
                worker.uncancel()
            raise LostJobError(f"job {work.job_id} was given to another worker") from None
        finally:
            heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await heart

"""What can be done by a job, and what a job's work has at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import ChargewatchError
from chargewatch.settings import Settings
from chargewatch.storage.database import Database
from chargewatch.storage.office import jobs as rows
from chargewatch.supervision.audit import Actor


class LostJobError(ChargewatchError):
    """The job was given to another worker, which does it: what was done here is taken back."""


class NotNowError(ChargewatchError):
    """What the work needs is away; it is tried again later."""


@dataclass(kw_only=True)
class Work:
    """One try of one job."""

    job_id: int
    kind: str
    arguments: Mapping[str, Any]
    wanted_by: str
    tries: int
    worker: str
    database: Database
    settings: Settings
    now: datetime
    ended: bool = field(default=False, init=False)

    @property
    def actor(self) -> Actor:
        """Who does it, for the audit trail."""
        return Actor(name=self.wanted_by)

    def mine(self) -> dict[str, Any]:
        """Return what shows that the job is still this worker's."""
        return {"job_id": self.job_id, "worker": self.worker, "tries": self.tries}

    async def done(self, connection: AsyncConnection, result: Any = None) -> None:
        """End the job in the transaction of what it did: both are there, or neither.

        Args:
            connection: in the transaction of the work; before its audit entry.
            result: what came out, as JSON.

        Raises: LostJobError when another worker has the job now; let the transaction fail.
        """
        if not await rows.done(connection, result=result, mine=self.mine()):
            raise LostJobError(f"job {self.job_id} was given to another worker")
        self.ended = True

    async def progress(self, text: str) -> None:
        """Tell how far it is, to those who look at the job."""
        async with self.database.begin() as connection:
            await rows.tell_progress(connection, progress=text[:200], mine=self.mine())


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """One kind of job.

    name: as it is kept and shown.
    meaning: what it does, one line.
    work: does it; ends by `Work.done` in its own transaction, else it is ended after it.
    daily_at: when a timer asks for it every day, by the platform's time zone; None: never.
    every_s: how often a timer asks for it, s; 0: never.
    by_hand: whether people may ask for it.
    """

    name: str
    meaning: str
    work: Callable[[Work], Awaitable[Any]]
    daily_at: time | None = None
    every_s: int = 0
    by_hand: bool = True

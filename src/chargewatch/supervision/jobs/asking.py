"""Asking for jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import ChargewatchError, NotFoundError
from chargewatch.storage.office import jobs as rows
from chargewatch.supervision.audit import Action, Actor, record


class JobError(ChargewatchError):
    """A job can't be asked for as wanted."""


async def ask_for(
    connection: AsyncConnection,
    kind: str,
    arguments: Mapping[str, Any],
    *,
    actor: Actor,
    key: str | None = None,
    delay_s: float = 0.0,
) -> int:
    """Ask for a job and return its number; as the last thing of a transaction.

    Args:
        connection: in the transaction that wants it.
        kind: name of a row of `supervision.jobs.table`.
        arguments: what it is to be done with, JSON; no secret.
        actor: who wants it.
        key: done once for a key, however often it is asked for.
        delay_s: begins after this time, s.
    """
    job_id = await rows.add(
        connection, kind=kind, arguments=arguments, wanted_by=actor.name, key=key, delay_s=delay_s
    )
    await record(connection, actor, Action.JOB_ASKED_FOR, f"job:{job_id}", kind=kind)
    return job_id


async def ask_again(connection: AsyncConnection, job_id: int, *, actor: Actor) -> None:
    """Let a failed job be tried again; as the last thing of a transaction.

    Raises: NotFoundError; JobError when it has not failed.
    """
    if not await rows.again(connection, job_id):
        row = await rows.one(connection, job_id)
        if row is None:
            raise NotFoundError(f"no job {job_id}: see `chargewatch jobs list`")
        raise JobError(f"job {job_id} is {row['state']}: only a failed one is tried again")
    await record(connection, actor, Action.JOB_ASKED_FOR, f"job:{job_id}", again=True)

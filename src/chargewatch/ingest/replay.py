"""Messages of the quarantine go the same road once more, with the time of their first arrival.

What comes of a message, its booking and its mark are one transaction: it may be interrupted and
repeated at any moment, and runs beside ingest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from chargewatch.domain.times import EPOCH
from chargewatch.errors import DatabaseError
from chargewatch.ingest.contents.assembly import TimeLimits
from chargewatch.ingest.message import (
    Arrival,
    Fate,
    Kept,
    Message,
    read_message,
    refuse_by_fault,
)
from chargewatch.ingest.rejected import stays
from chargewatch.ingest.writer import BatchWriter
from chargewatch.settings import Settings
from chargewatch.storage.intake import faults
from chargewatch.storage.intake.connection import hold_name
from chargewatch.storage.intake.quarantine import KeptMessage, kept_messages

AT_ONCE = 20
"""Messages that are read together; each may be 1 MiB, and unpacked 16."""
LOCK = "quarantine-replay"


@dataclass
class ReplayReport:
    """What a replay did, or would do."""

    dry_run: bool
    messages: int = 0
    """Read again, whatever came of it."""
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    unchanged: int = 0
    """Messages that are rejected as before: they stay as they are."""
    codes: dict[str, int] = field(default_factory=dict)
    """Messages by the first reason why something of them is rejected now."""

    def add(self, message: Message, fate: Fate) -> None:
        """Count one message."""
        self.messages += 1
        if fate.rejections:
            first = fate.rejections[0].code
            self.codes[first] = self.codes.get(first, 0) + 1
        if stays(message, fate):
            self.unchanged += 1
            return
        self.stored += fate.stored
        self.duplicate += fate.duplicate
        self.rejected += fate.rejected


async def replay_quarantine(
    settings: Settings, *, code: str, station_id: str = "", dry_run: bool = False
) -> ReplayReport:
    """Read messages again that were rejected whole for a reason, oldest first; return what came.

    Raises: DatabaseError when the database does not let us, or another replay runs.
    """
    url = settings.ingest_database_url or settings.require_database_url()
    dsn = "postgresql://" + url.partition("://")[2]
    limits = TimeLimits(settings.max_future_s, settings.max_age_days)
    report = ReplayReport(dry_run)
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            async with BatchWriter(
                dsn, limits=limits, quarantine_a_day=settings.quarantine_rows_a_day
            ) as writer:
                if not await hold_name(connection, LOCK):
                    raise DatabaseError("another replay of the quarantine runs: wait for its end")
                await _replay(connection, writer, report, code=code, station_id=station_id)
        finally:
            await connection.close(timeout=10)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise DatabaseError(
            f"the quarantine can't be read again now: {faults.in_words(exc)}; "
            f"{faults.next_step(exc)}, then repeat it: what was done stays done"
        ) from exc
    return report


async def _replay(
    connection: Any, writer: BatchWriter, report: ReplayReport, *, code: str, station_id: str
) -> None:
    last_id = 0
    while True:
        rows = await kept_messages(
            connection, code=code, station_id=station_id, after_id=last_id, limit=AT_ONCE
        )
        if not rows:
            return
        last_id = rows[-1].quarantine_id
        messages = await asyncio.to_thread(_messages, rows, code)
        if report.dry_run:
            fates = [await _tried(writer, message) for message in messages]
        else:
            fates = await _written(writer, messages)
        for message, fate in zip(messages, fates, strict=True):
            report.add(message, fate)


def _messages(rows: Sequence[KeptMessage], code: str) -> list[Message]:
    return [_message(row, code) for row in rows]


def _message(row: KeptMessage, code: str) -> Message:
    received_us = round((row.received_at - EPOCH).total_seconds() * 1e6)
    arrival = Arrival(row.topic, row.payload, row.content_type, received_us)
    message = read_message(arrival)
    message.kept = Kept(row.quarantine_id, code, row.rejected)
    return message


async def _written(writer: BatchWriter, messages: list[Message]) -> list[Fate]:
    """Write messages; a doubtful error is repeated until it can be put down to one of them."""
    for _ in range(faults.Blame.PASSING):
        try:
            return await writer.write(messages)
        except Exception as exc:
            if faults.is_environment(exc):
                raise
            await writer.disconnect()
            await asyncio.sleep(0.1)
    return await writer.write(messages)


async def _tried(writer: BatchWriter, message: Message) -> Fate:
    try:
        return (await writer.try_out([message]))[0]
    except Exception as exc:
        if faults.is_environment(exc):
            raise
        fate = Fate()
        fate.reject_whole(refuse_by_fault(message, exc))
        return fate

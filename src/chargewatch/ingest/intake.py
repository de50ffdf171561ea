"""The HTTP door: one message at a time through the same code as those of the broker."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from chargewatch.errors import DatabaseError
from chargewatch.ingest.contents.assembly import TimeLimits
from chargewatch.ingest.message import Arrival, read_message
from chargewatch.ingest.receipts import receipt_of
from chargewatch.ingest.writer import BatchWriter
from chargewatch.settings import Settings
from chargewatch.storage.intake import faults
from chargewatch.wire.topics import topic

log = logging.getLogger("chargewatch.ingest")

ATTEMPTS = int(faults.Blame.DOUBTFUL)
"""As many as put a message aside that alone fails for a doubtful reason."""

READ_AT_ONCE = 2
"""Messages unpacked at the same time: each may take 16 MiB of JSON and ten times that in memory."""


class Intake:
    """Takes telemetry without a broker; use as an async context manager, one a process."""

    def __init__(self, settings: Settings) -> None:
        dsn = "postgresql://" + settings.require_database_url().partition("://")[2]
        limits = TimeLimits(settings.max_future_s, settings.max_age_days)
        self._writer = BatchWriter(
            dsn, limits=limits, quarantine_a_day=settings.quarantine_rows_a_day
        )
        self._reading = asyncio.Semaphore(READ_AT_ONCE)
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Intake:
        """Return the intake; its first message connects."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self._writer.disconnect()

    async def submit(
        self,
        kind: str,
        operator_id: str,
        station_id: str,
        payload: bytes,
        content_type: str | None = None,
        received_at: float | None = None,
    ) -> dict[str, Any]:
        """Commit one message and return its receipt.

        kind: of what; a wire.kinds.Kind. received_at: seconds since 1970 (default: now).
        Raises: DatabaseError when the database can't take it now; send the message again later.
        """
        received_s = time.time() if received_at is None else received_at
        arrival = Arrival(
            topic(operator_id, station_id, kind), payload, content_type, round(received_s * 1e6)
        )
        try:
            async with self._reading:
                message = await asyncio.to_thread(read_message, arrival)
        except Exception as exc:
            raise _not_now(exc) from exc
        async with asyncio.timeout(60), self._turn:
            for attempt in range(ATTEMPTS):
                try:
                    fates = await self._writer.write([message])
                    return receipt_of(message, fates[0])
                except Exception as exc:
                    await self._writer.disconnect()
                    if attempt == ATTEMPTS - 1:
                        raise _not_now(exc) from exc
                    await asyncio.sleep(0.1 * 2**attempt)
        raise DatabaseError("the database does not take telemetry now; send it again")


def _not_now(error: Exception) -> DatabaseError:
    """Return what a gateway is told; a fault of our own goes to the log as what it is."""
    if not faults.is_mapped(error):
        log.error(
            "not_written error=%s; the gateway keeps it", faults.in_words(error), exc_info=error
        )
    return DatabaseError(
        f"telemetry can't be taken now: {faults.in_words(error)}; nothing was stored, "
        f"send it again; {faults.next_step(error)}"
    )

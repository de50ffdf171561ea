"""What gateways say about themselves: the newest of each station."""

from __future__ import annotations

from datetime import timedelta

from chargewatch.domain.times import moment_of
from chargewatch.ingest.contents.assembly import Assembly, Rows, Writing
from chargewatch.storage.intake.status import StatusRow, store_statuses
from chargewatch.wire.kinds import Kind
from chargewatch.wire.status import Status


class StatusRows(Rows):
    """Statuses in order of arrival, and their messages."""

    def __init__(self, work: Assembly, kind: Kind) -> None:
        self._statuses = [(n, status) for n, _, status in work.contents(kind, Status)]

    def ids(self, key: str) -> set[int]:
        """Return no instruments."""
        del key
        return set()

    async def write(self, writing: Writing) -> None:
        """Store those that are newer than what is stored."""
        rows = []
        for number, status in self._statuses:
            message = writing.messages[number]
            sent_us = message.decoded.envelope.sent_at_us if message.decoded else None
            rows.append(
                StatusRow(
                    *message.owner,
                    online=status.online,
                    received_at=moment_of(message.arrival.received_us),
                    sent_at=None if sent_us is None or sent_us < 0 else moment_of(sent_us),
                    clock_offset_ms=status.clock_offset_ms,
                    backlog=status.backlog,
                    firmware=status.firmware,
                )
            )
        max_future = timedelta(seconds=writing.limits.max_future_s)
        newer = await store_statuses(writing.connection, rows, max_future=max_future)
        for (number, _), is_newer in zip(self._statuses, newer, strict=True):
            setattr(writing.fates[number], "stored" if is_newer else "duplicate", 1)

"""Messages that arrived and wait for a batch."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from chargewatch.ingest.message import Arrival
from chargewatch.wire.envelope import is_packed

BATCH_BYTES = 16 << 20
BYTES_A_READING = 200
PACKING = 10


def estimated_readings(payload: bytes, content_type: str | None) -> int:
    """Return about how many readings a payload holds, without reading it."""
    packing = PACKING if is_packed(payload, content_type) else 1
    return 1 + len(payload) * packing // BYTES_A_READING


class Inbox:
    """Messages that arrived and wait for a batch."""

    def __init__(self, *, batch_readings: int, batch_messages: int) -> None:
        # With the readings that each holds, about, and when it came by a clock that nobody sets.
        self._waiting: deque[tuple[Arrival, int, float]] = deque()
        self._readings = 0
        self._bytes = 0
        self._batch_readings = batch_readings
        self._batch_messages = batch_messages
        self._changed = asyncio.Event()
        self.last_arrival = time.monotonic()

    def put(self, arrival: Arrival) -> None:
        """Add a message."""
        readings = estimated_readings(arrival.payload, arrival.content_type)
        self.last_arrival = time.monotonic()
        self._waiting.append((arrival, readings, self.last_arrival))
        self._readings += readings
        self._bytes += len(arrival.payload)
        if len(self._waiting) == 1 or self.full:
            self._changed.set()

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._readings = self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether a batch need not wait any longer."""
        return (
            self._readings >= self._batch_readings
            or len(self._waiting) >= self._batch_messages
            or self._bytes >= BATCH_BYTES
        )

    async def wait(self, linger_s: float) -> None:
        """Return when a batch is full, or `linger_s` after its first message."""
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        deadline = self._waiting[0][2] + linger_s
        while not self.full:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(remaining_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    def take(self) -> list[Arrival]:
        """Return the next batch, in order of arrival."""
        batch: list[Arrival] = []
        readings = size = 0
        while self._waiting and (
            not batch
            or (
                readings + self._waiting[0][1] <= self._batch_readings
                and len(batch) < self._batch_messages
                and size < BATCH_BYTES
            )
        ):
            arrival, count, _ = self._waiting.popleft()
            batch.append(arrival)
            readings += count
            size += len(arrival.payload)
        self._readings -= readings
        self._bytes -= size
        return batch

"""Receipts and acknowledgements on their way to the broker.

A receipt goes before the acknowledgements of its batch where it can: should the connection break
between them, the broker sends the messages again and their receipts come again. But nothing holds
acknowledgements up for long. A receipt may not be able to go: the broker's window is full, it
never acknowledges what it is sent, or it cuts the connection because of one receipt. Such a broker
would send the same messages for ever.

A receipt that was out when a connection broke is a suspect: it is sent again, alone, after the
acknowledgements. One that breaks the connection alone, and again, is given up with the topic it
goes to; when several topics are given up in a row, receipts rest altogether for a while. A gateway
that misses a receipt sends its message again, so nothing is lost by giving up.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from chargewatch.ingest.packets import publish_packet

log = logging.getLogger("chargewatch.ingest")

PATIENCE_S = 2.0
"""How long acknowledgements wait for the receipts before them."""
SILENCE_S = 30.0
"""A suspect that was neither acknowledged nor punished for so long holds up nobody else."""
MAX_STRIKES = 3
REST_S = 600.0
MAX_REST_S = 86_400.0
TOPICS_IN_A_ROW = 3
MAX_WAITING_BYTES = 32 << 20
OVERHEAD_BYTES = 300
MAX_WINDOW = 1_000
FIRST_MID, LAST_MID = 1_000, 65_000  # paho counts its own from 1

SENT, REFUSED, DROPPED = "sent", "refused", "dropped"


@dataclass(slots=True)
class _Receipt:
    topic: str
    payload: bytes
    number: int
    suspect: bool = False
    strikes: int = 0
    sent_at: float = 0.0

    @property
    def size(self) -> int:
        """What it takes of memory, about."""
        return len(self.payload) + OVERHEAD_BYTES


class Outbox:
    """Lives as long as the service; `open` and `close` go with the connections."""

    def __init__(
        self,
        *,
        count: Callable[[str, int], None] = lambda fate, number: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count what became of receipts with `count(fate, number)`."""
        self._count = count
        self._clock = clock
        self._write: Callable[[bytes], None] | None = None
        self._window = 1
        self._max_packet: int | None = None
        self._waiting: deque[_Receipt] = deque()
        self._waiting_bytes = 0
        self._out: dict[int, _Receipt] = {}
        self._silent = 0
        self._acknowledgements: deque[tuple[int, float, bytes]] = deque()
        self._mid = FIRST_MID
        self._number = 0
        self._rests: dict[str, float] = {}
        self._all_rest_until = 0.0
        self._rest_s = REST_S
        self._given_up = 0
        self._refusal_told = False

    def open(
        self, write: Callable[[bytes], None], *, window: int, max_packet: int | None = None
    ) -> None:
        """Use a new connection: `window` receipts out at once, none longer than `max_packet`."""
        self._write = write
        self._window = min(window, MAX_WINDOW)
        self._max_packet = max_packet
        self._pump()

    def close(self) -> None:
        """Take in that the connection is gone: acknowledgements with it, receipts are kept."""
        self._write = None
        self._acknowledgements.clear()
        self._silent = 0
        out, self._out = list(self._out.values()), {}
        if len(out) == 1 and out[0].suspect:
            out[0].strikes += 1
            # After one topic was given up for nothing, the next is not given that much time.
            if out[0].strikes >= MAX_STRIKES or self._given_up:
                self._give_up(out.pop())
        for receipt in reversed(out):
            receipt.suspect = True
            self._waiting.appendleft(receipt)
            self._waiting_bytes += receipt.size

    @property
    def pending(self) -> int:
        """What has not reached the broker and still may, as a number of packets."""
        receipts = 0 if self._is_stuck() else len(self._waiting) + len(self._out)
        return len(self._acknowledgements) + receipts if self._write is not None else 0

    def put(self, receipts: Sequence[tuple[str, bytes]], acknowledgements: bytes) -> None:
        """Send a batch's receipts (topic, payload), then its acknowledgements."""
        now = self._clock()
        for topic, payload in receipts:
            if self._rests_now(topic, now):
                self._count(DROPPED, 1)
                continue
            self._number += 1
            self._waiting.append(_Receipt(topic, payload, self._number))
            self._waiting_bytes += self._waiting[-1].size
        while self._waiting_bytes > MAX_WAITING_BYTES:
            self._count(DROPPED, 1)
            self._waiting_bytes -= self._waiting.popleft().size
        if acknowledgements and self._write is not None:
            self._acknowledgements.append((self._number, now, acknowledgements))
        self._pump()

    def acknowledged(self, mid: int, reason: int = 0) -> None:
        """Take in that the broker has taken one receipt, or has refused it with a reason code."""
        if self._out.pop(mid, None) is None:
            return
        self._given_up = 0
        self._count(SENT if reason < 0x80 else REFUSED, 1)
        if reason >= 0x80 and not self._refusal_told:
            self._refusal_told = True
            log.warning("receipt_refused reason=0x%02x; let ingest write receipts", reason)
        self._pump()

    def tick(self) -> None:
        """Let time pass: what has waited long enough goes without what it waited for."""
        now = self._clock()
        for mid, receipt in list(self._out.items()):
            if receipt.suspect and now - receipt.sent_at > SILENCE_S:
                del self._out[mid]
                self._silent += 1  # the broker still counts it
                self._count(DROPPED, 1)
        self._pump()

    def _pump(self) -> None:
        if self._write is None:
            return
        now = self._clock()
        parts: list[bytes] = []
        self._release(parts, now)
        while self._waiting and self._may_send(self._waiting[0]):
            receipt = self._waiting.popleft()
            self._waiting_bytes -= receipt.size
            packet = publish_packet(receipt.topic, receipt.payload, self._mid)
            if self._rests_now(receipt.topic, now) or len(packet) > (self._max_packet or 1 << 28):
                self._count(DROPPED, 1)
            else:
                receipt.sent_at = now
                self._out[self._mid] = receipt
                self._mid = FIRST_MID if self._mid == LAST_MID else self._mid + 1
                parts.append(packet)
            self._release(parts, now)
        if parts:
            self._write(b"".join(parts))

    def _may_send(self, receipt: _Receipt) -> bool:
        if receipt.suspect or self._tries_suspect:
            return not self._out and self._silent < self._window
        return len(self._out) + self._silent < self._window

    @property
    def _tries_suspect(self) -> bool:
        # It is out alone, so it is the first.
        return any(receipt.suspect for receipt in islice(self._out.values(), 1))

    def _release(self, parts: list[bytes], now: float) -> None:
        """Add the acknowledgements that need not wait any longer."""
        if not self._acknowledgements:
            return
        head = self._waiting[0] if self._waiting else None
        hurry = self._is_stuck() or self._tries_suspect or (head is not None and head.suspect)
        while self._acknowledgements:
            number, put_at, packets = self._acknowledgements[0]
            waits = head is not None and head.number <= number
            if waits and not hurry and now - put_at < PATIENCE_S:
                return
            parts.append(packets)
            self._acknowledgements.popleft()

    def _is_stuck(self) -> bool:
        """Whether the broker owes an answer to a receipt for longer than anybody waits."""
        oldest = next(iter(self._out.values()), None)
        return self._silent > 0 or (
            oldest is not None and self._clock() - oldest.sent_at >= PATIENCE_S
        )

    def _rests_now(self, topic: str, now: float) -> bool:
        return now < self._all_rest_until or now < self._rests.get(topic, 0.0)

    def _give_up(self, receipt: _Receipt) -> None:
        now = self._clock()
        self._count(DROPPED, 1)
        self._given_up += 1
        self._rests = {topic: until for topic, until in self._rests.items() if until > now}
        if self._given_up < TOPICS_IN_A_ROW:
            self._rests[receipt.topic] = now + REST_S
            log.warning(
                "receipt_cuts_connection topic=%s bytes=%d; none to it for %.0f s",
                receipt.topic,
                len(receipt.payload),
                REST_S,
            )
            return
        self._all_rest_until = now + self._rest_s
        log.error(
            "receipts_rest seconds=%.0f: the broker cuts the connection at every one; let user of "
            "CHARGEWATCH_MQTT_URL write cw/v1/+/+/receipt, or set CHARGEWATCH_RECEIPTS=none",
            self._rest_s,
        )
        self._rest_s = min(MAX_REST_S, 4 * self._rest_s)
        self._count(DROPPED, len(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0

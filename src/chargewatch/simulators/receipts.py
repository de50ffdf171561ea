"""Which published messages have no receipt yet, for those who wait for receipts."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import orjson

from chargewatch.wire.topics import RECEIPT, has_receipt

log = logging.getLogger(__name__)

MAX_WAITING = 20_000
"""Messages without a receipt; no new one is published above."""

ALL_RECEIPTS = f"cw/v1/+/+/{RECEIPT}"


class ReceiptBook:
    """Numbers of messages that wait for their receipt, and when each was sent last."""

    def __init__(self, *, resend_s: float = 60.0, patience_s: float = 300.0) -> None:
        self.resend_s, self.patience_s = resend_s, patience_s
        self.received = 0
        self._numbers: dict[tuple[str, int], int] = {}
        self._sent: dict[int, tuple[tuple[str, int], float]] = {}
        self._newest = time.monotonic()

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._sent))

    @property
    def full(self) -> bool:
        """Whether so many wait that nothing new should be published."""
        return len(self._sent) >= MAX_WAITING

    @property
    def silent_s(self) -> float:
        """For how long no receipt has come."""
        return time.monotonic() - self._newest

    def expect(self, number: int, topic: str, payload: bytes) -> bool:
        """Note a message that is published; return whether a receipt of its own will come."""
        seq = _seq_of(payload)
        if not has_receipt(topic) or seq is None or (topic, seq) in self._numbers:
            return False
        if not self._sent:
            self._newest = time.monotonic()
        self._numbers[topic, seq] = number
        self._sent[number] = ((topic, seq), time.monotonic())
        return True

    def sent_again(self, number: int) -> None:
        """Note that a message was sent again."""
        key, _ = self._sent.pop(number)
        self._sent[number] = (key, time.monotonic())

    def due(self) -> list[int]:
        """Return the messages whose receipt should have come by now."""
        before = time.monotonic() - self.resend_s
        found = []
        for number, (_, at) in self._sent.items():
            if at > before:
                break
            found.append(number)
        return found

    def take(self, topic: str, payload: bytes) -> list[int]:
        """Return the numbers of the messages that a message of the receipt topic is about."""
        station = topic.rpartition("/")[0]
        try:
            listed = [
                (f"{station}/{r['topic']}", r["seq"]) for r in orjson.loads(payload)["receipts"]
            ]
        except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
            log.warning("bad_receipt topic=%s error=%s", topic, exc)
            return []
        found = [self._numbers.pop(key) for key in listed if key in self._numbers]
        for number in found:
            del self._sent[number]
        self.received += len(found)
        self._newest = time.monotonic()
        return found


def _seq_of(payload: bytes) -> int | None:
    """Return a payload's seq; None for what simulated faults made unreadable."""
    try:
        seq = orjson.loads(payload)["seq"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return seq if type(seq) is int else None

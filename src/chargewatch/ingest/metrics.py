"""What ingest counts, for Prometheus."""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chargewatch.ingest.message import Fate, Message
from chargewatch.wire.readings import DecodedReadings
from chargewatch.wire.rejection import INTERNAL_ERROR

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 600, 3600, 86_400)


class IngestMetrics:
    """The figures of one ingest process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages = Counter(
            "chargewatch_ingest_messages", "Messages committed", ["topic"], registry=self.registry
        )
        self.items = Counter(
            "chargewatch_ingest_items",
            "Readings, sessions and statuses by what became of them",
            ["topic", "fate"],
            registry=self.registry,
        )
        self.rejections = Counter(
            "chargewatch_ingest_rejections",
            "Rejections by their code",
            ["code"],
            registry=self.registry,
        )
        # There from the start, so that an alarm sees its first increase.
        self.rejections.labels(INTERNAL_ERROR)
        self.failed_attempts = Counter(
            "chargewatch_ingest_failed_attempts",
            "Attempts to read or write a batch that are repeated",
            registry=self.registry,
        )
        self.receipts = Counter(
            "chargewatch_ingest_receipt_messages",
            "MQTT messages with receipts by what became of them",
            ["fate"],
            registry=self.registry,
        )
        self.batch_messages = Histogram(
            "chargewatch_ingest_batch_messages",
            "Messages a commit",
            buckets=(1, 3, 10, 30, 100, 300, 1000, 3000, 10_000),
            registry=self.registry,
        )
        self.batch_items = Histogram(
            "chargewatch_ingest_batch_items",
            "Items a commit",
            buckets=(1, 10, 100, 1000, 3000, 10_000, 30_000, 100_000),
            registry=self.registry,
        )
        self.commit = Histogram(
            "chargewatch_ingest_commit_seconds",
            "Time of a transaction",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.arrival_lag = Histogram(
            "chargewatch_ingest_arrival_to_commit_seconds",
            "From a message's arrival to its commit",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.reading_lag = Histogram(
            "chargewatch_ingest_reading_to_commit_seconds",
            "From the newest reading of a message to its commit",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.unacknowledged = Gauge(
            "chargewatch_ingest_unacknowledged_messages",
            "Received, not acknowledged yet",
            registry=self.registry,
        )
        self.generation = Gauge(
            "chargewatch_ingest_connection_generation",
            "Connections to the broker so far",
            registry=self.registry,
        )
        self.broker_queue = Gauge(
            "chargewatch_ingest_broker_stored_messages",
            "Messages that the broker holds ($SYS/broker/store/messages/count), or NaN",
            registry=self.registry,
        )
        self.broker_queue.set(math.nan)
        self.database_up = Gauge(
            "chargewatch_ingest_database_up",
            "1 while the database takes batches",
            registry=self.registry,
        )
        self.stalled = Gauge(
            "chargewatch_ingest_stalled_seconds",
            "For how long ingest is away from the broker, or messages wait and none is committed",
            registry=self.registry,
        )

    def count_receipts(self, fate: str, number: int) -> None:
        """Count MQTT messages with receipts."""
        self.receipts.labels(fate).inc(number)

    def count(
        self, messages: Sequence[Message], fates: Sequence[Fate], *, now_us: int, commit_s: float
    ) -> None:
        """Count one committed batch."""
        self.commit.observe(commit_s)
        self.batch_messages.observe(len(messages))
        self.batch_items.observe(sum(message.items for message in messages))
        totals: dict[str, list[int]] = {}
        codes: Tally[str] = Tally()
        for message, fate in zip(messages, fates, strict=True):
            kind = message.topic.kind if message.topic else "other"
            sums = totals.setdefault(kind, [0, 0, 0, 0])
            sums[0] += 1
            sums[1] += fate.stored
            sums[2] += fate.duplicate
            sums[3] += fate.rejected
            self.arrival_lag.observe((now_us - message.arrival.received_us) / 1e6)
            content = message.decoded.content if message.decoded is not None else None
            if isinstance(content, DecodedReadings) and len(content.names):
                self.reading_lag.observe(max(0.0, (now_us - int(content.at_us.max())) / 1e6))
            codes.update(rejection.code for rejection in fate.rejections)
        for code, number in codes.items():
            self.rejections.labels(code).inc(number)
        for kind, (count, stored, duplicate, rejected) in totals.items():
            self.messages.labels(kind).inc(count)
            self.items.labels(kind, "stored").inc(stored)
            self.items.labels(kind, "duplicate").inc(duplicate)
            self.items.labels(kind, "rejected").inc(rejected)

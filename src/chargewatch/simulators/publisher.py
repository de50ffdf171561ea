"""Publishes messages at QoS 1 and keeps each until its PUBACK; the only aiomqtt user here."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from chargewatch.errors import BrokerError, ChargewatchError
from chargewatch.mqtt.address import BrokerAddress
from chargewatch.mqtt.early_close import notice_early_close
from chargewatch.simulators.receipts import ALL_RECEIPTS, ReceiptBook

log = logging.getLogger(__name__)

FIRST_PATIENCE_S = 10.0
"""How long a broker that was never reached is tried."""
READ_AHEAD = 200
"""Messages that are taken from their source at a time, in a thread."""


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """One message to publish; ``due_s`` is when, in seconds from the start (0: at once)."""

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str | None = None
    due_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Will:
    """What the broker says for a gateway that vanished."""

    topic: str
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """Who connects: client id, user and last will."""

    client_id: str | None = None
    username: str | None = None
    will: Will | None = None
    receipts: str = ALL_RECEIPTS
    """Topic filter of its receipts."""


@dataclass
class Published:
    """What was acknowledged so far."""

    messages: int = 0
    receipts: int = 0
    resent: int = 0
    reconnects: int = 0
    seconds: float = 0.0


class Publisher:
    """One connection that publishes in order, many in flight, and survives the broker's absence.

    Order: messages leave in the order given, and after a reconnect all unacknowledged ones leave
    again before any new one, so that the order of each topic's first arrivals is kept. With a book
    of receipts a message counts as unacknowledged until its receipt has come.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        gateway: Gateway | None = None,
        in_flight: int = 500,
        patience_s: float = 60.0,
        progress: Published | None = None,
        book: ReceiptBook | None = None,
    ) -> None:
        self._address = address
        self._gateway = gateway or Gateway()
        self._in_flight = in_flight
        self._patience_s = patience_s
        self.progress = progress or Published()
        # Not yet acknowledged, in the order in which they were given.
        self._kept: dict[int, Outgoing] = {}
        self._given = 0
        self._book = book
        # Without a receipt, whether acknowledged or not; and those of them that are sent again.
        self._unreceived: dict[int, Outgoing] = {}
        self._again: set[int] = set()

    async def publish_all(
        self,
        messages: Iterable[Outgoing] | asyncio.Queue[Outgoing | None],
        *,
        rate: float | None = None,
    ) -> None:
        """Publish all messages and return when the broker has acknowledged each of them.

        Args:
            messages: taken in a thread, a few ahead, so it may compute; or a queue that ends
                with None.
            rate: messages per second; None: as fast as the broker takes them.

        Raises: BrokerError when the broker stays away longer than ``patience_s``, or receipts do.
        """
        source: _ReadAhead | _Queued
        if isinstance(messages, asyncio.Queue):
            source = _Queued(messages)
        else:
            source = _ReadAhead(iter(messages))
        started = time.monotonic()
        away_since, patience_s = started, min(self._patience_s, FIRST_PATIENCE_S)
        finished = False
        while not finished:
            try:
                async with self._client() as client:
                    client.pending_calls_threshold = 10 * self._in_flight
                    away_since, patience_s = 0.0, self._patience_s
                    feed = _Feed(source, rate=rate, started=started)
                    await self._publish_connected(client, feed)
                    finished = True
                    source.raise_error()
            except (aiomqtt.MqttError, OSError) as exc:
                now = time.monotonic()
                away_since = away_since or now
                if now - away_since > patience_s:
                    raise BrokerError(
                        f"can't reach the broker at {self._address}: {exc}; "
                        "check CHARGEWATCH_MQTT_URL and that the broker runs"
                    ) from exc
                self.progress.reconnects += 1
                self._keep_unreceived(self._book or ())
                self.progress.resent += len(self._kept)
                await asyncio.sleep(0.3)
        self.progress.seconds = time.monotonic() - started

    def _client(self) -> aiomqtt.Client:
        address = self._address
        will = self._gateway.will
        client = aiomqtt.Client(
            address.host,
            address.port,
            username=self._gateway.username or address.username,
            password=address.password,
            identifier=self._gateway.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, 1, retain=True),
            tls_context=address.tls_context(),
            timeout=15,
            max_queued_outgoing_messages=0,
            max_inflight_messages=self._in_flight,
        )
        notice_early_close(client)
        return client

    async def _publish_connected(self, client: aiomqtt.Client, feed: _Feed) -> None:
        """Publish until the feed ends and everything is acknowledged; MqttError on a cut."""
        await self._subscribe(client)
        watch = asyncio.create_task(self._watch_connection(client))
        tasks: deque[asyncio.Task[None]] = deque()
        try:
            for number in list(self._kept):
                tasks.append(self._send(client, number))
            while True:
                while tasks and tasks[0].done():
                    tasks.popleft().result()
                for number in self._due():
                    tasks.append(self._send(client, number))
                while self._has_room():
                    fresh = await feed.next_due(watch)
                    if fresh is None:
                        break
                    tasks.append(self._send(client, self._take(fresh)))
                if not self._kept:
                    if not self._book:
                        return
                    await self._receipts_come(watch)
                if tasks:
                    await _first_acknowledged(tasks[0], watch)
                # The callback that forgets a message runs after the task that ended: let it.
                await asyncio.sleep(0)
        finally:
            watch.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(watch, *tasks, return_exceptions=True)

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        if self._book is None:
            return
        topic = self._gateway.receipts
        codes = await client.subscribe(topic, qos=1, timeout=15)
        if any(getattr(code, "value", code) >= 128 for code in codes):
            raise BrokerError(
                f"the broker at {self._address} doesn't let this user read {topic}: "
                "publish without --receipts, or allow it in the broker's access list"
            )

    async def _watch_connection(self, client: aiomqtt.Client) -> None:
        """Take receipts; end with MqttError on a cut, which a pending publish would not notice."""
        async for message in client.messages:
            if self._book is not None and isinstance(message.payload, bytes):
                for number in self._book.take(message.topic.value, message.payload):
                    del self._unreceived[number]
                    self.progress.receipts += 1

    def _has_room(self) -> bool:
        return len(self._kept) < self._in_flight and not (self._book and self._book.full)

    def _take(self, fresh: Outgoing) -> int:
        """Number a new message and keep it."""
        self._given += 1
        self._kept[self._given] = fresh
        if self._book is not None and self._book.expect(self._given, fresh.topic, fresh.payload):
            self._unreceived[self._given] = fresh
        return self._given

    def _keep_unreceived(self, numbers: Iterable[int]) -> None:
        """Treat messages as unacknowledged again."""
        again = set(numbers) - self._kept.keys()
        self._again |= again
        self._kept |= {number: self._unreceived[number] for number in again}
        self._kept = dict(sorted(self._kept.items()))

    def _due(self) -> list[int]:
        """Return messages that are sent again because their receipt is late."""
        if not self._book:
            return []
        due = [number for number in self._book.due() if number not in self._kept]
        self._keep_unreceived(due)
        for number in due:
            self._book.sent_again(number)
        self.progress.resent += len(due)
        return due

    async def _receipts_come(self, watch: asyncio.Task[None]) -> None:
        """Wait a moment for receipts; BrokerError when none has come for too long."""
        await asyncio.wait({watch}, timeout=0.1)
        if watch.done():
            watch.result()
        if self._book and self._book.silent_s > self._book.patience_s:
            raise BrokerError(
                f"{len(self._book)} messages have no receipt, and none came for "
                f"{self._book.patience_s:.0f} s: does `chargewatch ingest` run, and with "
                "CHARGEWATCH_RECEIPTS=all?"
            )

    def _send(self, client: aiomqtt.Client, number: int) -> asyncio.Task[None]:
        """Send a kept message; it is forgotten, and counted, at its PUBACK."""
        task = asyncio.create_task(_publish(client, self._kept[number]))

        def acknowledged(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                del self._kept[number]
                if number in self._again:
                    self._again.discard(number)
                else:
                    self.progress.messages += 1

        task.add_done_callback(acknowledged)
        return task


class _Feed:
    """New messages, read ahead in a thread, at a rate or at their due times."""

    def __init__(
        self,
        source: _ReadAhead | _Queued,
        *,
        rate: float | None,
        started: float,
    ) -> None:
        self._source = source
        self._rate = rate
        self._started = started
        self._rate_started = time.monotonic()
        self._given = 0

    async def next_due(self, watch: asyncio.Task[None]) -> Outgoing | None:
        """Return the next message when it is due, None when there are no more."""
        ahead = self._source.ahead
        if not ahead:
            await self._source.take(watch)
        if not ahead:
            return None
        due = self._started + ahead[0].due_s
        if self._rate:
            due = max(due, self._rate_started + self._given / self._rate)
        wait_s = due - time.monotonic()
        if wait_s > 0:
            await asyncio.wait({watch}, timeout=wait_s)
            if watch.done():
                watch.result()
        self._given += 1
        return ahead.popleft()


class _ReadAhead:
    """Takes a few messages at a time; an error of the source waits until they are sent."""

    def __init__(self, source: Iterator[Outgoing]) -> None:
        self._source = source
        self._error: ChargewatchError | None = None
        self.ahead: deque[Outgoing] = deque()

    async def take(self, watch: asyncio.Task[None]) -> None:
        """Fill ``ahead``; it stays empty at the end of the source or after its error."""
        del watch  # a source that computes is not waited for long
        await asyncio.to_thread(self._take)

    def _take(self) -> None:
        if self._error is not None:
            return
        try:
            for message in self._source:
                self.ahead.append(message)
                # One at a time when each has its own time: the first must not wait for the last.
                if message.due_s > 0 or len(self.ahead) >= READ_AHEAD:
                    break
        except ChargewatchError as exc:
            self._error = exc

    def raise_error(self) -> None:
        """Raise the error that ended the source, if there was one."""
        if self._error is not None:
            raise self._error


class _Queued:
    """Takes messages from a queue as they come."""

    def __init__(self, queue: asyncio.Queue[Outgoing | None]) -> None:
        self._queue = queue
        self._ended = False
        self.ahead: deque[Outgoing] = deque()

    async def take(self, watch: asyncio.Task[None]) -> None:
        """Wait for one message; ``ahead`` stays empty at the end. MqttError on a cut."""
        if self._ended:
            return
        get = asyncio.create_task(self._queue.get())
        try:
            await asyncio.wait({get, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not get.done():
                get.cancel()
        if get.done() and not get.cancelled():
            message = get.result()
            self._ended = message is None
            if message is not None:
                self.ahead.append(message)
        elif watch.done():
            watch.result()

    def raise_error(self) -> None:
        """A queue has no error of its own."""


async def _publish(client: aiomqtt.Client, message: Outgoing) -> None:
    properties: Any = None
    if message.content_type is not None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = message.content_type
    await client.publish(
        message.topic,
        message.payload,
        qos=1,
        retain=message.retain,
        properties=properties,
        timeout=math.inf,
    )


async def _first_acknowledged(oldest: asyncio.Task[None], watch: asyncio.Task[None]) -> None:
    await asyncio.wait({oldest, watch}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    if watch.done():
        watch.result()
    if not oldest.done():
        raise aiomqtt.MqttError("no PUBACK within 60 s")
    with suppress(asyncio.CancelledError):
        await oldest

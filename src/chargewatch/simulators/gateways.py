"""Publishes a city live: each station by its own gateway, or many behind shared connections."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from chargewatch.errors import ChargewatchError
from chargewatch.mqtt.address import BrokerAddress
from chargewatch.simulators.publisher import (
    Gateway,
    Outgoing,
    Published,
    Publisher,
    Will,
)
from chargewatch.simulators.receipts import ReceiptBook
from chargewatch.wire.kinds import Kind
from chargewatch.wire.topics import RECEIPT, is_retained
from chargewatch.wire.topics import topic as wire_topic

AHEAD = 2_000
"""Messages that are made ahead of the gateways."""
GATEWAY_QUEUE = 100
GATEWAY_IN_FLIGHT = 20


def timed(
    messages: Iterable[tuple[float, str, bytes]], *, speed: float | None
) -> Iterator[Outgoing]:
    """Yield messages with their due times, ``speed`` times as fast as they are (None: at once).

    Args:
        messages: (time in s, topic, payload) in order; the first is due at once.
        speed: 1 is real time.
    """
    first: float | None = None
    for at_s, topic, body in messages:
        first = at_s if first is None else first
        due = 0.0 if speed is None else max(0.0, (at_s - first) / speed)
        yield Outgoing(topic=topic, payload=body, retain=is_retained(topic), due_s=due)


def gateway_of(topic: str) -> Gateway:
    """Return the gateway of a topic's station: client id, user and last will of the contract."""
    _, _, operator, station, _ = topic.split("/")
    will = Will(topic=wire_topic(operator, station, Kind.STATUS), payload=b'{"online":false}')
    return Gateway(
        client_id=f"{operator}:{station}",
        username=operator,
        will=will,
        receipts=wire_topic(operator, station, RECEIPT),
    )


async def publish_by_gateways(
    messages: Iterable[Outgoing],
    address: BrokerAddress,
    *,
    own: bool,
    connections: int = 4,
    progress: Published | None = None,
    receipts: bool = False,
) -> Published:
    """Publish messages until they end; return what was acknowledged.

    Args:
        messages: in order of their due times.
        address: the broker.
        own: a connection, a client id and a last will for every station; else the stations are
            spread over ``connections`` connections. The order of a station's messages is kept.
        connections: number of shared connections.
        progress: is kept up to date.
        receipts: keep each message until its receipt; send again what has none.

    Raises: BrokerError when the broker stays away.
    """
    progress = progress or Published()
    if own:
        _allow_many_sockets()
    loop = asyncio.get_running_loop()
    started = loop.time()
    fleet = _Fleet(address, own=own, connections=connections, progress=progress, receipts=receipts)
    try:
        async with asyncio.TaskGroup() as group:
            await fleet.distribute(iter(messages), group)
    except* ChargewatchError as failed:
        raise _first_of(failed) from None
    progress.seconds = loop.time() - started
    return progress


def _first_of(group: BaseExceptionGroup[ChargewatchError]) -> ChargewatchError:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


class _Fleet:
    """The gateways of a city, started when their first message is due."""

    def __init__(
        self,
        address: BrokerAddress,
        *,
        own: bool,
        connections: int,
        progress: Published,
        receipts: bool,
    ) -> None:
        self._address, self._own, self._connections = address, own, connections
        self._progress, self._receipts = progress, receipts
        self._queues: dict[str, asyncio.Queue[Outgoing | None]] = {}

    async def distribute(self, source: Iterator[Outgoing], group: asyncio.TaskGroup) -> None:
        """Hand each message to its gateway when it is due, and end all gateways at the end."""
        started = asyncio.get_running_loop().time()
        while batch := await asyncio.to_thread(_next_batch, source):
            for message in batch:
                await _sleep_until(started + message.due_s)
                await self._queue_of(message, group).put(replace(message, due_s=0.0))
        for queue in self._queues.values():
            await queue.put(None)

    def _queue_of(
        self, message: Outgoing, group: asyncio.TaskGroup
    ) -> asyncio.Queue[Outgoing | None]:
        key = "/".join(message.topic.split("/")[2:4])
        if not self._own:
            key = str(hash_of(key) % self._connections)
        if key not in self._queues:
            self._queues[key] = asyncio.Queue(GATEWAY_QUEUE)
            publisher = Publisher(
                self._address,
                gateway=gateway_of(message.topic) if self._own else Gateway(),
                in_flight=GATEWAY_IN_FLIGHT if self._own else 500,
                progress=self._progress,
                book=ReceiptBook() if self._receipts else None,
            )
            group.create_task(publisher.publish_all(self._queues[key]))
        return self._queues[key]


def hash_of(text: str) -> int:
    """Return a number that is the same in every process, unlike hash()."""
    number = 0
    for byte in text.encode():
        number = (number * 131 + byte) % 2**31
    return number


def _next_batch(source: Iterator[Outgoing]) -> list[Outgoing]:
    first = next(source, None)
    if first is None:
        return []
    # What is due later is made one at a time, so that the first doesn't wait for the last.
    return [first] if first.due_s > 0 else [first, *islice(source, AHEAD - 1)]


async def _sleep_until(moment: float) -> None:
    wait_s = moment - asyncio.get_running_loop().time()
    if wait_s > 0:
        await asyncio.sleep(wait_s)


def _allow_many_sockets() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

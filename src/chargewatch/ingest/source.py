"""The only consumer of MQTT: messages come unacknowledged and are acknowledged on demand.

aiomqtt 2.5 acknowledges a message when it arrives and drops messages when its queue is full. Both
are put right here and nowhere else: paho below it is set to manual acknowledgement, and PUBLISH
packets are read from the socket without its callback. When a new version of either behaves
differently, tests/integration/test_ingest_source.py fails.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiomqtt
from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from chargewatch.errors import BrokerError
from chargewatch.ingest.broker import (
    KEEPALIVE_S,
    connection,
    reason_code,
    shown_id,
)
from chargewatch.ingest.message import Arrival
from chargewatch.ingest.outbox import Outbox
from chargewatch.ingest.packets import (
    CONNACK,
    PUBACK,
    PUBLISH,
    PacketError,
    PacketSplitter,
    Publication,
    puback_packets,
    read_connack,
    read_puback,
    read_publication,
)
from chargewatch.mqtt.address import BrokerAddress

log = logging.getLogger("chargewatch.ingest")

MAX_HELD_BYTES = 48 << 20
"""Bytes of messages held in memory at most; above, reading from the socket stops.

The receive maximum alone does not bound it: messages may have 1 MiB, and Mosquitto 2.0.11 sends
more than it once something has been acknowledged (measured: 15 with a maximum of 10).
"""

HELD_OVERHEAD_BYTES = 700
"""What a message takes besides its payload, about."""

QUICK_LOSSES = 8
"""So many connections in a row that held for less than a minute: is somebody else there?"""

READ_BYTES = 1 << 18
_SESSION_TAKEN_OVER = 0x8E
_FATAL_CONNACK = {0x85: "client id not valid", 0x86: "bad user name or password"} | {
    0x87: "not authorised",
    0x8A: "banned",
    0x8C: "bad authentication method",
}


@dataclass(frozen=True, slots=True)
class Handle:
    """What acknowledges one message; valid on the connection it came by only."""

    generation: int
    mid: int
    qos: int


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How to connect and what to subscribe to."""

    client_id: str
    filters: Sequence[str]
    receive_maximum: int
    session_expiry_s: int
    owns: Callable[[str], bool] = lambda topic: True
    leaving: bool = False  # give the subscription up and take what the session still holds


class MqttSource:
    """A persistent MQTT 5 session: hands over what arrives, acknowledges what was committed."""

    def __init__(
        self,
        address: BrokerAddress,
        options: SourceOptions,
        *,
        deliver: Callable[[Arrival], None],
        drop: Callable[[], None],
        count_receipts: Callable[[str, int], None] = lambda fate, number: None,
        contested: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        """Remember where to deliver; `drop` is called when what waits must be forgotten.

        contested: called with the client id when somebody else seems to have it; returns the one to
        go on with.
        """
        self.client_id = options.client_id
        self._contested = contested
        self._address = address
        self._options = options
        self._deliver = deliver
        self._drop = drop
        self._reading = True
        self._held_bytes = 0
        self.generation = 0
        self.unacknowledged = 0
        self._resume: Callable[[], None] | None = None
        self._outbox = Outbox(count=count_receipts)
        self._aliases: dict[int, str] = {}
        self.max_packet: int | None = None
        self._connected_before = False
        self._subscribed_before = False
        self._alive = False
        self._taken_over = 0
        self.connected = asyncio.Event()
        # The broker has confirmed the subscription; of a session to leave: that it is given up.
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        """Stay connected until cancelled; connect again whenever the connection is lost.

        Raises: BrokerError when the first connection fails, or when the broker refuses the log-in
        or the subscription.
        """
        attempt = 0
        while True:
            began = time.monotonic()
            try:
                await self._connection()
            except aiomqtt.MqttError as exc:
                self._explain(exc)
                log.warning("broker_away address=%s error=%s", self._address.label, exc)
            attempt = 0 if time.monotonic() - began > KEEPALIVE_S else attempt + 1
            await self._look_for_a_rival(attempt)
            # Full jitter: workers that lost the broker together do not come back together.
            await asyncio.sleep(random.uniform(0.05, min(10.0, 0.2 * 2**attempt)))  # noqa: S311

    async def _look_for_a_rival(self, attempt: int) -> None:
        """Ask for another client id when this one seems to be somebody else's too.

        Mosquitto 2.0.11 closes the older of two connections without a reason code (measured), so
        one loss after the other is a sign as well.
        """
        if self._contested is None or not (self._taken_over >= 2 or attempt >= QUICK_LOSSES):
            return
        self._taken_over = 0
        self.client_id = await self._contested(self.client_id)

    def _explain(self, error: aiomqtt.MqttError) -> None:
        """Raise BrokerError when trying again is of no use."""
        code = getattr(getattr(error, "rc", None), "value", None)
        where = self._address.label
        if code == _SESSION_TAKEN_OVER:
            self._taken_over += 1
            log.warning(
                "session_taken_over client_id=%s address=%s: another client has this client id",
                shown_id(self.client_id),
                where,
            )
        if not self._connected_before:
            what = _FATAL_CONNACK.get(code or 0, str(error))
            raise BrokerError(
                f"no connection to the broker at {where}: {what}; check CHARGEWATCH_MQTT_URL and "
                "that the broker runs (`chargewatch doctor`)"
            ) from error

    def _prepare(self, client: aiomqtt.Client) -> None:
        # The one place that makes acknowledgement ours.
        client._client.manual_ack_set(True)
        self._take_over_reader(client)

    async def _connection(self) -> None:
        """Hold one connection until it breaks."""
        # Messages may come before connecting has returned: the new generation starts now.
        self.generation += 1
        self._alive = True
        self._begin_generation()
        try:
            async with connection(
                self._address,
                self.client_id,
                clean_start=False,
                session_expiry_s=self._options.session_expiry_s,
                receive_maximum=self._options.receive_maximum,
                prepare=self._prepare,
            ) as client:
                log.info(
                    "broker_connected address=%s client_id=%s generation=%d",
                    self._address.label,
                    shown_id(self.client_id),
                    self.generation,
                )
                self._connected_before = True
                self.connected.set()
                await self._until_broken(client)
        finally:
            self.connected.clear()
            self.subscribed.clear()
            self._alive = False
            self._outbox.close()
            # What waits came by a connection that is gone: the broker sends it again.
            self._drop()
            self._begin_generation()

    def _begin_generation(self) -> None:
        self._held_bytes = 0
        self.unacknowledged = 0
        self._reading = True
        self._aliases = {}

    async def _until_broken(self, client: aiomqtt.Client) -> None:
        # SUBACK is not waited for: some brokers send it only after pending messages have been
        # acknowledged.
        subscribing = asyncio.create_task(self._subscribe(client))
        broken = client._disconnected
        try:
            while not broken.done():
                waits = {broken} if subscribing.done() else {broken, subscribing}
                await asyncio.wait(waits, timeout=1, return_when=asyncio.FIRST_COMPLETED)
                self._keep_alive_while_paused(client)
                self._outbox.tick()
                if subscribing.done() and not broken.done():
                    subscribing.result()
        finally:
            subscribing.cancel()
            await asyncio.gather(subscribing, return_exceptions=True)
        error = broken.exception()
        if error is None or isinstance(error, aiomqtt.MqttError):
            raise error or aiomqtt.MqttError("the broker closed the connection")
        raise aiomqtt.MqttError(str(error)) from error

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        options = SubscribeOptions(
            qos=1,
            # A station's retained status comes once, not after every reconnect.
            retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB,
        )
        if self._options.leaving:
            await client.unsubscribe(list(self._options.filters), timeout=math.inf)
            self.subscribed.set()
            return
        wanted = [(topic_filter, options) for topic_filter in self._options.filters]
        codes = await client.subscribe(wanted, timeout=math.inf)
        refused = [
            f"{topic_filter} ({code})"
            for (topic_filter, _), code in zip(wanted, codes, strict=True)
            if reason_code(code) >= 128
        ]
        if refused and self._subscribed_before:
            # It was allowed once: the broker's own source of rights may be away.
            raise aiomqtt.MqttError(f"the broker refuses the subscription of {', '.join(refused)}")
        if refused:
            raise BrokerError(
                f"the broker at {self._address.label} refuses the subscription of "
                f"{', '.join(refused)}: let user {self._address.username or '(anonymous)'} read "
                "cw/v1/# in the broker's access list"
            )
        log.info("subscribed filters=%s", " ".join(self._options.filters))
        self._subscribed_before = True
        self.subscribed.set()

    def _take_over_reader(self, client: aiomqtt.Client) -> None:
        """Read in large pieces, PUBLISH packets without paho, and stop when too much is held."""
        paho = client._client
        loop = asyncio.get_running_loop()
        generation = self.generation
        splitter = PacketSplitter(lambda first, body: self._on_packet(paho, first, body))

        def read() -> MQTTErrorCode:
            sock = paho.socket()
            if sock is None or generation != self.generation:
                return MQTTErrorCode.MQTT_ERR_NO_CONN
            try:
                data = sock.recv(READ_BYTES)
                splitter.feed(data)
            except (BlockingIOError, ssl.SSLWantReadError):
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            except PacketError as exc:
                log.error("broker_sent_nonsense error=%s", exc)
                return paho._loop_rc_handle(MQTTErrorCode.MQTT_ERR_PROTOCOL)
            except OSError:
                return paho._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            except Exception:
                # What was read and not delivered is lost here: the broker has to send it again.
                log.exception("broker_bytes_lost")
                return paho._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            if not data:
                return paho._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            paho._last_bytes_received = time.monotonic()
            if self._held_bytes > MAX_HELD_BYTES and self._reading:
                self._reading = False
                loop.remove_reader(sock)
            return MQTTErrorCode.MQTT_ERR_SUCCESS

        def resume() -> None:
            sock = paho.socket()
            if sock is not None:
                loop.add_reader(sock, paho.loop_read)
                paho.loop_read()

        # aiomqtt calls this whenever the socket has something.
        paho.loop_read = read  # type: ignore[method-assign,assignment]
        self._resume = resume

    def _on_packet(self, paho: Client, first_byte: int, body: bytes) -> None:
        kind = first_byte & 0xF0
        if kind == PUBLISH and first_byte & 0x06 != 0x04:
            self._on_publication(read_publication(first_byte, body))
            return
        if kind == PUBACK:
            self._outbox.acknowledged(*read_puback(body))
            return
        if kind == CONNACK:
            self._on_connack(paho, body)
        packet: Any = paho._in_packet
        packet.update(command=first_byte, remaining_length=len(body), packet=bytearray(body))
        try:
            code = paho._packet_handle()
        finally:
            packet.update(command=0, remaining_length=0, packet=bytearray())
        if code > 0:
            paho._loop_rc_handle(code)

    def _on_connack(self, paho: Client, body: bytes) -> None:
        told = read_connack(body)
        if told.refused:
            return  # aiomqtt tells it; a receipt sent now would be taken for the cause
        if self._connected_before and not told.session_present:
            log.warning("session_lost: the broker has forgotten it; see the ledger's gaps")
        if told.keepalive_s:
            # paho keeps to its own; a broker that wants to hear more often would cut it off.
            paho._keepalive = min(paho._keepalive, max(1, told.keepalive_s // 2))
        self.max_packet = told.max_packet
        # paho writes the bytes as one packet; which kind they are concerns it not.
        self._outbox.open(
            lambda data: _discard(paho._packet_queue(PUBACK, data, 0, 1)),
            window=told.receive_maximum,
            max_packet=told.max_packet,
        )

    def _keep_alive_while_paused(self, client: aiomqtt.Client) -> None:
        # PINGRESP waits behind the unread data: paho must not take that for a dead broker.
        if not self._reading:
            client._client._last_bytes_received = time.monotonic()

    def _topic_of(self, publication: Publication) -> str:
        # No alias was asked for; a broker that uses one all the same is understood.
        if publication.alias and publication.topic:
            self._aliases[publication.alias] = publication.topic
        return publication.topic or self._aliases.get(publication.alias, "")

    def _on_publication(self, publication: Publication) -> None:
        topic = self._topic_of(publication)
        if topic.startswith("$") and not publication.qos:
            return  # a session of version 0.1.0 has the broker's own figures among its topics
        foreign = not self._options.owns(topic)
        payload = b"" if foreign else publication.payload
        self._held_bytes += len(payload) + HELD_OVERHEAD_BYTES
        self.unacknowledged += 1
        self._deliver(
            Arrival(
                topic,
                payload,
                publication.content_type,
                time.time_ns() // 1000,
                Handle(self.generation, publication.mid, publication.qos),
                foreign,
            )
        )

    def is_current(self, arrival: Arrival) -> bool:
        """Return whether a message can still be acknowledged."""
        handle = arrival.handle
        return self._alive and handle is not None and handle.generation == self.generation

    def finish(self, arrivals: Iterable[Arrival], receipts: Sequence[tuple[str, bytes]]) -> int:
        """Send receipts, then acknowledge committed messages in order; return how many were.

        Those of a lost connection are left out: the broker sends them again.
        """
        mids, size = [], 0
        for arrival in arrivals:
            if self.is_current(arrival):
                self.unacknowledged -= 1
                size += len(arrival.payload) + HELD_OVERHEAD_BYTES
                if arrival.handle.qos:
                    mids.append(arrival.handle.mid)
        self._held_bytes -= size
        self._outbox.put(receipts, puback_packets(mids))
        if not self._reading and self._held_bytes < MAX_HELD_BYTES // 2:
            self._reading = True
            if self._resume is not None:
                self._resume()
        return len(mids)

    @property
    def unsent(self) -> int:
        """Number of receipts and acknowledgements that the broker has not taken yet."""
        return self._outbox.pending


def _discard(_: object) -> None:
    """Return nothing: what went wrong with a write, the reader finds out."""

"""A gateway's connection: publishes at QoS 1 and hears its receipts; imports aiomqtt for both."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from chargewatch.errors import BrokerError, ChargewatchError
from chargewatch.mqtt.address import BrokerAddress
from chargewatch.mqtt.early_close import notice_early_close

PUBACK_PATIENCE_S = 30.0
IN_FLIGHT = 100
"""Messages written without PUBACK."""

SESSION_EXPIRY_S = 7 * 86_400
TAKEN_OVER = 0x8E
_REFUSED = {0x85: "client id not valid", 0x86: "bad user name or password"} | {
    0x87: "not authorised",
    0x8A: "banned",
}


class LinkLostError(ChargewatchError):
    """The connection to the broker is gone or could not be made; trying again is of use."""

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.taken_over = code == TAKEN_OVER
        self.refused = _REFUSED.get(code, "")


@dataclass(frozen=True, kw_only=True)
class LinkOptions:
    """Who connects, and what is said when the link is lost."""

    client_id: str
    username: str
    receipt_topic: str
    will_topic: str
    will_payload: bytes
    keepalive_s: int


class Connection:
    """One connection, until it breaks: every call may raise LinkLostError."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and return at the PUBACK."""
        with _link_errors():
            await self._client.publish(
                topic, payload, qos=1, retain=retain, timeout=PUBACK_PATIENCE_S
            )

    async def receipts(self) -> AsyncIterator[bytes]:
        """Yield payloads of the receipt topic; ends with LinkLostError only."""
        with _link_errors():
            async for message in self._client.messages:
                if isinstance(message.payload, bytes):
                    yield message.payload
        raise LinkLostError("the connection was closed")


@contextlib.contextmanager
def _link_errors() -> Iterator[None]:
    try:
        yield
    except (aiomqtt.MqttError, OSError) as exc:
        raise LinkLostError(str(exc), code=_reason(exc)) from exc


def _reason(error: BaseException | None) -> int:
    """Return the broker's reason code: it may stand in the cause of the library's error."""
    while error is not None:
        code = getattr(getattr(error, "rc", None), "value", 0)
        if code in _REFUSED or code == TAKEN_OVER:
            return int(code)
        error = error.__cause__
    return 0


class Link:
    """Makes connections with a session that outlives them."""

    def __init__(self, address: BrokerAddress, options: LinkOptions) -> None:
        self._address, self._options = address, options

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Yield a connection that hears its receipts.

        Raises: LinkLostError; BrokerError when the broker lets nobody read the receipts.
        """
        try:
            async with contextlib.AsyncExitStack() as stack:
                with _link_errors():
                    client = await stack.enter_async_context(self._client())
                    client.pending_calls_threshold = 10 * IN_FLIGHT
                    await self._subscribe(client)
                yield Connection(client)
        except aiomqtt.MqttError as exc:
            # Closing a connection that broke: everything else was told apart above.
            raise LinkLostError(str(exc), code=_reason(exc)) from exc

    def _client(self) -> aiomqtt.Client:
        address, options = self._address, self._options
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        client = aiomqtt.Client(
            address.host,
            address.port,
            username=address.username or options.username,
            password=address.password,
            identifier=options.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            # Receipts that come while the gateway is away wait for it.
            clean_start=False,
            properties=properties,
            will=aiomqtt.Will(options.will_topic, options.will_payload, 1, retain=True),
            keepalive=options.keepalive_s,
            tls_context=address.tls_context(),
            timeout=15,
            max_inflight_messages=IN_FLIGHT,
            max_queued_outgoing_messages=0,
        )
        notice_early_close(client)
        return client

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        topic = self._options.receipt_topic
        codes = await client.subscribe(topic, qos=1, timeout=PUBACK_PATIENCE_S)
        if any(getattr(code, "value", code) >= 128 for code in codes):
            raise BrokerError(
                f"the broker at {self._address} doesn't let {self._options.client_id} read "
                f"{topic}: without receipts nothing may be deleted; allow it in the broker's "
                "access list"
            )

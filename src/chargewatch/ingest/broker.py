"""Connections to the broker, of whatever kind: address, log-in, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from chargewatch.errors import BrokerError
from chargewatch.mqtt.address import BrokerAddress
from chargewatch.mqtt.early_close import notice_early_close

log = logging.getLogger("chargewatch.ingest")
_library_log = logging.getLogger("chargewatch.ingest.mqtt")
# aiomqtt tells of answers that came after nobody waited for them, with a traceback.
_library_log.setLevel(logging.CRITICAL)

KEEPALIVE_S = 60
CONNECT_S = 10.0
GOODBYE_S = 2.0


@contextlib.asynccontextmanager
async def connection(
    address: BrokerAddress,
    client_id: str,
    *,
    clean_start: bool,
    session_expiry_s: int = 0,
    receive_maximum: int | None = None,
    prepare: Callable[[aiomqtt.Client], None] = lambda _: None,
) -> AsyncIterator[aiomqtt.Client]:
    """Hold one MQTT 5 connection; `prepare` is called before it is opened.

    Raises: aiomqtt.MqttError when it can't be opened, or breaks.
    """
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = session_expiry_s
    if receive_maximum is not None:
        properties.ReceiveMaximum = min(receive_maximum, 65_535)
    client = aiomqtt.Client(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        identifier=client_id,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=clean_start,
        properties=properties,
        keepalive=KEEPALIVE_S,
        tls_context=address.tls_context(),
        timeout=CONNECT_S,
        logger=_library_log,
    )
    notice_early_close(client)
    prepare(client)

    def close_late(opened: asyncio.Future[aiomqtt.Client]) -> None:
        if not opened.cancelled():
            opened.exception()  # of no use to anybody any more
        client._client._sock_close()

    opening = asyncio.ensure_future(client.__aenter__())
    try:
        await asyncio.shield(opening)
        heed_cancellation()
    except asyncio.CancelledError:
        # Its thread can't be stopped: a connection that comes about all the same is closed then.
        opening.add_done_callback(close_late)
        raise
    except aiomqtt.MqttError:
        # aiomqtt leaves the socket open when the broker does not answer.
        client._client._sock_close()
        raise
    try:
        yield client
    finally:
        # A broker that hangs must not hold the end up.
        client.timeout = GOODBYE_S
        try:
            await client.__aexit__(None, None, None)
        except aiomqtt.MqttError as exc:
            log.debug("goodbye_failed error=%s", exc)
        finally:
            client._client._sock_close()
        heed_cancellation()


def heed_cancellation() -> None:
    """End the task if it was cancelled.

    `asyncio.wait_for`, which aiomqtt waits with, loses a cancellation that comes together with
    what it waits for (Python 3.11): to be asked after every call of aiomqtt that waits.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end_session(address: BrokerAddress, client_id: str) -> None:
    """Make the broker forget a session that has been emptied."""
    try:
        async with connection(address, client_id, clean_start=True):
            log.info("session_ended client_id=%s", shown_id(client_id))
    except aiomqtt.MqttError as exc:
        raise BrokerError(f"the session {shown_id(client_id)} could not be ended: {exc}") from exc


def shown_id(client_id: str) -> str:
    """Return a client id as a log may have it: without most of what can't be guessed."""
    return re.sub(r"(?<=-[0-9a-f]{6})[0-9a-f]{26}$", "...", client_id)


def reason_code(code: Any) -> int:
    """Return a reason code of MQTT 5 as number, whatever the library made of it."""
    return int(getattr(code, "value", code))

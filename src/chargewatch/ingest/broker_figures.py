"""The broker's own figures, on a connection that ingest can lose.

They are a luxury: rumqttd closes the connection without a word at any filter that begins with `$`,
others refuse it or know no such topic, and a broker that makes the client id out of the user name
lets one connection push out the other. So the subscription that messages come by is never put at
risk: the figures have a connection of their own, tried only after the contract's subscription is
complete, and what went wrong once is never tried again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import time
from collections.abc import Callable

import aiomqtt

from chargewatch.ingest.broker import (
    CONNECT_S,
    connection,
    heed_cancellation,
    reason_code,
)
from chargewatch.ingest.source import MqttSource
from chargewatch.mqtt.address import BrokerAddress

log = logging.getLogger("chargewatch.ingest")

QUEUE_TOPIC = "$SYS/broker/store/messages/count"
WORTH_REOPENING_S = 60.0
"""A connection that held so long is opened again after a loss."""


async def watch_broker_queue(
    address: BrokerAddress, source: MqttSource, take: Callable[[float], None]
) -> None:
    """Hand over how many messages the broker holds, for as long as it tells; then return."""
    began = -math.inf
    refusal = ""
    while not refusal:
        await source.subscribed.wait()
        generation, began = source.generation, time.monotonic()
        try:
            refusal = await _watch(address, take)
        except aiomqtt.MqttError as exc:
            refusal = "" if time.monotonic() - began > WORTH_REOPENING_S else str(exc)
        take(math.nan)
        if source.generation != generation and time.monotonic() - began <= WORTH_REOPENING_S:
            refusal = refusal or "ingest's own connection was lost meanwhile"
    log.info("broker_figures_unavailable reason=%s; they are not asked for again", refusal)


async def _watch(address: BrokerAddress, take: Callable[[float], None]) -> str:
    """Follow the figure until the connection breaks; return why the broker refuses it."""
    client_id = f"figures-{secrets.token_hex(12)}"
    async with connection(address, client_id, clean_start=True) as client:
        codes = await client.subscribe(QUEUE_TOPIC, qos=0, timeout=CONNECT_S)
        heed_cancellation()
        if any(reason_code(code) >= 0x80 for code in codes):
            return f"the broker refuses {QUEUE_TOPIC}"
        async for message in client.messages:
            with contextlib.suppress(ValueError, TypeError):
                take(float(message.payload))
        return ""

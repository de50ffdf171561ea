"""A gateway for tests: publishes at QoS 1 and listens to its receipts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomqtt
import orjson
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Gateway:
    """One station's gateway with its counters of seq."""

    def __init__(self, url: str, operator_id: str, station_id: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 1883
        self.user = unquote(parts.username) if parts.username else None
        self.password = unquote(parts.password) if parts.password else None
        self.operator_id, self.station_id = operator_id, station_id
        self.seqs: dict[str, int] = {}
        self._client = self.client(f"{operator_id}:{station_id}")

    def client(self, identifier: str) -> aiomqtt.Client:
        return aiomqtt.Client(
            self.host,
            self.port,
            username=self.user,
            password=self.password,
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V5,
        )

    async def __aenter__(self) -> Gateway:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._client.__aexit__(*error)

    def topic(self, kind: str) -> str:
        return f"cw/v1/{self.operator_id}/{self.station_id}/{kind}"

    async def send(self, kind: str, *, seq: int | None = None, **content: Any) -> int:
        """Publish a message with the next seq, or a given one; return it."""
        number = self.seqs.get(kind, 0) + 1 if seq is None else seq
        self.seqs[kind] = number
        envelope = {"seq": number, "sent_at": datetime.now(UTC).isoformat()}
        await self.send_bytes(kind, orjson.dumps(envelope | content))
        return number

    async def send_bytes(
        self, kind: str, payload: bytes, *, content_type: str | None = None
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        if content_type:
            properties.ContentType = content_type
        await self._client.publish(self.topic(kind), payload, qos=1, properties=properties)


Receipts = Callable[[int], Awaitable[list[dict[str, Any]]]]


@asynccontextmanager
async def listen_to_receipts(gateway: Gateway) -> AsyncIterator[Receipts]:
    """Yield a function that waits for so many receipts and returns them, in order."""
    got: list[dict[str, Any]] = []
    async with gateway.client("receipts") as client:
        await client.subscribe(gateway.topic("receipt"), qos=1)

        async def listen() -> None:
            async for message in client.messages:
                got.extend(orjson.loads(message.payload)["receipts"])

        task = asyncio.create_task(listen())

        async def receipts(count: int) -> list[dict[str, Any]]:
            async with asyncio.timeout(10):
                while len(got) < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            return list(got)

        try:
            yield receipts
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

"""A running ingest among stations, one of which sends what breaks others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiomqtt
import asyncpg
import orjson
import pytest
from tests.integration.ingest_gateway import Gateway

from chargewatch.ingest.service import IngestService
from chargewatch.settings import Settings, load_settings

DEADLINE_S = 30.0

NOW = datetime.now(UTC)


def iso(seconds: float = 0.0) -> str:
    return (NOW - timedelta(hours=1) + timedelta(seconds=seconds)).isoformat()


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@dataclass
class City:
    """A running ingest, its broker and its database, and the receipts that came."""

    url: str
    settings: Settings
    database: asyncpg.Connection
    receipts: dict[tuple[str, Any], list[dict[str, Any]]]
    good: int = 0
    sent: int = 0

    @contextlib.asynccontextmanager
    async def ingest(self) -> AsyncIterator[IngestService]:
        running = IngestService(self.settings)
        task = asyncio.create_task(running.run())
        try:
            yield running
        finally:
            running.stop()
            await task

    async def until(self, found: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not await found():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"within {DEADLINE_S:g} s not seen: {what}")

    async def send_good(self, gateway: Gateway) -> None:
        """Send a good message and wait until it is committed."""
        self.good += 1
        item = {"connector": "G1", "at": iso(self.good), "energy_wh": self.good}
        await gateway.send("registers", readings=[item])
        await self.until(
            lambda: self.stored("G1", self.good), f"good message {self.good} committed"
        )

    async def stored(self, connector: str, energy_wh: float) -> bool:
        return bool(
            await self.database.fetchval(
                "SELECT count(*) FROM register_reading JOIN connector USING (connector_id) "
                "WHERE connector = $1 AND energy_wh = $2",
                connector,
                float(energy_wh),
            )
        )

    async def receipt(self, station: str, seq: int | None) -> dict[str, Any]:
        async def there() -> bool:
            return bool(self.receipts.get((station, seq)))

        await self.until(there, f"receipt of {station} {seq}")
        return self.receipts[station, seq][0]


@contextlib.asynccontextmanager
async def running_city(broker_url: str, database_url: str) -> AsyncIterator[City]:
    """Yield a city with a database and somebody who reads all receipts; ingest isn't started."""
    settings = replace(
        load_settings({}), mqtt_url=broker_url, database_url=database_url, batch_ms=100
    )
    database = await asyncpg.connect(database_url)
    receipts: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    async with Gateway(broker_url, "OP1", "EAR").client("ear") as ear:
        await ear.subscribe("cw/v1/+/+/receipt", qos=1)
        listening = asyncio.create_task(_listen(ear, receipts))
        yield City(broker_url, settings, database, receipts)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    await database.close()


async def _listen(
    ear: aiomqtt.Client, receipts: dict[tuple[str, Any], list[dict[str, Any]]]
) -> None:
    async for got in ear.messages:
        station = str(got.topic).split("/")[3]
        for receipt in orjson.loads(got.payload)["receipts"]:
            receipts.setdefault((station, receipt["seq"]), []).append(receipt)


async def until_subscribed(city: City, gateway: Gateway) -> None:
    """Send until the first message is committed: what came before the subscription is lost."""

    async def hello() -> bool:
        await gateway.send("status", online=True)
        await asyncio.sleep(0.1)
        query = "SELECT count(*) FROM ledger_stream WHERE topic = 'status'"
        return bool(await city.database.fetchval(query))

    await city.until(hello, "subscribed")


async def balanced(database: asyncpg.Connection) -> dict[str, int]:
    """Return the books of all stations BAD, having checked that they balance and agree."""
    row = await database.fetchrow(
        "SELECT sum(messages)::int AS messages, sum(received)::int AS received, "
        "sum(stored)::int AS stored, sum(duplicate)::int AS duplicate, "
        "sum(rejected)::int AS rejected, "
        "bool_and(received = stored + duplicate + rejected) AS balanced FROM ledger_stream "
        "WHERE topic <> 'status'"
    )
    assert row["balanced"]
    single = await database.fetchval(
        "SELECT count(*) FROM message_ledger JOIN ledger_stream USING (stream_id) "
        "WHERE topic <> 'status'"
    )
    assert single == row["messages"]
    return dict(row)

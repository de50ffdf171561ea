"""The real service inside the test's process, so that a test sees its figures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.ingest_gateway import Gateway

from chargewatch.ingest.service import IngestService
from chargewatch.ingest.shards import Shard
from chargewatch.settings import load_settings


@asynccontextmanager
async def serving(
    url: str,
    database_url: str,
    *,
    shard: Shard = Shard(),  # noqa: B008 - frozen
    **settings: Any,
) -> AsyncIterator[IngestService]:
    """Run the real service in this process, and end it cleanly."""
    names = {"mqtt_url": url, "database_url": database_url, "batch_ms": 50} | settings
    environment = {f"CHARGEWATCH_{name.upper()}": str(value) for name, value in names.items()}
    service = IngestService(load_settings(environment), shard=shard)
    task = asyncio.create_task(service.run())
    try:
        await until(lambda: task.done() or service._source.subscribed.is_set())
        yield service
    finally:
        service.stop()
        async with asyncio.timeout(30):
            await task


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def publish(gateway: Gateway, count: int) -> None:
    begun = datetime.now(UTC) - timedelta(days=1)
    for number in range(count):
        at = (begun + timedelta(seconds=number)).isoformat()
        reading = {"connector": f"{gateway.station_id}-1", "at": at, "energy_wh": number}
        await gateway.send("registers", readings=[reading])


def figure(service: IngestService, name: str, **labels: str) -> float:
    value = service.metrics.registry.get_sample_value(name, labels)
    assert value is not None
    return value


def finished(name: str) -> bool:
    return all(task.get_name() != name or task.done() for task in asyncio.all_tasks())

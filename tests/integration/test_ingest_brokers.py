"""Ingest and the brokers it meets: what one of them can't do costs nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from tests.integration.ingest_gateway import Gateway

from chargewatch.ingest.service import IngestService
from chargewatch.ingest.shards import Shard
from chargewatch.local import broker as broker_module
from chargewatch.local.broker import EmbeddedBroker
from chargewatch.local.processes import temporary_folder
from chargewatch.settings import load_settings


@asynccontextmanager
async def serving(url: str, database_url: str, **settings: Any) -> AsyncIterator[IngestService]:
    """Run the real service in this process, and end it cleanly."""
    names = {"mqtt_url": url, "database_url": database_url, "batch_ms": 50} | settings
    environment = {f"CHARGEWATCH_{name.upper()}": str(value) for name, value in names.items()}
    service = IngestService(load_settings(environment), shard=Shard())
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


def figure(service: IngestService, name: str) -> float:
    value = service.metrics.registry.get_sample_value(name)
    assert value is not None
    return value


def finished(name: str) -> bool:
    return all(task.get_name() != name or task.done() for task in asyncio.all_tasks())


BROKERS = {
    # name: (program, more configuration, generations of the main connection, tells its queue)
    "mosquitto": ("mosquitto", "", 1, True),
    "rumqttd": ("rumqttd", "", 1, False),
    "user name as client id": ("mosquitto", "use_username_as_clientid true\n", 2, False),
}


@pytest.mark.parametrize("name", list(BROKERS))
async def test_the_brokers_own_figures_never_cost_a_message(
    name: str, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    program, more, generations, tells = BROKERS[name]
    text = broker_module.MOSQUITTO_CONFIGURATION + more + "sys_interval 1\n"
    monkeypatch.setattr(broker_module, "MOSQUITTO_CONFIGURATION", text)
    with (
        temporary_folder() as folder,
        EmbeddedBroker(folder, operators=["OP1"], program=program) as broker,
    ):
        async with serving(broker.url, database_url) as service:
            if tells:
                await until(
                    lambda: (
                        not math.isnan(figure(service, "chargewatch_ingest_broker_stored_messages"))
                    )
                )
            else:
                await until(lambda: finished("figures"))
            await until(service._source.subscribed.is_set)
            async with Gateway(broker.url_of("OP1"), "OP1", "ST1") as gateway:
                await publish(gateway, 50)
            await until(lambda: service.totals.messages >= 50)
            assert service._source.generation == generations
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM register_reading") == 50
    await connection.close()

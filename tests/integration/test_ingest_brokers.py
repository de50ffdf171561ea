"""Ingest and the brokers it meets: what one of them can't do costs nothing."""

from __future__ import annotations

import math

import asyncpg
import pytest
from tests.integration.ingest_gateway import Gateway
from tests.integration.ingest_service import figure, finished, publish, serving, until

from chargewatch.local import broker as broker_module
from chargewatch.local.broker import EmbeddedBroker
from chargewatch.local.processes import temporary_folder

BROKERS = {
    # name: (program, more configuration, generations of the main connection, tells its queue)
    "mosquitto": ("mosquitto", "", 1, True),
    "rumqttd": ("rumqttd", "", 1, False),
    "user name as client id": ("mosquitto", "use_username_as_clientid true\n", 2, False),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.mosquitto if broker[0] == "mosquitto" else ())
        for name, broker in BROKERS.items()
    ],
)
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

"""deploy/mosquitto is what a real Mosquitto takes, and keeps operators apart."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

import aiomqtt
import pytest
from tests.integration.production_mosquitto import DEPLOY

from chargewatch.wire.kinds import Kind


def client(url: str, user: str) -> aiomqtt.Client:
    return aiomqtt.Client(
        "127.0.0.1",
        urlsplit(url).port or 0,
        username=user,
        password=f"pw-{user}",
        identifier=f"{user}:S1",
        protocol=aiomqtt.ProtocolVersion.V5,
        timeout=10,
    )


@pytest.mark.mosquitto
async def test_operators_are_kept_apart(production_broker: str) -> None:
    async with (
        client(production_broker, "platform") as platform,
        client(production_broker, "OP1") as gateway,
    ):
        await platform.subscribe("cw/v1/#", qos=1)
        for topic in (*Kind, "receipt"):
            await gateway.publish(f"cw/v1/OP2/S1/{topic}", b"{}", qos=1)
        for topic in Kind:
            await gateway.publish(f"cw/v1/OP1/S1/{topic}", b"{}", qos=1)
        arrived = [(await asyncio.wait_for(anext(aiter(platform.messages)), 5)).topic.value]
        arrived += [
            (await asyncio.wait_for(anext(aiter(platform.messages)), 5)).topic.value
            for _ in list(Kind)[1:]
        ]
    assert arrived == [f"cw/v1/OP1/S1/{topic}" for topic in Kind]


def test_every_number_of_the_configuration_is_explained() -> None:
    text = (DEPLOY / "chargewatch.conf").read_text()
    options = re.findall(r"^([a-z_]+) \d+[a-z]?$", text, flags=re.MULTILINE)
    operating = (DEPLOY.parents[1] / "docs" / "operating.md").read_text()
    options.remove("listener")
    assert "max_queued_messages" in options
    assert [option for option in options if f"`{option}`" not in operating] == []

"""Receipts through real Mosquitto: complete, bounded, and never in the way of anything else."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import asyncpg
import orjson
import pytest
from tests.integration.ingest_gateway import Gateway
from tests.integration.ingest_packet_proxy import PacketProxy, encoded
from tests.integration.ingest_service import figure, publish, serving, until

from chargewatch.ingest.packets import CONNACK, PUBACK, PUBLISH, read_puback, read_publication
from chargewatch.ingest.service import IngestService
from chargewatch.local import broker as broker_module
from chargewatch.local.broker import EmbeddedBroker
from chargewatch.local.processes import temporary_folder

PINGREQ = 0xC0
FATES = "chargewatch_ingest_receipt_messages_total"


class Listener:
    """Everything that came on receipt topics."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.receipts: list[dict[str, Any]] = []
        self.stations: list[str] = []


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Listener]:
    heard = Listener()
    async with Gateway(url, "OP1", "LISTENER").client("listener") as client:
        await client.subscribe("cw/v1/+/+/receipt", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                receipts = orjson.loads(message.payload)["receipts"]
                heard.payloads.append(message.payload)
                heard.receipts += receipts
                heard.stations += [message.topic.value.split("/")[3]] * len(receipts)

        task = asyncio.create_task(listen())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def bad_readings(count: int) -> list[dict[str, Any]]:
    return [{"connector": "C", "at": "2026-03-01T08:15:00", "energy_wh": -1} for _ in range(count)]


async def until_acknowledged(service: IngestService, messages: int) -> None:
    """Wait until so many are committed and nothing is held any more."""
    await until(lambda: service.totals.messages >= messages)
    await until(lambda: service._source.unacknowledged == 0 and service._source.unsent == 0)


@pytest.mark.parametrize("max_packet", [2_097_152, 20_000])
@pytest.mark.mosquitto
async def test_a_storm_of_bad_readings_is_acknowledged_and_told_in_seconds(
    max_packet: int, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    text = broker_module.MOSQUITTO_CONFIGURATION.replace("{max_payload}", str(max_packet))
    monkeypatch.setattr(broker_module, "MOSQUITTO_CONFIGURATION", text)
    with (
        temporary_folder() as folder,
        EmbeddedBroker(folder, anonymous=True, program="mosquitto") as broker,
    ):
        async with serving(broker.url, database_url):
            pass  # the session is there
        async with Gateway(broker.url, "OP1", "STORM") as storm:
            for _ in range(500):
                await storm.send("registers", readings=bad_readings(100))
        started = time.monotonic()
        async with (
            listening(broker.url) as heard,
            Gateway(broker.url, "OP1", "GOOD") as good,
            serving(broker.url, database_url) as service,
        ):
            await publish(good, 5)
            await until_acknowledged(service, 505)
            await until(lambda: len(heard.receipts) == 505)
            assert time.monotonic() - started < 30
            assert service.totals.messages == 505
            assert service._source.generation == 1
    assert max(map(len, heard.payloads)) <= min(64 << 10, max_packet)
    told = [receipt for receipt in heard.receipts if receipt["rejected"]]
    assert sorted(receipt["seq"] for receipt in told) == list(range(1, 501))
    assert {(r["rejected"], len(r["errors"])) for r in told} == {(100, 100)}


@pytest.mark.mosquitto
async def test_one_receipt_that_is_longer_than_the_broker_takes_is_shortened(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    text = broker_module.MOSQUITTO_CONFIGURATION.replace("{max_payload}", "1000")
    monkeypatch.setattr(broker_module, "MOSQUITTO_CONFIGURATION", text)
    with (
        temporary_folder() as folder,
        EmbeddedBroker(folder, anonymous=True, program="mosquitto") as broker,
    ):
        async with (
            listening(broker.url) as heard,
            Gateway(broker.url, "OP1", "ST") as gateway,
            serving(broker.url, database_url) as service,
        ):
            await gateway.send("registers", readings=[{} for _ in range(250)])
            await until(lambda: len(heard.receipts) == 1)
            await until_acknowledged(service, 1)
            assert service._source.generation == 1
    (receipt,) = heard.receipts
    assert receipt["rejected"] == 250
    assert 5 < len(receipt["errors"]) < 100
    assert len(heard.payloads[0]) <= 1000


def receipt_station(first: int, body: bytes) -> str:
    """Return the station of a receipt in a packet, "" when it is none."""
    if first & 0xF0 != PUBLISH:
        return ""
    parts = read_publication(first, body).topic.split("/")
    return parts[3] if parts[-1] == "receipt" else ""


async def test_a_broker_that_cuts_at_one_stations_receipts_does_not_loop(
    broker_url: str, database_url: str
):
    async with PacketProxy.to(broker_url) as proxy:
        proxy.from_client = lambda first, body: (
            None if receipt_station(first, body) == "BAD" else encoded(first, body)
        )
        async with (
            listening(broker_url) as heard,
            Gateway(broker_url, "OP1", "BAD") as bad,
            Gateway(broker_url, "OP1", "GOOD") as good,
            serving(proxy.url, database_url) as service,
        ):
            for _ in range(3):
                await publish(bad, 3)
                await publish(good, 3)
            await until(lambda: {*heard.stations} == {"GOOD"})
            await until(lambda: len({receipt["seq"] for receipt in heard.receipts}) == 9)
            await until(lambda: service._source.unacknowledged == 0)
            generation = service._source.generation
            assert generation <= 5
            await publish(bad, 3)
            await publish(good, 3)
            await until(lambda: len({receipt["seq"] for receipt in heard.receipts}) == 12)
            await until(lambda: service._source.unacknowledged == 0)
            assert service._source.generation == generation
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM register_reading") == 24
    await connection.close()


async def test_a_broker_that_takes_no_receipts_at_all_gets_none_and_loses_nothing(
    broker_url: str, database_url: str
):
    async with PacketProxy.to(broker_url) as proxy:
        proxy.from_client = lambda first, body: (
            None if receipt_station(first, body) else encoded(first, body)
        )
        async with serving(proxy.url, database_url) as service:
            for number in range(6):
                async with Gateway(broker_url, "OP1", f"ST{number}") as gateway:
                    await publish(gateway, 5)
            await until(lambda: service.totals.stored == 30)
            await until(lambda: service._source.unacknowledged == 0)
            await until(service._source.subscribed.is_set)
            generation = service._source.generation
            assert generation <= 8
            async with Gateway(broker_url, "OP1", "LATER") as gateway:
                await publish(gateway, 5)
            await until(lambda: service.totals.stored == 35)
            await until(lambda: service._source.unacknowledged == 0)
            assert service._source.generation <= generation + 1


async def test_a_broker_that_never_acknowledges_receipts_holds_nothing_up(
    broker_url: str, database_url: str
):
    receipts: set[int] = set()

    def from_client(first: int, body: bytes) -> bytes:
        if receipt_station(first, body):
            receipts.add(read_publication(first, body).mid)
        return encoded(first, body)

    def from_broker(first: int, body: bytes) -> bytes:
        silent = first & 0xF0 == PUBACK and read_puback(body)[0] in receipts
        return b"" if silent else encoded(first, body)

    async with PacketProxy.to(broker_url) as proxy:
        proxy.from_client, proxy.from_broker = from_client, from_broker
        async with serving(proxy.url, database_url, receive_maximum=20) as service:
            async with Gateway(broker_url, "OP1", "ST") as gateway:
                started = time.monotonic()
                for _ in range(10):
                    await publish(gateway, 200)
                await until(lambda: service.totals.messages == 2_000)
                await until(lambda: service._source.unacknowledged == 0)
            assert time.monotonic() - started < 25
            assert service._source.generation == 1
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 10


@pytest.mark.mosquitto
async def test_refused_receipts_are_counted_and_nothing_waits_for_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    acl = broker_module.ACL.replace("topic write cw/v1/+/+/receipt\n", "", 1)
    monkeypatch.setattr(broker_module, "ACL", acl)
    with (
        temporary_folder() as folder,
        EmbeddedBroker(folder, operators=["OP1"], program="mosquitto") as broker,
    ):
        async with (
            Gateway(broker.url_of("OP1"), "OP1", "ST") as gateway,
            serving(broker.url, database_url) as service,
        ):
            await publish(gateway, 20)
            await until_acknowledged(service, 20)
            assert service._source.generation == 1
            assert figure(service, FATES, fate="refused") > 0


@pytest.mark.parametrize("which", ["all", "errors", "none"])
async def test_every_message_gets_its_receipt_also_a_duplicate_and_an_unreadable_one(
    which: str, broker_url: str, database_url: str
):
    async with (
        listening(broker_url) as heard,
        Gateway(broker_url, "OP1", "ST") as gateway,
        serving(broker_url, database_url, receipts=which) as service,
    ):
        readings = [{"connector": "C", "at": "2026-11-20T08:15:00Z", "energy_wh": 1}]
        for seq in (1, 1, 2):
            await gateway.send("registers", seq=seq, readings=readings)
        await gateway.send_bytes("sessions", b"not JSON")
        await gateway.send("status", online=True)
        await until_acknowledged(service, 5)
        expected = {
            "all": [
                ("registers", 1, 1, 0, 0),
                ("registers", 1, 0, 1, 0),
                ("registers", 2, 0, 1, 0),
                ("sessions", None, 0, 0, 1),
            ],
            "errors": [("sessions", None, 0, 0, 1)],
            "none": [],
        }[which]
        await until(lambda: len(heard.receipts) == len(expected))
        await asyncio.sleep(0.1)
    keys = ("topic", "seq", "stored", "duplicate", "rejected")
    assert [tuple(r[key] for key in keys) for r in heard.receipts] == expected


async def send_odd_things(url: str) -> None:
    """Publish what a strange or hostile client may."""
    async with Gateway(url, "OP1", "ODD").client("odd") as client:
        topic = "cw/v1/OP1/ODD/registers"
        await client.publish(topic, b"twice", qos=2)
        await client.publish(topic, b"at most once", qos=0)
        await client.publish("cw/v1/OP1/ODD/status", b'{"online": true}', qos=1, retain=True)
        await client.publish("cw/v1/OP1/ODD/status", b"", qos=1, retain=True)
        await client.publish(topic, b"", qos=1)
        await client.publish("cw/v1/OP1/" + "x" * 60_000 + "/registers", b"{}", qos=1)
        await client.publish("cw/v1//\u00e9\u4e2d/registers", b"{}", qos=1)
        await client.publish("cw/v1/" + "\u4e2d" * 5_000 + "/ST/status", b"{}", qos=1)


async def test_odd_publications_are_survived(broker_url: str, database_url: str):
    aliased = Counter[str]()

    def with_alias(first: int, body: bytes) -> bytes:
        """Name a topic once, then only its alias, though nobody asked for one."""
        if first & 0xF0 != PUBLISH or first & 0x06 == 0:
            return encoded(first, body)
        read = read_publication(first, body)
        if not read.topic.startswith("cw/v1/OP1/ALIAS/"):
            return encoded(first, body)
        aliased["named" if not aliased else "alias"] += 1
        name = read.topic.encode() if aliased.total() == 1 else b""
        head = len(name).to_bytes(2, "big") + name + read.mid.to_bytes(2, "big")
        return encoded(first, head + b"\x03\x23\0\x05" + read.payload)

    async with PacketProxy.to(broker_url) as proxy:
        proxy.from_broker = with_alias
        async with serving(proxy.url, database_url) as service:
            await send_odd_things(broker_url)
            for station in ("ALIAS", "GOOD"):
                async with Gateway(broker_url, "OP1", station) as gateway:
                    await publish(gateway, 5)
            await until(lambda: service.totals.stored >= 10, 10)
            await until_acknowledged(service, 18)
            assert service._source.generation == 1
    assert aliased["alias"] == 4
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM register_reading") == 10
    await connection.close()


async def test_the_broker_is_pinged_as_often_as_it_wants(broker_url: str, database_url: str):
    pings: list[float] = []

    def from_client(first: int, body: bytes) -> bytes:
        if first == PINGREQ:
            pings.append(time.monotonic())
        return encoded(first, body)

    def from_broker(first: int, body: bytes) -> bytes:
        if first == CONNACK:
            # Server keep alive: 2 s.
            size = body[2] + 3
            body = body[:2] + bytes([size]) + body[3:] + b"\x13\0\x02"
        return encoded(first, body)

    async with PacketProxy.to(broker_url) as proxy:
        proxy.from_client, proxy.from_broker = from_client, from_broker
        async with serving(proxy.url, database_url) as service:
            await until(lambda: len(pings) >= 4, 10)
            assert service._source.generation == 1


@pytest.mark.parametrize("will", [b'{"online": false}', b'{"online": false, "seq": null}'])
async def test_a_last_will_without_a_number_takes_the_station_offline(
    will: bytes, broker_url: str, database_url: str
):
    connection = await asyncpg.connect(database_url)

    async def until_online(value: bool) -> None:
        async with asyncio.timeout(20):
            while await connection.fetchval("SELECT online FROM station_status") is not value:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    topic = "cw/v1/OP1/WILL/status"
    parts = urlsplit(broker_url)
    async with serving(broker_url, database_url) as service:
        async with aiomqtt.Client(
            parts.hostname or "",
            parts.port or 0,
            identifier="OP1:WILL",
            will=aiomqtt.Will(topic, will, qos=1, retain=True),
        ) as gateway:
            status = {"seq": 7, "sent_at": datetime.now(UTC).isoformat(), "online": True}
            await gateway.publish(topic, orjson.dumps(status), qos=1, retain=True)
            await until_online(True)
            sock = gateway._client.socket()
            assert isinstance(sock, socket.socket)
            sock.shutdown(socket.SHUT_RDWR)  # as a gateway without power
            await until_online(False)
        await until_acknowledged(service, 2)
        assert service.totals.rejected == 0
    await connection.close()

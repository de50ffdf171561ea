"""Sessions at the broker: nobody takes one over by guessing, none is left with messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.integration.ingest_gateway import Gateway
from tests.integration.ingest_packet_proxy import PacketProxy, encoded
from tests.integration.ingest_service import publish, serving, until

from chargewatch.errors import DatabaseError
from chargewatch.ingest import broker as ingest_broker
from chargewatch.ingest.broker import connection
from chargewatch.ingest.contents.assembly import TimeLimits
from chargewatch.ingest.shards import Shard
from chargewatch.ingest.writer import BatchWriter, SessionInUseError
from chargewatch.mqtt.address import parse_broker_url
from chargewatch.wire.topics import filters

BASE = "chargewatch-ingest"


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


async def stored(database: asyncpg.Connection) -> int:
    return int(await database.fetchval("SELECT count(*) FROM register_reading"))


async def until_stored(database: asyncpg.Connection, count: int) -> None:
    async with asyncio.timeout(30):
        while await stored(database) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await stored(database) == count


async def until_sessions(database: asyncpg.Connection, *slots: str) -> None:
    """Wait until the sessions of exactly these workers are left."""
    async with asyncio.timeout(40):
        while True:
            rows = await database.fetch("SELECT client_id FROM ingest_session ORDER BY 1")
            names = [re.sub(r"-[0-9a-f]{32}$", "", row["client_id"]) for row in rows]
            if sorted(names) == sorted(slots):
                return
            await asyncio.sleep(0.05)


class Stations:
    """Publish for several stations, so that every worker has some."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.published = 0
        self._seqs: dict[str, int] = {}

    async def publish(self, count: int = 2) -> None:
        for number in range(8):
            async with Gateway(self._url, "OP1", f"ST{number}") as gateway:
                gateway.seqs["registers"] = self._seqs.get(gateway.station_id, 0)
                await publish(gateway, count)
                self._seqs[gateway.station_id] = gateway.seqs["registers"]
                self.published += count

    async def publish_until(self, enough: asyncio.Event) -> None:
        while not enough.is_set():
            await self.publish(1)


@contextlib.asynccontextmanager
async def publishing(stations: Stations) -> AsyncIterator[None]:
    enough = asyncio.Event()
    task = asyncio.create_task(stations.publish_until(enough))
    try:
        yield
    finally:
        enough.set()
        await task


async def test_whoever_connects_with_the_name_of_ingest_costs_nothing(
    production_broker: str,
    database_url: str,
    database: asyncpg.Connection,
):
    url = production_broker.replace("mqtt://", "mqtt://{0}:pw-{0}@")
    rogue_address = parse_broker_url(url.format("OP2"))

    async def take_over() -> None:
        """Connect as ingest would be called, with a session that keeps what comes."""
        while True:
            async with connection(
                rogue_address, BASE, clean_start=False, session_expiry_s=600
            ) as client:
                await client.subscribe([(text, 1) for text in filters()])
                await asyncio.sleep(0.05)

    async with serving(url.format("platform"), database_url) as service:
        task = asyncio.create_task(take_over())
        async with Gateway(url.format("OP1"), "OP1", "ST") as gateway:
            for _ in range(10):
                await publish(gateway, 10)
                await asyncio.sleep(0.05)
        await until_stored(database, 100)
        assert service._source.generation == 1
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_client_id_is_secret_and_stays_over_restarts(
    broker_url: str,
    database_url: str,
    database: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO)
    stations = Stations(broker_url)
    ids = set()
    for _ in range(2):
        async with serving(broker_url, database_url) as service:
            ids.add(service._source.client_id)
        await stations.publish()
    async with serving(broker_url, database_url):
        await until_stored(database, stations.published)
    (client_id,) = ids
    assert re.fullmatch(BASE + "-[0-9a-f]{32}", client_id)
    assert f"client_id={client_id[: len(BASE) + 7]}..." in caplog.text
    assert client_id not in caplog.text
    assert await database.fetchval("SELECT client_id FROM ingest_session") == client_id


async def test_the_session_of_version_0_1_0_is_emptied_and_ended(
    broker_url: str, database_url: str, database: asyncpg.Connection
):
    address = parse_broker_url(broker_url)
    old = {"clean_start": False, "session_expiry_s": 600}
    async with connection(address, BASE, **old) as client:
        await client.subscribe([(text, 1) for text in filters()[:4]])
        await client.subscribe("$SYS/broker/store/messages/count", qos=0)
    await database.execute(
        "INSERT INTO ingest_session (client_id, base, used_at) VALUES ($1, $1, now())", BASE
    )
    stations = Stations(broker_url)
    await stations.publish()
    async with serving(broker_url, database_url, shard=Shard(0, 2)):
        await asyncio.sleep(0.3)
        assert await stored(database) == 0
        async with serving(broker_url, database_url, shard=Shard(1, 2)):
            await until_stored(database, stations.published)
            await until_sessions(database, f"{BASE}-0-of-2", f"{BASE}-1-of-2")
    client = ingest_broker.aiomqtt.Client(
        address.host,
        address.port,
        identifier=BASE,
        protocol=ingest_broker.aiomqtt.ProtocolVersion.V5,
        clean_start=False,
        properties=Properties(PacketTypes.CONNECT),
    )
    flags: list[Any] = []
    on_connect = client._client.on_connect
    client._client.on_connect = lambda *a: (flags.append(a[2]), on_connect(*a))
    async with client:
        assert not flags[0].session_present


async def test_a_pause_of_the_broker_does_not_end_a_session_that_holds_messages(
    broker_url: str,
    database_url: str,
    database: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("chargewatch.ingest.service.LEFT_IDLE_S", 0.5)
    address = parse_broker_url(broker_url)
    async with connection(address, BASE, clean_start=False, session_expiry_s=600) as client:
        await client.subscribe([(text, 1) for text in filters()])
    await database.execute(
        "INSERT INTO ingest_session (client_id, base, used_at) VALUES ($1, $1, now())", BASE
    )
    stations = Stations(broker_url)
    await stations.publish()
    log_ins, publications = [], []

    def from_client(first: int, body: bytes) -> bytes:
        if first == 0x10 and body.endswith(BASE.encode()):
            log_ins.append(body)
        return encoded(first, body)

    def from_broker(first: int, body: bytes) -> bytes:
        if first & 0xF0 == 0x30:
            publications.append(body)
            if len(log_ins) == 1 and len(publications) > 4:
                return b""  # it does not come on this connection any more
        return encoded(first, body)

    async with PacketProxy.to(broker_url) as proxy:
        proxy.from_client, proxy.from_broker = from_client, from_broker
        async with serving(proxy.url, database_url):
            await until_sessions(database, BASE)
            assert await stored(database) == stations.published


async def test_no_message_is_lost_whatever_the_number_of_workers_becomes(
    broker_url: str,
    database_url: str,
    database: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("chargewatch.ingest.service.LEFT_IDLE_S", 0.5)
    stations = Stations(broker_url)
    async with serving(broker_url, database_url):
        await stations.publish()
    for count in (2, 1, 4, 2):
        await stations.publish()  # nobody runs
        async with contextlib.AsyncExitStack() as workers:
            async with publishing(stations):
                for index in range(count):
                    shard = Shard(index, count)
                    await workers.enter_async_context(
                        serving(broker_url, database_url, shard=shard)
                    )
                    await asyncio.sleep(0.2)  # published while a worker is still missing
            slots = [Shard(index, count).slot(BASE).name for index in range(count)]
            await until_sessions(database, *slots)
            await until_stored(database, stations.published)


async def test_the_old_session_waits_for_the_last_new_worker_and_a_stop_meanwhile_is_clean(
    broker_url: str, database_url: str, database: asyncpg.Connection
):
    stations = Stations(broker_url)
    async with serving(broker_url, database_url):
        pass
    for _ in range(2):
        async with serving(broker_url, database_url, shard=Shard(0, 2)):
            await stations.publish()
            await asyncio.sleep(0.5)
            await until_sessions(database, BASE, f"{BASE}-0-of-2")
    async with (
        serving(broker_url, database_url, shard=Shard(0, 2)),
        serving(broker_url, database_url, shard=Shard(1, 2)),
    ):
        await until_stored(database, stations.published)
        await asyncio.sleep(0.3)  # stopped while the old session is emptied
    async with (
        serving(broker_url, database_url, shard=Shard(0, 2)),
        serving(broker_url, database_url, shard=Shard(1, 2)),
    ):
        await until_sessions(database, f"{BASE}-0-of-2", f"{BASE}-1-of-2")
    await until_stored(database, stations.published)


async def connect_as(url: str, client_id: str) -> None:
    """Take a session over by a raw connection that reads and acknowledges nothing."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    name = client_id.encode()
    properties = b"\x05\x11\x00\x00\x02\x58"  # session expiry 600 s
    body = b"\0\4MQTT\5\0\0\x3c" + properties + len(name).to_bytes(2, "big") + name
    writer.write(b"\x10" + bytes([len(body)]) + body)
    await reader.read(1)
    await asyncio.sleep(0.05)
    writer.transport.abort()


async def test_a_session_whose_id_became_known_is_left_for_a_new_one(
    broker_url: str,
    database_url: str,
    database: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("chargewatch.ingest.source.QUICK_LOSSES", 3)
    monkeypatch.setattr("chargewatch.ingest.service.LEFT_IDLE_S", 0.5)
    stations = Stations(broker_url)
    async with serving(broker_url, database_url) as service:
        known = service._source.client_id
        async with asyncio.timeout(30):
            while service._source.client_id == known:
                await connect_as(broker_url, known)
                await asyncio.sleep(0.1)
        await stations.publish()
        await until(service._source.subscribed.is_set)
        await until_stored(database, stations.published)
        # The service goes on with the new id; it empties and ends the old session.
        await until_sessions(database, BASE)
        assert await database.fetchval("SELECT client_id FROM ingest_session") != known


async def test_a_writer_that_could_not_hold_its_name_does_not_write_without_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    async def hangs(*_: object) -> bool:
        raise asyncpg.QueryCanceledError("statement timeout")

    dsn = "postgresql://" + database_url.partition("://")[2]
    limits = TimeLimits(600, 180)
    async with (
        BatchWriter(dsn, limits=limits, quarantine_a_day=1, only_one=BASE) as first,
        BatchWriter(dsn, limits=limits, quarantine_a_day=1, only_one=BASE) as second,
    ):
        with monkeypatch.context() as patch:
            patch.setattr("chargewatch.ingest.writer.hold_name", hangs)
            with pytest.raises(asyncpg.QueryCanceledError):
                await first.connect()
        await first.connect()
        with pytest.raises(SessionInUseError):
            await second.connect()


async def test_a_second_ingest_that_came_in_by_a_lost_lock_ends_the_first(
    broker_url: str,
    database_url: str,
    database: asyncpg.Connection,
):
    async with serving(broker_url, database_url) as service:
        other = await asyncpg.connect(database_url)
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
            "AND classid = 7226077"
        )
        async with asyncio.timeout(10):
            while not await other.fetchval(  # noqa: ASYNC110
                "SELECT pg_try_advisory_lock(7226077, hashtext($1))", BASE
            ):
                await asyncio.sleep(0.02)
        with pytest.raises(DatabaseError, match="took over"):
            await service._contested(service._source.client_id)
        await other.close()

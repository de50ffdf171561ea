"""What breaks, breaks for real; afterwards the books must be right."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import orjson
import pytest
from tests.integration.ingest_fleet import (
    Fleet,
    Ingest,
    books,
    check,
    stored,
    until_all_stored,
)
from tests.integration.ingest_gateway import Gateway
from tests.integration.ingest_service import figure, publish, serving, until

from chargewatch.local.postgres import EmbeddedPostgres
from chargewatch.local.processes import free_port, temporary_folder
from chargewatch.local.proxy import Proxy
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import migrate


async def begin(ingest: Ingest, **settings: str) -> None:
    ingest.start(**settings)
    await ingest.until_logged("subscribed")


@pytest.mark.parametrize("point", ["before_commit", "before_acknowledge"])
async def test_kill_in_the_middle_of_a_batch(
    point: str, broker_url: str, database_url: str, make_ingest
):
    ingest = make_ingest(broker_url, database_url)
    fleet = Fleet(broker_url)
    await begin(ingest, CHARGEWATCH_TEST_KILL_AT=f"{point}:3")
    async with asyncio.timeout(60):
        while ingest.process.poll() is None:
            await fleet.publish(1, pause_s=0.08)
    assert ingest.wait() == -signal.SIGKILL
    await fleet.publish(1)
    before = len(await stored(database_url))
    assert before < len(fleet.published)
    await begin(ingest)
    await check(database_url, fleet)
    assert ((await books(database_url))["duplicate"] > 0) == (point == "before_acknowledge")
    assert await asyncio.to_thread(ingest.terminate) == 0


async def test_kill_at_any_time_many_times(broker_url: str, database_url: str, make_ingest):
    ingest = make_ingest(broker_url, database_url)
    fleet = Fleet(broker_url)
    chance = random.Random(4)
    await begin(ingest)
    publishing = asyncio.create_task(fleet.publish(60, pause_s=0.05))
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0.1, 0.6))
        ingest.kill()
        ingest.start()
    await publishing
    await check(database_url, fleet)


async def test_broker_is_killed_and_comes_back(broker, database_url: str, make_ingest):
    ingest = make_ingest(broker.url, database_url)
    fleet = Fleet(broker.url)
    await begin(ingest)
    await fleet.publish(10)
    await until_all_stored(database_url, fleet)
    await asyncio.to_thread(broker.kill)
    await ingest.until_logged("broker_away")
    await asyncio.to_thread(broker.start)
    await ingest.until_logged("subscribed", 2)
    await fleet.publish(10)
    await check(database_url, fleet)


async def test_what_the_broker_holds_survives_its_restart(broker, database_url: str, make_ingest):
    ingest = make_ingest(broker.url, database_url)
    fleet = Fleet(broker.url)
    await begin(ingest)
    assert await asyncio.to_thread(ingest.terminate) == 0
    await fleet.publish(20)
    await asyncio.to_thread(broker.stop)
    await asyncio.to_thread(broker.start)
    await begin(ingest)
    await check(database_url, fleet)


async def test_database_is_killed_and_comes_back(broker_url: str, tmp_path, make_ingest, migrated):
    with temporary_folder("chargewatch-faults-") as folder:
        server = EmbeddedPostgres(folder / "postgres", port=free_port())
        with server:
            url = server.url_of("postgres")
            await migrated(url)
            ingest = make_ingest(broker_url, url)
            fleet = Fleet(broker_url)
            await begin(ingest)
            await fleet.publish(10)
            await until_all_stored(url, fleet)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await fleet.publish(400 // fleet.stations)
            await ingest.until_logged("database_away")
            await asyncio.sleep(1)
            assert ingest.memory_mb() < 300
            await asyncio.to_thread(server.stop)  # forgets the dead process
            await asyncio.to_thread(server.start)
            await check(url, fleet)
            assert ingest.logged("database_away") == 1
            assert ingest.logged("database_back") == 1
            assert ingest.logged("broker_away") == 0
            assert await asyncio.to_thread(ingest.terminate) == 0


async def test_links_that_are_cut_in_the_middle_of_a_packet(
    broker_url: str, database_url: str, make_ingest
):
    async with Proxy.to(broker_url) as to_broker, Proxy.to(database_url) as to_database:
        ingest = make_ingest(to_broker.url, to_database.url)
        fleet = Fleet(broker_url)
        await begin(ingest)
        publishing = asyncio.create_task(fleet.publish(60, pause_s=0.04))
        chance = random.Random(7)
        for proxy in (to_broker, to_database) * 3:
            proxy.cut_after(chance.randrange(1, 30_000))
            await asyncio.sleep(0.5)
        to_broker.delay_s = to_database.delay_s = 0.05
        await publishing
        await check(database_url, fleet)
        assert to_broker.cuts >= 1
        assert to_database.cuts >= 1


async def take_the_only_connection(admin, limited: str, role: str) -> asyncpg.Connection:
    """End the role's connections and take its place; ingest may be faster, so repeat."""
    async with asyncio.timeout(20):
        while True:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role
            )
            try:
                return await asyncpg.connect(limited)
            except asyncpg.TooManyConnectionsError:
                await asyncio.sleep(0.02)


async def test_database_without_free_connections(broker_url: str, database_url: str, make_ingest):
    admin = await asyncpg.connect(database_url)
    name = f"limited_{os.getpid()}_{time.time_ns()}"
    await admin.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'x' CONNECTION LIMIT 1;"
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name};"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name};"
    )
    parts = urlsplit(database_url)
    address = parts.netloc.rpartition("@")[2]
    limited = urlunsplit(parts._replace(netloc=f"{name}:x@{address}"))
    try:
        ingest = make_ingest(broker_url, limited)
        fleet = Fleet(broker_url)
        await begin(ingest)
        await fleet.publish(3)
        await until_all_stored(database_url, fleet)
        taken = await take_the_only_connection(admin, limited, name)
        await fleet.publish(3)
        await ingest.until_logged("database_away")
        await taken.close()
        await check(database_url, fleet)
        ingest.kill()
    finally:
        await admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await admin.close()


async def test_disk_full_is_waited_out(broker_url: str, database_url: str, make_ingest):
    admin = await asyncpg.connect(database_url)
    ingest = make_ingest(broker_url, database_url)
    fleet = Fleet(broker_url)
    await begin(ingest)
    await admin.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'could not extend file: No space left on device' "
        "USING ERRCODE = 'disk_full'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON register_reading "
        "FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )
    await fleet.publish(5)
    await ingest.until_logged("database_away")
    await asyncio.sleep(0.5)
    assert await stored(database_url) == {}
    await admin.execute("DROP TRIGGER full_disk ON register_reading")
    await admin.close()
    await check(database_url, fleet)
    assert ingest.logged("database_away") == 1


async def test_a_message_that_the_database_never_takes_is_quarantined_alone(
    broker_url: str, database_url: str, make_ingest
):
    admin = await asyncpg.connect(database_url)
    await admin.execute(
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.energy_wh = 666.5 THEN RAISE EXCEPTION 'no' USING ERRCODE = 'data_exception'; "
        "END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER never BEFORE INSERT ON register_reading "
        "FOR EACH ROW EXECUTE FUNCTION never()"
    )
    ingest = make_ingest(broker_url, database_url, CHARGEWATCH_BATCH_MS="500")
    fleet = Fleet(broker_url)
    await begin(ingest)
    await fleet.publish(3)
    async with Gateway(broker_url, "OP1", "BAD") as gateway:
        at = datetime.now(UTC).isoformat()
        bad = [{"connector": "B", "at": at, "energy_wh": energy} for energy in (665.5, 666.5)]
        await gateway.send("registers", readings=[bad[1], {**bad[0], "connector": "B2"}])
    await fleet.publish(3)
    await until_all_stored(database_url, fleet)
    rows = await admin.fetch("SELECT code, station_id, errors->0->>'index' FROM quarantine")
    assert [tuple(row) for row in rows] == [("internal_error", "BAD", None)]
    sums = await books(database_url)
    assert (sums["stored"], sums["rejected"]) == (len(fleet.published), 2)
    await admin.close()


async def test_a_second_process_with_the_same_client_id_is_turned_away(
    broker_url: str, database_url: str, make_ingest
):
    first, second = (make_ingest(broker_url, database_url) for _ in range(2))
    fleet = Fleet(broker_url)
    await begin(first)
    publishing = asyncio.create_task(fleet.publish(30, pause_s=0.03))
    second.start()
    assert await asyncio.to_thread(second.wait) == 1
    assert second.logged("another ingest service with the client id") == 1
    assert "Traceback" not in second.log.read_text()
    await publishing
    await check(database_url, fleet)
    assert first.logged("broker_connected") == 1


async def test_the_session_goes_over_to_the_next_process(
    broker_url: str, database_url: str, make_ingest
):
    first, second = (make_ingest(broker_url, database_url) for _ in range(2))
    fleet = Fleet(broker_url)
    await begin(first)
    second.start()
    publishing = asyncio.create_task(fleet.publish(30, pause_s=0.05))
    await asyncio.sleep(0.5)
    first.kill()
    await second.until_logged("subscribed")
    await publishing
    await check(database_url, fleet)


async def test_late_and_reordered_data_and_a_message_of_one_mebibyte(
    broker_url: str, database_url: str, make_ingest
):
    ingest = make_ingest(broker_url, database_url)
    fleet = Fleet(broker_url)
    await begin(ingest)
    await fleet.publish(3)
    await fleet.publish(3, age_days=170)
    async with Gateway(broker_url, "OP1", "BIG") as gateway:
        readings = [fleet.readings(gateway) for _ in range(400)]
        items = [reading for part in readings for reading in part]
        random.Random(1).shuffle(items)
        envelope = {"seq": 1, "sent_at": datetime.now(UTC).isoformat(), "readings": items}
        payload = orjson.dumps(envelope)
        padding = (1 << 20) - len(payload) - len(',"pad":""')
        payload = orjson.dumps({**envelope, "pad": "x" * padding})
        assert len(payload) == 1 << 20
        await gateway.send_bytes("registers", payload)
    await check(database_url, fleet)
    connection = await asyncpg.connect(database_url)
    newest = await connection.fetch(
        "SELECT l.at = max(r.at) AS same FROM latest_reading l JOIN register_reading r "
        "USING (connector_id) GROUP BY l.connector_id, l.at"
    )
    assert all(row["same"] for row in newest)
    await connection.close()


async def test_random_bytes_on_every_topic_are_quarantined_and_nothing_stops(
    broker_url: str, database_url: str, make_ingest
):
    ingest = make_ingest(broker_url, database_url)
    fleet = Fleet(broker_url)
    chance = random.Random(11)
    await begin(ingest)
    sent = 0
    async with Gateway(broker_url, "OP1", "FUZZ") as gateway:
        for kind in ("registers", "reference", "sessions", "status"):
            for _ in range(40):
                payload = chance.randbytes(chance.randrange(0, 300))
                content_type = chance.choice([None, "application/json+gzip", "text/plain"])
                await gateway.send_bytes(kind, payload, content_type=content_type)
                sent += 1
    await fleet.publish(2)
    await until_all_stored(database_url, fleet)
    assert (await books(database_url))["rejected"] == sent
    assert ingest.process.poll() is None
    assert "Traceback" not in ingest.log.read_text()


async def test_a_refused_log_in_is_one_clear_line(run_command, database_url: str):
    done = run_command(
        "ingest",
        env={
            "CHARGEWATCH_DATABASE_URL": database_url,
            "CHARGEWATCH_MQTT_URL": "mqtt://127.0.0.1:1",
        },
    )
    assert done.returncode == 1
    assert "no connection to the broker at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def migrated() -> object:
    async def apply(url: str) -> None:
        async with open_database(url) as database:
            await migrate(database)

    return apply


async def test_a_fault_of_our_own_is_told_as_what_it_is(
    broker_url: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    async with (
        serving(broker_url, database_url) as service,
        Gateway(broker_url, "OP1", "ST1") as gateway,
    ):
        await publish(gateway, 1)
        await until(lambda: figure(service, "chargewatch_ingest_database_up") == 1)
        whole = service._writer._transaction

        async def broken(*_: object, **__: object) -> None:
            raise KeyError("a fault of ours")

        monkeypatch.setattr(service._writer, "_transaction", broken)
        await publish(gateway, 1)
        await until(lambda: "not_written" in caplog.text)
        assert "KeyError: 'a fault of ours'" in service._look().trouble
        assert "Traceback" in caplog.text
        assert "database_away" not in caplog.text
        assert figure(service, "chargewatch_ingest_database_up") == 1
        monkeypatch.setattr(service._writer, "_transaction", whole)
        await until(lambda: "written_again" in caplog.text)
        assert service._look().trouble == ""

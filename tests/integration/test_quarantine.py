"""What is kept of rejected messages, and how they are read again."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from alembic import command as alembic
from sqlalchemy import Connection, text

from chargewatch.ingest import message, writer
from chargewatch.ingest.intake import Intake
from chargewatch.ingest.replay import replay_quarantine
from chargewatch.settings import Settings, load_settings
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import alembic_config, migrate
from chargewatch.storage.retention import apply_retention
from running import RunCommand
from web_client import open_site

NOW = datetime.now(UTC)
VIN = "LSVAA4182E2123456"


def iso(minutes: float = 0.0) -> str:
    return (NOW - timedelta(minutes=60 - minutes)).isoformat()


def registers(seq: int, *readings: dict[str, Any]) -> bytes:
    return orjson.dumps({"seq": seq, "sent_at": iso(), "readings": list(readings)})


def reading(minutes: float, energy_wh: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"connector": "C1", "at": iso(minutes), "energy_wh": energy_wh, **more}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def settings(database_url: str) -> Settings:
    return replace(load_settings({}), database_url=database_url)


async def kept(database: asyncpg.Connection) -> list[dict[str, Any]]:
    rows = await database.fetch("SELECT * FROM quarantine ORDER BY quarantine_id")
    return [{**row, "errors": orjson.loads(row["errors"])} for row in rows]


async def books(database: asyncpg.Connection) -> dict[str, dict[str, int]]:
    """Return the sums by station, having checked that they balance and match the messages."""
    rows = await database.fetch(
        "SELECT station_id, topic, received, stored, duplicate, rejected, "
        "(SELECT sum(l.stored) FROM message_ledger l WHERE l.stream_id = s.stream_id) AS one, "
        "(SELECT sum(l.rejected) FROM message_ledger l WHERE l.stream_id = s.stream_id) AS two "
        "FROM ledger_stream s"
    )
    for row in rows:
        assert row["received"] == row["stored"] + row["duplicate"] + row["rejected"]
        assert (row["one"], row["two"]) == (row["stored"], row["rejected"])
    names = ("received", "stored", "duplicate", "rejected")
    return {
        f"{row['station_id']} {row['topic']}": {name: row[name] for name in names} for row in rows
    }


def failing_for(patch: pytest.MonkeyPatch, mark: bytes, place: str = "decode") -> None:
    """Let the platform fail on messages with a mark in them."""
    if place == "decode":
        decode = message.decode

        def failing(topic: Any, payload: bytes, content_type: str | None = None) -> Any:
            if mark in payload:
                raise RecursionError("a fault of ours")
            return decode(topic, payload, content_type)

        patch.setattr(message, "decode", failing)
        return
    assemble = writer.assemble

    def failing_later(messages: Any, *arguments: Any, **more: Any) -> Any:
        if any(m.decoded is not None and mark in m.arrival.payload for m in messages):
            raise KeyError("a fault of ours")
        return assemble(messages, *arguments, **more)

    patch.setattr(writer, "assemble", failing_later)


async def test_a_message_is_kept_once_with_its_bytes_and_at_most_100_reasons(
    settings: Settings, database: asyncpg.Connection
) -> None:
    raw = b'{"seq":1,"sent_at":"%s","readings":[%s]}'
    packed = gzip.compress(raw % (iso().encode(), b",".join([b"{}"] * 10_000)), mtime=0)
    async with Intake(settings) as intake:
        for _ in range(3):
            receipt = await intake.submit(
                "registers", "OP1", "ST1", packed, "application/json+gzip"
            )
            assert (receipt["rejected"], len(receipt["errors"])) == (10_000, 100)
    (row,) = await kept(database)
    assert row["payload"] == packed
    assert (row["rejected"], len(row["errors"])) == (10_000, 100)
    assert row["errors"][99]["index"] == 99
    assert (await books(database))["ST1 registers"]["rejected"] == 30_000


async def test_a_rejection_with_another_reason_is_kept_as_well(
    settings: Settings, database: asyncpg.Connection
) -> None:
    early = registers(1, reading(0), reading(30, -1))
    async with Intake(settings) as intake:
        before = NOW - timedelta(minutes=75)
        await intake.submit("registers", "OP1", "ST1", early, None, before.timestamp())
        await intake.submit("registers", "OP1", "ST1", early)
        await intake.submit("registers", "OP1", "ST1", early)
    rows = await kept(database)
    assert [sorted(row["codes"]) for row in rows] == [
        ["in_future", "invalid_field"],
        ["invalid_field"],
    ]


async def test_a_station_fills_the_quarantine_up_to_its_quota_a_day_only(
    settings: Settings, database: asyncpg.Connection, run_command: RunCommand
) -> None:
    await database.execute(
        "INSERT INTO operator VALUES ('OP1', 'One'); INSERT INTO station (station_id, operator_id, "
        "name) VALUES ('ST1', 'OP1', ''), ('ST2', 'OP1', '')"
    )
    with pytest.MonkeyPatch.context() as patch:
        failing_for(patch, b"123456.5")
        async with Intake(replace(settings, quarantine_rows_a_day=3)) as intake:
            for n in range(8):
                bad = registers(n + 1, *[reading(1, -1 - n)] * 2)
                await intake.submit("registers", "OP1", "ST1", bad)
            await intake.submit("registers", "OP1", "ST2", registers(1, reading(1, -1)))
            # However many names a sender makes up, they are one station.
            for n in range(5):
                await intake.submit("registers", "OP1", f"MADE-UP-{n}", b"{")
            await intake.submit("registers", "OP1", "ST1", registers(9, reading(1, 123456.5)))
    stations = [row["station_id"] for row in await kept(database)]
    assert stations == ["ST1"] * 3 + ["ST2"] + [f"MADE-UP-{n}" for n in range(3)] + ["ST1"]
    assert (await books(database))["ST1 registers"]["rejected"] == 17
    environment = {"CHARGEWATCH_DATABASE_URL": settings.database_url}
    done = await asyncio.to_thread(
        run_command, "quarantine", "list", "--json", "--code", "invalid_field", env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["station_id"] for row in found["items"]] == ["ST2", "ST1", "ST1", "ST1"]
    assert found["waiting"] == 1
    beyond = {
        row["station_id"]: (row["more"], row["more_rejected"]) for row in found["beyond_quota"]
    }
    assert beyond == {"ST1": (5, 10), "": (2, 2)}
    shown = await asyncio.to_thread(
        run_command, "quarantine", "list", "--station", "ST1", env=environment
    )
    assert "the platform failed on it (RecursionError)" in shown.stdout
    assert "5 messages more than the quota" in shown.stdout
    checked = await asyncio.to_thread(run_command, "doctor", "--json", env=environment)
    check = next(c for c in json.loads(checked.stdout)["checks"] if c["name"] == "quarantine")
    assert (check["state"], check["found"][:2]) == ("note", "1 ")
    assert "chargewatch quarantine replay" in check["next_step"]
    async with open_site(settings.database_url, seeded=False) as site:
        await site.log_in("admin")
        page = (await site.client.get("/system")).text
    assert "chargewatch quarantine replay" in page
    assert "4 messages kept, 5 more with 10 rejected items" in page


@pytest.mark.parametrize("place", ["decode", "assemble"])
async def test_what_the_platform_failed_on_is_read_again_with_its_time_of_arrival(
    place: str,
    settings: Settings,
    database: asyncpg.Connection,
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It arrived 200 days ago, with readings of that time: too old by now, not then.
    then = NOW - timedelta(days=200)
    days = 200 * 1440.0
    good = [reading(-days + k, k, connector="POISON") for k in range(5)]
    bad = reading(-days, -1.0)
    with monkeypatch.context() as patch:
        failing_for(patch, b"POISON", place)
        async with Intake(settings) as intake:
            payload = registers(7, *good, bad)
            receipt = await intake.submit(
                "registers", "OP1", "ST1", payload, None, then.timestamp()
            )
            assert (receipt["seq"], receipt["rejected"]) == (7, 6)
            assert receipt["errors"][0]["code"] == "internal_error"
            later = registers(8, reading(-days + 9, 9))
            await intake.submit("registers", "OP1", "ST1", later, None, then.timestamp())
        # Not mended yet: it stays.
        again = await replay_quarantine(settings, code="internal_error")
        assert (again.messages, again.unchanged, again.stored) == (1, 1, 0)
    first = {"received": 7, "stored": 1, "duplicate": 0, "rejected": 6}
    assert await books(database) == {"ST1 registers": first}

    environment = {"CHARGEWATCH_DATABASE_URL": settings.database_url}
    replay = ("quarantine", "replay", "--code", "internal_error", "--json")
    tried = await asyncio.to_thread(run_command, *replay, "--dry-run", env=environment)
    assert tried.returncode == 0, tried.stderr
    told = json.loads(tried.stdout)
    assert (told["messages"], told["stored"], told["rejected"]) == (1, 5, 1)
    assert await books(database) == {"ST1 registers": first}
    assert await database.fetchval("SELECT count(*) FROM register_reading") == 1

    done = await asyncio.to_thread(run_command, *replay, env=environment)
    assert done.returncode == 0, done.stderr
    assert {**json.loads(done.stdout), "dry_run": True} == told
    moved = {"received": 7, "stored": 6, "duplicate": 0, "rejected": 1}
    assert await books(database) == {"ST1 registers": moved}
    assert await database.fetchval("SELECT count(*) FROM ledger_gap WHERE closed_at IS NULL") == 0
    marked = await database.fetchrow("SELECT * FROM quarantine_replay")
    assert (marked["stored"], marked["rejected"]) == (5, 1)
    assert orjson.loads(marked["errors"])[0]["code"] == "invalid_field"

    # Once more changes nothing.
    done = await asyncio.to_thread(run_command, *replay, env=environment)
    assert json.loads(done.stdout)["messages"] == 0
    assert await books(database) == {"ST1 registers": moved}


async def test_an_interrupted_replay_goes_on_where_it_was(
    settings: Settings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing_for(patch, b"POISON")
        async with Intake(settings) as intake:
            for seq in range(1, 31):
                item = reading(seq / 10, seq, connector="POISON")
                await intake.submit("registers", "OP1", "ST1", registers(seq, item))
    assert (await books(database))["ST1 registers"]["rejected"] == 30
    write = writer.BatchWriter.write
    written = 0

    async def write_once(self: Any, messages: Any) -> Any:
        nonlocal written
        if written:
            raise MemoryError
        written += len(messages)
        return await write(self, messages)

    with monkeypatch.context() as patch:
        patch.setattr(writer.BatchWriter, "write", write_once)
        with pytest.raises(MemoryError):
            await replay_quarantine(settings, code="internal_error")
    assert 0 < written < 30
    assert (await books(database))["ST1 registers"]["stored"] == written
    # What a gateway sent once more meanwhile is found, and ingest goes on writing.
    async with Intake(settings) as intake:
        item = reading(3.0, 30, connector="POISON")
        await intake.submit("registers", "OP1", "ST1", registers(30, item))
        report, _ = await asyncio.gather(
            replay_quarantine(settings, code="internal_error"),
            intake.submit("registers", "OP1", "ST1", registers(31, reading(40, 40))),
        )
    assert (report.messages, report.stored, report.duplicate) == (30 - written, 29 - written, 1)
    sums = (await books(database))["ST1 registers"]
    assert sums == {"received": 32, "stored": 31, "duplicate": 1, "rejected": 0}


async def test_a_plain_vin_is_not_kept_and_stays_a_rejection_when_it_is_read_again(
    settings: Settings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = {
        "session": "S1",
        "connector": "C1",
        "started_at": iso(),
        "ended_at": iso(10),
        "start_wh": 1,
        "stop_wh": 2,
        "billed_wh": 1,
        "currency": "CNY",
    }
    sessions = [{**session, "vehicle": VIN}, {**session, "session": "S2", "vehicle": "v-1"}]
    payload = orjson.dumps({"seq": 1, "sent_at": iso(), "sessions": sessions})
    with monkeypatch.context() as patch:
        failing_for(patch, b"sessions")
        async with Intake(settings) as intake:
            await intake.submit("sessions", "OP1", "ST1", payload)
    (row,) = await kept(database)
    assert VIN.encode() not in row["payload"]
    report = await replay_quarantine(settings, code="internal_error")
    assert (report.stored, report.rejected, report.codes) == (1, 1, {"personal_data": 1})
    assert await database.fetchval("SELECT array_agg(vehicle) FROM charging_session") == ["v-1"]


async def test_retention_takes_old_rejections_but_none_that_waits_to_be_read_again(
    any_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(load_settings({}), database_url=any_database_url)
    old = (NOW - timedelta(days=181)).timestamp()
    with monkeypatch.context() as patch:
        failing_for(patch, b"POISON")
        async with Intake(settings) as intake:
            await intake.submit("registers", "OP1", "ST1", b"{", None, old)
            await intake.submit("registers", "OP1", "ST1", b"{{")
            poison = registers(1, reading(0, connector="POISON"))
            await intake.submit("registers", "OP1", "ST1", poison, None, old)
    async with open_database(any_database_url) as database:
        rules = {"raw_days": 9, "rollup_days": 9, "quarantine_days": 180, "now": NOW}
        looked = await apply_retention(database, dry_run=True, **rules)
        assert {r.table: r.rows for r in looked}["quarantine"] == 1
        await apply_retention(database, **rules)
        async with database.connect() as connection:
            left = await connection.execute(text("SELECT code FROM quarantine ORDER BY 1"))
            assert left.scalars().all() == ["internal_error", "malformed"]
        await replay_quarantine(settings, code="internal_error")
        await apply_retention(database, **rules)
        async with database.connect() as connection:
            left = await connection.execute(text("SELECT code FROM quarantine"))
            assert left.scalars().all() == ["malformed"]
            days = await connection.execute(text("SELECT count(*) FROM quarantine_day"))
            assert days.scalar_one() == 1


async def test_a_batch_without_a_rejection_asks_nothing_of_the_quarantine(
    settings: Settings, database: asyncpg.Connection
) -> None:
    asked: list[str] = []
    async with Intake(settings) as intake:
        await intake.submit("registers", "OP1", "ST1", registers(1, reading(0)))
        connection = intake._writer._connection
        connection.add_query_logger(lambda query: asked.append(query.query))
        await intake.submit("registers", "OP1", "ST1", registers(2, reading(1)))
        good = list(asked)
        await intake.submit("registers", "OP1", "ST1", b"{")
    assert good
    assert not any("quarantine" in query for query in good)
    assert any("quarantine" in query for query in asked)


async def test_rows_of_an_older_version_stay_readable(any_server: Any) -> None:
    url = await any_server.create_empty()
    async with open_database(url) as database:
        await migrate(database, revision="0008")
        async with database.raw() as connection:
            await connection.execute(
                "INSERT INTO quarantine (received_at, topic, operator_id, station_id, seq, code, "
                "item_index, detail, payload) VALUES "
                "(now(), 't', 'OP1', 'ST1', 7, 'conflict', 3, 'readings[3]: x', '{}'), "
                "(now(), 't', 'OP1', 'ST1', NULL, 'malformed', NULL, 'not JSON', '{')"
            )
            before = await connection.fetch(
                "SELECT code, item_index, detail, payload FROM quarantine ORDER BY quarantine_id"
            )
        await migrate(database)
        async with database.raw() as connection:
            item, whole = await kept(connection)
        assert (item["codes"], item["rejected"]) == (["conflict"], 1)
        assert item["errors"] == [{"index": 3, "code": "conflict", "detail": "readings[3]: x"}]
        assert whole["errors"] == [{"index": None, "code": "malformed", "detail": "not JSON"}]

        def down(connection: Connection) -> None:
            config = alembic_config()
            config.attributes["connection"] = connection
            alembic.downgrade(config, "0008")

        async with database.engine.connect() as connection:
            await connection.run_sync(down)
            await connection.commit()
        async with database.raw() as connection:
            after = await connection.fetch(
                "SELECT code, item_index, detail, payload FROM quarantine ORDER BY quarantine_id"
            )
        assert after == before
    await any_server.drop(url)

"""Ingest, imports, merges, refreshes and retention at once: no deadlock, nothing lost.

CHARGEWATCH_TEST_LOCKS_S makes it longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import orjson

from chargewatch.domain.mpe import rule_set
from chargewatch.ingest.contents.assembly import TimeLimits
from chargewatch.ingest.message import Arrival, read_message
from chargewatch.ingest.writer import BatchWriter
from chargewatch.runs.rollups import refresh_rollups
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.intake.ledger_days import unbalanced
from chargewatch.storage.retention import apply_retention
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.registry import import_registry
from chargewatch.wire.registry_file import read_registry_file

SECONDS = float(os.environ.get("CHARGEWATCH_TEST_LOCKS_S", "20"))
STATIONS = 6
RAW_DAYS = 10


def document(rounds: int) -> dict[str, object]:
    """Return a registry that grows, moves connectors and changes their step every time."""
    stations = [
        {"station_id": f"ST{k}", "operator_id": f"OP{(k + rounds // 3) % 2}", "name": f"s{k}"}
        for k in range(STATIONS)
    ]
    connectors = [
        {
            "connector": f"C{k}",
            "station_id": f"ST{(k + rounds // 2) % STATIONS}",
            "current": "DC",
            "accuracy_class": "2",
            "resolution_wh": 1 + rounds % 2,
        }
        for k in range(10 + rounds)
    ]
    return {
        "version": 1,
        "operators": [{"operator_id": "OP0", "name": "a"}, {"operator_id": "OP1", "name": "b"}],
        "stations": stations,
        "connectors": connectors,
        "reference_meters": [],
        "verifications": [],
        "tariffs": [],
    }


class Gateways:
    """Messages of all stations, by both operators, of connectors anywhere."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seqs: dict[str, int] = {}

    def message(self, rounds: int):
        """Return a message of a random station: now, late, or of a session."""
        draw, now = self.random, datetime.now(UTC)
        station, operator = f"ST{draw.randrange(STATIONS)}", f"OP{draw.randrange(2)}"
        kind = draw.choice(("registers", "registers", "reference", "sessions", "status"))
        topic = f"cw/v1/{operator}/{station}/{kind}"
        self.seqs[topic] = self.seqs.get(topic, 0) + draw.choice((1, 1, 1, 3))
        names = [f"C{draw.randrange(rounds + 14)}" for _ in range(5)]
        late = now - timedelta(days=draw.choice((0, 0, 1, RAW_DAYS + 20)))
        body: dict[str, object] = {"seq": self.seqs[topic], "sent_at": now.isoformat()}
        if kind == "registers":
            body["readings"] = [
                {
                    "connector": name,
                    "at": (late - timedelta(milliseconds=draw.randrange(10**7))).isoformat(),
                    "energy_wh": 1000,
                    "session": f"S{draw.randrange(100)}",
                }
                for name in names
            ]
        elif kind == "reference":
            at = (late - timedelta(milliseconds=draw.randrange(10**7))).isoformat()
            body["readings"] = [{"meter": f"M{station}", "at": at, "energy_wh": 1000}]
        elif kind == "sessions":
            body["sessions"] = [
                {
                    "session": f"S{draw.randrange(10**9)}",
                    "connector": name,
                    "started_at": (late - timedelta(hours=1)).isoformat(),
                    "ended_at": late.isoformat(),
                    "start_wh": 0,
                    "stop_wh": 10,
                    "billed_wh": 10,
                }
                for name in names
            ]
        else:
            body["online"] = draw.random() < 0.5
        return read_message(Arrival(topic, orjson.dumps(body), None, round(now.timestamp() * 1e6)))


async def test_everything_at_once_ends_without_a_deadlock(any_database_url, tmp_path):
    done: dict[str, int] = {}
    rounds = 0
    end = time.monotonic() + SECONDS

    async def repeat(name: str, step: Callable[[], Awaitable[None]], pause_s: float) -> None:
        while time.monotonic() < end:
            await step()
            done[name] = done.get(name, 0) + 1
            await asyncio.sleep(pause_s)

    async with (
        open_database(any_database_url) as database,
        BatchWriter(any_database_url, limits=TimeLimits(600, 180), quarantine_a_day=100) as one,
        BatchWriter(any_database_url, limits=TimeLimits(600, 180), quarantine_a_day=100) as two,
    ):
        await fill_the_past(database)

        def ingest(writer: BatchWriter, gateways: Gateways) -> Callable[[], Awaitable[None]]:
            async def step() -> None:
                fates = await writer.write([gateways.message(rounds) for _ in range(20)])
                assert len(fates) == 20

            return step

        async def take_registry() -> None:
            nonlocal rounds
            rounds += 1
            path = tmp_path / f"{rounds}.json"
            path.write_bytes(orjson.dumps(document(rounds)))
            await import_registry(
                database,
                read_registry_file(path),
                actor=Actor(name="test"),
                rules=rule_set("CN-2022"),
            )

        async def refresh() -> None:
            await refresh_rollups(database)

        async def retain() -> None:
            await apply_retention(
                database, raw_days=RAW_DAYS, rollup_days=100, ledger_days=30, now=datetime.now(UTC)
            )

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(repeat("ingest", ingest(one, Gateways(1)), 0))
            tasks.create_task(repeat("ingest of a second worker", ingest(two, Gateways(2)), 0))
            tasks.create_task(repeat("import", take_registry, 0.1))
            tasks.create_task(repeat("refresh", refresh, 0.1))
            tasks.create_task(repeat("retention", retain, 0.2))

        assert len(done) == 5, done
        await nothing_is_left_over(database)


async def fill_the_past(database: Database) -> None:
    """Write messages of a time that retention sums up."""
    async with database.raw() as connection:
        await connection.execute(
            "INSERT INTO ledger_stream (operator_id, station_id, topic, messages, received, stored)"
            " VALUES ('OP0', 'OLD', 'registers', 4000, 4000, 4000);"
            "INSERT INTO message_ledger SELECT now() - interval '60 days' + g * interval '15 min', "
            "stream_id, g, now(), 1, 0, 0 FROM ledger_stream, generate_series(1, 4000) g"
        )


async def nothing_is_left_over(database: Database) -> None:
    async with database.begin() as connection:
        assert await unbalanced(connection) == []
    async with database.raw() as connection:
        deadlocks = await connection.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        orphans = await connection.fetchval(
            "SELECT (SELECT count(*) FROM register_reading WHERE connector_id NOT IN "
            "(SELECT connector_id FROM connector)) + (SELECT count(*) FROM charging_session "
            "WHERE connector_id NOT IN (SELECT connector_id FROM connector)) "
            "+ (SELECT count(*) FROM reference_reading WHERE meter_id NOT IN "
            "(SELECT meter_id FROM reference_meter))"
        )
        stored = await connection.fetchval(
            "SELECT sum(stored)::int FROM ledger_stream WHERE topic = 'sessions'"
        )
        sessions = await connection.fetchval("SELECT count(*)::int FROM charging_session")
        summed = await connection.fetchval("SELECT count(*) FROM ledger_day")
    assert (deadlocks, orphans) == (0, 0)
    assert sessions == stored
    assert summed > 0

"""Stations that know what they published, and the command that takes it in, as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import psutil
from tests.integration.ingest_gateway import Gateway

READINGS_A_MESSAGE = 20


@dataclass
class Fleet:
    """Publishes for several stations and knows what must be in the table."""

    url: str
    stations: int = 3
    published: dict[tuple[str, str], float] = field(default_factory=dict)
    _begun: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(days=2))
    _count: int = 0

    async def publish(self, messages: int, *, pause_s: float = 0.0, age_days: float = 0.0) -> None:
        """Publish so many messages of each station, each acknowledged by the broker."""
        async with contextlib.AsyncExitStack() as stack:
            gateways = [
                await stack.enter_async_context(Gateway(self.url, "OP1", f"ST{n}"))
                for n in range(self.stations)
            ]
            for gateway in gateways:
                gateway.seqs = self._seqs.setdefault(gateway.station_id, {})
            for _ in range(messages):
                for gateway in gateways:
                    await gateway.send("registers", readings=self.readings(gateway, age_days))
                await asyncio.sleep(pause_s)

    _seqs: dict[str, dict[str, int]] = field(default_factory=dict)

    def readings(self, gateway: Gateway, age_days: float = 0.0) -> list[dict[str, object]]:
        result: list[dict[str, object]] = []
        for _ in range(READINGS_A_MESSAGE):
            self._count += 1
            at = self._begun - timedelta(days=age_days) + timedelta(seconds=self._count)
            name = f"{gateway.station_id}-{self._count % 4}"
            reading = {"connector": name, "at": at.isoformat(), "energy_wh": self._count}
            self.published[name, at.isoformat()] = float(self._count)
            result.append(reading)
        return result


class Ingest:
    """The real command as a process."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.environment, self.log = environment, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, shard: str = "0/1", **settings: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chargewatch", "ingest", "--shard", shard],
                env={**os.environ, **self.environment, **settings},
                stdout=log,
                stderr=log,
            )

    def wait(self, timeout: float = 30.0) -> int:
        assert self.process is not None
        return self.process.wait(timeout)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def memory_mb(self) -> float:
        assert self.process is not None
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def logged(self, words: str) -> int:
        return self.log.read_text().count(words)

    async def until_logged(self, words: str, count: int = 1) -> None:
        async with asyncio.timeout(30):
            while self.logged(words) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@contextlib.contextmanager
def made_ingests(folder: Path) -> Iterator[Callable[..., Ingest]]:
    """Yield what makes an ingest of a broker and a database; all of them are ended."""
    made: list[Ingest] = []

    def make(mqtt: str, database: str, **settings: str) -> Ingest:
        environment = {
            "CHARGEWATCH_DATABASE_URL": database,
            "CHARGEWATCH_MQTT_URL": mqtt,
            "CHARGEWATCH_BATCH_MS": "50",
            **settings,
        }
        made.append(Ingest(environment, folder / f"ingest-{len(made)}.log"))
        return made[-1]

    yield make
    for ingest in made:
        if ingest.process is not None and ingest.process.poll() is None:
            ingest.kill()


async def stored(url: str) -> dict[tuple[str, str], float]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT connector, at, energy_wh FROM register_reading JOIN connector USING "
            "(connector_id)"
        )
        return {(r["connector"], r["at"].isoformat()): r["energy_wh"] for r in rows}
    finally:
        await connection.close()


async def books(url: str) -> dict[str, int]:
    """Return the sums of the ledger, having checked that they balance and match its messages."""
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(
            "SELECT sum(messages)::int AS messages, sum(received)::int AS received, "
            "sum(stored)::int AS stored, sum(duplicate)::int AS duplicate, "
            "sum(rejected)::int AS rejected FROM ledger_stream"
        )
        single = await connection.fetchrow(
            "SELECT count(*)::int AS messages, sum(stored + duplicate + rejected)::int AS "
            "received, sum(stored)::int AS stored, sum(duplicate)::int AS duplicate, "
            "sum(rejected)::int AS rejected FROM message_ledger"
        )
        assert dict(row) == dict(single)
        assert row["received"] == row["stored"] + row["duplicate"] + row["rejected"]
        return {key: value or 0 for key, value in row.items()}
    finally:
        await connection.close()


async def open_gaps(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SELECT count(*) FROM ledger_gap WHERE closed_at IS NULL")
    finally:
        await connection.close()


async def until_all_stored(url: str, fleet: Fleet, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            if len(await stored(url)) >= len(fleet.published):
                break
        await asyncio.sleep(0.1)
    assert await stored(url) == fleet.published


async def check(url: str, fleet: Fleet) -> None:
    """Check every invariant: each reading once, books balanced, no gap, nothing stuck."""
    await until_all_stored(url, fleet)
    sums = await books(url)
    assert sums["stored"] == len(fleet.published)
    assert sums["rejected"] == 0
    assert await open_gaps(url) == 0

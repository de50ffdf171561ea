"""`chargewatch health` against the real service, broker and database."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from tests.integration.ingest_gateway import Gateway
from tests.integration.ingest_service import publish

from chargewatch.commands.health import ask
from chargewatch.local.broker import EmbeddedBroker
from chargewatch.local.processes import free_port
from running import RunCommand

STALLED_S = 2
SLOW_S = 60.0
READINGS = "SELECT count(*) FROM register_reading"


@contextmanager
def ingest(environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "chargewatch", "ingest"],
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


async def until_told(port: int, *, ok: bool) -> dict[str, Any]:
    """Return the first answer of that kind."""
    deadline = time.monotonic() + SLOW_S
    while True:
        answer = await asyncio.to_thread(ask, "127.0.0.1", port, "/healthz", timeout_s=10)
        if (answer["status"] == "ok") is ok:
            return answer
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.1)


@asynccontextmanager
async def locked_ledger(admin: asyncpg.Connection) -> AsyncIterator[None]:
    async with admin.transaction():
        await admin.execute("LOCK TABLE ledger_stream IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def stopped_server(admin: asyncpg.Connection) -> AsyncIterator[None]:
    """Let the server's process that works for ingest answer nothing, as a hung disk would."""
    pid = await admin.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_ingest_tells_that_it_does_not_get_on_and_that_it_does_again(
    broker: EmbeddedBroker, database_url: str, run_command: RunCommand, tmp_path: Path
) -> None:
    port = free_port()
    environment = {
        "CHARGEWATCH_DATABASE_URL": database_url,
        "CHARGEWATCH_MQTT_URL": broker.url,
        "CHARGEWATCH_BATCH_MS": "50",
        "CHARGEWATCH_METRICS_PORT": str(port),
        "CHARGEWATCH_STALLED_S": str(STALLED_S),
    }
    admin = await asyncpg.connect(database_url)
    with ingest(environment, tmp_path / "ingest.log"):
        idle = await until_told(port, ok=True)
        assert idle == {**idle, "connected": True, "waiting": 0, "stalled_s": 0.0}
        async with Gateway(broker.url, "OP1", "ST1") as gateway:
            await publish(gateway, 200)
            while await admin.fetchval(READINGS) != 200:
                assert (await until_told(port, ok=True))["connected"]
            for hung in (locked_ledger, stopped_server):
                async with hung(admin):
                    begun = time.monotonic()
                    await publish(gateway, 3)
                    told = await until_told(port, ok=False)
                    assert time.monotonic() - begun >= STALLED_S - 1
                    assert told["waiting"] == 3
                    assert "nothing is committed" in told["reason"]
                    failing = run_command("health", "ingest", "--json", env=environment)
                    assert failing.returncode == 1
                    assert orjson.loads(failing.stdout)["status"] == "failing"
                await until_told(port, ok=True)
        broker.stop()
        assert "not connected" in (await until_told(port, ok=False))["reason"]
        broker.start()
        await until_told(port, ok=True)
        assert run_command("health", "ingest", env=environment).returncode == 0
        metrics = await asyncio.to_thread(scrape, port)
        assert b"chargewatch_ingest_stalled_seconds" in metrics
        taken = run_command("ingest", env=environment)
        assert taken.returncode == 1
        assert f"CHARGEWATCH_METRICS_PORT: can't listen on 127.0.0.1:{port}" in taken.stderr
    count = await admin.fetchval(READINGS)
    await admin.close()
    assert count == 206
    gone = run_command("health", "ingest", env=environment)
    assert (gone.returncode, "no answer" in gone.stderr) == (1, True)


def scrape(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        parts = iter(lambda: connection.recv(65_536), b"")
        return b"".join(parts)


@pytest.mark.parametrize(
    ("variable", "value"), [("METRICS_PORT", ""), ("STALLED_S", "0"), ("STALLED_S", "nan")]
)
def test_health_names_the_setting_that_is_wrong(
    run_command: RunCommand, variable: str, value: str
) -> None:
    done = run_command("health", "ingest", env={f"CHARGEWATCH_{variable}": value})
    assert done.returncode == 1
    assert f"CHARGEWATCH_{variable}" in done.stderr

"""What compose.yaml starts, with its own environment and secrets, on real engines."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest
import yaml
from tests.integration.ingest_gateway import Gateway
from tests.integration.ingest_service import publish
from tests.integration.production_mosquitto import add_users, production_mosquitto

from chargewatch.local.processes import free_port
from chargewatch.storage.roles import DUTIES
from running import CHECKOUT

COMPOSE = yaml.safe_load((CHECKOUT / "compose.yaml").read_text(encoding="utf-8"))
SLOW_S = 60.0


class Site:
    """Runs compose's services as processes: same commands, environment and secrets."""

    def __init__(self, database: str, broker: str, secrets: Path) -> None:
        self.database, self.broker, self.secrets = urlsplit(database), broker, secrets
        self.ports = {"serve": free_port(), "ingest": free_port()}
        self.running: list[tuple[subprocess.Popen[bytes], Path]] = []

    def environment(self, service: str) -> dict[str, str]:
        address = f"{self.database.hostname}:{self.database.port}{self.database.path}"
        result = {}
        for name, value in COMPOSE["services"][service]["environment"].items():
            text = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value)
            text = text.replace("database:5432/chargewatch", address)
            text = text.replace("broker:1883", urlsplit(self.broker).netloc)
            result[name] = text.replace("/run/secrets", str(self.secrets))
        result |= {"CHARGEWATCH_HTTP_PORT": str(self.ports["serve"])}
        if "CHARGEWATCH_METRICS_PORT" in result:
            result["CHARGEWATCH_METRICS_PORT"] = str(self.ports["ingest"])
        programs = str(Path(sys.executable).parent)
        return {**os.environ, **result, "PATH": f"{programs}:{os.environ['PATH']}"}

    def start(self, service: str, *command: str) -> tuple[subprocess.Popen[bytes], Path]:
        found = COMPOSE["services"][service]
        words = list(command) or [*found.get("entrypoint", ["chargewatch"]), *found["command"]]
        log = self.secrets.parent / f"{len(self.running)}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                words, env=self.environment(service), stdout=subprocess.DEVNULL, stderr=errors
            )
        self.running.append((process, log))
        return process, log

    def run(self, service: str, *command: str) -> tuple[int, str]:
        process, log = self.start(service, *command)
        return process.wait(SLOW_S), log.read_text()

    def until_healthy(self, service: str, process: subprocess.Popen[bytes], log: Path) -> None:
        test = COMPOSE["services"][service]["healthcheck"]["test"]
        deadline = time.monotonic() + SLOW_S
        while (told := self.run(service, *test[1:]))[0] != 0:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, told
            time.sleep(0.2)


@asynccontextmanager
async def connected(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.mosquitto
async def test_every_service_of_compose_does_its_duty_with_its_own_role(
    embedded_server: Any, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    database = await embedded_server.create_empty()
    # What the images do with these two: the database's owner and the broker's user.
    (secrets / "owner").write_text(unquote(urlsplit(database).password or "") + "\n")
    (secrets / "platform").write_text("pw-platform")
    make = [str(CHECKOUT / "deploy" / "make-secrets"), str(secrets)]
    await asyncio.to_thread(subprocess.run, make, check=True, timeout=60)
    with production_mosquitto(["platform", "OP1"]) as broker:
        site = Site(database, broker, secrets)
        try:
            status, told = site.run("assess")
            assert (status, "password authentication failed" in told) == (1, True)
            # Twice, as every `up` does.
            for _ in range(2):
                assert site.run("migrate")[0] == 0
            ingest, serve = site.start("ingest"), site.start("serve")
            site.until_healthy("ingest", *ingest)
            site.until_healthy("serve", *serve)
            with_user = broker.replace("//", "//OP1:pw-OP1@")
            async with connected(database) as owner, Gateway(with_user, "OP1", "ST1") as gateway:
                await publish(gateway, 5)
                deadline = time.monotonic() + SLOW_S
                while await owner.fetchval("SELECT count(*) FROM register_reading") < 5:
                    assert time.monotonic() < deadline
                users = await owner.fetch(
                    "SELECT DISTINCT usename FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                    "AND backend_type = 'client backend'"
                )
            assert {row["usename"] for row in users} == {"chargewatch_ingest", "chargewatch_serve"}
            # What docs/operating.md runs with them.
            listed = site.run("serve", "chargewatch", "user", "list")
            assert listed[0] == 0, listed
            for job in ("refresh", "assess", "retention"):
                status, told = site.run(job)
                assert status == 0, told
            missing = secrets / "ingest"
            missing.unlink()
            status, told = site.run("ingest")
            assert (status, str(missing) in told) == (1, True)
            for process, _ in (ingest, serve):
                process.send_signal(signal.SIGTERM)
                assert process.wait(SLOW_S) == 0
        finally:
            for process, _ in site.running:
                process.kill()
                process.wait()
            await embedded_server.drop(database)
            async with connected(embedded_server.admin_url) as admin:
                for duty in DUTIES:
                    await admin.execute(f"DROP ROLE IF EXISTS chargewatch_{duty}")


@pytest.mark.mosquitto
def test_users_of_the_broker_are_added_without_touching_the_others(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    assert add_users(passwords, "platform:one\nOP1:two\n").returncode == 0
    first = dict(line.split(":") for line in passwords.read_text().splitlines())
    assert add_users(passwords, "OP2:three\nOP1:four").returncode == 0
    second = dict(line.split(":") for line in passwords.read_text().splitlines())
    assert (set(first), set(second)) == ({"platform", "OP1"}, {"platform", "OP1", "OP2"})
    assert second["platform"] == first["platform"]
    assert second["OP1"] != first["OP1"]
    assert all(value.startswith("$7$") for value in second.values())
    for wrong in ("OP3", "OP3:", ":x", "OP/3:x", "+:x", "OP3:a:b"):
        done = add_users(passwords, f"OP4:good\n{wrong}\n")
        assert (done.returncode, "line 2" in done.stderr) == (1, True), wrong
    assert add_users(passwords, "").returncode == 0
    assert dict(line.split(":") for line in passwords.read_text().splitlines()) == second
    assert [path.name for path in tmp_path.iterdir()] == ["passwords"]

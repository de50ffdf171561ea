"""scripts/services: real TimescaleDB and Mosquitto that come, stay and go as they should."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiomqtt
import asyncpg
import pytest

from chargewatch.local.processes import port_answers, temporary_folder

pytestmark = pytest.mark.timescale

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "services"


class Services:
    """scripts/services with a state folder of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def run(self, action: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT), action],
            env={**os.environ, "CHARGEWATCH_SERVICES_STATE": str(self.state), **extra},
            capture_output=True,
            text=True,
            timeout=900,
        )

    def settings(self) -> dict[str, str]:
        lines = self.run("env").stdout.splitlines()
        assert all(line.startswith("export ") for line in lines)
        return dict(line.removeprefix("export ").split("=", 1) for line in lines)

    def recorded(self) -> dict[str, object]:
        content: dict[str, object] = json.loads((self.state / "state.json").read_text())
        return content


@pytest.fixture
def services() -> Iterator[Services]:
    with temporary_folder() as folder:
        made = Services(folder / "state")
        try:
            yield made
        finally:
            assert made.run("stop").returncode == 0


@pytest.fixture
def started(services: Services) -> Services:
    done = services.run("start")
    assert done.returncode == 0, done.stderr
    return services


@pytest.fixture(scope="module")
def shared() -> Iterator[Services]:
    """One running pair for the tests that only look."""
    with temporary_folder() as folder:
        made = Services(folder / "state")
        done = made.run("start")
        assert done.returncode == 0, done.stderr
        yield made
        assert made.run("stop").returncode == 0


async def ask(url: str, question: str) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(question, timeout=30)
    finally:
        await connection.close(timeout=10)


def processes_of(instance: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if instance.encode() in command:
            found.append(command.decode())
    return found


def test_env_sets_addresses_with_generated_passwords(shared: Services) -> None:
    settings = shared.settings()
    database = urlsplit(settings["CHARGEWATCH_DATABASE_URL"])
    broker = urlsplit(settings["CHARGEWATCH_MQTT_URL"])
    assert set(settings) == {"CHARGEWATCH_DATABASE_URL", "CHARGEWATCH_MQTT_URL"}
    assert (database.scheme, database.hostname) == ("postgresql", "127.0.0.1")
    assert (broker.scheme, broker.hostname) == ("mqtt", "127.0.0.1")
    assert len(database.password or "") >= 24
    assert len(broker.password or "") >= 24
    assert database.password != broker.password


def test_database_is_timescale_with_telemetry_off_behind_a_password(shared: Services) -> None:
    url = shared.settings()["CHARGEWATCH_DATABASE_URL"]
    assert asyncio.run(ask(url, "SHOW shared_preload_libraries")) == "timescaledb"
    assert asyncio.run(ask(url, "SHOW timescaledb.telemetry_level")) == "off"
    assert asyncio.run(ask(url, "SHOW listen_addresses")) == "127.0.0.1"
    assert asyncio.run(ask(url, "SHOW data_directory_mode")) == "0700"
    wrong = url.replace(str(urlsplit(url).password), "wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(ask(wrong, "SELECT 1"))


def test_broker_takes_its_password_and_no_other(shared: Services) -> None:
    parts = urlsplit(shared.settings()["CHARGEWATCH_MQTT_URL"])

    async def connect(password: str) -> None:
        async with aiomqtt.Client(
            "127.0.0.1",
            parts.port or 0,
            username=parts.username,
            password=password,
            protocol=aiomqtt.ProtocolVersion.V5,
            timeout=10,
        ) as client:
            await client.publish("cw/v1/OP1/S1/registers", b"{}", qos=1)

    asyncio.run(connect(unquote(parts.password or "")))
    with pytest.raises(aiomqtt.MqttError):
        asyncio.run(connect("wrong"))


def test_services_do_not_run_as_root(shared: Services) -> None:
    state = shared.recorded()
    for name in ("database_pid", "broker_pid"):
        assert Path(f"/proc/{state[name]}").stat().st_uid != 0


def test_second_start_changes_nothing(shared: Services) -> None:
    before = shared.recorded()
    done = shared.run("start")
    assert done.returncode == 0
    assert "run already" in done.stderr
    assert shared.recorded() == before


def test_stop_leaves_nothing_behind(started: Services) -> None:
    state = started.recorded()
    data = Path(str(state["data"]))
    assert data.is_dir()
    assert processes_of(str(state["instance"])) != []
    assert started.run("stop").returncode == 0
    assert processes_of(str(state["instance"])) == []
    assert not port_answers(int(str(state["database_port"])))
    assert not data.exists()
    assert not started.state.exists()
    assert started.run("status").returncode == 1
    assert started.run("stop").returncode == 0


def test_killed_services_come_back_with_their_data(started: Services) -> None:
    settings = started.settings()
    url = settings["CHARGEWATCH_DATABASE_URL"]
    asyncio.run(ask(url, "CREATE TABLE kept AS SELECT 7 AS n"))
    state = started.recorded()
    for name in ("database_pid", "broker_pid"):
        os.kill(int(str(state[name])), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while processes_of(str(state["instance"])) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert started.run("status").returncode == 1
    assert started.run("env").returncode == 1
    assert started.run("start").returncode == 0
    assert started.settings() == settings
    assert asyncio.run(ask(url, "SELECT n FROM kept")) == 7


def test_passwords_are_in_private_files_only(shared: Services) -> None:
    assert shared.state.stat().st_mode & 0o777 == 0o700
    assert (shared.state / "state.json").stat().st_mode & 0o777 == 0o600
    state = shared.recorded()
    shown = " ".join(processes_of(str(state["instance"])))
    assert str(state["database_password"]) not in shown
    assert str(state["broker_password"]) not in shown


def test_env_without_services_names_the_next_step(services: Services) -> None:
    done = services.run("env")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "scripts/services start" in done.stderr


def test_unknown_provider_is_refused(services: Services) -> None:
    done = services.run("start", CHARGEWATCH_SERVICES_PROVIDER="magic")
    assert done.returncode == 1
    assert "use system, folder or docker" in done.stderr


def test_stop_clears_an_unreadable_state_away(services: Services) -> None:
    services.state.mkdir()
    (services.state / "state.json").write_text("{not json")
    assert "can't be read" in services.run("status").stderr
    assert services.run("stop").returncode == 0
    assert not services.state.exists()

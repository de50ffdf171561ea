"""Fixtures shared by all tests: real databases, a real broker, the real command."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

import missing
from chargewatch.local.broker import EmbeddedBroker
from chargewatch.local.postgres import EmbeddedPostgres
from chargewatch.local.processes import temporary_folder
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import migrate
from running import RunCommand

# What these check is shown like what a test checks.
pytest.register_assert_rewrite("tests.integration.ingest_fleet", "tests.integration.poison_city")

# A machine that does other work too is no fault of a test.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("patient", PATIENT)
settings.load_profile("patient")

CHECKOUT = Path(__file__).resolve().parents[1]
SERVICES = CHECKOUT / "scripts" / "services"
NO_DISK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings of PostgreSQL: nothing here outlives the session, so nothing waits for the disk."""


def pytest_configure() -> None:
    """End on SIGTERM as on Ctrl-C: the engines that were started are stopped."""
    mine = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() == mine:
            raise KeyboardInterrupt
        # A forked process of what is tested ends as it does without tests.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse a set of cases: its order differs between the processes that share the tests."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        cases = mark.args[1] if len(mark.args) > 1 else mark.kwargs.get("argvalues")
        assert not isinstance(cases, set | frozenset), "parametrize: sort the set of cases"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose engine this machine lacks."""
    missing.leave_out(config, items)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the tests that were left out."""
    missing.report(config, terminalreporter)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of several (pytest -n) tells at its end."""
    missing.take_over(node.config, getattr(node, "workeroutput", {}).get("not_run", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a complete run that was not complete."""
    if hasattr(session.config, "workeroutput"):  # this is one of several processes (pytest -n)
        session.config.workeroutput["not_run"] = missing.left_out(session.config)
    if missing.is_failure(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings out of the tests."""
    of_tests = ("CHARGEWATCH_TEST_", "CHARGEWATCH_SERVICES_")
    for name in list(os.environ):
        if name.startswith("CHARGEWATCH_") and not name.startswith(of_tests):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def engine_folder() -> Iterator[Path]:
    """A folder for the session's engines that another user can pass through."""
    with temporary_folder("chargewatch-tests-") as folder:
        yield folder


def with_database(url: str, name: str) -> str:
    """Return a database URL with another database name."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, timeout=30)
    try:
        for statement in statements:
            await connection.execute(statement, timeout=120)
    finally:
        await connection.close(timeout=10)


async def _migrate(url: str) -> None:
    async with open_database(url) as database:
        await migrate(database)


@dataclass(frozen=True)
class TemplateDatabase:
    """A server with one migrated template, of which every test gets a clone."""

    admin_url: str
    template: str

    async def clone(self) -> str:
        """Make a fresh migrated database and return its URL."""
        name = f"test_{uuid.uuid4().hex[:16]}"
        # The server allows only one clone of a template at a time: repeat when two meet.
        for attempt in range(50):
            try:
                # Files copied are four times as quick as pages logged, where nothing is kept.
                wanted = f"CREATE DATABASE {name} TEMPLATE {self.template} STRATEGY FILE_COPY"
                await _execute(self.admin_url, wanted)
                break
            except asyncpg.ObjectInUseError:
                if attempt == 49:
                    raise
                await asyncio.sleep(0.1)
        return with_database(self.admin_url, name)

    async def create_empty(self) -> str:
        """Make a database without any table and return its URL."""
        name = f"test_{uuid.uuid4().hex[:16]}"
        await _execute(self.admin_url, f"CREATE DATABASE {name} TEMPLATE template0")
        return with_database(self.admin_url, name)

    async def drop(self, url: str) -> None:
        """Drop a database of this server, whoever is still connected to it."""
        name = urlsplit(url).path.lstrip("/")
        await _execute(self.admin_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _make_template(admin_url: str) -> TemplateDatabase:
    name = f"template_{uuid.uuid4().hex[:16]}"
    asyncio.run(_execute(admin_url, f"CREATE DATABASE {name} TEMPLATE template0"))
    asyncio.run(_migrate(with_database(admin_url, name)))
    # TimescaleDB keeps a scheduler in every database that it may connect to, and a database that
    # somebody is connected to can't be cloned: every clone would wait for seconds.
    asyncio.run(
        _execute(
            admin_url,
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND current_setting('is_superuser')::boolean",
        )
    )
    return TemplateDatabase(admin_url, name)


@pytest.fixture(scope="session")
def embedded_server(engine_folder: Path) -> Iterator[TemplateDatabase]:
    """PostgreSQL from the wheel with a migrated template; one for the whole session."""
    with EmbeddedPostgres(engine_folder / "postgres", options=NO_DISK) as server:
        yield _make_template(server.url_of("postgres"))


@pytest.fixture(scope="session")
def timescale_server(engine_folder: Path) -> Iterator[TemplateDatabase]:
    """TimescaleDB of scripts/services, or of CHARGEWATCH_TEST_TIMESCALE_URL, with a template."""
    url = os.environ.get("CHARGEWATCH_TEST_TIMESCALE_URL", "")
    state = engine_folder / "services"
    if url:
        server = _make_template(url)
        yield server
        asyncio.run(_execute(url, f"DROP DATABASE IF EXISTS {server.template} WITH (FORCE)"))
        return
    environment = {**os.environ, "CHARGEWATCH_SERVICES_STATE": str(state)}
    subprocess.run([str(SERVICES), "start"], env=environment, check=True, timeout=600)
    try:
        printed = subprocess.run(
            [str(SERVICES), "env"],
            env=environment,
            check=True,
            timeout=60,
            capture_output=True,
            text=True,
        ).stdout
        prefix = "export CHARGEWATCH_DATABASE_URL="
        lines = [line for line in printed.splitlines() if line.startswith(prefix)]
        url = lines[0].removeprefix(prefix).strip("'\"")
        asyncio.run(
            _execute(
                url,
                *(f"ALTER SYSTEM SET {name} = {value}" for name, value in NO_DISK.items()),
                "SELECT pg_reload_conf()",
            )
        )
        yield _make_template(url)
    finally:
        subprocess.run([str(SERVICES), "stop"], env=environment, check=True, timeout=120)


@pytest_asyncio.fixture
async def database_url(embedded_server: TemplateDatabase) -> AsyncIterator[str]:
    """A fresh migrated database on embedded PostgreSQL."""
    url = await embedded_server.clone()
    yield url
    await embedded_server.drop(url)


@pytest_asyncio.fixture
async def timescale_url(timescale_server: TemplateDatabase) -> AsyncIterator[str]:
    """A fresh migrated database on real TimescaleDB."""
    url = await timescale_server.clone()
    yield url
    await timescale_server.drop(url)


BOTH_ENGINES = ["embedded", pytest.param("timescale", marks=pytest.mark.timescale)]


def _server(request: pytest.FixtureRequest) -> TemplateDatabase:
    # Asked for by name, so that TimescaleDB starts only when a test wants it.
    server = request.getfixturevalue(f"{request.param}_server")
    assert isinstance(server, TemplateDatabase)
    return server


@pytest.fixture(params=BOTH_ENGINES)
def any_server(request: pytest.FixtureRequest) -> TemplateDatabase:
    """Each of the two servers in turn."""
    return _server(request)


@pytest_asyncio.fixture
async def any_database_url(any_server: TemplateDatabase) -> AsyncIterator[str]:
    """A fresh migrated database, on each of the two engines in turn."""
    url = await any_server.clone()
    yield url
    await any_server.drop(url)


@pytest_asyncio.fixture
async def empty_database_url(any_server: TemplateDatabase) -> AsyncIterator[str]:
    """A database without any table, on each of the two engines in turn."""
    url = await any_server.create_empty()
    yield url
    await any_server.drop(url)


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """A fresh Mosquitto, anonymous, with .url .kill() .stop() .start() .save() on one port."""
    with (
        temporary_folder("chargewatch-broker-") as folder,
        EmbeddedBroker(folder, anonymous=True, program="mosquitto") as running,
    ):
        yield running


@pytest.fixture
def broker_url(broker: EmbeddedBroker) -> str:
    """The address of a fresh Mosquitto that lets everybody in."""
    return broker.url


@pytest.fixture
def run_command() -> RunCommand:
    """Run `python -m chargewatch ARGUMENTS` to its end; env adds to the environment."""

    def run(
        *arguments: str,
        env: dict[str, str] | None = None,
        timeout: float = 60.0,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "chargewatch", *arguments],
            env={**os.environ, **(env or {})},
            timeout=timeout,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return run

"""PostgreSQL from the wheel: data that stays, a password, one owner of a folder."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from chargewatch.errors import EngineError
from chargewatch.local import postgres as postgres_module
from chargewatch.local.postgres import EmbeddedPostgres
from chargewatch.local.processes import temporary_folder

# Nothing here has to survive a power cut.
QUICK = {"fsync": "off", "synchronous_commit": "off"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder("chargewatch-postgres-") as made:
        yield made


async def query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(sql, timeout=30)
    finally:
        await connection.close(timeout=10)


async def test_data_and_password_survive_a_restart(folder: Path) -> None:
    async with EmbeddedPostgres(folder, options=QUICK) as server:
        password = urlsplit(server.url).password
        await query(server.url, "CREATE TABLE kept AS SELECT 7 AS n")
    async with EmbeddedPostgres(folder, options=QUICK) as server:
        assert urlsplit(server.url).password == password
        assert await query(server.url, "SELECT n FROM kept") == 7


async def test_wrong_password_is_refused(folder: Path) -> None:
    async with EmbeddedPostgres(folder, options=QUICK) as server:
        wrong = server.url.replace(str(urlsplit(server.url).password), "wrong")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await query(wrong, "SELECT 1")


async def test_server_listens_on_this_machine_only(folder: Path) -> None:
    async with EmbeddedPostgres(folder, options=QUICK) as server:
        assert await query(server.url, "SHOW listen_addresses") == "127.0.0.1"
        assert await query(server.url, "SHOW unix_socket_directories") == ""
        assert await query(server.url, "SHOW password_encryption") == "scram-sha-256"


def test_data_folder_is_private_and_the_server_is_not_root(folder: Path) -> None:
    with EmbeddedPostgres(folder, options=QUICK) as server:
        assert (folder / "postgres").stat().st_mode & 0o777 == 0o700
        assert (folder / "postgres" / "data").stat().st_mode & 0o777 == 0o700
        assert (folder / "postgres.password").stat().st_mode & 0o777 == 0o600
        owner = Path(f"/proc/{server.pid}").stat().st_uid
        assert owner == (65534 if os.geteuid() == 0 else os.geteuid())


def test_settings_of_chargewatch_do_not_reach_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARGEWATCH_MQTT_URL", "mqtt://user:secret@127.0.0.1:1")
    with EmbeddedPostgres(folder, options=QUICK) as server:
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"secret" not in environment


async def test_second_server_on_the_same_folder_is_refused(folder: Path) -> None:
    async with EmbeddedPostgres(folder, options=QUICK) as server:
        with pytest.raises(EngineError, match="in use by another chargewatch"):
            EmbeddedPostgres(folder, options=QUICK).start()
        assert await query(server.url, "SELECT 1") == 1


async def test_server_left_over_by_a_killed_process_is_replaced(folder: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from chargewatch.local.postgres import EmbeddedPostgres\n"
        "s = EmbeddedPostgres(Path(sys.argv[1]), options={'fsync': 'off'}); s.start()\n"
        "print(s.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    leftover = int(done.stdout)
    async with EmbeddedPostgres(folder, options=QUICK) as server:
        assert server.pid != leftover
        assert await query(server.url, "SELECT 1") == 1


async def test_interrupted_first_start_is_begun_again(folder: Path) -> None:
    async with EmbeddedPostgres(folder, options=QUICK):
        pass
    (folder / "postgres.password").unlink()
    async with EmbeddedPostgres(folder, options=QUICK) as server:
        assert await query(server.url, "SELECT 1") == 1


def test_folder_that_the_engine_cannot_pass_is_named(folder: Path) -> None:
    inner = folder / "closed"
    inner.mkdir(mode=0o700)
    server = EmbeddedPostgres(inner / "engine", options=QUICK)
    if os.geteuid() != 0:
        with server:
            assert server.pid is not None
        return
    with pytest.raises(EngineError, match=r"can't pass .*closed .*CHARGEWATCH_DATA_FOLDER"):
        server.start()


async def test_programs_in_a_closed_folder_are_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A virtual environment in /root, which nobody can't enter, looks like this.
    monkeypatch.setattr(postgres_module, "closed_parent", lambda path: path.parent)
    async with EmbeddedPostgres(folder, options=QUICK) as server:
        assert await query(server.url, "SELECT 1") == 1


def test_missing_wheel_names_the_next_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "wheel_programs", lambda: None)
    with pytest.raises(EngineError, match=r"install chargewatch\[demo\]"):
        EmbeddedPostgres(folder, options=QUICK).start()


def test_setting_that_the_server_refuses_shows_its_log(folder: Path) -> None:
    with pytest.raises(EngineError, match="unrecognized configuration parameter"):
        EmbeddedPostgres(folder, options={"no_such_setting": "1"}).start()


def test_programs_that_may_not_run_are_named_with_the_next_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = folder / "programs"
    programs.mkdir()
    for name in ("postgres", "initdb"):
        (programs / name).write_text("not executable, as everything is on a noexec file system")
    monkeypatch.setattr(postgres_module, "wheel_programs", lambda: programs)
    with pytest.raises(EngineError, match=r"initdb can't be run(.|\n)*TMPDIR"):
        EmbeddedPostgres(folder / "data").start()

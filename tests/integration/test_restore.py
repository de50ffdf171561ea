"""Base backup, WAL archive and restore to a point in time, by the scripts of docs/operating.md."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import orjson
import pytest

from chargewatch.commands.doctor import archive_check
from chargewatch.ingest.intake import Intake
from chargewatch.local.postgres import DATABASE, ROLE, EmbeddedPostgres
from chargewatch.local.processes import make_engine_folder, service_account, temporary_folder
from chargewatch.settings import load_settings
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import migrate
from chargewatch.storage.wal_archive import wal_archive
from running import CHECKOUT

SLOW_S = 60.0
BEGUN = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)


class Site:
    """A server that archives, and the scripts, run as the server's user."""

    def __init__(self, folder: Path) -> None:
        self.account = service_account()
        self.place = folder / "site"
        make_engine_folder(self.place, account=self.account)
        self.archive = self.place / "archive"
        for part in (self.archive, self.archive / "wal"):
            part.mkdir(mode=0o700)
            os.chown(part, self.account.uid, self.account.gid)
        # The server's user may not pass the checkout's parents.
        self.scripts = Path(shutil.copytree(CHECKOUT / "deploy" / "postgres", folder / "deploy"))
        self.server = EmbeddedPostgres(
            folder / "server",
            options={
                "archive_mode": "on",
                "archive_command": f"sh {self.scripts}/archive.sh %p %f {self.archive}/wal",
                "archive_timeout": "60",
            },
        )
        self.sent = 0

    @property
    def data(self) -> Path:
        return self.server._data

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program as the server's user; a file tells it the password."""
        passwords = self.place / "pgpass"
        passwords.write_text(f"127.0.0.1:{self.server.port}:*:{ROLE}:{self.server._password}\n")
        os.chown(passwords, self.account.uid, self.account.gid)
        passwords.chmod(0o600)
        programs = self.server._program("pg_basebackup").parent
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.server.port),
            "PGUSER": ROLE,
            "PGPASSFILE": str(passwords),
            "PGDATA": str(self.data),
        }
        # Through env: Python looks a program up by its own PATH.
        return subprocess.Popen(
            ["env", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.place,
            env=environment,
            user=self.account.run_uid,
            group=self.account.run_gid,
            extra_groups=self.account.run_groups,
        )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*command)
        out, errors = process.communicate(timeout=SLOW_S)
        return subprocess.CompletedProcess(command, process.returncode, out, errors)

    def script(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("sh", str(self.scripts / name), str(self.archive), *arguments)

    def back_up(self, *keep: str) -> str:
        done = self.script("base-backup.sh", *keep)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.split()[0]).name

    def bases(self) -> list[str]:
        return sorted(path.name for path in (self.archive / "base").iterdir())

    def wal(self) -> list[str]:
        names = (path.name for path in (self.archive / "wal").iterdir())
        return sorted(name[:24] for name in names if len(name) == 27 and name.endswith(".gz"))

    async def ingest(self, count: int) -> None:
        """Commit readings as the HTTP door does, one message."""
        readings = [
            {
                "connector": "ST1-1",
                "at": (BEGUN + timedelta(seconds=self.sent + number)).isoformat(),
                "energy_wh": self.sent + number,
            }
            for number in range(count)
        ]
        self.sent += count
        message = {"seq": self.sent, "sent_at": BEGUN.isoformat(), "readings": readings}
        settings = load_settings({"CHARGEWATCH_DATABASE_URL": self.server.url})
        async with Intake(settings) as intake:
            receipt = await intake.submit("registers", "OP1", "ST1", orjson.dumps(message))
        assert receipt["stored"] == count

    async def ask(self, query: str) -> list[object]:
        connection = await asyncpg.connect(self.server.url)
        try:
            return [row[0] for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def readings(self) -> list[object]:
        sums = await self.ask("SELECT sum(stored)::int FROM ledger_stream")
        found = await self.ask("SELECT energy_wh::int FROM register_reading ORDER BY at")
        assert sums == [len(found)]
        return found

    async def until_archived(self) -> None:
        """Close the WAL file, which archive_timeout does else, and wait until it is archived."""
        (name,) = await self.ask("SELECT pg_walfile_name(pg_switch_wal())")
        deadline = time.monotonic() + SLOW_S
        while name not in self.wal():
            assert time.monotonic() < deadline, await self.ask("SELECT pg_stat_archiver")
            await asyncio.sleep(0.05)

    async def archive_state(self) -> str:
        async with open_database(self.server.url) as database, database.connect() as connection:
            return archive_check(await wal_archive(connection)).state

    async def until(self, condition: Callable[[str], bool]) -> None:
        deadline = time.monotonic() + SLOW_S
        while not condition(state := await self.archive_state()):
            assert time.monotonic() < deadline, state
            # The server tries again after a minute, or when it is told to look.
            await self.ask("SELECT pg_reload_conf()")
            await asyncio.sleep(0.1)

    def lose(self) -> None:
        """Lose the machine: kill the server, delete its data."""
        pid = self.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.server.stop()
        shutil.rmtree(self.data)

    async def restore(self, base: str, *when: str) -> None:
        done = self.script("restore.sh", base, *when)
        assert done.returncode == 0, done.stderr
        self.server.start()
        # It answers questions while it still reads the archive.
        deadline = time.monotonic() + SLOW_S
        while await self.ask("SELECT pg_is_in_recovery()") != [False]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


@pytest.fixture
def site() -> Iterator[Site]:
    with temporary_folder("chargewatch-restore-") as folder:
        found = Site(folder)
        with found.server:
            yield found


async def test_lost_database_comes_back_as_it_was_at_a_time_and_goes_on(site: Site) -> None:
    async with open_database(site.server.url) as database:
        await migrate(database)
    await site.ingest(20)
    first = site.back_up()
    await site.ingest(30)
    (moment,) = await site.ask("SELECT clock_timestamp()::text")
    await site.ingest(40)
    await site.until_archived()
    await site.ingest(50)  # Not archived yet: gone with the disk.
    site.lose()

    await site.restore(first, str(moment))
    assert await site.readings() == list(range(50))

    # It goes on, and what it archives now is what a restore follows, not what was given up.
    site.sent = 50
    await site.ingest(10)
    await site.until_archived()
    in_use = site.script("restore.sh", first)
    assert (in_use.returncode, "is not empty" in in_use.stderr) == (1, True)
    site.lose()
    await site.restore(first)
    assert await site.readings() == list(range(60))

    # An archive that can't be written is told by doctor, and so is that it can again.
    assert await site.archive_state() == "ok"
    wal = site.archive / "wal"
    wal.rename(site.archive / "away")
    await site.ask("SELECT pg_switch_wal()")
    await site.until(lambda state: state == "failed")
    (site.archive / "away").rename(wal)
    await site.until(lambda state: state == "ok")

    # The next base backup, of which one is kept: what came before it is no longer needed.
    needed = len(site.wal())
    second = site.back_up("1")
    assert (site.bases(), len(site.wal()) < needed) == ([second], True)
    await site.ingest(5)
    await site.until_archived()
    site.lose()
    await site.restore(second)
    assert await site.readings() == list(range(65))
    assert await site.ask("SELECT current_database()::text") == [DATABASE]


async def test_nothing_is_lost_where_commits_wait_for_a_second_place(site: Site) -> None:
    async with open_database(site.server.url) as database:
        await migrate(database)
    base = site.back_up()
    stream = ("pg_receivewal", f"--directory={site.archive}/stream", "--slot=archive")
    made = site.run("mkdir", f"{site.archive}/stream")
    assert made.returncode == 0, made.stderr
    slot = site.run(*stream, "--create-slot", "--if-not-exists", "--no-password")
    assert slot.returncode == 0, slot.stderr
    receiver = site.start("PGAPPNAME=archive", *stream, "--synchronous", "--no-password")
    try:
        await site.ask("ALTER SYSTEM SET synchronous_standby_names = 'archive'")
        await site.ask("SELECT pg_reload_conf()")
        deadline = time.monotonic() + SLOW_S
        while await site.ask("SELECT sync_state FROM pg_stat_replication") != ["sync"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await site.ingest(70)
        site.lose()
    finally:
        receiver.kill()
        receiver.communicate()
    await site.restore(base)
    assert await site.readings() == list(range(70))


def test_archived_file_is_whole_and_never_replaced(tmp_path: Path) -> None:
    archive = tmp_path / "wal"
    archive.mkdir()
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)

    def run(folder: Path = archive) -> subprocess.CompletedProcess[str]:
        script = CHECKOUT / "deploy" / "postgres" / "archive.sh"
        command = ["sh", str(script), str(source), "0001", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    (archive / "0001.gz.partial").write_bytes(b"what a crash left")
    assert run().returncode == 0
    assert gzip.decompress((archive / "0001.gz").read_bytes()) == source.read_bytes()
    assert run().returncode == 0
    source.write_bytes(b"y" * 3_000_000)
    refused = run()
    assert (refused.returncode, "already with other content" in refused.stderr) == (1, True)
    assert gzip.decompress((archive / "0001.gz").read_bytes()) == b"x" * 3_000_000
    gone = run(tmp_path / "not-mounted")
    assert gone.returncode != 0
    assert gone.stderr
    assert [path.name for path in archive.iterdir()] == ["0001.gz"]

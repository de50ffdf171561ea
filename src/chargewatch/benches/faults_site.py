"""The platform of `chargewatch bench faults`: its processes, watched as a supervisor would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chargewatch.benches.processor_time import children, peak_memory_mb
from chargewatch.errors import ChargewatchError
from chargewatch.local.broker import EmbeddedBroker, Program
from chargewatch.local.postgres import EmbeddedPostgres
from chargewatch.local.processes import LOCALHOST, free_port
from chargewatch.local.proxy import Proxy

WATCH_S = 0.2
CLOCK = """\
import time
_time, _time_ns, _file = time.time, time.time_ns, __file__ + ".offset"
def _offset():
    with open(_file) as file:
        return int(file.read() or 0)
time.time = lambda: _time() + _offset()
time.time_ns = lambda: _time_ns() + _offset() * 1_000_000_000
"""
"""A clock for ingest that can be set: Python imports it before everything else."""

CITY_OPERATOR = "CITY"
HOSTILE = "EVIL"


class Supervised:
    """A `chargewatch` command that is started again whenever it ends."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._arguments, self._environment, self.log = arguments, environment, log
        self._process: subprocess.Popen[bytes] | None = None
        self.fell = 0
        """How often it ended by itself."""
        self.peak_mb = 0.0

    @property
    def pid(self) -> int | None:
        """Its process id, None when it doesn't run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.pid is not None:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this program
                [sys.executable, "-m", "chargewatch", *self._arguments],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C at the terminal is for the benchmark, which then ends them.
                start_new_session=True,
            )

    def note_memory(self) -> None:
        """Remember the most memory that it has had."""
        with contextlib.suppress(OSError):
            # Not a number when the process has just ended: then the first one stays.
            if self.pid is not None:
                self.peak_mb = max(self.peak_mb, peak_memory_mb(self.pid))

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self.note_memory()
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)

    async def watch(self) -> None:
        """Start it again when it has ended by itself, for ever."""
        while True:
            await asyncio.sleep(WATCH_S)
            self.note_memory()
            if self._process is not None and self._process.poll() is not None:
                self.fell += 1
                self._process = None
                self.start()


@dataclass
class Site:
    """Database, broker and ingest, with proxies on the links between them."""

    folder: Path
    database: EmbeddedPostgres
    broker: EmbeddedBroker
    to_database: Proxy
    to_broker: Proxy
    for_gateways: Proxy
    ingest: Supervised
    ballast: Path
    """Where a file fills the database's disk; its folder is a file system of its own or not."""
    own_disk: bool
    log: list[str] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    """Faults that can't be made on this machine."""
    database_fell: int = 0
    database_struck: bool = False
    """A fault has ended the database and will start it again."""
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    def url_for(self, user: str) -> str:
        """Return the broker's address by way of the gateways' proxy, for a user."""
        password = self.broker.url_of(user).partition("://")[2].rpartition("@")[0]
        return (
            f"mqtt://{password}@{self.for_gateways.url.rpartition('@')[2].removeprefix('mqtt://')}"
        )

    async def restart_database(self) -> None:
        """Start the database after its end; try until it comes up."""
        async with self._starting, asyncio.timeout(120):
            while self.database.pid is None:
                try:
                    await asyncio.to_thread(self.database.stop)
                    await asyncio.to_thread(self.database.start)
                except ChargewatchError as exc:
                    self.log.append(f"database: {exc}")
                    await asyncio.sleep(0.5)
        self.database_struck = False

    async def watch_database(self) -> None:
        """Start the database again when it ended by itself (a full disk makes it panic)."""
        while True:
            await asyncio.sleep(1)
            if self.database.pid is None and not self.database_struck and not self.ballast.exists():
                self.database_fell += 1
                await self.restart_database()

    async def restart_broker(self) -> None:
        """Start the broker after its end."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await asyncio.to_thread(self.broker.stop)
                    await asyncio.to_thread(self.broker.start)
                    return
                except ChargewatchError as exc:
                    self.log.append(f"broker: {exc}")
                    await asyncio.sleep(0.5)

    def kill_database(self) -> None:
        """End the server and all its processes at once, as a power cut would."""
        self.database_struck = True
        server = self.database.pid
        for pid in [] if server is None else [server, *children(server)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def command(self, *arguments: str, name: str) -> Supervised:
        """Return another chargewatch command on this site, with a log of its own."""
        return Supervised(arguments, self.environment(), self.folder / f"{name}.log")

    def set_clock(self, offset_s: int) -> None:
        """Set the clock of ingest, running or not."""
        folder = self.folder / "clock"
        new = folder / "new"
        new.write_text(str(offset_s), encoding="ascii")
        new.replace(folder / "sitecustomize.py.offset")

    def environment(self) -> dict[str, str]:
        """Return the platform's settings."""
        paths = [str(self.folder / "clock"), os.environ.get("PYTHONPATH", "")]
        return {
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "CHARGEWATCH_DATABASE_URL": self.to_database.url,
            "CHARGEWATCH_MQTT_URL": self.to_broker.url,
            "CHARGEWATCH_BATCH_MS": "100",
        }


@contextlib.contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[bool]:
    """Mount a small file system of its own on a folder; yield whether that was allowed."""
    folder.mkdir(mode=0o711)
    mounted = os.geteuid() == 0 and _run(
        "mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0711", "tmpfs", str(folder)
    )
    try:
        yield mounted
    finally:
        if mounted:
            _run("umount", "-l", str(folder))


def _run(*arguments: str) -> bool:
    program = shutil.which(arguments[0])
    if program is None:
        return False
    done = subprocess.run([program, *arguments[1:]], capture_output=True, check=False, timeout=30)  # noqa: S603
    return done.returncode == 0


@asynccontextmanager
async def open_site(folder: Path, *, disk_mb: int, program: Program) -> AsyncIterator[Site]:
    """Start database and broker, and make ingest ready to start; end everything afterwards."""
    async with contextlib.AsyncExitStack() as stack:
        disk = folder / "disk"
        own_disk = stack.enter_context(small_disk(disk, disk_mb))
        # What is committed must survive a crash of the server: fsync stays on.
        database = EmbeddedPostgres(
            disk / "postgres",
            port=free_port(),
            options={"max_wal_size": "96MB", "min_wal_size": "32MB", "shared_buffers": "64MB"},
        )
        stack.callback(database.stop)
        await asyncio.to_thread(database.start)
        broker = EmbeddedBroker(
            folder / "broker", port=free_port(), operators=(CITY_OPERATOR, HOSTILE), program=program
        )
        stack.callback(broker.stop)
        await asyncio.to_thread(broker.start)
        site = Site(
            folder=folder,
            database=database,
            broker=broker,
            to_database=await stack.enter_async_context(Proxy.to(database.url)),
            to_broker=await stack.enter_async_context(Proxy.to(broker.url)),
            for_gateways=await stack.enter_async_context(
                Proxy.to(f"mqtt://{LOCALHOST}:{broker.port}")
            ),
            ingest=Supervised((), {}, folder / "ingest.log"),
            ballast=disk / "ballast",
            own_disk=own_disk,
        )
        (folder / "clock").mkdir()
        (folder / "clock" / "sitecustomize.py").write_text(CLOCK, encoding="ascii")
        site.set_clock(0)
        site.ingest = site.command("ingest", name="ingest")
        stack.callback(lambda: site.ingest.kill())
        yield site

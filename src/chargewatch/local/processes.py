"""Child processes of the embedded engines: who they run as, where, how they start and end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from chargewatch.errors import EngineError

START_ATTEMPTS = 3
"""Of an engine on a free port: another program may take the port in between."""
LOCALHOST = "127.0.0.1"
SERVICE_USER = "nobody"
LOG_LINES_SHOWN = 15


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Return whether a port of 127.0.0.1 can be listened on."""
    with socket.socket() as probe:
        # As servers do: connections that are still closing don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
    return True


def port_answers(port: int, *, host: str = LOCALHOST, timeout_s: float = 1.0) -> bool:
    """Return whether something accepts TCP connections on a port, of 127.0.0.1 unless named."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def process_runs(pid: int) -> bool:
    """Return whether a process lives; one that died and was not collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # The state follows the name, which is in parentheses and may hold anything.
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return True
    return state.rpartition(")")[2].split()[0] not in {"Z", "X"}


def end_process(pid: int, how: signal.Signals, *, timeout_s: float = 20.0) -> None:
    """End a process that is not a child of this one; by force when it takes too long."""
    for number, patience_s in ((how, timeout_s), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience_s
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        while process_runs(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not process_runs(pid):
            return
    raise EngineError(f"process {pid} does not end: end it by hand")


def default_data_folder() -> Path:
    """Return where the demo's engines keep their data when CHARGEWATCH_DATA_FOLDER is not set.

    Root's home folder is closed to other users, and PostgreSQL refuses to run as root, so root's
    engines live where the system keeps services' data.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/chargewatch")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "chargewatch"


@dataclass(frozen=True)
class SystemUser:
    """The user that engines run as."""

    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        """Whether the engines run as somebody else than this process (that is: this is root)."""
        return self.uid != os.geteuid()

    @property
    def run_uid(self) -> int | None:
        """User for subprocess; None keeps the present one."""
        return self.uid if self.is_other else None

    @property
    def run_gid(self) -> int | None:
        """Group for subprocess; None keeps the present one."""
        return self.gid if self.is_other else None

    @property
    def run_groups(self) -> list[int] | None:
        """Supplementary groups for subprocess; None keeps the present ones."""
        return [] if self.is_other else None


def service_account() -> SystemUser:
    """Return whom engines run as: this user, or nobody when this is root."""
    if os.geteuid() != 0:
        return SystemUser(os.geteuid(), os.getegid())
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError as exc:
        raise EngineError(
            f"PostgreSQL refuses to run as root and this system has no user {SERVICE_USER!r}: "
            "run chargewatch as a normal user"
        ) from exc
    return SystemUser(entry.pw_uid, entry.pw_gid)


def closed_parent(path: Path) -> Path | None:
    """Return the first folder on the way to a path that other users can't pass, None if none."""
    for folder in reversed(path.resolve().parents):
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def make_engine_folder(folder: Path, *, account: SystemUser) -> None:
    """Make a folder that the engines' user owns and nobody else can read (mode 0700).

    Raises: EngineError when another user's folder above it is closed to that user.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if account.is_other and (closed := closed_parent(folder)):
        raise EngineError(
            f"engines run as {SERVICE_USER}, who can't pass {closed} (mode "
            f"{stat.S_IMODE(closed.stat().st_mode):04o}): set CHARGEWATCH_DATA_FOLDER to a folder "
            f"that other users can pass, for example {default_data_folder()}"
        )
    folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(folder, account.uid, account.gid)
    folder.chmod(0o700)


def write_private(path: Path, content: str, *, account: SystemUser | None = None) -> None:
    """Write a file that only its owner can read (mode 0600)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
    if account is not None:
        os.chown(path, account.uid, account.gid)


@contextlib.contextmanager
def temporary_folder(prefix: str = "chargewatch-") -> Iterator[Path]:
    """Yield a new folder under the system's temporary folder and delete it afterwards.

    Others can pass through it but not list it, so that engines can run as another user below it.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class FolderLock:
    """Keeps a second process from starting an engine on the same folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock, or raise EngineError when another process has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.close()
            raise EngineError(
                f"{self._path.parent} is in use by another chargewatch: end that one, or set "
                "CHARGEWATCH_DATA_FOLDER to another folder"
            ) from exc
        self._file = file

    def release(self) -> None:
        """Give the lock back; safe to repeat."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Lifetime(ABC):
    """What starts on entering and stops on leaving, by `with` or `async with`."""

    @abstractmethod
    def start(self) -> None:
        """Start and return when ready."""

    @abstractmethod
    def stop(self) -> None:
        """Stop and return when gone; safe to repeat."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)


class ChildProcess:
    """One engine's process, its log, and its end."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str | Path],
        *,
        log: Path,
        account: SystemUser,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_timeout_s: float = 20.0,
    ) -> None:
        self.name = name
        self.log = log
        self._arguments = [str(argument) for argument in arguments]
        self._account = account
        self._folder = folder
        self._environment = dict(environment or {})
        self._stop_signal = stop_signal
        self._stop_timeout_s = stop_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, None before the start and after the end."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, ready: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
        """Start and wait until `ready` says so.

        Raises: EngineError with the end of the log when the process ends or takes too long.
        """
        with self.log.open("ab") as log:
            self.log.chmod(0o600)
            try:
                self._process = subprocess.Popen(
                    self._arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                    env=engine_environment(self._environment),
                    # A Ctrl-C at the terminal is for chargewatch, which then ends the engines.
                    start_new_session=True,
                    user=self._account.run_uid,
                    group=self._account.run_gid,
                    extra_groups=self._account.run_groups,
                )
            except OSError as exc:
                raise EngineError(f"{self.name} did not start: {exc}") from exc
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self._process.poll() is not None:
                status = self._process.returncode
                raise EngineError(f"{self.name} ended with status {status}; {self.log_end()}")
            if time.monotonic() > deadline:
                self.kill()
                raise EngineError(
                    f"{self.name} was not ready after {timeout_s:.0f} s; {self.log_end()}"
                )
            time.sleep(0.02)

    def stop(self) -> None:
        """End the process in its orderly way, by force if that takes too long; may be repeated."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self._stop_signal)
            try:
                process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait(10)
        self._process = None

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def log_end(self) -> str:
        """Return the last lines of the log, for an error message."""
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        return f"the end of {self.log}:\n" + "\n".join(lines[-LOG_LINES_SHOWN:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def engine_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the small environment that engines get: no setting or secret of this process."""
    return {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
        "LC_ALL": "C",
        "TZ": "UTC",
        **(extra or {}),
    }

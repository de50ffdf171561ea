"""TimescaleDB and Mosquitto as processes of this machine, in a root folder or from packages."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services_provider import (
    ServicesError,
    ensure_root_folder,
    find_program,
    root_folder_path,
    say,
    system_postgres,
)

ACCOUNT = "chargewatch-services"
ACCOUNT_ID = 63517
"""User and group inside the root folder; a number that no distribution gives away."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
PBKDF2_ROUNDS = 1_000

POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_preload_libraries": "timescaledb",
    "timescaledb.telemetry_level": "off",
    # Files of the data folder instead of /dev/shm, which a root folder lacks.
    "dynamic_shared_memory_type": "mmap",
    "timezone": "UTC",
    "max_connections": "200",
    "max_locks_per_transaction": "256",
    "max_worker_processes": "24",
    "shared_buffers": "512MB",
    "effective_cache_size": "4GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
}

MOSQUITTO_CONFIGURATION = """\
listener {port} 127.0.0.1
allow_anonymous false
password_file {folder}/passwords
log_dest stderr
log_type error
log_type warning
connection_messages false
persistence true
persistence_location {folder}/
autosave_interval 60
persistent_client_expiration 14d
set_tcp_nodelay true
max_packet_size 2097152
max_inflight_messages 1000
max_queued_messages 1000000
max_queued_bytes 1073741824
"""


def new_password() -> str:
    """Return a password of 192 random bits that needs no quoting in a URL or a shell."""
    return secrets.token_urlsafe(24)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Return whether a port of 127.0.0.1 can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_answers(port: int) -> bool:
    """Return whether something accepts connections on a port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


def password_line(user: str, password: str) -> str:
    """Return a line of Mosquitto's password file: user and PBKDF2-SHA512 hash."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ROUNDS)
    parts = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{user}:$7${PBKDF2_ROUNDS}$" + "$".join(parts) + "\n"


def processes_in(folder: Path) -> list[int]:
    """Return the processes whose working folder is a folder or lies below it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found


def data_folders(state_folder: Path, instance: str) -> list[Path]:
    """Return every folder in which services of a state folder may keep data."""
    return [
        root_folder_path() / "srv" / instance,
        Path("/var/lib/chargewatch-services") / instance,
        state_folder / instance,
    ]


def delete_data(state_folder: Path, instance: str, recorded: str) -> None:
    """Delete the data of the services of a state folder, also where the state says it was put."""
    folders = data_folders(state_folder, instance)
    if recorded and Path(recorded).name == instance:
        folders.append(Path(recorded))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        Path("/var/lib/chargewatch-services").rmdir()


class LocalServices:
    """Starts and stops both services as processes; they outlive this command.

    Args:
        provider: folder (the Debian root folder) or system (installed packages).
        state_folder: holds the logs, and without root the data.
        instance: name of the data folder, which also marks our processes' command lines.
    """

    def __init__(self, provider: str, state_folder: Path, instance: str) -> None:
        self.in_root_folder = provider == "folder"
        self.state_folder = state_folder
        self.instance = instance
        in_root, of_root, of_user = data_folders(state_folder, instance)
        if self.in_root_folder:
            self.data = in_root
            self.data_inside = Path("/srv") / instance
        else:
            self.data = of_root if os.geteuid() == 0 else of_user
            self.data_inside = self.data

    def running(self, state: Any) -> tuple[bool, bool]:
        """Return whether the database and the broker run."""
        return (
            self._is_ours(state.database_pid) and port_answers(state.database_port),
            self._is_ours(state.broker_pid) and port_answers(state.broker_port),
        )

    def start(self, state: Any, *, save: Callable[[Any], None]) -> None:
        """Start what doesn't run, on its old data when there is some."""
        if self.in_root_folder:
            self._ensure_account(ensure_root_folder())
        self._make_folder(self.data, 0o711)
        state.data = str(self.data)
        save(state)
        began = time.monotonic()
        database, broker = self.running(state)
        if not database:
            self._end(state.database_pid, signal.SIGINT)
            self._forget_dead_server()
            self._ensure_cluster(state)
            state.database_port = self._port(state.database_port)
            state.database_pid = self._start_postgres(state)
            save(state)
            self._ensure_database(state)
        if not broker:
            self._end(state.broker_pid, signal.SIGTERM)
            state.broker_port = self._port(state.broker_port)
            state.broker_pid = self._start_mosquitto(state)
            save(state)
        say(f"started in {time.monotonic() - began:.1f} s")

    def stop(self, state: Any) -> None:
        """End both services and wait until they are gone."""
        self._end(state.broker_pid, signal.SIGTERM)
        self._end(state.database_pid, signal.SIGINT)
        self._remove_shared_memory()

    # --- where and who ---

    @property
    def _programs(self) -> Path:
        if self.in_root_folder:
            return Path("/usr/lib/postgresql/17/bin")
        programs = system_postgres()
        if programs is None:
            raise ServicesError("no installed PostgreSQL has the timescaledb extension")
        return programs

    def _account_ids(self) -> tuple[int, int] | None:
        """Return user and group to run as, None for the present user."""
        if self.in_root_folder:
            return ACCOUNT_ID, ACCOUNT_ID
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return entry.pw_uid, entry.pw_gid
        raise ServicesError("PostgreSQL refuses to run as root and there is no user for it")

    def _ensure_account(self, root: Path) -> None:
        """Give the root folder the user that the services run as (initdb looks its name up)."""
        entries = {
            "passwd": f"{ACCOUNT}:x:{ACCOUNT_ID}:{ACCOUNT_ID}::/nonexistent:/usr/sbin/nologin\n",
            "group": f"{ACCOUNT}:x:{ACCOUNT_ID}:\n",
        }
        for name, line in entries.items():
            path = root / "etc" / name
            if line not in path.read_text("utf-8"):
                with path.open("a", encoding="utf-8") as file:
                    file.write(line)

    def _make_folder(self, folder: Path, mode: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._give(folder)
        folder.chmod(mode)

    def _give(self, path: Path) -> None:
        account = self._account_ids()
        if account is not None:
            os.chown(path, *account)

    def _write(self, path: Path, content: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        self._give(path)

    def _command(self, *arguments: str | Path) -> list[str]:
        """Return the command line that runs a program in its place, as its user."""
        command = [str(argument) for argument in arguments]
        account = self._account_ids()
        if account is None:
            return command
        user, group = account
        command = [
            "setpriv",
            f"--reuid={user}",
            f"--regid={group}",
            "--clear-groups",
            "--inh-caps=-all",
            "--no-new-privs",
            *command,
        ]
        if self.in_root_folder:
            command = [str(find_program("chroot")), str(root_folder_path()), *command]
        return command

    def _environment(self, **extra: str) -> dict[str, str]:
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "LC_ALL": "C.UTF-8", "TZ": "UTC", **extra}

    # --- PostgreSQL ---

    def _ensure_cluster(self, state: Any) -> None:
        work = self.data / "postgres"
        self._make_folder(work, 0o700)
        if (work / "complete").exists():
            return
        shutil.rmtree(work / "data", ignore_errors=True)
        password_file = work / "initial-password"
        self._write(password_file, state.database_password + "\n")
        try:
            self._run(
                self._programs / "initdb",
                f"--pgdata={self.data_inside}/postgres/data",
                "--username=chargewatch",
                f"--pwfile={self.data_inside}/postgres/initial-password",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            )
        finally:
            password_file.unlink(missing_ok=True)
        (work / "complete").touch()

    def _start_postgres(self, state: Any) -> int:
        options = {**POSTGRES_SETTINGS, "port": str(state.database_port)}
        pid_file = self.data / "postgres" / "data" / "postmaster.pid"

        def ready(pid: int) -> bool:
            try:
                lines = pid_file.read_text("utf-8").splitlines()
            except FileNotFoundError:
                return False
            return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

        return self._spawn(
            "TimescaleDB",
            ready,
            self._programs / "postgres",
            "-D",
            self.data_inside / "postgres" / "data",
            *(part for item in options.items() for part in ("-c", "=".join(item))),
        )

    def _ensure_database(self, state: Any) -> None:
        address = ["--host=127.0.0.1", f"--port={state.database_port}", "--username=chargewatch"]
        query = "SELECT count(*) FROM pg_database WHERE datname = 'chargewatch'"
        words = {"PGPASSWORD": state.database_password}
        psql = self._programs / "psql"
        found = self._run(psql, *address, "--dbname=postgres", "-XAtc", query, **words)
        if found.strip() == "0":
            self._run(self._programs / "createdb", *address, "chargewatch", **words)

    def _forget_dead_server(self) -> None:
        """Remove a killed server's pid file once its last process is gone.

        PostgreSQL does that itself, except where nothing collects dead processes, as in containers
        without an init: there the number still seems to be in use.
        """
        data = self.data / "postgres" / "data"
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while processes_in(data):
            if time.monotonic() > deadline:
                raise ServicesError(f"processes of a killed server still use {data}")
            time.sleep(0.1)
        self._remove_shared_memory()
        (data / "postmaster.pid").unlink(missing_ok=True)

    def _remove_shared_memory(self) -> None:
        """Remove the small System V segment that a killed server could not remove itself."""
        pid_file = self.data / "postgres" / "data" / "postmaster.pid"
        try:
            key, segment = pid_file.read_text("utf-8").splitlines()[6].split()
            lines = Path("/proc/sysvipc/shm").read_text("utf-8").splitlines()[1:]
        except (FileNotFoundError, IndexError, ValueError):
            return
        # Number and key must agree and nobody use it: after a reboot it may be another program's.
        rows = [line.split() for line in lines]
        if any(row[0] == key and row[1] == segment and row[6] == "0" for row in rows):
            subprocess.run(["ipcrm", "--shmem-id", segment], capture_output=True, check=False)

    # --- Mosquitto ---

    def _start_mosquitto(self, state: Any) -> int:
        work = self.data / "mosquitto"
        self._make_folder(work, 0o700)
        inside = self.data_inside / "mosquitto"
        self._write(work / "passwords", password_line("chargewatch", state.broker_password))
        configuration = MOSQUITTO_CONFIGURATION.format(port=state.broker_port, folder=inside)
        self._write(work / "mosquitto.conf", configuration)
        program = "/usr/sbin/mosquitto" if self.in_root_folder else find_program("mosquitto")
        if program is None:
            raise ServicesError("Mosquitto is not installed: install the package mosquitto")
        return self._spawn(
            "Mosquitto",
            lambda pid: port_answers(state.broker_port),
            program,
            "-c",
            inside / "mosquitto.conf",
        )

    # --- processes ---

    def _port(self, earlier: int) -> int:
        return earlier if earlier and port_is_free(earlier) else free_port()

    def _run(self, *arguments: str | Path, **extra: str) -> str:
        done = subprocess.run(
            self._command(*arguments),
            env=self._environment(**extra),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            name = Path(arguments[0]).name
            raise ServicesError(f"{name} failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _spawn(self, name: str, ready: Callable[[int], bool], *arguments: str | Path) -> int:
        log = self.state_folder / f"{name.lower()}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                self._command(*arguments),
                env=self._environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready(process.pid):
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                if not ended:
                    process.kill()
                what = "ended" if ended else f"was not ready after {START_TIMEOUT_S:.0f} s"
                last = "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-15:])
                raise ServicesError(f"{name} {what}; the end of {log}:\n{last}")
            time.sleep(0.05)
        # It is meant to outlive this command: no waiting for it, no warning about it.
        process.returncode = 0
        return process.pid

    def _is_ours(self, pid: int) -> bool:
        """Return whether a process is one of ours: numbers are reused, after a reboot above all."""
        if not pid:
            return False
        try:
            return self.instance.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False

    def _end(self, pid: int, how: signal.Signals) -> None:
        if not self._is_ours(pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while self._is_ours(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            if self._is_ours(pid):
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.5)

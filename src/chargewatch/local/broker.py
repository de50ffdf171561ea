"""An MQTT 5 broker on 127.0.0.1: Mosquitto where it is installed, else rumqttd from a wheel."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from chargewatch.errors import EngineError
from chargewatch.local.processes import (
    LOCALHOST,
    START_ATTEMPTS,
    ChildProcess,
    FolderLock,
    Lifetime,
    SystemUser,
    end_process,
    free_port,
    make_engine_folder,
    port_answers,
    port_is_free,
    service_account,
    write_private,
)
from chargewatch.wire.envelope import MAX_PAYLOAD_BYTES

Program = Literal["mosquitto", "rumqttd"]

LOSSES: dict[Program, str] = {
    "mosquitto": "in a crash, what arrived after the last save (every 60 s)",
    "rumqttd": (
        "whatever waits when it ends (messages, sessions and retained status are in memory only), "
        "access lists by topic, the oldest of more than 1 GB that wait on one subscription, and "
        "all but 100 retained statuses when a subscription is new"
    ),
}
"""What one has to do without, for each broker."""

PLATFORM = "platform"
SIMULATOR = "simulator"
MAX_MESSAGE_BYTES = 2 * MAX_PAYLOAD_BYTES
"""Twice the contract's limit, so that it is the platform that refuses and writes down why."""
MAX_QUEUED_MESSAGES = 1_000_000
MAX_QUEUED_BYTES = 1024 * 1024 * 1024
PBKDF2_ROUNDS = 1_000

MOSQUITTO_CONFIGURATION = """\
per_listener_settings false
listener {port} {host}
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages false
persistence true
persistence_location {folder}/
autosave_interval 60
persistent_client_expiration 14d
set_tcp_nodelay true
max_packet_size {max_payload}
max_inflight_messages 1000
max_queued_messages {max_messages}
max_queued_bytes {max_bytes}
"""

ACL = """\
user {platform}
topic read cw/v1/#
topic write cw/v1/+/+/receipt
topic read $SYS/broker/store/messages/count

user {simulator}
topic write cw/v1/#
topic read cw/v1/+/+/receipt

pattern write cw/v1/%u/+/registers
pattern write cw/v1/%u/+/reference
pattern write cw/v1/%u/+/sessions
pattern write cw/v1/%u/+/status
pattern write cw/v1/%u/+/events
pattern read cw/v1/%u/+/receipt
"""

RUMQTTD_CONFIGURATION = """\
id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "v5-1"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {max_payload}
max_inflight_count = 500
{auth}
"""

RUMQTTD_SCRIPT = """\
import signal, sys
from iotcore import Broker
with Broker(config_path=sys.argv[1]):
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
"""


def mosquitto_program() -> Path | None:
    """Return where Mosquitto is installed, None when it isn't."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/usr/local/sbin"
    found = shutil.which("mosquitto", path=path)
    return Path(found) if found else None


def rumqttd_available() -> bool:
    """Return whether the wheel with rumqttd is installed."""
    return importlib.util.find_spec("iotcore") is not None


def choose_program(wanted: str = "auto") -> Program:
    """Return the broker of CHARGEWATCH_BROKER_PROGRAM; auto is Mosquitto where it is installed."""
    if wanted in ("mosquitto", "rumqttd"):
        return "mosquitto" if wanted == "mosquitto" else "rumqttd"
    return "mosquitto" if mosquitto_program() else "rumqttd"


def mosquitto_password_line(user: str, password: str) -> str:
    """Return a line of Mosquitto's password file: user and PBKDF2-SHA512 hash."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ROUNDS)
    parts = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{user}:$7${PBKDF2_ROUNDS}$" + "$".join(parts)


class EmbeddedBroker(Lifetime):
    """A broker on a folder; start it with `with` or `async with`.

    Mosquitto keeps queued messages and sessions in the folder across a stop and a crash (what
    arrived after its last save is lost in a crash; rumqttd keeps everything in memory).

    Args:
        folder: holds configuration, persistence and log; made when missing.
        port: TCP port of 127.0.0.1; 0 takes a free one and keeps it over restarts of this object.
        anonymous: let everybody in without a password, and let them do everything.
        operators: operator ids that get a user of their own.
        program: which broker; None takes Mosquitto where it is installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        anonymous: bool = False,
        operators: Sequence[str] = (),
        program: Program | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.port = port
        self.anonymous = anonymous
        self.program: Program = program or choose_program()
        users = (PLATFORM, SIMULATOR, *operators)
        self._passwords = {user: secrets.token_urlsafe(24) for user in users}
        self._lock = FolderLock(self.folder / "lock")
        self._process: ChildProcess | None = None
        # Only Mosquitto changes its user: rumqttd needs this Python, perhaps in a closed home.
        own = SystemUser(os.geteuid(), os.getegid())
        self._account = service_account() if self.program == "mosquitto" else own

    @property
    def url(self) -> str:
        """The broker's address for the platform (it reads all topics and writes receipts)."""
        return self.url_of(PLATFORM)

    @property
    def simulator_url(self) -> str:
        """The broker's address for the simulator (it speaks for every gateway)."""
        return self.url_of(SIMULATOR)

    @property
    def found(self) -> str:
        """Which broker it is and where it comes from, for people."""
        if self.program == "rumqttd":
            return "rumqttd from a wheel"
        return f"Mosquitto at {mosquitto_program()}"

    @property
    def pid(self) -> int | None:
        """The broker's process id, None when it isn't running."""
        return self._process.pid if self._process else None

    def url_of(self, user: str) -> str:
        """Return the broker's address with the name and password of a user."""
        if self.anonymous:
            return f"mqtt://{LOCALHOST}:{self.port}"
        password = quote(self._passwords[user])
        return f"mqtt://{quote(user)}:{password}@{LOCALHOST}:{self.port}"

    def start(self) -> None:
        """Write the configuration, start the broker, wait until it takes connections.

        Raises: EngineError when no broker is installed, the folder is in use or the start fails.
        """
        if self.program == "rumqttd" and not rumqttd_available():
            raise EngineError(
                "no MQTT broker is installed: install chargewatch[demo] or Mosquitto, "
                "or set CHARGEWATCH_MQTT_URL to a broker of your own"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._account.is_other:
            self.folder.chmod(0o711)
        self._lock.acquire()
        try:
            make_engine_folder(self._work_folder, account=self._account)
            self._end_leftover()
            self._run()
        except BaseException:
            self._lock.release()
            raise

    def stop(self) -> None:
        """Shut the broker down; Mosquitto saves its queues first. Safe to repeat."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        self._lock.release()

    def kill(self) -> None:
        """End the broker at once (SIGKILL), as a crash would; `start` brings it back."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        self._lock.release()

    def save(self, *, timeout_s: float = 10.0) -> None:
        """Make Mosquitto write sessions and queued messages to its folder now (SIGUSR1)."""
        database = self._work_folder / "mosquitto.db"
        before = database.stat().st_mtime_ns if database.exists() else 0
        if self.pid is None or self.program != "mosquitto":
            raise EngineError(f"{self.program} can't save its state: it keeps it in memory")
        os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + timeout_s
        while not database.exists() or database.stat().st_mtime_ns == before:
            if time.monotonic() > deadline:
                raise EngineError(f"Mosquitto did not save its state within {timeout_s:.0f} s")
            time.sleep(0.02)

    @property
    def _work_folder(self) -> Path:
        return self.folder / "broker"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "broker.pid"

    def _run(self) -> None:
        wanted = self.port
        for attempt in range(START_ATTEMPTS):
            self.port = wanted or free_port()
            if not port_is_free(self.port):
                # Asked first: else the program that has the port would be taken for this one.
                raise EngineError(f"port {self.port} of {LOCALHOST} is taken by another program")
            arguments = self._mosquitto() if self.program == "mosquitto" else self._rumqttd()
            process = ChildProcess(
                self.program,
                arguments,
                log=self.folder / "broker.log",
                account=self._account,
                folder=self._work_folder,
            )
            try:
                process.start(lambda: port_answers(self.port))
            except EngineError:
                # Another program may have taken the free port in between.
                if wanted or attempt == START_ATTEMPTS - 1:
                    raise
                continue
            self._process = process
            write_private(self._pid_file, str(process.pid))
            return

    def _mosquitto(self) -> list[str | Path]:
        program = mosquitto_program()
        if program is None:
            raise EngineError("Mosquitto is not installed: install the package mosquitto")
        folder = self._work_folder
        configuration = MOSQUITTO_CONFIGURATION.format(
            port=self.port,
            host=LOCALHOST,
            folder=folder,
            max_payload=MAX_MESSAGE_BYTES,
            max_messages=MAX_QUEUED_MESSAGES,
            max_bytes=MAX_QUEUED_BYTES,
        )
        if self.anonymous:
            configuration += "allow_anonymous true\n"
        else:
            configuration += (
                f"allow_anonymous false\npassword_file {folder}/passwords\nacl_file {folder}/acl\n"
            )
            lines = [mosquitto_password_line(*item) for item in self._passwords.items()]
            write_private(folder / "passwords", "\n".join(lines) + "\n", account=self._account)
            acl = ACL.format(platform=PLATFORM, simulator=SIMULATOR)
            write_private(folder / "acl", acl, account=self._account)
        write_private(folder / "mosquitto.conf", configuration, account=self._account)
        return [program, "-c", folder / "mosquitto.conf"]

    def _rumqttd(self) -> list[str | Path]:
        auth = ""
        if not self.anonymous:
            users = ", ".join(f'"{user}" = "{word}"' for user, word in self._passwords.items())
            auth = f"auth = {{ {users} }}"
        configuration = RUMQTTD_CONFIGURATION.format(
            host=LOCALHOST, port=self.port, max_payload=MAX_MESSAGE_BYTES, auth=auth
        )
        write_private(self._work_folder / "rumqttd.toml", configuration)
        return [sys.executable, "-c", RUMQTTD_SCRIPT, self._work_folder / "rumqttd.toml"]

    def _end_leftover(self) -> None:
        """End a broker that outlived a killed chargewatch: nobody else holds the folder's lock."""
        try:
            pid = int(self._pid_file.read_text("utf-8"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return
        if str(self._work_folder).encode() in command:
            end_process(pid, signal.SIGTERM)
        self._pid_file.unlink(missing_ok=True)

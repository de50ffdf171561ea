"""scripts/services start | stop | status | env.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import services_docker
import services_local
from services_provider import (
    ServicesError,
    cache_folder,
    choose_provider,
    ensure_root_folder,
    say,
)

CHECKOUT = Path(__file__).resolve().parents[1]

DESCRIPTION = """\
Bring up real TimescaleDB and Mosquitto on free ports of 127.0.0.1, without Docker.

  start    start both; fast when they run already
  stop     end both and delete their data (the cached root folder stays)
  status   say what runs; exit status 1 when one of them doesn't
  env      print the settings: eval "$(scripts/services env)"
  prepare  make the cached root folder where one is needed; start does that too

Where they come from: the system's packages (PostgreSQL with the timescaledb extension, and
Mosquitto) when they are installed; else, as root on Debian or Ubuntu, a Debian 13 folder made
by mmdebstrap (about 530 MB under ~/.cache/chargewatch, kept for the next time); else a Docker
engine. CHARGEWATCH_SERVICES_PROVIDER=system, folder or docker chooses one.
CHARGEWATCH_SERVICES_STATE is the folder of the state (default: .services in the checkout); each
folder has services of its own.
"""


@dataclass
class State:
    """What has been started; kept in the state folder."""

    instance: str
    provider: str
    database_port: int
    broker_port: int
    database_password: str
    broker_password: str
    database_pid: int = 0
    broker_pid: int = 0
    data: str = ""

    @property
    def database_url(self) -> str:
        return (
            f"postgresql://chargewatch:{self.database_password}"
            f"@127.0.0.1:{self.database_port}/chargewatch"
        )

    @property
    def mqtt_url(self) -> str:
        return f"mqtt://chargewatch:{self.broker_password}@127.0.0.1:{self.broker_port}"


class StateFolder:
    """The folder that remembers what runs."""

    def __init__(self) -> None:
        configured = os.environ.get("CHARGEWATCH_SERVICES_STATE", "")
        self.path = Path(configured).resolve() if configured else CHECKOUT / ".services"
        self.file = self.path / "state.json"

    @property
    def instance(self) -> str:
        """A name that tells these services from those of another state folder."""
        return "cw-" + hashlib.sha256(str(self.path).encode()).hexdigest()[:12]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let only one start or stop run at a time."""
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "services.lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> State | None:
        try:
            return State(**json.loads(self.file.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as exc:
            raise ServicesError(
                f"{self.file} can't be read ({exc}): `scripts/services stop` clears it away"
            ) from exc

    def write(self, state: State) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        partial = self.file.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(state), file, indent=1)
        partial.replace(self.file)

    def delete(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def services_of(provider: str, folder: StateFolder):
    """Return the object that starts and stops the services of a provider."""
    if provider == "docker":
        return services_docker.DockerServices(CHECKOUT)
    return services_local.LocalServices(provider, folder.path, folder.instance)


def start(folder: StateFolder) -> int:
    state = folder.read()
    if state is not None and all(services_of(state.provider, folder).running(state)):
        say("TimescaleDB and Mosquitto run already")
        return 0
    if state is None:
        provider = choose_provider()
        passwords = services_local.new_password(), services_local.new_password()
        state = State(folder.instance, provider, 0, 0, *passwords)
    services = services_of(state.provider, folder)
    folder.write(state)
    services.start(state, save=folder.write)
    folder.write(state)
    say(f"TimescaleDB on 127.0.0.1:{state.database_port}, Mosquitto on :{state.broker_port}")
    say('settings: eval "$(scripts/services env)"')
    return 0


def stop(folder: StateFolder) -> int:
    try:
        state = folder.read()
    except ServicesError:
        state = None
    if state is not None:
        services_of(state.provider, folder).stop(state)
    # Also without a state file: a start that was killed early may have left data behind.
    services_local.delete_data(folder.path, folder.instance, state.data if state else "")
    folder.delete()
    say("stopped, nothing left behind" if state else "nothing runs")
    return 0


def status(folder: StateFolder) -> int:
    state = folder.read()
    if state is None:
        print("stopped")
        return 1
    running = services_of(state.provider, folder).running(state)
    ports = state.database_port, state.broker_port
    for name, runs, port in zip(("TimescaleDB", "Mosquitto"), running, ports, strict=True):
        print(f"{name}: {f'running on 127.0.0.1:{port}' if runs else 'not running'}")
    print(f"provider: {state.provider}")
    return 0 if all(running) else 1


def print_environment(folder: StateFolder) -> int:
    state = folder.read()
    if state is None or not all(services_of(state.provider, folder).running(state)):
        raise ServicesError("the services don't run: `scripts/services start` first")
    print(f"export CHARGEWATCH_DATABASE_URL={shlex.quote(state.database_url)}")
    print(f"export CHARGEWATCH_MQTT_URL={shlex.quote(state.mqtt_url)}")
    return 0


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/services",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["start", "stop", "status", "env", "prepare"])
    action = parser.parse_args().action
    folder = StateFolder()
    try:
        if action == "status":
            return status(folder)
        if action == "env":
            return print_environment(folder)
        if action == "prepare":
            if choose_provider() == "folder":
                ensure_root_folder()
            return 0
        with folder.locked():
            return start(folder) if action == "start" else stop(folder)
    except ServicesError as exc:
        print(f"services: {exc}", file=sys.stderr)
        return 1

"""The first command of the README, on a bare machine: nothing lost, every offender red.

With Mosquitto and without, as the user of the tests and, when that is root, as an ordinary one,
from a fresh copy of the checkout with a virtual environment of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chargewatch.local.broker import mosquitto_program
from chargewatch.local.processes import temporary_folder
from running import CHECKOUT, checkout_files

NOBODY = 65534
SMALL_CITY = (
    *("--set", "days=10", "--set", "stations=4", "--set"),
    'faults=[{fault="gain",count=3,current="AC",magnitude_mpe=3.0},'
    '{fault="gain",count=1,current="DC",magnitude_mpe=5.0},{fault="reset",count=1}]',
)
HIDE = 'mount --bind /dev/null "$0" && exec "$@"'


@dataclass(frozen=True)
class User:
    """Who runs the demo, with a home and a temporary folder of their own."""

    folder: Path
    uid: int

    @property
    def is_other(self) -> bool:
        """Whether this is somebody else than who runs the tests."""
        return self.uid != os.geteuid()

    @property
    def temporary(self) -> Path:
        """Where this user's temporary files go."""
        return self.folder / "tmp"

    def environment(self) -> dict[str, str]:
        """Return the environment of a newcomer: no setting, no virtual environment."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CHARGEWATCH_", "XDG_", "PYTHON", "MAKE", "MFLAGS"))
            and name != "VIRTUAL_ENV"
        }
        path = [
            folder
            for folder in kept.get("PATH", "/usr/bin:/bin").split(os.pathsep)
            if Path(folder) != Path(sys.prefix) / "bin"
        ]
        mine = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.temporary)}
        return {**kept, **mine, "PATH": os.pathsep.join(path)}

    def run(
        self, *command: str, folder: Path, with_mosquitto: bool, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user; Mosquitto is hidden from it when it shall be without."""
        words: Sequence[str] = command
        extra: Mapping[str, str] = {}
        program = mosquitto_program()
        if self.is_other:
            change = (f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups")
            words = ("setpriv", *change, "--inh-caps=-all", *words)
        if program is not None and not with_mosquitto:
            if can_hide(program):
                words = ("unshare", "--mount", "sh", "-c", HIDE, str(program), *words)
            else:
                extra = {"CHARGEWATCH_BROKER_PROGRAM": "rumqttd"}
        return subprocess.run(
            words,
            cwd=folder,
            env={**self.environment(), **extra},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


def can_hide(program: Path) -> bool:
    """Return whether a private mount namespace can hide a program here (root can, mostly)."""
    command = ("unshare", "--mount", "sh", "-c", HIDE, str(program), "true")
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def myself() -> Iterator[User]:
    with temporary_folder("chargewatch-demo-test-") as folder:
        yield make_user(folder, os.geteuid())


@pytest.fixture(scope="module")
def ordinary() -> Iterator[User]:
    with temporary_folder("chargewatch-demo-test-") as folder:
        yield make_user(folder, NOBODY if os.geteuid() == 0 else os.geteuid())


def make_user(folder: Path, uid: int) -> User:
    for name in ("home", "tmp", "a checkout"):
        (folder / name).mkdir()
        os.chown(folder / name, uid, uid if uid == NOBODY else -1)
    return User(folder, uid)


@pytest.fixture(scope="module")
def fresh(ordinary: User) -> Path:
    """A copy of the checkout's files, as a newcomer has them; its name has a blank."""
    target = ordinary.folder / "a checkout"
    for name in checkout_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, target / name)
    if ordinary.is_other:
        for path in target.rglob("*"):
            os.chown(path, ordinary.uid, ordinary.uid)
    return target


def check(done: subprocess.CompletedProcess[str], *, broker: str, least_faults: int) -> None:
    """Nothing is lost, every offender is red, and the demo says what it ran on."""
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    outcome: dict[str, Any] = json.loads(done.stdout)
    assert outcome["stored"] == outcome["published"] > 10_000, told
    assert (outcome["lost"], outcome["missed"]) == (0, []), told
    office, red = outcome["office"], outcome["flagged"]
    assert office["cases"] >= min(5, red) > 0, told
    assert (office["drawn"], office["complaints"]) == (8, min(4, red)), told
    assert outcome["true_faults"] >= least_faults, told
    assert broker in outcome["engines"]["broker"]["found"], told
    assert outcome["engines"]["broker"]["lost"]
    assert "hypertables" in outcome["engines"]["database"]["lost"]
    assert outcome["engines"]["broker"]["found"] in done.stderr


def check_nothing_left(user: User) -> None:
    """No file and no process of the demo stays."""
    assert list(user.temporary.iterdir()) == []
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(user.temporary).encode() in command:
            left.append(command)
    assert left == []


@pytest.mark.timeout(900)
def test_first_command_of_the_readme_works_without_anything_installed(
    ordinary: User, fresh: Path
) -> None:
    command = ("make", "demo", "ARGS=--once --json")
    done = ordinary.run(*command, folder=fresh, with_mosquitto=False, timeout_s=840)
    check(done, broker="rumqttd", least_faults=6)
    check_nothing_left(ordinary)
    tools = subprocess.run([fresh / ".venv/bin/python", "-c", "import pytest"], capture_output=True)
    assert b"No module named 'pytest'" in tools.stderr, "the demo needs the tools of the tests"


LIVE_DEMO = ("-m", "chargewatch", "demo", "--set", "days=3", "--set", "stations=2")
SMALL_DEMO = ("-m", "chargewatch", "demo", "--once", "--json", *SMALL_CITY)


@pytest.mark.mosquitto
def test_ordinary_user_gets_the_demo_on_mosquitto(ordinary: User, fresh: Path) -> None:
    python = fresh / ".venv/bin/python"
    if not python.exists():  # when this test runs alone
        made = ordinary.run(
            "make", ".venv/.installed-demo", folder=fresh, with_mosquitto=True, timeout_s=280
        )
        assert made.returncode == 0, made.stderr
    done = ordinary.run(str(python), *SMALL_DEMO, folder=fresh, with_mosquitto=True, timeout_s=200)
    check(done, broker="Mosquitto", least_faults=4)
    check_nothing_left(ordinary)


@pytest.mark.parametrize(
    ("with_mosquitto", "broker"),
    [pytest.param(True, "Mosquitto", marks=pytest.mark.mosquitto), (False, "rumqttd")],
)
def test_demo_loses_nothing_as_this_user(myself: User, with_mosquitto: bool, broker: str) -> None:
    done = myself.run(
        sys.executable,
        *SMALL_DEMO,
        folder=myself.folder,
        with_mosquitto=with_mosquitto,
        timeout_s=200,
    )
    check(done, broker=broker, least_faults=4)
    check_nothing_left(myself)


@contextmanager
def taken_default_port() -> Iterator[None]:
    """Have another program listen on the port that the pages would take, if none does yet."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            other.bind(("127.0.0.1", 8080))
            other.listen()
        yield


def test_live_demo_shows_its_pages_until_ctrl_c_and_leaves_nothing(myself: User) -> None:
    told = myself.folder / "told"
    with taken_default_port(), told.open("w") as errors:
        settings = {
            "CHARGEWATCH_BROKER_PROGRAM": "rumqttd",
            # Through a proxy nobody reaches this machine's own address.
            "http_proxy": "http://127.0.0.1:9",
            "HTTP_PROXY": "http://127.0.0.1:9",
        }
        demo = subprocess.Popen(
            [sys.executable, *LIVE_DEMO],
            env={**myself.environment(), **settings},
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
        try:
            deadline = time.monotonic() + 200
            while "Ctrl-C ends the demo" not in told.read_text():
                assert demo.poll() is None, told.read_text()
                assert time.monotonic() < deadline, told.read_text()
                time.sleep(0.2)
            words = dict(re.findall(r"^  (pages|user|password) +(\S+)$", told.read_text(), re.M))
            body = json.dumps({"username": words["user"], "password": words["password"]}).encode()
            request = urllib.request.Request(
                f"{words['pages']}api/v1/login",
                data=body,
                headers={"Content-Type": "application/json"},
            )
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=30) as answer:
                assert json.load(answer)["token"]
        finally:
            demo.send_signal(signal.SIGINT)
            status = demo.wait(60)
    assert status == 0, told.read_text()
    assert "port 8080 is taken" in told.read_text()
    assert "the demo has ended" in told.read_text()
    check_nothing_left(myself)

"""Two minutes in which everything breaks: nothing is lost, nothing doubled, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chargewatch.benches.faults_strikes import STRIKE_KINDS
from chargewatch.local.processes import temporary_folder
from running import RunCommand

BENCH = ("bench", "faults", "--seed", "10", "--json")


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that work in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line and int(entry.name) != os.getpid():
            found.append(line)
    return found


def mounts_of(folder: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]


@pytest.mark.timeout(600)
def test_a_city_loses_nothing_while_everything_breaks(run_command: RunCommand) -> None:
    with temporary_folder("chargewatch-test-faults-") as parent:
        folder = parent / "run"
        done = run_command(*BENCH, "--minutes", "1.8", "--keep", str(folder), timeout=560)
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        figures = json.loads(done.stdout)
        assert figures["good"] is True
        missing = {kind.name for kind in STRIKE_KINDS} - set(figures["faults_by_kind"])
        # Where root may neither mount nor limit: then the figures say so.
        assert missing <= ({"fill_database_disk"} if figures["left_out"] else set())
        assert figures["readings"] > 5_000
        assert figures["resent_by_gateways_here"] > 0
        assert processes_of(folder) == []
        assert mounts_of(folder) == []


def test_ended_in_the_middle_it_leaves_nothing_behind() -> None:
    with temporary_folder("chargewatch-test-faults-") as parent:
        folder = parent / "run"
        process = subprocess.Popen(
            [sys.executable, "-m", "chargewatch", *BENCH, "--keep", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 60
        while not (folder / "ingest.log").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(processes_of(folder)) > 5
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 130, out
        assert processes_of(folder) == []
        assert mounts_of(folder) == []

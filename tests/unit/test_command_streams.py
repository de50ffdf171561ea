"""A command whose output has nowhere to go says so in one line; no number is NaN."""

from __future__ import annotations

import subprocess
import sys

import pytest

from running import RunCommand

SETTINGS = f"{sys.executable} -m chargewatch settings --json"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_full_disk_behind_stdout_is_one_clear_line() -> None:
    told = shell(f"{SETTINGS} > /dev/full")
    assert told.returncode == 1
    assert told.stderr.splitlines() == [
        "chargewatch: stdout can't be written: No space left on device; make room, or use a file"
    ]


def test_closed_streams_break_no_command() -> None:
    told = shell(f"{SETTINGS} <&- >&-")
    assert (told.returncode, told.stderr) == (0, "")


def test_a_reader_that_has_gone_gets_no_complaint() -> None:
    assert shell(f"{SETTINGS} | true").stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["assess", "--days", "nan"],
        ["ingest", "--until-idle", "nan"],
        ["replay", "--rate", "inf", __file__],
    ],
)
def test_nan_and_infinity_are_wrong_usage(run_command: RunCommand, arguments: list[str]) -> None:
    told = run_command(*arguments)
    assert told.returncode == 2
    assert "is not a finite number" in told.stderr

"""Tests whose engine this machine lacks are named as not run, and fail the run in CI only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("in_ci", "processes", "status"), [("", (), 0), ("true", (), 1), ("true", ("-n", "2"), 1)]
)
def test_missing_engine_is_named_and_fails_only_in_ci(
    in_ci: str, processes: tuple[str, ...], status: int
) -> None:
    chosen = ("unit/test_capabilities.py", "integration/test_services.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *processes, *(str(TESTS / name) for name in chosen)],
        cwd=TESTS.parent,
        # No such way to TimescaleDB exists.
        env={**os.environ, "CI": in_ci, "CHARGEWATCH_SERVICES_PROVIDER": "nowhere"}
        | {"CHARGEWATCH_TEST_TIMESCALE_URL": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert re.search(r"not run: \d+ tests", done.stdout)
    assert "no TimescaleDB here: CHARGEWATCH_SERVICES_PROVIDER='nowhere'" in done.stdout
    assert "skipped" not in done.stdout
    assert ("so this is a failure" in done.stdout) == bool(in_ci)

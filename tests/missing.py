"""Which engines of the tests this machine lacks: their tests are named as not run, not skipped.

A test needs an engine by its marker (timescale, browser, mosquitto, rival) or by a fixture of it.
With CI=true every engine has to be there: then a missing one fails the run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from chargewatch.local.broker import mosquitto_program

SERVICES = Path(__file__).resolve().parents[1] / "scripts" / "services"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NOT_RUN = pytest.StashKey[dict[str, int]]()


def browser_program() -> str:
    """Return the Chromium that the tests drive, '' when there is none."""
    named = os.environ.get("CHARGEWATCH_TEST_CHROMIUM", "")
    return named or next(filter(None, map(shutil.which, BROWSERS)), "")


def _no_timescale() -> str:
    if os.environ.get("CHARGEWATCH_TEST_TIMESCALE_URL"):
        return ""
    # Makes the Debian folder with TimescaleDB where that is the way and it isn't there yet.
    done = subprocess.run([str(SERVICES), "prepare"], capture_output=True, text=True, timeout=1200)
    return "" if done.returncode == 0 else done.stderr.strip().removeprefix("services: ")


def _no_mosquitto() -> str:
    return "" if mosquitto_program() else "install the package mosquitto"


def _no_browser() -> str:
    return "" if browser_program() else "install the packages chromium and fonts-noto-cjk"


def _no_rival() -> str:
    return "" if importlib.util.find_spec("gpboost") else "pip install 'chargewatch[rival]'"


ENGINES: dict[str, tuple[str, Callable[[], str]]] = {
    "timescale": ("TimescaleDB", _no_timescale),
    "mosquitto": ("Mosquitto", _no_mosquitto),
    "browser": ("Chromium", _no_browser),
    "rival": ("GPBoost", _no_rival),
}


FIXTURES = {"broker": "mosquitto", "timescale_server": "timescale"}
"""Fixtures of tests/conftest.py that start an engine."""


def needs_of(item: pytest.Item) -> set[str]:
    """Return the engines that a test needs."""
    needs = {name for name in ENGINES if item.get_closest_marker(name)}
    fixtures = getattr(item, "fixturenames", ())
    return needs | {engine for fixture, engine in FIXTURES.items() if fixture in fixtures}


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the tests whose engine is missing out of the list; remember how many and why."""
    needs = {item: needs_of(item) for item in items}
    wanted = set().union(*needs.values())
    reasons = {
        name: f"no {title} here: {reason}"
        for name, (title, find_reason) in ENGINES.items()
        if name in wanted and (reason := find_reason())
    }
    missing = {item: next(iter(sorted(needs[item] & set(reasons))), "") for item in items}
    not_run = [item for item in items if missing[item]]
    if not_run:
        config.hook.pytest_deselected(items=not_run)
        items[:] = [item for item in items if not missing[item]]
    config.stash[NOT_RUN] = dict(Counter(reasons[missing[item]] for item in not_run))


def left_out(config: pytest.Config) -> dict[str, int]:
    """Return how many tests were left out, by reason."""
    return config.stash.get(NOT_RUN, {})


def take_over(config: pytest.Config, told: dict[str, int]) -> None:
    """Remember what one of several processes left out; each of them looks at all tests."""
    config.stash[NOT_RUN] = told or left_out(config)


def report(config: pytest.Config, terminal: pytest.TerminalReporter) -> None:
    """Say at the end which tests were not run, and what to do about it."""
    not_run = left_out(config)
    if not not_run:
        return
    terminal.section(f"not run: {sum(not_run.values())} tests", yellow=True)
    for reason, count in not_run.items():
        terminal.line(f"{count} tests: {reason}")
    if in_ci():
        terminal.line("CI=true: this machine has to run every test, so this is a failure", red=True)


def is_failure(config: pytest.Config) -> bool:
    """Return whether tests that were not run make the whole run a failure."""
    return in_ci() and bool(left_out(config))


def in_ci() -> bool:
    """Return whether this is a run that has to be complete."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}

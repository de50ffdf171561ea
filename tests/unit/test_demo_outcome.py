"""A demo that lost something says so and does not pass."""

from __future__ import annotations

import io
from types import SimpleNamespace

from rich.console import Console

from chargewatch.commands.demo import _show
from chargewatch.local.demo import Outcome
from chargewatch.local.engines import Engine

BROKER = Engine(found="rumqttd from a wheel", lost="whatever waits when it ends")


def outcome(*, stored: int, missed: list[str] | None = None) -> Outcome:
    return Outcome(
        stored=stored,
        published=1000,
        true_faults=1,
        flagged=1,
        false_flags=0,
        seconds=1.0,
        findings=[],
        missed=missed or [],
        engines={"broker": BROKER},
    )


def shown(result: Outcome) -> str:
    console = Console(file=io.StringIO(), width=200)
    _show(SimpleNamespace(), result, console=console, once=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_lost_readings_are_told_and_do_not_pass() -> None:
    result = outcome(stored=950)
    assert not result.passed
    assert result.as_json()["lost"] == 50
    assert "LOST: 50 of 1,000 readings and sessions" in shown(result)


def test_missed_offender_is_told_and_does_not_pass() -> None:
    result = outcome(stored=1000, missed=["A-1"])
    assert not result.passed
    assert result.as_json()["missed"] == ["A-1"]
    assert "A-1 exceeds twice its MPE and is not red" in shown(result)


def test_complete_outcome_passes_and_names_its_engines() -> None:
    result = outcome(stored=1000)
    assert result.passed
    assert "LOST" not in shown(result)
    assert result.as_json()["engines"]["broker"] == {"found": BROKER.found, "lost": BROKER.lost}

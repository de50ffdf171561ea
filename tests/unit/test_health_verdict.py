"""When ingest counts as getting on, by a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chargewatch.ingest import health
from chargewatch.ingest.health import LOOK_S, IngestHealth, Look

IDLE = Look(connected=True, subscribed=True, waiting=0, finished=0, nothing_written="")
LIMIT_S = 30.0


class Watched:
    """A health with what it sees and the clock it reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.look, self.told = 1000.0, IDLE, 0.0
        monkeypatch.setattr(health.time, "monotonic", lambda: self.now)
        self.health = IngestHealth(lambda: self.look, limit_s=LIMIT_S, tell=self._tell)
        self.health.look_now()

    def _tell(self, stalled_s: float) -> None:
        self.told = stalled_s

    def lasts(self, seconds: float, *, commits: int = 0, **change: object) -> bool:
        """Let a state last; return whether ingest is well at its end."""
        end = self.now + seconds
        self.look = replace(self.look, **change)  # type: ignore[arg-type]
        while self.now < end:
            self.now += LOOK_S
            self.look = replace(self.look, finished=self.look.finished + commits)
            self.health.look_now()
        return self.health.verdict().ok

    @property
    def reason(self) -> str:
        return self.health.verdict().reason


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_idle_and_busy_ingest_is_well_for_any_time(watched: Watched) -> None:
    assert watched.lasts(10_000)
    assert watched.lasts(10_000, waiting=2_000, commits=1)
    assert watched.told == 0


def test_waiting_messages_without_a_commit_are_told_within_the_limit(watched: Watched) -> None:
    assert watched.lasts(LIMIT_S - 1, waiting=5)
    assert not watched.lasts(2 * LOOK_S, waiting=9)
    assert "9 messages wait" in watched.reason
    assert watched.told > LIMIT_S
    assert watched.lasts(LOOK_S, commits=1)
    assert not watched.lasts(LIMIT_S + 1, nothing_written="ConnectionRefusedError: 5432")
    assert "ConnectionRefusedError" in watched.reason
    assert watched.lasts(LOOK_S, waiting=0)


def test_lost_broker_is_told_and_a_changing_trouble_is_one_trouble(watched: Watched) -> None:
    assert watched.lasts(LIMIT_S / 2, connected=False, subscribed=False)
    assert watched.lasts(LIMIT_S / 2 - 1, connected=True, waiting=3)
    assert not watched.lasts(2 * LOOK_S, connected=False)
    assert "not connected" in watched.reason
    assert watched.lasts(LOOK_S, connected=True, subscribed=True, waiting=0)
    assert not watched.lasts(LIMIT_S + 1, subscribed=False)
    assert "subscription" in watched.reason


def test_event_loop_that_stands_still_is_told(watched: Watched) -> None:
    watched.now += LIMIT_S + 1
    assert not watched.health.verdict().ok
    assert "event loop" in watched.reason


def test_service_that_was_not_connected_yet_is_not_well() -> None:
    seen = replace(IDLE, connected=False, subscribed=False)
    health_of_it = IngestHealth(lambda: seen, limit_s=LIMIT_S)
    for _ in range(2):
        document = health_of_it.verdict().document()
        assert document["status"] == "failing"
        assert document["reason"]
        health_of_it.look_now()

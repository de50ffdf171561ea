"""The plan of `chargewatch bench faults` and its verdict, which must be able to say no."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from chargewatch.benches.faults_strikes import STRIKE_KINDS, schedule
from chargewatch.benches.faults_verdict import FaultVerdict, compare, judge_stream, read_record
from chargewatch.storage.contents import StreamBooks


def stream(**changes: int | str) -> StreamBooks:
    values: dict[str, int | str] = {
        "operator_id": "CITY",
        "station_id": "ST000",
        "topic": "registers",
        "messages": 3,
        "received": 10,
        "stored": 8,
        "duplicate": 2,
        "rejected": 0,
        "last_seq": 3,
        "open_gaps": 0,
        "restarts": 0,
    }
    return StreamBooks(**{**values, **changes})  # type: ignore[arg-type]


def test_a_seed_repeats_its_faults() -> None:
    first, again = schedule(seed=5, seconds=600), schedule(seed=5, seconds=600)
    assert first == again
    assert first != schedule(seed=6, seconds=600)
    assert 140 < len(first) < 200


def test_a_short_run_has_every_kind() -> None:
    struck = {fault.kind.name for fault in schedule(seed=1, seconds=100)}
    assert struck == {kind.name for kind in STRIKE_KINDS}


def test_the_verdict_finds_what_is_lost_doubled_or_wrong() -> None:
    sent = {("C", 1): 1.0, ("C", 2): 2.0, ("C", 3): 3.0}
    good = FaultVerdict()
    compare(sent, dict(sent), Counter(sent.keys()), good)
    assert good.good
    bad = FaultVerdict()
    stored = {("C", 1): 1.0, ("C", 2): 9.0, ("C", 7): 7.0}
    compare(sent, stored, Counter({("C", 1): 2, ("C", 2): 1, ("C", 7): 1}), bad)
    assert (bad.lost, bad.doubled, bad.wrong) == (1, 1, 2)
    assert not bad.good
    assert len(bad.examples) == 3


def test_the_verdict_reads_the_books() -> None:
    for changes, good in (
        ({}, True),
        ({"stored": 7}, False),
        ({"open_gaps": 1}, False),
        ({"stored": 7, "rejected": 1}, False),
        ({"topic": "status", "open_gaps": 1}, True),
        ({"operator_id": "EVIL", "stored": 0, "duplicate": 0, "rejected": 10}, True),
        ({"operator_id": "EVIL", "stored": 0}, False),
    ):
        verdict = FaultVerdict()
        judge_stream(stream(**changes), verdict)
        assert verdict.good is good, changes


def test_the_record_is_what_the_station_wrote(tmp_path: Path) -> None:
    lines = [
        {"connector": "C", "at": "2026-03-01T00:00:00.001+00:00", "energy_wh": 5},
        {"connector": "C", "at": "2026-03-01T00:00:00.001+00:00", "energy_wh": 5},
        {"meter": "M", "at": "2026-03-01T08:00:00.000+08:00", "energy_wh": 7},
        {"session": "S", "connector": "C", "billed_wh": 9},
        {"connector": "C", "at": "2026-03-01T00:00:00Z", "kind": "seal_opened", "detail": "E"},
    ]
    path = tmp_path / "lines"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = read_record(path)
    midnight = 1_772_323_200_000_000
    assert record.readings == {("C", midnight + 1000): 5.0, ("M", midnight): 7.0}
    assert record.sessions == {"S": 9.0}
    assert record.events == {"E": midnight}

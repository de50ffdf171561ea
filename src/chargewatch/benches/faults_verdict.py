"""What is in the tables against what the stations wrote down."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from chargewatch.benches.faults_city import FaultCity, FaultStation
from chargewatch.benches.faults_site import CITY_OPERATOR
from chargewatch.benches.scratch import scratch_connection
from chargewatch.storage import contents


@dataclass
class FaultVerdict:
    """What went wrong; all zero when nothing did."""

    readings: int = 0
    sessions: int = 0
    events: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    """Stored with another value, or never sent."""
    rejected: int = 0
    unbalanced_streams: int = 0
    open_gaps: int = 0
    receipts_missing: int = 0
    status_gaps: int = 0
    """Told, not counted as a fault: a status has no receipt, the next one replaces it."""
    count_restarts: int = 0
    messages: int = 0
    items_received: int = 0
    duplicates: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled, wrong or left open."""
        return not (
            self.lost
            or self.doubled
            or self.wrong
            or self.rejected
            or self.unbalanced_streams
            or self.open_gaps
            or self.receipts_missing
        )

    def example(self, text: str) -> None:
        """Keep the first few of what went wrong."""
        if len(self.examples) < 20:
            self.examples.append(text)

    def figures(self) -> dict[str, Any]:
        """Return it as the benchmark prints it."""
        return asdict(self)


Key = tuple[str, int]


@dataclass
class Record:
    """What a station wrote down."""

    readings: dict[Key, float] = field(default_factory=dict)
    sessions: dict[str, float] = field(default_factory=dict)
    events: dict[str, float] = field(default_factory=dict)


def read_record(path: Path) -> Record:
    """Return what stands in a station's file."""
    record = Record()
    with path.open("rb") as file:
        for line in file:
            row = json.loads(line)
            if "session" in row:
                record.sessions[row["session"]] = float(row["billed_wh"])
                continue
            at_us = round(datetime.fromisoformat(row["at"]).timestamp() * 1e6)
            if "kind" in row:
                record.events[row["detail"]] = at_us
                continue
            name = row.get("connector") or row["meter"]
            record.readings[name, at_us] = float(row["energy_wh"])
    return record


async def judge(url: str, city: FaultCity) -> FaultVerdict:
    """Compare every station's record with the tables, and the books with themselves."""
    verdict = FaultVerdict()
    connection = await scratch_connection(url)
    try:
        for station in city.stations:
            await _judge_station(connection, station, verdict)
        for stream in await contents.streams(connection):
            judge_stream(stream, verdict)
    finally:
        await connection.close(timeout=10)
    verdict.receipts_missing = sum((await city.backlogs()).values())
    return verdict


async def _judge_station(connection: Any, station: FaultStation, verdict: FaultVerdict) -> None:
    record = read_record(station.path)
    rows = await contents.station_readings(connection, CITY_OPERATOR, station.station_id)
    sessions = await contents.station_sessions(connection, CITY_OPERATOR, station.station_id)
    events = await contents.station_events(connection, CITY_OPERATOR, station.station_id)
    verdict.readings += len(record.readings)
    verdict.sessions += len(record.sessions)
    verdict.events += len(record.events)
    stored = {(name, at_us): energy for name, at_us, energy in rows}
    compare(record.readings, stored, Counter((row[0], row[1]) for row in rows), verdict)
    compare(record.sessions, dict(sessions), Counter(row[0] for row in sessions), verdict)
    compare(record.events, dict(events), Counter(row[0] for row in events), verdict)


def compare(
    sent: dict[Any, float], stored: dict[Any, float], times: Counter[Any], verdict: FaultVerdict
) -> None:
    """Count what was sent and isn't stored, and what is stored twice, otherwise or unasked."""
    for key, value in sent.items():
        if key not in stored:
            verdict.lost += 1
            verdict.example(f"lost {key}")
        elif stored[key] != value:
            verdict.wrong += 1
            verdict.example(f"{key} is {stored[key]}, was {value}")
    for key in stored.keys() - sent.keys():
        verdict.wrong += 1
        verdict.example(f"never sent {key}")
    verdict.doubled += sum(count - 1 for count in times.values())


def judge_stream(stream: contents.StreamBooks, verdict: FaultVerdict) -> None:
    """Count what is wrong with the books of one stream."""
    name = f"{stream.operator_id}/{stream.station_id}/{stream.topic}"
    if not stream.balances:
        verdict.unbalanced_streams += 1
        verdict.example(f"{name} does not balance: {stream}")
    verdict.messages += stream.messages
    verdict.items_received += stream.received
    verdict.duplicates += stream.duplicate
    if stream.operator_id != CITY_OPERATOR:
        return
    verdict.count_restarts += stream.restarts
    if stream.topic == "status":
        verdict.status_gaps += stream.open_gaps
        return
    if stream.open_gaps:
        verdict.open_gaps += stream.open_gaps
        verdict.example(f"{name} has open gaps: {stream}")
    if stream.rejected:
        verdict.rejected += stream.rejected
        verdict.example(f"{name} has rejections: {stream}")

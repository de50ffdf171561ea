"""Findings about stations, messages and registry, from the ledger and the registry's tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np
import orjson

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S, SLOT_S
from chargewatch.risk.run_inputs import Intervals
from chargewatch.runs.apart import each_apart, rows_of
from chargewatch.runs.load import Loaded, Rows
from chargewatch.runs.scan import Scan
from chargewatch.signals.findings import Finding
from chargewatch.signals.registry import findings_of
from chargewatch.signals.rules.sequence_restart import RESTART_WINDOW_S
from chargewatch.signals.stations import (
    Cadence,
    Clocks,
    Conflicts,
    LeftOut,
    Listening,
    MessageCounts,
    MessageGaps,
    Messages,
    SentTimes,
    Sold,
    Unregistered,
)
from chargewatch.storage.bulk import seconds_of
from chargewatch.storage.runs import inputs as store
from chargewatch.wire.envelope import load_object
from chargewatch.wire.kinds import items_of
from chargewatch.wire.rejection import CONFLICT, RejectedMessage


async def station_findings(
    connection: asyncpg.Connection,
    loaded: Loaded,
    scan: Scan,
    *,
    holes: Rows,
    cadence: Cadence,
    late: LateEnergy,
) -> tuple[list[Finding], list[LeftOut]]:
    """Return findings of clocks, silence, messages, conflicts, registration and verification.

    Second come the stations for which a check failed.

    Where: late: energy of registers after the end of their verification.
    """
    fleet, place_rows = loaded.inputs.fleet, loaded.registry.place_rows
    first, as_of = scan.first, scan.as_of
    messages, clocks = await _messages(connection, loaded, first=first, as_of=as_of, day=scan.day)
    gaps = [
        {
            **hole,
            "station": place_rows[hole["operator_id"], hole["station_id"]],
            "from_s": (hole["from_at"] or as_of).timestamp(),
            "to_s": (hole["to_at"] or as_of).timestamp(),
        }
        for hole in holes
    ]
    crowded, restarted = await _counts(connection, loaded, as_of=as_of)
    conflicts = await _conflicts(connection, loaded, first=first, as_of=as_of)
    unknown_meters = await _unknown_meters(connection, loaded, first=first, as_of=as_of)

    def of(stations: Ints) -> Bools:
        return np.isin(fleet.station, stations)

    facts: dict[str, Callable[[Ints], Sequence[Any]]] = {
        "clocks": lambda stations: [
            SentTimes(
                messages=rows_of(messages, np.isin(messages.station, stations)),
                clocks=rows_of(clocks, np.isin(clocks.station, stations)),
                clock_limit_s=loaded.clock_limit_s,
            )
        ],
        "silence": lambda stations: [
            Listening(
                cadence=replace(cadence, readings=np.where(of(stations), cadence.readings, 0)),
                station=fleet.station,
                as_of_s=as_of.timestamp(),
            )
        ],
        "missing messages": lambda stations: [
            MessageGaps(holes=_at(stations, gaps), crowded=_at(stations, crowded))
        ],
        "counts": lambda stations: [
            MessageCounts(streams=_at(stations, restarted), as_of_s=as_of.timestamp())
        ],
        "unregistered instruments": lambda stations: _unregistered(
            loaded, unknown_meters, of(stations)
        ),
        "verifications": lambda stations: [_sold(loaded, late, of(stations))],
    }
    found, left = findings_of(Conflicts(rows=conflicts)), []
    everywhere = np.arange(len(loaded.registry.places))
    for step, make in facts.items():
        more, out = await asyncio.to_thread(each_apart, step, everywhere, _check_of(make))
        found += more
        left += out
    return found, left


def _check_of(make: Callable[[Ints], Sequence[Any]]) -> Callable[[Ints], list[Finding]]:
    """Return what makes the facts of some stations and holds them against all rules."""
    return lambda stations: [finding for facts in make(stations) for finding in findings_of(facts)]


def _at(stations: Ints, rows: Rows) -> Rows:
    wanted = set(stations.tolist())
    return [row for row in rows if row["station"] in wanted]


async def _counts(
    connection: asyncpg.Connection, loaded: Loaded, *, as_of: datetime
) -> tuple[Rows, Rows]:
    """Return the streams with too many gaps, and those that began to count anew, of late."""
    since = as_of - timedelta(seconds=RESTART_WINDOW_S.value)
    streams = [
        {
            "station": loaded.registry.place_rows[row["operator_id"], row["station_id"]],
            "topic": row["topic"],
            "gaps": row["untracked_gaps"],
            "missing": row["untracked_missing"],
            "at": row["untracked_at"],
            "restarted_s": [at.timestamp() for at in row["restarted_at"]],
        }
        for row in await store.rows(connection, store.COUNTS, since=since, as_of=as_of)
    ]
    crowded = [
        {**stream, "at_s": stream["at"].timestamp()}
        for stream in streams
        if stream["at"] is not None and since < stream["at"] <= as_of
    ]
    return crowded, streams


async def _messages(
    connection: asyncpg.Connection, loaded: Loaded, *, first: datetime, as_of: datetime, day: int
) -> tuple[Messages, Clocks]:
    """Return when messages were sent and arrived, and what stations say of their clocks."""
    place_rows = loaded.registry.place_rows
    streams = await store.rows(connection, store.STREAMS)
    ids = np.array([row["stream_id"] for row in streams], np.int64)
    station = np.array(
        [place_rows[row["operator_id"], row["station_id"]] for row in streams], np.int64
    )
    begin = max(first, datetime.fromtimestamp(day * DAY_S, UTC))
    records = await store.messages(connection, first=begin, last=as_of)
    told = await store.rows(connection, store.CLOCKS, as_of=as_of)
    clocks = Clocks(
        station=np.array(
            [place_rows.get((row["operator_id"], row["station_id"]), -1) for row in told], np.int64
        ),
        at_s=np.array([row["at"].timestamp() for row in told], float),
        offset_s=np.array([row["clock_offset_ms"] / 1000 for row in told], float),
    )
    heard = np.flatnonzero(clocks.station >= 0)
    clocks = Clocks(
        station=clocks.station[heard], at_s=clocks.at_s[heard], offset_s=clocks.offset_s[heard]
    )
    messages = Messages(
        station=station[np.searchsorted(ids, records["stream_id"])]
        if records.size
        else np.empty(0, np.int64),
        sent_s=seconds_of(records["sent_at"]),
        received_s=seconds_of(records["received_at"]),
    )
    return messages, clocks


def _conflicting_items(row: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Return the readings, sessions or events of a message that conflict, with their details.

    An item that can't be read is {}. Rows of an older version hold the item alone.
    """
    try:
        document = load_object(bytes(row["payload"]), row["content_type"])
    except RejectedMessage:
        document = {}
    listed = items_of(document)
    found = []
    for error in orjson.loads(row["errors"]):
        if error["code"] != CONFLICT:
            continue
        index, item = error["index"], document
        if listed is not None:
            item = listed[index] if index is not None and 0 <= index < len(listed) else {}
        found.append((item if isinstance(item, dict) else {}, error["detail"]))
    return found


def _time_s(text: Any) -> float | None:
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo else None


async def _conflicts(
    connection: asyncpg.Connection, loaded: Loaded, *, first: datetime, as_of: datetime
) -> list[dict[str, Any]]:
    """Return the conflicts of the window as `conflict_findings` takes them."""
    names, place_rows = loaded.registry.names, loaded.registry.place_rows
    connectors = {
        (names.connector_operator[k], names.connector_station[k], name): k
        for k, name in enumerate(names.connector)
    }
    meters = {
        (names.meter_operator[k], names.meter_station[k], name): k
        for k, name in enumerate(names.meter)
    }
    conflicts = []
    async for row in store.conflicts(connection, first=first):
        place = row["operator_id"], row["station_id"]
        for item, detail in _conflicting_items(row):
            at_s = _time_s(item.get("at") or item.get("ended_at"))
            at_s = row["received_at"].timestamp() if at_s is None else at_s
            if not first.timestamp() < at_s <= as_of.timestamp():
                continue
            connector, meter = str(item.get("connector")), str(item.get("meter"))
            if (*place, connector) in connectors:
                kind, number = "connector", connectors[*place, connector]
            elif (*place, meter) in meters:
                kind, number = "meter", meters[*place, meter]
            elif place in place_rows:
                kind, number = "station", place_rows[place]
            else:
                continue
            conflicts.append(
                {
                    "kind": kind,
                    "row": number,
                    "at_s": at_s,
                    "detail": detail,
                    "id": row["quarantine_id"],
                }
            )
    return conflicts


async def _unknown_meters(
    connection: asyncpg.Connection, loaded: Loaded, *, first: datetime, as_of: datetime
) -> Rows:
    """Return what came in the window of each meter that nobody registered."""
    unknown = [row["meter_id"] for row in loaded.registry.meters if not row["registered"]]
    if not unknown:
        return []
    return await store.rows(
        connection, store.METER_SPANS, meter_ids=unknown, first=first, last=as_of
    )


def _unregistered(loaded: Loaded, meters: Rows, wanted: Bools) -> list[Unregistered]:
    """Return those of the wanted connectors (rows of Fleet), and of meters at their stations."""
    registry, fleet = loaded.registry, loaded.inputs.fleet
    ended = seconds_of(loaded.sessions["ended_at"])
    rows_of = registry.connector_rows(loaded.sessions["connector_id"])
    last = np.fmax(loaded.last_reading_s, _extreme(np.fmax, rows_of, ended, len(fleet.connector)))
    heard = np.flatnonzero(~fleet.registered & np.isfinite(last) & wanted)
    begun = _extreme(
        np.fmin, rows_of, seconds_of(loaded.sessions["started_at"]), len(fleet.connector)
    )
    begun = np.fmin(begun, last)
    sessions = np.bincount(rows_of, minlength=fleet.size).astype(np.int64)
    connectors = Unregistered(
        kind="connector",
        rows=heard,
        first_s=begun[heard],
        last_s=last[heard],
        readings=np.maximum(sessions[heard], 1),
    )
    rows = np.searchsorted(registry.meter_ids, np.array([m["meter_id"] for m in meters], np.int64))
    station = np.array(
        [
            registry.place_rows[registry.meters[k]["operator_id"], registry.meters[k]["station_id"]]
            for k in rows.tolist()
        ],
        np.int64,
    )
    # A meter belongs to no connector: with its station, or with none where all are wanted.
    chosen = np.flatnonzero(wanted.all() | np.isin(station, np.unique(fleet.station[wanted])))
    spans = [meters[k] for k in chosen.tolist()]
    unknown = Unregistered(
        kind="meter",
        rows=rows[chosen],
        first_s=np.array([span["first_at"].timestamp() for span in spans], float),
        last_s=np.array([span["last_at"].timestamp() for span in spans], float),
        readings=np.array([span["readings"] for span in spans], np.int64),
    )
    return [connectors, unknown]


def _extreme(function: np.ufunc, rows: Any, values: Any, size: int) -> Floats:
    """Return the largest (fmax) or smallest (fmin) value of each row; NaN where it has none."""
    result = np.full(size, np.nan)
    function.at(result, rows, values)
    return result


@dataclass(frozen=True)
class LateEnergy:
    """Energy of registers after the end of their verification, shape (n,)."""

    energy_wh: Floats
    first_s: Floats
    last_s: Floats

    @staticmethod
    def none(size: int) -> LateEnergy:
        """Return none yet."""
        return LateEnergy(np.zeros(size), np.full(size, np.nan), np.full(size, np.nan))

    def with_intervals(self, intervals: Intervals, valid_until_s: Floats) -> LateEnergy:
        """Return this with the intervals added that begin after the end."""
        limit = np.where(np.isnan(valid_until_s), -np.inf, valid_until_s)
        slot_s = intervals.slot * float(SLOT_S)
        late = np.flatnonzero((slot_s >= limit[intervals.instrument]) & (intervals.energy_wh > 0))
        row, at_s = intervals.instrument[late], slot_s[late]
        size = self.energy_wh.size
        added = np.bincount(row, weights=intervals.energy_wh[late], minlength=size)
        return LateEnergy(
            self.energy_wh + added,
            np.fmin(self.first_s, _extreme(np.fmin, row, at_s, size)),
            np.fmax(self.last_s, _extreme(np.fmax, row, at_s + SLOT_S, size)),
        )


def _sold(loaded: Loaded, by_register: LateEnergy, wanted: Bools) -> Sold:
    """Return what the wanted connectors sold after their verification's end.

    Energy is that of finished sessions or, when that is more, of the register's rollups.
    """
    fleet, until = loaded.inputs.fleet, loaded.valid_until_s
    limit = np.where(np.isnan(until), -np.inf, until)
    rows = loaded.registry.connector_rows(loaded.sessions["connector_id"])
    energy = np.maximum(loaded.sessions["stop_wh"] - loaded.sessions["start_wh"], 0.0)
    started, ended = (seconds_of(loaded.sessions[name]) for name in ("started_at", "ended_at"))
    after = started >= limit[rows]
    by_session = np.bincount(rows[after], weights=energy[after], minlength=fleet.size)
    first = _extreme(np.fmin, rows[after], started[after], fleet.size)
    last = _extreme(np.fmax, rows[after], ended[after], fleet.size)
    return Sold(
        valid_until_s=until,
        energy_wh=np.maximum(by_session, by_register.energy_wh).astype(float),
        first_s=np.fmin(first, by_register.first_s),
        last_s=np.fmax(last, by_register.last_s),
        registered=fleet.registered & wanted,
    )

"""Signals of clocks, silence, messages and registry: what a station sends, and who it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.signals.findings import MOST_COUNT, MOST_RECORDS, Finding, Limits, time_text

NEIGHBOURS = 3
"""Messages before and after, of other stations, that a station's clock is compared with."""
LOOK = 12
"""Messages on either side among which those of other stations are looked for."""


@dataclass(frozen=True, kw_only=True)
class Messages:
    """Messages in the order of their arrival; shape (m,)."""

    station: Ints
    sent_s: Floats
    received_s: Floats


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """What stations say of their own clocks, shape (c,)."""

    station: Ints
    at_s: Floats
    offset_s: Floats


def clock_findings(messages: Messages, clocks: Clocks, *, limits: Limits) -> list[Finding]:
    """Return findings of stations whose clock is off by more than 3 min.

    A day counts when a station's lag (sent_at - arrival) is steady: median absolute deviation of
    at most 60 s. Messages that come faster than they were sent (a replayed history, a backlog
    after an outage) tell nothing by their arrival; there sent_at is compared with that of the
    messages of other stations next to it in the order of arrival, between which it was sent.
    """
    lag = _lag(messages)
    exact = np.zeros(lag.size)
    found = _clock_days(messages, lag, exact, limits=limits, against="arrival")
    by_arrival = {(finding.row, finding.day) for finding in found}
    lag, room = _lag_to_neighbours(messages)
    for finding in _clock_days(messages, lag, room, limits=limits, against="other stations"):
        if (finding.row, finding.day) not in by_arrival:
            found.append(finding)
    for k in np.flatnonzero(np.abs(clocks.offset_s) > limits.clock_limit_s):
        offset = float(clocks.offset_s[k])
        found.append(
            Finding(
                code="clock_skew",
                kind="station",
                row=int(clocks.station[k]),
                day=int(clocks.at_s[k] // DAY_S),
                first_s=float(clocks.at_s[k]),
                last_s=float(clocks.at_s[k]),
                count=1,
                value=offset,
                limit=limits.clock_limit_s,
                detail=f"the gateway says its clock is off by {offset:+.0f} s",
                excess=abs(offset),
                records=[{"status_at": time_text(clocks.at_s[k]), "clock_offset_s": offset}],
            )
        )
    return found


def _speed(messages: Messages) -> Floats:
    """Return seconds of sending per second of arrival around each message, of its own station.

    Over up to 101 messages of the station, so that nobody's sent_at bears on anybody else's.
    """
    size = messages.sent_s.size
    if size == 0:
        return np.zeros(0)
    order = np.argsort(messages.station, kind="stable")
    station, arrival = messages.station[order], messages.received_s[order]
    sent = messages.sent_s[order]
    sent = sent[np.lexsort((sent, station))]
    first_of = np.searchsorted(station, station, side="left")
    last_of = np.searchsorted(station, station, side="right") - 1
    first = np.maximum(np.arange(size) - 50, first_of)
    last = np.minimum(np.arange(size) + 50, last_of)
    speed = np.empty(size)
    speed[order] = (sent[last] - sent[first]) / np.maximum(arrival[last] - arrival[first], 1.0)
    return speed


def _lag(messages: Messages) -> Floats:
    """Return sent_at - arrival, NaN where messages come much faster than they were sent."""
    return np.where(_speed(messages) < 3.0, messages.sent_s - messages.received_s, np.nan)


def _lag_to_neighbours(messages: Messages) -> tuple[Floats, Floats]:
    """Return sent_at less the middle of its neighbours', and half the room between them, s.

    For messages whose arrival is compressed, NaN for the others. Neighbours are the medians of
    the messages of three other stations before and after in the order of arrival: one of three
    may have a wrong clock itself.
    """
    size = messages.sent_s.size
    lag, room = np.full(size, np.nan), np.full(size, np.nan)
    if size < 2 * LOOK + 1 or np.unique(messages.station).size < 3:
        return lag, room
    rows = np.flatnonzero(_speed(messages) >= 3.0)
    for start in range(0, rows.size, 100_000):
        part = rows[start : start + 100_000]
        before = _neighbour(messages, part, -1)
        after = _neighbour(messages, part, 1)
        lag[part] = messages.sent_s[part] - (before + after) / 2
        room[part] = np.abs(after - before) / 2
    return lag, room


def _neighbour(messages: Messages, rows: Ints, direction: int) -> Floats:
    """Return the median sent_at of the next message of each of three other stations, else NaN."""
    around = rows[:, None] + direction * np.arange(1, LOOK + 1)
    inside = (around >= 0) & (around < messages.sent_s.size)
    around = np.clip(around, 0, messages.sent_s.size - 1)
    station = messages.station[around]
    other = inside & (station != messages.station[rows][:, None])
    for k in range(1, LOOK):
        # One message a station: whoever floods the broker has one voice of three.
        other[:, k] &= ~(station[:, :k] == station[:, k, None]).any(axis=1)
    count = np.cumsum(other, axis=1)
    chosen = other & (count <= NEIGHBOURS)
    values = np.where(chosen, messages.sent_s[around], np.inf)
    middle = np.sort(values, axis=1)[:, NEIGHBOURS // 2]
    return np.where(count[:, -1] >= NEIGHBOURS, middle, np.nan)


def _clock_days(
    messages: Messages, lag_s: Floats, room_s: Floats, *, limits: Limits, against: str
) -> list[Finding]:
    """Return one finding a station and day whose median lag passes the limit and the room."""
    rows = np.flatnonzero(np.isfinite(lag_s))
    day = np.floor(messages.sent_s[rows] / DAY_S).astype(np.int64)
    order = np.lexsort((day, messages.station[rows]))
    rows, day = rows[order], day[order]
    new = np.ones(rows.size, bool)
    new[1:] = (np.diff(day) != 0) | (np.diff(messages.station[rows]) != 0)
    edges = np.append(np.flatnonzero(new), rows.size)
    found = []
    for start, end in pairwise(edges):
        lag = lag_s[rows[start:end]]
        middle, room = float(np.median(lag)), float(np.median(room_s[rows[start:end]]))
        if lag.size < limits.messages_per_day or abs(middle) - room <= limits.clock_limit_s:
            continue
        spread = float(np.median(np.abs(lag - middle)))
        if spread > limits.steady_lag_s + room:
            continue
        sent = messages.sent_s[rows[start:end]]
        found.append(
            Finding(
                code="clock_skew",
                kind="station",
                row=int(messages.station[rows[start]]),
                day=int(day[start]),
                first_s=float(sent.min()),
                last_s=float(sent.max()),
                count=1,
                value=middle,
                limit=limits.clock_limit_s + room,
                detail=f"sent_at is {middle:+.0f} s against {against}, median of a day",
                excess=abs(middle),
                records=[
                    {
                        "day": time_text(day[start] * DAY_S),
                        "median_s": middle,
                        "median_absolute_deviation_s": spread,
                        "room_s": room,
                        "messages": int(lag.size),
                        "against": against,
                    }
                ],
            )
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """How often connectors are read, shape (n,); NaN: never read in the window."""

    last_s: Floats
    usual_gap_s: Floats  # 95th percentile of the gaps between readings
    readings: Ints


def silent_connectors(cadence: Cadence, *, as_of_s: float, limits: Limits) -> Bools:
    """Return connectors past their usual cadence x 3, at least 1 h; shape (n,)."""
    usual = np.nan_to_num(cadence.usual_gap_s, nan=0.0)
    limit = np.maximum(limits.silence_cadences * usual, limits.silence_least_s)
    return np.asarray((cadence.readings > 1) & (as_of_s - cadence.last_s > limit))


def silence_findings(
    cadence: Cadence, station: Ints, *, as_of_s: float, limits: Limits
) -> list[Finding]:
    """Return findings of silent connectors, and of stations all of whose connectors are silent.

    Where:
        station: station of each connector, shape (n,).
    """
    silent = silent_connectors(cadence, as_of_s=as_of_s, limits=limits)
    heard = cadence.readings > 1
    size = int(station.max()) + 1 if station.size else 0
    of_station = np.bincount(station[heard], minlength=size)
    silent_of = np.bincount(station[silent], minlength=size)
    usual = np.nan_to_num(cadence.usual_gap_s, nan=0.0)
    limit = np.maximum(limits.silence_cadences * usual, limits.silence_least_s)
    found = [
        _silence("connector", k, float(cadence.last_s[k]), as_of_s, float(limit[k]), heard="it")
        for k in np.flatnonzero(silent).tolist()
    ]
    for number in np.flatnonzero((of_station > 0) & (silent_of == of_station)).tolist():
        rows = np.flatnonzero(heard & (station == number))
        last = float(cadence.last_s[rows].max())
        found.append(
            _silence("station", number, last, as_of_s, float(limit[rows].max()), heard="all of it")
        )
    return found


def _silence(
    kind: str, row: int, last_s: float, as_of_s: float, limit_s: float, *, heard: str
) -> Finding:
    return Finding(
        code="silence",
        kind=kind,
        row=row,
        day=int(as_of_s // DAY_S),
        first_s=last_s,
        last_s=as_of_s,
        count=1,
        value=as_of_s - last_s,
        limit=limit_s,
        detail=f"no reading of {heard} since {time_text(last_s)}",
        records=[{"last_reading_at": time_text(last_s), "limit_s": limit_s}],
    )


def missing_message_findings(
    holes: Sequence[Mapping[str, Any]], crowded: Sequence[Mapping[str, Any]] = ()
) -> list[Finding]:
    """Return one finding a station whose sequence numbers have holes.

    Where:
        holes: {"station": row, "topic", "first_seq", "last_seq", "from_s", "to_s", "implausible"};
            from_s and to_s are when the messages around the hole were sent. A jump that is too
            large for that time counts as one, not as that many lost messages.
        crowded: streams with more gaps than are kept singly: {"station": row, "topic", "gaps",
            "missing", "at_s"}.
    """
    by_station: dict[int, tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]] = {}
    for place, rows in enumerate((holes, crowded)):
        for row in rows:
            by_station.setdefault(int(row["station"]), ([], []))[place].append(row)
    return [_missing_messages(row, *rows) for row, rows in by_station.items()]


def _missing_messages(
    station: int, group: list[Mapping[str, Any]], crowded: list[Mapping[str, Any]]
) -> Finding:
    jumps = [hole for hole in group if hole.get("implausible")]
    lost = [hole for hole in group if not hole.get("implausible")]
    missing = sum(int(hole["last_seq"]) - int(hole["first_seq"]) + 1 for hole in lost)
    missing += sum(int(stream["missing"]) for stream in crowded)
    topics = sorted({str(row["topic"]) for row in (*group, *crowded)})
    words = [f"{missing} messages missing on {', '.join(topics)}"] if missing else []
    words += [f"first {h['topic']} {h['first_seq']} to {h['last_seq']}" for h in lost[:1]]
    words += [
        f"seq of {hole['topic']} jumps by {int(hole['last_seq']) - int(hole['first_seq']) + 2} "
        f"to {int(hole['last_seq']) + 1}, more than a gateway can have sent"
        + (f", and {len(jumps) - 1} jumps more" if len(jumps) > 1 else "")
        for hole in jumps[:1]
    ]
    words += [
        f"{stream['topic']} has too many gaps: the oldest {int(stream['gaps'])} are only summed up"
        for stream in crowded
    ]
    times = [float(hole["from_s"]) for hole in group] + [float(c["at_s"]) for c in crowded]
    last_s = max([float(hole["to_s"]) for hole in group] + [float(c["at_s"]) for c in crowded])
    return Finding(
        code="missing_messages",
        kind="station",
        row=station,
        day=int(last_s // DAY_S),
        first_s=min(times),
        last_s=last_s,
        count=min(missing + len(jumps), MOST_COUNT),
        value=float(missing),
        limit=0.0,
        detail="; ".join(words),
        records=[
            {key: hole[key] for key in ("topic", "first_seq", "last_seq")}
            for hole in group[: 4 * MOST_RECORDS]
        ],
    )


def restart_findings(
    streams: Sequence[Mapping[str, Any]], *, as_of_s: float, limits: Limits
) -> list[Finding]:
    """Return one finding a topic of a station that begins to count its messages anew too often.

    Where:
        streams: {"station": row, "topic", "restarted_s": times in order}.
    """
    found = []
    for stream in streams:
        recent = [
            at_s
            for at_s in stream["restarted_s"]
            if as_of_s - limits.restart_window_s < at_s <= as_of_s
        ]
        if len(recent) <= limits.restarts:
            continue
        found.append(
            Finding(
                code="sequence_restart",
                kind="station",
                row=int(stream["station"]),
                day=int(recent[-1] // DAY_S),
                first_s=recent[0],
                last_s=recent[-1],
                count=len(recent),
                value=float(len(recent)),
                limit=float(limits.restarts),
                detail=(
                    f"the gateway began to count {stream['topic']} at 1 again "
                    f"{len(recent)} times within {limits.restart_window_s / DAY_S:g} days"
                ),
                records=[
                    {"topic": stream["topic"], "restarted_at": time_text(at_s)}
                    for at_s in recent[-MOST_RECORDS:]
                ],
            )
        )
    return found


def unregistered_findings(
    kind: str, rows: Ints, *, first_s: Floats, last_s: Floats, readings: Ints
) -> list[Finding]:
    """Return one finding an instrument ("connector" or "meter") that nobody registered.

    Where:
        rows: of Fleet or References.
        first_s, last_s: times of its first and last data, shape of rows.
        readings: readings and sessions of it, shape of rows.
    """
    return [
        Finding(
            code="unregistered_instrument",
            kind=kind,
            row=int(row),
            day=int(last_s[k] // DAY_S),
            first_s=float(first_s[k]),
            last_s=float(last_s[k]),
            count=1,
            value=float(readings[k]),
            limit=0.0,
            detail=f"telemetry of a {kind} that is in nobody's registry",
            records=[{"first_at": time_text(first_s[k]), "last_at": time_text(last_s[k])}],
        )
        for k, row in enumerate(rows.tolist())
    ]


def verification_findings(
    valid_until_s: Floats,
    *,
    sold_wh: Floats,
    first_sold_s: Floats,
    last_sold_s: Floats,
    registered: Bools,
    limits: Limits,
) -> list[Finding]:
    """Return findings of connectors that sell energy without a valid verification.

    Where:
        valid_until_s: end of the newest passed verification, shape (n,); NaN: there is none.
        sold_wh: energy sold after that end (or at all), Wh, shape (n,).
        first_sold_s, last_sold_s: when, shape (n,).
        registered: shape (n,); of the others the platform can't know.
    """
    found = []
    for k in np.flatnonzero(registered & (sold_wh > limits.sold_wh)).tolist():
        until = float(valid_until_s[k])
        known = np.isfinite(until)
        words = f"verification ended {time_text(until)}" if known else "no passed verification"
        found.append(
            Finding(
                code="verification_expired",
                row=k,
                day=int(last_sold_s[k] // DAY_S),
                first_s=float(first_sold_s[k]),
                last_s=float(last_sold_s[k]),
                count=1,
                value=float(sold_wh[k]),
                limit=limits.sold_wh,
                detail=f"{words}; {sold_wh[k] / 1000:.1f} kWh sold without one",
                records=[
                    {
                        "valid_until": time_text(until) if known else None,
                        "sold_wh": float(sold_wh[k]),
                        "last_sold_at": time_text(last_sold_s[k]),
                    }
                ],
            )
        )
    return found


def conflict_findings(conflicts: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Return one finding an instrument and day with keys that came with two values.

    Where:
        conflicts: {"kind": connector, meter or station, "row", "at_s", "detail", "id"}.
    """
    groups: dict[tuple[str, int, int], list[Mapping[str, Any]]] = {}
    for conflict in conflicts:
        key = (str(conflict["kind"]), int(conflict["row"]), int(conflict["at_s"] // DAY_S))
        groups.setdefault(key, []).append(conflict)
    return [
        Finding(
            code="conflict",
            kind=kind,
            row=row,
            day=day,
            first_s=min(float(item["at_s"]) for item in group),
            last_s=max(float(item["at_s"]) for item in group),
            count=len(group),
            value=float(len(group)),
            limit=0.0,
            detail=str(group[0]["detail"]),
            records=[
                {"quarantine_id": item["id"], "at": time_text(item["at_s"])}
                for item in group[:MOST_RECORDS]
            ],
        )
        for (kind, row, day), group in groups.items()
    ]

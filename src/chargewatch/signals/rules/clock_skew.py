"""A clock is off: a station's, or that of a pile that dates a session."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.billing import Billing
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.rule import SIMULATED, Check, Limit, Rule
from chargewatch.signals.sessions import LONGEST_SESSION_S
from chargewatch.signals.stations import Clocks, Messages, SentTimes

CODE = "clock_skew"
STEADY_LAG_S = Limit(60.0, "s", "median absolute deviation of a steady lag", SIMULATED)
MESSAGES_PER_DAY = Limit(10, "messages", "a day of fewer tells too little", SIMULATED)
SAYS = Sentence("clock_told", "the gateway says its clock is off by {offset:+.0f} s")
LAG = Sentence("clock_lag", "sent_at is {lag:+.0f} s against arrival, median of a day")
LAG_BESIDE = Sentence(
    "clock_lag_beside", "sent_at is {lag:+.0f} s against other stations, median of a day"
)
ENDLESS = Sentence(
    "session_endless", "a session says that it began {began:time} and ended {ended:time}"
)
ARRIVAL, OTHERS = "arrival", "other stations"

NEIGHBOURS = 3
"""Messages before and after, of other stations, that a station's clock is compared with."""
LOOK = 12
"""Messages on either side among which those of other stations are looked for."""


def find(times: SentTimes) -> list[Finding]:
    """Return findings of stations whose clock is off."""
    return clock_findings(times.messages, times.clocks, clock_limit_s=times.clock_limit_s)


def find_endless(billing: Billing) -> list[Finding]:
    """Return findings of sessions whose own times can't be: a pile's clock that was not set."""
    sessions = billing.sessions
    part = sessions.take(np.flatnonzero(sessions.is_endless))
    lasted_s = part.ended_s - part.started_s
    return findings_by_day(
        CODE,
        part.connector,
        part.ended_s,
        first_s=part.ended_s,
        value=lasted_s,
        limit=LONGEST_SESSION_S.value,
        detail=lambda k: ENDLESS(began=part.started_s[k], ended=part.ended_s[k]),
        record=lambda k: {
            "session": int(part.name[k]),
            "started_at": time_text(part.started_s[k]),
            "ended_at": time_text(part.ended_s[k]),
        },
    )


def clock_findings(messages: Messages, clocks: Clocks, *, clock_limit_s: float) -> list[Finding]:
    """Return findings of stations whose clock is off by more than 3 min.

    A day counts when a station's lag (sent_at - arrival) is steady: median absolute deviation of
    at most 60 s. Messages that come faster than they were sent (a replayed history, a backlog
    after an outage) tell nothing by their arrival; there sent_at is compared with that of the
    messages of other stations next to it in the order of arrival, between which it was sent.
    Behind by either way is no finding where the status says that the clock is right: the messages
    are under way for so long.
    """
    lag = _lag(messages)
    exact = np.zeros(lag.size)
    found = _clock_days(messages, lag, exact, clock_limit_s=clock_limit_s, against=ARRIVAL)
    by_arrival = {(finding.row, finding.day) for finding in found}
    lag, room = _lag_to_neighbours(messages)
    for finding in _clock_days(messages, lag, room, clock_limit_s=clock_limit_s, against=OTHERS):
        if (finding.row, finding.day) not in by_arrival:
            found.append(finding)
    # A message that is under way for minutes looks as one of a clock that is behind. The
    # gateway's own comparison with its time server tells the two apart; nothing else does.
    right = set(clocks.station[np.abs(clocks.offset_s) <= clock_limit_s].tolist())
    found = [finding for finding in found if finding.value > 0 or finding.row not in right]
    for k in np.flatnonzero(np.abs(clocks.offset_s) > clock_limit_s):
        offset = float(clocks.offset_s[k])
        found.append(
            Finding(
                code=CODE,
                kind="station",
                row=int(clocks.station[k]),
                day=int(clocks.at_s[k] // DAY_S),
                first_s=float(clocks.at_s[k]),
                last_s=float(clocks.at_s[k]),
                count=1,
                value=offset,
                limit=clock_limit_s,
                detail=SAYS(offset=offset),
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
    messages: Messages, lag_s: Floats, room_s: Floats, *, clock_limit_s: float, against: str
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
        if lag.size < MESSAGES_PER_DAY.value or abs(middle) - room <= clock_limit_s:
            continue
        spread = float(np.median(np.abs(lag - middle)))
        if spread > STEADY_LAG_S.value + room:
            continue
        sent = messages.sent_s[rows[start:end]]
        found.append(
            Finding(
                code=CODE,
                kind="station",
                row=int(messages.station[rows[start]]),
                day=int(day[start]),
                first_s=float(sent.min()),
                last_s=float(sent.max()),
                count=1,
                value=middle,
                limit=clock_limit_s + room,
                detail=(LAG if against == ARRIVAL else LAG_BESIDE)(lag=middle),
                origin="messages",
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


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Clock skew",
    raised=(
        "a session that lasted more than 30 days by its own times (a pile whose clock was not "
        "set: 1970); or `sent_at` against arrival, median of a UTC day with at least "
        f"{MESSAGES_PER_DAY}, is off by more than the clock limit of the rule set (180 s) and "
        f"steady (median absolute deviation up to {STEADY_LAG_S}); or the status says so"
    ),
    left_alone=(
        "days whose lag wanders: replayed history, backlog after an outage. There `sent_at` is "
        "compared with the messages of three other stations next to it in the order of arrival, "
        "and must be off by 3 min more than the room between them. A clock that seems behind, "
        "and is right by the gateway's status (`clock_offset_ms`): its messages are under way for "
        "so long"
    ),
    limits=(LONGEST_SESSION_S, MESSAGES_PER_DAY, STEADY_LAG_S),
    of_rule_set=("clock_limit_s",),
    sentences=(SAYS, LAG, LAG_BESIDE, ENDLESS),
    checks=(Check(SentTimes, find), Check(Billing, find_endless)),
)

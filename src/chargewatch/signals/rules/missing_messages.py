"""Messages of a station are missing: a hole in its sequence numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S
from chargewatch.signals.findings import MOST_COUNT, MOST_RECORDS, Finding
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.stations import MessageGaps

CODE = "missing_messages"
MISSING = Sentence("messages_missing", "{n:d} messages missing on {topics}")
FIRST = Sentence("messages_first", "first {topic} {first:d} to {last:d}")
JUMP = Sentence(
    "seq_jumps", "seq of {topic} jumps by {by:d} to {to:d}, more than a gateway can have sent"
)
JUMPS = Sentence(
    "seq_jumps_again",
    "seq of {topic} jumps by {by:d} to {to:d}, more than a gateway can have sent, "
    "and {more:d} jumps more",
)
CROWDED = Sentence(
    "gaps_too_many", "{topic} has too many gaps: the oldest {gaps:d} are only summed up"
)


def find(gaps: MessageGaps) -> list[Finding]:
    """Return one finding a station whose sequence numbers have holes."""
    by_station: dict[int, tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]] = {}
    for place, rows in enumerate((gaps.holes, gaps.crowded)):
        for row in rows:
            by_station.setdefault(int(row["station"]), ([], []))[place].append(row)
    return [_missing_messages(row, *rows) for row, rows in by_station.items()]


def _jump(hole: Mapping[str, Any], more: int) -> str:
    first, last = int(hole["first_seq"]), int(hole["last_seq"])
    values = {"topic": hole["topic"], "by": last - first + 2, "to": last + 1}
    return JUMPS(**values, more=more) if more else JUMP(**values)


def _missing_messages(
    station: int, group: list[Mapping[str, Any]], crowded: list[Mapping[str, Any]]
) -> Finding:
    jumps = [hole for hole in group if hole.get("implausible")]
    lost = [hole for hole in group if not hole.get("implausible")]
    missing = sum(int(hole["last_seq"]) - int(hole["first_seq"]) + 1 for hole in lost)
    missing += sum(int(stream["missing"]) for stream in crowded)
    topics = sorted({str(row["topic"]) for row in (*group, *crowded)})
    words = [MISSING(n=missing, topics=", ".join(topics))] if missing else []
    words += [
        FIRST(topic=h["topic"], first=int(h["first_seq"]), last=int(h["last_seq"]))
        for h in lost[:1]
    ]
    words += [_jump(hole, len(jumps) - 1) for hole in jumps[:1]]
    words += [CROWDED(topic=stream["topic"], gaps=int(stream["gaps"])) for stream in crowded]
    times = [float(hole["from_s"]) for hole in group] + [float(c["at_s"]) for c in crowded]
    last_s = max([float(hole["to_s"]) for hole in group] + [float(c["at_s"]) for c in crowded])
    return Finding(
        code=CODE,
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


RULE = Rule(
    code=CODE,
    severity=Severity.INFO,
    title="Missing messages",
    raised=(
        "a hole in `seq` of any topic of the station; closes when the messages arrive. A jump by "
        "more than 1,000 numbers and more than 20 for each second since the message before counts "
        "as one, not as so many messages. Beyond 1,000 open gaps of a topic the oldest are only "
        "summed up, and it says so for 7 days"
    ),
    left_alone="what came before the first message seen; a count that begins anew",
    sentences=(MISSING, FIRST, JUMPS, JUMP, CROWDED),
    checks=(Check(MessageGaps, find),),
)

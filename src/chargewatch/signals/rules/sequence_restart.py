"""A gateway begins to count its messages at 1 again and again."""

from __future__ import annotations

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.findings import MOST_RECORDS, Finding
from chargewatch.signals.rule import SIMULATED, Check, Limit, Rule
from chargewatch.signals.stations import MessageCounts

CODE = "sequence_restart"
RESTARTS = Limit(2, "times", "a gateway may be replaced or set up anew", SIMULATED)
RESTART_WINDOW_S = Limit(7.0 * DAY_S, "s", "over which restarts count", SIMULATED)
AGAIN = Sentence(
    "counts_again",
    "the gateway began to count {topic} at 1 again {n:d} times within {days:g} days",
)


def find(counts: MessageCounts) -> list[Finding]:
    """Return one finding a topic of a station that begins to count its messages anew too often."""
    as_of_s, window_s = counts.as_of_s, RESTART_WINDOW_S.value
    found = []
    for stream in counts.streams:
        recent = [at_s for at_s in stream["restarted_s"] if as_of_s - window_s < at_s <= as_of_s]
        if len(recent) <= RESTARTS.value:
            continue
        found.append(
            Finding(
                code=CODE,
                kind="station",
                row=int(stream["station"]),
                day=int(recent[-1] // DAY_S),
                first_s=recent[0],
                last_s=recent[-1],
                count=len(recent),
                value=float(len(recent)),
                limit=float(RESTARTS.value),
                detail=AGAIN(topic=stream["topic"], n=len(recent), days=window_s / DAY_S),
                records=[
                    {"topic": stream["topic"], "restarted_at": time_text(at_s)}
                    for at_s in recent[-MOST_RECORDS:]
                ],
            )
        )
    return found


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Message count restarts",
    raised=(
        f"a gateway began to count a topic's messages at 1 again more than {RESTARTS} in 7 days"
    ),
    left_alone="the restarts themselves: a new count is no gap",
    limits=(RESTARTS, RESTART_WINDOW_S),
    sentences=(AGAIN,),
    checks=(Check(MessageCounts, find),),
    not_simulated="simulated gateways don't lose their count",
)

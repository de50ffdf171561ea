"""The gaps of sequences in the database: those a batch may fill, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg

from chargewatch.domain.times import EPOCH, moment_of
from chargewatch.storage import sql
from chargewatch.storage.intake import sequences
from chargewatch.storage.intake.sequences import Gap, Number

_STATES = sql.statement(
    "gaps: states",
    """
SELECT stream_id, restarts, first_seq, last_seq, newest_sent_at, count_since, open_gaps
FROM ledger_stream WHERE stream_id = ANY(CAST(:stream_ids AS int4[]))
""",
)

_GAPS = sql.statement(
    "gaps: reached",
    """
SELECT g.gap_id, g.stream_id, g.count_no, g.first_seq, g.last_seq, g.from_at, g.to_at,
  g.implausible, g.found_at
FROM unnest(CAST(:stream_ids AS int4[]), CAST(:lows AS int8[]), CAST(:highs AS int8[]))
  AS d(stream_id, low, high)
JOIN ledger_gap g ON g.stream_id = d.stream_id AND g.closed_at IS NULL
  AND g.first_seq <= d.high AND g.last_seq >= d.low
""",
)

_INSERT = sql.statement(
    "gaps: insert",
    """
INSERT INTO ledger_gap (stream_id, count_no, first_seq, last_seq, from_at, to_at, implausible,
  found_at)
VALUES (:stream_id, :count_no, :first_seq, :last_seq, :from_at, :to_at, :implausible, :found_at)
""",
)

_OLDEST = sql.statement(
    "gaps: take oldest",
    """
DELETE FROM ledger_gap WHERE gap_id IN (
  SELECT gap_id FROM ledger_gap WHERE stream_id = :stream_id AND closed_at IS NULL
  ORDER BY gap_id LIMIT :surplus)
RETURNING CASE WHEN implausible THEN 0 ELSE last_seq - first_seq + 1 END
""",
)

_UNTRACKED = sql.statement(
    "gaps: untracked",
    """
UPDATE ledger_stream SET open_gaps = open_gaps - :gaps,
  untracked_gaps = untracked_gaps + :gaps, untracked_missing = untracked_missing + :missing,
  untracked_at = :at
WHERE stream_id = :stream_id
""",
)

_RESTARTED = sql.statement(
    "gaps: restarted",
    """
UPDATE ledger_stream
SET restarted_at = (restarted_at || CAST(:times AS timestamptz[]))
  [greatest(1, cardinality(restarted_at) - :kept_before):]
WHERE stream_id = :stream_id
""",
)

_CLOSE = sql.statement(
    "gaps: close",
    "UPDATE ledger_gap SET closed_at = :at WHERE gap_id = ANY(CAST(:gap_ids AS int8[]))",
)
_SHRINK = sql.statement(
    "gaps: shrink",
    "UPDATE ledger_gap SET first_seq = :first_seq, last_seq = :last_seq, from_at = :from_at, "
    "to_at = :to_at WHERE gap_id = :gap_id",
)


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - EPOCH) // timedelta(microseconds=1)


async def load_sequences(
    connection: asyncpg.Connection, numbers: Mapping[int, Sequence[Number]]
) -> dict[int, sequences.Sequence]:
    """Return the state of streams, with the open gaps that their new numbers may lie in.

    The streams' rows must be locked. Gaps are only read where a number reaches back.
    """
    rows = await sql.rows(connection, _STATES, stream_ids=list(numbers))
    found = {
        row["stream_id"]: sequences.Sequence(
            count_no=row["restarts"],
            first=row["first_seq"],
            last=row["last_seq"],
            newest_us=_us(row["newest_sent_at"]),
            since_us=_us(row["count_since"]),
            open_gaps=row["open_gaps"],
        )
        for row in rows
    }
    wanted = [
        (stream, min(n.seq for n in numbers[stream]), max(n.seq for n in numbers[stream]))
        for stream, state in found.items()
        if state.open_gaps and state.reaches_back(numbers[stream])
    ]
    if wanted:
        by_stream: dict[int, list[Gap]] = {}
        streams, lows, highs = (list(column) for column in zip(*wanted, strict=True))
        for row in await sql.rows(connection, _GAPS, stream_ids=streams, lows=lows, highs=highs):
            by_stream.setdefault(row["stream_id"], []).append(_gap(row))
        for stream, gaps in by_stream.items():
            found[stream].know(gaps)
    return found


def _gap(row: Mapping[str, Any]) -> Gap:
    found_us = _us(row["found_at"])
    return Gap(
        row["count_no"],
        row["first_seq"],
        row["last_seq"],
        _us(row["from_at"]),
        _us(row["to_at"]),
        row["implausible"],
        0 if found_us is None else found_us,
        gap_id=row["gap_id"],
    )


def _place_of(gap: Gap) -> dict[str, Any]:
    return {
        "first_seq": gap.first,
        "last_seq": gap.last,
        "from_at": moment_of(gap.from_us),
        "to_at": moment_of(gap.to_us),
    }


async def store_gaps(
    connection: asyncpg.Connection, states: Mapping[int, sequences.Sequence], *, at_us: int
) -> None:
    """Write what a batch has opened, narrowed and closed; sum up what is too much."""
    closed = [gap.gap_id for state in states.values() for gap in state.closed]
    if closed:
        await sql.run(connection, _CLOSE, gap_ids=closed, at=moment_of(at_us))
    shrunk = [
        {"gap_id": gap.gap_id, **_place_of(gap)}
        for state in states.values()
        for gap in state.shrunk
    ]
    if shrunk:
        await sql.run_each(connection, _SHRINK, shrunk)
    opened = []
    for stream, state in states.items():
        kept = await _make_room(connection, stream, state, at_us=at_us)
        opened += [
            {
                "stream_id": stream,
                "count_no": gap.count_no,
                "implausible": gap.implausible,
                "found_at": moment_of(gap.found_us),
                **_place_of(gap),
            }
            for gap in kept
        ]
    if opened:
        await sql.run_each(connection, _INSERT, opened)
    for stream, state in states.items():
        if state.restarts_us:
            times = [moment_of(time_us) for time_us in state.restarts_us]
            most = sequences.MOST_RESTARTS_KEPT
            await sql.run(
                connection,
                _RESTARTED,
                stream_id=stream,
                times=times,
                kept_before=most - 1 - len(times),
            )


async def _make_room(
    connection: asyncpg.Connection, stream: int, state: sequences.Sequence, *, at_us: int
) -> list[Gap]:
    """Return the new gaps that are kept singly; where there are too many, sum up the oldest."""
    opened = state.opened
    now_open = state.open_gaps - len(state.closed) + len(opened)
    if now_open <= sequences.MOST_GAPS:
        return opened
    surplus = now_open - sequences.GAPS_LEFT
    sizes = [
        row[0] for row in await sql.rows(connection, _OLDEST, stream_id=stream, surplus=surplus)
    ]
    # What a single batch brought too much of is not even written.
    here = surplus - len(sizes)
    sizes += [0 if gap.implausible else gap.size for gap in opened[:here]]
    await sql.run(
        connection,
        _UNTRACKED,
        stream_id=stream,
        gaps=len(sizes),
        missing=Decimal(sum(sizes)),
        at=moment_of(at_us),
    )
    return opened[here:]

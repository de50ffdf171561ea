"""The gaps of sequences in the database: those a batch may fill, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, overload

import asyncpg

from chargewatch.domain.times import EPOCH
from chargewatch.storage.intake import sequences
from chargewatch.storage.intake.sequences import Gap, Number

_STATES = """
SELECT stream_id, restarts, first_seq, last_seq, newest_sent_at, count_since, open_gaps
FROM ledger_stream WHERE stream_id = ANY($1::int4[])
"""

_GAPS = """
SELECT g.gap_id, g.stream_id, g.count_no, g.first_seq, g.last_seq, g.from_at, g.to_at,
  g.implausible, g.found_at
FROM unnest($1::int4[], $2::int8[], $3::int8[]) AS d(stream_id, low, high)
JOIN ledger_gap g ON g.stream_id = d.stream_id AND g.closed_at IS NULL
  AND g.first_seq <= d.high AND g.last_seq >= d.low
"""

_INSERT = """
INSERT INTO ledger_gap (stream_id, count_no, first_seq, last_seq, from_at, to_at, implausible,
  found_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""

_OLDEST = """
DELETE FROM ledger_gap WHERE gap_id IN (
  SELECT gap_id FROM ledger_gap WHERE stream_id = $1 AND closed_at IS NULL
  ORDER BY gap_id LIMIT $2)
RETURNING CASE WHEN implausible THEN 0 ELSE last_seq - first_seq + 1 END
"""

_UNTRACKED = """
UPDATE ledger_stream SET open_gaps = open_gaps - $2, untracked_gaps = untracked_gaps + $3,
  untracked_missing = untracked_missing + $4, untracked_at = $5 WHERE stream_id = $1
"""

_RESTARTED = """
UPDATE ledger_stream
SET restarted_at = (restarted_at || $2::timestamptz[])[greatest(1, cardinality(restarted_at) - $3):]
WHERE stream_id = $1
"""


@overload
def moment_of(time_us: int) -> datetime: ...
@overload
def moment_of(time_us: int | None) -> datetime | None: ...
def moment_of(time_us: int | None) -> datetime | None:
    """Return a time in microseconds since 1970 as datetime."""
    return None if time_us is None else EPOCH + timedelta(microseconds=time_us)


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - EPOCH) // timedelta(microseconds=1)


async def load_sequences(
    connection: asyncpg.Connection, numbers: Mapping[int, Sequence[Number]]
) -> dict[int, sequences.Sequence]:
    """Return the state of streams, with the open gaps that their new numbers may lie in.

    The streams' rows must be locked. Gaps are only read where a number reaches back.
    """
    rows = await connection.fetch(_STATES, list(numbers))
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
        for row in await connection.fetch(_GAPS, *(list(c) for c in zip(*wanted, strict=True))):
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


async def store_gaps(
    connection: asyncpg.Connection, states: Mapping[int, sequences.Sequence], *, at_us: int
) -> None:
    """Write what a batch has opened, narrowed and closed; sum up what is too much."""
    closed = [gap.gap_id for state in states.values() for gap in state.closed]
    if closed:
        await connection.execute(
            "UPDATE ledger_gap SET closed_at = $2 WHERE gap_id = ANY($1::int8[])",
            closed,
            moment_of(at_us),
        )
    shrunk = [
        (gap.gap_id, gap.first, gap.last, moment_of(gap.from_us), moment_of(gap.to_us))
        for state in states.values()
        for gap in state.shrunk
    ]
    if shrunk:
        await connection.executemany(
            "UPDATE ledger_gap SET first_seq = $2, last_seq = $3, from_at = $4, to_at = $5 "
            "WHERE gap_id = $1",
            shrunk,
        )
    opened = []
    for stream, state in states.items():
        kept = await _make_room(connection, stream, state, at_us=at_us)
        opened += [
            (
                stream,
                gap.count_no,
                gap.first,
                gap.last,
                moment_of(gap.from_us),
                moment_of(gap.to_us),
                gap.implausible,
                moment_of(gap.found_us),
            )
            for gap in kept
        ]
    if opened:
        await connection.executemany(_INSERT, opened)
    for stream, state in states.items():
        if state.restarts_us:
            times = [moment_of(time_us) for time_us in state.restarts_us]
            most = sequences.MOST_RESTARTS_KEPT
            await connection.execute(_RESTARTED, stream, times, most - 1 - len(times))


async def _make_room(
    connection: asyncpg.Connection, stream: int, state: sequences.Sequence, *, at_us: int
) -> list[Gap]:
    """Return the new gaps that are kept singly; where there are too many, sum up the oldest."""
    opened = state.opened
    now_open = state.open_gaps - len(state.closed) + len(opened)
    if now_open <= sequences.MOST_GAPS:
        return opened
    surplus = now_open - sequences.GAPS_LEFT
    sizes = [row[0] for row in await connection.fetch(_OLDEST, stream, surplus)]
    # What a single batch brought too much of is not even written.
    here = surplus - len(sizes)
    sizes += [0 if gap.implausible else gap.size for gap in opened[:here]]
    missing = Decimal(sum(sizes))
    await connection.execute(_UNTRACKED, stream, len(sizes), len(sizes), missing, moment_of(at_us))
    return opened[here:]

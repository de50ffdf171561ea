"""The books in the database: gaps, restarts and statuses of streams, batch by batch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from chargewatch.storage.intake import sequences
from chargewatch.storage.intake.connection import open_ingest_connection
from chargewatch.storage.intake.ledger import LedgerEntry, lock_streams, record_messages
from chargewatch.storage.intake.status import StatusRow, store_statuses

S = 1_000_000
T0 = 1_772_352_000 * S
STREAM = ("OP1", "ST1", "registers")


@pytest.fixture
async def connection(database_url):
    opened = await open_ingest_connection(database_url, on_registry_change=lambda: None)
    yield opened
    await opened.close()


async def book(
    connection: asyncpg.Connection, *messages: tuple[int, float], stream=STREAM
) -> asyncpg.Record:
    """Book messages (seq, sent at s) in one batch; return the stream's row."""
    entries = [
        LedgerEntry(stream, T0 + round(s * S), seq, T0 + round(s * S), 1, 0, 0, 0)
        for seq, s in messages
    ]
    async with connection.transaction():
        ids = await lock_streams(connection, [stream], known={})
        await record_messages(connection, entries, ids=ids)
    return await connection.fetchrow(
        "SELECT * FROM ledger_stream WHERE stream_id = $1", ids[stream]
    )


async def gaps(connection: asyncpg.Connection) -> list[tuple[int, int, int]]:
    rows = await connection.fetch(
        "SELECT count_no, first_seq, last_seq FROM ledger_gap WHERE closed_at IS NULL "
        "ORDER BY count_no, first_seq"
    )
    return [tuple(row) for row in rows]


async def test_gaps_and_restarts_are_the_same_in_one_batch_and_in_many(connection):
    messages = [(40, 0), (44, 1), (1, 2), (2, 3), (9, 4), (6, 5), (42, 0.5), (5, 3.5)]
    await book(connection, *messages, stream=("OP1", "ST2", "registers"))
    for message in messages:
        row = await book(connection, message)
    assert (row["restarts"], row["first_seq"], row["last_seq"], row["open_gaps"]) == (1, 1, 9, 4)
    assert row["restarted_at"] == [datetime.fromtimestamp(T0 / S + 2, UTC)]
    expected = [(0, 41, 41), (0, 43, 43), (1, 3, 4), (1, 7, 8)]
    assert await gaps(connection) == sorted(expected * 2)
    for seq, s in ((41, 0.4), (43, 0.6), (3, 3.2), (4, 3.3), (7, 3.7), (8, 3.8)):
        row = await book(connection, (seq, s))
    assert (row["open_gaps"], row["restarts"]) == (0, 1)
    closed = await connection.fetchval(
        "SELECT count(*) FROM ledger_gap g WHERE stream_id = $1 AND closed_at IS NOT NULL",
        row["stream_id"],
    )
    assert closed == 4


async def test_too_many_gaps_are_summed_up_and_cost_nothing_more(connection):
    for start in range(1, 6001, 500):
        row = await book(connection, *[(seq, seq / 1000) for seq in range(start, start + 500, 2)])
    kept = await gaps(connection)
    assert len(kept) == row["open_gaps"] <= sequences.MOST_GAPS
    assert row["open_gaps"] + row["untracked_gaps"] == 2999
    assert row["untracked_missing"] == row["untracked_gaps"]
    # The newest are the ones that are kept.
    assert kept[-1] == (0, 5998, 5998)
    assert kept[0][1] == 5998 - 2 * (len(kept) - 1)
    # Even more than that in one batch.
    row = await book(connection, *[(seq, 10) for seq in range(7001, 11001, 2)])
    assert row["open_gaps"] == sequences.GAPS_LEFT == len(await gaps(connection))
    assert row["open_gaps"] + row["untracked_gaps"] == 2999 + 2000


async def test_a_clock_as_number_keeps_the_books_small(connection):
    numbers = [1_760_000_000_000 + 15_000 * k for k in range(2500)]
    for start in range(0, 2500, 500):
        row = await book(connection, *[(seq, 15) for seq in numbers[start : start + 500]])
    assert row["last_seq"] == numbers[-1]
    assert row["open_gaps"] <= sequences.MOST_GAPS
    assert row["open_gaps"] + row["untracked_gaps"] == 2499
    # Jumps aren't messages that are missing.
    assert row["untracked_missing"] == 0


def status(sent_s: float | None, online: bool = True, *, received_s: float) -> StatusRow:
    at = datetime.fromtimestamp(T0 / S, UTC)
    return StatusRow(
        "OP1",
        "ST1",
        online,
        at + timedelta(seconds=received_s),
        None if sent_s is None else at + timedelta(seconds=sent_s),
        None,
        None,
        "1",
    )


YEAR_2099_S = 2_300_000_000


@pytest.mark.parametrize(
    ("statuses", "newer", "online"),
    [
        # A counter that began anew doesn't matter: only the time does.
        ([status(1, received_s=1), status(2, False, received_s=2)], [True, True], False),
        ([status(2, received_s=2), status(1, False, received_s=3)], [True, False], True),
        ([status(1, received_s=1), status(1, received_s=5)], [True, False], True),
        # The last will always counts, and what was sent before it changes nothing.
        (
            [status(1, received_s=1), status(None, False, received_s=2), status(1, received_s=3)],
            [True, True, False],
            False,
        ),
        ([status(None, False, received_s=1), status(-5, received_s=2)], [True, True], True),
        # A clock that was once in 2099 gives way; one that stays there still counts.
        (
            [status(YEAR_2099_S, False, received_s=1), status(2, received_s=2)],
            [True, True],
            True,
        ),
        (
            [status(YEAR_2099_S, received_s=1), status(YEAR_2099_S + 1, False, received_s=2)],
            [True, True],
            False,
        ),
    ],
)
async def test_the_newest_status_counts(connection, statuses, newer, online):
    assert await store_statuses(connection, statuses, max_future=timedelta(minutes=10)) == newer
    assert await connection.fetchval("SELECT online FROM station_status") == online
    await connection.execute("DELETE FROM station_status")
    one_by_one = [
        (await store_statuses(connection, [row], max_future=timedelta(minutes=10)))[0]
        for row in statuses
    ]
    assert one_by_one == newer
    assert await connection.fetchval("SELECT online FROM station_status") == online

"""Small messages that unpack to much: they are committed bit by bit, whatever a batch expects."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from dataclasses import replace

import asyncpg
import pytest
from tests.integration.ingest_gateway import Gateway
from tests.integration.ingest_service import serving, until

from chargewatch.ingest import intake
from chargewatch.ingest.message import Arrival, Message, read_message, read_some
from chargewatch.settings import load_settings

SENT_AT = "2026-01-01T00:00:00Z"
EMPTY = b'{"seq":1,"sent_at":"%s","readings":[%s]}' % (
    SENT_AT.encode(),
    b",".join([b"{}"] * 10_000),
)
SIGNED = json.dumps(
    {
        "seq": 1,
        "sent_at": SENT_AT,
        "sessions": [
            {
                "session": f"S{number}",
                "connector": "C1",
                "started_at": SENT_AT,
                "ended_at": SENT_AT,
                "start_wh": 0,
                "stop_wh": 0,
                "billed_wh": 0,
                "signed": {"format": "OCMF", "data": "x" * 100_000},
            }
            for number in range(80)
        ],
    }
).encode()


@pytest.mark.parametrize(
    ("kind", "text", "at_most"), [("registers", EMPTY, 2), ("sessions", SIGNED, 3)]
)
def test_what_messages_hold_ends_a_batch_not_their_length(
    kind: str, text: bytes, at_most: int
) -> None:
    packed = gzip.compress(text, 9)
    waiting = [Arrival(f"cw/v1/OP1/ST1/{kind}", packed, None, 0) for _ in range(5)]
    taken = []
    while waiting:
        count, messages = read_some(waiting, most_items=20_000, most_bytes=16 << 20)
        assert count == len(messages)
        taken.append(count)
        waiting = waiting[count:]
    assert sum(taken) == 5
    assert max(taken) <= at_most


def test_messages_of_other_workers_are_gone_over() -> None:
    foreign = Arrival("cw/v1/OP1/ST1/registers", b"", None, 0, foreign=True)
    assert read_some([foreign] * 3, most_items=1, most_bytes=1) == (3, [])


async def test_a_few_bytes_that_unpack_to_much_fill_no_memory_and_stop_nobody(
    broker_url: str, database_url: str
) -> None:
    packed = gzip.compress(EMPTY, 9)
    assert len(packed) < 200
    async with serving(broker_url, database_url) as service:
        async with Gateway(broker_url, "OP1", "BAD") as bad:
            for _ in range(30):
                await bad.send_bytes("registers", packed)
        async with Gateway(broker_url, "OP2", "GOOD") as good:
            at = "2026-01-01T00:00:00Z"
            await good.send("registers", readings=[{"connector": "C", "at": at, "energy_wh": 1}])
            await until(lambda: service.totals.messages == 31, 60)
    # At most 20,000 readings and one message more in each.
    assert service.totals.commits >= 10
    connection = await asyncpg.connect(database_url)
    books = await connection.fetch(
        "SELECT station_id, received, stored + duplicate + rejected AS told FROM ledger_stream"
    )
    await connection.close()
    assert {row["station_id"]: (row["received"], row["told"]) for row in books} == {
        "BAD": (300_000, 300_000),
        "GOOD": (1, 1),
    }


async def test_the_http_door_unpacks_few_messages_at_a_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []
    reading: set[int] = set()

    def counted(arrival: Arrival) -> Message:
        reading.add(threading.get_ident())
        at_once.append(len(reading))
        time.sleep(0.02)  # long enough for others to begin, if they may
        reading.discard(threading.get_ident())
        return read_message(arrival)

    monkeypatch.setattr(intake, "read_message", counted)
    packed = gzip.compress(b'{"seq":1,"sent_at":"%s","readings":[]}' % SENT_AT.encode())
    settings = replace(load_settings({}), database_url=database_url)
    async with intake.Intake(settings) as door:
        sent = [door.submit("registers", "OP1", f"S{n}", packed) for n in range(12)]
        receipts = await asyncio.gather(*sent)
    assert [receipt["seq"] for receipt in receipts] == [1] * 12
    assert max(at_once) <= intake.READ_AT_ONCE

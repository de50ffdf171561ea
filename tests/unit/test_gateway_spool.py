"""The gateway's spool and its input: limits, counters, what doesn't fit, what isn't JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.gateway.intake import (
    KEPT_OF_LONG_LINE,
    MAX_LINE_BYTES,
    FileInput,
    Line,
    LineSplitter,
    PipeInput,
)
from chargewatch.gateway.lines import Item, LineError, read_line
from chargewatch.gateway.spool import DeadLetter, Spool, SpoolError, SpoolFullError
from chargewatch.wire.kinds import Kind

NOW = datetime(2026, 3, 1, tzinfo=UTC)


MakeSpool = Callable[..., Spool]


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[MakeSpool]:
    options = {"operator_id": "OP", "station_id": "ST", "max_bytes": 64 << 20, "batch_items": 100}
    with contextlib.ExitStack() as stack:

        def make(**changes: Any) -> Spool:
            spool = Spool(tmp_path / "spool", **{**options, **changes}, clock=lambda: NOW)
            stack.callback(spool.close)
            return spool

        yield make


def readings(count: int, *, size: int = 0) -> list[Item]:
    return [
        Item(Kind.REGISTERS, json.dumps({"connector": f"C{n}", "x": "y" * size}).encode())
        for n in range(count)
    ]


def receipt(seq: int, *, stored: int = 0, duplicate: int = 0, errors: Any = ()) -> dict[str, Any]:
    return {
        "topic": "registers",
        "seq": seq,
        "stored": stored,
        "duplicate": duplicate,
        "rejected": len(errors),
        "errors": list(errors),
    }


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ('{"connector": "C", "at": "x", "energy_wh": 1}', ["registers"]),
        ('{"meter": "M", "at": "x", "energy_wh": 1}', ["reference"]),
        ('{"session": "S", "connector": "C", "started_at": "x", "stop_wh": 1}', ["sessions"]),
        ('{"connector": "C", "at": "x", "kind": "seal_opened"}', ["events"]),
        ('{"topic": "registers", "readings": [{"a": 1}, {"a": 2}]}', ["registers", "registers"]),
        ('{"topic": "events", "events": [{"a": 1}]}', ["events"]),
        ('{"topic": "reference", "any": 1}', ["reference"]),
    ],
)
def test_a_line_tells_its_topic(line: str, kinds: list[str]) -> None:
    assert [item.kind for item in read_line(line.encode()).items] == kinds


def test_a_status_line_is_told_with_the_status() -> None:
    content = read_line(b'{"online": true, "firmware": "2", "seq": 9, "backlog": 3}')
    assert (content.items, content.status) == ((), {"firmware": "2"})


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON",
        b"[1]",
        b'{"a": 1}',
        b'{"topic": "weather", "x": 1}',
        b'{"topic": 5}',
        b'{"topic": "registers", "readings": 5}',
        b'{"energy_wh": NaN}',
        b'{"energy_wh": 1, "x": "\xff"}',
        b'{"energy_wh": 1, "x": ' + b"[" * 31 + b"]" * 31 + b"}",
        b'{"energy_wh": 1, "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"energy_wh": 1, "x": "' + b"y" * 1_000_001 + b'"}',
    ],
)
def test_what_can_not_be_sent_is_said(line: bytes) -> None:
    with pytest.raises(LineError):
        read_line(line)


def test_messages_keep_the_limits_of_the_contract(make_spool: MakeSpool) -> None:
    spool = make_spool(batch_items=1_000_000)
    assert spool.add(readings(10_001)) == 2
    assert spool.add(readings(30, size=100_000)) == 4
    messages = spool.after(0, limit=100, max_bytes=1 << 30)
    assert [message.seq for message in messages] == [1, 2, 3, 4, 5, 6]
    assert max(len(message.payload) for message in messages) < 1 << 20
    counts = [len(json.loads(message.payload)["readings"]) for message in messages]
    assert counts[:2] == [10_000, 1]
    assert sum(counts[2:]) == 30


def test_a_seq_goes_on_over_restarts_and_deletions(make_spool: MakeSpool) -> None:
    for round_ in range(1, 4):
        spool = make_spool()
        spool.add(readings(1))
        (message,) = spool.after(0, limit=10)
        assert (message.seq, message.id) == (round_, round_)
        assert spool.settle([receipt(round_, stored=1)]).ids == [round_]
        assert spool.backlog() == 0
        spool.close()


def test_a_receipt_deletes_its_message_and_keeps_what_was_rejected(make_spool: MakeSpool) -> None:
    spool = make_spool()
    spool.add(readings(3))
    spool.add(readings(2))
    error = {"index": 1, "code": "naive_time", "detail": "readings[1].at has no offset"}
    settled = spool.settle([receipt(1, stored=1, duplicate=1, errors=[error])])
    assert (settled.ids, settled.stored, settled.duplicate, settled.rejected) == ([1], 1, 1, 1)
    (letter,) = spool.dead_letters()
    assert (letter["seq"], letter["item"], letter["code"]) == (1, 1, "naive_time")
    assert json.loads(letter["content"])["connector"] == "C1"
    assert [message.seq for message in spool.after(0, limit=10)] == [2]
    assert spool.get(1) is None


def test_a_receipt_that_does_not_fit_deletes_nothing(make_spool: MakeSpool) -> None:
    spool = make_spool()
    spool.add(readings(3))
    settled = spool.settle(
        [receipt(1, stored=2), receipt(9, stored=1), {"topic": "registers"}, {"seq": None}]
    )
    assert (settled.ids, settled.foreign) == ([], 1)
    assert spool.backlog() == 1
    assert spool.settle([receipt(1, duplicate=3)]).ids == [1]


def test_a_message_refused_whole_is_a_dead_letter(make_spool: MakeSpool) -> None:
    spool = make_spool()
    spool.add(readings(3))
    error = {"index": None, "code": "malformed", "detail": "too large"}
    assert spool.settle([receipt(1, errors=[error])]).ids == [1]
    (letter,) = spool.dead_letters()
    assert len(json.loads(letter["content"])["readings"]) == 3


def test_rejected_items_that_a_receipt_does_not_name_are_kept(make_spool: MakeSpool) -> None:
    spool = make_spool()
    spool.add(readings(3))
    error = {"index": 1, "code": "naive_time", "detail": "no offset"}
    settled = spool.settle([{**receipt(1, errors=[error]), "rejected": 3}])
    assert (settled.ids, settled.rejected) == ([1], 3)
    named, whole = spool.dead_letters()
    assert (named["item"], whole["item"]) == (1, None)
    assert len(json.loads(whole["content"])["readings"]) == 3


def test_one_rejected_item_of_another_gateways_message_deletes_nothing(
    make_spool: MakeSpool,
) -> None:
    spool = make_spool()
    spool.add(readings(3))
    error = {"index": 0, "code": "naive_time", "detail": "no offset"}
    settled = spool.settle([receipt(1, errors=[error])])
    assert (settled.ids, settled.foreign, spool.backlog()) == ([], 1, 1)


@pytest.mark.parametrize("errors", [None, 5, "x", [1], {"index": 0}])
def test_errors_of_a_receipt_may_be_anything(make_spool: MakeSpool, errors: Any) -> None:
    spool = make_spool()
    spool.add(readings(1))
    assert spool.settle([{**receipt(1), "rejected": 1, "errors": errors}]).ids == [1]
    (letter,) = spool.dead_letters()
    assert letter["item"] is None


def test_the_newest_statuses_are_kept_with_their_seq(make_spool: MakeSpool) -> None:
    spool = make_spool()
    spool.add([], status={"firmware": "2"})
    sent = [spool.add_status(online=number < 11) for number in range(12)]
    assert json.loads(sent[0]) == {
        "firmware": "2",
        "seq": 1,
        "sent_at": "2026-03-01T00:00:00.000+00:00",
        "online": True,
        "backlog": 0,
    }
    assert json.loads(sent[-1])["online"] is False
    spool.close()
    assert make_spool().recent_statuses() == sent[-10:]


def test_a_full_spool_takes_nothing_and_gives_everything(make_spool: MakeSpool) -> None:
    spool = make_spool(max_bytes=1 << 20)
    taken = 0
    with pytest.raises(SpoolFullError):
        for _ in range(100):
            spool.add(readings(1, size=50_000))
            taken += 1
    assert 5 < taken < 25
    assert spool.backlog() == taken
    assert spool.settle([receipt(n + 1, stored=1) for n in range(taken)]).ids
    assert spool.add(readings(1, size=50_000)) == 1
    # A number that was not written was not used up either.
    assert [message.seq for message in spool.after(0, limit=10)] == [taken + 1]


@pytest.mark.parametrize("size", [0, 3_000, 50_000])
def test_a_full_spool_gets_rid_of_what_is_rejected(make_spool: MakeSpool, size: int) -> None:
    spool = make_spool(max_bytes=1 << 18)
    taken = 0
    with pytest.raises(SpoolFullError):
        for _ in range(10_000):
            spool.add(readings(3, size=size))
            taken += 1
    errors = [{"index": n, "code": "too_old", "detail": "x" * 100} for n in range(3)]
    for seq in range(1, taken + 1):
        assert spool.settle([receipt(seq, errors=errors)]).ids == [seq]
    assert spool.backlog() == 0
    assert spool.add(readings(3, size=size)) == 1
    with pytest.raises(SpoolFullError):
        for _ in range(10_000):
            spool.add(readings(3, size=size))


def test_dead_letters_are_bounded(make_spool: MakeSpool) -> None:
    spool = make_spool(max_bytes=1 << 20)
    for number in range(50):
        spool.add([], dead=[DeadLetter("bad_line", "x", b"y" * 10_000, line=number)])
    assert [letter["line"] for letter in spool.dead_letters()] == list(range(40, 50))


def test_a_spool_has_one_station_and_one_process(make_spool: MakeSpool, tmp_path: Path) -> None:
    spool = make_spool()
    with pytest.raises(SpoolError, match="in use"):
        make_spool()
    spool.close()
    with pytest.raises(SpoolError, match="is of OP:ST, not of OP:OTHER"):
        make_spool(station_id="OTHER")
    make_spool().close()
    (tmp_path / "spool").write_bytes(b"no database" * 1000)
    with pytest.raises(SpoolError, match="can't use the spool"):
        make_spool()


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 7))
def test_lines_come_whole_however_they_are_cut(parts: list[bytes], size: int) -> None:
    lines = [part.replace(b"\n", b" ") for part in parts]
    data = b"\n".join(lines)
    splitter = LineSplitter()
    found = [
        line for at in range(0, len(data), size) for line in splitter.feed(data[at : at + size])
    ]
    found += splitter.end()
    assert [line.content for line in found] == (lines[:-1] if data.endswith(b"\n") else lines)[
        : len(found)
    ]
    assert splitter.offset == len(data)
    assert [line.number for line in found] == list(range(1, len(found) + 1))


def test_a_line_without_end_takes_no_memory_without_end() -> None:
    splitter = LineSplitter()
    for _ in range(12):
        assert splitter.feed(b"x" * (1 << 20)) == []
    assert len(splitter._rest) <= MAX_LINE_BYTES
    (long, good) = splitter.feed(b"\ngood\n")
    assert (long.too_long, len(long.content)) == (True, KEPT_OF_LONG_LINE)
    assert good == Line(2, b"good")
    assert splitter.offset == 12 * (1 << 20) + 6


async def take(source: FileInput) -> list[bytes]:
    block = await source.read()
    assert block is not None
    return [line.content for line in block.lines]


async def test_a_file_goes_on_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\nhal")
    source = FileInput(path, position=None, follow=True)
    block = await source.read()
    assert block is not None
    assert [line.content for line in block.lines] == [b"one", b"two"]
    with path.open("ab") as file:
        file.write(b"f\nthree\n")
    assert await take(source) == [b"half", b"three"]
    source.close()
    again = FileInput(path, position=block.position, follow=False)
    second = await again.read()
    assert second is not None
    assert [(line.number, line.content) for line in second.lines] == [(3, b"half"), (4, b"three")]
    # Another file of the same name is begun at its beginning.
    path.write_bytes(b"new\n")
    third = FileInput(path, position=block.position, follow=False)
    assert await take(third) == [b"new"]
    again.close()
    third.close()


async def test_a_rotated_or_cut_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n")
    source = FileInput(path, position=None, follow=True)
    assert await take(source) == [b"one"]
    with path.open("ab") as file:
        file.write(b"two\nlast")
    path.rename(tmp_path / "lines.1")
    assert await take(source) == [b"two"]
    assert await take(source) == []
    path.write_bytes(b"three\n")
    assert await take(source) == [b"last"]
    assert await take(source) == [b"three"]
    path.write_bytes(b"4\n")
    assert await take(source) == []
    assert await take(source) == [b"4"]
    source.close()


async def test_what_is_written_just_before_a_rotation_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n")
    source = FileInput(path, position=None, follow=True)
    assert await take(source) == [b"one"]
    # The next read has found the end already when these two happen.
    with path.open("ab") as file:
        file.write(b"two\n")
    path.rename(tmp_path / "lines.1")
    path.write_bytes(b"three\n")
    assert [line.content for line in source._next_file().lines] == [b"two"]
    assert await take(source) == []
    assert await take(source) == [b"three"]
    source.close()


async def test_a_pipe_is_not_read_ahead(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb", buffering=0) as feed:
        source = PipeInput(pipe)
        feed.write(b"one\ntw")
        block = await source.read()
        assert block is not None
        assert [line.content for line in block.lines] == [b"one"]
        feed.write(b"o\n")
        await asyncio.sleep(0)
        assert os.read(reading, 10) == b"o\n"
        assert [line.content for line in source.leave()] == [b"tw"]

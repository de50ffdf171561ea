"""Whatever one sender sends, the others' messages are committed and the books balance.

One broker, one database and one ingest for all cases. A case is a row of CASES: a message of the
station BAD, what its receipt says, and perhaps something that breaks only for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import orjson
import pytest
from tests.integration.ingest_gateway import Gateway
from tests.integration.poison_city import (
    City,
    balanced,
    iso,
    nested,
    running_city,
    until_subscribed,
)

from chargewatch.ingest import isolation, message, rejected, service, writer
from chargewatch.ingest.intake import Intake
from chargewatch.ingest.service import IngestService
from chargewatch.settings import load_settings
from chargewatch.storage.intake import faults, readings

MARK = 123_456.5
"""Energy of a reading that the faults below are about."""


def message_of(seq: int = 1, *, energy_wh: float = 1.0, **more: Any) -> bytes:
    items = [{"connector": "B1", "at": iso(seq), "energy_wh": energy_wh}]
    return orjson.dumps({"seq": seq, "sent_at": iso(), "readings": items, **more})


def session_with(more: bytes) -> bytes:
    session = {
        "session": "S1",
        "connector": "B1",
        "started_at": iso(),
        "ended_at": iso(60),
        "start_wh": 1,
        "stop_wh": 2,
        "billed_wh": 1,
        "currency": "CNY",
        "vehicle": "LSVAA4182E2123456",
    }
    text = orjson.dumps({"seq": 1, "sent_at": iso(), "sessions": [session]})
    return text.replace(b'"session":', b'"x":' + more + b',"session":', 1)


Breaks = Callable[[pytest.MonkeyPatch, asyncpg.Connection], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """A message, the code in its receipt ("" when it is stored), and what breaks for it."""

    name: str
    payload: bytes
    code: str
    kind: str = "registers"
    seq: int | None = 1
    rejected: int = 1
    breaks: Breaks | None = None


def marked(records: Any) -> bool:
    return bool((records["energy_wh"] == MARK).any())


def raising(error: BaseException, place: str) -> Breaks:
    """Return a fault of our own code at a place, for the marked reading only."""

    async def break_it(patch: pytest.MonkeyPatch, _: asyncpg.Connection) -> None:
        if place == "decode":
            decode = message.decode

            def failing_decode(topic: Any, payload: bytes, kind: str | None = None) -> Any:
                if b"123456.5" in payload:
                    raise error
                return decode(topic, payload, kind)

            patch.setattr(message, "decode", failing_decode)
        elif place == "assemble":
            assemble = writer.assemble

            def failing_assemble(messages: Any, *arguments: Any, **more: Any) -> Any:
                if any(m.decoded and b"123456.5" in m.arrival.payload for m in messages):
                    raise error
                return assemble(messages, *arguments, **more)

            patch.setattr(writer, "assemble", failing_assemble)
        elif place == "copy":
            encode = readings.copy_in

            async def failing_copy(c: Any, table: str, records: Any, **more: Any) -> None:
                if "energy_wh" in records.dtype.names and marked(records):
                    raise error
                await encode(c, table, records, **more)

            patch.setattr(readings, "copy_in", failing_copy)

    return break_it


def trigger(sqlstate: str) -> Breaks:
    """Return a trigger that refuses the marked reading, as the server's own errors would."""

    async def break_it(_: pytest.MonkeyPatch, database: asyncpg.Connection) -> None:
        await database.execute(
            "CREATE OR REPLACE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF NEW.energy_wh = {MARK} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; "
            "END IF; RETURN NEW; END $$;"
            "CREATE OR REPLACE TRIGGER poison BEFORE INSERT ON register_reading "
            "FOR EACH ROW EXECUTE FUNCTION poison()"
        )

    return break_it


async def evidence_fails(patch: pytest.MonkeyPatch, _: asyncpg.Connection) -> None:
    def fail(*_: Any) -> Any:
        raise RecursionError("evidence")

    patch.setattr(rejected, "message_evidence", fail)


MARKED = message_of(energy_wh=MARK)
OURS = "internal_error"
CASES = [
    Case("deep", message_of()[:-1] + b',"x":' + nested(1000) + b"}", "malformed"),
    Case("deep, empty", b'{"seq":1,"readings":[],"x":' + nested(1000) + b"}", "", rejected=-1),
    Case("deep with a VIN", session_with(nested(300)), "malformed", kind="sessions"),
    Case("evidence", b"{", "malformed", seq=None, breaks=evidence_fails),
    *(
        Case(f"{place} {type(error).__name__}", MARKED, OURS, breaks=raising(error, place))
        for error in (
            RecursionError("deep"),
            UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"),
            OverflowError("int too big"),
            KeyError("x"),
        )
        for place in ("decode", "assemble", "copy")
    ),
    *(
        Case(f"SQLSTATE {state}", MARKED, OURS, breaks=trigger(state))
        # data, integrity, program limit, internal, raised, no right, not supported, deadlock
        for state in ("22012", "23514", "54000", "XX000", "P0001", "42501", "0A000", "40P01")
    ),
]


@pytest.fixture
async def city(broker_url: str, database_url: str) -> AsyncIterator[City]:
    async with running_city(broker_url, database_url) as running:
        yield running


async def test_no_message_of_one_station_keeps_those_of_another_from_being_stored(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chargewatch.ingest.service.back_off_s", lambda attempt: 0.02)
    async with Gateway(city.url, "OP1", "GOOD") as good:
        async with city.ingest():
            await until_subscribed(city, good)
            for number, case in enumerate(CASES):
                station = f"BAD{number}"
                with monkeypatch.context() as patch:
                    if case.breaks is not None:
                        await case.breaks(patch, city.database)
                    async with Gateway(city.url, "OP1", station) as bad:
                        await bad.send_bytes(case.kind, case.payload)
                    await city.send_good(good)
                    receipt = await city.receipt(station, case.seq)
                    assert_receipt(case, receipt)
                await city.database.execute("DROP TRIGGER IF EXISTS poison ON register_reading")
            await a_receipt_that_can_not_be_written_holds_up_nobody(city, good, monkeypatch)
        books = await balanced(city.database)
        assert books["messages"] == len(CASES) + city.good + 1
        assert books["stored"] == city.good
        # Nothing of it comes again after a restart.
        async with city.ingest():
            await city.send_good(good)
        assert (await balanced(city.database))["messages"] == books["messages"] + 1
    kept = await city.database.fetch("SELECT payload, code FROM quarantine")
    assert [row["payload"] for row in kept if row["code"] == OURS] == [MARKED] * sum(
        case.code == OURS for case in CASES
    )
    assert not any(b"LSVAA4182E2123456" in row["payload"] for row in kept)


async def a_receipt_that_can_not_be_written_holds_up_nobody(
    city: City, good: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = service.receipt_messages

    def failing(messages: Any, *arguments: Any, **more: Any) -> Any:
        if any(m.owner[1] == "NO-RECEIPT" for m in messages):
            raise TypeError("not writable")
        return write(messages, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(service, "receipt_messages", failing)
        async with Gateway(city.url, "OP1", "NO-RECEIPT") as bad:
            await bad.send_bytes("registers", b"{")
            await city.send_good(good)
    await city.receipt("GOOD", good.seqs["registers"])


def assert_receipt(case: Case, receipt: dict[str, Any]) -> None:
    codes = [error["code"] for error in receipt["errors"]]
    got = receipt["stored"], receipt["duplicate"], receipt["rejected"], codes
    if case.rejected < 0:
        assert receipt["stored"] == 0, (case.name, got)
        return
    assert got == (0, 0, case.rejected, [case.code] if case.code else []), case.name


async def test_errors_of_the_environment_are_waited_out_and_put_down_to_nobody(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chargewatch.ingest.service.back_off_s", lambda attempt: 0.02)
    table = "register_reading"
    failed = 0

    def no_memory(*_: Any) -> Any:
        nonlocal failed
        failed += 1
        raise MemoryError

    def no_thread(*_: Any) -> Any:
        nonlocal failed
        failed += 1
        raise RuntimeError("can't start new thread")

    async def failing() -> bool:
        return failed > 12

    async with Gateway(city.url, "OP1", "GOOD") as good, city.ingest() as ingest:
        await until_subscribed(city, good)
        for number, fault in enumerate((no_memory, no_thread)):
            with monkeypatch.context() as patch:
                patch.setattr(message, "decode", fault)
                await good.send("registers", readings=[_reading(number)])
                await city.until(failing, "decoder out of memory or threads")
            failed = 0
        # A table that is not there, and a full disk: nothing else can be written either.
        for number, (breaks, mends) in enumerate(
            (
                (f"ALTER TABLE {table} RENAME TO away", f"ALTER TABLE away RENAME TO {table}"),
                (FULL_DISK, f"DROP TRIGGER full_disk ON {table}"),
                (NOBODY_MAY, f"DROP TRIGGER nobody_may ON {table}"),
            ),
            start=2,
        ):
            before = failed_attempts(ingest)
            await city.database.execute(breaks)
            await good.send("registers", readings=[_reading(number)])

            async def tried(before: float = before) -> bool:
                return failed_attempts(ingest) > before + 12

            await city.until(tried, breaks)
            await city.database.execute(mends)
        await city.until(lambda: city.stored("G1", 4), "all stored afterwards")
        for number in range(5):
            assert await city.stored("G1", number)
    assert await city.database.fetchval("SELECT count(*) FROM quarantine") == 0
    books = await balanced(city.database)
    assert (books["messages"], books["stored"]) == (5, 5)


def failed_attempts(ingest: IngestService) -> float:
    name = "chargewatch_ingest_failed_attempts_total"
    return ingest.metrics.registry.get_sample_value(name) or 0.0


async def test_a_statement_that_takes_too_long_is_put_down_to_a_message_only_if_all_else_works(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chargewatch.ingest.service.back_off_s", lambda attempt: 0.02)
    name = await city.database.fetchval("SELECT current_database()")
    await city.database.execute(f'ALTER DATABASE "{name}" SET statement_timeout = 400')
    other = await asyncpg.connect(city.settings.database_url)
    await other.execute("SET statement_timeout = 0")
    async with (
        Gateway(city.url, "OP1", "GOOD") as good,
        Gateway(city.url, "OP1", "BAD") as bad,
        city.ingest() as ingest,
    ):
        await until_subscribed(city, good)
        await city.send_good(good)
        # Somebody holds the station's books: whatever comes of it must wait.
        held = other.transaction()
        await held.start()
        await other.execute("SELECT FROM ledger_stream WHERE station_id = 'GOOD' FOR UPDATE")
        before = failed_attempts(ingest)
        waiting = asyncio.create_task(city.send_good(good))

        async def tried() -> bool:
            return failed_attempts(ingest) > before + faults.Blame.PASSING + 2

        await city.until(tried, "attempts while the books are held")
        await held.rollback()
        await waiting
        assert await city.database.fetchval("SELECT count(*) FROM quarantine") == 0
        # One message alone takes too long: it is put aside, and the others go on.
        await other.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF NEW.energy_wh = {MARK} THEN PERFORM pg_sleep(5); END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER slow BEFORE INSERT ON register_reading "
            "FOR EACH ROW EXECUTE FUNCTION slow()"
        )
        await bad.send_bytes("registers", MARKED)
        await city.send_good(good)
        receipt = await city.receipt("BAD", 1)
        assert [error["code"] for error in receipt["errors"]] == [OURS]
    assert (await balanced(city.database))["messages"] == city.good + 1
    await other.close()


def _reading(number: int) -> dict[str, Any]:
    return {"connector": "G1", "at": iso(number), "energy_wh": number}


def _refusing(name: str, sqlstate: str) -> str:
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$;"
        f"CREATE TRIGGER {name} BEFORE INSERT ON register_reading "
        f"FOR EACH ROW EXECUTE FUNCTION {name}()"
    )


FULL_DISK = _refusing("full_disk", "53100")
NOBODY_MAY = _refusing("nobody_may", "42501")


async def test_a_part_that_is_committed_is_not_booked_again_when_the_rest_must_wait(
    database_url: str,
) -> None:
    """Half a batch is committed, then the database is away: the repetition books the rest only."""
    written: list[int] = []
    away = True

    async def write(messages: Any) -> list[message.Fate]:
        nonlocal away
        seqs = [m.seq for m in messages]
        if 3 in seqs and len(seqs) > 1:
            raise ValueError("3 spoils it")
        if 4 in seqs and away:
            away = False
            raise OSError("the network is gone")
        written.extend(seqs)
        return [message.Fate(stored=1) for _ in messages]

    async def probe(_: Any) -> None:
        return None

    batch = [
        message.read_message(
            message.Arrival("cw/v1/OP1/ST1/registers", message_of(seq), None, 1_780_000_000_000_000)
        )
        for seq in range(1, 6)
    ]
    work = isolation.Isolation(write, probe)
    with pytest.raises(OSError, match="network"):
        await work.write(batch)
    assert written == [1, 2, 3]
    assert [fate.stored for fate in await work.write(batch)] == [1] * 5
    assert written == [1, 2, 3, 4, 5]


async def test_a_flood_of_bad_messages_of_one_station_costs_the_others_little() -> None:
    writes: list[int] = []
    stored: list[tuple[str, str]] = []

    async def write(messages: Any) -> list[message.Fate]:
        writes.append(len(messages))
        if any(m.owner[1] == "BAD" and m.decoded is not None for m in messages):
            raise ValueError("spoilt")
        stored.extend(m.owner for m in messages if m.decoded is not None)
        return [message.Fate() for _ in messages]

    async def probe(_: Any) -> None:
        return None

    def batch() -> list[message.Message]:
        stations = ["BAD" if k % 5 else f"G{k}" for k in range(1000)]
        return [
            message.read_message(
                message.Arrival(
                    f"cw/v1/OP1/{station}/registers", MARKED, None, 1_780_000_000_000_000
                )
            )
            for station in stations
        ]

    work = isolation.Isolation(write, probe)
    for most in (150, 5):
        writes.clear()
        stored.clear()
        messages = batch()
        await work.write(messages)
        assert len(writes) <= most
        assert len(stored) == 200
        codes = [m.refused.code for m in messages if m.refused is not None]
        assert codes == [OURS] * 800


async def test_the_http_door_answers_with_a_receipt_and_never_fails(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await asyncpg.connect(database_url)
    settings = replace(load_settings({}), database_url=database_url)
    async with Intake(settings) as intake:
        for number, case in enumerate(CASES):
            if case.name == "SQLSTATE 40P01":
                continue  # it passes by itself: the sender is asked to come again
            with monkeypatch.context() as patch:
                if case.breaks is not None:
                    await case.breaks(patch, database)
                receipt = await intake.submit(case.kind, "OP1", f"BAD{number}", case.payload)
                assert_receipt(case, receipt)
            await database.execute("DROP TRIGGER IF EXISTS poison ON register_reading")
    await balanced(database)
    await database.close()


async def test_ingest_waits_for_the_disk_whatever_the_role_is_set_to(database_url: str) -> None:
    database = await asyncpg.connect(database_url)
    name = await database.fetchval("SELECT current_database()")
    await database.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    settings = replace(load_settings({}), database_url=database_url)
    async with Intake(settings) as intake:
        await intake.submit("registers", "OP1", "ST1", message_of())
        connection = intake._writer._connection
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
    await database.close()

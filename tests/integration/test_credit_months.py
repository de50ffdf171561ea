"""Grades of a month from real rows: what is counted, drafts, publication, recounts."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert, select, update

from chargewatch.storage import tables
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.office import credit as rows
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.credit import commitments, grading
from chargewatch.supervision.credit.arithmetic import Fact, replay
from chargewatch.supervision.credit.days import sum_days
from chargewatch.supervision.credit.rules import CreditError, rules_for

ZONE = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 11, 27, 4, 30, tzinfo=UTC)
NOVEMBER, OCTOBER = date(2026, 11, 1), date(2026, 10, 1)
CLERK = Actor(name="clerk", role="supervisor")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Two operators with two stations and five connectors each, and one with nothing."""
    async with open_database(database_url) as opened:
        async with opened.begin() as connection:
            for name in ("A", "B", "EMPTY"):
                await connection.execute(
                    insert(tables.operator).values(operator_id=name, name=f"operator {name}")
                )
            for name in ("A", "B"):
                for n in (1, 2):
                    await connection.execute(
                        insert(tables.station).values(
                            station_id=f"{name}{n}", operator_id=name, name=f"{name}{n}",
                            opened_on=date(2024, 1, 1),
                        )
                    )  # fmt: skip
                for n in range(5):
                    await connection.execute(
                        insert(tables.connector).values(
                            connector=f"{name}1-{n}", operator_id=name, station_id=f"{name}1",
                            registered=True, in_service_on=date(2024, 1, 1),
                        )
                    )  # fmt: skip
        yield opened


async def facts_of(database: Database, month: date = NOVEMBER) -> dict[str, dict[str, Fact]]:
    async with database.connect() as connection:
        return await grading.load_facts(connection, rules_for(month), month, now=NOW, zone=ZONE)


def pair(known: dict[str, Fact], item: str) -> tuple[Fraction, Fraction]:
    return known[item].bad, known[item].all


async def add(database: Database, table: Any, *values: dict[str, Any]) -> None:
    async with database.begin() as connection:
        for one in values:
            await connection.execute(insert(table).values(**one))


def inspection(connector: str, result: str | None, part: str = "uniform", **more: Any) -> Any:
    return {
        "connector": connector, "station_id": connector[:2], "operator_id": connector[0],
        "inspector": "Wu", "crew": ["Wu"], "part": part, "planned_at": NOW,
        "due_on": date(2026, 11, 30), "state": "done" if result else "planned",
        "result": result, "done_on": date(2026, 11, 3) if result else None,
    } | more  # fmt: skip


def case(number: int, subject: str, outcome: str, closed: datetime, **more: Any) -> dict[str, Any]:
    return {
        "number": f"2026-{number:06d}", "operator_id": "A", "station_id": "A1",
        "subject": subject, "origin": "hand", "title": "a case", "state": "closed",
        "outcome": outcome, "opened_at": closed, "opened_by": "x", "closed_at": closed,
        "changed_at": closed,
    } | more  # fmt: skip


async def test_inspections_count_what_chance_chose_and_cases_the_rest(database: Database) -> None:
    old = {"done_on": date(2025, 11, 30)}
    await add(
        database, tables.inspection,
        inspection("A1-0", "fail"), inspection("A1-1", "pass"), inspection("A1-2", None),
        inspection("A1-3", "fail", "weighted"), inspection("A1-4", "fail", "case"),
        inspection("A1-4", "pass", "weighted"), inspection("A1-0", "fail", **old),
        inspection("B1-0", "pass"),
    )  # fmt: skip
    at = datetime(2026, 11, 30, 15, 59, tzinfo=UTC)  # 23:59 of the last day in the office
    await add(
        database, tables.office_case,
        case(1, "connector:A1-4", "confirmed", at), case(2, "connector:A1-1", "confirmed", at),
        case(3, "connector:A1-2", "not_confirmed", at), case(4, "station:A1", "inconclusive", at),
        case(5, "connector:A1-2", "confirmed", at + timedelta(minutes=1)),
        case(6, "connector:A1-2", "confirmed", datetime(2025, 11, 30, 15, tzinfo=UTC)),
    )  # fmt: skip
    found = await facts_of(database)
    assert pair(found["A"], "inspections") == (1, 2)
    assert pair(found["B"], "inspections") == (0, 1)
    # A1-3 and A1-4 failed for cause, A1-4 and A1-1 were confirmed: three of five.
    assert pair(found["A"], "confirmed") == (3, 5)
    assert pair(found["B"], "confirmed") == (0, 5)
    assert found["EMPTY"] == {}


async def test_verifications_and_coverage(database: Database) -> None:
    def verified(number: int, on: date, result: str, until: date | None, **more: Any) -> Any:
        return {
            "connector_id": number, "verified_on": on, "result": result, "valid_until": until,
            "certificate": f"{number}-{on}", "institute": "I",
        } | more  # fmt: skip

    far, day = date(2029, 1, 1), date(2026, 6, 1)
    await add(
        database, tables.verification,
        verified(1, day, "pass", far), verified(2, day, "fail", None),
        # The newest counts; an initial one, one withdrawn, one without a decision don't.
        verified(3, day, "fail", None), verified(3, date(2026, 7, 1), "pass", far),
        verified(4, day, "pass", far, kind="initial"),
        verified(5, day, "pass", far, withdrawn_at=NOW), verified(6, day, "undecided", None),
        # Its validity ends on the last day, which still counts; and a day before.
        verified(7, date(2023, 12, 1), "pass", NOW.date()),
        verified(8, date(2023, 12, 1), "pass", NOW.date() - timedelta(days=1)),
    )  # fmt: skip
    found = await facts_of(database)
    assert pair(found["A"], "verifications") == (1, 3)
    assert "verifications" not in found["B"]
    # Valid are 1, 3 and 4 of A, 7 of B.
    assert pair(found["A"], "coverage") == (2, 5)
    assert pair(found["B"], "coverage") == (4, 5)


async def test_money_complaints_and_commitments(database: Database) -> None:
    async with database.begin() as connection:
        run_id = await connection.scalar(
            insert(tables.risk_run)
            .values(
                state="finished", mode="full", as_of=NOW, started_at=NOW, version="0",
                configuration={},
            )
            .returning(tables.risk_run.c.run_id)
        )  # fmt: skip

    def owed(cause: str, low: float, amount: float, high: float, **more: Any) -> dict[str, Any]:
        sums = {
            f"{side}{end}_cny": value
            for side, values in (("overcharge", (low, amount, high)), ("undercharge", (9, 9, 9)))
            for end, value in zip(("_low", "", "_high"), values, strict=True)
        }
        return {
            "month": NOVEMBER, "operator_id": "A", "cause": cause, **sums, "net_cny": 0,
            "net_low_cny": 0, "net_high_cny": 0, "connectors": 5, "connectors_unknown": 0,
            "sessions": 90, "sessions_unknown": 0, "energy_wh": 1e6, "paid_cny": 40_000.125,
            "run_id": run_id,
        } | more  # fmt: skip

    await add(
        database, tables.money_total, owed("error", -3.0, 10.004, 25.0), owed("billing", 7, 7, 7),
        owed("error", 99, 99, 99, operator_id=""), owed("error", 99, 99, 99, month=OCTOBER),
        # Nothing of it is known of B's errors: that is not "nothing owed".
        owed("error", math.nan, math.nan, math.nan, operator_id="B"),
    )  # fmt: skip
    at = datetime(2026, 11, 3, tzinfo=UTC)
    await add(database, tables.office_case, case(1, "connector:A1-0", "confirmed", at))
    told = {
        "received_at": at, "connector": "A1-0", "station_id": "A1", "operator_id": "A",
        "kind": "price", "text": "too much", "language": "zh", "state": "ended",
        "clocks": "CN", "accept_by": at.date(),
    }  # fmt: skip
    await add(
        database, tables.complaint, {**told, "reference": "1", "case_id": 1},
        {**told, "reference": "2"},
    )  # fmt: skip
    await add(
        database, tables.operator_day,
        *(
            {
                "operator_id": "A", "day": day, "messages": 1, "items": 1, "rejected": 0,
                "sessions": 450, "summed_at": NOW,
            }
            for day in (date(2026, 11, 1), date(2026, 3, 1), date(2025, 11, 30))
        ),
    )  # fmt: skip
    for text, kept in (("a", True), ("b", False), ("c", None)):
        number = await commitments.commit(
            database, "A", text=text, until=date(2026, 12, 1), actor=CLERK, now=NOW, zone=ZONE
        )
        if kept is not None:
            await commitments.decide(
                database, "A", number, kept=kept, why="seen", actor=CLERK, now=NOW, zone=ZONE
            )
    everybody = await facts_of(database)
    assert "owed" not in everybody["B"]
    found = everybody["A"]
    # What is below zero isn't owed; error and billing concern the same sessions.
    assert pair(found, "owed") == (7, Fraction("40000.13"))
    assert (found["owed"].estimate, found["owed"].most) == (Fraction(17), Fraction(32))
    assert pair(found, "complaints") == (1, 900)
    assert pair(found, "commitments") == (1, 2)


async def _messages(database: Database, day: date) -> dict[str, int]:
    """Let A1 send every hour but two, A2 nothing, B1 and B2 every hour but one of the city."""
    streams = {}
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    async with database.begin() as connection:
        for station, topic in (
            ("A1", "registers"), ("A1", "status"), ("B1", "registers"), ("B2", "registers"),
        ):  # fmt: skip
            streams[f"{station} {topic}"] = int(
                await connection.scalar(
                    insert(tables.ledger_stream)
                    .values(
                        operator_id=station[0],
                        station_id=station,
                        topic=topic,
                        first_received_at=begin,
                        last_received_at=begin + timedelta(hours=23),
                    )
                    .returning(tables.ledger_stream.c.stream_id)
                )
                or 0
            )
        for hour in range(24):
            if hour == 7:  # nobody was heard: the platform's own
                continue
            for name, stream_id in streams.items():
                if name == "A1 registers" and hour in {3, 4}:
                    continue
                await connection.execute(
                    insert(tables.message_ledger).values(
                        received_at=begin + timedelta(hours=hour, minutes=5),
                        stream_id=stream_id, seq=hour, sent_at=begin, stored=9, duplicate=1,
                        rejected=int(name == "A1 registers"),
                    )
                )  # fmt: skip
        gap = {
            "stream_id": streams["A1 registers"], "first_seq": 3, "last_seq": 4, "found_at": NOW,
            "from_at": begin + timedelta(hours=2), "to_at": begin + timedelta(hours=4, minutes=30),
        }  # fmt: skip
        for more in (
            {}, {"closed_at": NOW}, {"implausible": True},
            {"from_at": begin - timedelta(days=70), "to_at": begin - timedelta(days=69)},
        ):  # fmt: skip
            await connection.execute(insert(tables.ledger_gap).values(**gap | more))
        for code, rejected in (("internal_error", 5), ("conflict", 3)):
            await connection.execute(
                insert(tables.quarantine).values(
                    received_at=begin + timedelta(hours=9), topic="registers", operator_id="A",
                    station_id="A1", code=code, codes=[code], errors=[], payload=b"x",
                    rejected=rejected, digest=code.encode(),
                )
            )  # fmt: skip
    return streams


async def test_data_quality_counts_each_harm_by_its_hours(database: Database) -> None:
    day = date(2026, 11, 10)
    await _messages(database, day)
    summed = await sum_days(database, since=day, until=day + timedelta(days=1), now=NOW)
    found = await facts_of(database)
    # 23 hours in which anybody was heard, two stations; A1 in 21 of them, A2 never.
    assert pair(found["A"], "silence") == (46 - 21, 46)
    assert pair(found["B"], "silence") == (0, 46)
    assert pair(found["A"], "lost") == (Fraction("2.5"), 46)
    assert pair(found["B"], "lost") == (0, 46)
    # 21 messages of 11 items and 23 of 10 (status); five items were the platform's own fault.
    assert pair(found["A"], "rejected") == (21 - 5, 21 * 11 + 23 * 10 - 5)
    assert pair(found["B"], "rejected") == (0, 460)
    assert summed == 1
    # A day that is over was summed for good; only `afresh` looks again.
    assert await sum_days(database, since=day, until=day + timedelta(days=1), now=NOW) == 0
    after = day + timedelta(days=1)
    again = await sum_days(database, since=day, until=after, now=NOW, afresh=True)
    assert (again, await facts_of(database)) == (1, found)


async def test_a_day_without_single_messages_tells_nothing_of_silence(database: Database) -> None:
    day = date(2026, 11, 10)
    async with database.begin() as connection:
        stream_id = await connection.scalar(
            insert(tables.ledger_stream)
            .values(
                operator_id="A",
                station_id="A1",
                topic="registers",
                first_received_at=datetime(2026, 11, 9, tzinfo=UTC),
            )
            .returning(tables.ledger_stream.c.stream_id)
        )
        await connection.execute(
            insert(tables.ledger_day).values(
                stream_id=stream_id, day=day, messages=10, stored=80, duplicate=15, rejected=5
            )
        )
        await connection.execute(
            insert(tables.retention_horizon).values(
                table_name="message_ledger", kept_from=datetime(2026, 11, 12, tzinfo=UTC)
            )
        )
    await sum_days(database, since=day, until=day + timedelta(days=1), now=NOW)
    found = await facts_of(database)
    assert pair(found["A"], "rejected") == (5, 100)
    assert "silence" not in found["A"] and "lost" not in found["A"]


async def _grades(database: Database, month: date) -> list[tuple[Any, ...]]:
    async with database.connect() as connection:
        table = tables.credit_grade
        found = await connection.execute(
            select(table.c.operator_id, table.c.revision, table.c.score, table.c.why)
            .where(table.c.month == month)
            .order_by(table.c.operator_id, table.c.revision)
        )
        return [tuple(row) for row in found]


async def _cover(database: Database, until: date) -> None:
    async with database.begin() as connection:
        for number in range(1, 11):
            await connection.execute(
                insert(tables.verification).values(
                    connector_id=number, verified_on=date(2026, 2, 1), result="pass",
                    valid_until=until, certificate=f"C{number}", institute="I",
                )
            )  # fmt: skip


async def test_drafts_may_be_made_again_and_publication_closes_the_month(
    database: Database,
) -> None:
    await _cover(database, date(2029, 2, 1))
    await _messages(database, date(2026, 10, 10))
    for _ in range(2):
        done = await grading.draft_month(database, OCTOBER, now=NOW, zone=ZONE)
        assert (done.closed, sum(done.grades.values())) == (False, 3)
    async with database.connect() as connection:
        draft = await rows.draft(connection, "A")
    assert draft is not None
    assert not replay(draft["arithmetic"]).faults
    done = await grading.publish_month(database, OCTOBER, actor=CLERK, now=NOW, zone=ZONE)
    assert (done.closed, done.published) == (True, 3)
    published = await _grades(database, OCTOBER)
    assert [row[:2] for row in published] == [("A", 1), ("B", 1), ("EMPTY", 1)]
    # EMPTY is told as not graded.
    assert published[2][2] is None and None not in (published[0][2], published[1][2])
    async with database.connect() as connection:
        assert await rows.draft(connection, "A") is None
    for _ in range(2):
        done = await grading.publish_month(database, OCTOBER, actor=CLERK, now=NOW, zone=ZONE)
        assert (done.published, done.unchanged) == (0, 3)
        done = await grading.draft_month(database, OCTOBER, now=NOW, zone=ZONE)
        assert done.closed
    assert await _grades(database, OCTOBER) == published


async def test_a_recount_keeps_what_was_published(database: Database) -> None:
    await _cover(database, date(2029, 2, 1))
    streams = await _messages(database, date(2026, 10, 10))
    await grading.publish_month(database, OCTOBER, actor=CLERK, now=NOW, zone=ZONE)
    before = await _grades(database, OCTOBER)
    # The same again: nothing comes out differently.
    done = await grading.recount_month(
        database, OCTOBER, "to be sure", actor=CLERK, now=NOW, zone=ZONE
    )
    assert (done.published, await _grades(database, OCTOBER)) == (0, before)
    # Messages of A were read again: nothing of them is rejected any more.
    async with database.begin() as connection:
        ledger = tables.message_ledger
        await connection.execute(
            update(ledger)
            .where(ledger.c.stream_id == streams["A1 registers"])
            .values(stored=10, rejected=0)
        )
    done = await grading.recount_month(
        database, OCTOBER, " read again ", actor=CLERK, now=NOW, zone=ZONE
    )
    after = await _grades(database, OCTOBER)
    assert (done.published, done.unchanged) == (1, 2)
    assert [row for row in after if row[1] == 1] == before
    [fresh] = [row for row in after if row[1] == 2]
    assert (fresh[0], fresh[3]) == ("A", "read again")
    assert fresh[2] > before[0][2]
    async with database.connect() as connection:
        newest = await rows.published(connection, "A")
        old = await rows.published(connection, "A", month=OCTOBER, revision=1)
        entries = (
            await connection.execute(
                select(tables.audit_entry.c.action).order_by(tables.audit_entry.c.entry)
            )
        ).scalars()
        assert list(entries) == ["credit_published", "credit_recounted"]
    assert newest is not None and old is not None
    assert (newest["revision"], old["revision"]) == (2, 1)
    assert not replay(newest["arithmetic"]).faults and not replay(old["arithmetic"]).faults


async def test_what_can_not_be_graded_says_from_when_on(database: Database) -> None:
    given = {"now": NOW, "zone": ZONE}
    with pytest.raises(CreditError, match="2026-12-01"):
        await grading.publish_month(database, NOVEMBER, actor=CLERK, **given)  # type: ignore[arg-type]
    with pytest.raises(CreditError, match="has not begun"):
        await grading.draft_month(database, date(2026, 12, 1), **given)  # type: ignore[arg-type]
    with pytest.raises(CreditError, match="no rule set"):
        await grading.draft_month(database, date(2025, 12, 1), **given)  # type: ignore[arg-type]
    with pytest.raises(CreditError, match="say why"):
        await grading.recount_month(database, OCTOBER, "  ", actor=CLERK, **given)  # type: ignore[arg-type]
    with pytest.raises(CreditError, match="never published"):
        await grading.recount_month(database, OCTOBER, "so", actor=CLERK, **given)  # type: ignore[arg-type]
    for told in ("2026", "2026-13", "26-11", "", "2026-11-01"):
        with pytest.raises(CreditError, match="is no month"):
            grading.month_of(told)
    # Half past four in the morning of 1 December in the office, 30 November elsewhere.
    eve = datetime(2026, 11, 30, 20, 30, tzinfo=UTC)
    done = await grading.publish_month(database, NOVEMBER, actor=CLERK, now=eve, zone=ZONE)
    assert done.published == 3


async def test_a_commitment_is_decided_once(database: Database) -> None:
    given = {"actor": CLERK, "now": NOW, "zone": ZONE}
    number = await commitments.commit(
        database, "A", text=" all verified ", until=date(2026, 12, 1), **given
    )  # type: ignore[arg-type]
    for text, until in (
        ("", date(2026, 12, 1)), ("x" * 1001, date(2026, 12, 1)), ("a\x00b", date(2026, 12, 1)),
        ("ok", date(2026, 11, 26)), ("ok", date(2032, 1, 1)),
    ):  # fmt: skip
        with pytest.raises(CreditError):
            await commitments.commit(database, "A", text=text, until=until, **given)  # type: ignore[arg-type]
    with pytest.raises(CreditError, match="reason"):
        await commitments.decide(database, "A", number, kept=True, why=" ", **given)  # type: ignore[arg-type]
    await commitments.decide(database, "A", number, kept=True, why="seen", **given)  # type: ignore[arg-type]
    with pytest.raises(CreditError, match="never changed"):
        await commitments.decide(database, "A", number, kept=False, why="no", **given)  # type: ignore[arg-type]
    async with database.connect() as connection:
        [row] = await rows.commitments(connection, "A")
        assert await rows.commitments(connection, "A", only_published=True) == []
    assert (row["text"], row["kept"], row["decided_by"]) == ("all verified", True, "clerk")

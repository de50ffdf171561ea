"""What becomes of flags: counted from runs and verifications; verifications act in real runs."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from runs_case import TO, feed, make_test_city, messages_of, register
from sqlalchemy import insert, text

from chargewatch.domain.mpe import rule_set
from chargewatch.runs.assess import run_assessment
from chargewatch.runs.exports import assessment_rows
from chargewatch.settings import load_settings
from chargewatch.simulators.scenario import FaultSpec
from chargewatch.storage import tables
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.office import outcomes as rows
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.declared_changes import NewChange, declare_change, withdraw_change
from chargewatch.supervision.outcomes.count import count_outcomes, read_figures
from chargewatch.supervision.verifications.entering import (
    Place,
    enter_verification,
    withdraw_verification,
)
from chargewatch.supervision.verifications.judge import NewPoint, NewVerification

ZONE = ZoneInfo("Asia/Shanghai")
WU = Actor(name="wu", role="inspector")
DAY = date(2026, 11, 1)


def at(day: int, hour: int = 2) -> datetime:
    """Return an hour of a day of November 2026 on the office's clock."""
    return datetime(2026, 11, day, hour, tzinfo=ZONE)


async def seed(database: Database, tiers: dict[int, dict[int, str]]) -> None:
    """Keep one finished run a night, 2 o'clock, with the tier of each connector."""
    async with database.begin() as connection:
        await connection.execute(insert(tables.operator).values(operator_id="O", name="O"))
        await connection.execute(
            insert(tables.station).values(station_id="S", operator_id="O", name="S")
        )
        for number in sorted({n for night in tiers.values() for n in night}):
            await connection.execute(
                insert(tables.connector).values(
                    connector=f"C{number}", operator_id="O", station_id="S", registered=True,
                    current="AC", accuracy_class="2", max_current_a=32,
                )
            )  # fmt: skip
        for night, of in tiers.items():
            run = await connection.execute(
                insert(tables.risk_run)
                .values(
                    state="finished", mode="full", as_of=at(night), started_at=at(night),
                    version="1", configuration={},
                )
                .returning(tables.risk_run.c.run_id)
            )  # fmt: skip
            run_id = run.scalar_one()
            for number, tier in of.items():
                changed = {"alarm": True, "changed_at": at(1).isoformat()}
                await connection.execute(
                    insert(tables.assessment).values(
                        _assessment(run_id, number, tier) | {"drift": changed}
                    )
                )


def _assessment(run_id: int, connector_id: int, tier: str) -> dict[str, Any]:
    real = dict.fromkeys(
        (
            "relative_error", "standard_uncertainty", "common_uncertainty", "mpe",
            "p_nonconforming", "priority_money",
        ),
        0.0,
    )  # fmt: skip
    counts = dict.fromkeys(("n_intervals", "n_sessions", "n_vehicles", "n_direct"), 0)
    words = {"verdict": "undecided", "tier": tier, "method": "none", "budget": []}
    return real | counts | words | {"run_id": run_id, "connector_id": connector_id}


async def verified(database: Database, number: int, day: int, result: str, **values: Any) -> int:
    async with database.begin() as connection:
        found = await connection.execute(
            insert(tables.verification)
            .values(
                {
                    "connector_id": number, "verified_on": DAY.replace(day=day), "result": result,
                    "certificate": f"{number}-{day}",
                }
                | values
            )
            .returning(tables.verification.c.verification_id)
        )  # fmt: skip
        return int(found.scalar_one())


async def counted(database: Database, **one: Any) -> list[tuple[Any, ...]]:
    async with database.begin() as connection:
        await count_outcomes(connection, zone=ZONE, **one)
    async with database.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT connector_id, flagged_at, ended_at, tier, outcome, verification_id, "
                "delay_days FROM flag_outcome ORDER BY connector_id, flagged_at"
            )
        )
        return [tuple(row) for row in found]


async def test_flags_and_their_outcomes(database_url: str) -> None:
    nights = {
        3: {1: "red", 2: "green", 3: "orange", 4: "red", 5: "green"},
        4: {1: "orange", 2: "orange", 3: "green", 4: "red", 5: "green"},
        5: {1: "green", 2: "red", 3: "green", 4: "red", 5: "green"},
        6: {1: "red", 2: "red", 3: "green", 4: "red", 5: "green"},
    }
    async with open_database(database_url) as database:
        await seed(database, nights)
        # 1: flagged twice; the first flag is decided before the second begins. 2: failed.
        passed = await verified(database, 1, 5, "pass")
        failed = await verified(database, 2, 9, "fail")
        # 3: a closed flag; what came before it, decided nothing or was withdrawn doesn't count.
        await verified(database, 3, 2, "fail")
        await verified(database, 3, 4, "undecided")
        await verified(database, 3, 5, "fail", withdrawn_at=at(6))
        late = await verified(database, 3, 7, "fail")
        # 4: the meter was replaced before it was verified.
        async with database.begin() as connection:
            await connection.execute(
                insert(tables.instrument_event).values(
                    operator_id="O", station_id="S", connector_id=4, meter_id=0,
                    kind="meter_replaced", at=at(7), received_at=at(7),
                )
            )  # fmt: skip
        await verified(database, 4, 9, "pass")
        # 5: never flagged, and failed.
        await verified(database, 5, 6, "fail")
        found = await counted(database)
        assert found == [
            (1, at(3), at(5), "red", "miss", passed, pytest.approx(2.0)),
            (1, at(6), None, "red", "undecided", None, pytest.approx(5.0)),
            (2, at(4), None, "red", "hit", failed, pytest.approx(3.0)),
            (3, at(3), at(4), "orange", "hit", late, pytest.approx(2.0)),
            (4, at(3), None, "red", "undecided", None, pytest.approx(2.0)),
        ]
        assert await counted(database) == found
        for number in range(1, 6):
            assert await counted(database, connector_id=number) == found
        async with database.connect() as connection:
            figures = await read_figures(connection, scope=None, zone=ZONE, now=at(20))
            nobodys = await read_figures(connection, scope="P", zone=ZONE, now=at(20))
            page = await rows.newest(
                connection, scope=None, outcome="", before=None, before_id=None, limit=3
            )
            rest = await rows.newest(
                connection, scope="O", outcome="", limit=3,
                before=page[-1]["flagged_at"], before_id=page[-1]["connector_id"],
            )  # fmt: skip
    assert figures.flags == {"hit": 2, "miss": 1, "undecided": 2}
    precision = {tier: (share.hits, share.of) for tier, share in figures.precision.items()}
    assert precision == {"all": (2, 3), "red": (1, 2), "orange": (1, 1)}
    # Found nonconforming: 2 while flagged; 3 after its flag had ended; 5 without any.
    assert (figures.recall.hits, figures.recall.of) == (1, 3)
    assert figures.uniform_recall.of == 0
    assert (figures.detection.over, figures.detection.waiting) == (2, 2)
    assert (figures.verification.over, figures.verification.waiting) == (3, 2)
    assert nobodys.flags == {"hit": 0, "miss": 0, "undecided": 0}
    assert [row["connector"] for row in [*page, *rest]] == ["C1", "C2", "C4", "C3", "C1"]


async def test_a_verification_does_not_confirm_the_flag_it_raised(database_url: str) -> None:
    async with open_database(database_url) as database:
        await seed(database, {3: {1: "green", 2: "green"}, 4: {1: "red", 2: "red"}})
        # Entered at 9 o'clock on the day of the flag of 2 o'clock; the other one the day before.
        await verified(database, 1, 4, "fail", entered_at=at(4, 9))
        await verified(database, 2, 3, "fail", entered_at=at(3, 9))
        outcome = {row[0]: row[4] for row in await counted(database)}
    assert outcome == {1: "hit", 2: "undecided"}


def _told(error: float, uncertainty: float, on: date) -> NewVerification:
    point = NewPoint(
        load="100 %", power_w=6_900.0, relative_error=error, expanded_uncertainty=uncertainty
    )
    return NewVerification(verified_on=on, kind="subsequent", points=(point,), certificate="N")


async def test_a_verification_and_a_new_meter_act_in_the_next_run(
    database_url: str, tmp_path: Path
) -> None:
    city = make_test_city(FaultSpec(fault="gain", count=1, parameters={"magnitude_mpe": 3.0}))
    settings, rules = load_settings({}), rule_set("CN-2022")
    now = TO - timedelta(hours=12)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        await run_assessment(database, settings, as_of=TO - timedelta(days=1), days=30)

        async def assessed(name: str) -> dict[str, Any]:
            await run_assessment(database, settings, as_of=TO, days=30)
            [row] = [row for row in await assessment_rows(database) if row["connector"] == name]
            return row

        [name] = [
            row["connector"] for row in await assessment_rows(database) if row["tier"] == "red"
        ]
        place = Place(connector=name)
        before = await assessed(name)
        flags = await _flags(database)
        assert [(flag[0], flag[2]) for flag in flags] == [(name, "undecided")]
        async with database.begin() as connection:
            number = await enter_verification(
                connection, WU, place, _told(0.06, 0.001, now.astimezone(ZONE).date()),
                rules=rules, now=now, zone=ZONE,
            )  # fmt: skip
        assert [flag[2] for flag in await _flags(database)] == ["hit"]
        anchored = await assessed(name)
        assert anchored["standard_uncertainty"] < 0.8 * before["standard_uncertainty"]
        assert abs(anchored["relative_error"] - 0.06) < abs(before["relative_error"] - 0.06)
        # A meter that was replaced after it: the verification is of another meter.
        async with database.begin() as connection:
            event = await declare_change(
                connection, Actor(name="op", role="operator"), place,
                NewChange(kind="meter_replaced", at=TO - timedelta(hours=1)),
                scope=before["operator_id"], now=TO,
            )  # fmt: skip
        replaced = await assessed(name)
        assert replaced["relative_error"] is None
        async with database.begin() as connection:
            await withdraw_change(
                connection, WU, event, scope=None, why="it was the next pile", now=TO
            )
        assert (await assessed(name))["relative_error"] == anchored["relative_error"]
        async with database.begin() as connection:
            await withdraw_verification(
                connection, WU, number, why="the wrong pile", now=TO, zone=ZONE
            )
        assert (await assessed(name))["relative_error"] == before["relative_error"]
        assert [flag[2] for flag in await _flags(database)] == ["undecided"]


async def _flags(database: Database) -> list[tuple[Any, ...]]:
    async with database.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT connector, flagged_at, outcome FROM flag_outcome "
                "JOIN connector USING (connector_id) ORDER BY connector"
            )
        )
        return [tuple(row) for row in found]

"""Results of inspections: they rest on verifications, end a draw, and tell where claims stand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from chargewatch.errors import NotFoundError
from chargewatch.storage import tables
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.office import draws as draw_rows
from chargewatch.storage.office import inspections as inspection_rows
from chargewatch.supervision import audit
from chargewatch.supervision.inspections import draws, results
from chargewatch.supervision.inspections.draw_state import DrawStateError
from chargewatch.supervision.inspections.results import InspectionError
from inspection_steps import (
    ZHAO,
    add_inspectors,
    audited,
    clock_after,
    drawn_city,
    verify_inspection,
)
from web_city import seed_city

NOW = clock_after(0)


@pytest.fixture
async def city(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        await seed_city(database)
        yield database


async def test_results_end_the_draw_which_is_opened_then(city: Database) -> None:
    await drawn_city(city)
    async with city.connect() as connection:
        rows = await inspection_rows.of_draw(connection, "2026-12", limit=100)
    with pytest.raises(DrawStateError, match="is drawn"):
        await draws.open_draw(city, "2026-12", actor=ZHAO, clock=clock_after(1))
    async with city.begin() as connection:
        await results.cancel_inspection(
            connection, ZHAO, rows[0]["inspection_id"], why="the pile is gone", now=NOW.now
        )
    for row in rows[1:]:
        await verify_inspection(city, row, "fail" if row["rank"] == 5 else "pass")
    for row, match in ((rows[0], "cancelled already"), (rows[1], "done already")):
        with pytest.raises(InspectionError, match=match):
            await verify_inspection(city, row, "pass")
    async with city.connect() as connection:
        draw = await draw_rows.draw(connection, "2026-12")
        sums = await inspection_rows.by_operator(connection, "2026-12")
    assert draw is not None
    assert draw["state"] == "done"
    assert sum(row["passed"] for row in sums) == 10
    assert (sum(r["failed"] for r in sums), sum(r["cancelled"] for r in sums)) == (1, 1)
    # More may be taken of a draw that is done, as long as nobody could see who comes next.
    await draws.take_more(city, "2026-12", size=13, actor=ZHAO, clock=clock_after(2))
    async with city.connect() as connection:
        (last,) = await inspection_rows.of_draw(connection, "2026-12", limit=5, after=12)
    await verify_inspection(city, last, "pass")
    await draws.open_draw(city, "2026-12", actor=ZHAO, clock=clock_after(3))
    with pytest.raises(DrawStateError, match="public already"):
        await draws.open_draw(city, "2026-12", actor=ZHAO, clock=clock_after(4))
    with pytest.raises(DrawStateError, match="could be foreseen"):
        await draws.take_more(city, "2026-12", size=14, actor=ZHAO, clock=clock_after(4))
    assert (await audited(city, f"inspection:{rows[0]['inspection_id']}")) == [
        "inspection_cancelled"
    ]
    assert (await audit.verify_database(city)).holds


async def test_a_result_must_be_of_the_same_pile_and_say_the_same(city: Database) -> None:
    await drawn_city(city)
    async with city.connect() as connection:
        first, second = await inspection_rows.of_draw(connection, "2026-12", limit=2)
    await verify_inspection(city, first, "pass")
    async with city.connect() as connection:
        done = await inspection_rows.inspection_of(connection, first["inspection_id"])
    assert done is not None
    for inspection_id, verification_id, result, error in (
        (second["inspection_id"], done["verification_id"], "pass", InspectionError),
        (second["inspection_id"], 10**9, "pass", NotFoundError),
        (10**9, done["verification_id"], "pass", NotFoundError),
    ):
        with pytest.raises(error):
            async with city.begin() as connection:
                await results.record_result(
                    connection, ZHAO, inspection_id, verification_id, result, datetime.now(UTC)
                )
    with pytest.raises(InspectionError, match="not fail"):
        async with city.begin() as connection:
            await connection.execute(
                update(tables.inspection)
                .where(tables.inspection.c.inspection_id == second["inspection_id"])
                .values(connector=first["connector"], station_id=first["station_id"],
                        operator_id=first["operator_id"])
            )  # fmt: skip
            await results.record_result(
                connection, ZHAO, second["inspection_id"], done["verification_id"], "fail",
                datetime.now(UTC),
            )  # fmt: skip


async def test_the_stand_counts_the_uniform_part_in_the_order_of_its_tickets(
    city: Database,
) -> None:
    await drawn_city(city, uniform="1", size=100)
    async with city.connect() as connection:
        rows = await inspection_rows.of_draw(connection, "2026-12", limit=100)
        draw = await draw_rows.draw(connection, "2026-12")
    assert draw is not None
    # The second of the order stays open: nothing behind it counts.
    for row in [rows[0], *rows[2:40]]:
        await verify_inspection(city, row, "pass")
    async with city.connect() as connection:
        part = await inspection_rows.uniform_part(connection, "2026-12")
    whole, *by_operator = results.stands(part, draw["lots"])
    assert (whole.stand.inspected, whole.stand.outcome) == (1, "open")
    assert [one.operator_id for one in by_operator] == ["OP1", "OP2"]
    await verify_inspection(city, rows[1], "fail")
    for row in rows[40:]:
        await verify_inspection(city, row, "pass")
    async with city.connect() as connection:
        part = await inspection_rows.uniform_part(connection, "2026-12")
    whole, *by_operator = results.stands(part, draw["lots"])
    assert (whole.stand.inspected, whole.stand.nonconforming) == (100, 1)
    assert whole.stand.outcome == "confirmed"
    assert sum(one.stand.inspected for one in by_operator) == 100
    assert sum(one.lot for one in by_operator) == 120


async def test_an_inspection_is_planned_for_a_case(city: Database) -> None:
    await add_inspectors(city)
    place = {"connector": "TJ0002-01-1", "station_id": "TJ0002", "operator_id": "OP1"}

    async def plan(*inspectors: str) -> int:
        async with city.begin() as connection:
            return await results.plan_inspection(
                connection, ZHAO, case_id=7, inspectors=inspectors, due_on=NOW.today, now=NOW.now,
                **place,
            )  # fmt: skip

    number = await plan("sun", "陈芳")
    async with city.connect() as connection:
        row = await inspection_rows.inspection_of(connection, number)
    assert row is not None
    assert (row["case_id"], row["part"], row["crew"]) == (7, "case", ["sun", "陈芳"])
    for crew, named in ((("li",), "recused"), (("nobody",), "no active"), ((), "at least one")):
        with pytest.raises(InspectionError, match=named):
            await plan(*crew)
    await verify_inspection(city, row, "fail")

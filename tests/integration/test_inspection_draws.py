"""Draws from the registry: every step once and in order, two people at once, verified offline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, text

from chargewatch.draws.frame import DrawError, list_hash, read_frame
from chargewatch.errors import NotFoundError
from chargewatch.storage import tables
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.office import draws as draw_rows
from chargewatch.storage.office import inspections as inspection_rows
from chargewatch.supervision import audit
from chargewatch.supervision.draw_bundle import bundle_text, verify_bundle
from chargewatch.supervision.inspections import draws
from chargewatch.supervision.inspections.draw_state import DrawStateError, is_open
from inspection_steps import (
    QIAN,
    ZHAO,
    add_inspectors,
    audited,
    clock_after,
    drawn_city,
    wanted_draw,
)
from running import RunCommand
from web_city import seed_city

NOW = clock_after(0)


@pytest.fixture
async def city(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        await seed_city(database)
        yield database


async def frozen_list(database: Database, draw_id: str = "2026-12") -> str:
    async with database.connect() as connection:
        return await draw_rows.list_text(connection, draw_id)


async def test_the_list_has_every_registered_pile_with_its_arithmetic(city: Database) -> None:
    await add_inspectors(city)
    async with city.begin() as connection:
        # One verified last week, one never, one with two complaints, one that nobody registered.
        await connection.execute(text("DELETE FROM verification"))
        for connector_id, back in ((1, 7), (2, 400), (4, 1200)):
            await connection.execute(
                insert(tables.verification).values(
                    connector_id=connector_id, verified_on=NOW.today - timedelta(days=back),
                    result="pass",
                )
            )  # fmt: skip
        for k in range(2):
            await connection.execute(
                insert(tables.complaint).values(
                    reference=f"R{k}", received_at=NOW.now, connector="TJ0001-02-1",
                    operator_id="OP2", kind="energy", text="-", state="accepted",
                    accept_by=NOW.today, language="en", clocks="x",
                )
            )  # fmt: skip
        await connection.execute(delete(tables.credit_grade))
        await connection.execute(
            insert(tables.credit_grade).values(
                operator_id="OP2", month=date(2026, 10, 1), revision=1, grade="D", arithmetic={},
                rule_version="1", made_at=NOW.now, made_by="test",
            )
        )  # fmt: skip
        await connection.execute(
            insert(tables.connector).values(
                connector="stranger", operator_id="OP2", station_id="TJ0001", registered=False
            )
        )
    made = await draws.freeze(city, wanted_draw(lately_days=90), actor=ZHAO, clock=NOW)
    listed = await frozen_list(city)
    assert made["list_sha256"] == list_hash(listed)
    assert made["excluded"] == {"not_registered": 1, "verified_lately": 1}
    frame = read_frame(listed)
    assert len(frame.piles) == made["piles"] == 119
    assert sum(made["lots"].values()) == 119
    assert {one.name: sorted(one.recused) for one in frame.inspectors} == {
        "li": ["OP1"], "wang%20wei": [], "陈芳": [], "sun": [],
    }  # fmt: skip
    by_name = {one.name: one for one in frame.piles}
    assert "TJ0001-01-1" not in by_name
    second = by_name["TJ0001-02-1"]
    day = (NOW.today - timedelta(days=400)).isoformat()
    assert second.why == (
        f"tier orange: 4 x credit D: 3 x verified {day}: 1.25 x complaints 2: 2 = 30"
    )
    assert second.weight == 30
    assert by_name["TJ0001-04-1"].why.endswith(": 2 = 12")
    assert by_name["TJ0002-01-1"].why == "tier green: 1 x credit none: 1 x never verified: 3 = 3"
    assert await audited(city, "draw:2026-12") == ["draw_frozen"]


async def test_a_draw_without_weights_tells_nothing_of_a_pile(city: Database) -> None:
    await add_inspectors(city)
    made = await draws.freeze(city, wanted_draw(uniform=Decimal(1)), actor=ZHAO, clock=NOW)
    frame = read_frame(await frozen_list(city))
    assert made["weights_rule"] == "all alike"
    assert {(one.weight, one.why) for one in frame.piles} == {(Decimal(1), "")}


async def test_a_lot_is_listed_alone_with_its_plan(city: Database) -> None:
    await add_inspectors(city)
    made = await draws.freeze(city, wanted_draw(lot={"operator_id": "OP2"}), actor=ZHAO, clock=NOW)
    assert set(made["lots"]) == {"OP2"}
    assert made["plan"]["size"] >= 1
    with pytest.raises(DrawError, match="draw lots"):
        await draws.freeze(
            city, wanted_draw(draw_id="2", lot={"model": "none such"}), actor=ZHAO, clock=NOW
        )


async def test_what_cannot_be_drawn_is_refused_before_anything_is_frozen(city: Database) -> None:
    with pytest.raises(DrawError, match="only 0 may inspect"):
        await draws.freeze(city, wanted_draw(), actor=ZHAO, clock=NOW)
    await add_inspectors(city, "li", "wang")
    with pytest.raises(DrawError, match="piles of OP1 need 2 inspectors, and only 1"):
        await draws.freeze(city, wanted_draw(), actor=ZHAO, clock=NOW)
    for changed, named in (
        ({"size": 0}, "can't be drawn"), ({"size": 121}, "1 to 120"), ({"crew": 0}, "at least one"),
        ({"draw_id": "route"}, "begin with a digit"), ({"draw_id": "1/2"}, "begin with a digit"),
        ({"due_days": 0}, "due within"), ({"uniform": Decimal("1.5")}, "uniform share"),
    ):  # fmt: skip
        with pytest.raises(DrawError, match=named):
            await draws.freeze(city, wanted_draw(**{"crew": 1} | changed), actor=ZHAO, clock=NOW)
    async with city.connect() as connection:
        assert await draw_rows.draws(connection, limit=10) == []


async def test_a_draw_goes_its_steps_once_and_is_verified_by_a_stranger(
    city: Database, database_url: str, tmp_path: Path, run_command: RunCommand
) -> None:
    bundle = await drawn_city(city)
    assert [one.holds for one in verify_bundle(bundle)] == [True] * 5
    env = {"CHARGEWATCH_DATABASE_URL": database_url}
    out = tmp_path / "draw.json"
    done = run_command("draw", "export", "2026-12", "--out", str(out), env=env)
    assert done.returncode == 0, done.stderr
    assert out.read_text() == bundle_text(bundle)
    seen = run_command("draw", "verify", str(out), "--published-hash", bundle.list_sha256)
    assert seen.returncode == 0, seen.stdout
    assert "the draw holds" in seen.stdout
    async with city.connect() as connection:
        planned = await inspection_rows.of_draw(connection, "2026-12", limit=100)
        draw = await draw_rows.draw(connection, "2026-12")
    assert draw is not None
    assert draw["state"] == "drawn"
    assert [(row["rank"], row["part"]) for row in planned] == [
        (one.rank, one.part) for one in bundle.drawn
    ]
    assert all(len(row["crew"]) == 2 and row["inspector"] == row["crew"][0] for row in planned)
    assert not any("%" in name for row in planned for name in row["crew"])
    assert all(row["due_on"] == NOW.today + timedelta(days=30) for row in planned)
    assert not is_open(draw, NOW.today)
    assert is_open(draw, NOW.today + timedelta(days=58))
    assert await audited(city, "draw:2026-12") == [
        "draw_frozen", "draw_published", "draw_thrown", "draw_thrown", "draw_drawn",
    ]  # fmt: skip
    async with city.connect() as connection:
        trail = (await connection.execute(text("SELECT content FROM audit_entry"))).scalars().all()
    told = [row for row in trail if "draw_thrown" in row]
    assert not any("3141592653" in row or "2718281828" in row for row in told)
    assert (await audit.verify_database(city)).holds


async def test_steps_cannot_be_skipped_or_repeated(city: Database) -> None:
    await add_inspectors(city)
    throw = {"witness": "wu", "digits": "31 41 59 26 53"}

    async def refused(match: str, step: object, error: type[Exception] = DrawStateError) -> None:
        with pytest.raises(error, match=match):
            await step  # type: ignore[misc]

    def publish(**more: str) -> object:
        return draws.publish(city, "2026-12", actor=ZHAO, clock=clock_after(1), **more)

    def enter(who: audit.Actor = ZHAO, **changed: str) -> object:
        return draws.throw(city, "2026-12", actor=who, clock=clock_after(2), **throw | changed)

    def run(beacon: str = "") -> object:
        return draws.run(city, "2026-12", beacon=beacon, actor=ZHAO, clock=clock_after(3))

    await refused("no draw", publish(), NotFoundError)
    await draws.freeze(city, wanted_draw(), actor=ZHAO, clock=NOW)
    await refused("there already", draws.freeze(city, wanted_draw(), actor=ZHAO, clock=NOW))
    await refused("is frozen", enter())
    await refused("is frozen", run())
    await publish(beacon_source="drand round 5000000")  # type: ignore[misc]
    await refused("is published", publish())
    await refused("is published", draws.recuse(
        city, "2026-12", inspector="sun", operator_id="OP2", why="-", actor=ZHAO, clock=NOW,
    ))  # fmt: skip
    await refused("0 of 2", run())
    await refused("9 dice", enter(digits="314159265"), DrawError)
    await refused("digits only", enter(digits="３１４１５９２６５３"), DrawError)
    await refused("witness's name", enter(witness=" "), DrawError)
    await enter()  # type: ignore[misc]
    await refused("zhao has entered a throw already", enter(witness="he"))
    await refused("WU has thrown already", enter(QIAN, witness="WU"), DrawError)
    await refused("can't be withdrawn", draws.withdraw(
        city, "2026-12", why="oh", actor=ZHAO, clock=clock_after(2),
    ))  # fmt: skip
    await enter(QIAN, witness="he")  # type: ignore[misc]
    await refused("both witnesses", enter(audit.Actor(name="sun"), witness="third"))
    await refused("give the value of drand round 5000000", run(), DrawError)
    bundle = await run("b65f0d")  # type: ignore[misc]
    assert bundle.seed == "31415926533141592653|b65f0d"
    assert bundle.beacon_source == "drand round 5000000"
    await refused("is drawn", run())
    await refused("is drawn", draws.open_draw(city, "2026-12", actor=ZHAO, clock=NOW))


async def test_a_beacon_that_nobody_announced_is_refused(city: Database) -> None:
    await add_inspectors(city)
    await draws.freeze(city, wanted_draw(), actor=ZHAO, clock=NOW)
    await draws.publish(city, "2026-12", actor=ZHAO, clock=clock_after(1))
    for who, witness in ((ZHAO, "wu"), (QIAN, "he")):
        await draws.throw(
            city, "2026-12", witness=witness, digits="1234567890", actor=who, clock=clock_after(2)
        )
    with pytest.raises(DrawError, match="no beacon was announced"):
        await draws.run(city, "2026-12", beacon="42", actor=ZHAO, clock=clock_after(3))


async def test_of_two_people_at_once_one_comes_second(city: Database) -> None:
    await add_inspectors(city)

    async def outcomes(*steps: object) -> list[str]:
        found = await asyncio.gather(*steps, return_exceptions=True)  # type: ignore[call-overload]
        return sorted(type(one).__name__ if isinstance(one, Exception) else "done" for one in found)

    one_of_three = ["DrawStateError", "DrawStateError", "done"]
    assert (
        await outcomes(
            *(draws.freeze(city, wanted_draw(), actor=ZHAO, clock=NOW) for _ in range(3))
        )
        == one_of_three
    )
    assert (
        await outcomes(
            *(draws.publish(city, "2026-12", actor=ZHAO, clock=clock_after(1)) for _ in range(3))
        )
        == one_of_three
    )
    assert await outcomes(
        *(
            draws.throw(
                city, "2026-12", witness=f"w{k}", digits="1234567890",
                actor=audit.Actor(name=f"u{k}"), clock=clock_after(2),
            )
            for k in range(3)
        )
    ) == ["DrawStateError", "done", "done"]  # fmt: skip
    assert (
        await outcomes(
            *(draws.run(city, "2026-12", actor=ZHAO, clock=clock_after(3)) for _ in range(3))
        )
        == one_of_three
    )
    async with city.connect() as connection:
        assert len(await inspection_rows.of_draw(connection, "2026-12", limit=100)) == 12
    assert len(await audited(city, "draw:2026-12")) == 5


async def test_a_recusal_before_publication_makes_the_list_anew(city: Database) -> None:
    await add_inspectors(city)
    made = await draws.freeze(city, wanted_draw(size=60), actor=ZHAO, clock=NOW)
    sha256 = await draws.recuse(
        city, "2026-12", inspector="wang wei", operator_id="OP2", why="her brother works there",
        actor=ZHAO, clock=clock_after(1),
    )  # fmt: skip
    assert sha256 != made["list_sha256"]
    assert sha256 == list_hash(await frozen_list(city))
    for inspector, operator, error, named in (
        ("wang wei", "OP2", DrawStateError, "already"), ("li", "OP1", DrawStateError, "already"),
        ("nobody", "OP2", NotFoundError, "no inspector"), ("sun", "OP9", DrawError, "no pile"),
        ("陈芳", "OP1", DrawError, "only 2|need 2"),
    ):  # fmt: skip
        if inspector == "陈芳":
            await draws.recuse(
                city, "2026-12", inspector="sun", operator_id="OP1", why="-", actor=ZHAO,
                clock=clock_after(2),
            )  # fmt: skip
        with pytest.raises(error, match=named):
            await draws.recuse(
                city, "2026-12", inspector=inspector, operator_id=operator, why="-", actor=ZHAO,
                clock=clock_after(2),
            )  # fmt: skip
    await draws.publish(city, "2026-12", actor=ZHAO, clock=clock_after(3))
    for who, witness in ((ZHAO, "wu"), (QIAN, "he")):
        await draws.throw(
            city, "2026-12", witness=witness, digits="1234567890", actor=who, clock=clock_after(4)
        )
    bundle = await draws.run(city, "2026-12", actor=ZHAO, clock=clock_after(5))
    crews = [one.inspectors for one in bundle.drawn if one.operator == "OP2"]
    assert crews
    assert not any("wang%20wei" in crew for crew in crews)


async def test_more_holds_what_was_drawn_and_moves_it_into_the_uniform_part(
    city: Database,
) -> None:
    small = await drawn_city(city)
    large = await draws.take_more(city, "2026-12", size=60, actor=ZHAO, clock=clock_after(1))
    assert [(o.pile, o.inspectors) for o in large.drawn[:12]] == [
        (o.pile, o.inspectors) for o in small.drawn
    ]
    assert all(one.holds for one in verify_bundle(large))
    async with city.connect() as connection:
        rows = await inspection_rows.of_draw(connection, "2026-12", limit=100)
    assert [(r["rank"], r["connector"], r["part"], r["ticket"]) for r in rows] == [
        (o.rank, o.pile, o.part, o.ticket) for o in large.drawn
    ]
    for size, named in ((60, "take more than"), (121, "at most 120")):
        with pytest.raises(DrawError, match=named):
            await draws.take_more(city, "2026-12", size=size, actor=ZHAO, clock=clock_after(2))
    with pytest.raises(DrawStateError, match="could be foreseen"):
        await draws.take_more(city, "2026-12", size=70, actor=ZHAO, clock=clock_after(60 * 24 * 60))


async def test_a_withdrawn_draw_frees_its_piles_and_says_why(city: Database) -> None:
    await add_inspectors(city)
    await draws.freeze(city, wanted_draw(), actor=ZHAO, clock=NOW)
    await draws.publish(city, "2026-12", actor=ZHAO, clock=clock_after(1))
    await draws.withdraw(
        city, "2026-12", why="a station was missing", actor=ZHAO, clock=clock_after(2)
    )
    with pytest.raises(DrawStateError, match="is withdrawn"):
        await draws.throw(
            city, "2026-12", witness="wu", digits="1234567890", actor=ZHAO, clock=clock_after(3)
        )
    assert (await audited(city, "draw:2026-12"))[-1] == "draw_withdrawn"


async def test_piles_under_inspection_are_left_out_of_the_next_list(city: Database) -> None:
    await drawn_city(city)
    made = await draws.freeze(city, wanted_draw(draw_id="2027-01"), actor=ZHAO, clock=NOW)
    assert made["excluded"]["open_inspection"] == 12


async def test_the_commands_walk_through_a_draw(
    city: Database, database_url: str, tmp_path: Path, run_command: RunCommand
) -> None:
    await add_inspectors(city)
    env = {"CHARGEWATCH_DATABASE_URL": database_url}

    def draw(*arguments: str) -> str:
        done = run_command("draw", *arguments, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    frozen = json.loads(
        draw(
            "freeze", "2026-12", "--size", "10", "--crew", "1", "--not-verified-days", "0", "--json"
        )
    )
    draw("recuse", "2026-12", "--inspector", "sun", "--operator", "OP2", "--why", "kin")
    published = draw("publish", "2026-12").strip()
    assert published != frozen["list_sha256"]
    draw("throw", "2026-12", "--witness", "wu", "--digits", "3141592653")
    second = run_command(
        "draw", "throw", "2026-12", "--witness", "he", "--digits", "2718281828", env=env
    )
    assert second.returncode == 1
    assert "has entered a throw already" in second.stderr
    await draws.throw(
        city, "2026-12", witness="he", digits="2718281828", actor=QIAN, clock=clock_after(0)
    )
    assert len(draw("run", "2026-12").splitlines()) == 10
    assert len(draw("more", "2026-12", "--size", "11").splitlines()) == 11
    told = json.loads(draw("list", "--json"))["draws"]
    assert [(one["draw_id"], one["state"], one["planned"]) for one in told] == [
        ("2026-12", "drawn", 11)
    ]
    out = tmp_path / "list.txt"
    draw("export", "2026-12", "--list", "--out", str(out))
    assert run_command("draw", "hash", str(out)).stdout.split()[0] == published
    lots = json.loads(draw("lots", "--lot", "operator_id=OP2", "--json"))
    assert {one["operator_id"] for one in lots["lots"]} == {"OP2"}
    assert lots["plan"]["instruments"] == 40
    assert run_command("draw", "lots", "--lot", "colour=red", env=env).returncode == 2
    assert run_command("draw", "export", "9", "--out", str(out), env=env).returncode == 1

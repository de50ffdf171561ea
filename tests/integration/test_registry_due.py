"""What is due, by hand-made calendars; coverage against a plain statement; the commands."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from registry_case import fetch
from sqlalchemy import text

from chargewatch.domain.districts import districts
from chargewatch.domain.working_days import Calendar, YearOfWork
from chargewatch.supervision.instruments.due import (
    book_by,
    due_rules,
    read_due_rules,
    working_days_back,
)
from chargewatch.web.pages.overview import district_names
from web_client import TOKEN_FIELD, Site, open_site

API = "/api/v1/registry"
TODAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 4, 0, tzinfo=UTC)


def test_fifteen_working_days_before_are_counted_over_spring_festival() -> None:
    # 2026-03-02 is a Monday. Worked before it: 28 (a Saturday), 27, 26, 25 and 24 February; 15 to
    # 23 are free; 14 (a Saturday), 13, 12, 11, 10, 9, 6, 5, 4 and 3: the fifteenth.
    assert book_by(TODAY, due_rules()) == date(2026, 2, 3)
    assert book_by(None, due_rules()) is None
    [rule] = due_rules()
    assert (rule.working_days_before, rule.certainty) == (15, "S2")


def test_a_calendar_and_a_rule_of_ones_own() -> None:
    year = YearOfWork("x", "S1", frozenset({date(2030, 1, 4)}), frozenset({date(2030, 1, 5)}))
    calendar = Calendar({2030: year})
    # The 8th is a Tuesday: 7th, 5th (a worked Saturday), 3rd; the 4th is free.
    assert working_days_back(calendar, date(2030, 1, 8), 3) == date(2030, 1, 3)
    rules = read_due_rules(
        {"rules": [{
            "name": "a", "working_days_before": 1, "calendar": "CN", "valid_from": "2026-01-01",
            "valid_until": "2026-12-31", "what": "w", "source": "s", "certainty": "M",
        }]}
    )  # fmt: skip
    assert book_by(date(2026, 11, 30), rules) == date(2026, 11, 27)
    assert book_by(date(2027, 1, 5), rules) is None


def test_districts_are_those_of_the_map() -> None:
    named = {code: district.name for code, district in districts().items()}
    assert named == dict(district_names())


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        opened.app.state.service.clock = lambda: NOON
        async with opened.database.begin() as connection:
            await connection.execute(text("DELETE FROM verification"))
            for connector, day, until, result in (
                (1, "2023-03-02", "2026-03-01", "pass"),
                (2, "2023-03-03", "2026-03-02", "pass"),
                (3, "2023-05-02", "2026-05-01", "pass"),
                (4, "2023-05-03", "2026-05-02", "pass"),
                (5, "2025-01-01", "2028-01-01", "pass"),
                (5, "2026-02-01", None, "fail"),
                (6, "2025-01-01", None, "pass"),
                (7, "2025-01-01", "2028-01-01", "pass"),
                (7, "2026-02-01", None, "pass"),
                (8, "2024-01-01", None, "fail"),
                (8, "2024-02-01", "2027-02-01", "pass"),
            ):
                await connection.execute(
                    text(
                        "INSERT INTO verification (connector_id, verified_on, valid_until, result) "
                        "VALUES (:connector, :day, :until, :result)"
                    ),
                    {
                        "connector": connector,
                        "day": date.fromisoformat(day),
                        "until": date.fromisoformat(until) if until else None,
                        "result": result,
                    },
                )
        yield opened


async def numbers(site: Site, header: dict[str, str], query: str = "") -> list[int]:
    answer = await site.client.get(f"{API}/due?limit=500{query}", headers=header)
    assert answer.status_code == 200, answer.text
    ids = {
        row["connector"]: row["connector_id"]
        for row in await fetch(
            site.settings.database_url, "SELECT connector, connector_id FROM connector"
        )
    }
    return [ids[row["connector"]] for row in answer.json()["due"]]


async def test_the_list_holds_what_ends_and_what_is_over_the_earliest_first(site: Site) -> None:
    header = await site.token("admin")
    # The fail of the fifth ended its pass; an undated pass of the seventh changes nothing.
    assert await numbers(site, header) == [5, 1, 2, 3]
    assert await numbers(site, header, "&within=61") == [5, 1, 2, 3, 4]
    assert await numbers(site, header, "&within=0") == [5, 1, 2]
    assert await numbers(site, header, "&state=over") == [5, 1]
    assert await numbers(site, header, "&state=failed") == [5]
    assert await numbers(site, header, "&state=due") == [2, 3]
    never = await numbers(site, header, "&state=never")
    assert 6 in never
    assert set(never).isdisjoint({1, 2, 3, 4, 5, 7, 8})
    answer = await site.client.get(f"{API}/due", headers=header)
    by_days = [(row["days_left"], row["book_by"], row["is_late"]) for row in answer.json()["due"]]
    assert by_days[1:3] == [(-1, "2026-02-03", True), (0, "2026-02-03", True)]
    # Fifteen back from Friday, 1 May 2026, itself free: 30 April is the first, 10 April the 15th.
    assert by_days[3] == (60, "2026-04-10", False)


async def test_pages_of_the_list_are_the_whole_list_once(site: Site) -> None:
    header = await site.token("admin")
    for query in ("", "&state=never"):
        whole = (await site.client.get(f"{API}/due?limit=500{query}", headers=header)).json()["due"]
        seen: list[Any] = []
        after = ""
        while True:
            answer = await site.client.get(
                f"{API}/due?limit=2{query}&after={after}", headers=header
            )
            page = answer.json()
            seen += page["due"]
            after = page["next_after"]
            if not after or len(seen) > 12:
                break
        assert seen == whole[: len(seen)]
        assert len(seen) >= min(4, len(whole))


async def test_a_step_is_told_filtered_taken_back_and_ends_with_the_next_verification(
    site: Site,
) -> None:
    header = await site.token("admin")
    name = "TJ0001-03-1"
    ids = await fetch(
        site.settings.database_url, "SELECT connector FROM connector WHERE connector_id = 3"
    )
    name = ids[0]["connector"]
    steps = f"{API}/due/{name}/steps"
    for body, status in (
        ({"step": "booked", "done_on": "2026-03-01", "note": "by telephone"}, 204),
        ({"step": "filed", "done_on": "2026-02-27"}, 204),
        ({"step": "booked", "done_on": "2026-03-03"}, 422),
        ({"step": "booked", "done_on": "1999-01-01"}, 422),
        ({"step": "baked", "done_on": "2026-03-01"}, 422),
    ):
        answer = await site.client.post(steps, headers=header, json=body)
        assert answer.status_code == status, answer.text
    assert await numbers(site, header, "&lacks=booked") == [5, 1, 2]
    assert await numbers(site, header, "&lacks=accepted") == [5, 1, 2, 3]
    due = (await site.client.get(f"{API}/due", headers=header)).json()["due"]
    [row] = [row for row in due if row["connector"] == name]
    assert row["next_step"] == "accepted"
    assert [(s["step"], s["done_on"], s["actor"]) for s in row["steps"]] == [
        ("filed", "2026-02-27", "admin"), ("booked", "2026-03-01", "admin"),
    ]  # fmt: skip
    unsaid = await site.client.post(f"{steps}/filed/take-back", headers=header, json={"why": " "})
    assert unsaid.status_code == 422
    back = {"why": "another pile"}
    assert (
        await site.client.post(f"{steps}/filed/take-back", headers=header, json=back)
    ).status_code == 204
    gone = await site.client.post(f"{steps}/filed/take-back", headers=header, json=back)
    assert gone.status_code == 404
    trail = await site.client.get(f"/api/v1/audit?subject=connector:{name}", headers=header)
    assert [entry["action"] for entry in trail.json()["entries"]] == [
        "due_step_taken_back", "due_step_taken", "due_step_taken",
    ]  # fmt: skip
    # A pass takes it off the list; its steps belong to the verification that ended.
    async with site.database.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO verification (connector_id, verified_on, valid_until, result) "
                "VALUES (3, '2026-03-01', '2026-03-20', 'pass')"
            )
        )
    # It still ends later than the new one says: the latest end of the passes counts.
    assert await numbers(site, header) == [5, 1, 2, 3]
    async with site.database.begin() as connection:
        await connection.execute(
            text(
                "UPDATE verification SET valid_until = '2029-03-01' "
                "WHERE verified_on = '2026-03-01'"
            )
        )
    assert await numbers(site, header) == [5, 1, 2]


async def test_the_page_tells_a_step_and_exports_what_it_shows(site: Site) -> None:
    await site.log_in("admin")
    page = await site.client.get("/registry/due?step_for=TJ0001-02-1")
    token = TOKEN_FIELD.search(page.text)
    assert token is not None
    told = {"form_token": token[1], "step": "booked", "done_on": "2026-03-02", "note": "=x"}
    done = await site.client.post(
        "/registry/due/TJ0001-02-1", data=told | {"next": "/registry/due?within=30"}
    )
    assert (done.status_code, done.headers["location"]) == (303, "/registry/due?within=30")
    wrong = await site.client.post("/registry/due/TJ0001-02-1", data=told | {"done_on": "x"})
    assert wrong.status_code == 422
    away = await site.client.post("/registry/due/TJ0001-02-1", data=told | {"next": "//evil"})
    assert away.headers["location"] == "/"
    exported = await site.client.get("/registry/due.csv")
    rows = list(csv.DictReader(io.StringIO(exported.content.decode("utf-8-sig"))))
    assert len(rows) == 4
    [booked] = [row for row in rows if row["connector"] == "TJ0001-02-1"]
    assert (booked["until"], booked["booked"], booked["is_late"]) == (
        "2026-03-02", "2026-03-02", "False",
    )  # fmt: skip
    site.client.cookies.clear()
    await site.log_in("op2")
    own = await site.client.get("/registry/due.csv?within=1000")
    lines = csv.DictReader(io.StringIO(own.content.decode("utf-8-sig")))
    assert {row["operator_id"] for row in lines} <= {"OP2"}
    assert "=x" not in (await site.client.get("/registry/due")).text


PLAIN = """
SELECT c.connector_id, s.district, c.operator_id,
  (SELECT bool_or(v.result = 'pass' AND v.valid_until >= :on AND NOT EXISTS (
     SELECT FROM verification f WHERE f.connector_id = v.connector_id AND f.result = 'fail'
     AND f.verified_on > v.verified_on AND f.verified_on <= :on))
   FROM verification v WHERE v.connector_id = c.connector_id AND v.verified_on <= :on) AS valid
FROM connector c JOIN station s USING (station_id) WHERE c.registered
"""


@pytest.mark.parametrize("on", ["2026-03-02", "2026-01-15", "2023-03-02", "2026-12-31"])
async def test_coverage_is_that_of_a_plain_count(site: Site, on: str) -> None:
    header = await site.token("admin")
    day = date.fromisoformat(on)
    async with site.database.connect() as connection:
        plain = (await connection.execute(text(PLAIN), {"on": day})).mappings().all()
    for by, column in (("district", "district"), ("operator", "operator_id")):
        answer = await site.client.get(f"{API}/coverage?by={by}&on={on}", headers=header)
        assert answer.status_code == 200, answer.text
        figures = answer.json()
        counted: dict[str, list[int]] = {}
        for row in plain:
            counts = counted.setdefault(row[column] or "", [0, 0])
            counts[0] += 1
            counts[1] += bool(row["valid"])
        assert {r["name"]: [r["instruments"], r["valid"]] for r in figures["rows"]} == counted
        for row in [*figures["rows"], figures["city"]]:
            assert row["instruments"] == row["valid"] + row["expired"] + row["never"]
            assert row["share"] == pytest.approx(row["valid"] / row["instruments"])
        assert figures["city"]["instruments"] == len(plain)


async def test_coverage_is_public_and_an_operator_sees_its_own_on_the_page(site: Site) -> None:
    public = await site.client.get("/api/v1/public/coverage?by=operator")
    assert public.status_code == 200
    assert {row["name"] for row in public.json()["rows"]} == {"OP1", "OP2"}
    assert "public" in public.headers["cache-control"]
    assert (await site.client.get("/api/v1/public/coverage?by=colour")).status_code == 422
    header = await site.token("op2")
    own = (await site.client.get(f"{API}/coverage?by=operator", headers=header)).json()
    assert [row["name"] for row in own["rows"]] == ["OP2"]
    far = await site.client.get(f"{API}/coverage?on=1900-01-01", headers=header)
    assert far.status_code == 422
    await site.log_in("op2")
    page = await site.client.get("/registry/coverage?by=operator")
    assert "OP2" in page.text
    assert "OP1" not in page.text


async def test_the_commands_do_what_the_pages_do(site: Site, run_command: Any) -> None:
    env = {"CHARGEWATCH_DATABASE_URL": site.settings.database_url}

    def run(*words: str) -> Any:
        return run_command("registry", *words, env=env)

    edited = run("edit", "connectors", "TJ0001-01-1", "--set", "model=X 9", "--why", "plate")
    assert edited.returncode == 0, edited.stderr
    assert "-> X 9" in edited.stdout
    shown = json.loads(run("show", "connectors", "TJ0001-01-1", "--history", "--json").stdout)
    assert shown["values"]["model"] == "X 9"
    assert shown["history"][0]["why"] == "plate"
    late = run(
        "edit", "connectors", "TJ0001-01-1", "--set", "model=Y", "--why", "w", "--version", "0"
    )
    assert late.returncode == 1
    assert "changed meanwhile" in late.stderr
    bad = run("edit", "connectors", "TJ0001-01-1", "--set", "rated_power_w=x", "--why", "w")
    assert (bad.returncode, "rated_power_w: is not a number" in bad.stderr) == (1, True)
    made = run(
        "edit", "inspectors", "王检", "--set", "recused_operators=OP1", "--why", "w", "--new"
    )
    assert made.returncode == 0, made.stderr
    assert "recused_operators: OP1" in run("show", "inspectors", "王检").stdout
    told = run("due", "--step", "booked", "--connector", "TJ0001-02-1", "--note", "n")
    assert told.returncode == 0, told.stderr
    rows = json.loads(run("due", "--json", "--days", "1000").stdout)
    assert rows
    assert any("booked" in row["steps"] for row in rows)
    assert run("due", "--step", "booked").returncode == 2
    covered = json.loads(run("coverage", "--by", "operator", "--json").stdout)
    assert {row["name"] for row in covered["rows"]} == {"OP1", "OP2"}
    assert "valid" in run("coverage").stdout
    missing = run("show", "stations", "NOPE")
    assert (missing.returncode, "no row 'NOPE' of stations" in missing.stderr) == (1, True)

"""Cases through the API: opening, the steps of every role, replies and objections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from office_case import GREEN, GREY, OTHERS, RED, TODAY, Office, open_case_site, send_sql

from web_client import Site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_case_site(database_url) as opened:
        yield opened


@pytest.fixture
async def office(site: Site) -> Office:
    return Office(site)


async def test_a_case_of_a_flag_keeps_since_when_it_was_flagged(site: Site, office: Office) -> None:
    told = await office.post(
        "wang", "", {"connector": RED, "origin": "flag", "title": "reads high"}
    )
    case = told["case"]
    assert case["number"].endswith("-000001")
    assert (case["state"], case["operator_id"], case["station_id"]) == ("open", "OP2", "TJ0001")
    assert (case["subject"], case["origin"]) == (f"connector:{RED}", "flag")
    runs = await send_sql(site, "SELECT min(as_of) AS first FROM risk_run WHERE state = 'finished'")
    assert case["flagged_at"] == runs[0]["first"].isoformat()
    # A pile that is in order has no flag; the next number follows without a hole.
    other = (await office.post("wang", "", {"connector": GREEN}))["case"]
    assert (other["flagged_at"], other["origin"]) == (None, "hand")
    assert other["number"].endswith("-000002")


async def test_what_is_open_is_not_opened_again(site: Site, office: Office) -> None:
    number = await office.open()
    again = await office.post("li", "", {"signal_id": 1})
    assert again["already_open"] and again["case"]["number"] == number
    told = await office.get("wang", f"/{number}")
    assert [entry["kind"] for entry in told["entries"]] == ["opened", "named_again"]
    assert told["entries"][1]["detail"] == {"origin": "signal", "origin_key": "1"}
    await office.step("wang", number, "close", outcome="confirmed", why="seen on site")
    assert await office.open() != number


async def test_many_who_open_at_once_open_one(site: Site, office: Office) -> None:
    await site.token("wang")
    numbers = await asyncio.gather(*(office.open(who=who) for who in ("wang", "li", "zhao") * 4))
    assert len(set(numbers)) == 1
    kinds = await send_sql(site, "SELECT kind, count(*) AS n FROM case_entry GROUP BY kind")
    assert {row["kind"]: row["n"] for row in kinds} == {"opened": 1, "named_again": 11}
    # Different things at once: numbers without holes.
    names = [f"TJ0001-{k:02d}-1" for k in range(2, 9)]
    opened = await asyncio.gather(*(office.open(name) for name in names))
    assert sorted(int(number[-6:]) for number in opened) == list(range(2, 9))
    audited = await send_sql(
        site,
        "SELECT action, count(*) AS n FROM audit_entry WHERE subject LIKE 'case:%' GROUP BY action",
    )
    assert {row["action"]: row["n"] for row in audited} == {
        "case_opened": 8, "case_named_again": 11,
    }  # fmt: skip


async def test_two_who_open_again_and_anew_at_once_leave_one_open(
    site: Site, office: Office
) -> None:
    number = await office.open()
    await office.step("wang", number, "close", outcome="inconclusive", why="no access")

    async def again() -> int:
        answer = await site.client.post(
            f"/api/v1/cases/{number}/steps",
            headers=await office.header("admin"),
            json={"step": "reopen", "why": "access is possible now"},
        )
        return int(answer.status_code)

    for _ in range(5):
        status, other = await asyncio.gather(again(), office.open())
        opened = await send_sql(site, "SELECT number FROM office_case WHERE state <> 'closed'")
        assert [row["number"] for row in opened] == [other]
        assert status == (200 if other == number else 409)
        await office.step("wang", other, "close", outcome="inconclusive", why="no access")


async def test_the_way_of_a_case_through_every_state(site: Site, office: Office) -> None:
    number = await office.open(deadline=(TODAY + timedelta(days=30)).isoformat())
    told = await office.step("wang", number, "assign", owner="li", why="close by")
    assert (told["case"]["state"], told["case"]["owner"]) == ("assigned", "li")
    assert (await office.step("li", number, "inspect"))["case"]["state"] == "inspecting"
    told = await office.step("li", number, "ask", why="Was the meter replaced in March?")
    assert told["case"]["state"] == "waiting_for_operator"
    told = await office.post("op2", f"/{number}/reply", {"text": "Yes, on 2 March."})
    assert told["case"]["state"] == "assigned"
    assert (told["case"]["owner"], told["case"]["opened_by"]) == (None, None)
    await office.step("li", number, "inspect")
    await office.step("li", number, "resume", why="back from the site")
    await office.step("li", number, "release", why="on leave from tomorrow")
    await office.step("zhao", number, "assign", owner="zhao")
    told = await office.step("wang", number, "close", outcome="confirmed", why="+3.1 % measured")
    assert (told["case"]["state"], told["case"]["outcome"]) == ("closed", "confirmed")
    told = await office.step("wang", number, "reopen", why="the reference meter was not valid")
    case = told["case"]
    assert (case["state"], case["owner"], case["outcome"], case["closed_at"]) == (
        "assigned", "zhao", None, None,
    )  # fmt: skip
    trail = await send_sql(
        site,
        "SELECT content::jsonb AS content FROM audit_entry WHERE subject = :subject ORDER BY entry",
        subject=f"case:{number}",
    )
    contents = [json.loads(row["content"]) if isinstance(row["content"], str) else row["content"]
                for row in trail]  # fmt: skip
    assert [(one["action"], one["detail"].get("step")) for one in contents] == [
        ("case_opened", None), ("case_step", "assign"), ("case_step", "inspect"),
        ("case_step", "ask"), ("case_entry", None), ("case_step", "inspect"),
        ("case_step", "resume"), ("case_step", "release"), ("case_step", "assign"),
        ("case_closed", None), ("case_reopened", None),
    ]  # fmt: skip
    assert contents[1]["detail"]["before"] == {"state": "open"}
    assert contents[9]["why"] == "+3.1 % measured"
    # What the operator wrote is proved by its hash, and not copied into the trail.
    assert "2 March" not in str(contents[4]) and len(contents[4]["detail"]["text_sha256"]) == 64


ALLOWED = {
    "open": {"assign", "deadline", "close"},
    "assigned": {"assign", "release", "inspect", "ask", "deadline", "close"},
    "inspecting": {"assign", "release", "ask", "resume", "deadline", "close"},
    "waiting_for_operator": {"assign", "inspect", "resume", "deadline", "close"},
    "closed": {"reopen"},
}
BODIES: dict[str, dict[str, Any]] = {
    "assign": {"owner": "zhao", "why": "because"},
    "release": {"why": "because"}, "inspect": {}, "ask": {"why": "why?"},
    "resume": {"why": "because"}, "deadline": {"deadline": "2099-01-01", "why": "because"},
    "close": {"outcome": "confirmed", "why": "because"}, "reopen": {"why": "because"},
}  # fmt: skip
BODIES["deadline"]["deadline"] = (TODAY + timedelta(days=9)).isoformat()
WAYS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "open": [],
    "assigned": [("assign", {"owner": "li"})],
    "inspecting": [("assign", {"owner": "li"}), ("inspect", {})],
    "waiting_for_operator": [("assign", {"owner": "li"}), ("ask", {"why": "why?"})],
    "closed": [("assign", {"owner": "li"}), ("close", BODIES["close"])],
}
OF_OWNER = {"release", "inspect", "ask", "resume"}


@pytest.mark.parametrize("state", ALLOWED)
async def test_every_step_of_every_role_in_a_state(site: Site, office: Office, state: str) -> None:
    number = await office.open()
    for step, body in WAYS[state]:
        await office.step("wang", number, step, **body)
    kept = await send_sql(site, "SELECT * FROM office_case")
    for who in ("admin", "wang", "li", "zhao", "audit", "op2"):
        said = await office.get(who, f"/{number}", status=404 if who == "op2" and state in (
            "open", "assigned", "inspecting") else 200)  # fmt: skip
        possible = set(said.get("possible_steps", ()))
        for step, body in BODIES.items():
            answer = await site.client.post(
                f"/api/v1/cases/{number}/steps",
                headers=await office.header(who),
                json={"step": step, **body},
            )
            manages = who in ("admin", "wang")
            owns = who == "li" and state != "open" and step in OF_OWNER
            takes = who == "zhao" and state == "open" and step == "assign"
            wanted = 403
            if manages or owns or takes:
                wanted = 200 if step in ALLOWED[state] else 409
            # It belongs to li already, who may only give it back.
            if who == "li" and step == "assign":
                wanted = 409 if state == "closed" else 403
            assert answer.status_code == wanted, f"{who} {step} in {state}: {answer.text}"
            if wanted == 200:
                assert step in possible, f"{who} {step} in {state}"
                row = {key: value for key, value in kept[0].items() if key != "case_id"}
                names = ", ".join(f"{key} = :{key}" for key in row)
                await send_sql(site, f"UPDATE office_case SET {names}", **row)


async def test_reasons_and_what_else_a_step_needs(site: Site, office: Office) -> None:
    number = await office.open()
    today = TODAY
    for step, body, words in (
        ("assign", {}, "write a user name"),
        ("assign", {"owner": "nobody"}, "no user 'nobody'"),
        ("assign", {"owner": "op2"}, "owned by inspectors"),
        ("assign", {"owner": "audit"}, "owned by inspectors"),
        ("close", {"why": "because"}, "say the outcome"),
        ("close", {"outcome": "confirmed", "why": " \n "}, "write a reason"),
        ("close", {"outcome": "confirmed", "why": "a\0b"}, "NUL"),
        ("deadline", {"deadline": (today - timedelta(days=3)).isoformat()}, "from today on"),
        ("deadline", {"deadline": "9999-12-31"}, "within ten years"),
    ):
        told = await office.step("wang", number, step, status=422, **body)
        assert words in told["error"]["message"], step
    for body in ({"why": "x" * 1_001}, {"deadline": "tomorrow"}, {"outcome": "guilty"}, {"x": 1}):
        await office.step("wang", number, "close", status=422, **body)
    await office.step("wang", number, "assign", owner="li")
    told = await office.step("wang", number, "assign", status=422, owner="zhao")
    assert "write a reason" in told["error"]["message"]
    first = (today + timedelta(days=7)).isoformat()
    await office.step("wang", number, "deadline", deadline=first)
    later = (today + timedelta(days=14)).isoformat()
    await office.step("wang", number, "deadline", status=422, deadline=later)
    told = await office.step("wang", number, "deadline", deadline=later, why="the site is closed")
    assert told["case"]["deadline"] == later
    told = await office.step("li", number, "ask", status=403, why="when?", deadline=first)
    assert "set deadlines" in told["error"]["message"]
    await office.step("wang", number, "deadline", why="none is needed")
    assert (await office.get("wang", f"/{number}"))["case"]["deadline"] is None


async def test_no_flag_closes_for_lack_of_data(site: Site, office: Office) -> None:
    async def close(number: str, status: int, outcome: str = "not_confirmed") -> str:
        told = await office.step("wang", number, "close", status, outcome=outcome, why="seen it")
        return str(told.get("error", {}).get("message", ""))

    grey = await office.open(GREY)
    assert "it is grey" in await close(grey, 409)
    assert "inconclusive" in await close(grey, 409)
    # An old verification clears nobody; one since then does.
    insert = (
        "INSERT INTO verification (connector_id, verified_on, valid_until, result, certificate) "
        "SELECT connector_id, :day, :day, 'pass', :name FROM connector WHERE connector = :connector"
    )
    old, new = TODAY - timedelta(days=400), TODAY
    await send_sql(site, insert, day=old, name="V-old", connector=GREY)
    assert "it is grey" in await close(grey, 409)
    await send_sql(site, insert, day=new, name="V-new", connector=GREY)
    assert await close(grey, 200) == ""
    # A pile that was silenced while its case was open, and never verified.
    red = await office.open("TJ0001-10-1")
    await send_sql(
        site,
        "INSERT INTO signal (code, severity, subject, connector, station_id, operator_id, "
        'first_at, last_at, count, value, "limit", detail, evidence, rule_version, opened_run, '
        "last_run) SELECT 'silence', 'mild', 'station:TJ0001', NULL, 'TJ0001', 'OP2', now(), "
        "now(), 1, 1, 1, '', '[]', 1, max(run_id), max(run_id) FROM risk_run "
        "WHERE state = 'finished'",
    )
    assert "nothing is heard" in await close(red, 409)
    assert await close(red, 200, "inconclusive") == ""
    station = await office.post("wang", "", {"station_id": "TJ0001", "operator_id": "OP2"})
    assert "nothing is heard" in await close(station["case"]["number"], 409)
    # Before the first run nothing is known of anybody.
    other = await office.open(OTHERS)
    await send_sql(site, "UPDATE risk_run SET state = 'failed'")
    assert "no risk run" in await close(other, 409)


async def test_an_operator_sees_its_own_cases_once_it_is_told(site: Site, office: Office) -> None:
    own, foreign = await office.open(), await office.open(OTHERS)
    for who in ("op1", "op2"):
        for number in (own, foreign, "2026-999999", "x", "../x"):
            await office.get(who, f"/{number}", status=404)
        assert (await office.get(who, "?state=all"))["cases"] == []
        assert set((await office.get(who, ""))["counts"].values()) == {0}
    await office.post("li", f"/{own}/comments", {"text": "we suspect the meter, @wang"})
    await office.post(
        "li", f"/{own}/comments", {"text": "We come on Monday.", "for_operator": True}
    )
    told = await office.get("op2", f"/{own}")
    assert [(entry["text"], entry["author"]) for entry in told["entries"]] == [
        ("We come on Monday.", None)
    ]
    assert "wang" not in str(told) and "li" not in str(told["case"].values())
    assert (await office.get("op2", ""))["counts"]["open"] == 1
    await office.get("op1", f"/{own}", status=404)
    for path, body in (("reply", {"text": "x"}), ("objection", {"text": "x"})):
        await office.post("op1", f"/{own}/{path}", body, 404)
        for who in ("wang", "admin", "audit"):
            await office.post(who, f"/{own}/{path}", body, 403)
    for path, body in (("comments", {"text": "x"}), ("steps", {"step": "inspect"})):
        for who in ("op2", "audit"):
            await office.post(who, f"/{own}/{path}", body, 403)
    for who in ("op2", "audit"):
        await office.post(who, "", {"connector": RED}, 403)
        await office.post(who, "/bulk", {"action": "open"}, 403)


async def test_an_objection_opens_a_closed_case_once(site: Site, office: Office) -> None:
    number = await office.open()
    await office.step("wang", number, "assign", owner="li")

    async def close() -> None:
        await office.step("wang", number, "close", outcome="confirmed", why="+3.1 %")

    async def object_to() -> Any:
        return (await office.post("op2", f"/{number}/objection", {"text": "The meter is new."}))[
            "case"
        ]

    await close()
    await office.post("op2", f"/{number}/reply", {"text": "hello"}, 409)
    case = await object_to()
    assert (case["state"], case["outcome"], case["closed_at"]) == ("assigned", None, None)
    await close()
    # The second one is kept, and opens nothing by itself.
    case = await object_to()
    assert (case["state"], case["outcome"]) == ("closed", "confirmed")
    kinds = [entry["kind"] for entry in (await office.get("wang", f"/{number}"))["entries"]]
    assert kinds[-4:] == ["closed", "objection", "closed", "objection"]
    await office.step("wang", number, "reopen", why="the certificate was another meter's")
    assert (await object_to())["state"] == "assigned"


async def test_an_objection_after_60_days_or_beside_another_case_opens_nothing(
    site: Site, office: Office
) -> None:
    first = await office.open()
    await office.step("wang", first, "close", outcome="confirmed", why="+3.1 %")
    second = await office.open()
    told = await office.post("op2", f"/{first}/objection", {"text": "No."})
    assert told["case"]["state"] == "closed"
    told = await office.step("wang", first, "reopen", status=409, why="x")
    assert second in told["error"]["message"]
    await office.step("wang", second, "close", outcome="confirmed", why="+3.1 %")
    await send_sql(site, "UPDATE office_case SET closed_at = closed_at - interval '61 days'")
    told = await office.post("op2", f"/{second}/objection", {"text": "No."})
    assert told["case"]["state"] == "closed"

"""Cases in numbers: mentions, one step for many, lists page by page, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from office_case import OTHERS, RED, TODAY, Office, open_case_site, send_sql

from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from web_client import Site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_case_site(database_url) as opened:
        yield opened


@pytest.fixture
async def office(site: Site) -> Office:
    return Office(site)


async def test_mentions_reach_those_who_may_read(site: Site, office: Office) -> None:
    number = await office.open()
    await accounts.disable_user(site.database, "zhao", actor=Actor(name="test"))

    async def write(who: str, text: str, path: str = "comments", **more: Any) -> tuple[Any, Any]:
        told = await office.post(who, f"/{number}/{path}", {"text": text, **more})
        entry = (await office.get("wang", f"/{number}"))["entries"][-1]
        return entry["detail"].get("mentions", []), told["unknown_mentions"]

    assert await write("li", "@wang look, and @wang again; wu@wang.example is no mention") == (
        ["wang"], [],
    )  # fmt: skip
    assert await write("li", "@stranger @zhao @op2 @WANG @ @-") == (
        [], ["stranger", "zhao", "op2", "WANG", "-"],
    )  # fmt: skip
    # The operator's own user is told of what is for it; another's never.
    assert await write("li", "@op2 @op1 @audit", for_operator=True) == (["op2", "audit"], ["op1"])
    # An operator can't find out who works at the office.
    assert await write("op2", "@wang @op2 @nobody", "reply") == (["op2"], ["wang", "nobody"])
    crowd = " ".join(f"@u{k}" for k in range(100))
    assert len((await write("li", crowd))[1]) == 20


async def test_one_step_for_many_cases_has_an_audit_entry_each(site: Site, office: Office) -> None:
    numbers = [await office.open(f"TJ0001-{k:02d}-1") for k in range(1, 5)]
    await office.step("wang", numbers[0], "close", outcome="confirmed", why="x")
    day = (TODAY + timedelta(days=9)).isoformat()
    body = {"action": "assign", "numbers": [*numbers, "2026-777777", numbers[1]], "owner": "li",
            "deadline": day}  # fmt: skip
    before = (await send_sql(site, "SELECT count(*) AS n FROM audit_entry"))[0]["n"]
    told = await office.post("wang", "/bulk", body)
    assert [case["number"] for case in told["cases"]] == numbers[1:]
    assert {case["owner"] for case in told["cases"]} == {"li"}
    assert {case["deadline"] for case in told["cases"]} == {day}
    assert [one["number"] for one in told["refused"]] == [numbers[0], "2026-777777"]
    after = await send_sql(
        site, "SELECT subject FROM audit_entry WHERE entry >= :before ORDER BY entry", before=before
    )
    assert [row["subject"] for row in after] == [f"case:{number}" for number in numbers[1:]]
    assert "nothing is chosen" in str(await office.post("wang", "/bulk", {"action": "open"}, 422))
    await office.post("wang", "/bulk", {**body, "numbers": ["x"] * 101}, 422)
    piles = [{"connector": f"TJ0001-{k:02d}-1"} for k in range(1, 7)]
    told = await office.post("wang", "/bulk", {"action": "open", "piles": piles, "signals": [1, 4]})
    assert len(told["cases"]) == 8
    assert len({case["number"] for case in told["cases"]}) == 6
    # All or nothing where something is opened: a slip of the pen opens none.
    wrong = [{"connector": "TJ0001-09-1"}, {"connector": "NOPE"}]
    await office.post("wang", "/bulk", {"action": "open", "piles": wrong}, 404)
    assert (await office.get("wang", "?subject=connector:TJ0001-09-1"))["cases"] == []


async def test_bulk_steps_of_several_at_once_hold_each_other_up_and_no_more(
    site: Site, office: Office
) -> None:
    numbers = [await office.open(f"TJ0001-{k:02d}-1") for k in range(1, 9)]
    piles = [{"connector": f"TJ0001-{k:02d}-1"} for k in reversed(range(1, 9))]

    async def bulk(k: int) -> None:
        owner = ("li", "zhao", "wang")[k % 3]
        order = numbers if k % 2 else numbers[::-1]
        body = {"action": "assign", "numbers": order, "owner": owner, "why": f"turn {k}"}
        await office.post("wang", "/bulk", body)

    async def open_all() -> None:
        await office.post("admin", "/bulk", {"action": "open", "piles": piles})

    async def write(number: str) -> None:
        await office.post("li", f"/{number}/comments", {"text": "x"})

    for who in ("wang", "admin", "li"):
        await office.header(who)
    await asyncio.gather(
        *(bulk(k) for k in range(6)), *(open_all() for _ in range(4)), *map(write, numbers)
    )
    states = await send_sql(site, "SELECT DISTINCT state, owner FROM office_case")
    assert len(states) == 1 and states[0]["state"] == "assigned"


async def test_lists_are_narrowed_sorted_and_paged_by_key(site: Site, office: Office) -> None:
    today = TODAY
    days = [None, 5, 1, None, 3, 9, 2]
    numbers = []
    for k, ahead in enumerate(days, start=1):
        due = None if ahead is None else (today + timedelta(days=ahead)).isoformat()
        numbers.append(await office.open(f"TJ0001-{k:02d}-1", deadline=due))
    numbers.append(await office.open(OTHERS))
    await office.step("wang", numbers[1], "assign", owner="li")
    await office.step("wang", numbers[7], "close", outcome="confirmed", why="x")
    await send_sql(
        site, "UPDATE office_case SET deadline = deadline - 3 WHERE deadline IS NOT NULL"
    )

    async def listed(query: str, who: str = "wang") -> list[str]:
        found, after, pages = [], "", 0
        while True:
            page = await office.get(who, f"?limit=2&{query}&after={after}")
            found += [case["number"] for case in page["cases"]]
            pages += 1
            if page["next_after"] is None:
                assert pages >= len(found) / 2
                return found
            after = page["next_after"].replace("+", "%2B")

    assert await listed("") == numbers[6::-1]
    assert await listed("state=all") == numbers[::-1]
    assert await listed("state=closed") == [numbers[7]]
    assert await listed("owner=li") == await listed("owner=me", "li") == [numbers[1]]
    assert await listed("owner=-&state=open") == [numbers[k] for k in (6, 5, 4, 3, 2, 0)]
    assert await listed("operator=OP1&state=all") == [numbers[7]]
    by_deadline = [numbers[k] for k in (2, 6, 4, 1, 5, 0, 3)]
    assert await listed("sort=deadline") == by_deadline
    assert await listed("overdue=true&sort=deadline") == by_deadline[:2]
    assert (await listed("sort=changed"))[0] == numbers[1]
    assert sorted(await listed("sort=changed&state=all")) == sorted(numbers)
    counts = (await office.get("wang", ""))["counts"]
    assert counts == {"open": 6, "assigned": 1, "inspecting": 0, "waiting_for_operator": 0,
                      "closed": 1, "overdue": 2}  # fmt: skip
    for query in ("state=x", "sort=x", "after=x", "after=~x", "sort=changed&after=x~1",
                  "after=2026-01-01~99999999999999999999"):  # fmt: skip
        await office.get("wang", f"?{query}", 422)


async def test_what_can_not_be_opened(site: Site, office: Office) -> None:
    for body, status in (
        ({}, 422),
        ({"connector": "NOPE"}, 404),
        ({"connector": RED, "operator_id": "OP1"}, 404),
        ({"station_id": "NOPE", "operator_id": "OP2"}, 404),
        ({"station_id": "TJ0001", "operator_id": "OP1"}, 404),
        ({"signal_id": 99999}, 404),
        ({"signal_id": 1, "connector": RED}, 422),
        ({"connector": RED, "title": "x" * 201}, 422),
        ({"connector": RED, "origin": "complaint"}, 422),
        ({"connector": RED, "tilte": "x"}, 422),
        ({"connector": RED, "deadline": "1999-01-01"}, 422),
    ):
        await office.post("wang", "", body, status)
    assert (await send_sql(site, "SELECT count(*) AS n FROM office_case"))[0]["n"] == 0
    # What was refused took no number.
    assert (await office.open()).endswith("-000001")

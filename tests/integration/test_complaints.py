"""Complaints from the form to the answer: clocks, steps, who sees what, and what is erased."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from chargewatch.storage import tables
from chargewatch.storage.retention import apply_retention
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from complaint_forms import DoorClock, filed_reference, send_complaint, with_clock
from running import RunCommand
from web_client import PASSWORD, Site, open_site

# Friday, half past eight in Shanghai.
NOW = datetime(2026, 9, 18, 0, 30, tzinfo=UTC)
PHONE = "138 1234 5678"


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        opened.app.state.service.clock = lambda: NOW
        yield opened


@pytest.fixture
def clock(site: Site) -> DoorClock:
    return with_clock(site)


async def list_of(site: Site, header: dict[str, str], query: str = "state=all") -> list[Any]:
    answer = await site.client.get(f"/api/v1/complaints?{query}", headers=header)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["complaints"]
    return found


async def act(site: Site, header: dict[str, str], step: str, number: int = 1, **body: str) -> int:
    answer = await site.client.post(
        f"/api/v1/complaints/{number}/{step}", headers=header, json=body or None
    )
    return answer.status_code


async def status_page(site: Site, reference: str, **more: str) -> str:
    answer = await site.client.post("/complaints/status", data={"reference": reference, **more})
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_a_complaint_runs_through_all_its_steps(site: Site, clock: DoorClock) -> None:
    reference = await filed_reference(site, clock, contact=PHONE, bill="¥ 15.33")
    header = await site.token("admin")
    (row,) = await list_of(site, header, "state=open")
    # Seven working days over the Mid-Autumn Festival, with the Sunday that is worked:
    # 20 (Sunday), 21, 22, 23, 24, 28, 29.
    assert (row["state"], row["accept_by"]) == ("received", "2026-09-29")
    assert (row["operator_id"], row["station_id"]) == ("OP2", "TJ0001")
    assert "2026-09-29" in await status_page(site, reference)
    assert await act(site, header, "answer", text="too early") == 422
    assert await act(site, header, "end") == 422
    assert await act(site, header, "accept") == 204
    assert await act(site, header, "accept") == 422
    (row,) = await list_of(site, header)
    # Forty-five: 8 in what is left of September, 18 in October (8, 9, Saturday 10, three weeks),
    # 15 in three weeks of November, and 23 to 26.
    assert row["end_by"] == "2026-11-26"
    assert await act(site, header, "end") == 422
    assert await act(site, header, "answer", text="The meter was tested: it reads right.") == 204
    assert await act(site, header, "answer", text="Better: it was tested on Monday.") == 204
    page = await status_page(site, reference)
    assert "Better: it was tested on Monday." in page
    assert "it reads right" not in page
    assert await act(site, header, "end") == 204
    (row,) = await list_of(site, header, "state=open")
    assert (row["state"], row["notify_by"]) == ("ended", "2026-09-29")
    assert await act(site, header, "told") == 204
    assert await act(site, header, "told") == 422
    assert await list_of(site, header, "state=open") == []
    trail = await site.client.get("/api/v1/audit?subject=complaint:1", headers=header)
    assert [one["action"].removeprefix("complaint_") for one in trail.json()["entries"]] == [
        *("told", "ended", "answered", "answered", "accepted", "filed"),
    ]
    for secret in (PHONE, reference, "my car took 15"):
        assert secret not in trail.text


async def test_a_refusal_needs_a_reason_which_its_complainer_reads(
    site: Site, clock: DoorClock
) -> None:
    reference = await filed_reference(site, clock)
    header = await site.token("admin")
    assert await act(site, header, "refuse", reason=" \n ") == 422
    assert await act(site, header, "refuse", reason="Parking is not metrology.") == 204
    assert "Parking is not metrology." in await status_page(site, reference)
    # Nobody left a contact: the status page told it.
    assert await list_of(site, header, "state=open") == []
    assert await act(site, header, "accept") == 422


async def test_overdue_ones_are_marked_and_found(site: Site, clock: DoorClock) -> None:
    await filed_reference(site, clock)
    header = await site.token("admin")
    service = site.app.state.service
    await site.log_in("admin")
    for day, overdue in ((29, False), (30, True)):
        service.clock = lambda day=day: datetime(2026, 9, day, 3, tzinfo=UTC)
        header = await site.token("admin")
        await site.log_in("admin")
        (row,) = await list_of(site, header)
        assert row["overdue"] is overdue, day
        assert len(await list_of(site, header, "state=overdue")) == overdue
        page = (await site.client.get("/complaints")).text
        assert ("1 overdue" in page) is overdue


async def test_an_unknown_year_is_told(site: Site, clock: DoorClock) -> None:
    service = site.app.state.service
    service.clock = lambda: datetime(2026, 12, 29, 3, tzinfo=UTC)
    answer = await send_complaint(site, clock)
    # By weekends alone; nobody had announced the holidays of 2027.
    assert "2027-01-07" in answer.text
    assert "holidays of 2027 are not on record" in answer.text
    await site.log_in("admin")
    assert "2027 are not on record" in (await site.client.get("/complaints/1")).text


async def test_who_answers_sees_the_contact_and_nobody_else(site: Site, clock: DoorClock) -> None:
    words = f"Call me at {PHONE} or wu@mail.example, the bill of 2026-09-17 is wrong."
    reference = await filed_reference(site, clock, contact=PHONE, text=words)
    for role in (Role.SUPERVISOR, Role.INSPECTOR, Role.AUDITOR):
        await accounts.add_user(
            site.database, f"the-{role}", role=role, password=PASSWORD, actor=Actor(name="test")
        )
    for name, sees in (
        ("admin", True), ("the-supervisor", True), ("the-inspector", False),
        ("the-auditor", False), ("op2", False),
    ):  # fmt: skip
        header = await site.token(name)
        one = (await site.client.get("/api/v1/complaints/1", headers=header)).json()
        assert (one["contact"] == PHONE) is sees, name
        assert (one["reference"] == reference) is sees, name
        assert ("wu@mail.example" in one["text"]) is sees, name
        assert "the bill of 2026-09-17 is wrong" in one["text"]
        site.client.cookies.clear()
        await site.log_in(name)
        for path in ("/complaints/1", "/complaints"):
            text = (await site.client.get(path)).text
            for secret in (PHONE, reference, "wu@mail.example"):
                assert (secret in text) <= sees, (name, path)
            assert ('name="step"' in text) is (sees and path == "/complaints/1")


async def test_an_operator_sees_complaints_on_its_own_piles_only(
    site: Site, clock: DoorClock
) -> None:
    await filed_reference(site, clock, connector="TJ0001-01-1")
    await filed_reference(site, clock, connector="TJ0002-01-1")
    await filed_reference(site, clock, connector="UNKNOWN-1")
    header = await site.token("op2")
    assert [row["complaint_id"] for row in await list_of(site, header)] == [1]
    for number, status in ((1, 200), (2, 404), (3, 404), (9, 404)):
        answer = await site.client.get(f"/api/v1/complaints/{number}", headers=header)
        assert answer.status_code == status
    assert await act(site, header, "accept") == 403
    admin = await site.token("admin")
    assert len(await list_of(site, admin)) == 3
    assert [row["operator_id"] for row in await list_of(site, admin)] == [None, "OP1", "OP2"]


async def test_sessions_and_signals_near_it_are_shown(site: Site, clock: DoorClock) -> None:
    async with site.database.connect() as connection:
        ended = await connection.scalar(
            select(tables.charging_session.c.ended_at).where(
                tables.charging_session.c.session == "S-0003"
            )
        )
    site.app.state.service.clock = lambda: ended + timedelta(days=1)
    local = (ended + timedelta(hours=8)).strftime("%Y-%m-%dT%H:%M")
    await filed_reference(site, clock, session_at=local, bill="15.33", session_text="S-0050")
    header = await site.token("admin")
    one = (await site.client.get("/api/v1/complaints/1", headers=header)).json()
    fits = {row["session"]: row["fits"] for row in one["sessions"]}
    # The named one though it is weeks away, and those around the time, of the same amount.
    assert fits["S-0050"] == "session"
    assert fits["S-0003"] == "bill"
    assert "S-0020" not in fits
    assert {row["code"] for row in one["signals"]} >= {"loss_adjusted_billing"}
    await site.log_in("admin")
    page = (await site.client.get("/complaints/1")).text
    assert "named by the complainer" in page


async def test_contact_data_go_on_request_with_what_the_text_says_of_them(
    site: Site, clock: DoorClock
) -> None:
    reference = await filed_reference(
        site, clock, contact="wu@mail.example", text=f"My number is {PHONE}, call me please."
    )
    header = await site.token("admin")
    assert "Delete my contact data" in await status_page(site, reference)
    page = await status_page(site, reference, erase="1")
    assert "were deleted" in page
    one = (await site.client.get("/api/v1/complaints/1", headers=header)).json()
    assert one["contact"] is None
    assert one["text"] == "My number is …, call me please."
    assert "Delete my contact data" not in await status_page(site, reference)
    gone = await site.client.delete("/api/v1/complaints/1/contact", headers=header)
    assert gone.status_code == 422


async def test_contact_data_go_some_time_after_the_end(site: Site, clock: DoorClock) -> None:
    for _ in range(2):
        await filed_reference(site, clock, contact=PHONE)
    header = await site.token("admin")
    assert await act(site, header, "refuse", reason="Not ours.") == 204

    async def left(days: int) -> int:
        await apply_retention(
            site.database, raw_days=0, rollup_days=5_000, contact_days=90,
            now=NOW + timedelta(days=days),
        )  # fmt: skip
        async with site.database.connect() as connection:
            query = select(func.count()).select_from(tables.complaint_contact)
            return int(await connection.scalar(query) or 0)

    assert [await left(days) for days in (89, 90, 92)] == [2, 2, 1]
    # The other one goes on, for years if need be.
    assert await left(2_000) == 1


async def test_the_office_takes_steps_on_the_page(site: Site, clock: DoorClock) -> None:
    await filed_reference(site, clock, contact=PHONE)
    await site.log_in("admin")

    async def step(name: str, text: str = "") -> int:
        page = await site.client.get("/complaints/1")
        token = page.text.partition('name="form_token" value="')[2].partition('"')[0]
        answer = await site.client.post(
            "/complaints/1", data={"form_token": token, "step": name, "text": text}
        )
        return answer.status_code

    steps = [
        ("nonsense", "", 422), ("accept", "", 303), ("accept", "", 422),
        ("answer", "", 422), ("answer", "字" * 2_000, 303), ("end", "", 303), ("told", "", 303),
        ("erase", "", 303),
    ]  # fmt: skip
    for name, text, status in steps:
        assert await step(name, text) == status, name
    page = (await site.client.get("/complaints/1")).text
    assert "Nothing is left to do" in page
    stale = await site.client.post("/complaints/1", data={"step": "accept"})
    assert stale.status_code == 403


async def test_a_case_is_opened_from_an_accepted_complaint(site: Site, clock: DoorClock) -> None:
    for _ in range(2):
        await filed_reference(site, clock)
    await filed_reference(site, clock, connector="UNKNOWN-1")
    header = await site.token("admin")

    async def open_case(number: int) -> Any:
        return await site.client.post(f"/api/v1/complaints/{number}/case", headers=header)

    assert (await open_case(1)).status_code == 422
    for number in (1, 2, 3):
        assert await act(site, header, "accept", number) == 204
    first, second = (await open_case(1)).json(), (await open_case(2)).json()
    # The second one is an entry of the same case.
    assert first == second == {"number": "2026-000001"}
    refused = await open_case(3)
    assert refused.status_code == 422
    assert "register it first" in refused.text
    case = (await site.client.get("/api/v1/cases/2026-000001", headers=header)).json()
    assert "complaint" in str(case)
    assert "my car took 15" not in str(case)
    await site.log_in("admin")
    assert 'href="/cases/2026-000001"' in (await site.client.get("/complaints/1")).text
    # Its operator learns of a case when the office shows it, not by a complaint.
    of_operator = await site.client.get("/api/v1/complaints/1", headers=await site.token("op2"))
    assert of_operator.json()["state"] == "accepted"
    assert (of_operator.json()["case_id"], of_operator.json()["case_number"]) == (None, None)
    site.client.cookies.clear()
    await site.log_in("op2")
    assert "000001" not in (await site.client.get("/complaints/1")).text


async def test_a_reference_finds_its_complaint_for_who_answers(
    site: Site, clock: DoorClock
) -> None:
    reference = await filed_reference(site, clock)
    await site.log_in("admin")
    spoken = reference.replace("-", " ")
    found = await site.client.get("/complaints", params={"q": spoken})
    assert (found.status_code, found.headers["location"]) == (303, "/complaints/1")
    assert (await site.client.get("/complaints", params={"q": "1"})).status_code == 200
    site.client.cookies.clear()
    await site.log_in("op2")
    assert (await site.client.get("/complaints", params={"q": spoken})).status_code == 200


async def test_commands_list_show_and_answer(
    site: Site, clock: DoorClock, run_command: RunCommand
) -> None:
    await filed_reference(site, clock, contact=PHONE, bill="15.33")
    env = {"CHARGEWATCH_DATABASE_URL": site.settings.database_url}
    listed = json.loads(run_command("complaints", "list", "--json", env=env).stdout)
    assert [row["state"] for row in listed] == ["received"]
    assert run_command("complaints", "answer", "1", "--text", "x", env=env).returncode == 1
    assert run_command("complaints", "accept", "1", env=env).returncode == 0
    done = run_command("complaints", "answer", "1", "--text", "It reads right.", "--end", env=env)
    assert done.returncode == 0, done.stderr
    shown = json.loads(run_command("complaints", "show", "1", "--json", env=env).stdout)
    assert (shown["state"], shown["contact"], shown["answer"]) == (
        "ended",
        PHONE,
        "It reads right.",
    )
    assert run_command("complaints", "told", "1", env=env).returncode == 0
    missing = run_command("complaints", "show", "7", env=env)
    assert missing.returncode == 1
    assert "no complaint 7" in missing.stderr


async def test_two_complaints_never_share_a_reference(
    site: Site, clock: DoorClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter(["00000-00000-00000", "00000-00000-00000", "12345-67890-12341"])
    monkeypatch.setattr(
        "chargewatch.supervision.complaints.filing.new_reference", lambda: next(drawn)
    )
    assert await filed_reference(site, clock) == "00000-00000-00000"
    assert await filed_reference(site, clock) == "12345-67890-12341"


async def test_a_complaint_of_a_pile_that_moved_tells_its_new_operator_nothing(
    site: Site, clock: DoorClock
) -> None:
    await filed_reference(site, clock)
    async with site.database.begin() as connection:
        await connection.execute(
            update(tables.connector)
            .where(tables.connector.c.connector == "TJ0001-01-1")
            .values(operator_id="OP1", station_id="TJ0002")
        )
    header = await site.token("op2")
    one = (await site.client.get("/api/v1/complaints/1", headers=header)).json()
    assert (one["sessions"], one["signals"]) == ([], [])
    assert await list_of(site, await site.token("op1")) == []

"""Credit by API, pages and command: who may what, jobs, files that are computed again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from chargewatch.storage import tables
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.credit.arithmetic import replay
from chargewatch.supervision.jobs.table import JOB_KINDS
from chargewatch.supervision.jobs.worker import Worker
from chargewatch.supervision.permissions import Role
from running import RunCommand
from web_client import PASSWORD, TOKEN_FIELD, Site, open_site

PROMISE = {
    "text": "every pile verified before it is due",
    "until": (datetime.now(UTC) + timedelta(days=99)).date().isoformat(),
}


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        for role in (Role.SUPERVISOR, Role.INSPECTOR):
            await accounts.add_user(
                opened.database, f"the-{role}", role=role, password=PASSWORD,
                actor=Actor(name="test"),
            )  # fmt: skip
        yield opened


async def _commitments(site: Site, operator_id: str) -> list[Any]:
    table = tables.self_commitment
    async with site.database.connect() as connection:
        found = await connection.execute(
            select(table).where(table.c.operator_id == operator_id).order_by(table.c.commitment_id)
        )
        return [dict(row) for row in found.mappings()]


async def test_an_operator_commits_itself_and_nobody_else(site: Site) -> None:
    own, other = await site.token("op2"), await site.token("op1")
    path = "/api/v1/operators/OP2/commitments"
    made = await site.client.post(path, headers=own, json=PROMISE)
    assert made.status_code == 200, made.text
    number = made.json()["commitment_id"]
    foreign = await site.client.post(path, headers=other, json=PROMISE)
    missing = await site.client.post(
        "/api/v1/operators/NOPE/commitments", headers=other, json=PROMISE
    )
    assert (foreign.status_code, missing.status_code) == (404, 404)
    assert foreign.json()["error"]["code"] == missing.json()["error"]["code"]
    # What it promised it neither publishes nor judges itself.
    for step, body in (("publish", None), ("decide", {"kept": True, "why": "we say so"})):
        answer = await site.client.post(f"{path}/{number}/{step}", headers=own, json=body)
        assert answer.status_code == 403
    # An operator's log-in over pages has the same limits, with a valid form.
    await site.log_in("op1")
    page = await site.client.get("/operators/OP1")
    token = TOKEN_FIELD.search(page.text)
    assert token is not None
    form = {"form_token": token[1], **PROMISE}
    refused = await site.client.post("/operators/OP2/commitments", data=form)
    assert refused.status_code == 404
    taken = await site.client.post("/operators/OP1/commitments", data=form)
    assert taken.status_code == 303
    assert [row["made_by"] for row in (await _commitments(site, "OP1"))[-1:]] == ["op1"]
    assert (await _commitments(site, "OP2"))[-1]["commitment_id"] == number


async def test_the_office_publishes_and_decides_a_commitment_once(site: Site) -> None:
    clerk = await site.token("the-supervisor")
    path = "/api/v1/operators/OP2/commitments"
    made = await site.client.post(path, headers=clerk, json=PROMISE)
    number = made.json()["commitment_id"]

    async def public() -> list[str]:
        answer = await site.client.get("/api/v1/public/operators/OP2")
        return [one["text"] for one in answer.json()["commitments"]]

    assert PROMISE["text"] not in await public()
    for _ in range(2):
        done = await site.client.post(f"{path}/{number}/publish", headers=clerk)
        assert done.status_code == 204
    assert PROMISE["text"] in await public()
    # By the number of another operator's commitment nothing is found.
    wrong = f"/api/v1/operators/OP1/commitments/{number}/decide"
    decision = {"kept": False, "why": "twelve were late"}
    assert (await site.client.post(wrong, headers=clerk, json=decision)).status_code == 404
    right = f"{path}/{number}/decide"
    assert (await site.client.post(right, headers=clerk, json=decision)).status_code == 204
    again = await site.client.post(right, headers=clerk, json={"kept": True, "why": "no"})
    assert again.status_code == 422
    assert "never changed" in again.json()["error"]["message"]
    row = (await _commitments(site, "OP2"))[-1]
    assert (row["kept"], row["decided_by"], row["why"]) == (
        False, "the-supervisor", "twelve were late",
    )  # fmt: skip


async def test_what_is_public_is_what_was_published(site: Site) -> None:
    listed = (await site.client.get("/api/v1/public/operators?limit=1")).json()
    assert [one["operator_id"] for one in listed["operators"]] == ["OP1"]
    assert listed["next_after"] == "OP1"
    rest = (await site.client.get("/api/v1/public/operators?after=OP1")).json()
    assert [one["operator_id"] for one in rest["operators"]] == ["OP2"]
    assert rest["next_after"] is None
    running = datetime.now(UTC).strftime("%Y-%m")
    for one in (*listed["operators"], *rest["operators"]):
        assert one["grade"]["grade"] in "ABCD"
        assert one["grade"]["month"] < running
        assert "op" not in {key for row in one["commitments"] for key in row}
        assert len(one["commitments"]) == 2
    # The running month is provisional: its operator and the office see it, nobody else.
    path = f"/api/v1/public/operators/OP2/grades/{running}"
    assert (await site.client.get(path)).status_code == 404
    assert (await site.client.get("/api/v1/public/operators/NOPE")).status_code == 404
    detail = (
        await site.client.get("/api/v1/operators/OP2", headers=await site.token("op2"))
    ).json()
    assert detail["draft"]["month"] == running
    assert detail["outlook"]["needs"]


async def test_a_published_file_is_computed_again_by_the_command(
    site: Site, run_command: RunCommand, tmp_path: Path
) -> None:
    path = tmp_path / "grade.json"
    there = "/api/v1/public/operators/OP2/grades/2026-01"
    old = (await site.client.get(f"{there}?revision=1")).json()
    assert (old["published"]["revision"], replay(old).faults) == (1, ())
    answer = await site.client.get(there)
    path.write_bytes(answer.content)
    done = run_command("credit", "replay", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    told = answer.json()
    assert done.stdout == f"holds: OP2 2026-01, grade {told['grade']}, score {told['score']}\n"
    assert told["published"]["revision"] == 2
    told["facts"]["coverage"]["bad"] = "0"
    path.write_text(json.dumps(told))
    done = run_command("credit", "replay", str(path), "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert not found["holds"] and found["rules_known"]
    assert any(fault.startswith("score is told as") for fault in found["faults"])


async def test_the_command_grades_shows_and_exports(
    site: Site, run_command: RunCommand, tmp_path: Path
) -> None:
    env = {"CHARGEWATCH_DATABASE_URL": site.settings.database_url or ""}
    done = run_command("credit", "grade", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["closed"] is False
    done = run_command("credit", "grade", "--month", "2026-01", "--publish", env=env)
    assert done.returncode == 0 and "0 new, 2 as they were" in done.stderr
    shown = run_command("credit", "show", env=env)
    assert [line.partition("\t")[0] for line in shown.stdout.splitlines()] == ["OP2", "OP1"]
    shown = run_command("credit", "show", "OP2", "--draft", env=env)
    assert (
        shown.stdout.startswith(f"OP2 {datetime.now(UTC):%Y-%m}: ")
        and "\ncoverage\t" in shown.stdout
    )
    path = tmp_path / "OP2.json"
    done = run_command("credit", "export", "OP2", "--month", "2026-01", "--out", str(path), env=env)
    assert done.returncode == 0, done.stderr
    assert not replay(json.loads(path.read_text())).faults


async def test_a_month_is_graded_by_a_job_of_the_office(site: Site) -> None:
    clerk = await site.token("the-supervisor")
    now = datetime.now(UTC)
    last = (now.replace(day=1) - timedelta(days=40)).strftime("%Y-%m")
    asked = await site.client.post(
        f"/api/v1/credit/{last}", headers=clerk, json={"action": "recount", "why": "for a test"}
    )
    assert asked.status_code == 200, asked.text
    for month, body, status in (
        (now.strftime("%Y-%m"), {"action": "publish"}, 422),
        (last, {"action": "recount"}, 422),
        (last, {"action": "burn"}, 422),
        ("2026-1", {"action": "draft"}, 422),
        ("2099-01", {"action": "draft"}, 422),
    ):
        answer = await site.client.post(f"/api/v1/credit/{month}", headers=clerk, json=body)
        assert answer.status_code == status, month
    for name in ("op2", "the-inspector"):
        answer = await site.client.post(
            f"/api/v1/credit/{last}", headers=await site.token(name), json={"action": "draft"}
        )
        assert answer.status_code == 403
    worker = Worker(site.database, site.settings, JOB_KINDS)
    await worker.run(until_idle=True)
    table = tables.job
    async with site.database.connect() as connection:
        job = (
            await connection.execute(
                select(table).where(table.c.job_id == asked.json()["job_id"])
            )
        ).mappings().one()  # fmt: skip
    assert job["state"] == "done", job
    # The seeded grades rest on made-up facts: all come out differently.
    assert job["result"][0]["published"] == 2
    detail = (await site.client.get("/api/v1/operators/OP1", headers=clerk)).json()
    months = [(row["month"], row["revision"], row["why"]) for row in detail["history"]]
    assert (f"{last}-01", 2, "for a test") in months and (f"{last}-01", 1, "") in months


async def test_pages_say_what_is_wrong_with_a_form(site: Site) -> None:
    await site.log_in("the-supervisor")
    page = await site.client.get("/operators/OP1")
    token = TOKEN_FIELD.search(page.text)
    assert token is not None
    own = {"form_token": token[1]}
    for form, said in (
        ({"text": "x", "until": "soon"}, "no day"),
        ({"text": " ", "until": PROMISE["until"]}, "1 to 1000"),
        ({"text": "kept text", "until": "2001-01-01"}, "between today"),
    ):
        answer = await site.client.post("/operators/OP1/commitments", data=own | form)
        assert answer.status_code == 422 and said in answer.text, form
        assert form["text"].strip() in answer.text
    number = (await _commitments(site, "OP1"))[0]["commitment_id"]
    there = f"/operators/OP1/commitments/{number}"
    for form, status in (
        ({"action": "kept", "why": ""}, 422),
        ({"action": "eaten"}, 422),
        ({"action": "publish"}, 303),
        ({"action": "broken", "why": "late"}, 303),
    ):
        answer = await site.client.post(there, data=own | form)
        assert answer.status_code == status, form
    for form in ({"action": "publish", "month": "2099-01"}, {"action": "x", "month": "2026-01"}):
        answer = await site.client.post("/operators/grade", data=own | form)
        assert answer.status_code == 422 and 'role="alert"' in answer.text
    asked = await site.client.post(
        "/operators/grade", data={**own, "action": "draft", "month": "2026-11"}
    )
    assert asked.status_code == 303
    assert (await site.client.post(there, data={"action": "publish"})).status_code == 403


async def test_lists_are_narrowed_and_sorted(site: Site) -> None:
    clerk = await site.token("the-supervisor")

    async def names(question: str) -> list[str]:
        answer = await site.client.get(f"/api/v1/operators?{question}", headers=clerk)
        assert answer.status_code == 200, answer.text
        return [row["operator_id"] for row in answer.json()["operators"]]

    assert await names("") == ["OP2", "OP1"]
    assert await names("sort=score_down") == ["OP1", "OP2"]
    assert await names("sort=name") == ["OP2", "OP1"]
    assert await names("q=haihe") == ["OP2"]
    assert await names("q=%25") == []
    assert await names("grade=-") == []
    assert await names("limit=1&offset=1") == ["OP1"]
    for question in ("sort=money", "grade=E", "limit=0"):
        answer = await site.client.get(f"/api/v1/operators?{question}", headers=clerk)
        assert answer.status_code == 422


async def test_odd_addresses_are_told_what_is_wrong(site: Site) -> None:
    clerk = await site.token("the-supervisor")
    await site.log_in("the-supervisor")
    for address, status in (
        ("/operators/OP1?month=0000-01", 422),
        ("/operators/OP1?month=9999-12", 404),
        ("/operators/OP1?month=2026-01&revision=9", 404),
        ("/operators/OP1?month=2026-01&revision=99999999999", 422),
        ("/operators/%00", 422),
        ("/operators/a%2Fb", 404),
        ("/operators?page=99", 200),
        ("/operators?grade=-&q=%25", 200),
        ("/api/v1/operators/OP1/grades/0000-01", 422),
        ("/api/v1/operators/OP1/grades/2026-02-01", 422),
        ("/api/v1/public/operators?after=%25&limit=1", 200),
        ("/api/v1/public/operators/OP1/grades/1999-01", 404),
    ):
        answer = await site.client.get(address)
        assert answer.status_code == status, address
    far = f"/api/v1/operators/OP1/commitments/{2**70}/publish"
    assert (await site.client.post(far, headers=clerk)).status_code == 422

"""Notices: each once, to whom it concerns, by real mail, real calls and a real messenger's way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from aiosmtpd.controller import Controller
from sqlalchemy import insert, select, text, update
from standardwebhooks import Webhook

from chargewatch.local.processes import free_port
from chargewatch.settings import Settings
from chargewatch.storage import sql
from chargewatch.storage.database import Database
from chargewatch.storage.newest_run import NEWEST_RUN
from chargewatch.storage.office import jobs as job_rows
from chargewatch.storage.office import notices as rows
from chargewatch.storage.tables import (
    assessment,
    case_entry,
    complaint,
    job,
    notice,
    office_case,
    risk_run,
)
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.jobs.worker import Worker
from chargewatch.supervision.notices.collect import SOURCES, collect
from chargewatch.supervision.permissions import Role
from chargewatch.web.mails import ALL_JOBS
from web_client import PASSWORD, TOKEN_FIELD, Site, open_site

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
ZONE = ZoneInfo("Asia/Shanghai")
ON_DEMAND = [replace(kind, daily_at=None, every_s=0) for kind in ALL_JOBS]


@pytest.fixture
async def site(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    # What is told every week, and hides what else is: it has a test of its own.
    monkeypatch.delitem(SOURCES, "verifications_due")  # type: ignore[arg-type]
    async with open_site(database_url) as opened:
        for name, role in (("wang", Role.INSPECTOR), ("zhao", Role.SUPERVISOR)):
            await accounts.add_user(
                opened.database, name, role=role, password=PASSWORD, actor=Actor(name="test")
            )
        await look(opened.database)  # the first, which tells nothing
        yield opened


async def look(database: Database, *, messengers: bool = False, now: datetime = NOW) -> int:
    async with database.begin() as connection:
        return await collect(connection, now=now, zone=ZONE, messengers=messengers)


async def told(database: Database) -> set[tuple[str, str]]:
    async with database.connect() as connection:
        found = await connection.execute(select(notice.c.username, notice.c.kind))
        return {(name, kind) for name, kind in found}


async def open_case(database: Database, *, operator: str = "OP1", **values: Any) -> int:
    row = {
        "number": "2026-000001", "operator_id": operator, "station_id": "TJ0001",
        "connector": "TJ0001-01-1", "subject": "connector:TJ0001-01-1", "origin": "flag",
        "title": "errs", "state": "assigned", "owner": "wang", "opened_at": NOW,
        "opened_by": "zhao", "changed_at": NOW,
    } | values  # fmt: skip
    async with database.begin() as connection:
        made = await connection.execute(
            insert(office_case).values(**row).returning(office_case.c.case_id)
        )
        return int(made.scalar_one())


async def enter(database: Database, case_id: int, author: str, kind: str, **values: Any) -> None:
    async with database.begin() as connection:
        await connection.execute(
            insert(case_entry).values(
                **{"case_id": case_id, "at": NOW, "author": author, "kind": kind, **values}
            )
        )


async def test_a_case_tells_whom_it_concerns_once_and_nobody_else(site: Site) -> None:
    case_id = await open_case(site.database)
    await enter(site.database, case_id, "zhao", "assigned", detail={"owner": "wang"})
    await enter(site.database, case_id, "wang", "comment", detail={"mentions": ["zhao", "wang"]})
    await enter(site.database, case_id, "wang", "asked", for_operator=True)
    await enter(site.database, case_id, "op1", "reply", for_operator=True)
    assert await look(site.database) == 4
    assert await told(site.database) == {
        ("wang", "case_assigned"), ("zhao", "case_mentioned"), ("op1", "case_for_operator"),
        ("wang", "case_answered"),
    }  # fmt: skip
    assert await look(site.database) == 0


async def test_what_runs_out_is_told_every_week_to_the_office_and_each_operator(
    database_url: str,
) -> None:
    async with open_site(database_url) as site:
        await look(site.database)
        assert await look(site.database) == 3
        assert await look(site.database, now=NOW + timedelta(days=5)) == 0
        assert await look(site.database, now=NOW + timedelta(days=6)) == 3
        assert {name for name, _ in await told(site.database)} == {"admin", "op1", "op2"}
        sums = {}
        for name in ("admin", "op1", "op2"):
            async with site.database.connect() as connection:
                [newest, _] = await rows.own(connection, name, limit=9)
            sums[name] = newest["detail"]["expired"]
        assert sums["op1"] + sums["op2"] == sums["admin"] > 0


async def test_nothing_that_was_there_before_the_first_look_is_told(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(SOURCES, "verifications_due")  # type: ignore[arg-type]
    async with open_site(database_url) as site:
        case_id = await open_case(site.database)
        for _ in range(3):
            await enter(site.database, case_id, "zhao", "assigned", detail={"owner": "op1"})
        assert await look(site.database) == 0
        await enter(site.database, case_id, "zhao", "assigned", detail={"owner": "admin"})
        assert await look(site.database) == 1


async def test_two_looks_at_once_tell_nothing_twice(site: Site) -> None:
    case_id = await open_case(site.database)
    for _ in range(20):
        await enter(site.database, case_id, "zhao", "assigned", detail={"owner": "wang"})
    assert sum(await asyncio.gather(*(look(site.database) for _ in range(3)))) == 20


async def test_a_deadline_is_told_when_it_comes_and_again_when_it_moves(site: Site) -> None:
    await open_case(site.database, deadline=date(2026, 12, 4))
    assert await look(site.database) == 0
    assert await look(site.database, now=NOW + timedelta(days=1)) == 1
    assert await look(site.database, now=NOW + timedelta(days=2)) == 0
    async with site.database.begin() as connection:
        await connection.execute(update(office_case).values(deadline=date(2026, 12, 5)))
    assert await look(site.database, now=NOW + timedelta(days=2)) == 1


async def next_run(database: Database, *, red: set[str]) -> None:
    """Copy the newest run, with other tiers."""
    async with database.begin() as connection:
        newest = await sql.row(connection, NEWEST_RUN, run_id=None)
        assert newest is not None
        before = newest["run_id"]
        columns = [c.name for c in risk_run.columns if c.name not in ("run_id", "as_of")]
        names = ", ".join(columns)
        run_id = await connection.scalar(
            text(
                f"INSERT INTO risk_run (as_of, {names}) "
                f"SELECT as_of + interval '1 minute', {names} "
                "FROM risk_run WHERE run_id = :before RETURNING run_id"
            ),
            {"before": before},
        )
        names = ", ".join(c.name for c in assessment.columns if c.name not in ("run_id", "tier"))
        await connection.execute(
            text(
                f"INSERT INTO assessment (run_id, tier, {names}) SELECT :run_id, CASE WHEN "
                "connector_id IN (SELECT connector_id FROM connector WHERE connector = ANY(:red)) "
                f"THEN 'red' ELSE 'green' END, {names} FROM assessment WHERE run_id = :before"
            ),
            {"run_id": run_id, "before": before, "red": list(red)},
        )
        await connection.execute(
            text("UPDATE risk_run SET finished_at = now() WHERE run_id = :r"), {"r": run_id}
        )


async def test_newly_red_piles_are_told_once_a_run(site: Site) -> None:
    await next_run(site.database, red=set())
    assert await look(site.database) == 0
    await next_run(site.database, red={"TJ0002-09-1", "TJ0002-10-1"})
    assert await look(site.database) == 2
    assert await told(site.database) == {("admin", "newly_red"), ("zhao", "newly_red")}
    await next_run(site.database, red={"TJ0002-09-1", "TJ0002-10-1"})
    assert await look(site.database) == 0
    async with site.database.connect() as connection:
        [one, *_] = await rows.own(connection, "zhao", limit=9)
    assert one["detail"]["count"] == 2
    assert "TJ0002-09-1" in one["detail"]["names"]


async def test_complaints_and_their_clocks_are_told_to_who_decides(site: Site) -> None:
    async with site.database.begin() as connection:
        await connection.execute(
            insert(complaint).values(
                reference="r", received_at=NOW, connector="TJ0001-01-1", kind="price", text="dear",
                language="zh", state="received", clocks="cn", accept_by=date(2026, 12, 10),
            )
        )  # fmt: skip
    assert await look(site.database) == 2
    assert await look(site.database, now=NOW + timedelta(days=8)) == 2
    assert await told(site.database) == {
        (name, kind)
        for name in ("admin", "zhao")
        for kind in ("complaint_received", "complaint_due")
    }


class Mailbox:
    """A real mail server that keeps what it gets, and can be made to refuse."""

    def __init__(self) -> None:
        self.answer = "250 OK"
        self.mails: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("2"):
            found = message_from_bytes(envelope.content, policy=policy.default)
            self.mails.append((envelope.rcpt_tos, found))
        return self.answer


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, str]]:
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield box, f"smtp://127.0.0.1:{controller.port}"
    controller.stop()


async def work(site: Site, settings: Settings) -> int:
    return await Worker(site.database, settings, ON_DEMAND).run(until_idle=True)


async def states(site: Site) -> list[str]:
    async with site.database.connect() as connection:
        return list((await connection.scalars(select(job.c.state).order_by(job.c.job_id))).all())


async def wish_mail(site: Site, name: str, **wish: Any) -> None:
    header = await site.token(name)
    answer = await site.client.post("/api/v1/me/wish", headers=header, json=wish)
    assert answer.status_code == 200, answer.text


async def test_a_notice_goes_out_by_mail_in_the_users_language(
    site: Site, mailbox: tuple[Mailbox, str]
) -> None:
    box, server = mailbox
    settings = replace(
        site.settings, smtp_url=server, mail_from="chargewatch@metrology.example",
        public_url="https://watch.example",
    )  # fmt: skip
    await wish_mail(
        site, "wang", mail="wang@metrology.example", language="zh", mail_kinds=["case_assigned"]
    )
    case_id = await open_case(site.database)
    await enter(site.database, case_id, "zhao", "assigned", detail={"owner": "wang"})
    await enter(site.database, case_id, "zhao", "comment", detail={"mentions": ["wang"]})
    assert await look(site.database) == 2
    box.answer = "451 later"
    assert await work(site, settings) == 1
    assert await states(site) == ["waiting"]
    box.answer = "250 OK"
    async with site.database.begin() as connection:
        await connection.execute(update(job).values(due_at=text("now()")))
    assert await work(site, settings) == 1
    assert await states(site) == ["done"]
    [(to, mail)] = box.mails
    assert to == ["wang@metrology.example"]
    assert "2026-000001" in mail["subject"]
    assert "分配给您" in mail["subject"]
    assert "https://watch.example/cases/2026-000001" in mail.get_content()
    assert mail["Auto-Submitted"] == "auto-generated"


async def test_a_mail_that_is_refused_for_good_is_not_tried_again(
    site: Site, mailbox: tuple[Mailbox, str]
) -> None:
    box, server = mailbox
    box.answer = "550 no such user"
    await wish_mail(site, "wang", mail="w@example.org", language="en", mail_kinds=["case_assigned"])
    case_id = await open_case(site.database)
    await enter(site.database, case_id, "zhao", "assigned", detail={"owner": "wang"})
    await look(site.database)
    await work(site, replace(site.settings, smtp_url=server, mail_from="c@example.org"))
    assert await states(site) == ["failed"]


async def test_who_has_changed_the_wish_meanwhile_gets_no_mail(
    site: Site, mailbox: tuple[Mailbox, str]
) -> None:
    box, server = mailbox
    await wish_mail(site, "wang", mail="w@example.org", language="en", mail_kinds=["case_assigned"])
    case_id = await open_case(site.database)
    await enter(site.database, case_id, "zhao", "assigned", detail={"owner": "wang"})
    await look(site.database)
    await wish_mail(site, "wang", mail="", mail_kinds=[])
    await work(site, replace(site.settings, smtp_url=server, mail_from="c@example.org"))
    assert (await states(site), box.mails) == (["done"], [])


async def test_the_morning_brief_comes_by_mail_and_only_with_news(
    site: Site, mailbox: tuple[Mailbox, str]
) -> None:
    box, server = mailbox
    settings = replace(site.settings, smtp_url=server, mail_from="c@example.org")
    await wish_mail(site, "zhao", mail="z@example.org", language="en", mail_kinds=["brief"])
    for name in ("zhao", "admin"):
        async with site.database.begin() as connection:
            user_id = await connection.scalar(
                text("SELECT user_id FROM app_user WHERE username = :name"), {"name": name}
            )
            await rows.set_seen_at(connection, user_id, now=datetime.now(UTC))
    await next_run(site.database, red={"TJ0002-09-1"})
    await open_case(site.database, opened_at=datetime.now(UTC))
    async with site.database.begin() as connection:
        await job_rows.add(connection, kind="send_briefs", arguments={}, wanted_by="timer")
    assert await work(site, settings) == 2
    [(to, mail)] = box.mails
    assert to == ["z@example.org"]
    assert "newly red: 1 (TJ0002-09-1)" in mail.get_content()
    assert "cases opened: 1" in mail.get_content()


@contextmanager
def program(status: int = 204) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A real HTTP server that keeps what it is told."""
    calls: list[tuple[dict[str, str], bytes]] = []
    answers = {"status": status}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            calls.append(({key.lower(): value for key, value in self.headers.items()}, body))
            self.send_response(answers["status"])
            if answers["status"] == 302:
                self.send_header("location", "/elsewhere")
            self.end_headers()
            answers["status"] = 204

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/told", calls
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("first", [500, 302])
async def test_a_webhook_is_signed_tried_again_and_the_same_message(site: Site, first: int) -> None:
    header = await site.token("admin")
    with program(first) as (address, calls):
        made = await site.client.post(
            "/api/v1/webhooks", headers=header,
            json={"label": "register of the district", "address": address, "kinds": ["newly_red"]},
        )  # fmt: skip
        secret = made.json()["secret"]
        await next_run(site.database, red={"TJ0002-09-1"})
        await look(site.database)
        assert await work(site, site.settings) == 1
        async with site.database.begin() as connection:
            await connection.execute(update(job).values(due_at=text("now()")))
        assert await work(site, site.settings) == 1
    assert await states(site) == ["done"]
    assert len(calls) == 2
    # Read by the specification's own library.
    for headers, body in calls:
        said = Webhook(secret).verify(body, headers)
        assert said["type"] == "newly_red"
        assert said["data"]["names"] == "TJ0002-09-1"
    assert calls[0][0]["webhook-id"] == calls[1][0]["webhook-id"]
    listed = await site.client.get("/api/v1/webhooks", headers=header)
    assert secret not in listed.text
    number = made.json()["webhook_id"]
    ended = await site.client.delete(f"/api/v1/webhooks/{number}", headers=header)
    assert ended.status_code == 204
    await next_run(site.database, red={"TJ0004-10-1"})
    await look(site.database)
    assert await work(site, site.settings) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "file:///etc/passwd"}, {"address": "https://user:pw@host/"},
        {"address": "nowhere"}, {"kinds": []}, {"kinds": ["case_assigned"]}, {"label": " "},
    ],
)  # fmt: skip
async def test_a_webhook_that_can_not_be_is_refused(site: Site, wrong: dict[str, Any]) -> None:
    wanted = {"label": "x", "address": "https://a.example/", "kinds": ["newly_red"], **wrong}
    header = await site.token("admin")
    answer = await site.client.post("/api/v1/webhooks", headers=header, json=wanted)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "refused")


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # of apprise
async def test_messengers_are_told_in_both_languages(site: Site) -> None:
    with program() as (address, calls):
        settings = replace(site.settings, messengers=address.replace("http://", "json://"))
        await next_run(site.database, red={"TJ0002-09-1"})
        await look(site.database, messengers=True)
        assert await work(site, settings) == 1
    [(_, body)] = calls
    said = json.loads(body)["message"]
    assert "Newly red: 1" in said
    assert "新增红色桩 1 个" in said


@pytest.mark.parametrize(
    ("wish", "told_of"),
    [
        ({"mail": "no address", "mail_kinds": []}, "no mail address"),
        ({"mail": "a@b.example\r\nBcc: x@y.example", "mail_kinds": []}, "no mail address"),
        ({"mail": "", "mail_kinds": ["case_due"]}, "give the mail address"),
        ({"mail": "a@b.example", "mail_kinds": ["newly_red"]}, "choose some of"),
    ],
)
async def test_a_wish_that_can_not_be_is_refused(
    site: Site, wish: dict[str, Any], told_of: str
) -> None:
    header = await site.token("wang")
    answer = await site.client.post("/api/v1/me/wish", headers=header, json=wish)
    assert answer.status_code == 422
    assert told_of in answer.json()["error"]["message"]


async def form_token_of(site: Site, path: str) -> str:
    found = TOKEN_FIELD.search((await site.client.get(path)).text)
    assert found is not None
    return found[1]


async def test_pages_show_notices_wishes_and_changes(site: Site) -> None:
    case_id = await open_case(site.database, opened_at=datetime.now(UTC))
    await enter(site.database, case_id, "zhao", "assigned", detail={"owner": "wang"})
    await look(site.database)
    await site.log_in("wang")
    page = (await site.client.get("/notices")).text
    assert "Case 2026-000001 (TJ0001-01-1) was given to you by zhao" in page
    assert 'href="/cases/2026-000001"' in page
    token = await form_token_of(site, "/notices")
    header = await site.token("wang")
    unread = (await site.client.get("/api/v1/me/notices", headers=header)).json()
    assert unread["unread"] == 1
    up_to = unread["notices"][0]["notice_id"]
    await site.client.post("/notices/read", data={"form_token": token, "up_to": str(up_to)})
    unread = (await site.client.get("/api/v1/me/notices", headers=header)).json()
    assert unread["unread"] == 0
    kept = await site.client.post(
        "/notices/wish",
        data={
            "form_token": token,
            "mail": "w@example.org",
            "language": "en",
            "mail_case_due": "on",
        },
    )
    assert kept.status_code == 303
    wish = (await site.client.get("/api/v1/me/wish", headers=header)).json()
    assert wish == {"mail": "w@example.org", "language": "en", "mail_kinds": ["case_due"]}
    brief = (await site.client.get("/brief")).text
    assert "open cases of yours: 1" in brief
    seen = await site.client.post("/brief/seen", data={"form_token": token})
    assert seen.status_code == 303
    brief = (await site.client.get("/brief")).text
    assert "cases opened" not in brief


async def test_an_operators_user_reads_its_own_notices_and_no_brief(site: Site) -> None:
    case_id = await open_case(site.database, operator="OP2")
    await enter(site.database, case_id, "wang", "asked", for_operator=True)
    await look(site.database)
    for name, count in (("op1", 0), ("op2", 1)):
        header = await site.token(name)
        found = (await site.client.get("/api/v1/me/notices", headers=header)).json()
        assert len(found["notices"]) == count
        assert (await site.client.get("/api/v1/brief", headers=header)).status_code == 403
        assert (await site.client.get("/api/v1/webhooks", headers=header)).status_code == 403

"""Pages as a browser gets them, in every state."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import delete, insert, update

from chargewatch.storage import users
from chargewatch.storage.pile_index import driver_of, rebuild
from chargewatch.storage.tables import (
    assessment,
    latest_reading,
    money_month,
    money_owed,
    money_total,
    risk_run,
    run_state,
    signal,
    station,
)
from chargewatch.supervision.complaints.filing import NewComplaint, file_complaint
from chargewatch.supervision.permissions import Permission
from chargewatch.web import site as site_map
from chargewatch.web.server import address_of, listen, make_server
from web_cases import FILE_ID, NUMBER, seed_cases
from web_client import Site, open_site

OF_OP2 = {
    "connector": "TJ0001-01-1",
    "station_id": "TJ0001",
    "operator_id": "OP2",
    "number": NUMBER,
    "file_id": FILE_ID,
    "complaint_id": "1",
    "verification_id": "1",
    "list_name": "stations",
    "row_name": "TJ0001",
}
PAGES = (
    *(
        page.address(**OF_OP2)
        for page in site_map.PAGES
        if page.whole and not page.public and not re.search("draw_id|complaint_id", page.path)
    ),
    "/piles?tier=red&tier=grey&q=TJ&sort=error&page=1",
    "/piles/TJ0001-05-1",
    "/piles/TJ0001-06-1",
    "/piles/TJ0001-01-1?sessions=2",
    "/stations/TJ0001?days=30",
    "/stations/TJ0009",
    "/signals?state=all&code=register_jump&station=TJ0001",
    "/system?show=gaps&station=TJ0001&code=conflict",
)


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        await seed_cases(opened.database, [("OP2", "TJ0001", "TJ0001-01-1", "it")])
        told = NewComplaint(
            connector="TJ0001-01-1", kind="price", text="dear", session_text=None,
            session_at=None, bill_cny=None, contact=None, language="en",
        )  # fmt: skip
        await file_complaint(
            opened.database, told, now=datetime.now(UTC), zone=ZoneInfo("Asia/Shanghai")
        )
        opened.client.headers.update(await opened.token("admin"))
        yield opened


@pytest.fixture
async def empty_site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url, seeded=False) as opened:
        opened.client.headers.update(await opened.token("admin"))
        yield opened


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_every_page_is_whole_in_both_languages(site: Site, language: str) -> None:
    site.client.cookies.set("chargewatch_language", language)
    for path in PAGES:
        answer = await site.client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-language"] == language
        assert "Asia/Shanghai (UTC+08:00)" in answer.text, path
        assert not re.search(r"\bnan\b|None|Undefined", answer.text), path
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|<style", answer.text), path


@pytest.mark.parametrize(
    "path",
    [page.path for page in site_map.PAGES if page.group and page.permission is Permission.SEE],
)
async def test_empty_pages_say_what_to_do_next(empty_site: Site, path: str) -> None:
    answer = await empty_site.client.get(path)
    assert answer.status_code == 200
    assert "chargewatch" in re.findall(r'class="empty">(.*?)</div>', answer.text, re.S)[0]


async def test_piles_are_listed_before_the_first_run(site: Site) -> None:
    async with site.database.begin() as connection:
        money = (money_month, money_owed, money_total)
        for table in (*money, signal, run_state, assessment, risk_run):
            await connection.execute(delete(table))
    page = await site.client.get("/piles")
    assert "120 piles" in page.text
    assert "Not assessed" in page.text
    pile = await site.client.get("/piles/TJ0001-01-1")
    assert "Not assessed in the newest run" in pile.text


async def test_piles_that_have_just_become_red_come_first(site: Site) -> None:
    async with site.database.begin() as connection:
        await connection.execute(
            update(assessment)
            .where(assessment.c.run_id == 13, assessment.c.connector_id == 1)
            .values(tier="yellow")
        )
        await rebuild(await driver_of(connection))
    page = (await site.client.get("/")).text
    section = page[page.index('id="red-title"') :]
    first = re.findall(r"<tbody>.*?</tr>", section, re.S)[0]
    assert "TJ0001-01-1" in first
    assert ">new<" in first
    assert section.count(">new<") == 1


async def test_pile_names_the_regulation_behind_its_limit(site: Site) -> None:
    answer = (await site.client.get("/api/v1/piles/TJ0001-01-1")).json()
    assert answer["assessment"]["rules"]["valid_until"] == "2023-12-28"
    page = (await site.client.get("/piles/TJ0001-01-1", headers={"accept-language": "en"})).text
    assert "JJG 1148-2022 (CN-2022)" in page
    assert "not in force on the day that was judged" in page
    assert "not checked against the text of the regulation" in page
    page = (await site.client.get("/piles/TJ0001-01-1", headers={"accept-language": "zh"})).text
    assert "在评估日期不在有效期内" in page
    assert "数值未与规程原文核对" in page


async def test_pile_shows_what_was_declared_to_have_changed(site: Site) -> None:
    page = (await site.client.get("/piles/TJ0001-01-1", headers={"accept-language": "en"})).text
    assert "Declared changes" in page
    assert "Meter replaced" in page
    assert "1,254.310" in page
    page = (await site.client.get("/piles/TJ0001-01-1", headers={"accept-language": "zh"})).text
    assert "更换电能表" in page


async def test_pile_says_why_it_is_flagged(site: Site) -> None:
    text = (await site.client.get("/piles/TJ0001-01-1")).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "−2.0 % ± 0.4 %" in text
    assert "It indicates 2.0 % ± 0.4 % less energy than it delivers; allowed is 1.0 %." in text
    assert "Error at light load" in text
    assert "+5.1 % ± 2.0 %" in text
    assert "2 integrity signals are open: Loss-adjusted billing, Verification expired." in text
    grey = (await site.client.get("/piles/TJ0001-05-1")).text
    assert "The data can&#39;t identify its error." in grey
    assert "No reference meter, no verification and 3 of at least 8 sessions" in grey
    chinese = await site.client.get("/piles/TJ0001-05-1", headers={"accept-language": "zh"})
    assert "没有参考表和检定，已知车辆的充电仅 3 次（至少需要 8 次）。" in chinese.text


async def test_what_gateways_send_is_shown_as_text(site: Site) -> None:
    async with site.database.begin() as connection:
        await connection.execute(
            update(station)
            .where(station.c.station_id == "TJ0001")
            .values(name='<img src=x onerror=alert(1)>"')
        )
    for path in ("/", "/piles", "/piles/TJ0001-01-1", "/stations", "/stations/TJ0001", "/system"):
        text = (await site.client.get(path)).text
        assert "<img src=x" not in text, path
        assert "<script>alert" not in text, path


async def test_stale_values_say_how_old_they_are(site: Site) -> None:
    text = (await site.client.get("/piles?q=TJ0001-06")).text
    assert re.search(r'class="age stale".*?3 days ago', text, re.S)


async def test_page_beyond_the_end_is_empty_not_an_error(site: Site) -> None:
    assert (await site.client.get("/piles?page=999")).status_code == 200
    assert (await site.client.get("/piles/TJ0001-01-1?sessions=999")).status_code == 200
    assert (await site.client.get("/piles?page=0")).status_code == 422


async def test_missing_page_is_a_page(site: Site) -> None:
    answer = await site.client.get("/piles/NOPE")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "NOPE" in answer.text


async def test_lost_database_is_said_in_words(database_url: str, embedded_server: Any) -> None:
    async with open_site(database_url) as site:
        header = await site.token("admin")
        await embedded_server.drop(database_url)
        answer = await site.client.get("/api/v1/piles", headers=header)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        assert answer.json()["error"]["code"] == "database_down"
        page = await site.client.get("/piles", headers=header)
        assert page.status_code == 503
        assert "The database does not answer" in page.text
        health = await site.client.get("/api/v1/health")
        assert (health.status_code, health.json()["database"]) == (503, "no answer")


async def test_live_values_arrive_as_events_and_streams_end(site: Site) -> None:
    header = {"authorization": site.client.headers["authorization"]}
    server = make_server(site.app)
    with closing(listen("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with httpx.AsyncClient(
            base_url=address_of(listener), headers=header, timeout=60
        ) as client:
            names = []
            async with (
                asyncio.timeout(60),
                client.stream("GET", "/api/v1/events?connector=TJ0001-01-1") as stream,
            ):
                assert stream.headers["content-type"].startswith("text/event-stream")
                async for line in stream.aiter_lines():
                    if line.startswith("event: "):
                        names.append(line.removeprefix("event: "))
                    if line.startswith("data: ") and names[-1] == "reading":
                        assert json.loads(line.removeprefix("data: "))["energy_wh"] == 4242.0
                        break
                    if names == ["arrival"] and line.startswith("data: "):
                        assert json.loads(line.removeprefix("data: "))["stations"] == 12
                        now = datetime.now(UTC)
                        async with site.database.begin() as connection:
                            await connection.execute(
                                update(latest_reading)
                                .where(latest_reading.c.connector_id == 1)
                                .values(at=now, received_at=now, energy_wh=4242.0)
                            )
        server.should_exit = True
        async with asyncio.timeout(30):
            await serving
    assert site.app.state.service.streams.taken == 0


async def test_streams_and_exports_are_bounded_for_a_user_and_for_all(site: Site) -> None:
    async with site.database.connect() as connection:
        row = await users.user_by_name(connection, "admin")
    assert row is not None
    service = site.app.state.service
    for slots, path, a_user, in_all in (
        (service.streams, "/api/v1/events", 20, 200),
        (service.exports, "/piles.csv", 3, 12),
    ):
        for _ in range(a_user):
            slots.take(row["user_id"])
        answer = await site.client.get(path)
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (429, True)
        slots.release(row["user_id"])
        for other in range(in_all - a_user + 1):
            slots.take(1_000 + other)
        assert (await site.client.get(path)).status_code == 503
        assert slots.taken == in_all


async def test_a_new_run_is_shown_at_once(site: Site) -> None:
    assert "5.0" in (await site.client.get("/")).text
    now = datetime.now(UTC)
    async with site.database.begin() as connection:
        await connection.execute(
            insert(risk_run).values(
                state="finished",
                mode="full",
                as_of=now,
                started_at=now,
                finished_at=now,
                version="0.1.0",
                configuration={},
                summary={"tiers": {}},
            )
        )
    listed = (await site.client.get("/api/v1/piles")).json()
    assert (listed["total"], listed["piles"]) == (0, [])

"""The page behind a pile's QR code: what it says first, and what it never says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta
from xml.etree import ElementTree

import pytest
from sqlalchemy import delete, insert, update

from chargewatch.storage import tables
from web_client import Site, open_site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        now = opened.app.state.service.clock()
        opened.app.state.service.clock = lambda: now
        yield opened


def today_of(site: Site) -> date:
    return site.app.state.service.clock().date()


async def verify(site: Site, connector_id: int, on: date, until: date | None, result: str) -> None:
    async with site.database.begin() as connection:
        await connection.execute(
            insert(tables.verification).values(
                connector_id=connector_id,
                verified_on=on,
                valid_until=until,
                result=result,
                relative_error=0.0123,
                certificate=f"NEW-{on}",
                institute="天津市计量监督检测科学研究院",
            )
        )


def state_of(text: str) -> str:
    found = re.search(r'class="answer answer-(\w+)"', text)
    assert found is not None
    return found[1]


async def test_a_verified_pile_says_so_before_anything_else(site: Site) -> None:
    page = await site.client.get("/p/TJ0001-01-1")
    assert page.status_code == 200
    main = page.text.partition("<main")[2]
    assert re.match(r'[^<]*<section class="answer answer-verified"', main.partition(">")[2])
    until = (today_of(site) + timedelta(days=1000)).isoformat()
    for words in (until, "V-0", "Tianjin Institute of Metrology", "TJ0001-01-1"):
        assert words in page.text
    assert 'href="/p/TJ0001-01-1/complain"' in page.text
    assert 'href="/check?connector=TJ0001-01-1"' in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    assert "style=" not in page.text


async def test_it_speaks_chinese(site: Site) -> None:
    page = await site.client.get("/p/TJ0001-01-1", headers={"accept-language": "zh-CN"})
    assert "检定有效" in page.text
    assert 'lang="zh-CN"' in page.text


async def test_what_the_newest_verification_says_counts(site: Site) -> None:
    today = today_of(site)
    assert state_of((await site.client.get("/p/TJ0001-10-1")).text) == "never"
    # The last day of validity is a valid one.
    await verify(site, 10, today - timedelta(days=900), today, "pass")
    assert state_of((await site.client.get("/p/TJ0001-10-1")).text) == "verified"
    await verify(site, 10, today - timedelta(days=800), today - timedelta(days=1), "pass")
    assert state_of((await site.client.get("/p/TJ0001-10-1")).text) == "expired"
    await verify(site, 10, today - timedelta(days=700), None, "pass")
    assert state_of((await site.client.get("/p/TJ0001-10-1")).text) == "undated"
    await verify(site, 10, today - timedelta(days=600), None, "fail")
    assert state_of((await site.client.get("/p/TJ0001-10-1")).text) == "failed"
    # One of tomorrow is not yet one.
    await verify(site, 10, today + timedelta(days=2), today + timedelta(days=900), "pass")
    assert state_of((await site.client.get("/p/TJ0001-10-1")).text) == "failed"


async def test_an_error_of_a_verification_is_no_figure_for_the_public(site: Site) -> None:
    await verify(site, 1, today_of(site), None, "pass")
    for address in ("/p/TJ0001-01-1", "/api/v1/public/piles/TJ0001-01-1"):
        text = (await site.client.get(address)).text
        assert "1.23" not in text
        assert "0.0123" not in text


async def test_a_claim_looks_like_a_name_that_nobody_has_heard_of(site: Site) -> None:
    async with site.database.begin() as connection:
        for operator_id, station_id in (("OP1", "TJ0002"), ("OP2", "TJ0001")):
            await connection.execute(
                insert(tables.connector).values(
                    connector="CLAIMED-1",
                    operator_id=operator_id,
                    station_id=station_id,
                    registered=False,
                )
            )
    pages = {}
    for name in ("CLAIMED-1", "UNKNOWN-1"):
        page = await site.client.get(f"/p/{name}")
        assert page.status_code == 404
        assert f'href="/p/{name}/complain"' in page.text
        pages[name] = page.text.replace(name, "NAME")
        answer = await site.client.get(f"/api/v1/public/piles/{name}")
        assert answer.status_code == 404
        pages[name] += answer.text.replace(name, "NAME")
    assert pages["CLAIMED-1"] == pages["UNKNOWN-1"]


@pytest.mark.parametrize(
    "name",
    ["x" * 65, "%0A", "a%E2%80%AEb", "%20TJ0001-01-1", "<script>", "%2E%2E", "a%2Fb", "%FF", "桩1"],
)
async def test_odd_names_are_answered(site: Site, name: str) -> None:
    for path in (f"/p/{name}", f"/p/{name}/complain"):
        page = await site.client.get(path)
        assert page.status_code in {200, 404}, path
        assert "<script>" not in page.text


async def test_inspections_are_told_when_their_draw_is_public(site: Site) -> None:
    now = site.app.state.service.clock()
    draw = {
        "draw_id": "2026-11", "state": "drawn", "list_text": "", "list_sha256": "0" * 64,
        "piles": 1, "lots": {}, "excluded": {}, "weights_rule": "W", "size": 1,
        "uniform_share": 1, "crew": 2, "due_days": 20, "frozen_at": now, "made_by": "admin",
    }  # fmt: skip
    inspection = {
        "draw_id": "2026-11", "connector": "TJ0001-01-1", "station_id": "TJ0001",
        "operator_id": "OP2", "inspector": "wu", "crew": ["wu", "he"], "part": "uniform",
        "rank": 1, "planned_at": now, "due_on": today_of(site), "state": "done",
        "result": "fail", "done_on": today_of(site),
    }  # fmt: skip
    async with site.database.begin() as connection:
        await connection.execute(insert(tables.inspection_draw).values(**draw))
        await connection.execute(insert(tables.inspection).values(**inspection))
        # Of a case: between the parties.
        of_case = inspection | {"draw_id": None, "rank": None, "part": "case", "case_id": 1}
        await connection.execute(insert(tables.inspection).values(**of_case))
    hidden = (await site.client.get("/api/v1/public/piles/TJ0001-01-1")).json()
    assert hidden["last_inspection"] is None
    assert "wu" not in (await site.client.get("/p/TJ0001-01-1")).text
    async with site.database.begin() as connection:
        await connection.execute(update(tables.inspection_draw).values(opened_at=now))
    shown = (await site.client.get("/api/v1/public/piles/TJ0001-01-1")).json()
    assert shown["last_inspection"] == {
        "done_on": str(today_of(site)), "result": "fail", "draw_id": "2026-11",
    }  # fmt: skip
    assert "not passed" in (await site.client.get("/p/TJ0001-01-1")).text


async def test_the_grade_is_the_newest_published_one(site: Site) -> None:
    async with site.database.begin() as connection:
        await connection.execute(delete(tables.credit_grade))
    assert "credit grade" not in (await site.client.get("/p/TJ0001-01-1")).text
    async with site.database.begin() as connection:
        for month, revision, grade in ((9, 0, "A"), (10, 0, "C"), (10, 1, "B")):
            await connection.execute(
                insert(tables.credit_grade).values(
                    operator_id="OP2",
                    month=date(2026, month, 1),
                    revision=revision,
                    grade=grade,
                    score=77,
                    arithmetic={"rules": {"version": "1"}, "secret": "lines"},
                    rule_version="1",
                    made_at=site.app.state.service.clock(),
                    made_by="admin",
                )
            )
    assert "credit grade B (2026-10)" in (await site.client.get("/p/TJ0001-01-1")).text
    told = (await site.client.get("/api/v1/public/piles/TJ0001-01-1")).json()
    assert told["operator_grade"] == {"month": "2026-10", "grade": "B"}


async def test_labels_need_the_address_of_the_public(site: Site) -> None:
    service = site.app.state.service
    service.settings = replace(service.settings, public_url="")
    await site.log_in("admin")
    page = await site.client.get("/piles/TJ0001-01-1/label")
    assert "CHARGEWATCH_PUBLIC_URL" in page.text
    assert (await site.client.get("/piles/TJ0001-01-1/label.svg")).status_code == 404


async def test_a_label_holds_the_absolute_address_in_both_languages(site: Site) -> None:
    await site.log_in("op2")
    page = await site.client.get("/piles/TJ0001-01-1/label")
    assert "https://piles.example/p/TJ0001-01-1" in page.text
    assert "Is this pile verified?" in page.text
    assert "计量检定查询" in page.text
    picture = await site.client.get("/piles/TJ0001-01-1/label.svg")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert ElementTree.fromstring(picture.content).tag.endswith("svg")
    sheet = await site.client.get("/stations/TJ0001/labels")
    assert sheet.text.count("<figure") == 10
    for foreign in ("/piles/TJ0002-01-1/label", "/stations/TJ0002/labels"):
        assert (await site.client.get(foreign)).status_code == 404

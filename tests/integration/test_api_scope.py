"""An operator's user sees its own piles only, at every address that there is."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from evidence_case import seed_evidence
from sqlalchemy import update

from chargewatch.storage import tables
from chargewatch.supervision.complaints.filing import NewComplaint, file_complaint
from chargewatch.supervision.permissions import PERMISSIONS, Role
from chargewatch.web import site as web_site
from running import RunCommand
from web_cases import FILE_ID, NUMBER, seed_cases
from web_client import Site, open_site

ADDRESSES = (
    "/piles?limit=500",
    "/piles?limit=500&operator=OP1",
    "/piles?limit=500&q=TJ&sort=error",
    "/piles?limit=500&sort=connector",
    "/stations?limit=500",
    "/signals?limit=500",
    "/runs",
    "/ingest/ledger?limit=500",
    "/ingest/ledger?operator=OP1",
    "/ingest/quarantine",
    "/piles/TJ0001-01-1",
    "/piles/TJ0001-01-1/history",
    "/piles/TJ0001-01-1/sessions",
    "/piles/TJ0001-01-1/changes",
    "/piles/TJ0001-01-1/evidence",
    "/piles/TJ0001-01-1/evidence.zip",
    "/piles/TJ0001-01-1/readings",
    "/piles/TJ0001-01-1/money",
    "/piles/TJ0001-01-1/money/sessions?show=all&limit=500",
    "/money",
    "/money/piles?limit=500",
    "/stations/TJ0001",
    "/complaints?state=all",
    "/complaints/1",
    "/inspections?limit=500",
    "/cases?state=all&limit=500",
    "/cases?operator=OP1&state=all&sort=changed",
    "/cases?subject=connector:TJ0002-01-1&state=all&sort=deadline",
    f"/cases/{NUMBER}",
    f"/cases/{NUMBER}/files/{FILE_ID}",
    "/registry/instruments?limit=500",
    "/registry/export",
    "/registry/export?form=csv",
    "/registry/ledger-file",
    "/registry/stations",
    "/registry/connectors/TJ0001-01-1",
    "/registry/connectors/TJ0001-01-1/history",
    "/registry/due?within=1000&limit=500",
    "/registry/coverage?by=operator",
    "/me",
    "/me/tokens",
    "/me/notices",
    "/me/wish",
    "/operators",
    "/outcomes?limit=500",
    "/outcomes/figures",
    "/verifications?limit=500",
    "/verifications/1",
    "/verifications/1/dcc.xml",
    "/operators/OP2",
    "/operators/OP2/grades/2026-01",
)
# What no operator's user may ask for.
REFUSED = (
    "/users",
    "/audit",
    "/draws",
    "/draws/2026-12",
    "/lots",
    "/inspections/route",
    "/piles/TJ0001-01-1/settles",
    "/jobs",
    "/jobs/{job_id}",
    "/brief",
    "/webhooks",
)
OF_OP2 = {
    "connector": "TJ0001-01-1",
    "station_id": "TJ0001",
    "operator_id": "OP2",
    "complaint_id": "1",
    "number": NUMBER,
    "file_id": FILE_ID,
    "verification_id": "1",
    "list_name": "stations",
    "row_name": "TJ0001",
}
PAGES = [
    page.address(**OF_OP2)
    for page in web_site.PAGES
    if not page.public and page.permission in PERMISSIONS[Role.OPERATOR]
]
PAGES += ["/signals?state=all", "/cases?state=all", "/cases?operator=OP2&sort=changed"]
# TJ0001, TJ0004, TJ0007 and TJ0010 belong to OP2, the others to OP1.
FOREIGN = re.compile(r"TJ00(02|03|05|06|08|09|11|12)|OP1\b|津充运营")


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        for connector in ("TJ0001-01-1", "TJ0002-01-1"):
            told = NewComplaint(
                connector=connector, kind="price", text=f"Of {connector}", session_text=None,
                session_at=None, bill_cny=None, contact=None, language="en",
            )  # fmt: skip
            await file_complaint(
                opened.database, told, now=datetime.now(UTC), zone=ZoneInfo("Asia/Shanghai")
            )
        await seed_evidence(
            opened.database,
            [("OP2", "TJ0001", "TJ0001-01-1"), ("OP1", "TJ0002", "TJ0002-01-1")],
        )
        await seed_cases(
            opened.database,
            [
                ("OP2", "TJ0001", "TJ0001-01-1", "TJ0001"),
                ("OP1", "TJ0002", "TJ0002-01-1", "TJ0002"),
                ("OP2", "TJ0004", "TJ0004-01-1", "TJ0004"),
            ],
        )
        async with opened.database.begin() as connection:
            await connection.execute(update(tables.verification).values(file_id=int(FILE_ID)))
        yield opened


async def test_nothing_of_another_operator_is_in_any_answer(site: Site) -> None:
    header = await site.token("op2")
    for address in ADDRESSES:
        answer = await site.client.get("/api/v1" + address, headers=header)
        assert answer.status_code == 200, address
        assert not FOREIGN.search(answer.text), address


async def test_users_and_the_audit_trail_are_no_operators_business(site: Site) -> None:
    header = await site.token("op2")
    for address in REFUSED:
        answer = await site.client.get("/api/v1" + address, headers=header)
        assert answer.status_code == 403, address
        assert not FOREIGN.search(answer.text), address


async def test_nothing_of_another_operator_is_on_any_page(site: Site) -> None:
    await site.log_in("op2")
    for address in PAGES:
        answer = await site.client.get(address)
        assert answer.status_code == 200, address
        assert not FOREIGN.search(answer.text), address


async def test_the_tests_above_would_see_it(site: Site) -> None:
    await site.log_in("admin")
    for address in ("/", "/piles", "/piles.csv", "/stations", "/system", "/cases"):
        assert FOREIGN.search((await site.client.get(address)).text), address


@pytest.mark.parametrize(
    "address",
    [
        "/piles/TJ0002-01-1",
        "/piles/TJ0002-01-1/history",
        "/piles/TJ0002-01-1/sessions",
        "/piles/TJ0002-01-1/changes",
        "/piles/TJ0002-01-1/evidence",
        "/piles/TJ0002-01-1/evidence.zip",
        "/piles/TJ0002-01-1/readings",
        "/piles/TJ0002-01-1/money",
        "/piles/TJ0002-01-1/money/sessions",
        "/stations/TJ0002",
        "/operators/OP1",
        "/operators/OP1/grades/2026-01",
        "/complaints/2",
    ],
)
async def test_what_is_not_ones_own_looks_like_nothing(site: Site, address: str) -> None:
    header = await site.token("op2")
    hidden = await site.client.get("/api/v1" + address, headers=header)
    nothing = re.sub("TJ0002|OP1", "NOPE", address).replace("/2", "/9")
    missing = await site.client.get("/api/v1" + nothing, headers=header)
    assert hidden.status_code == missing.status_code == 404
    assert hidden.json()["error"]["code"] == missing.json()["error"]["code"]


async def test_the_citys_figures_are_not_an_operators(site: Site) -> None:
    header = await site.token("op2")
    runs = (await site.client.get("/api/v1/runs", headers=header)).json()["runs"]
    assert {row["summary"] for row in runs} == {None}
    listed = (await site.client.get("/api/v1/piles", headers=header)).json()
    assert listed["total"] == 40
    await site.log_in("op2")
    assert "Expected missed" not in (await site.client.get("/")).text


async def test_the_command_prints_the_document_that_the_server_gives(
    site: Site, run_command: RunCommand
) -> None:
    printed = run_command("openapi")
    assert printed.returncode == 0, printed.stderr
    assert json.loads(printed.stdout) == (await site.client.get("/api/v1/openapi.json")).json()


async def test_every_address_of_the_openapi_document_is_covered_here(site: Site) -> None:
    document = (await site.client.get("/api/v1/openapi.json")).json()
    reads = {path for path, verbs in document["paths"].items() if "get" in verbs}
    tested = {
        re.sub(
            r"/OP2\b",
            "/{operator_id}",
            re.sub(r"TJ0001-01-1", "{connector}", re.sub(r"/TJ0001$", "/{station_id}", address)),
        )
        .replace("2026-01", "{month}")
        .replace("complaints/1", "complaints/{complaint_id}")
        .replace("verifications/1", "verifications/{verification_id}")
        .replace("2026-12", "{draw_id}")
        .replace(f"/{NUMBER}", "/{number}")
        .replace(f"/files/{FILE_ID}", "/files/{file_id}")
        .replace("registry/connectors/{connector}", "registry/{list_name}/{row_name}")
        .replace("registry/stations", "registry/{list_name}")
        for address in (f"/api/v1{item.split('?')[0]}" for item in ADDRESSES + REFUSED)
    }
    # health has no data of anybody, events are tested with a real server.
    # What is for everybody is the same for all: test_api_shared_names.py.
    reads = {path for path in reads if not path.startswith("/api/v1/public/")}
    assert reads - tested == {"/api/v1/health", "/api/v1/events"}


async def test_nobody_reads_anything_without_a_log_in(site: Site) -> None:
    for address in ADDRESSES:
        assert (await site.client.get("/api/v1" + address)).status_code == 401, address
    for address in PAGES:
        assert (await site.client.get(address)).status_code == 303, address
    assert (await site.client.get("/api/v1/events")).status_code == 401

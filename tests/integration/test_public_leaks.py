"""No route without a log-in tells anything of what the office knows of a flagged pile.

Everything that any table holds is searched for in everything that anybody can ask, except what
docs/public.md says is public.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import insert, select

from chargewatch.storage import tables
from chargewatch.supervision.complaints.filing import NewComplaint, file_complaint
from chargewatch.supervision.public import PILE_COLUMNS
from complaint_forms import mark_of, with_clock
from web_client import Site, open_site

FLAGGED = "TJ0001-01-1"
# What is public by name; of credit, what docs/credit.md says.
PUBLIC_TABLES = {
    "operator": {"operator_id", "name"},
    "station": {"station_id", "operator_id", "name", "district", "address"},
    "connector": {"connector", "operator_id", "station_id", "current"},
    "verification": {"verified_on", "valid_until", "result", "certificate", "institute"},
    "inspection_draw": {"draw_id"},
    "inspection": {"draw_id", "connector", "operator_id", "station_id", "result", "done_on"},
    "credit_grade": {*tables.credit_grade.columns.keys()},
    "self_commitment": {*tables.self_commitment.columns.keys()},
}
# No log-in, and nothing of piles: who asks shows itself there, or learns how the service is.
NOT_OF_PILES = {
    "/login", "/login/provider", "/login/provider/back", "/logout", "/preferences",
    "/favicon.ico", "/api/v1/openapi.json", "/api/v1/health", "/api/v1/login", "/api/v1/me",
    "/api/v1/telemetry/{kind}",
}  # fmt: skip
ASKED = {
    "{connector}": FLAGGED, "{station_id}": "TJ0001", "{operator_id}": "OP2",
    "{month}": "2026-10", "{draw_id}": "2026-11",
}  # fmt: skip
# Words of a page that a table may hold, too.
ORDINARY = re.compile(
    r"[a-z_ ]{1,12}|\d{1,4}|TJ\d{4}(-\d\d)*(-\d)?|Tianjin.*|CN-20\d\d|\d{4}-\d\d"
    r"|application/json|\d+\.\d+\.\d+", re.I,
)  # fmt: skip


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        now = datetime.now(UTC)
        told = NewComplaint(
            connector=FLAGGED, kind="energy", text="A complaint that another driver wrote",
            session_text="ORDER-4711-OF-ANOTHER", session_at=now, bill_cny=Decimal("8765.43"),
            contact="another@driver.example", language="en",
        )  # fmt: skip
        await file_complaint(opened.database, told, now=now, zone=ZoneInfo("Asia/Shanghai"))
        async with opened.database.begin() as connection:
            await connection.execute(
                insert(tables.office_case).values(
                    number="2026-000123", operator_id="OP2", station_id="TJ0001",
                    connector=FLAGGED, subject=f"connector:{FLAGGED}", origin="flag",
                    origin_key="flag-origin-key", title="A case about this pile", state="open",
                    deadline=date(2026, 12, 1), opened_by="inspector-wu", opened_at=now,
                    changed_at=now,
                )
            )  # fmt: skip
        yield opened


def is_open(dependant: Any) -> bool:
    inner = dependant.dependencies
    return not any(hasattr(one.call, "permission") or not is_open(one) for one in inner)


def open_routes(site: Site) -> list[tuple[str, str]]:
    """Return method and path of every route that needs no permission."""
    found = []
    for context in iter_route_contexts(site.app.routes):
        if not isinstance(context.route, APIRoute) or not is_open(context.dependant):
            continue
        for method in sorted((context.methods or set()) - {"HEAD"}):
            if context.path not in NOT_OF_PILES:
                found.append((method, context.path or ""))
    return found


async def everything_told(site: Site) -> dict[str, str]:
    """Return what everybody can be told: each open address about the flagged pile, and more."""
    clock, told = with_clock(site), {}

    async def keep(name: str, answer: httpx.Response) -> None:
        assert answer.status_code < 500, name
        told[name] = f"{answer.text}\n{answer.headers}"

    for method, path in open_routes(site):
        clock.now_s += 60
        address = path
        for name, value in ASKED.items():
            address = address.replace(name, value)
        assert "{" not in address, f"{path}: say in ASKED what to ask for"
        if method == "GET":
            for language in ("zh", "en"):
                for question in ("", "?limit=1000", f"?connector={FLAGGED}", "?station=TJ0001"):
                    url = address + question
                    headers = {"accept-language": language}
                    await keep(f"{url} {language}", await site.client.get(url, headers=headers))
            continue
        data = {"connector": FLAGGED, "record": "OCMF|{}|{}", "reference": "00000-00000-00000"}
        if path == "/p/{connector}/complain":
            data |= {"mark": await mark_of(site, FLAGGED), "kind": "price"}
            data |= {"text": "Another complaint about this pile"}
            clock.now_s += 10
        await keep(f"POST {address}", await site.client.post(address, data=data))
    return told


def shown_as(value: Any) -> Iterator[str]:
    """Yield how a value would be written, where that can't be mistaken for anything else."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, str) and len(value) > 4 and not ORDINARY.fullmatch(value):
        yield value
    elif isinstance(value, int | float | Decimal):
        number = float(value)
        if not math.isfinite(number) or len(str(abs(number)).strip("0.").replace(".", "")) < 4:
            return
        yield str(value)
        if abs(number) < 1:
            yield from (f"{number * 100:.2f}".lstrip("-"), f"{number:.4f}".lstrip("-"))
        else:
            yield from (f"{number:,.0f}", f"{number:.2f}", f"{number / 1000:,.3f}")
    elif isinstance(value, bytes) and len(value) > 4:
        yield value.hex()
    elif isinstance(value, dict):
        for inner in value.values():
            yield from shown_as(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from shown_as(inner)


async def secrets(site: Site) -> dict[str, str]:
    """Return everything that the tables hold and nobody may be told, and where it stands."""
    found: dict[str, str] = {}
    public: list[str] = []
    async with site.database.connect() as connection:
        for table in tables.metadata.sorted_tables:
            rows = (await connection.execute(select(table).limit(300))).mappings().all()
            for row in rows:
                for column, value in row.items():
                    if column in PUBLIC_TABLES.get(table.name, ()):
                        public += shown_as(value)
                        continue
                    for text in shown_as(value):
                        found.setdefault(text, f"{table.name}.{column}")
    known = set(public)
    return {text: place for text, place in found.items() if text not in known and len(text) > 4}


async def test_nobody_is_told_what_the_office_knows(site: Site) -> None:
    hidden = await secrets(site)
    # The search is for something: errors, signals, sessions, keys, complaints, cases, people.
    for place in (
        "assessment.relative_error", "assessment.reason", "signal.detail",
        "charging_session.session", "connector.signing_key", "connector.serial",
        "complaint.text", "complaint.reference",
        "complaint_contact.contact", "office_case.number",
    ):  # fmt: skip
        assert place in hidden.values(), place
    told = await everything_told(site)
    assert len(told) > 60
    leaks = {
        f"{where}: {place} {text!r}"
        for where, answer in told.items()
        for text, place in hidden.items()
        if text in answer and re.search(rf"(?<![\w.,-]){re.escape(text)}(?!\w)", answer)
    }
    assert leaks == set()


async def test_the_words_of_a_flag_are_on_no_public_page(site: Site) -> None:
    words = re.compile(
        r"tier|nonconform|\bred\b|verdict|assess|suspicio|flag|signal|case\b|risk|probab|"
        r"红|嫌疑|预警|风险|不合规|案件|信号|评估",
        re.IGNORECASE,
    )
    for where, answer in (await everything_told(site)).items():
        if where.startswith(("/p/", "/check", "/complaints", "POST", "/api/v1/public/piles")):
            body = answer.partition("<main")[2] or answer.partition("\nHeaders(")[0]
            found = words.search(re.sub(r"(?s)<(link|style).*?>", "", body))
            assert found is None, f"{where}: {body[found.start() - 80 : found.end() + 40]}"


async def test_a_flagged_pile_and_a_green_one_look_alike(site: Site) -> None:
    """The same verification, one pile red and one green: not a byte differs but the names."""
    now = site.app.state.service.clock()
    site.app.state.service.clock = lambda: now
    async with site.database.begin() as connection:
        query = (
            select(tables.connector.c.connector, tables.connector.c.connector_id)
            .join(
                tables.assessment,
                tables.assessment.c.connector_id == tables.connector.c.connector_id,
            )
            .where(tables.connector.c.station_id == "TJ0001", tables.assessment.c.tier == "green")
        )
        green = (await connection.execute(query)).first()
        assert green is not None
        for connector_id in (1, green.connector_id):
            await connection.execute(
                insert(tables.verification).values(
                    connector_id=connector_id, verified_on=now.date(), certificate="ALIKE",
                    valid_until=date(2099, 1, 1), result="pass",
                )
            )  # fmt: skip
    for path in ("/p/{}", "/api/v1/public/piles/{}"):
        pages = []
        for name in (FLAGGED, green.connector):
            page = await site.client.get(path.format(name))
            pages.append(page.text.replace(name, "NAME"))
        assert pages[0] == pages[1]


async def test_every_route_for_everybody_is_counted(site: Site) -> None:
    clock = with_clock(site)
    site.app.state.service.door.reads.most = 1
    for method, path in open_routes(site):
        for name, value in ASKED.items():
            path = path.replace(name, value)
        clock.now_s += 61
        answers = [(await site.client.request(method, path)).status_code for _ in range(2)]
        assert answers[0] != 429, path
        assert answers[1] == 429, path


async def test_the_search_would_find_a_leak(site: Site) -> None:
    await site.log_in("admin")
    hidden = await secrets(site)
    page = (await site.client.get(f"/piles/{FLAGGED}")).text
    found = {hidden[text] for text in hidden if text in page}
    assert {"signal.detail", "charging_session.session", "connector.serial"} <= found
    assert set(PILE_COLUMNS) > PUBLIC_TABLES["connector"]

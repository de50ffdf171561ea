"""Two operators claim the same names: neither sees anything of the other, at any route."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from chargewatch.api import events
from chargewatch.supervision import accounts, tokens
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from complaint_forms import MARK
from shared_names_city import CONNECTORS, OPERATORS, STATIONS, mark, number, seed_shared_names
from shared_names_office import seed_shared_office
from web_cases import seed_cases
from web_client import PASSWORD, Site, open_site
from web_routes import Address, addresses, variations

# What to ask every parameter for. A route with a new one fails until it stands here.
VALUES: dict[str, tuple[str, ...]] = {
    "verification_id": ("1", "2", "5", "6", "7", "8"),
    "event_id": ("1", "4"),
    "outcome": ("hit", "miss", "undecided"),
    "inspection_id": ("1", "4"),
    "case_id": ("1", "2"),
    "accuracy_class": ("1",),
    "current": ("AC",),
    "draw_id": ("2026-12",),
    "inspector": ("wang",),
    "test_minutes": ("30",),
    "trip_minutes": ("45",),
    "u_ref": ("0.001",),
    "visits": ("3",),
    "frozen_before": ("2100-01-01T00:00:00Z",),
    "manufacturer": ("maker",),
    "model": ("model",),
    "connector": CONNECTORS,
    "station_id": STATIONS,
    "operator_id": OPERATORS,
    "station": STATIONS,
    "operator": OPERATORS,
    "actor": ("op1", "op2"),
    "subject": ("user:op1", "user:op2", "connector:C-1", "connector:D-1"),
    "number": ("2026-000001", "2026-000002", "2026-000003", "2026-000004"),
    "file_id": ("1", "2", "3", "4"),
    "owner": ("admin", "me", "-"),
    "overdue": ("true",),
    "list_name": (
        "operators",
        "stations",
        "connectors",
        "reference_meters",
        "verifications",
        "tariffs",
        "inspectors",
        "ledger",
    ),
    "row_name": (*CONNECTORS, *STATIONS, *OPERATORS, "1"),
    "by": ("serial", "certificate", "operator"),
    "field": ("model",),
    "form": ("csv", "json"),
    "lacks": ("booked",),
    "maker": ("x",),
    "on": ("2026-01-01",),
    "pile": ("x",),
    "step_for": CONNECTORS[:1],
    "within": ("1000",),
    "after": ("1:2026-01-01", "OP1/ST/", "OP2/ST/", "A/A/"),
    "before": ("1000000",),
    "complaint_id": ("1", "2"),
    "code": ("conflict", "register_jump", "clock_skew"),
    "days": ("31",),
    "error": ("access_denied",),
    "district": ("120101", "120116"),
    "gaps": ("true",),
    "grade": ("A", "-"),
    "month": ("2026-01",),
    "revision": ("1", "2"),
    "run": ("1",),
    "asked": ("1",),
    "job_id": ("1",),
    "language": ("zh",),
    "limit": ("200",),
    "next": ("/piles",),
    "offset": ("0", "1"),
    "open": ("true",),
    "page": ("1", "2"),
    "q": ("ONE-station", "TWO-station", "C", "ST"),
    "sessions": ("1", "2"),
    "severity": ("severe",),
    "show": ("gaps", "unbalanced"),
    "signal": ("register_jump", "clock_skew"),
    "since": ("2020-01-01T00:00:00Z",),
    "sort": ("priority", "money", "error", "probability", "connector", "name", "score_down"),
    "state": ("all", "over", "never"),
    "theme": ("dark",),
    "tier": ("red",),
    "unbalanced": ("true",),
    "until": ("2100-01-01T00:00:00Z",),
}
VALUES |= {
    "after": (*VALUES["after"], "1e9:0"),
    "cause": ("error", "billing"),
    "month": (*VALUES["month"], f"{datetime.now(UTC):%Y-%m}"),
    "show": (*VALUES["show"], "all", "owed"),
    "side": ("overcharge", "undercharge"),
    "sort": (*VALUES["sort"], "overcharge", "undercharge"),
}
# These change something; what they answer is about the asker alone. Each has tests of its own.
WRITES = {
    # No operator's user may: tests/integration/test_evidence.py.
    "/api/v1/piles/{connector}/evidence",
    "/piles/{connector}/evidence",
    # tests/integration/test_verifications.py
    "/api/v1/changes/{event_id}/withdraw",
    "/api/v1/piles/{connector}/changes",
    "/api/v1/verifications",
    "/api/v1/verifications/{verification_id}/withdraw",
    "/changes/{event_id}/withdraw",
    "/piles/{connector}/changes",
    "/verifications",
    "/verifications/{verification_id}/withdraw",
    "/api/v1/login",
    "/api/v1/logout",
    "/api/v1/telemetry/{kind}",
    "/login",
    "/logout",
    "/api/v1/me/password",
    "/api/v1/me/second-factor",
    "/api/v1/me/second-factor/confirm",
    "/api/v1/me/tokens",
    "/api/v1/me/tokens/{token_id}",
    "/profile/password",
    "/profile/second-factor",
    "/profile/second-factor/confirm",
    "/profile/tokens",
    "/profile/tokens/{token_id}/revoke",
    # For everybody: tests/integration/test_complaints.py, test_record_check.py.
    "/p/{connector}/complain",
    "/complaints/status",
    "/check",
    # No operator's user may: tests/integration/test_permissions.py.
    "/complaints/{complaint_id}",
    "/api/v1/complaints/{complaint_id}/accept",
    "/api/v1/complaints/{complaint_id}/refuse",
    "/api/v1/complaints/{complaint_id}/answer",
    "/api/v1/complaints/{complaint_id}/end",
    "/api/v1/complaints/{complaint_id}/told",
    "/api/v1/complaints/{complaint_id}/contact",
    "/api/v1/complaints/{complaint_id}/case",
    "/api/v1/jobs/{job_id}/again",
    "/jobs/{job_id}/again",
    "/inspections",
    "/inspections/{draw_id}",
    "/inspections/{draw_id}/cancel",
    "/inspections/{draw_id}/recuse",
    "/api/v1/draws",
    "/api/v1/draws/{draw_id}/more",
    "/api/v1/draws/{draw_id}/open",
    "/api/v1/draws/{draw_id}/publish",
    "/api/v1/draws/{draw_id}/recusals",
    "/api/v1/draws/{draw_id}/run",
    "/api/v1/draws/{draw_id}/throws",
    "/api/v1/draws/{draw_id}/withdraw",
    "/api/v1/inspections",
    "/api/v1/inspections/{inspection_id}/cancel",
    "/api/v1/inspections/{inspection_id}/result",
    # tests/integration/test_cases.py
    "/api/v1/cases/{number}/objection",
    "/api/v1/cases/{number}/reply",
    "/api/v1/cases/{number}/reply-files",
    "/cases/{number}/reply",
    # No operator's user may: tests/integration/test_permissions.py.
    "/api/v1/cases",
    "/api/v1/cases/bulk",
    "/api/v1/cases/{number}/comments",
    "/api/v1/cases/{number}/files",
    "/api/v1/cases/{number}/steps",
    "/cases",
    "/cases/bulk",
    "/cases/open",
    "/cases/{number}/entries",
    "/cases/{number}/steps",
    "/api/v1/users",
    "/api/v1/users/{username}/disable",
    "/api/v1/users/{username}/password",
    "/api/v1/users/{username}/second-factor",
    "/api/v1/registry/imports",
    "/api/v1/registry/imports/{file_id}",
    "/api/v1/registry/{list_name}",
    "/api/v1/registry/{list_name}/{row_name}",
    "/api/v1/registry/due/{connector}/steps",
    "/api/v1/registry/due/{connector}/steps/{step}/take-back",
    "/registry/import",
    "/registry/import/{file_id}",
    "/registry/{list_name}",
    "/registry/{list_name}/{row_name}",
    "/registry/due/{connector}",
    "/users",
    "/users/{username}/disable",
    "/users/{username}/end-second-factor",
    "/users/{username}/password",
    # Of another operator: tests/integration/test_credit_api.py.
    "/api/v1/operators/{operator_id}/commitments",
    "/operators/{operator_id}/commitments",
    "/api/v1/operators/{operator_id}/commitments/{commitment_id}/publish",
    "/api/v1/operators/{operator_id}/commitments/{commitment_id}/decide",
    "/operators/{operator_id}/commitments/{commitment_id}",
    "/api/v1/credit/{month}",
    "/operators/grade",
    # One's own: tests/integration/test_notices.py.
    "/api/v1/me/notices/read",
    "/api/v1/me/wish",
    "/notices/read",
    "/notices/wish",
    # No operator's user may: tests/integration/test_notices.py, test_permissions.py.
    "/brief/seen",
    "/api/v1/webhooks",
    "/api/v1/webhooks/{webhook_id}",
    "/webhooks",
    "/webhooks/{webhook_id}/end",
}

PUBLIC = ("/api/v1/openapi.json", "/api/v1/health", "/login", "/preferences", "/favicon.ico")
# What these tell of registered piles and of operators, everybody may know.
FOR_EVERYBODY = ("/p/", "/published", "/check", "/complaints/status", "/api/v1/public/")


def of_other(operator_id: str) -> re.Pattern[str]:
    """Return what no answer to an operator's user may hold."""
    other = "OP1" if operator_id == "OP2" else "OP2"
    digits = [f"{number(other):,}", str(number(other)), f"{number(other) / 1000:,.3f}"]
    # Longitude, latitude, money and error as they are written on pages and in JSON.
    digits += [f"{number(other) / 10**k}"[:6] for k in (4, 5, 8)]
    digits += [f"{number(other) / 1e6:.2f}"]
    return re.compile("|".join([mark(other), *map(re.escape, digits)]))


@pytest.fixture
async def site(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(events, "LIFETIME_S", 0.15)
    monkeypatch.setattr(events, "PERIOD_S", 0.1)
    async with open_site(database_url, seeded=False) as opened:
        await seed_shared_names(opened.database)
        piles = zip(STATIONS, CONNECTORS, strict=True)
        await seed_cases(
            opened.database,
            [(name, *pile, mark(name)) for pile in piles for name in OPERATORS],
        )
        await seed_shared_office(opened.database)
        for operator_id in OPERATORS:
            await accounts.add_user(
                opened.database,
                operator_id.lower(),
                role=Role.OPERATOR,
                operator_id=operator_id,
                password=PASSWORD,
                actor=Actor(name="test"),
            )
        yield opened


def questions(address: Address) -> list[str]:
    """Return every address with each value of each parameter."""
    unknown = {*address.in_path, *address.in_query} - set(VALUES)
    assert not unknown, f"{address.path}: say in VALUES what to ask {unknown} for"
    named = itertools.product(*(VALUES[name] for name in address.in_path))
    asked = list(variations(address.in_query, VALUES))
    if {"station_id", "operator_id"} <= set(address.in_query):
        pairs = itertools.product(STATIONS, OPERATORS)
        asked += [{"station_id": station, "operator_id": operator} for station, operator in pairs]
    return [
        address.url(dict(zip(address.in_path, names, strict=True)), question)
        for names in named
        for question in asked
    ]


def read_addresses(site: Site) -> list[Address]:
    found = addresses(site.app)
    assert {address.path for address in found if address.method != "GET"} == WRITES
    return [
        address
        for address in found
        if address.method == "GET" and not address.path.startswith(FOR_EVERYBODY)
    ]


async def answers(site: Site, headers: dict[str, str]) -> AsyncIterator[tuple[str, httpx.Response]]:
    for address in read_addresses(site):
        for url in questions(address):
            answer = await site.client.get(url, headers=headers)
            assert answer.status_code < 500, url
            yield url, answer


@pytest.mark.parametrize("operator_id", OPERATORS)
async def test_no_route_tells_an_operator_anything_of_the_other(
    site: Site, operator_id: str
) -> None:
    foreign = of_other(operator_id)
    own: set[str] = set()
    async for url, answer in answers(site, await site.token(operator_id.lower())):
        asked = re.compile(r"(ONE|TWO)-station")
        # What was asked for stands in the form and in links; the answer is what counts.
        text = asked.sub("", answer.text) if "q=" in url else answer.text
        found = foreign.search(text)
        assert not found, f"{url} tells {text[found.start() - 200 : found.end() + 50]}"
        if mark(operator_id) in text:
            own.add(url.partition("?")[0])
    # The routes do tell of one's own: an empty answer would pass, too.
    assert len(own) >= 60, sorted(own)
    assert {"/notices", "/api/v1/inspections", "/api/v1/verifications"} <= own, sorted(own)


async def test_the_test_above_would_see_it(site: Site) -> None:
    told: dict[str, set[str]] = {"OP1": set(), "OP2": set()}
    async for url, answer in answers(site, await site.token("admin")):
        for operator_id in OPERATORS:
            if of_other(operator_id).search(answer.text):
                told[operator_id].add(url.partition("?")[0])
    for found in told.values():
        assert {"/", "/piles", "/piles.csv", "/system", "/signals", "/api/v1/events"} <= found
        assert {"/money", "/api/v1/money", "/inspections", "/api/v1/inspections"} <= found
        assert {"/verifications", "/api/v1/verifications", "/api/v1/outcomes"} <= found
        assert {"/webhooks", "/registry/connectors/C-1", "/registry/ledger/D-1"} <= found


async def test_an_operators_token_opens_no_route_for_reading(site: Site) -> None:
    token = await tokens.issue_operator_token(
        site.database, "OP2", label="gateway", actor=Actor(name="test")
    )
    headers = {"authorization": f"Bearer {token}"}
    nothing = re.compile(r"ONE|TWO|OP1|OP2")
    async for url, answer in answers(site, headers):
        if "operator" not in url and "q=" not in url and "after" not in url:
            assert not nothing.search(answer.text), url
        if not url.startswith(PUBLIC):
            assert answer.status_code in {303, 401}, url


async def test_a_claim_names_the_station_by_its_id_only(site: Site) -> None:
    header = await site.token("op2")

    async def ask(path: str) -> Any:
        return (await site.client.get("/api/v1" + path, headers=header)).json()

    claimed = (await ask("/piles/C-1"))["registry"]
    assert (claimed["station_id"], claimed["operator_id"]) == ("ST", "OP2")
    assert {claimed[name] for name in ("station_name", "address", "longitude", "district")} == {
        None
    }
    assert (await ask("/piles/D-1"))["registry"]["station_name"] == "TWO-station"
    # Neither the other's name nor its district finds the claim.
    assert (await ask("/piles?q=ONE-station"))["total"] == 0
    assert (await ask("/piles?district=120101"))["total"] == 0
    assert (await ask("/piles?q=TWO-station"))["total"] == 1
    assert (await ask("/piles?signal=register_jump"))["total"] == 0
    assert (await ask("/piles?signal=clock_skew"))["total"] == 2
    assert (await ask("/piles?station=ST"))["total"] == 1
    # Signals are of the claim, not of the name.
    listed = [*(await ask("/piles"))["piles"], *(await ask("/stations/SU"))["piles"]]
    assert [row["open_signals"] for row in listed] == [["clock_skew"]] * 3


async def test_the_authority_opens_each_of_the_claims(site: Site) -> None:
    header = await site.token("admin")
    for operator_id in OPERATORS:
        params = {"station_id": "ST", "operator_id": operator_id}
        answer = await site.client.get("/api/v1/piles/C-1", params=params, headers=header)
        told = answer.json()
        assert told["registry"]["operator_id"] == operator_id
        assert [row["operator_id"] for row in told["signals"]] == [operator_id]
        page = await site.client.get("/piles/C-1", params=params, headers=header)
        assert f"{mark(operator_id)}-reason" in page.text
    listed = await site.client.get("/piles", headers=header)
    assert "/piles/C-1?station_id=ST&amp;operator_id=OP2" in listed.text


async def test_what_is_for_everybody_is_the_same_for_all_and_of_registered_piles_only(
    site: Site,
) -> None:
    now = site.app.state.service.clock()
    site.app.state.service.clock = lambda: now
    headers = [{}, await site.token("op1"), await site.token("admin")]
    asked = 0
    for address in addresses(site.app):
        if address.method != "GET" or not address.path.startswith(FOR_EVERYBODY):
            continue
        for url in questions(address):
            told = {MARK.sub("", (await site.client.get(url, headers=h)).text) for h in headers}
            assert len(told) == 1, url
            asked += 1
            # C-1 is registered to OP1, D-1 to OP2; the other's claim of it is told nowhere.
            for name, foreign in (("C-1", "TWO"), ("D-1", "ONE")):
                if f"/{name}" in url:
                    assert foreign not in told.pop(), url
    assert asked > 30


NEXT_YEAR = f"{datetime.now(UTC).year + 1}-01-01"
OTHER_AND_OWN: list[tuple[str, str, dict[str, Any]]] = [
    ("cases/2026-000002/reply", "cases/2026-000003/reply", {"text": "repaired"}),
    ("changes/5/withdraw", "changes/2/withdraw", {"why": "was another pile"}),
    (
        "piles/C-1/changes?station_id=ST&operator_id=OP2",
        "piles/C-1/changes?station_id=ST&operator_id=OP1",
        {"kind": "connector_replaced", "at": "2026-02-01T00:00:00Z", "serial": "N-1"},
    ),
    (
        "operators/OP2/commitments",
        "operators/OP1/commitments",
        {"text": "no pile is silent", "until": NEXT_YEAR},
    ),
]


@pytest.mark.parametrize(("others", "own", "body"), OTHER_AND_OWN)
async def test_a_write_reaches_ones_own_and_nothing_of_the_other(
    site: Site, others: str, own: str, body: dict[str, Any]
) -> None:
    header = await site.token("op1")
    refused = await site.client.post(f"/api/v1/{others}", headers=header, json=body)
    assert refused.status_code in {403, 404}, refused.text
    assert not of_other("OP1").search(refused.text)
    taken = await site.client.post(f"/api/v1/{own}", headers=header, json=body)
    assert taken.status_code < 300, taken.text

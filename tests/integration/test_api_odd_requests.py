"""Whatever stands in an address, a form or a header: a clear answer, never 500 or 503."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, update

from chargewatch.api import events
from chargewatch.storage import tables
from chargewatch.storage.pile_index import driver_of, rebuild
from web_client import Site, open_site
from web_routes import Address, addresses

NAMES = ("a/b", "a%2Fb", "a?b", "a#b", "..", ".", "a..b", "../x", "a b", "充电桩", "🔌", "a;b=c",
         "a&b", "100%", "a+b", "'\"<b>", "/", "//", "a\\b", "history", "x/history")  # fmt: skip
ODD = (
    *NAMES,
    "\x00",
    "a\x00b",
    "\x7f\x1b",
    "\ufeff",
    "\u202e",
    "x" * 5000,
    "-1",
    "0",
    "9" * 30,
    "1e400",
    "NaN",
    "٣",
    "true",
    "null",
    "//[",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-14:00",
    "2026-02-30T00:00:00Z",
    "{}{0}%s",
    "a,b,,",
    "OP1/ST/registers",
    "a/b/c/d",
)
# Raw bytes that no text encodes to.
BROKEN = ("%", "%zz", "%ff", "%c3%28", "%ed%a0%80", "%u0041", "%00", "%2F%00%2f")


@pytest.fixture
async def site(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(events, "LIFETIME_S", 0.02)
    monkeypatch.setattr(events, "PERIOD_S", 0.01)
    async with open_site(database_url) as opened:
        async with opened.database.begin() as connection:
            await connection.execute(
                insert(tables.connector),
                [
                    {"connector": name, "operator_id": "OP1", "station_id": "TJ0002"}
                    for name in NAMES
                ],
            )
            await rebuild(await driver_of(connection))
        opened.client.headers.update(await opened.token("admin"))
        yield opened


USUAL = {
    "connector": "TJ0001-01-1",
    "station_id": "TJ0001",
    "kind": "registers",
    "username": "op1",
    "token_id": "1",
    "draw_id": "2026-12",
    "inspection_id": "1",
    "commitment_id": "1",
    "complaint_id": "1",
    "event_id": "1",
    "file_id": "1",
    "job_id": "1",
    "list_name": "stations",
    "month": "2026-01",
    "number": "2026-000001",
    "operator_id": "OP1",
    "row_name": "TJ0001",
    "step": "filed",
    "verification_id": "1",
    "webhook_id": "1",
}


def urls(address: Address, values: tuple[str, ...]) -> Iterator[str]:
    """Yield an address with every value in every one of its parameters."""
    for name in address.in_path:
        for value in values:
            yield address.url({**USUAL, name: value}, {"station_id": "TJ0001"})
    for name in address.in_query:
        for value in values:
            yield address.url(USUAL, {"station_id": "TJ0001", name: value})


def check(answer: httpx.Response, asked: str) -> None:
    # The telemetry door of these tests is closed: its 503 says so.
    if "/telemetry/" in asked and answer.status_code == 503:
        assert answer.json()["error"]["code"] == "door_closed"
        return
    assert answer.status_code < 500, f"{asked} answers {answer.status_code}: {answer.text[:300]}"
    if answer.status_code >= 400 and asked.partition(" ")[2].startswith("/api/"):
        assert set(answer.json()["error"]) == {"code", "message"}, asked


async def test_no_parameter_of_any_route_breaks_it(site: Site) -> None:
    asked = 0
    for address in addresses(site.app):
        for url in urls(address, ODD):
            answer = await site.client.request(address.method, url)
            check(answer, f"{address.method} {url}")
            asked += 1
        for raw in BROKEN:
            path = address.path
            for part in address.in_path:
                path = path.replace(f"{{{part}}}", raw)
            names = address.in_query or ("x",)
            for url in (path, *(f"{path}?{name}={raw}" for name in names), f"{path}?{raw}"):
                check(await site.client.request(address.method, url), f"{address.method} {url}")
                asked += 1
    assert asked > 3_000


async def test_every_name_is_found_at_its_own_address(site: Site) -> None:
    for name in NAMES:
        if name in {".", ".."}:
            continue  # Every browser takes these for folders, encoded or not.
        path = quote(name, safe="")
        told = await site.client.get(f"/api/v1/piles/{path}")
        assert told.status_code == 200, name
        assert told.json()["registry"]["connector"] == name
        for part in ("history", "sessions", "readings"):
            answer = await site.client.get(f"/api/v1/piles/{path}/{part}")
            assert answer.json()["connector"] == name, (name, part)
        page = await site.client.get(f"/piles/{path}")
        assert page.status_code == 200
        assert f"/preferences?language=zh&amp;next=%2Fpiles%2F{quote(path, safe='')}" in page.text
    listed = await site.client.get("/stations/TJ0002")
    assert f'href="/piles/{quote("a/b", safe="")}?station_id=TJ0002&amp;operator_id=OP1"' in (
        listed.text
    )


async def test_asking_for_a_log_in_leads_back_to_the_very_name(site: Site) -> None:
    del site.client.headers["authorization"]
    answer = await site.client.get("/piles/a%2Fb%3Fc?sessions=2")
    assert answer.headers["location"] == "/login?next=%2Fpiles%2Fa%252Fb%253Fc%3Fsessions%3D2"


@pytest.mark.parametrize("value", ["%00", "a%00b", "%2F%00"])
async def test_nul_is_refused_by_name(site: Site, value: str) -> None:
    answer = await site.client.get(f"/api/v1/piles?q={value}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert answer.json()["error"]["message"].startswith("q: NUL")
    answer = await site.client.get(f"/piles/{value}")
    assert answer.status_code == 422
    assert "NUL" in answer.text


@pytest.mark.parametrize(
    "time",
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "1969-12-31T23:59:59Z", "-9999999999"],
)
async def test_times_that_no_telemetry_has_are_refused_by_name(site: Site, time: str) -> None:
    for name in ("since", "until"):
        answer = await site.client.get("/api/v1/piles/TJ0001-01-1/readings", params={name: time})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "time_out_of_range")
        assert answer.json()["error"]["message"].startswith(name)


@pytest.mark.parametrize("value", ["ü" * 64, "充电", "\x00", ""])
async def test_odd_form_token_is_a_stale_form(site: Site, value: str) -> None:
    del site.client.headers["authorization"]
    await site.log_in("op1")
    for path in ("/login", "/logout"):
        answer = await site.client.post(
            path, data={"form_token": value, "username": value, "password": value, "next": value}
        )
        assert answer.status_code == 403, path
    for cookie in ('"', "\\303", "a b", "x" * 4000, "é"):
        headers = [(b"cookie", f"chargewatch_form={cookie}".encode("latin-1"))]
        check(await site.client.get("/login", headers=headers), "GET /login")


@pytest.mark.parametrize("origin", ["http://[", "null", "//", "http://test:80:80", "\u00fc"])
async def test_odd_origin_is_answered(site: Site, origin: str) -> None:
    headers = [(b"origin", origin.encode("latin-1"))]
    check(await site.client.post("/login", headers=headers, content=b"%"), "POST /login")


async def test_odd_bodies_are_answered(site: Site) -> None:
    bodies = (b"", b"{", b"[" * 30_000, b"\xff\xfe", b'{"username":"\\u0000","password":"\\ud800"}',
              b'{"username":"\\u0000a","password":"x"}', b'{"username":1e999,"password":[]}',
              b"username=%00&password=%ff&form_token=%fc", b"&" * 10_000)  # fmt: skip
    for address in addresses(site.app):
        if address.method != "POST":
            continue
        path = address.url(USUAL, {})
        for body in bodies:
            for kind in ("application/json", "application/x-www-form-urlencoded", "\u00e9/;="):
                headers = [(b"content-type", kind.encode("latin-1"))]
                answer = await site.client.post(path, content=body, headers=headers)
                check(answer, f"POST {path}")
    wrong = {"username": "\x00", "password": "\x00"}
    assert (await site.client.post("/api/v1/login", json=wrong)).status_code == 401


async def test_odd_length_is_refused(site: Site) -> None:
    for length in ("²", "-1", "1e3", ""):
        headers = [(b"content-length", length.encode("latin-1"))]
        answer = await site.client.post("/api/v1/login", content=b"{}", headers=headers)
        assert answer.status_code == 413, length


async def test_any_text_in_any_parameter(site: Site) -> None:
    found = [item for item in addresses(site.app) if item.in_path or item.in_query]
    drawn: list[tuple[str, str]] = []

    @settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.sampled_from(found), st.text(min_size=1), st.data())
    def draw(address: Address, text: str, data: st.DataObject) -> None:
        text = text.encode("utf-8", "replace").decode()
        url = data.draw(st.sampled_from(list(urls(address, (text,)))))
        drawn.append((address.method, url))

    draw()
    for method, url in drawn:
        check(await site.client.request(method, url), f"{method} {url}")


async def test_stored_times_at_the_end_of_the_calendar_are_shown(site: Site) -> None:
    last = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    async with site.database.begin() as connection:
        await connection.execute(
            update(tables.charging_session).values(started_at=datetime(1, 1, 1, tzinfo=UTC))
        )
        await connection.execute(update(tables.charging_session).values(ended_at=last))
        await connection.execute(update(tables.signal).values(first_at=last, last_at=last))
        await connection.execute(update(tables.latest_reading).values(at=last, received_at=last))
    for address in addresses(site.app):
        if address.method == "GET":
            url = address.url(USUAL, {})
            check(await site.client.get(url), f"GET {url}")

"""Draws on pages: walked through by two users, seen by an operator, and by everybody."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from chargewatch.draws.frame import list_hash
from chargewatch.storage.office import inspections as inspection_rows
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from inspection_steps import add_inspectors, drawn_city, verify_inspection
from running import RunCommand
from web_client import PASSWORD, TOKEN_FIELD, Site, open_site

DRAW = "/inspections/2026-12"
PUBLIC = "/published/draws/2026-12"
FORM = {
    "draw_id": "2026-12", "size": "10", "uniform": "0.5", "crew": "1", "due_days": "30",
    "lately_days": "0",
}  # fmt: skip


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        for name, role in (("zhao", Role.SUPERVISOR), ("sun", Role.INSPECTOR)):
            await accounts.add_user(
                opened.database, name, role=role, password=PASSWORD, actor=Actor(name="test")
            )
        yield opened


def stranger(site: Site) -> httpx.AsyncClient:
    """Return a client without a log-in."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=site.app), base_url="http://test")


async def send(site: Site, path: str, page: str, **fields: str) -> Any:
    form = await site.client.get(page)
    token = TOKEN_FIELD.search(form.text)
    assert token is not None, form.text
    return await site.client.post(path, data=fields | {"form_token": token[1]})


async def test_two_users_walk_through_a_draw(
    site: Site, tmp_path: Path, run_command: RunCommand
) -> None:
    await add_inspectors(site.database)
    await site.log_in("admin")
    assert "No draw yet" in (await site.client.get("/inspections")).text
    for wrong, named in (
        ({"size": "x"}, "whole number"), ({"uniform": "?"}, "must be a number"),
        ({"size": "999"}, "1 to 120"), ({"draw_id": "lots"}, "begin with a digit"),
    ):  # fmt: skip
        answer = await send(site, "/inspections", "/inspections", **FORM | wrong)
        assert answer.status_code == 422
        assert named in answer.text
    made = await send(site, "/inspections", "/inspections", **FORM)
    assert (made.status_code, made.headers["location"]) == (303, DRAW)
    recused = {"inspector": "sun", "operator_id": "OP2", "why": "kin"}
    assert (await send(site, f"{DRAW}/recuse", DRAW, **recused)).status_code == 303
    assert "kin" in (await site.client.get(DRAW)).text
    again = await send(site, f"{DRAW}/recuse", DRAW, **recused)
    assert (again.status_code, "already" in again.text) == (409, True)
    async with stranger(site) as outside:
        assert (await outside.get(PUBLIC)).status_code == 404
    assert (await send(site, DRAW, DRAW, step="run")).status_code == 409
    assert (await send(site, DRAW, DRAW, step="jump")).status_code == 422
    published = await send(site, DRAW, DRAW, step="publish", beacon="")
    assert published.status_code == 303
    text = (await site.client.get(f"{DRAW}/list.txt")).text
    async with stranger(site) as outside:
        assert list_hash(text) in (await outside.get(PUBLIC)).text
        assert (await outside.get(f"{PUBLIC}/list.txt")).status_code == 404
    throw = {"step": "throw", "witness": "wu", "digits": "3141592653"}
    assert (await send(site, DRAW, DRAW, **throw)).status_code == 303
    second = await send(site, DRAW, DRAW, **throw | {"witness": "he"})
    assert (second.status_code, "admin has entered" in second.text) == (409, True)
    site.client.cookies.clear()
    await site.log_in("zhao")
    shown = (await site.client.get(DRAW)).text
    assert "wu" in shown
    assert "3141592653" not in shown
    throw |= {"witness": "he", "digits": "2718281828"}
    assert (await send(site, DRAW, DRAW, **throw)).status_code == 303
    assert (await send(site, DRAW, DRAW, step="run")).status_code == 303
    assert "3141592653" in (await site.client.get(DRAW)).text
    assert (await send(site, DRAW, DRAW, step="more", size="12")).status_code == 303
    assert (await send(site, DRAW, DRAW, step="more", size="x")).status_code == 422
    await site_results(site)
    assert (await send(site, DRAW, DRAW, step="open")).status_code == 303
    async with stranger(site) as outside:
        file = tmp_path / "draw.json"
        file.write_bytes((await outside.get(f"{PUBLIC}/draw.json")).content)
        assert list_hash((await outside.get(f"{PUBLIC}/list.txt")).text) == list_hash(text)
    seen = run_command("draw", "verify", str(file), "--published-hash", list_hash(text))
    assert seen.returncode == 0, seen.stdout


async def site_results(site: Site) -> None:
    async with site.database.connect() as connection:
        first, *rest = await inspection_rows.of_draw(connection, "2026-12", limit=100)
    gone = {"inspection_id": str(first["inspection_id"]), "why": "the pile is gone"}
    assert (await send(site, f"{DRAW}/cancel", DRAW, **gone)).status_code == 303
    assert (await send(site, f"{DRAW}/cancel", DRAW, **gone)).status_code == 409
    assert (await send(site, f"{DRAW}/cancel", DRAW, inspection_id="x")).status_code == 422
    for row in rest:
        await verify_inspection(site.database, row, "pass")


async def test_nobody_outside_learns_of_an_inspection_before_it_is_made(site: Site) -> None:
    bundle = await drawn_city(site.database)
    async with site.database.connect() as connection:
        rows = await inspection_rows.of_draw(connection, "2026-12", limit=100)
    done = next(row for row in rows if row["operator_id"] == "OP2")
    await verify_inspection(site.database, done, "fail")
    open_names = [row["connector"] for row in rows if row is not done]
    tickets = [one.ticket for one in bundle.drawn]
    await site.log_in("op2")
    for path in ("/inspections", "/api/v1/inspections?limit=500"):
        told = (await site.client.get(path)).text
        assert done["connector"] in told
        assert not any(name in told for name in open_names), path
    for path in (DRAW, f"{DRAW}/list.txt", "/inspections/lots", "/api/v1/draws"):
        assert (await site.client.get(path)).status_code == 403, path
    async with stranger(site) as outside:
        for path in (PUBLIC, "/published", "/api/v1/public/draws/2026-12", "/api/v1/public/draws"):
            answer = await outside.get(path)
            assert answer.status_code == 200, path
            assert not any(name in answer.text for name in [*open_names, *tickets]), path
        shown = (await outside.get(PUBLIC)).text
        assert done["connector"] in shown
        assert "3141592653" in shown
        for name in done["crew"]:
            assert name in shown
        for ending in ("list.txt", "draw.json"):
            assert (await outside.get(f"{PUBLIC}/{ending}")).status_code == 404
        # Past the last day at which it must be opened it is public by itself.
        service = site.app.state.service
        now = service.clock()
        service.clock = lambda: now + timedelta(days=59)
        assert json.loads((await outside.get(f"{PUBLIC}/draw.json")).text)["size"] == 12


async def test_what_would_settle_a_pile_is_the_offices_business(
    site: Site, database_url: str, run_command: RunCommand
) -> None:
    header = await site.token("zhao")
    route = (await site.client.get("/api/v1/inspections/route?visits=4", headers=header)).json()
    visits = [one for stop in route["stops"] for one in stop["visits"]]
    assert len(visits) == 4
    parts = sum(one["settled"] + one["told_of_neighbours"] for one in visits)
    assert route["settled"] == pytest.approx(parts)
    told = (await site.client.get("/api/v1/piles/TJ0001-01-1/settles", headers=header)).json()
    assert told["settles"]["expanded_after"] < told["settles"]["expanded_now"]
    assert told["settles"]["neighbours"]
    grey = (await site.client.get("/api/v1/piles/TJ0001-05-1/settles", headers=header)).json()
    assert grey["settles"] is None
    done = run_command(
        *("inspections", "route", "--visits", "4", "--json"),
        env={"CHARGEWATCH_DATABASE_URL": database_url},
    )
    assert done.returncode == 0, done.stderr
    assert [s["station_id"] for s in json.loads(done.stdout)["stops"]] == [
        s["station_id"] for s in route["stops"]
    ]
    for name, shown in (("zhao", True), ("op2", False)):
        site.client.cookies.clear()
        await site.log_in(name)
        page = (await site.client.get("/piles/TJ0001-01-1")).text
        assert ("What would settle it" in page) is shown
        status = (await site.client.get("/inspections/route")).status_code
        assert status == (200 if shown else 403)


async def test_an_inspector_recuses_itself_and_nobody_else(site: Site) -> None:
    await add_inspectors(site.database)
    async with site.database.begin() as connection:
        await connection.exec_driver_sql("UPDATE inspector SET username = name WHERE name = 'sun'")
    await site.log_in("admin")
    assert (await send(site, "/inspections", "/inspections", **FORM)).status_code == 303
    site.client.cookies.clear()
    await site.log_in("sun")
    assert (await send(site, DRAW, DRAW, step="publish")).status_code == 403
    other = {"inspector": "li", "operator_id": "OP2", "why": "kin"}
    assert (await send(site, f"{DRAW}/recuse", DRAW, **other)).status_code == 403
    own = other | {"inspector": "sun"}
    assert (await send(site, f"{DRAW}/recuse", DRAW, **own)).status_code == 303
    assert (await send(site, f"{DRAW}/recuse", DRAW, inspector="sun")).status_code == 422


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_pages_are_whole_in_every_state_and_language(site: Site, language: str) -> None:
    await drawn_city(site.database)
    async with site.database.connect() as connection:
        rows = await inspection_rows.of_draw(connection, "2026-12", limit=100)
    await verify_inspection(site.database, rows[0], "fail")
    await verify_inspection(site.database, rows[1], "pass")
    await site.log_in("zhao")
    site.client.cookies.set("chargewatch_language", language)
    for path in (
        "/inspections", "/inspections?state=done&operator=OP1", "/inspections?inspector=sun",
        DRAW, f"{DRAW}?after=5", "/inspections/lots", "/inspections/lots?operator=OP2&current=DC",
        "/inspections/route",
        "/inspections/route?visits=3&operator=OP2", "/inspections/lots?model=none", "/published",
        PUBLIC, f"{PUBLIC}?after=1",
    ):  # fmt: skip
        answer = await site.client.get(path)
        assert answer.status_code == 200, path
        assert not re.search(r"<(script|style)>|style=", answer.text), path
        assert 'lang="zh-CN"' in answer.text
    for path in ("/inspections?state=x", "/inspections/nope", "/published/draws/nope"):
        assert (await site.client.get(path)).status_code in {404, 422}

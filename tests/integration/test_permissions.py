"""Every route asked as every role: who has the permission passes, nobody else does."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from chargewatch.supervision import accounts, permissions
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import PERMISSIONS, READS, Permission, Role
from chargewatch.web.site import PAGES
from web_client import PASSWORD, Site, open_site

# Who asks is nobody yet, or shows a token of an operator's gateway, or everybody may know.
OPEN = {
    ("GET", "/login"), ("GET", "/login/provider"), ("GET", "/login/provider/back"),
    ("POST", "/login"), ("POST", "/logout"), ("GET", "/preferences"),
    ("GET", "/api/v1/public/coverage"),
    ("GET", "/favicon.ico"), ("GET", "/api/v1/openapi.json"), ("GET", "/api/v1/health"),
    ("GET", "/published"), *(("GET", f"/published/draws/{{draw_id}}{end}")
      for end in ("", "/list.txt", "/draw.json")), ("GET", "/api/v1/public/draws"),
    ("GET", "/api/v1/public/draws/{draw_id}"),
    ("POST", "/api/v1/login"), ("POST", "/api/v1/telemetry/{kind}"), ("GET", "/api/v1/me"),
    ("GET", "/api/v1/public/operators"), ("GET", "/api/v1/public/operators/{operator_id}"),
    ("GET", "/api/v1/public/operators/{operator_id}/grades/{month}"),
    # For everybody: tests/integration/test_public_leaks.py.
    ("GET", "/p/{connector}"), ("GET", "/p/{connector}/complain"),
    ("POST", "/p/{connector}/complain"), ("GET", "/complaints/status"),
    ("POST", "/complaints/status"), ("GET", "/check"), ("POST", "/check"),
    *(("GET", f"/api/v1/public/{name}{end}") for name in ("piles", "stations", "districts")
      for end in ("", ".csv")), ("GET", "/api/v1/public/piles/{connector}"),
}  # fmt: skip
VALUES = {
    "{verification_id}": "1", "{event_id}": "1",
    "{connector}": "TJ0001-01-1", "{station_id}": "TJ0001", "{username}": "nobody-yet",
    "{token_id}": "1", "{job_id}": "1", "{webhook_id}": "1",
    "{operator_id}": "OP1", "{month}": "2026-01",
    "{commitment_id}": "1",
    "{complaint_id}": "1",
    "{draw_id}": "2026-12", "{inspection_id}": "1",
    "{number}": "2026-000001", "{file_id}": "1",
    "{list_name}": "connectors", "{row_name}": "TJ0001-01-1", "{step}": "booked",
}  # fmt: skip


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        for role in Role:
            if role is not Role.OPERATOR:
                await accounts.add_user(
                    opened.database, f"the-{role}", role=role, password=PASSWORD,
                    actor=Actor(name="test"),
                )  # fmt: skip
        yield opened


def _permission(dependant: Any) -> Iterator[Permission]:
    for inner in dependant.dependencies:
        if hasattr(inner.call, "permission"):
            yield inner.call.permission
        yield from _permission(inner)


def routes(site: Site) -> list[tuple[str, str, Permission | None]]:
    """Return method, path and permission of every route of the application."""
    found = []
    for context in iter_route_contexts(site.app.routes):
        for method in sorted((context.methods or set()) - {"HEAD"}):
            is_own = isinstance(context.route, APIRoute)
            needed = list(_permission(context.dependant)) if is_own else []
            assert len(needed) < 2, context.path
            found.append((method, context.path or "", needed[0] if needed else None))
    return found


async def test_every_route_needs_a_permission_or_is_open_on_purpose(site: Site) -> None:
    found = routes(site)
    assert {(method, path) for method, path, needed in found if needed is None} == OPEN
    assert {needed for _, _, needed in found} >= set(Permission)
    by_page = {path: needed for method, path, needed in found if method == "GET"}
    for page in PAGES:
        assert page.public or by_page[page.path] is page.permission, page.name


async def test_every_route_as_every_role(site: Site) -> None:
    names = {Role.OPERATOR: "op1"} | {r: f"the-{r}" for r in Role if r is not Role.OPERATOR}
    asked = 0
    for role, name in names.items():
        header = await site.token(name)
        for method, path, needed in routes(site):
            if needed is None or path == "/api/v1/events" or path == "/api/v1/logout":
                continue
            for word, value in VALUES.items():
                path = path.replace(word, value)
            answer = await site.client.request(method, path, headers=header)
            asked += 1
            where = f"{role} {method} {path}"
            if needed in PERMISSIONS[role]:
                # Passed the door: what is missing then is the body, or a form of this site.
                refused = answer.status_code == 403 and "stale_form" not in answer.text
                assert not refused or "out of date" in answer.text, where
                assert answer.status_code != 401, where
            else:
                assert answer.status_code == 403, where
    assert asked > 150


async def test_nobody_passes_any_route_without_a_log_in(site: Site) -> None:
    for method, path, needed in routes(site):
        if needed is None:
            continue
        for word, value in VALUES.items():
            path = path.replace(word, value)
        answer = await site.client.request(method, path)
        assert answer.status_code == (401 if path.startswith("/api/") else 303), (method, path)


async def test_an_auditor_reads_all_and_changes_nothing(site: Site) -> None:
    header = await site.token("the-auditor")
    for method, path, needed in routes(site):
        assert (needed in PERMISSIONS[Role.AUDITOR]) or method != "GET" or needed is None, path
    for path in ("/api/v1/users/op1/disable", "/api/v1/users/op1/password"):
        assert (await site.client.post(path, headers=header)).status_code == 403
    assert PERMISSIONS[Role.AUDITOR] == READS | {Permission.OWN_ACCOUNT}


async def test_a_token_for_reading_changes_nothing_whatever_its_user_may(site: Site) -> None:
    header = await site.token("admin")
    tokens = {}
    for scope in ("read", "all"):
        issued = await site.client.post(
            "/api/v1/me/tokens", headers=header,
            json={"label": "nightly report", "scope": scope, "days": 30},
        )  # fmt: skip
        assert issued.status_code == 200, issued.text
        tokens[scope] = {"authorization": f"Bearer {issued.json()['token']}"}
    for scope, status in (("read", 403), ("all", 204)):
        assert (await site.client.get("/api/v1/piles", headers=tokens[scope])).status_code == 200
        answer = await site.client.post("/api/v1/users/op2/disable", headers=tokens[scope])
        assert answer.status_code == status
    listed = (await site.client.get("/api/v1/me/tokens", headers=header)).json()["tokens"]
    assert [(one["label"], one["scope"]) for one in listed] == [
        ("nightly report", "all"), ("nightly report", "read"),
    ]  # fmt: skip
    gone = f"/api/v1/me/tokens/{listed[1]['token_id']}"
    assert (await site.client.delete(gone, headers=header)).status_code == 204
    assert (await site.client.delete(gone, headers=header)).status_code == 404
    assert (await site.client.get("/api/v1/piles", headers=tokens["read"])).status_code == 401
    # Somebody else's token is nobody's business.
    other = await site.token("the-inspector")
    mine = f"/api/v1/me/tokens/{listed[0]['token_id']}"
    assert (await site.client.delete(mine, headers=other)).status_code == 404
    await accounts.set_password(site.database, "admin", password=PASSWORD, actor=Actor(name="test"))
    assert (await site.client.get("/api/v1/piles", headers=tokens["all"])).status_code == 401


async def test_a_token_runs_out(site: Site) -> None:
    header = await site.token("admin")
    for days, status in ((0, 422), (401, 422), (1, 200)):
        issued = await site.client.post(
            "/api/v1/me/tokens", headers=header, json={"label": "x", "days": days}
        )
        assert issued.status_code == status
    token = {"authorization": f"Bearer {issued.json()['token']}"}
    assert (await site.client.get("/api/v1/piles", headers=token)).status_code == 200
    service = site.app.state.service
    now = service.clock()
    service.clock = lambda: now.replace(year=now.year + 1)
    assert (await site.client.get("/api/v1/piles", headers=token)).status_code == 401


async def test_the_cookie_of_the_pages_changes_nothing_over_the_api(site: Site) -> None:
    await site.log_in("admin")
    assert (await site.client.get("/api/v1/users")).status_code == 200
    assert (await site.client.post("/api/v1/users/op1/disable")).status_code == 401


async def test_an_administrator_makes_and_disables_users_and_never_itself(site: Site) -> None:
    header = await site.token("admin")
    made = await site.client.post(
        "/api/v1/users", headers=header, json={"username": "li", "role": "inspector"}
    )
    password = made.json()["password"]
    log_in = {"username": "li", "password": password}
    assert (await site.client.post("/api/v1/login", json=log_in)).status_code == 200
    for body, status in (
        ({"username": "li", "role": "inspector"}, 422),
        ({"username": "l i", "role": "inspector"}, 422),
        ({"username": "x", "role": "king"}, 422),
        ({"username": "x", "role": "operator"}, 422),
        ({"username": "x", "role": "operator", "operator_id": "NOPE"}, 422),
    ):
        answer = await site.client.post("/api/v1/users", headers=header, json=body)
        assert answer.status_code == status, body
    own = await site.client.post("/api/v1/users/admin/disable", headers=header)
    assert (own.status_code, own.json()["error"]["code"]) == (422, "refused")
    assert (await site.client.post("/api/v1/users/li/disable", headers=header)).status_code == 204
    assert (await site.client.post("/api/v1/login", json=log_in)).status_code == 401
    trail = (await site.client.get("/api/v1/audit?subject=user:li", headers=header)).json()
    assert [(one["action"], one["actor"]) for one in trail["entries"]] == [
        ("session_refused", "nobody"), ("user_disabled", "admin"),
        ("session_opened", "li"), ("user_added", "admin"),
    ]  # fmt: skip
    assert password not in str(trail)


async def test_a_stolen_session_does_not_try_out_the_password(site: Site) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    site.app.state.service.throttle._sleep = sleep
    header = await site.token("the-inspector")
    for _ in range(7):
        answer = await site.client.post(
            "/api/v1/me/password",
            headers=header,
            json={"old_password": "a guess at it", "new_password": "mine-from-now-on"},
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "wrong_password")
    assert max(waited) >= 2


def test_every_role_has_one_row_in_the_table() -> None:
    """A second row would take away what the first one gives."""
    tree = ast.parse(Path(permissions.__file__).read_text(encoding="utf-8"))
    table = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "PERMISSIONS"
    )
    assert isinstance(table, ast.Dict)
    keys = [ast.unparse(key) for key in table.keys if key is not None]
    assert sorted(keys) == sorted(f"Role.{role.name}" for role in Role)

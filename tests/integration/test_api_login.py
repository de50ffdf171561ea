from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select

from chargewatch.storage.tables import app_user, login_session
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from chargewatch.web.server import address_of, listen, make_server
from web_client import PASSWORD, Site, open_site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url, seeded=False) as opened:
        yield opened


async def test_token_opens_the_api_and_log_out_closes_it(site: Site) -> None:
    assert (await site.client.get("/api/v1/me")).status_code == 401
    header = await site.token("admin")
    me = await site.client.get("/api/v1/me", headers=header)
    assert me.json() == {"username": "admin", "role": "administrator", "operator_id": None}
    assert (await site.client.post("/api/v1/logout", headers=header)).status_code == 204
    assert (await site.client.get("/api/v1/me", headers=header)).status_code == 401


async def test_error_names_the_thing_and_the_next_step(site: Site) -> None:
    answer = await site.client.get("/api/v1/piles")
    assert answer.json()["error"]["code"] == "not_logged_in"
    assert "POST /api/v1/login" in answer.json()["error"]["message"]
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_wrong_password_and_unknown_name_look_alike(site: Site) -> None:
    answers = [
        await site.client.post("/api/v1/login", json={"username": name, "password": "nonsense-9"})
        for name in ("admin", "nobody")
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()


async def test_failures_elsewhere_and_successes_here_lock_nobody_out(site: Site) -> None:
    server = make_server(site.app, trusted_proxies="127.0.0.1")
    with closing(listen("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with httpx.AsyncClient(base_url=address_of(listener), timeout=60) as client:

            async def try_from(address: str, password: str) -> int:
                answer = await client.post(
                    "/api/v1/login",
                    json={"username": "admin", "password": password},
                    headers={"x-forwarded-for": f"9.9.9.9, {address}"},
                )
                return answer.status_code

            wrong = [await try_from("10.0.0.1", "wrong") for _ in range(5)]
            right = await asyncio.gather(*(try_from("10.0.0.2", PASSWORD) for _ in range(50)))
            assert (wrong, set(right)) == ([401] * 5, {200})
            # Where it failed the right one is slow, not refused.
            begun = time.monotonic()
            assert await try_from("10.0.0.1", PASSWORD) == 200
            assert time.monotonic() - begun >= 1
        server.should_exit = True
        await serving


@pytest.mark.parametrize(
    ("trusted", "told", "seen"),
    [
        ("", "10.0.0.1", "127.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "127.0.0.1"),
        ("127.0.0.0/8", "10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "1.2.3.4, 10.0.0.1", "10.0.0.1"),
        ("127.0.0.1,10.0.0.0/8", "6.6.6.6, 1.2.3.4, 10.0.0.1", "1.2.3.4"),
    ],
)
async def test_only_a_configured_proxy_is_believed(
    site: Site, monkeypatch: pytest.MonkeyPatch, trusted: str, told: str, seen: str
) -> None:
    # uvicorn's own variable changes nothing.
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    server = make_server(site.app, trusted_proxies=trusted)
    with closing(listen("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with httpx.AsyncClient(base_url=address_of(listener), timeout=60) as client:
            await client.post(
                "/api/v1/login",
                json={"username": "admin", "password": "wrong"},
                headers={"x-forwarded-for": told},
            )
        server.should_exit = True
        await serving
    assert list(site.app.state.service.throttle._pairs) == [("admin", seen)]


async def test_password_and_token_are_stored_as_hashes_only(site: Site) -> None:
    header = await site.token("admin")
    secret = header["authorization"].removeprefix("Bearer ")
    async with site.database.connect() as connection:
        users = (await connection.execute(select(app_user))).mappings().all()
        sessions = (await connection.execute(select(login_session))).mappings().all()
    assert users[0]["password_hash"].startswith("$argon2id$")
    assert PASSWORD not in users[0]["password_hash"]
    assert bytes(sessions[0]["token_hash"]) == accounts.token_hash(secret)


async def test_session_ends_with_its_time_and_with_its_user(site: Site) -> None:
    header = await site.token("admin")
    site.app.state.service.clock = lambda: datetime.now(UTC) + timedelta(hours=13)
    assert (await site.client.get("/api/v1/me", headers=header)).status_code == 401
    site.app.state.service.clock = lambda: datetime.now(UTC)
    assert (await site.client.get("/api/v1/me", headers=header)).status_code == 200
    await accounts.disable_user(site.database, "admin", actor=Actor(name="test"))
    assert (await site.client.get("/api/v1/me", headers=header)).status_code == 401
    answer = await site.client.post(
        "/api/v1/login", json={"username": "admin", "password": PASSWORD}
    )
    assert answer.status_code == 401


async def test_page_asks_for_a_log_in_and_returns_to_what_was_asked(site: Site) -> None:
    asked = await site.client.get("/piles?tier=red")
    assert asked.status_code == 303
    assert asked.headers["location"] == "/login?next=%2Fpiles%3Ftier%3Dred"
    done = await site.log_in("admin", target="/piles?tier=red")
    assert (done.status_code, done.headers["location"]) == (303, "/piles?tier=red")
    cookie = done.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert (await site.client.get("/")).status_code == 200


async def test_fragment_without_log_in_sends_the_whole_page_to_the_form(site: Site) -> None:
    answer = await site.client.get("/piles", headers={"hx-request": "true"})
    assert answer.headers["hx-redirect"].startswith("/login")


async def test_log_in_never_leads_to_another_site(site: Site) -> None:
    done = await site.log_in("admin", target="https://example.org/")
    assert done.headers["location"] == "/"


async def test_form_of_another_site_is_refused(site: Site) -> None:
    fields = {"username": "admin", "password": PASSWORD, "form_token": "0" * 64}
    assert (await site.client.post("/login", data=fields)).status_code == 403
    await site.log_in("admin")
    assert (await site.client.post("/logout", data={"form_token": "x"})).status_code == 403
    assert (await site.client.get("/")).status_code == 200


async def test_log_out_button_ends_the_session(site: Site) -> None:
    from web_client import TOKEN_FIELD

    await site.log_in("admin")
    page = await site.client.get("/")
    token = TOKEN_FIELD.search(page.text)
    assert token is not None
    done = await site.client.post("/logout", data={"form_token": token[1]})
    assert done.headers["location"] == "/login"
    assert (await site.client.get("/")).status_code == 303


async def test_every_answer_carries_the_security_headers(site: Site) -> None:
    for path in ("/login", "/api/v1/health", "/api/v1/nothing", "/static/app.css", "/nothing"):
        headers = (await site.client.get(path)).headers
        assert "script-src 'self'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    assert (await site.client.get("/login")).headers["cache-control"] == "no-store"


async def test_large_form_is_refused(site: Site) -> None:
    answer = await site.client.post("/login", data={"username": "x" * 20_000})
    assert answer.status_code == 413


async def test_large_body_is_refused_whether_it_tells_its_length_or_not(site: Site) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    told = await site.client.post("/api/v1/login", content=b"x" * 100_000)
    untold = await site.client.post("/api/v1/login", content=parts())
    assert told.status_code == 413
    assert told.json()["error"]["code"] == "too_large"
    assert untold.status_code in {400, 413}


async def test_language_and_theme_stay_with_the_browser(site: Site) -> None:
    english = await site.client.get("/login", headers={"accept-language": "en"})
    assert 'lang="en"' in english.text
    await site.client.get("/preferences", params={"language": "zh", "theme": "dark"})
    page = await site.client.get("/login", headers={"accept-language": "en"})
    assert 'lang="zh-CN" data-theme="dark"' in page.text
    assert "登录" in page.text


async def test_health_needs_no_log_in(site: Site) -> None:
    answer = await site.client.get("/api/v1/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.json()["engine"].startswith("PostgreSQL")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"username": "bad name"}, "user name"),
        ({"password": "short"}, "shorter"),
        ({"role": Role.OPERATOR}, "--operator"),
        ({"role": Role.OPERATOR, "operator_id": "NONE"}, "no operator"),
        ({"username": "admin"}, "exists already"),
    ],
)
async def test_bad_user_is_refused_with_a_reason(
    site: Site, change: dict[str, str], words: str
) -> None:
    values = {"username": "new", "role": Role.INSPECTOR, "password": PASSWORD, **change}
    username = values.pop("username")
    with pytest.raises(accounts.AccountError, match=words):
        await accounts.add_user(site.database, username, **values, actor=Actor(name="test"))  # type: ignore[arg-type]

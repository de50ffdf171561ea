"""Log-in by an identity provider: a real one of somebody else, and answers that don't hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from chargewatch.local.processes import free_port
from chargewatch.settings import Settings
from chargewatch.storage import audit as audit_rows
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from chargewatch.supervision.single_sign_on import Provider, SignOnError, new_pending, read_pending
from web_client import PASSWORD, Site, open_site

CLAIMS = [
    {"sub": "u-1", "preferred_username": "wang", "amr": ["pwd", "otp"]},
    {"sub": "u-2", "preferred_username": "li"},
    {"sub": "u-3", "preferred_username": "stranger"},
    {"sub": "u-4", "preferred_username": "wang"},  # the name was given to somebody else
    {"sub": "u-5", "email": "nameless@example.com"},
]
NOW_S = 1_800_000_000


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """An OpenID provider that somebody else wrote."""
    port = free_port()
    users = [part for one in CLAIMS for part in ("--user-claims", json.dumps(one))]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    with subprocess.Popen(
        [*command, *users], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    ) as process:  # fmt: skip
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                try:
                    httpx.get(f"{address}/.well-known/openid-configuration").raise_for_status()
                    break
                except httpx.HTTPError:
                    assert process.poll() is None
                    time.sleep(0.1)
            yield address
        finally:
            process.terminate()


@pytest.fixture
async def site(database_url: str, issuer: str) -> AsyncIterator[Site]:
    async with open_site(database_url, seeded=False) as opened:
        for name, role in (("wang", Role.SUPERVISOR), ("li", Role.INSPECTOR)):
            await accounts.add_user(
                opened.database, name, role=role, password=PASSWORD, actor=Actor(name="test")
            )
        opened.app.state.service.settings = replace(
            opened.settings, oidc_issuer=issuer, oidc_client_id="chargewatch",
            oidc_client_secret="secret of the client", second_factor="supervisors",
        )  # fmt: skip
        yield opened


async def come_back(site: Site, subject: str, *, target: str = "/signals") -> httpx.Response:
    """Go to the provider as a browser does, log in there as somebody, and come back."""
    there = await site.client.get("/login/provider", params={"next": target})
    assert there.status_code == 303, there.text
    address = there.headers["location"]
    asked = parse_qs(urlsplit(address).query)
    assert asked["code_challenge_method"] == ["S256"]
    # The office's own address, which the provider knows, not the one that the request named.
    assert asked["redirect_uri"] == [f"{site.settings.public_url}/login/provider/back"]
    async with httpx.AsyncClient() as browser:
        answer = await browser.post(address, data={"sub": subject})
    assert answer.status_code == 302, answer.text
    return await site.client.get(back_path(answer.headers["location"]))


def back_path(address: str) -> str:
    """What the proxy in front of the office's address hands on."""
    parts = urlsplit(address)
    return f"{parts.path}?{parts.query}"


async def test_a_user_of_the_provider_is_logged_in_and_sent_to_the_page(site: Site) -> None:
    form = await site.client.get("/login", params={"next": "/signals"})
    assert 'href="/login/provider?next=%2Fsignals"' in form.text
    back = await come_back(site, "u-1")
    assert (back.status_code, back.headers["location"]) == (303, "/signals")
    # The provider told of a one-time password, so the second factor here is not asked for.
    assert (await site.client.get("/signals")).status_code == 200
    async with site.database.connect() as connection:
        entry = json.loads((await audit_rows.newest(connection, limit=1))[0]["content"])
    assert (entry["action"], entry["actor"]) == ("session_opened", "wang")
    assert entry["detail"] == {"by": "identity provider"}


async def test_the_same_person_comes_again_and_another_of_the_name_does_not(site: Site) -> None:
    assert (await come_back(site, "u-1")).status_code == 303
    assert (await come_back(site, "u-1")).status_code == 303
    site.client.cookies.clear()
    refused = await come_back(site, "u-4")
    assert refused.status_code == 401
    assert "bound to somebody else" in refused.text
    await accounts.set_password(site.database, "wang", password=PASSWORD, actor=Actor(name="admin"))
    assert (await come_back(site, "u-4")).status_code == 303


async def test_a_password_only_does_not_do_where_a_second_factor_must_be(site: Site) -> None:
    site.app.state.service.settings = replace(
        site.app.state.service.settings, second_factor="everybody"
    )
    assert (await come_back(site, "u-2")).status_code == 303
    assert (await site.client.get("/signals")).headers["location"] == "/profile"


@pytest.mark.parametrize(
    ("subject", "told"), [("u-3", "may log in here"), ("u-5", "preferred_username")]
)
async def test_who_has_no_account_here_gets_none(site: Site, subject: str, told: str) -> None:
    refused = await come_back(site, subject)
    assert refused.status_code == 401
    assert told in refused.text
    assert "chargewatch_session" not in site.client.cookies


async def test_a_disabled_user_stays_out(site: Site) -> None:
    await accounts.disable_user(site.database, "li", actor=Actor(name="test"))
    assert (await come_back(site, "u-2")).status_code == 401


async def test_an_answer_that_was_not_asked_for_opens_nothing(site: Site) -> None:
    for query in ("code=x&state=y", "error=access_denied", ""):
        assert (await site.client.get(f"/login/provider/back?{query}")).status_code == 401
    await site.client.get("/login/provider")
    # Somebody else's answer, slipped in: the state is not this browser's.
    stolen = await site.client.get("/login/provider/back?code=x&state=y")
    assert (stolen.status_code, "not begun in this browser" in stolen.text) == (401, True)


async def test_a_code_counts_once(site: Site) -> None:
    there = await site.client.get("/login/provider")
    async with httpx.AsyncClient() as browser:
        answer = await browser.post(there.headers["location"], data={"sub": "u-2"})
    kept = dict(site.client.cookies)
    assert (await site.client.get(back_path(answer.headers["location"]))).status_code == 303
    site.client.cookies.clear()
    site.client.cookies.update(kept)
    assert (await site.client.get(back_path(answer.headers["location"]))).status_code == 401


async def test_a_provider_that_is_away_is_told_and_passwords_work_on(site: Site) -> None:
    site.app.state.service.settings = replace(
        site.app.state.service.settings, oidc_issuer=f"http://127.0.0.1:{free_port()}"
    )
    away = await site.client.get("/login/provider")
    assert (away.status_code, "does not answer" in away.text) == (502, True)
    assert (await site.log_in("li")).status_code == 303


async def test_without_a_provider_there_is_no_such_log_in(site: Site) -> None:
    site.app.state.service.settings = replace(site.app.state.service.settings, oidc_issuer="")
    assert (await site.client.get("/login/provider")).status_code == 404
    assert "/login/provider" not in (await site.client.get("/login")).text


ISSUER = "https://id.example"
OWN, OTHER = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
GOOD = {
    "iss": ISSUER, "aud": "chargewatch", "sub": "u-1", "preferred_username": "wang",
    "exp": NOW_S + 300, "iat": NOW_S, "nonce": "n",
}  # fmt: skip


def provider_with(monkeypatch: pytest.MonkeyPatch, token: str) -> Provider:
    async def get(self: Provider, address: str) -> Any:
        if address.endswith("openid-configuration"):
            return {
                "issuer": ISSUER,
                "token_endpoint": f"{ISSUER}/token",
                "jwks_uri": f"{ISSUER}/keys",
            }
        return KeySet([OWN]).as_dict(private=False)

    class Client:
        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *_: object) -> None:
            return None

        async def fetch_token(self, *_: object, **__: object) -> dict[str, str]:
            return {"id_token": token}

    monkeypatch.setattr(Provider, "_get", get)
    monkeypatch.setattr(Provider, "_client", lambda *_: Client())
    return Provider(Settings(oidc_issuer=ISSUER, oidc_client_id="chargewatch"))


def made(key: Any, algorithm: str, **changed: Any) -> str:
    claims = {name: value for name, value in {**GOOD, **changed}.items() if value is not None}
    return jwt.encode({"alg": algorithm}, claims, key, algorithms=[algorithm])


async def finished(provider: Provider) -> Any:
    pending = replace(new_pending(), nonce="n")
    return await provider.finish(
        pending, state=pending.state, code="c", redirect_uri="http://test", now_s=NOW_S
    )


async def test_a_token_that_holds_says_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = await finished(provider_with(monkeypatch, made(OWN, "ES256", amr=["pwd"])))
    assert (shown.subject, shown.username, shown.strong) == ("u-1", "wang", False)


@pytest.mark.parametrize(
    "token",
    [
        made(OTHER, "ES256"),
        made(OWN, "ES256", iss="https://evil.example"),
        made(OWN, "ES256", aud="another"),
        made(OWN, "ES256", aud=["another", "chargewatch"], azp="another"),
        made(OWN, "ES256", exp=NOW_S - 61),
        made(OWN, "ES256", exp=None),
        made(OWN, "ES256", nonce="of another log-in"),
        made(OWN, "ES256", nonce=None),
        made(OWN, "ES256", sub=""),
        made(OctKey.import_key("chargewatch" * 3), "HS256"),
        "eyJhbGciOiJub25lIn0.e30.",
        "",
        "a.b.c",
        "\ud800",
    ],
)
async def test_a_token_that_does_not_hold_opens_nothing(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    with pytest.raises(SignOnError):
        await finished(provider_with(monkeypatch, token))


@pytest.mark.parametrize("text", ["", "a.b", "a..c", "a.b.c.d"])
def test_what_a_browser_did_not_keep_is_not_read(text: str) -> None:
    with pytest.raises(SignOnError, match="begin again"):
        read_pending(text)
    pending = new_pending()
    assert read_pending(pending.text()) == pending


async def test_refused_log_ins_are_told_but_not_without_end(site: Site) -> None:
    async def refused() -> list[dict[str, Any]]:
        async with site.database.connect() as connection:
            found = [
                json.loads(r["content"]) for r in await audit_rows.newest(connection, limit=99)
            ]
        return [one for one in found if one["action"] == "session_refused"]

    for name in ("li", "nobody-at-all"):
        answer = await site.client.post("/api/v1/login", json={"username": name, "password": "no"})
        assert answer.status_code == 401
    told = await refused()
    assert [(one["subject"], one["why"]) for one in told] == [("user:li", "wrong_credentials")]
    assert all(site.app.state.service.refused.may("li") for _ in range(19))
    await site.client.post("/api/v1/login", json={"username": "li", "password": "no"})
    assert len(await refused()) == 1
    assert datetime.fromisoformat(told[0]["at"]) <= datetime.now(UTC)


async def test_a_token_makes_no_tokens(site: Site) -> None:
    header = await site.token("admin")
    site.app.state.service.settings = replace(
        site.app.state.service.settings, second_factor="optional"
    )
    wanted = {"label": "for a program", "scope": "all", "days": 1}
    made_token = await site.client.post("/api/v1/me/tokens", headers=header, json=wanted)
    program = {"authorization": f"Bearer {made_token.json()['token']}"}
    assert (await site.client.get("/api/v1/users", headers=program)).status_code == 200
    assert (await site.client.get("/api/v1/me", headers=program)).status_code == 200
    again = await site.client.post("/api/v1/me/tokens", headers=program, json=wanted)
    assert again.status_code == 403

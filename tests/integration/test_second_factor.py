"""The second factor: set up, asked for, used once, and demanded of whom the setting names."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyotp
import pytest

from chargewatch.supervision import second_factor
from chargewatch.supervision.audit import Actor
from web_client import PASSWORD, TOKEN_FIELD, Site, open_site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url, seeded=False) as opened:
        yield opened


def later(site: Site, **time: int) -> None:
    service = site.app.state.service
    now = service.clock() + timedelta(**time)
    service.clock = lambda: now


def code_of(site: Site, secret: str, *, steps: int = 0) -> str:
    now = site.app.state.service.clock()
    return pyotp.TOTP(secret).at(now + timedelta(seconds=30 * steps))


async def set_up(site: Site) -> str:
    later(site)
    header = await site.token("admin")
    begun = await site.client.post("/api/v1/me/second-factor", headers=header)
    secret: str = begun.json()["secret"]
    assert pyotp.parse_uri(begun.json()["address"]).secret == secret
    confirmed = await site.client.post(
        "/api/v1/me/second-factor/confirm", headers=header, json={"code": code_of(site, secret)}
    )
    assert confirmed.status_code == 204, confirmed.text
    return secret


async def log_in(site: Site, code: str, *, password: str = PASSWORD) -> Any:
    return await site.client.post(
        "/api/v1/login", json={"username": "admin", "password": password, "code": code}
    )


def refusal(answer: Any) -> str:
    return "" if answer.status_code == 200 else str(answer.json()["error"]["code"])


async def test_a_log_in_needs_password_and_a_fresh_code(site: Site) -> None:
    secret = await set_up(site)
    assert refusal(await log_in(site, "")) == "second_factor_needed"
    used = code_of(site, secret)
    assert refusal(await log_in(site, used)) == "wrong_code", "it confirmed the set-up already"
    later(site, seconds=30)
    code = code_of(site, secret)
    assert refusal(await log_in(site, code, password="nonsense-99")) == "wrong_credentials"
    assert refusal(await log_in(site, f"{code[:3]} {code[3:]}")) == ""
    assert refusal(await log_in(site, code)) == "wrong_code", "a code counts once"
    later(site, seconds=60)
    assert refusal(await log_in(site, code_of(site, secret, steps=-1))) == "", "a slow clock"
    for wrong in ("000000", "abcdef", "１２３４５６", code_of(site, secret, steps=5), "1"):
        assert refusal(await log_in(site, wrong)) == "wrong_code", wrong


async def test_wrong_codes_slow_down_whoever_tries(site: Site) -> None:
    secret = await set_up(site)
    later(site, seconds=60)
    waited: list[float] = []
    throttle = site.app.state.service.throttle

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    throttle._sleep = sleep
    for _ in range(7):
        assert refusal(await log_in(site, "000000")) == "wrong_code"
    assert max(waited) >= 2
    assert refusal(await log_in(site, code_of(site, secret))) == ""


async def test_an_unconfirmed_secret_locks_nobody_out(site: Site) -> None:
    header = await site.token("admin")
    await site.client.post("/api/v1/me/second-factor", headers=header)
    wrong = await site.client.post(
        "/api/v1/me/second-factor/confirm", headers=header, json={"code": "000000"}
    )
    assert wrong.status_code == 422
    assert refusal(await log_in(site, "")) == ""


async def test_a_second_factor_is_not_swapped_by_who_has_the_session(site: Site) -> None:
    secret = await set_up(site)
    later(site, seconds=30)
    token = (await log_in(site, code_of(site, secret))).json()["token"]
    header = {"authorization": f"Bearer {token}"}
    again = await site.client.post("/api/v1/me/second-factor", headers=header)
    assert again.status_code == 422
    later(site, seconds=30)
    assert refusal(await log_in(site, code_of(site, secret))) == ""


async def test_whom_the_setting_names_may_set_one_up_and_nothing_else(site: Site) -> None:
    service = site.app.state.service
    service.settings = replace(service.settings, second_factor="supervisors")
    header = await site.token("admin")
    refused = await site.client.get("/api/v1/piles", headers=header)
    assert (refused.status_code, refusal(refused)) == (403, "set_up_second_factor")
    await site.log_in("admin")
    shown = await site.client.get("/piles")
    assert (shown.status_code, shown.headers["location"]) == (303, "/profile")
    page = await site.client.get("/profile")
    assert "must have a second factor" in page.text
    form_token = TOKEN_FIELD.search(page.text)
    assert form_token is not None
    form = {"form_token": form_token[1]}
    begun = await site.client.post("/profile/second-factor", data=form)
    assert "data:image/svg+xml" in begun.text
    secret = re.search(r"<code>([A-Z2-7]{32})</code>", begun.text)
    assert secret is not None
    bad = await site.client.post("/profile/second-factor/confirm", data=form | {"code": "1"})
    assert (bad.status_code, "code is wrong" in bad.text) == (422, True)
    good = await site.client.post(
        "/profile/second-factor/confirm", data=form | {"code": code_of(site, secret[1])}
    )
    assert good.status_code == 303
    assert (await site.client.get("/piles")).status_code == 200


async def test_a_lost_telephone_is_ended_by_an_administrator(site: Site) -> None:
    await set_up(site)
    await second_factor.end(
        site.database, "admin", actor=Actor(name="test"), now=site.app.state.service.clock()
    )
    assert refusal(await log_in(site, "")) == ""
    answer = await site.client.delete(
        "/api/v1/users/admin/second-factor", headers=await site.token("admin")
    )
    assert answer.status_code == 404

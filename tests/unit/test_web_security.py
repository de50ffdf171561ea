from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chargewatch.api.throttle import MAX_QUEUE_S, Throttle, ThrottledError, network_of
from chargewatch.supervision.accounts import Account, Role, generate_password, token_hash
from chargewatch.web.assets import integrity, static_folder, static_url
from chargewatch.web.security import CONTENT_SECURITY_POLICY, form_token, local_path

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("/piles?tier=red", "/piles?tier=red"),
        ("https://example.org/", "/"),
        ("//example.org/", "/"),
        ("/\\example.org", "/"),
        ("/\texample", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_redirects_stay_on_this_site(target: str, where: str) -> None:
    assert local_path(target) == where


def test_form_token_belongs_to_its_secret() -> None:
    assert form_token("a") == form_token("a") != form_token("b")


def test_policy_allows_no_inline_script_and_no_other_host() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY


def test_templates_have_no_inline_script_style_or_handler() -> None:
    for path in (CHECKOUT / "src/chargewatch/web/templates").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), path
        assert not re.search(r"\|\s*safe\b", text), path
        assert not re.search(r"(src|href)=\"https?:", text), path


class Watch:
    """A clock that sleeping moves on."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    def throttle(self, **options: Any) -> Throttle:
        return Throttle(clock=lambda: self.now_s, sleep=self.sleep, **options)


async def attempt(throttle: Throttle, name: str, address: str, *, right: bool = False) -> None:
    async with throttle.turn(name, address) as tried:
        if right:
            tried.succeeded()


async def test_failures_slow_the_next_tries_down_and_never_lock_out() -> None:
    watch = Watch()
    throttle = watch.throttle()
    for _ in range(10):
        await attempt(throttle, "anna", "1.1.1.1")
    assert watch.slept_s == [0, 0, 0, 0, 0, 1, 2, 4, 8, 10]
    # The right password gets through as slowly, and clears the slate.
    await attempt(throttle, "ANNA", "1.1.1.1", right=True)
    await attempt(throttle, "anna", "1.1.1.1", right=True)
    assert watch.slept_s[-2:] == [10, 0]


async def test_failures_elsewhere_slow_nobody_down_here() -> None:
    watch = Watch()
    throttle = watch.throttle()
    for number in range(100):
        await attempt(throttle, "anna", f"10.0.{number}.1")
        await attempt(throttle, "anna", "1.1.1.1")
    await attempt(throttle, "anna", "2.2.2.2")
    await attempt(throttle, "bob", "10.0.0.1")
    assert watch.slept_s[-2:] == [0, 0]


async def test_failures_of_one_address_with_many_names_slow_it_down_but_not_who_is_known() -> None:
    watch = Watch()
    throttle = watch.throttle()
    await attempt(throttle, "anna", "1.1.1.1", right=True)
    for number in range(100):
        await attempt(throttle, f"name-{number}", "1.1.1.1")
    assert watch.slept_s[-1] == 2
    await attempt(throttle, "anna", "1.1.1.1", right=True)
    assert watch.slept_s[-1] == 0


async def test_successes_count_for_nothing_however_many() -> None:
    watch = Watch()
    throttle = watch.throttle()
    await asyncio.gather(
        *(attempt(throttle, f"name-{k % 7}", "1.1.1.1", right=True) for k in range(500))
    )
    assert set(watch.slept_s) == {0}


async def test_tries_at_once_do_not_outrun_the_count() -> None:
    watch = Watch()
    throttle = watch.throttle()
    ended = await asyncio.gather(
        *(attempt(throttle, "anna", "1.1.1.1") for _ in range(200)), return_exceptions=True
    )
    tried = [end for end in ended if end is None]
    assert len(tried) < 12
    assert all(isinstance(end, ThrottledError) for end in ended if end is not None)
    assert watch.now_s <= MAX_QUEUE_S
    with pytest.raises(ThrottledError):
        await asyncio.gather(*(attempt(throttle, "anna", "1.1.1.1") for _ in range(5)))


async def test_failures_fade_and_the_number_of_names_kept_is_bounded() -> None:
    watch = Watch()
    throttle = watch.throttle(window_s=60, keys=10)
    for _ in range(6):
        await attempt(throttle, "anna", "1.1.1.1")
    watch.now_s += 60
    await attempt(throttle, "anna", "1.1.1.1")
    assert watch.slept_s[-1] == 0
    for number in range(100):
        await attempt(throttle, f"name-{number}", f"1.1.1.{number}")
    assert len(throttle._pairs) == len(throttle._addresses) == 10


async def test_what_fails_on_our_side_is_no_failure_of_the_user() -> None:
    watch = Watch()
    throttle = watch.throttle()
    for _ in range(20):
        with pytest.raises(OSError, match="database"):
            async with throttle.turn("anna", "1.1.1.1"):
                raise OSError("database")
    assert set(watch.slept_s) == {0}


def test_an_address_is_a_customers_network() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert network_of("192.0.2.7") == "192.0.2.7"
    assert network_of("unknown") == "unknown"


def test_operator_user_without_operator_sees_nothing() -> None:
    account = Account(
        user_id=1, username="x", role=Role.OPERATOR, operator_id=None, permissions=frozenset()
    )
    assert account.scope == ""
    assert (
        Account(
            user_id=1, username="x", role=Role.INSPECTOR, operator_id=None, permissions=frozenset()
        ).scope
        is None
    )


def test_generated_passwords_differ_and_tokens_are_hashed() -> None:
    assert generate_password() != generate_password()
    assert len(token_hash("secret")) == 32


def test_vendored_scripts_are_the_pinned_ones() -> None:
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "scripts/assets"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_vendored_package_has_its_licence_beside_it() -> None:
    vendor = static_folder() / "vendor"
    pinned = json.loads((vendor / "hashes.json").read_text())
    assert {"htmx.LICENSE", "echarts.LICENSE", "echarts.NOTICE"} <= set(pinned["files"])
    assert (static_folder() / "tianjin_districts.LICENSE").is_file()


def test_address_of_a_static_file_changes_with_its_content() -> None:
    assert re.fullmatch(r"/static/app\.css\?v=[0-9a-f]{12}", static_url("app.css"))
    assert integrity("app.css").startswith("sha384-")

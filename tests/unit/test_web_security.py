from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chargewatch.api.throttle import Throttle
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


def test_throttle_lets_try_again_after_its_window() -> None:
    now = [0.0]
    throttle = Throttle(failures=3, window_s=60, clock=lambda: now[0])
    for _ in range(3):
        assert throttle.wait_s("name a") == 0
        throttle.failed("name a", "address x")
        now[0] += 1
    assert throttle.wait_s("name a") == pytest.approx(57)
    assert throttle.wait_s("name b") == 0
    assert throttle.wait_s("address x", factor=10) == 0
    now[0] += 58
    assert throttle.wait_s("name a") == 0


def test_throttle_keeps_a_bounded_number_of_names() -> None:
    throttle = Throttle(keys=10)
    for number in range(1000):
        throttle.failed(f"name {number}")
    assert len(throttle._seen) == 10


def test_operator_user_without_operator_sees_nothing() -> None:
    account = Account(user_id=1, username="x", role=Role.OPERATOR, operator_id=None)
    assert account.scope == ""
    assert Account(user_id=1, username="x", role=Role.INSPECTOR, operator_id=None).scope is None


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

"""A case in real Chromium: ticked in the list, worked on, with a file, on a desk and a phone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

RULES = (Path(__file__).parent / "accessibility.js").read_text(encoding="utf-8")
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PDF = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"
Open = Callable[..., object]
SHOTS = os.environ.get("CASE_SHOTS")


def test_a_case_is_ticked_assigned_written_into_and_closed(visit: Open) -> None:
    one = visit()
    page = one.open("/piles?q=TJ0001")
    for name in ("TJ0001-01-1", "TJ0001-02-1"):
        page.get_by_role("checkbox", name=f"Choose {name}").check()
    page.get_by_role("button", name="Open a case for each chosen").click()
    expect(page).to_have_url(one.url + "/cases")
    expect(page.locator("#results tbody tr")).to_have_count(2)
    for box in page.locator("#results tbody input[type=checkbox]").all():
        box.check()
    page.locator("fieldset select[name=owner]").select_option("admin")
    page.get_by_role("button", name="Do it").click()
    expect(page.get_by_role("status")).to_contain_text("Done for 2.")
    page.locator("#results tbody a").first.click()
    expect(page.locator("h1")).to_contain_text(re.compile(r"\d{4}-\d{6}"))
    path = page.url.removeprefix(one.url)
    page.get_by_label("Text").fill("Measured on site, @op2 @admin.\nSeal intact.")
    page.locator("input[type=file]").set_input_files(
        {"name": "certificate.pdf", "mimeType": "text/html", "buffer": PDF}
    )
    page.get_by_label("the operator reads this").last.check()
    page.get_by_role("button", name="Keep it").click()
    expect(page.locator(".entries")).to_contain_text("Seal intact.")
    with page.expect_download() as download:
        page.get_by_role("link", name="certificate.pdf").click()
    assert download.value.suggested_filename == "certificate.pdf"
    page.locator("summary", has_text="close").click()
    form = page.locator("form", has=page.locator("input[value=close]"))
    form.get_by_label("confirmed", exact=True).check()
    form.get_by_label("Reason").fill("+3.1 % at 60 A")
    form.get_by_role("button").click()
    expect(page.locator(".heading")).to_contain_text("closed: confirmed")
    operator = visit(user="op2").open(path)
    operator.get_by_label("objection").check()
    operator.get_by_label("Text").fill("The meter is new.")
    operator.get_by_role("button", name="Keep it").click()
    expect(operator.locator(".heading")).to_contain_text("assigned")
    expect(operator.locator(".entries")).to_contain_text("The meter is new.")
    for width in (1280, 390):
        for language in ("en-GB", "zh-CN"):
            for user in ("admin", "op2"):
                other = visit(user=user, width=width, locale=language)
                for where in ("/cases?state=all", path, "/piles?q=TJ0001", "/piles/TJ0001-02-1"):
                    shown = other.open(where)
                    assert shown.evaluate(WIDER) <= 0, f"{where} {width}"
                    assert shown.evaluate(RULES) == [], f"{where} {width} {language}"
                    if SHOTS:
                        name = re.sub(r"\W+", "-", where)
                        file = f"{SHOTS}/{user}{name}-{width}-{language}.png"
                        shown.screenshot(path=file, full_page=True)

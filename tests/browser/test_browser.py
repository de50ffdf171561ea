"""The pages in real Chromium: what a supervisor does, on a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from chargewatch.web import site

pytestmark = pytest.mark.browser

PASSWORD = "correct-horse-battery"
RULES = (Path(__file__).parent / "accessibility.js").read_text(encoding="utf-8")
PAGES = (
    *(
        page.address(connector="TJ0001-01-1", station_id="TJ0001")
        for page in site.PAGES
        if page.whole
        and not page.public
        and not re.search(r"\{(?!connector|station_id)", page.path)
    ),
    "/piles/TJ0001-05-1",
    "/nothing-here",
)
Open = Callable[..., object]


def test_log_in_with_the_keyboard_alone_and_log_out(visit: Open) -> None:
    one = visit(user=None)
    page = one.open("/piles?tier=red")
    expect(page).to_have_url(re.compile("/login"))
    page.keyboard.type("admin")
    page.keyboard.press("Tab")
    page.keyboard.type("not the password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("don't belong together")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(one.url + "/piles?tier=red")
    page.get_by_role("button", name="Log out").press("Enter")
    expect(page).to_have_url(one.url + "/login")
    # The browser itself notes the refused log-in as an error of the network.
    one.problems[:] = [problem for problem in one.problems if "401" not in problem]


def test_filter_changes_rows_and_address_and_can_be_sent_on(visit: Open) -> None:
    one = visit()
    page = one.open("/piles")
    rows = page.locator("#results tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("checkbox", name="Red").check()
    expect(rows).to_have_count(6)
    expect(page).to_have_url(one.url + "/piles?tier=red")
    page.get_by_label("Search").fill("TJ0007")
    expect(rows).to_have_count(1)
    expect(page).to_have_url(re.compile(r"\?q=TJ0007&tier=red$"))
    page.reload()
    expect(rows).to_have_count(1)
    expect(page.get_by_role("checkbox", name="Red")).to_be_checked()
    page.go_back()
    expect(rows).to_have_count(6)
    page.go_back()
    expect(rows).to_have_count(50)


def test_select_boxes_filter_at_once(visit: Open) -> None:
    page = visit().open("/piles")
    page.get_by_label("Operator").select_option("OP2")
    expect(page.locator("#results")).to_contain_text("40 piles")
    page.get_by_label("Sort by").select_option("connector")
    expect(page).to_have_url(re.compile(r"\?operator=OP2&sort=connector$"))


def test_filter_works_without_scripts(visit: Open) -> None:
    one = visit(java_script_enabled=False)
    page = one.page
    page.goto(one.url + "/piles")
    page.get_by_role("checkbox", name="Orange").check()
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#results tbody tr")).to_have_count(6)


def test_sort_and_pages_walk_the_whole_list(visit: Open) -> None:
    page = visit().open("/piles?sort=connector")
    names: list[str] = []
    while True:
        names += page.locator("#results tbody th a").all_inner_texts()
        following = page.locator("nav.pages a[rel=next]")
        if not following.count():
            break
        following.click()
        page.wait_for_load_state()
    assert len(names) == 120
    assert names == sorted(names)


def test_pile_says_why_and_draws_its_history(visit: Open) -> None:
    page = visit().open("/piles?tier=red&q=TJ0001")
    page.get_by_role("link", name="TJ0001-01-1").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("TJ0001-01-1")
    expect(page.locator(".headline")).to_contain_text("% ±")
    expect(page.locator(".why")).to_contain_text("It does not conform.")
    expect(page.locator("[data-chart=history] canvas")).to_be_visible()
    expect(page.locator("[data-chart=readings] canvas")).to_be_visible()
    shares = page.locator("section:has(#budget-title) tbody td:last-child").all_inner_texts()
    assert sum(float(text.split("\N{NO-BREAK SPACE}")[0]) for text in shares) == pytest.approx(
        100, abs=0.3
    )


def test_all_sessions_of_a_pile_can_be_paged_through(visit: Open) -> None:
    page = visit().open("/piles/TJ0001-01-1")
    seen: list[str] = []
    for number in range(3):
        if number:
            page.locator("#sessions nav a[rel=next]").click()
            page.wait_for_url(re.compile(f"sessions={number + 1}"))
        seen += page.locator("#sessions tbody th").all_inner_texts()
    assert [text.split()[0] for text in seen] == [f"S-{k:04d}" for k in range(60)]


def test_language_is_the_browsers_until_it_is_switched(visit: Open) -> None:
    page = visit(locale="zh-CN").open("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("今日全市")
    page.get_by_role("link", name="English").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The city today")
    page.get_by_role("link", name="Piles", exact=True).click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.get_by_role("link", name="中文").click()
    expect(page).to_have_url(re.compile("/piles$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("充电桩")


def test_theme_follows_the_system_until_it_is_switched(visit: Open) -> None:
    page = visit(color_scheme="light").open("/")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(background)
    assert light != dark
    page.emulate_media(color_scheme="light")
    page.locator("#switch-theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate(background) == dark


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("width", [375, 720, 1440])
def test_no_page_scrolls_sideways(visit: Open, width: int, locale: str) -> None:
    one = visit(width=width, locale=locale)
    for path in (*PAGES, "/piles?q=nothing-like-this"):
        page = one.open(path)
        over = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert over <= 0, path
    one.problems[:] = [problem for problem in one.problems if "404" not in problem]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_keep_the_rules_of_accessibility(visit: Open, scheme: str) -> None:
    one = visit(color_scheme=scheme)
    anonymous = visit(color_scheme=scheme, user=None)
    assert anonymous.open("/login").evaluate(RULES) == []
    for path in PAGES:
        assert one.open(path).evaluate(RULES) == [], path
    one.problems[:] = [problem for problem in one.problems if "404" not in problem]


def test_state_is_never_told_by_colour_alone(visit: Open) -> None:
    page = visit().open("/piles")
    for badge in page.locator("#results .tier").all():
        text = badge.inner_text().split()
        assert len(text) == 2, text
        assert text[0] in "▲◆●○✓"
        assert text[1] in {"Red", "Orange", "Yellow", "Grey", "Green"}


def test_keyboard_reaches_content_search_and_rows(visit: Open) -> None:
    page = visit().open("/piles")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("TJ0001-02")
    expect(page.locator("#results tbody tr")).to_have_count(1)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "TJ0001-02-1":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("TJ0001-02-1")


def test_operators_user_sees_its_own_piles_only(visit: Open) -> None:
    page = visit(user="op2").open("/piles")
    expect(page.locator("#results")).to_contain_text("40 piles")
    expect(page.get_by_label("Operator")).to_have_count(0)


def test_live_values_reach_the_page(visit: Open) -> None:
    one = visit()
    with one.page.expect_response(re.compile("/api/v1/events")) as answer:
        one.open("/")
    assert answer.value.headers["content-type"].startswith("text/event-stream")

"""What keeps programs from filling the office with complaints, and people from being kept out."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import func, select

from chargewatch.storage import tables
from complaint_forms import (
    WORDS,
    DoorClock,
    filed_reference,
    mark_of,
    send_complaint,
    with_clock,
)
from web_client import Site, open_site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        yield opened


@pytest.fixture
def clock(site: Site) -> DoorClock:
    return with_clock(site)


async def kept(site: Site) -> int:
    async with site.database.connect() as connection:
        query = select(func.count()).select_from(tables.complaint)
        return int(await connection.scalar(query) or 0)


def from_address(site: Site, address: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=site.app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_a_form_that_comes_at_once_waits_and_then_passes(
    site: Site, clock: DoorClock
) -> None:
    mark = await mark_of(site, "TJ0001-01-1")
    told = {"mark": mark, "kind": "price", "text": WORDS}
    answer = await site.client.post("/p/TJ0001-01-1/complain", data=told)
    assert (answer.status_code, await kept(site)) == (422, 0)
    assert "wait a few seconds" in answer.text
    # What was typed is still there, and the same form passes later.
    assert WORDS in answer.text
    assert f'value="{mark}"' in answer.text
    clock.now_s += 4
    answer = await site.client.post("/p/TJ0001-01-1/complain", data=told)
    assert (answer.status_code, await kept(site)) == (200, 1)
    again = await site.client.post("/p/TJ0001-01-1/complain", data=told)
    assert (again.status_code, await kept(site)) == (422, 1)
    assert "sent already" in again.text


@pytest.mark.parametrize("mark", ["", "1.2.3", "x" * 5_000, "1000.0.abc"])
async def test_a_form_of_nobody_is_given_out_anew(site: Site, clock: DoorClock, mark: str) -> None:
    answer = await send_complaint(site, clock, mark=mark)
    assert (answer.status_code, await kept(site)) == (422, 0)
    assert WORDS in answer.text


async def test_the_form_of_one_pile_is_none_of_another(site: Site, clock: DoorClock) -> None:
    mark = await mark_of(site, "TJ0001-02-1")
    assert (await send_complaint(site, clock, mark=mark)).status_code == 422


async def test_the_hidden_field_stays_empty(site: Site, clock: DoorClock) -> None:
    answer = await send_complaint(site, clock, website="https://spam.example")
    assert (answer.status_code, await kept(site)) == (422, 0)
    assert "as programs do" in answer.text
    assert "spam.example" not in answer.text
    # People don't see it, nor do they reach it by keyboard or screen reader.
    assert 'aria-hidden="true"' in answer.text
    assert 'tabindex="-1" autocomplete="off"' in answer.text


async def test_another_site_sends_no_complaint(site: Site, clock: DoorClock) -> None:
    mark = await mark_of(site, "TJ0001-01-1")
    clock.now_s += 10
    answer = await site.client.post(
        "/p/TJ0001-01-1/complain",
        data={"mark": mark, "kind": "price", "text": WORDS},
        headers={"origin": "https://evil.example"},
    )
    assert (answer.status_code, await kept(site)) == (422, 0)


async def test_an_address_sends_six_an_hour(site: Site, clock: DoorClock) -> None:
    answers = [(await send_complaint(site, clock)).status_code for _ in range(8)]
    assert answers == [200] * 6 + [429] * 2
    refused = await send_complaint(site, clock)
    assert "Try again in an hour" in refused.text
    assert WORDS in refused.text
    # Another address is not kept out by it, and this one not for ever.
    own = site.client
    async with from_address(site, "192.0.2.7") as other:
        site.client = other
        assert (await send_complaint(site, clock)).status_code == 200
    site.client = own
    clock.now_s += 3_600
    assert (await send_complaint(site, clock)).status_code == 200
    # Refused ones were not counted.
    assert await kept(site) == 8


async def test_all_addresses_together_have_a_limit(site: Site, clock: DoorClock) -> None:
    site.app.state.service.door.complaints_in_all.most = 3
    own, answers = site.client, []
    for n in range(5):
        async with from_address(site, f"198.51.100.{n}") as other:
            site.client = other
            answers.append((await send_complaint(site, clock)).status_code)
    site.client = own
    assert answers == [200] * 3 + [429] * 2


async def test_references_cannot_be_tried_out(site: Site, clock: DoorClock) -> None:
    reference = await filed_reference(site, clock)
    codes = [
        (
            await site.client.post("/complaints/status", data={"reference": f"{n:05}-00000-00000"})
        ).status_code
        for n in range(20)
    ]
    assert set(codes) == {404, 422}
    tried = await site.client.post("/complaints/status", data={"reference": reference})
    assert tried.status_code == 429
    assert int(tried.headers["retry-after"]) <= 600
    clock.now_s += 600
    again = await site.client.post("/complaints/status", data={"reference": reference})
    assert again.status_code == 200


async def test_pages_of_the_public_are_limited_together(site: Site, clock: DoorClock) -> None:
    site.app.state.service.door.reads.most = 6
    paths = ("/p/TJ0001-01-1", "/check", "/complaints/status", "/api/v1/public/districts",
             "/p/NOPE", "/p/NOPE/complain", "/p/TJ0001-01-1", "/api/v1/public/piles")  # fmt: skip
    answers = [(await site.client.get(path)).status_code for path in paths]
    assert answers == [200, 200, 200, 200, 404, 200, 429, 429]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "murder"}, "Say what it is about"),
        ({"text": "short"}, "at least 10 letters"),
        ({"text": "\u202e" * 50}, "at least 10 letters"),
        ({"text": "字" * 2_001}, "too long"),
        ({"contact": "call me"}, "neither a telephone number nor an e-mail"),
        ({"contact": "1" * 201}, "too long"),
        ({"session_text": "x" * 201}, "too long"),
        ({"session_at": "yesterday"}, "That time can&#39;t be"),
        ({"session_at": "2099-01-01T00:00"}, "That time can&#39;t be"),
        ({"session_at": "0001-01-01T00:00"}, "That time can&#39;t be"),
        ({"bill": "twenty"}, "as a number"),
        ({"bill": "1e5"}, "as a number"),
        ({"bill": "-3"}, "as a number"),
        ({"bill": "99999999"}, "as a number"),
    ],
)
async def test_fields_that_cannot_be_taken_are_named(
    site: Site, clock: DoorClock, fields: dict[str, str], words: str
) -> None:
    answer = await send_complaint(site, clock, **fields)
    assert (answer.status_code, await kept(site)) == (422, 0)
    assert words in answer.text


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "字" * 2_000},
        {"text": "<script>alert(1)</script> and \x00 NUL"},
        {"bill": "¥１２．５０元"},
        {"contact": "+86 (22) 2345-6789"},
        {"contact": "李@例子.中国"},
        {"session_text": "'; DROP TABLE complaint; --"},
        {"session_at": "2026-01-02T10:30"},
    ],
)
async def test_fields_that_can_be_taken_are(
    site: Site, clock: DoorClock, fields: dict[str, str]
) -> None:
    answer = await send_complaint(site, clock, **fields)
    assert (answer.status_code, await kept(site)) == (200, 1)
    await site.log_in("admin")
    page = (await site.client.get("/complaints/1")).text
    assert "<script>alert" not in page


async def test_a_form_that_is_too_large_is_refused(site: Site, clock: DoorClock) -> None:
    assert (await send_complaint(site, clock, text="字" * 5_000)).status_code == 413

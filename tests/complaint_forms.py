"""Complaints sent with the real form, by a clock that a test sets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx

from web_client import Site

MARK = re.compile(r'name="mark" value="([^"]+)"')
REFERENCE = re.compile(r'class="reference">([0-9]{5}-[0-9]{5}-[0-9]{5})<')
WORDS = "The bill says 20 kWh, my car took 15."


@dataclass
class DoorClock:
    """The clock of the limits and forms of the public pages."""

    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def with_clock(site: Site) -> DoorClock:
    """Give a site's public pages a clock that stands still."""
    clock = DoorClock()
    site.app.state.service.door.clock = clock
    return clock


async def mark_of(site: Site, connector: str) -> str:
    """Return the mark of a fresh form."""
    form = await site.client.get(f"/p/{connector}/complain")
    assert form.status_code == 200, form.text
    found = MARK.search(form.text)
    assert found is not None
    return found[1]


async def send_complaint(
    site: Site, clock: DoorClock, connector: str = "TJ0001-01-1", **fields: Any
) -> httpx.Response:
    """Fill in the form like a person, ten seconds long, and send it."""
    mark = await mark_of(site, connector)
    clock.now_s += 10
    told = {"mark": mark, "kind": "energy", "text": WORDS, "website": ""} | fields
    return await site.client.post(f"/p/{connector}/complain", data=told)


async def filed_reference(site: Site, clock: DoorClock, **fields: Any) -> str:
    """Send a complaint that is taken, and return its reference."""
    answer = await send_complaint(site, clock, **fields)
    assert answer.status_code == 200, answer.text
    found = REFERENCE.search(answer.text)
    assert found is not None
    return found[1]

"""Messages that wait for a batch: none waits longer because a clock was set."""

from __future__ import annotations

import asyncio
import time

import pytest

from chargewatch.ingest.inbox import Inbox
from chargewatch.ingest.message import Arrival


def arrival(received_s: float) -> Arrival:
    return Arrival("cw/v1/OP/ST/registers", b"{}", None, int(received_s * 1e6))


@pytest.mark.parametrize("jump_s", [-3_600.0, 0.0, 3_600.0])
async def test_a_clock_that_jumps_holds_no_batch_up(jump_s: float) -> None:
    inbox = Inbox(batch_readings=1_000, batch_messages=1_000)
    inbox.put(arrival(time.time() - jump_s))
    began = time.monotonic()
    await asyncio.wait_for(inbox.wait(0.2), 10)
    assert 0.1 < time.monotonic() - began < 5
    assert len(inbox.take()) == 1

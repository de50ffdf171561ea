"""Places where a test can stop the process, to see what survives."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping

from chargewatch.ingest.writer import Hook

VARIABLE = "CHARGEWATCH_TEST_KILL_AT"
"""before_commit or before_acknowledge, and after a colon the how many-th time (default 1)."""


def hook_from_environment(environ: Mapping[str, str]) -> Hook:
    """Return a hook that does nothing, or kills the process (SIGKILL) where a test asks for it."""
    wanted, _, count = environ.get(VARIABLE, "").partition(":")
    remaining = int(count or 1)

    async def hook(point: str) -> None:
        nonlocal remaining
        if point != wanted:
            return
        remaining -= 1
        if remaining == 0:
            # What was written to a socket shall leave the process first.
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)

    return hook

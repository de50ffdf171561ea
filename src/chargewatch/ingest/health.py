"""Whether ingest gets on: judged beside the road of messages, asked over HTTP.

A look every second at three figures the service keeps anyway costs messages nothing. Ingest is
well while it is connected with nothing waiting, or while batches are finished. When neither has
been so for the limit, it is failing, whatever the cause: a hung database, a lost broker, an event
loop that stands still. The look is taken in the event loop and judged in the thread that answers,
so that a loop that no longer turns shows as well. Before it was connected once, it is not well
either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the service is doing at a moment."""

    connected: bool
    subscribed: bool
    waiting: int
    finished: int
    nothing_written: str

    @property
    def trouble(self) -> str:
        """What may be wrong if it lasts; empty when nothing waits."""
        if not self.connected:
            return "not connected to the broker"
        if not self.subscribed:
            return "the broker has not confirmed the subscription"
        if not self.waiting:
            return ""
        waiting = f"{self.waiting} messages wait and nothing is committed"
        if self.nothing_written:
            return f"{waiting}: {self.nothing_written}"
        return f"{waiting}: the database does not answer, or something holds a lock"


@dataclass(frozen=True, kw_only=True)
class HealthVerdict:
    """The answer to who asks."""

    ok: bool
    reason: str
    stalled_s: float
    connected: bool
    waiting: int

    def document(self) -> dict[str, Any]:
        """Return the answer as a JSON document."""
        figures = asdict(self)
        status = "ok" if figures.pop("ok") else "failing"
        return {"status": status, **figures, "stalled_s": round(self.stalled_s, 1)}


class IngestHealth:
    """Remembers when the service last got on."""

    def __init__(
        self,
        look: Callable[[], Look],
        *,
        limit_s: float,
        tell: Callable[[float], None] = lambda stalled_s: None,
    ) -> None:
        """Judge by `look`; hand every second to `tell` for how long nothing got on."""
        self._look = look
        self._tell = tell
        self.limit_s = limit_s
        self._well_at = self._looked_at = time.monotonic()
        self._finished = 0
        self._has_begun = False
        self._last: Look | None = None

    async def watch(self) -> None:
        """Look every second, until cancelled."""
        while True:
            self.look_now()
            await asyncio.sleep(LOOK_S)

    def look_now(self) -> None:
        """Take one look."""
        look, now = self._look(), time.monotonic()
        if not look.trouble or look.finished > self._finished:
            self._well_at, self._has_begun = now, True
        self._finished = look.finished
        self._last, self._looked_at = look, now
        self._tell(now - self._well_at)

    def verdict(self) -> HealthVerdict:
        """Judge by the last look; any thread may ask."""
        now, last = time.monotonic(), self._last
        stalled_s = now - self._well_at
        if last is None:
            reason = "it does not serve yet"
        elif now - self._looked_at > self.limit_s:
            reason = "the event loop stands still"
        else:
            reason = last.trouble
        ok = self._has_begun and stalled_s <= self.limit_s
        return HealthVerdict(
            ok=ok,
            reason="" if ok else reason,
            stalled_s=stalled_s if reason else 0.0,
            connected=last is not None and last.connected,
            waiting=0 if last is None else last.waiting,
        )

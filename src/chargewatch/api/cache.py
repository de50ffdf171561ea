"""A small cache in front of figures that many ask for at once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any


class FigureCache:
    """Keeps the newest results by key for a time; concurrent askers share one computation."""

    def __init__(self, *, size: int = 512, lifetime_s: float = 60.0) -> None:
        self._size = size
        self._lifetime_s = lifetime_s
        self._kept: OrderedDict[Hashable, tuple[float, asyncio.Future[Any]]] = OrderedDict()

    async def get(
        self, key: Hashable, load: Callable[[], Awaitable[Any]], *, lifetime_s: float | None = None
    ) -> Any:
        """Return the kept result of a key, or load it; a failure is not kept."""
        now = time.monotonic()
        kept = self._kept.get(key)
        if kept is None or kept[0] <= now:
            future = asyncio.ensure_future(load())
            kept = self._kept[key] = (now + (lifetime_s or self._lifetime_s), future)
            future.add_done_callback(lambda done: self._forget_failure(key, done))
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        # Shielded: one asker that goes away must not take the result from the others.
        return await asyncio.shield(kept[1])

    def _forget_failure(self, key: Hashable, done: asyncio.Future[Any]) -> None:
        if not done.cancelled() and done.exception() is None:
            return
        kept = self._kept.get(key)
        if kept is not None and kept[1] is done:
            del self._kept[key]

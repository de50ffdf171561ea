"""A limit on failed log-ins, so that passwords can't be tried out."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable


class Throttle:
    """Counts failures by key in a sliding window; keeps a bounded number of keys."""

    def __init__(
        self,
        *,
        failures: int = 5,
        window_s: float = 300.0,
        keys: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures = failures
        self._window_s = window_s
        self._keys = keys
        self._clock = clock
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, key: str, *, factor: int = 1) -> float:
        """Return how long a key has to wait, s; 0 when it may try.

        Args:
            key: what is limited, a user name or an address.
            factor: how many times the usual number of failures it may have.
        """
        times = self._seen.get(key)
        if times is None:
            return 0.0
        now = self._clock()
        while times and times[0] <= now - self._window_s:
            times.popleft()
        allowed = self._failures * factor
        if len(times) < allowed:
            return 0.0
        return times[-allowed] + self._window_s - now

    def failed(self, *keys: str) -> None:
        """Count one failure for each key."""
        for key in keys:
            self._seen.setdefault(key, deque(maxlen=200)).append(self._clock())
            self._seen.move_to_end(key)
        while len(self._seen) > self._keys:
            self._seen.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        self._seen.pop(key, None)

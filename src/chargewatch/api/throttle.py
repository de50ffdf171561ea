"""Failed log-ins slow the next tries down, so that passwords can't be tried out.

Failures count for a name from an address: whoever tries somebody's name elsewhere doesn't slow
that user down, and nobody is ever locked out. One address that fails with many names is slowed
down, too, but not the names that have logged in from there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from chargewatch.errors import ChargewatchError

FREE_FAILURES = 4
FREE_FAILURES_OF_ADDRESS = 40
MAX_DELAY_S = 10.0
MAX_DELAY_OF_ADDRESS_S = 2.0
MAX_QUEUE_S = 30.0
# Passwords are checked in threads at 64 MiB each: no crowd of tries may take them all.
CHECKS_AT_ONCE = 4

Pair = tuple[str, str]
Key = TypeVar("Key", Pair, str)


class Seldom:
    """Lets something of a name pass a few times an hour: what anybody can cause fills no table."""

    def __init__(self, *, an_hour: int, names: int = 10_000) -> None:
        self._an_hour, self._names = an_hour, names
        self._passed: OrderedDict[str, deque[float]] = OrderedDict()

    def may(self, name: str) -> bool:
        """Return whether it passes now, and count it if it does."""
        now = time.monotonic()
        times = self._passed.setdefault(name, deque(maxlen=self._an_hour))
        self._passed.move_to_end(name)
        while len(self._passed) > self._names:
            self._passed.popitem(last=False)
        if len(times) == self._an_hour and now - times[0] < 3_600:
            return False
        times.append(now)
        return True


class ThrottledError(ChargewatchError):
    """So many tries wait for their turn already that one more has to come later."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"try again in {wait_s:.0f} s")
        self.wait_s = wait_s


def network_of(address: str) -> str:
    """Return what counts as one address: of IPv6 the network of 64 bits that one customer has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 6 and not found.ipv4_mapped:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


@dataclass
class _Tries:
    """Failures of one name from one address, or of one address."""

    failures: deque[float] = field(default_factory=lambda: deque(maxlen=1_000))
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    known: bool = False  # a log-in from there succeeded


class Try:
    """One try that has its turn: say with `succeeded` that the password was right."""

    right: bool = False

    def succeeded(self) -> None:
        """Count the try as no failure, and forget the failures before."""
        self.right = True


class Throttle:
    """Lets tries through, ever slower; keeps a bounded number of names and addresses."""

    def __init__(
        self,
        *,
        window_s: float = 900.0,
        keys: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._window_s = window_s
        self._keys = keys
        self._clock = clock
        self._sleep = sleep
        self._pairs: OrderedDict[Pair, _Tries] = OrderedDict()
        self._addresses: OrderedDict[str, _Tries] = OrderedDict()
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)

    @asynccontextmanager
    async def turn(self, name: str, address: str) -> AsyncIterator[Try]:
        """Wait for the turn of a name from an address, and count how the try ends.

        Tries of one name from one address go one after another: many at once can't outrun the
        count. An error inside counts as nothing.

        Raises: ThrottledError when the turn would not come soon.
        """
        address = network_of(address)
        tries = self._kept(self._pairs, (name.lower(), address))
        whole = self._kept(self._addresses, address)
        delay_s = self._delay_s(tries, whole)
        if delay_s * (tries.waiting + 1) > MAX_QUEUE_S:
            raise ThrottledError(delay_s * tries.waiting)
        tries.waiting += 1
        came_at = self._clock()
        try:
            async with tries.turn:
                # Those before may have failed meanwhile.
                delay_s = self._delay_s(tries, whole)
                if self._clock() - came_at + delay_s > MAX_QUEUE_S:
                    raise ThrottledError(delay_s)
                await self._sleep(delay_s)
                async with self._checks:
                    outcome = Try()
                    yield outcome
                    if outcome.right:
                        tries.failures.clear()
                        tries.known = True
                    else:
                        tries.failures.append(self._clock())
                        whole.failures.append(self._clock())
        finally:
            tries.waiting -= 1

    def _delay_s(self, tries: _Tries, whole: _Tries) -> float:
        delay_s = self._slower(tries, free=FREE_FAILURES, longest_s=MAX_DELAY_S)
        if tries.known:
            return delay_s
        of_address = self._slower(
            whole, free=FREE_FAILURES_OF_ADDRESS, longest_s=MAX_DELAY_OF_ADDRESS_S
        )
        return max(delay_s, of_address)

    def _slower(self, tries: _Tries, *, free: int, longest_s: float) -> float:
        """Return 0 for a few failures, then 1 s, 2 s, 4 s and so on."""
        failures = tries.failures
        while failures and failures[0] <= self._clock() - self._window_s:
            failures.popleft()
        beyond = len(failures) - free
        return 0.0 if beyond <= 0 else min(longest_s, 2.0 ** min(beyond - 1, 10))

    def _kept(self, kept: OrderedDict[Key, _Tries], key: Key) -> _Tries:
        tries = kept.setdefault(key, _Tries())
        kept.move_to_end(key)
        while len(kept) > self._keys:
            kept.popitem(last=False)
        return tries

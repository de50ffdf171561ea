"""What keeps the pages without a log-in from being flooded: limits by address, forms that age.

All of it is in memory and no third party takes part. Addresses are those of `client_address`:
behind a reverse proxy CHARGEWATCH_TRUSTED_PROXIES must name it, or all visitors count as one.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from chargewatch.api.errors import ApiError
from chargewatch.api.throttle import network_of

EVERYBODY = "*"
LEAST_FILL_S = 3.0
"""Nobody reads the form and writes a complaint in less."""
LONGEST_FILL_S = 7_200.0
MOST_NETWORKS = 50_000
MOST_USED = 20_000


class Allowance:
    """So many of something in a time, for each address; IPv6 counts by its network of 64 bits."""

    def __init__(
        self, *, most: int, window_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most = most
        self._window_s = window_s
        self._clock = clock
        self._taken: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, address: str) -> None:
        """Count one more.

        Raises: ApiError 429 with the time to wait.
        """
        now = self._clock()
        key = network_of(address)
        taken = self._taken.setdefault(key, deque(maxlen=self.most))
        self._taken.move_to_end(key)
        while len(self._taken) > MOST_NETWORKS:
            self._taken.popitem(last=False)
        while taken and taken[0] <= now - self._window_s:
            taken.popleft()
        if len(taken) >= self.most:
            wait_s = math.ceil(taken[0] + self._window_s - now)
            raise ApiError(
                429,
                "too_many_requests",
                f"too many requests from this address: try again in {wait_s} s",
                headers={"Retry-After": str(wait_s)},
            )
        taken.append(now)


class AgingForms:
    """Signed marks in forms: when each was given out, so that none is sent at once, or twice."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Of this process: after a restart a form that is open is given out anew, with its words.
        self._secret = secrets.token_bytes(32)
        self._used: OrderedDict[str, None] = OrderedDict()

    def mark(self, purpose: str) -> str:
        """Return a fresh mark for a form."""
        told = f"{self._clock():.3f}.{secrets.token_urlsafe(9)}"
        return f"{told}.{self._seal(told, purpose)}"

    def problem(self, mark: str, purpose: str) -> str:
        """Return why a form isn't taken: stale, too_fast or sent_already; "" when it is."""
        told, _, seal = mark.rpartition(".")
        given = seal.encode("utf-8", "replace")
        if not hmac.compare_digest(self._seal(told, purpose).encode(), given):
            return "stale"
        age_s = self._clock() - float(told.rpartition(".")[0])
        if age_s > LONGEST_FILL_S:
            return "stale"
        if mark in self._used:
            return "sent_already"
        return "too_fast" if age_s < LEAST_FILL_S else ""

    def use(self, mark: str) -> None:
        """Remember that a form was taken."""
        self._used[mark] = None
        while len(self._used) > MOST_USED:
            self._used.popitem(last=False)

    def forget(self, mark: str) -> None:
        """Let a form be sent again whose complaint could not be kept."""
        self._used.pop(mark, None)

    def _seal(self, told: str, purpose: str) -> str:
        text = f"{purpose}\n{told}".encode("utf-8", "replace")
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()


@dataclass
class PublicDoor:
    """The limits of everything that needs no log-in."""

    clock: Callable[[], float] = time.monotonic
    reads: Allowance = field(init=False)
    record_checks: Allowance = field(init=False)
    complaints: Allowance = field(init=False)
    complaints_in_all: Allowance = field(init=False)
    references: Allowance = field(init=False)
    forms: AgingForms = field(init=False)

    def __post_init__(self) -> None:
        """Give every limit the door's clock."""

        def now() -> float:
            return self.clock()

        # A telephone network has many customers behind one address of IPv4.
        self.reads = Allowance(most=300, window_s=60, clock=now)
        self.record_checks = Allowance(most=20, window_s=60, clock=now)
        self.complaints = Allowance(most=6, window_s=3_600, clock=now)
        self.complaints_in_all = Allowance(most=300, window_s=3_600, clock=now)
        self.references = Allowance(most=20, window_s=600, clock=now)
        self.forms = AgingForms(clock=now)

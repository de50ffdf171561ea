"""Limits on answers that take long: so many at once for a user, so many for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import contextmanager

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chargewatch.api.errors import ApiError


class Slots:
    """Counts what is under way by user."""

    def __init__(self, *, a_user: int, in_all: int, what: str, retry_s: int) -> None:
        self._a_user = a_user
        self._in_all = in_all
        self._what = what
        self._retry_s = retry_s
        self._taken: Counter[Hashable] = Counter()

    @property
    def taken(self) -> int:
        """How many are under way."""
        return self._taken.total()

    def take(self, user_id: Hashable) -> None:
        """Count one more of a user's; give it back with `release`.

        Raises: ApiError 429 when the user has its share, 503 when all are taken.
        """
        headers = {"Retry-After": str(self._retry_s)}
        if self._taken[user_id] >= self._a_user:
            raise ApiError(
                429, "too_many_at_once",
                f"{self._a_user} {self._what} are under way already: end one, or try again in "
                f"{self._retry_s} s", headers=headers,
            )  # fmt: skip
        if self.taken >= self._in_all:
            raise ApiError(
                503,
                "too_many_at_once",
                f"too many {self._what} are under way: try again in {self._retry_s} s",
                headers=headers,
            )
        self._taken[user_id] += 1

    def release(self, user_id: Hashable) -> None:
        """Give one back."""
        self._taken[user_id] -= 1
        if not self._taken[user_id]:
            del self._taken[user_id]

    @contextmanager
    def held(self, user_id: Hashable) -> Iterator[None]:
        """Hold one while something is done.

        Raises: ApiError as `take` does.
        """
        self.take(user_id)
        try:
            yield
        finally:
            self.release(user_id)


class SlottedStream(StreamingResponse):
    """A stream that gives its slot back at its end, however it ends."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        *,
        slots: Slots,
        user_id: int,
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._slots = slots
        self._user_id = user_id
        slots.take(user_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slots.release(self._user_id)

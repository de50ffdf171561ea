"""What the rows of all kinds of a batch are put together with, and what they are written with."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from chargewatch.ingest.identities import Identities, Owner
from chargewatch.ingest.message import Fate, Message
from chargewatch.storage.intake.readings import NewestReadings
from chargewatch.wire.kinds import Kind
from chargewatch.wire.rejection import IN_FUTURE, TOO_OLD

_MAX_SESSION_KEYS = 200_000
_Content = TypeVar("_Content")


@dataclass(frozen=True)
class TimeLimits:
    """Which times are accepted, relative to the arrival."""

    max_future_s: float
    max_age_days: float

    @property
    def future_us(self) -> int:
        """How far ahead of its arrival a reading may be, us."""
        return round(self.max_future_s * 1e6)

    @property
    def age_us(self) -> int:
        """How old a reading may be when it arrives, us."""
        return round(self.max_age_days * 86_400e6)

    def code(self, at_us: int, received_us: int) -> str | None:
        """Return why a time is refused, None when it is accepted."""
        if at_us > received_us + self.future_us:
            return IN_FUTURE
        return TOO_OLD if at_us < received_us - self.age_us else None

    def detail(self, path: str, code: str) -> str:
        """Return what is wrong with a time in words."""
        if code == IN_FUTURE:
            return f"{path} is more than {self.max_future_s:g} s after it arrived"
        return f"{path} is more than {self.max_age_days:g} days before it arrived"


class SessionKeys:
    """64-bit keys of session names, and which of them are in the dictionary already."""

    def __init__(self) -> None:
        self._keys: dict[str | None, int] = {None: 0}
        self._stored: set[int] = set()
        self._day = 0

    def key(self, session: str | None) -> int:
        """Return the key of a session name, 0 for none."""
        known = self._keys.get(session)
        if known is not None:
            return known
        digest = hashlib.blake2b(str(session).encode(), digest_size=8).digest()
        key = int.from_bytes(digest, "big", signed=True) or 1
        if len(self._keys) > _MAX_SESSION_KEYS:
            self._keys = {None: 0}
        self._keys[session] = key
        return key

    def keys(self, sessions: Sequence[str | None]) -> list[int]:
        """Return the keys of many session names."""
        known = {session: self.key(session) for session in set(sessions)}
        return list(map(known.__getitem__, sessions))

    def turn_to(self, day: int) -> None:
        """Forget what is stored when a new UTC day begins: names are noted again on every day.

        Retention removes names that were not heard for long, so none that is known here.
        """
        if day != self._day:
            self._day = day
            self._stored.clear()

    def is_stored(self, key: int) -> bool:
        """Return whether the dictionary is known to hold a key."""
        return key == 0 or key in self._stored

    def add_stored(self, keys: Sequence[int]) -> None:
        """Take in keys that were committed to the dictionary."""
        if len(self._stored) > _MAX_SESSION_KEYS:
            self._stored.clear()
        self._stored.update(keys)


def foreign_detail(path: str, name: str, owner: Owner) -> str:
    """Return in words that an instrument is somebody else's."""
    return f"{path} {name} is not registered to station {owner[1]} of operator {owner[0]}"


class Assembly:
    """The messages of one batch, with what is known of their fates so far."""

    def __init__(
        self,
        messages: Sequence[Message],
        identities: Identities,
        *,
        limits: TimeLimits,
        session_keys: SessionKeys,
    ) -> None:
        self.messages = messages
        self.identities = identities
        self.limits = limits
        self.session_keys = session_keys
        self.fates = [Fate() for _ in messages]
        for fate, message in zip(self.fates, messages, strict=True):
            if message.refused is not None:
                fate.reject_whole(message.refused)
            else:
                fate.rejections.extend(message.item_rejections)
                fate.rejected = len(message.item_rejections)

    def contents(self, kind: Kind, of: type[_Content]) -> Iterator[tuple[int, Message, _Content]]:
        """Yield number, message and content of the messages of one kind that could be read."""
        for number, message in enumerate(self.messages):
            if message.topic is None or message.topic.kind is not kind or message.decoded is None:
                continue
            content = message.decoded.content
            if not isinstance(content, of):
                raise TypeError(f"{kind} is read as {of.__name__}, not as {type(content).__name__}")
            yield number, message, content


@dataclass(frozen=True)
class Writing:
    """The transaction that rows are written in, and what they tell of it."""

    connection: Any
    messages: Sequence[Message]
    fates: list[Fate]
    limits: TimeLimits
    newest: NewestReadings
    session_names: dict[int, str]
    staged_only: bool


class Rows(ABC):
    """What one transaction writes of one kind of content."""

    @abstractmethod
    def ids(self, key: str) -> set[int]:
        """Return the instruments of the rows: their `connector` or their `meter`."""

    @abstractmethod
    async def write(self, writing: Writing) -> None:
        """Write the rows and settle the fates of their messages."""

    def remember(self, newest: NewestReadings, *, distrust: bool) -> None:
        """Take into the caches what the commit made true; most kinds have nothing to remember."""
        del newest, distrust

"""One message that spoils a batch is found, and nothing else suffers.

A batch that fails is halved until one message is left. What a half has committed is remembered, so
that a repetition books nothing twice. A message is put aside as `internal_error` only when it
fails alone while a sound message of each kind can be written at that moment; otherwise the
environment is to blame, and everything waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import orjson

from chargewatch.ingest.message import Arrival, Fate, Message, read_message, refuse_by_fault
from chargewatch.storage.intake import faults
from chargewatch.wire.kinds import Kind
from chargewatch.wire.rejection import INTERNAL_ERROR
from chargewatch.wire.topics import topic

log = logging.getLogger("chargewatch.ingest")

TRUST_S = 5.0
"""How long a try that went well is relied on."""
MOST_SEARCHED = 20
"""Messages of a station put aside one by one within GUILT_S; then those that fail, together."""
GUILT_S = 60.0
PROBE = "chargewatch-probe"
"""Operator and station of the messages that are only tried; nothing of them is ever committed."""

Write = Callable[[Sequence[Message]], Awaitable[list[Fate]]]
"""Commits messages in one transaction and returns their fates, or raises."""


def sound_messages(*, now_us: int) -> list[Message]:
    """Return one message of every kind that anything healthy can write, and a refused one."""
    at = datetime.fromtimestamp(now_us / 1e6, UTC).isoformat()
    envelope = {"seq": 1, "sent_at": at}
    messages = []
    for kind in Kind:
        item = kind.facts.example(PROBE, at)
        content = item if kind.facts.list_key is None else {kind.facts.list_key: [item]}
        payload = orjson.dumps(envelope | content)
        messages.append(read_message(Arrival(topic(PROBE, PROBE, kind), payload, None, now_us)))
    refused = read_message(Arrival(topic(PROBE, PROBE, Kind.REGISTERS), b"", None, now_us))
    refused.refuse(INTERNAL_ERROR, "a try")
    return [*messages, refused]


class Isolation:
    """Writes batches through `write`, and takes those apart that one message spoils."""

    def __init__(self, write: Write, probe: Callable[[Message], Awaitable[None]]) -> None:
        """Remember how to commit, and how to try sound messages; `probe` raises if they fail.

        The message given to `probe` is the suspect: its stream must be free as well.
        """
        self._write = write
        self._probe = probe
        self._settled: dict[int, tuple[Message, Fate]] = {}
        self._failed_first: Message | None = None
        self._failed: tuple[object, ...] = ()
        self._strikes = 0
        self._trusted_until = 0.0
        self._guilt = _Guilt()

    async def write(self, messages: Sequence[Message]) -> list[Fate]:
        """Commit messages and return their fates.

        Raises: errors that pass by themselves. Call it again with the same messages then: what
        was committed of them is not written again.
        """
        self._guilt.forgive()
        held = {id(message) for message in messages}
        self._settled = {key: value for key, value in self._settled.items() if key in held}
        waiting = [message for message in messages if id(message) not in self._settled]
        await self._settle(waiting, patience=1)
        fates = [self._settled[id(message)][1] for message in messages]
        self._settled.clear()
        self._failed_first, self._failed, self._strikes = None, (), 0
        return fates

    async def _settle(self, messages: Sequence[Message], *, patience: int) -> None:
        if not messages:
            return
        try:
            fates = await self._write(messages)
        except Exception as exc:
            patience = max(patience, self._count(messages, exc))
            if patience < faults.blame_of(exc):
                raise
            parts = self._parts(messages)
            if len(parts) == 1:
                await self._put_aside(messages, exc)
                return
        else:
            self._keep(messages, fates)
            return
        for part in parts:
            await self._settle(part, patience=patience)

    def _keep(self, messages: Sequence[Message], fates: Sequence[Fate]) -> None:
        for message, fate in zip(messages, fates, strict=True):
            self._settled[id(message)] = message, fate

    def _parts(self, messages: Sequence[Message]) -> list[Sequence[Message]]:
        """Return the parts of a batch that are tried next; one part: it is put aside.

        Stations that nothing was put aside of lately go first, together. A station of which much
        was put aside lately is not searched any further: however many bad messages it sends, the
        others don't wait for a search among them. What is put aside can be read again.
        """
        suspected = [m for m in messages if self._guilt.of(m.owner)]
        if 0 < len(suspected) < len(messages):
            return [[m for m in messages if not self._guilt.of(m.owner)], suspected]
        owners = {message.owner for message in messages}
        if len(messages) == 1 or (
            len(owners) == 1 and self._guilt.of(messages[0].owner) >= MOST_SEARCHED
        ):
            return [messages]
        middle = len(messages) // 2
        return [messages[:middle], messages[middle:]]

    def _count(self, messages: Sequence[Message], error: Exception) -> int:
        """Return how often these messages have failed like this, one after the other."""
        # The message itself: the number of one that is gone may be another one's by now.
        first, rest = messages[0], (len(messages), faults.kind_of(error))
        again = first is self._failed_first and rest == self._failed
        self._strikes = self._strikes + 1 if again else 1
        self._failed_first, self._failed = first, rest
        return self._strikes

    async def _put_aside(self, messages: Sequence[Message], error: Exception) -> None:
        """Refuse what fails by itself, if anything else could be written now."""
        if time.monotonic() > self._trusted_until or not faults.is_data_fault(error):
            try:
                await self._probe(messages[0])
            except Exception as exc:
                # This tells more of what is wrong with the environment.
                raise exc from error
            self._trusted_until = time.monotonic() + TRUST_S
        if len(messages) > 1:
            log.error(
                "internal_errors topic=%s messages=%d: put aside together, too many came lately",
                messages[0].arrival.topic,
                len(messages),
            )
        for number, message in enumerate(messages):
            refuse_by_fault(message, error, told=number == 0)
        self._guilt.add(messages[0].owner, len(messages))
        self._keep(messages, await self._write(messages))


class _Guilt:
    """How many messages of each station were put aside lately."""

    def __init__(self) -> None:
        self._since = 0.0
        self._counts: dict[tuple[str, str], int] = {}

    def of(self, owner: tuple[str, str]) -> int:
        return self._counts.get(owner, 0)

    def add(self, owner: tuple[str, str], count: int) -> None:
        self._counts[owner] = self.of(owner) + count

    def forgive(self) -> None:
        """Forget everything, once in a while: a station must not stay suspected for ever."""
        if time.monotonic() - self._since > GUILT_S:
            self._since = time.monotonic()
            self._counts.clear()

"""A batch of messages as the tables take it: rows with keys, and what was refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chargewatch.ingest.contents.assembly import Assembly, Rows, SessionKeys, TimeLimits
from chargewatch.ingest.contents.events import EventRows
from chargewatch.ingest.contents.readings import ReadingRows
from chargewatch.ingest.contents.sessions import SessionRows
from chargewatch.ingest.contents.statuses import StatusRows
from chargewatch.ingest.identities import INSTRUMENT_TABLES, Identities
from chargewatch.ingest.message import Fate, Message
from chargewatch.storage.pile_index import Claim
from chargewatch.wire.kinds import Kind
from chargewatch.wire.rejection import FOREIGN_IDENTITY

ROWS: dict[Kind, Callable[[Assembly, Kind], Rows]] = {
    Kind.REGISTERS: ReadingRows,
    Kind.REFERENCE: ReadingRows,
    Kind.SESSIONS: SessionRows,
    Kind.EVENTS: EventRows,
    Kind.STATUS: StatusRows,
}
"""What becomes of each kind of content, in the order in which a transaction writes them."""


@dataclass
class Batch:
    """Everything that one transaction writes."""

    messages: Sequence[Message]
    fates: list[Fate]
    rows: list[Rows]
    session_names: dict[int, str] = field(default_factory=dict)

    def ids(self, key: str) -> set[int]:
        """Return the instruments that rows of the batch name: each `connector` or `meter`."""
        return set().union(*(rows.ids(key) for rows in self.rows))


def refuse_foreign_stations(messages: Sequence[Message], identities: Identities) -> None:
    """Refuse whole messages of operators whose topic names another operator's station."""
    for message in messages:
        owner = identities.foreign_station(message.owner) if message.topic else None
        if owner is not None:
            message.refuse(
                FOREIGN_IDENTITY,
                f"station {message.owner[1]} is not registered to operator {message.owner[0]}",
            )


def unknown_instruments(
    messages: Sequence[Message], identities: Identities
) -> dict[str, set[Claim]]:
    """Return the connectors and meters that nobody registered and that have no row yet."""
    claims: dict[str, set[Claim]] = {key: set() for key in INSTRUMENT_TABLES}
    for message in messages:
        if message.decoded is None or message.topic is None:
            continue
        owner = message.owner
        for key in message.topic.kind.facts.instruments:
            instruments = identities.of(key)
            names = message.decoded.content.named(key)
            for name in names - instruments.ids_of(owner).keys():
                if instruments.other_owner(name, owner) is None:
                    claims[key].add((name, *owner))
    return claims


def assemble(
    messages: Sequence[Message],
    identities: Identities,
    *,
    limits: TimeLimits,
    session_keys: SessionKeys,
) -> Batch:
    """Return the rows of a batch and the fates so far; every unknown instrument has been claimed.

    Repeating it gives the same again: it changes nothing but the caches of `session_keys`.
    """
    work = Assembly(messages, identities, limits=limits, session_keys=session_keys)
    rows = [of_kind(work, kind) for kind, of_kind in ROWS.items()]
    return Batch(messages, work.fates, rows, _new_session_names(messages, session_keys))


def _new_session_names(messages: Sequence[Message], keys: SessionKeys) -> dict[int, str]:
    names: dict[int, str] = {}
    newest_us = max((message.arrival.received_us for message in messages), default=0)
    keys.turn_to(newest_us // 86_400_000_000)
    for message in messages:
        named = message.decoded.content.session_names() if message.decoded is not None else ()
        for session in named:
            key = keys.key(session)
            if not keys.is_stored(key):
                names[key] = session
    return names

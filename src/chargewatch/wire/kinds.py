"""Kinds of content: what each topic of a gateway carries, told once for everybody who handles it.

A kind is declared here; its items are read by a module of `wire`, shown by a model of
`wire.payloads` and written by a module of `ingest.contents`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from chargewatch.wire.rejection import Rejection
    from chargewatch.wire.topics import Topic

ENVELOPE_KEYS = frozenset({"seq", "sent_at"})


class Content(Protocol):
    """What could be read of one message."""

    @property
    def rejections(self) -> Sequence[Rejection]:
        """Items that could not be read."""

    @property
    def unknown_keys(self) -> int:
        """Number of keys that this version does not know."""

    @property
    def rounded(self) -> int:
        """Number of energies that had more than three decimals."""

    @property
    def may_nest(self) -> bool:
        """Whether lists or objects may be where this version knows none."""

    def named(self, key: str) -> set[str]:
        """Return the instruments that items name under a key."""

    def session_names(self) -> set[str]:
        """Return the sessions that items name."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is to be known of a kind of content.

    read: from the list of items, or from the whole message when it is its own item.
    list_key: the key of the list of items; None: the message itself is the one item.
    told_by: keys by which a gateway knows an item that comes without its topic.
    example: an item that anything healthy can write, of an instrument of a name and a time.
    instruments: keys of an item that name instruments.
    own_keys: keys of the message, the envelope's apart, where it has no list.
    """

    read: Callable[[Any, Topic], Content]
    list_key: str | None
    told_by: frozenset[str]
    example: Callable[[str, str], dict[str, Any]]
    instruments: tuple[str, ...] = ()
    own_keys: frozenset[str] = frozenset()
    has_receipt: bool = True
    retained: bool = False


# The readers are imported when the first message comes: a gateway reads none, and is to stay small.


def _read_registers(items: list[Any], topic: Topic) -> Content:
    from chargewatch.wire.readings import read_registers

    return read_registers(items, topic)


def _read_reference(items: list[Any], topic: Topic) -> Content:
    from chargewatch.wire.readings import read_reference

    return read_reference(items, topic)


def _read_sessions(items: list[Any], topic: Topic) -> Content:
    from chargewatch.wire.sessions import read_sessions

    return read_sessions(items, topic)


def _read_events(items: list[Any], topic: Topic) -> Content:
    from chargewatch.wire.events import read_events

    return read_events(items, topic)


def _read_status(document: dict[str, Any], topic: Topic) -> Content:
    from chargewatch.wire.status import read_status

    return read_status(document, topic)


def _session(name: str, at: str) -> dict[str, Any]:
    session = {"session": name, "connector": name, "started_at": at, "ended_at": at}
    return session | {"currency": "CNY", "start_wh": 1, "stop_wh": 1, "billed_wh": 0}


class Kind(StrEnum):
    """The topics that a gateway may send."""

    # The name is the topic's last level and the value of ledger_stream.topic. The order is that
    # of rows in a transaction: docs/storage.md, Who locks what.

    facts: Facts
    keys: frozenset[str]

    def __new__(cls, name: str, facts: Facts) -> Kind:
        """Return a kind: its name as text, with its facts."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.facts = facts
        listed = set() if facts.list_key is None else {facts.list_key}
        kind.keys = ENVELOPE_KEYS | facts.own_keys | listed
        return kind

    REGISTERS = (
        "registers",
        Facts(
            read=_read_registers,
            list_key="readings",
            told_by=frozenset({"energy_wh"}),
            example=lambda name, at: {"connector": name, "at": at, "energy_wh": 1, "session": name},
            instruments=("connector",),
        ),
    )
    REFERENCE = (
        "reference",
        Facts(
            read=_read_reference,
            list_key="readings",
            told_by=frozenset({"energy_wh", "meter"}),
            example=lambda name, at: {"meter": name, "at": at, "energy_wh": 1},
            instruments=("meter",),
        ),
    )
    SESSIONS = (
        "sessions",
        Facts(
            read=_read_sessions,
            list_key="sessions",
            told_by=frozenset({"started_at"}),
            example=_session,
            instruments=("connector",),
        ),
    )
    EVENTS = (
        "events",
        Facts(
            read=_read_events,
            list_key="events",
            told_by=frozenset({"kind"}),
            example=lambda name, at: {"connector": name, "at": at, "kind": "in_service"},
            instruments=("connector", "meter"),
        ),
    )
    STATUS = (
        "status",
        Facts(
            read=_read_status,
            list_key=None,
            told_by=frozenset({"online"}),
            example=lambda name, at: {"online": True},
            own_keys=frozenset({"online", "clock_offset_ms", "backlog", "firmware"}),
            has_receipt=False,
            retained=True,
        ),
    )


_NAMED = {str(kind): kind for kind in Kind}


def kind_named(name: object) -> Kind | None:
    """Return the kind of a topic's last level; None when the contract has none of that name."""
    return _NAMED.get(name) if isinstance(name, str) else None


def kind_of_item(item: Mapping[str, Any]) -> Kind | None:
    """Return what an item is by its keys; the kind that was declared last is asked first."""
    for kind in reversed(Kind):
        if kind.facts.told_by <= item.keys():
            return kind
    return None


def items_of(document: Mapping[str, Any]) -> list[Any] | None:
    """Return the list of items of a message of any kind; None when it has none."""
    for kind in Kind:
        key = kind.facts.list_key
        if key is not None and isinstance(document.get(key), list):
            items: list[Any] = document[key]
            return items
    return None

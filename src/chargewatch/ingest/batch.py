"""A batch of messages as the tables take it: rows with keys, and what was refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.session import SESSION_COLUMNS
from chargewatch.ingest.identities import Identities, Owner
from chargewatch.ingest.message import Fate, Message, moment_of
from chargewatch.storage.bulk import Records
from chargewatch.storage.intake.events import EventRow
from chargewatch.storage.intake.identities import Instrument
from chargewatch.storage.intake.readings import REFERENCES, REGISTERS, ReadingTable
from chargewatch.storage.intake.sessions import SessionRow
from chargewatch.storage.pile_index import Claim
from chargewatch.wire.decode import Content, Status
from chargewatch.wire.events import EventRecord, Events
from chargewatch.wire.readings import MEASURES, Columns
from chargewatch.wire.rejection import FOREIGN_IDENTITY, IN_FUTURE, TOO_OLD
from chargewatch.wire.sessions import SessionRecord, Sessions

_FOREIGN = -2
_MAX_SESSION_KEYS = 200_000


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


@dataclass
class ReadingRows:
    """Readings of one table in order of arrival, and where each came from."""

    table: ReadingTable
    records: Records
    message: NDArray[np.int64]
    place: NDArray[np.int64]

    @property
    def size(self) -> int:
        """Number of readings."""
        return len(self.records)


@dataclass
class Batch:
    """Everything that one transaction writes."""

    messages: Sequence[Message]
    fates: list[Fate]
    registers: ReadingRows
    references: ReadingRows
    sessions: list[tuple[int, int, SessionRow]]  # message, place, row
    statuses: list[tuple[int, Status]]
    events: list[tuple[int, int, EventRow]]  # message, place, row
    session_names: dict[int, str] = field(default_factory=dict)

    def connector_ids(self) -> set[int]:
        """Return the connectors that rows of the batch name."""
        named = {row.connector_id for _, _, row in self.sessions}
        named |= {row.connector_id for _, _, row in self.events}
        return named | set(np.unique(self.registers.records["connector_id"]).tolist())

    def meter_ids(self) -> set[int]:
        """Return the reference meters that rows of the batch name."""
        named = {row.meter_id for _, _, row in self.events}
        return named | set(np.unique(self.references.records["meter_id"]).tolist())


def _with_columns(messages: Sequence[Message], kind: str) -> list[tuple[int, Message, Columns]]:
    return [
        (n, m, m.decoded.content)
        for n, m in enumerate(messages)
        if m.decoded is not None
        and isinstance(m.decoded.content, Columns)
        and m.topic is not None
        and m.topic.kind == kind
    ]


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
) -> dict[Instrument, set[Claim]]:
    """Return the instruments that nobody registered and that have no row yet."""
    claims: dict[Instrument, set[Claim]] = {"connector": set(), "reference_meter": set()}
    for message in messages:
        if message.decoded is None or message.topic is None:
            continue
        owner = message.owner
        for table, names in _named(message.decoded.content, message.topic.kind).items():
            instruments = identities.meters if table == "reference_meter" else identities.connectors
            for name in names - instruments.ids_of(owner).keys():
                if instruments.other_owner(name, owner) is None:
                    claims[table].add((name, *owner))
    return claims


def _named(content: Content, kind: str) -> dict[Instrument, set[str]]:
    """Return the instruments that a message names."""
    if isinstance(content, Columns):
        return {"reference_meter" if kind == "reference" else "connector": set(content.names)}
    if isinstance(content, Sessions):
        return {"connector": {record.connector for record in content.records}}
    if isinstance(content, Events):
        return {
            "connector": {r.connector for r in content.records if r.connector is not None},
            "reference_meter": {r.meter for r in content.records if r.meter is not None},
        }
    return {}


def _foreign_detail(path: str, name: str, owner: Owner) -> str:
    return f"{path} {name} is not registered to station {owner[1]} of operator {owner[0]}"


class _Assembly:
    """Puts the messages of one batch together."""

    def __init__(
        self, messages: Sequence[Message], identities: Identities, limits: TimeLimits
    ) -> None:
        self.messages = messages
        self.identities = identities
        self.limits = limits
        self.fates = [Fate() for _ in messages]
        for fate, message in zip(self.fates, messages, strict=True):
            if message.refused is not None:
                fate.reject_whole(message.refused)
            else:
                fate.rejections.extend(message.item_rejections)
                fate.rejected = len(message.item_rejections)

    def readings(self, kind: str, table: ReadingTable, keys: SessionKeys) -> ReadingRows:
        parts = _with_columns(self.messages, kind)
        counts = [len(columns.names) for _, _, columns in parts]
        if not sum(counts):
            return ReadingRows(
                table, np.empty(0, dtype=table.row), *(np.empty(0, dtype=np.int64),) * 2
            )
        instruments = self.identities.of(kind)
        ids: list[int] = []
        for _, message, columns in parts:
            known = instruments.ids_of(message.owner)
            ids.extend(known.get(name, _FOREIGN) for name in columns.names)
        numbers = np.repeat([n for n, _, _ in parts], counts)
        received_us = np.repeat([m.arrival.received_us for _, m, _ in parts], counts)
        place = np.concatenate(
            [np.arange(len(c.names)) if c.index is None else c.index for _, _, c in parts]
        )
        at_us = np.concatenate([columns.at_us for _, _, columns in parts])
        values = np.concatenate([columns.values for _, _, columns in parts], axis=1)
        records = np.empty(len(ids), dtype=table.row)
        records[table.instrument] = ids
        records["at"] = at_us.view("M8[us]")
        for name, column in zip(("energy_wh", *MEASURES), values, strict=False):
            records[name] = column
        if kind == "registers":
            self._labels(records, parts, keys)
        good = (
            (records[table.instrument] >= 0)
            & (at_us <= received_us + self.limits.future_us)
            & (at_us >= received_us - self.limits.age_us)
        )
        rows = ReadingRows(table, records, numbers, place)
        if not good.all():
            names = [name for _, _, columns in parts for name in columns.names]
            for row in np.flatnonzero(~good):
                self._reject_reading(rows, int(row), kind, names[row])
            rows = ReadingRows(table, records[good], numbers[good], place[good])
        return rows

    def _labels(
        self, records: Records, parts: list[tuple[int, Message, Columns]], keys: SessionKeys
    ) -> None:
        sessions = np.zeros(len(records), dtype=np.int64)
        contexts = np.zeros(len(records), dtype=np.int16)
        start = 0
        for _, _, columns in parts:
            end = start + len(columns.names)
            if columns.sessions is not None:
                sessions[start:end] = keys.keys(columns.sessions)
            if columns.contexts is not None:
                contexts[start:end] = columns.contexts
            start = end
        records["session_key"] = sessions
        records["context"] = contexts

    def _reject_reading(self, rows: ReadingRows, row: int, kind: str, name: str) -> None:
        number, place = int(rows.message[row]), int(rows.place[row])
        message = self.messages[number]
        path = f"readings[{place}]"
        if rows.records[rows.table.instrument][row] == _FOREIGN:
            key = "meter" if kind == "reference" else "connector"
            detail = _foreign_detail(f"{path}.{key}", name, message.owner)
            self.fates[number].reject(place, FOREIGN_IDENTITY, detail)
            return
        at_us = int(rows.records["at"][row].view(np.int64))
        code = self.limits.code(at_us, message.arrival.received_us)
        self.fates[number].reject(
            place, code or TOO_OLD, self.limits.detail(f"{path}.at", code or TOO_OLD)
        )

    def sessions(self) -> list[tuple[int, int, SessionRow]]:
        rows = []
        for number, message in enumerate(self.messages):
            content = message.decoded.content if message.decoded is not None else None
            if not isinstance(content, Sessions):
                continue
            known = self.identities.connectors.ids_of(message.owner)
            for record in content.records:
                connector_id = known.get(record.connector)
                refusal = self._session_refusal(message, record, connector_id)
                if refusal is not None:
                    self.fates[number].reject(record.index, *refusal)
                elif connector_id is not None:
                    rows.append((number, record.index, _session_row(message, record, connector_id)))
        return rows

    def _session_refusal(
        self, message: Message, record: SessionRecord, connector_id: int | None
    ) -> tuple[str, str] | None:
        path = f"sessions[{record.index}]"
        if connector_id is None:
            detail = _foreign_detail(f"{path}.connector", record.connector, message.owner)
            return FOREIGN_IDENTITY, detail
        code = self.limits.code(record.ended_at_us, message.arrival.received_us)
        return (code, self.limits.detail(f"{path}.ended_at", code)) if code else None

    def events(self) -> list[tuple[int, int, EventRow]]:
        rows = []
        for number, message in enumerate(self.messages):
            content = message.decoded.content if message.decoded is not None else None
            if not isinstance(content, Events):
                continue
            for record in content.records:
                row = self._event(message, record)
                if isinstance(row, EventRow):
                    rows.append((number, record.index, row))
                else:
                    self.fates[number].reject(record.index, *row)
        return rows

    def _event(self, message: Message, record: EventRecord) -> EventRow | tuple[str, str]:
        """Return an event as it is stored, or code and detail of why it is refused."""
        path, received_us = f"events[{record.index}]", message.arrival.received_us
        ids = {"connector": 0, "meter": 0}  # 0: the station
        for key, instruments in (
            ("connector", self.identities.connectors),
            ("meter", self.identities.meters),
        ):
            name = getattr(record, key)
            if name is None:
                continue
            known = instruments.ids_of(message.owner).get(name)
            if known is None:
                return FOREIGN_IDENTITY, _foreign_detail(f"{path}.{key}", name, message.owner)
            ids[key] = known
        code = self.limits.code(record.at_us, received_us)
        if code is not None:
            return code, self.limits.detail(f"{path}.at", code)
        return EventRow(
            *message.owner,
            connector_id=ids["connector"],
            meter_id=ids["meter"],
            kind=record.kind,
            at=record.at,
            detail=record.detail,
            serial=record.serial,
            start_wh=record.start_wh,
            stop_wh=record.stop_wh,
            received_at=moment_of(received_us),
        )

    def statuses(self) -> list[tuple[int, Status]]:
        return [
            (number, message.decoded.content)
            for number, message in enumerate(self.messages)
            if message.decoded is not None and isinstance(message.decoded.content, Status)
        ]


def _session_row(message: Message, record: SessionRecord, connector_id: int) -> SessionRow:
    return SessionRow(
        operator_id=message.owner[0],
        station_id=message.owner[1],
        connector_id=connector_id,
        content_hash=record.content_hash,
        received_at=moment_of(message.arrival.received_us),
        **{column.name: getattr(record, column.name) for column in SESSION_COLUMNS},
    )


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
    work = _Assembly(messages, identities, limits)
    registers = work.readings("registers", REGISTERS, session_keys)
    references = work.readings("reference", REFERENCES, session_keys)
    batch = Batch(
        messages,
        work.fates,
        registers,
        references,
        work.sessions(),
        work.statuses(),
        work.events(),
    )
    batch.session_names = _new_session_names(batch, session_keys)
    return batch


def _new_session_names(batch: Batch, keys: SessionKeys) -> dict[int, str]:
    names: dict[int, str] = {}
    newest_us = max((message.arrival.received_us for message in batch.messages), default=0)
    keys.turn_to(newest_us // 86_400_000_000)
    for message in batch.messages:
        content = message.decoded.content if message.decoded is not None else None
        if isinstance(content, Columns) and content.sessions is not None:
            named = {session for session in content.sessions if session is not None}
        elif isinstance(content, Sessions):
            named = {record.session for record in content.records}
        else:
            continue
        for session in named:
            key = keys.key(session)
            if not keys.is_stored(key):
                names[key] = session
    return names

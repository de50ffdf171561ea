"""Readings of connectors and of reference meters: rows of their tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.conflict import READING_STORED
from chargewatch.ingest.contents.assembly import Assembly, Rows, Writing, foreign_detail
from chargewatch.ingest.message import Message
from chargewatch.storage.bulk import Records
from chargewatch.storage.intake.readings import (
    CONFLICT,
    DUPLICATE,
    REFERENCES,
    REGISTERS,
    STORED,
    NewestReadings,
    ReadingTable,
    mark_pending,
    newest_rows,
    pending_days,
    store_readings,
    update_latest,
)
from chargewatch.wire.kinds import Kind
from chargewatch.wire.readings import MEASURES, DecodedReadings
from chargewatch.wire.rejection import CONFLICT as CONFLICT_CODE
from chargewatch.wire.rejection import FOREIGN_IDENTITY, TOO_OLD

_FOREIGN = -2
_Parts = list[tuple[int, Message, DecodedReadings]]


class ReadingRows(Rows):
    """Readings of one table in order of arrival, and where each came from."""

    records: Records
    message: NDArray[np.int64]
    place: NDArray[np.int64]

    def __init__(self, work: Assembly, kind: Kind) -> None:
        self.table: ReadingTable = REFERENCES if kind is Kind.REFERENCE else REGISTERS
        (self._key,) = kind.facts.instruments
        parts = list(work.contents(kind, DecodedReadings))
        counts = [len(columns.names) for _, _, columns in parts]
        if not sum(counts):
            self.records = np.empty(0, dtype=self.table.row)
            self.message = self.place = np.empty(0, dtype=np.int64)
            return
        self._fill(work, parts, counts)

    def _fill(self, work: Assembly, parts: _Parts, counts: list[int]) -> None:
        instruments = work.identities.of(self._key)
        ids: list[int] = []
        for _, message, columns in parts:
            known = instruments.ids_of(message.owner)
            ids.extend(known.get(name, _FOREIGN) for name in columns.names)
        self.message = np.repeat([n for n, _, _ in parts], counts)
        received_us = np.repeat([m.arrival.received_us for _, m, _ in parts], counts)
        self.place = np.concatenate(
            [np.arange(len(c.names)) if c.index is None else c.index for _, _, c in parts]
        )
        at_us = np.concatenate([columns.at_us for _, _, columns in parts])
        values = np.concatenate([columns.values for _, _, columns in parts], axis=1)
        self.records = np.empty(len(ids), dtype=self.table.row)
        self.records[self.table.instrument] = ids
        self.records["at"] = at_us.view("M8[us]")
        for name, column in zip(("energy_wh", *MEASURES), values, strict=False):
            self.records[name] = column
        if self.table is REGISTERS:
            self._label(work, parts)
        good = (
            (self.records[self.table.instrument] >= 0)
            & (at_us <= received_us + work.limits.future_us)
            & (at_us >= received_us - work.limits.age_us)
        )
        if not good.all():
            names = [name for _, _, columns in parts for name in columns.names]
            for row in np.flatnonzero(~good):
                self._reject(work, int(row), names[row])
            self.records, self.message = self.records[good], self.message[good]
            self.place = self.place[good]

    def _label(self, work: Assembly, parts: _Parts) -> None:
        sessions = np.zeros(len(self.records), dtype=np.int64)
        contexts = np.zeros(len(self.records), dtype=np.int16)
        start = 0
        for _, _, columns in parts:
            end = start + len(columns.names)
            if columns.sessions is not None:
                sessions[start:end] = work.session_keys.keys(columns.sessions)
            if columns.contexts is not None:
                contexts[start:end] = columns.contexts
            start = end
        self.records["session_key"] = sessions
        self.records["context"] = contexts

    def _reject(self, work: Assembly, row: int, name: str) -> None:
        number, place = int(self.message[row]), int(self.place[row])
        message = work.messages[number]
        path = f"readings[{place}]"
        if self.records[self.table.instrument][row] == _FOREIGN:
            detail = foreign_detail(f"{path}.{self._key}", name, message.owner)
            work.fates[number].reject(place, FOREIGN_IDENTITY, detail)
            return
        at_us = int(self.records["at"][row].view(np.int64))
        code = work.limits.code(at_us, message.arrival.received_us)
        work.fates[number].reject(
            place, code or TOO_OLD, work.limits.detail(f"{path}.at", code or TOO_OLD)
        )

    @property
    def size(self) -> int:
        """Number of readings."""
        return len(self.records)

    def ids(self, key: str) -> set[int]:
        """Return the instruments of the readings."""
        if key != self._key:
            return set()
        return set(np.unique(self.records[self.table.instrument]).tolist())

    async def write(self, writing: Writing) -> None:
        """Store the readings; mark their days as due and keep the latest values."""
        if not self.size:
            return
        result = await store_readings(
            writing.connection,
            self.table,
            self.records,
            newest=writing.newest,
            # Of reference meters no newest reading is kept: there are few, staging does.
            staged_only=writing.staged_only or self.table.kind != 0,
        )
        size = len(writing.messages)
        for fate_code, name in ((STORED, "stored"), (DUPLICATE, "duplicate")):
            counts = np.bincount(self.message[result.fate == fate_code], minlength=size)
            for number in np.flatnonzero(counts):
                setattr(writing.fates[number], name, int(counts[number]))
        for row in np.flatnonzero(result.fate == CONFLICT):
            place = int(self.place[row])
            writing.fates[self.message[row]].reject(
                place,
                CONFLICT_CODE,
                READING_STORED(
                    place=place,
                    energy=float(result.kept_wh[row]),
                    at=f"{np.datetime_as_string(self.records['at'][row], unit='us')}Z",
                ),
            )
        stored = self.records[result.fate == STORED]
        if len(stored):
            await mark_pending(writing.connection, pending_days(self.table, stored))
            if self.table.kind == 0:
                latest = newest_rows(self.table, stored)
                received_us = max(m.arrival.received_us for m in writing.messages)
                await update_latest(writing.connection, latest, received_us=received_us)

    def remember(self, newest: NewestReadings, *, distrust: bool) -> None:
        """Keep the newest readings of connectors; of reference meters none are kept."""
        if not self.size or self.table.kind != 0:
            return
        instruments = self.records[self.table.instrument]
        if distrust:
            newest.distrust(instruments)
        newest.advance(instruments, self.records["at"].view(np.int64))

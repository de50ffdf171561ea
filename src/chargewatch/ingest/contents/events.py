"""Declared changes at instruments: rows of their table."""

from __future__ import annotations

from chargewatch.domain.conflict import EVENT_STORED
from chargewatch.domain.times import moment_of
from chargewatch.ingest.contents.assembly import Assembly, Rows, Writing, foreign_detail
from chargewatch.ingest.message import Message
from chargewatch.storage.intake.events import EventRow, store_events
from chargewatch.wire.events import EventRecord, Events
from chargewatch.wire.kinds import Kind
from chargewatch.wire.rejection import FOREIGN_IDENTITY


class EventRows(Rows):
    """Events in order of arrival: message, place in it, row."""

    def __init__(self, work: Assembly, kind: Kind) -> None:
        self._rows: list[tuple[int, int, EventRow]] = []
        for number, message, content in work.contents(kind, Events):
            for record in content.records:
                row = _event(work, message, record)
                if isinstance(row, EventRow):
                    self._rows.append((number, record.index, row))
                else:
                    work.fates[number].reject(record.index, *row)

    def ids(self, key: str) -> set[int]:
        """Return the connectors, or reference meters, of the events."""
        named = {getattr(row, f"{key}_id") for _, _, row in self._rows}
        return named - {0}  # the station

    async def write(self, writing: Writing) -> None:
        """Store the events."""
        codes = await store_events(writing.connection, [row for _, _, row in self._rows])
        for (number, place, row), code in zip(self._rows, codes, strict=True):
            conflict = EVENT_STORED(place=place, kind=row.kind)
            writing.fates[number].settle(place, code, conflict)


def _event(work: Assembly, message: Message, record: EventRecord) -> EventRow | tuple[str, str]:
    """Return an event as it is stored, or code and detail of why it is refused."""
    path, received_us = f"events[{record.index}]", message.arrival.received_us
    ids = {"connector": 0, "meter": 0}  # 0: the station
    for key, instruments in (
        ("connector", work.identities.connectors),
        ("meter", work.identities.meters),
    ):
        name = getattr(record, key)
        if name is None:
            continue
        known = instruments.ids_of(message.owner).get(name)
        if known is None:
            return FOREIGN_IDENTITY, foreign_detail(f"{path}.{key}", name, message.owner)
        ids[key] = known
    code = work.limits.code(record.at_us, received_us)
    if code is not None:
        return code, work.limits.detail(f"{path}.at", code)
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

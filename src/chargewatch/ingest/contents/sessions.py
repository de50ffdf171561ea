"""Charging sessions: rows of their table, and the names of sessions."""

from __future__ import annotations

from chargewatch.domain.conflict import SESSION_STORED
from chargewatch.domain.session import SESSION_COLUMNS
from chargewatch.domain.times import moment_of
from chargewatch.ingest.contents.assembly import Assembly, Rows, Writing, foreign_detail
from chargewatch.ingest.message import Message
from chargewatch.storage.intake.sessions import SessionRow, store_session_names, store_sessions
from chargewatch.wire.kinds import Kind
from chargewatch.wire.rejection import FOREIGN_IDENTITY
from chargewatch.wire.sessions import SessionRecord, Sessions


def _session_row(message: Message, record: SessionRecord, connector_id: int) -> SessionRow:
    return SessionRow(
        operator_id=message.owner[0],
        station_id=message.owner[1],
        connector_id=connector_id,
        content_hash=record.content_hash,
        received_at=moment_of(message.arrival.received_us),
        **{column.name: getattr(record, column.name) for column in SESSION_COLUMNS},
    )


class SessionRows(Rows):
    """Sessions in order of arrival: message, place in it, row."""

    def __init__(self, work: Assembly, kind: Kind) -> None:
        self._rows: list[tuple[int, int, SessionRow]] = []
        for number, message, content in work.contents(kind, Sessions):
            known = work.identities.connectors.ids_of(message.owner)
            for record in content.records:
                connector_id = known.get(record.connector)
                refusal = _refusal(work, message, record, connector_id)
                if refusal is not None:
                    work.fates[number].reject(record.index, *refusal)
                elif connector_id is not None:
                    row = _session_row(message, record, connector_id)
                    self._rows.append((number, record.index, row))

    def ids(self, key: str) -> set[int]:
        """Return the connectors of the sessions."""
        return {row.connector_id for _, _, row in self._rows} if key == "connector" else set()

    async def write(self, writing: Writing) -> None:
        """Store the sessions, and the names of sessions of the whole batch."""
        codes = await store_sessions(writing.connection, [row for _, _, row in self._rows])
        for (number, place, row), code in zip(self._rows, codes, strict=True):
            conflict = SESSION_STORED(place=place, session=row.session)
            writing.fates[number].settle(place, code, conflict)
        await store_session_names(writing.connection, writing.session_names)


def _refusal(
    work: Assembly, message: Message, record: SessionRecord, connector_id: int | None
) -> tuple[str, str] | None:
    path = f"sessions[{record.index}]"
    if connector_id is None:
        detail = foreign_detail(f"{path}.connector", record.connector, message.owner)
        return FOREIGN_IDENTITY, detail
    code = work.limits.code(record.ended_at_us, message.arrival.received_us)
    return (code, work.limits.detail(f"{path}.ended_at", code)) if code else None

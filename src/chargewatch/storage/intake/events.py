"""Declared changes at instruments, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from chargewatch.storage import sql
from chargewatch.storage.intake.readings import CONFLICT, DUPLICATE, STORED

REGISTER_CHANGES = ("meter_replaced", "connector_replaced", "register_reset")
"""Declarations after which a register may go on anywhere; a connector has its own meter."""
METER_CHANGES = ("meter_replaced", "connector_replaced")
"""Declarations after which a connector has another meter, and so another error."""
METERING_WORKS = ("cable_replaced", "metering_firmware", "seal_opened")
"""Declared works on a pile that may have changed its error."""

DUE_BEFORE = timedelta(minutes=5)
"""As far back as a declaration may explain a step."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One row of instrument_event; connector_id and meter_id are 0 where it is not about one."""

    operator_id: str
    station_id: str
    connector_id: int
    meter_id: int
    kind: str
    at: datetime
    detail: str | None
    serial: str | None
    start_wh: float | None
    stop_wh: float | None
    received_at: datetime

    @property
    def key(self) -> tuple[str, str, int, int, str, datetime]:
        """What makes an event one."""
        return (
            self.operator_id,
            self.station_id,
            self.connector_id,
            self.meter_id,
            self.kind,
            self.at,
        )

    @property
    def content(self) -> tuple[Any, ...]:
        """What must be equal when the event is sent again."""
        return self.detail, self.serial, self.start_wh, self.stop_wh


_COLUMNS = tuple(EventRow.__slots__)
_KEY = _COLUMNS[:6]
_CONTENT = _COLUMNS[6:10]
_FIND = sql.statement(
    "events: find",
    f"SELECT {', '.join((*_KEY, *_CONTENT))} FROM instrument_event "  # noqa: S608 - columns
    f"WHERE origin = 'topic' AND ({', '.join(_KEY)}) IN (SELECT * FROM "
    "unnest(CAST(:operator_id AS text[]), CAST(:station_id AS text[]), "
    "CAST(:connector_id AS int4[]), CAST(:meter_id AS int4[]), "
    "CAST(:kind AS text[]), CAST(:at AS timestamptz[])))",
)
_INSERT = sql.statement(
    "events: insert",
    f"INSERT INTO instrument_event ({', '.join(_COLUMNS)}) "  # noqa: S608 - columns
    f"VALUES ({', '.join(f':{column}' for column in _COLUMNS)})",
)
_MARK = sql.statement(
    "events: mark",
    """
INSERT INTO rollup_pending (kind, instrument_id, day)
SELECT DISTINCT kind, instrument_id, day
FROM unnest(CAST(:kinds AS int2[]), CAST(:instrument_ids AS int4[]), CAST(:days AS date[]))
  AS d (kind, instrument_id, day)
ORDER BY 1, 3, 2 ON CONFLICT DO NOTHING
""",
)


async def store_events(connection: asyncpg.Connection, rows: Sequence[EventRow]) -> list[int]:
    """Write events in order of arrival; return STORED, DUPLICATE or CONFLICT for each.

    The lock on the ledger's streams keeps every other writer of these keys out. The days of new
    declarations are due again: what was found of their registers may be explained now.
    """
    if not rows:
        return []
    keys: dict[str, Any] = {column: [getattr(row, column) for row in rows] for column in _KEY}
    found = await sql.rows(connection, _FIND, **keys)
    kept = {tuple(row[: len(_KEY)]): tuple(row[len(_KEY) :]) for row in found}
    fates, new = [], []
    for row in rows:
        if row.key not in kept:
            kept[row.key] = row.content
            new.append(row)
            fates.append(STORED)
        else:
            fates.append(DUPLICATE if kept[row.key] == row.content else CONFLICT)
    new.sort(key=lambda row: row.key)
    await sql.run_each(connection, _INSERT, map(asdict, new))
    due = [
        (0 if row.connector_id else 1, row.connector_id or row.meter_id, day)
        for row in new
        if row.kind in REGISTER_CHANGES and (row.connector_id or row.meter_id)
        for day in (row.at.date(), (row.at - DUE_BEFORE).date())
    ]
    if due:
        kinds, instruments, days = zip(*due, strict=True)
        await sql.run(connection, _MARK, kinds=kinds, instrument_ids=instruments, days=days)
    return fates

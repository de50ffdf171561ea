"""Declared changes at instruments, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from chargewatch.storage.intake.readings import CONFLICT, DUPLICATE, STORED

REGISTER_CHANGES = ("meter_replaced", "connector_replaced", "register_reset")
"""Declarations after which a register may go on anywhere; a connector has its own meter."""

_DUE_BEFORE = timedelta(minutes=5)  # as far back as a declaration may explain a step


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
_FIND = (
    f"SELECT {', '.join((*_KEY, *_CONTENT))} FROM instrument_event WHERE ({', '.join(_KEY)}) IN "  # noqa: S608
    "(SELECT * FROM unnest($1::text[], $2::text[], $3::int4[], $4::int4[], $5::text[], "
    "$6::timestamptz[]))"
)
_INSERT = (
    f"INSERT INTO instrument_event ({', '.join(_COLUMNS)}) VALUES ("  # noqa: S608
    + ", ".join(f"${n}" for n in range(1, len(_COLUMNS) + 1))
    + ")"
)
_MARK = """
INSERT INTO rollup_pending (kind, instrument_id, day)
SELECT DISTINCT kind, instrument_id, day
FROM unnest($1::int2[], $2::int4[], $3::date[]) AS d (kind, instrument_id, day)
ORDER BY 1, 3, 2 ON CONFLICT DO NOTHING
"""


async def store_events(connection: asyncpg.Connection, rows: Sequence[EventRow]) -> list[int]:
    """Write events in order of arrival; return STORED, DUPLICATE or CONFLICT for each.

    The lock on the ledger's streams keeps every other writer of these keys out. The days of new
    declarations are due again: what was found of their registers may be explained now.
    """
    if not rows:
        return []
    columns = [list(column) for column in zip(*(row.key for row in rows), strict=True)]
    found = await connection.fetch(_FIND, *columns)
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
    await connection.executemany(
        _INSERT, [tuple(getattr(row, column) for column in _COLUMNS) for row in new]
    )
    due = [
        row for row in new if row.kind in REGISTER_CHANGES and (row.connector_id or row.meter_id)
    ]
    if due:
        await connection.execute(
            _MARK,
            *zip(
                *(
                    (0 if row.connector_id else 1, row.connector_id or row.meter_id, day)
                    for row in due
                    for day in (row.at.date(), (row.at - _DUE_BEFORE).date())
                ),
                strict=True,
            ),
        )
    return fates

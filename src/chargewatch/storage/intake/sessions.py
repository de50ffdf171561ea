"""Charging sessions, each once, and the dictionary of session names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import asyncpg

from chargewatch.domain.columns import Form
from chargewatch.domain.session import SESSION_COLUMNS, Session
from chargewatch.storage.intake.readings import CONFLICT, DUPLICATE, STORED


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow(Session):
    """One row of charging_session; money and prices as decimal strings, periods as JSON."""

    operator_id: str
    station_id: str
    connector_id: int
    content_hash: bytes
    received_at: datetime

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What makes a session one: its id is unique at its connector."""
        return self.operator_id, self.station_id, self.connector_id, self.session


_COLUMNS = tuple(field.name for field in fields(SessionRow))
_DECIMALS = {column.name for column in SESSION_COLUMNS if column.kind.form == Form.DECIMAL}


def _placeholder(position: int, column: str) -> str:
    return f"${position}::text::numeric" if column in _DECIMALS else f"${position}"


_INSERT = (
    f"INSERT INTO charging_session ({', '.join(_COLUMNS)}) VALUES ("  # noqa: S608
    + ", ".join(_placeholder(n, column) for n, column in enumerate(_COLUMNS, start=1))
    + ") ON CONFLICT (operator_id, station_id, connector_id, session) DO NOTHING"
)


async def store_sessions(connection: asyncpg.Connection, rows: Sequence[SessionRow]) -> list[int]:
    """Write sessions in order of arrival; return STORED, DUPLICATE or CONFLICT for each.

    Equal content is a duplicate; other content under the same key is a conflict, the first stays.
    """
    if not rows:
        return []
    found = await connection.fetch(
        "SELECT operator_id, station_id, connector_id, session, content_hash FROM charging_session "
        "WHERE (operator_id, station_id, connector_id, session) IN "
        "(SELECT * FROM unnest($1::text[], $2::text[], $3::int4[], $4::text[]))",
        *(list(column) for column in zip(*(r.key for r in rows), strict=True)),
    )
    kept = {(row[0], row[1], row[2], row[3]): row["content_hash"] for row in found}
    fates, new = [], []
    for row in rows:
        if row.key not in kept:
            kept[row.key] = row.content_hash
            new.append(row)
            fates.append(STORED)
        else:
            fates.append(DUPLICATE if kept[row.key] == row.content_hash else CONFLICT)
    if new:
        new.sort(key=lambda row: row.key)
        await connection.executemany(
            _INSERT, [tuple(getattr(row, column) for column in _COLUMNS) for row in new]
        )
    return fates


async def store_session_names(connection: asyncpg.Connection, names: Mapping[int, str]) -> None:
    """Add session names to the dictionary, and note that they were heard today."""
    if not names:
        return
    keys = sorted(names)
    await connection.execute(
        "INSERT INTO session_name AS s (session_key, session, seen_on) "
        "SELECT *, (now() AT TIME ZONE 'UTC')::date FROM unnest($1::int8[], $2::text[]) "
        "ON CONFLICT (session_key) DO UPDATE SET seen_on = excluded.seen_on "
        "WHERE s.seen_on < excluded.seen_on",
        keys,
        [names[key] for key in keys],
    )

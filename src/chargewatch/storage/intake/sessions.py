"""Charging sessions, each once, and the dictionary of session names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import asyncpg

from chargewatch.domain.columns import Form
from chargewatch.domain.session import SESSION_COLUMNS, Session
from chargewatch.storage import sql
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


def _placeholder(column: str) -> str:
    return f"CAST(:{column} AS text)::numeric" if column in _DECIMALS else f":{column}"


_INSERT = sql.statement(
    "sessions: insert",
    f"INSERT INTO charging_session ({', '.join(_COLUMNS)}) "  # noqa: S608 - names of columns
    f"VALUES ({', '.join(map(_placeholder, _COLUMNS))}) "
    "ON CONFLICT (operator_id, station_id, connector_id, session) DO NOTHING",
)
_FIND = sql.statement(
    "sessions: find",
    "SELECT operator_id, station_id, connector_id, session, content_hash FROM charging_session "
    "WHERE (operator_id, station_id, connector_id, session) IN "
    "(SELECT * FROM unnest(CAST(:operator_ids AS text[]), CAST(:station_ids AS text[]), "
    "CAST(:connector_ids AS int4[]), CAST(:sessions AS text[])))",
)
_ADD_NAMES = sql.statement(
    "sessions: add names",
    "INSERT INTO session_name AS s (session_key, session, seen_on) "
    "SELECT *, (now() AT TIME ZONE 'UTC')::date "
    "FROM unnest(CAST(:keys AS int8[]), CAST(:names AS text[])) "
    "ON CONFLICT (session_key) DO UPDATE SET seen_on = excluded.seen_on "
    "WHERE s.seen_on < excluded.seen_on",
)


async def store_sessions(connection: asyncpg.Connection, rows: Sequence[SessionRow]) -> list[int]:
    """Write sessions in order of arrival; return STORED, DUPLICATE or CONFLICT for each.

    Equal content is a duplicate; other content under the same key is a conflict, the first stays.
    """
    if not rows:
        return []
    found = await sql.rows(
        connection,
        _FIND,
        operator_ids=[row.operator_id for row in rows],
        station_ids=[row.station_id for row in rows],
        connector_ids=[row.connector_id for row in rows],
        sessions=[row.session for row in rows],
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
        each = ({column: getattr(row, column) for column in _COLUMNS} for row in new)
        await sql.run_each(connection, _INSERT, each)
    return fates


async def store_session_names(connection: asyncpg.Connection, names: Mapping[int, str]) -> None:
    """Add session names to the dictionary, and note that they were heard today."""
    if not names:
        return
    keys = sorted(names)
    await sql.run(connection, _ADD_NAMES, keys=keys, names=[names[key] for key in keys])

"""Statements on changes that people declare by hand, beside those of the gateways' topic."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.intake.events import DUE_BEFORE, REGISTER_CHANGES

ADD = sql.statement(
    "declared: add",
    "INSERT INTO instrument_event (operator_id, station_id, connector_id, meter_id, kind, at, "
    "detail, serial, start_wh, stop_wh, received_at, origin, declared_by) "
    "VALUES (:operator_id, :station_id, :connector_id, 0, :kind, :at, :detail, :serial, "
    ":start_wh, :stop_wh, :received_at, :origin, :declared_by) "
    "ON CONFLICT DO NOTHING RETURNING event_id",
)
ONE = sql.statement(
    "declared: one",
    "SELECT e.*, c.connector FROM instrument_event e JOIN connector c USING (connector_id) "
    "WHERE e.event_id = :event_id AND (CAST(:scope AS text) IS NULL OR c.operator_id = :scope)",
)
WITHDRAW = sql.statement(
    "declared: withdraw",
    "UPDATE instrument_event SET withdrawn_at = :at, withdrawn_by = :by, withdrawn_why = :why "
    "WHERE event_id = :event_id AND origin <> 'topic' AND withdrawn_at IS NULL",
)
DUE = sql.statement(
    "declared: due",
    "INSERT INTO rollup_pending (kind, instrument_id, day) "
    "SELECT 0, CAST(:connector_id AS int), day "
    "FROM (SELECT DISTINCT unnest(CAST(:days AS date[])) AS day) d ORDER BY day "
    "ON CONFLICT DO NOTHING",
)


async def add_change(connection: AsyncConnection, values: dict[str, Any]) -> int | None:
    """Keep a change of a connector; None where the same was declared by hand before."""
    event_id = await sql.value(connection, ADD, **values)
    return None if event_id is None else int(event_id)


async def change(
    connection: AsyncConnection, event_id: int, *, scope: str | None
) -> RowMapping | None:
    """Return a declared change of a connector; None when there is none or it is another's."""
    return await sql.row(connection, ONE, event_id=event_id, scope=scope)


async def withdraw_change(
    connection: AsyncConnection, event_id: int, *, at: datetime, by: str, why: str
) -> bool:
    """Mark a change that was declared by hand as withdrawn; False when it can't be."""
    return await sql.run(connection, WITHDRAW, event_id=event_id, at=at, by=by, why=why) > 0


async def make_due(
    connection: AsyncConnection, connector_id: int, *, kind: str, at: datetime
) -> None:
    """Let the rollups of a change's days be made anew where it explains a register's step."""
    if kind not in REGISTER_CHANGES:
        return
    first: timedelta = DUE_BEFORE
    days = [at.date(), (at - first).date()]
    await sql.run(connection, DUE, connector_id=connector_id, days=days)

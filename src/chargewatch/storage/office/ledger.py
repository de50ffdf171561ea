"""What the national ledger says of the registered instruments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql

LEDGER = sql.statement(
    "ledger: all",
    "SELECT c.connector, c.current, c.model, c.accuracy_class, c.serial, c.manufacturer, "
    "s.address, s.district, e.instrument_name, e.item, e.kind, e.measuring_range, e.origin, "
    "e.place, e.place_code, e.quantity, e.purpose, e.submission, e.extra FROM connector c "
    "JOIN station s ON s.station_id = c.station_id "
    "LEFT JOIN ledger_entry e ON e.connector_id = c.connector_id "
    "WHERE c.registered{where} ORDER BY c.connector",
)


async def ledger_rows(connection: AsyncConnection, *, scope: str | None) -> Sequence[RowMapping]:
    """Return every registered instrument with what the ledger says of it, by name."""
    where = "" if scope is None else " AND c.operator_id = :scope"
    values: dict[str, Any] = {} if scope is None else {"scope": scope}
    return await sql.rows(connection, LEDGER.filled(where=where), **values)

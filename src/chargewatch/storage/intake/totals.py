"""How much telemetry of some stations is stored, and how much was dealt with."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql

STORED_ITEMS = sql.statement(
    "totals: stored items",
    """
SELECT
  (SELECT count(*) FROM register_reading WHERE connector_id IN (
    SELECT connector_id FROM connector WHERE station_id = ANY(CAST(:station_ids AS text[])))) +
  (SELECT count(*) FROM reference_reading WHERE meter_id IN (
    SELECT meter_id FROM reference_meter WHERE station_id = ANY(CAST(:station_ids AS text[])))) +
  (SELECT count(*) FROM charging_session WHERE station_id = ANY(CAST(:station_ids AS text[]))) +
  (SELECT count(*) FROM instrument_event WHERE station_id = ANY(CAST(:station_ids AS text[])))
""",
)
RECEIVED_ITEMS = sql.statement(
    "totals: received items",
    "SELECT coalesce(sum(received), 0) FROM ledger_stream "
    "WHERE station_id = ANY(CAST(:station_ids AS text[])) AND topic <> 'status'",
)


async def stored_items(connection: AsyncConnection, station_ids: Sequence[str]) -> int:
    """Return how many readings, sessions and events of these stations are in the tables."""
    return int(await sql.value(connection, STORED_ITEMS, station_ids=list(station_ids)))


async def received_items(connection: AsyncConnection, station_ids: Sequence[str]) -> int:
    """Return how many items of these stations ingest has dealt with."""
    return int(await sql.value(connection, RECEIVED_ITEMS, station_ids=list(station_ids)))

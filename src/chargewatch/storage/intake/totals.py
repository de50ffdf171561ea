"""How much telemetry of some stations is stored, and how much was dealt with."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.tables import (
    charging_session,
    connector,
    instrument_event,
    ledger_stream,
    reference_meter,
    reference_reading,
    register_reading,
)


async def stored_items(connection: AsyncConnection, station_ids: Sequence[str]) -> int:
    """Return how many readings and sessions of these stations are in the tables."""
    connectors = select(connector.c.connector_id).where(connector.c.station_id.in_(station_ids))
    meters = select(reference_meter.c.meter_id).where(reference_meter.c.station_id.in_(station_ids))
    queries = (
        select(func.count())
        .select_from(register_reading)
        .where(register_reading.c.connector_id.in_(connectors)),
        select(func.count())
        .select_from(reference_reading)
        .where(reference_reading.c.meter_id.in_(meters)),
        select(func.count())
        .select_from(charging_session)
        .where(charging_session.c.station_id.in_(station_ids)),
        select(func.count())
        .select_from(instrument_event)
        .where(instrument_event.c.station_id.in_(station_ids)),
    )
    return sum([int((await connection.execute(query)).scalar_one()) for query in queries])


async def received_items(connection: AsyncConnection, station_ids: Sequence[str]) -> int:
    """Return how many readings and sessions of these stations ingest has dealt with."""
    query = select(func.coalesce(func.sum(ledger_stream.c.received), 0)).where(
        ledger_stream.c.station_id.in_(station_ids), ledger_stream.c.topic != "status"
    )
    return int((await connection.execute(query)).scalar_one())

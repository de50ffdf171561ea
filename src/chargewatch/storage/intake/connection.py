"""The connection that ingest writes through: binary COPY and staging tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import asyncpg
import numpy as np

from chargewatch.storage import sql
from chargewatch.storage.bulk import Records, encode_records
from chargewatch.storage.locks import AdvisoryLock

COMMAND_TIMEOUT_S = 120.0

STAGING = {
    "stage_register": (
        "n integer, at timestamptz, connector_id integer, energy_wh float8, power_w real, "
        "voltage_v real, current_a real, soc_pct real, session_key bigint, context smallint"
    ),
    "stage_reference": "n integer, at timestamptz, meter_id integer, energy_wh float8",
    "stage_latest": "connector_id integer, at timestamptz, energy_wh float8, power_w real",
    "stage_pending": "kind smallint, instrument_id integer, day date",
}
"""Temporary tables of the connection; emptied by every commit."""


MAKE_STAGE = sql.statement(
    "connection: make stage",
    "CREATE TEMP TABLE IF NOT EXISTS {name} ({columns}) ON COMMIT DELETE ROWS",
)
HOLD_NAME = sql.statement(
    "connection: hold name",
    "SELECT pg_try_advisory_lock(CAST(:names AS int4), hashtext(:name))",
)


async def open_ingest_connection(
    dsn: str, *, on_registry_change: Callable[[], None]
) -> asyncpg.Connection:
    """Return a connection with its staging tables that hears when the registry changes."""
    connection = await asyncpg.connect(
        dsn,
        timeout=10,
        command_timeout=COMMAND_TIMEOUT_S,
        server_settings={
            "application_name": "chargewatch-ingest",
            # A dead network must not keep the locks of a half-done batch for hours.
            "tcp_keepalives_idle": "30",
            "idle_in_transaction_session_timeout": "120s",
            # What is acknowledged must be on the disk, whatever the server or the role says.
            "synchronous_commit": "on",
            # Plans of the staging queries are worth more than their compilation.
            "jit": "off",
        },
    )
    try:
        for name, columns in STAGING.items():
            await sql.run(connection, MAKE_STAGE.filled(name=name, columns=columns))
        await connection.add_listener("registry_changed", lambda *_: on_registry_change())
    except BaseException:
        connection.terminate()
        raise
    return connection


async def hold_name(connection: asyncpg.Connection, name: str) -> bool:
    """Reserve a name for as long as the connection lives; False when another one has it."""
    return bool(await sql.value(connection, HOLD_NAME, names=AdvisoryLock.NAMES, name=name))


async def copy_in(
    connection: asyncpg.Connection, table: str, records: Records, *, columns: Sequence[str] = ()
) -> None:
    """Write records to a table by one binary COPY."""
    await connection.copy_to_table(
        table,
        source=io.BytesIO(encode_records(records)),
        columns=list(columns or records.dtype.names or ()),
        format="binary",
        timeout=COMMAND_TIMEOUT_S,
    )


def days_of(at_us: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[tuple[int, int]]:
    """Return the UTC days of times as pairs of microseconds, from (included) to (excluded)."""
    day_us = 86_400_000_000
    return [(int(day) * day_us, (int(day) + 1) * day_us) for day in np.unique(at_us // day_us)]

"""Who owns which connector, meter and station; and claims of those that nobody registered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import asyncpg

Instrument = Literal["connector", "reference_meter"]

_COLUMNS: dict[str, tuple[str, str]] = {
    "connector": ("connector_id", "connector"),
    "reference_meter": ("meter_id", "meter"),
}


@dataclass(frozen=True, slots=True)
class InstrumentRow:
    """A connector or meter: registered, or claimed by the station that sent readings of it."""

    instrument_id: int
    name: str
    operator_id: str
    station_id: str
    registered: bool


@dataclass(frozen=True)
class IdentityRows:
    """Everything that ingest must know of the registry."""

    stations: dict[str, str]  # station_id to operator_id
    connectors: list[InstrumentRow]
    meters: list[InstrumentRow]


async def _instruments(connection: asyncpg.Connection, table: Instrument) -> list[InstrumentRow]:
    key, name = _COLUMNS[table]
    rows = await connection.fetch(
        f"SELECT {key}, {name}, operator_id, station_id, registered FROM {table}"  # noqa: S608
    )
    return [InstrumentRow(*row) for row in rows]


async def load_identities(connection: asyncpg.Connection) -> IdentityRows:
    """Return owners of all stations, connectors and meters, as of one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        stations = await connection.fetch("SELECT station_id, operator_id FROM station")
        return IdentityRows(
            {row[0]: row[1] for row in stations},
            await _instruments(connection, "connector"),
            await _instruments(connection, "reference_meter"),
        )


async def registry_mark(connection: asyncpg.Connection) -> tuple[int, ...]:
    """Return a cheap mark that changes whenever the registry did."""
    row = await connection.fetchrow(
        "SELECT (SELECT coalesce(max(import_id), 0) FROM registry_import), "
        "(SELECT count(*) FROM station), "
        "(SELECT count(*) FROM connector WHERE registered), "
        "(SELECT count(*) FROM reference_meter WHERE registered)"
    )
    return tuple(row)


async def claim_instruments(
    connection: asyncpg.Connection, table: Instrument, claims: Sequence[tuple[str, str, str]]
) -> list[InstrumentRow]:
    """Return rows for (name, operator_id, station_id) that nobody registered, made where missing.

    Commits by itself: a claim without readings does no harm, and other workers see it at once.
    """
    key, name = _COLUMNS[table]
    names, operators, stations = (list(column) for column in zip(*sorted(set(claims)), strict=True))
    await connection.execute(
        f"INSERT INTO {table} ({name}, operator_id, station_id) "  # noqa: S608
        "SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) "
        f"ON CONFLICT ({name}, operator_id, station_id) DO NOTHING",
        names,
        operators,
        stations,
    )
    rows = await connection.fetch(
        f"SELECT {key}, {name}, operator_id, station_id, registered FROM {table} "  # noqa: S608
        f"WHERE ({name}, operator_id, station_id) IN "
        "(SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))",
        names,
        operators,
        stations,
    )
    return [InstrumentRow(*row) for row in rows]

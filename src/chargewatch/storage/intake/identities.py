"""Who owns which connector, meter and station; and claims of those that nobody registered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg
import orjson

from chargewatch.storage import sql

Instrument = Literal["connector", "reference_meter"]

_COLUMNS: dict[str, tuple[str, str]] = {
    "connector": ("connector_id", "connector"),
    "reference_meter": ("meter_id", "meter"),
}


# One row a station, its instruments as JSON: 100,000 single rows would hold up the event loop.
_INSTRUMENTS = sql.statement(
    "identities: instruments",
    "SELECT operator_id, station_id, registered, json_object_agg({name}, {key})::text "
    "FROM {table} GROUP BY operator_id, station_id, registered",
)
_STATIONS = sql.statement("identities: stations", "SELECT station_id, operator_id FROM station")
_MARK = sql.statement(
    "identities: mark",
    "SELECT (SELECT coalesce(max(import_id), 0) FROM registry_import), "
    "(SELECT count(*) FROM station), "
    "(SELECT count(*) FROM connector WHERE registered), "
    "(SELECT count(*) FROM reference_meter WHERE registered)",
)
_WANTED = (
    "SELECT * FROM unnest(CAST(:names AS text[]), CAST(:operator_ids AS text[]), "
    "CAST(:station_ids AS text[]))"
)
_CLAIM = sql.statement(
    "identities: claim",
    f"INSERT INTO {{table}} ({{name}}, operator_id, station_id) "
    f"{_WANTED} AS c(name, operator_id, station_id) WHERE NOT EXISTS (SELECT FROM {{table}} t "
    "WHERE (t.{name}, t.operator_id, t.station_id) = (c.name, c.operator_id, c.station_id)) "
    "ON CONFLICT ({name}, operator_id, station_id) WHERE NOT registered DO NOTHING",
)
_CLAIMED = sql.statement(
    "identities: claimed",
    "SELECT {key}, {name}, operator_id, station_id, registered FROM {table} "  # noqa: S608
    f"WHERE ({{name}}, operator_id, station_id) IN ({_WANTED}) ORDER BY registered",
)
_STAND = sql.statement(
    "identities: stand",
    "SELECT standing_claims(CAST(:connectors AS int4[]), CAST(:meters AS int4[]))",
)


@dataclass(frozen=True, slots=True)
class InstrumentRows:
    """Instruments of a station: registered, or claimed by who sent readings of them."""

    operator_id: str
    station_id: str
    registered: bool
    ids: dict[str, int]  # by name


@dataclass(frozen=True)
class IdentityRows:
    """Everything that ingest must know of the registry."""

    stations: dict[str, str]  # station_id to operator_id
    connectors: list[InstrumentRows]
    meters: list[InstrumentRows]


async def _instruments(connection: asyncpg.Connection, table: Instrument) -> list[InstrumentRows]:
    key, name = _COLUMNS[table]
    rows = await sql.rows(connection, _INSTRUMENTS.filled(table=table, key=key, name=name))
    return await asyncio.to_thread(
        lambda: [InstrumentRows(row[0], row[1], row[2], orjson.loads(row[3])) for row in rows]
    )


async def load_identities(connection: asyncpg.Connection) -> IdentityRows:
    """Return owners of all stations, connectors and meters, as of one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        stations = await sql.rows(connection, _STATIONS)
        return IdentityRows(
            {row[0]: row[1] for row in stations},
            await _instruments(connection, "connector"),
            await _instruments(connection, "reference_meter"),
        )


async def registry_mark(connection: asyncpg.Connection) -> tuple[int, ...]:
    """Return a cheap mark that changes whenever the registry did."""
    [row] = await sql.rows(connection, _MARK)
    return tuple(row)


async def claim_instruments(
    connection: asyncpg.Connection, table: Instrument, claims: Sequence[tuple[str, str, str]]
) -> list[InstrumentRows]:
    """Return rows for (name, operator_id, station_id) that nobody registered, made where missing.

    Commits by itself: a claim without readings does no harm, and other workers see it at once.
    Those that are there are not inserted again: that would wait for an import that adopts them.
    """
    key, name = _COLUMNS[table]
    names, operators, stations = (list(c) for c in zip(*sorted(set(claims)), strict=True))
    values: dict[str, Any] = {"names": names, "operator_ids": operators, "station_ids": stations}
    await sql.run(connection, _CLAIM.filled(table=table, name=name), **values)
    rows = await sql.rows(connection, _CLAIMED.filled(table=table, key=key, name=name), **values)
    return [InstrumentRows(row[2], row[3], row[4], {row[1]: row[0]}) for row in rows]


async def claims_stand(
    connection: asyncpg.Connection, *, connectors: Sequence[int], meters: Sequence[int]
) -> bool:
    """Whether all these claims still exist; from then on none is merged before the commit.

    An import may have merged a claim since the registry was read.
    """
    found = await sql.value(connection, _STAND, connectors=list(connectors), meters=list(meters))
    return bool(found == len(connectors) + len(meters))

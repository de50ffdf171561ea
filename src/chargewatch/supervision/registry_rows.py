"""Rows of a registry file as the registry keeps them, and what they refer to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import registry as sql
from chargewatch.storage import tables
from chargewatch.storage.registry import Values
from chargewatch.wire.registry_file import RegistryFile, refuse
from chargewatch.wire.registry_models import (
    ConnectorRow,
    ReferenceMeterRow,
    TariffRow,
    VerificationRow,
)


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; the same moment always as the same text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else value


def old_and_new(before: Values | None, after: Values) -> tuple[Values | None, Values]:
    """Return a stored row and its successor, both as JSON holds them; they may be equal."""
    old = None if before is None else {key: plain(before.get(key)) for key in after}
    return old, {key: plain(value) for key, value in after.items()}


def identifier_of(row: Values, keys: Sequence[str]) -> str:
    """Return what names a row in the history."""
    return " ".join(str(plain(row[key])) for key in keys)


def row_values(file: RegistryFile, name: str) -> list[Values]:
    """Return the rows of a list by column."""
    return [placed.row.model_dump() for placed in file.rows[name]]


def named_rows(file: RegistryFile, name: str, key: str) -> list[Values]:
    """Return operators or stations; one without a name is called by its identifier."""
    return [row | {"name": row["name"] or row[key]} for row in row_values(file, name)]


def tariff_rows(file: RegistryFile) -> list[Values]:
    """Return tariffs; those of all stations of an operator have an empty station_id."""
    return [
        {
            "operator_id": row.operator_id,
            "station_id": row.station_id or "",
            "valid_from": row.valid_from,
            "periods": [period.as_json() for period in row.periods],
        }
        for row in (placed.row for placed in file.rows["tariffs"])
        if isinstance(row, TariffRow)
    ]


async def check_references(connection: AsyncConnection, file: RegistryFile) -> None:
    """Refuse the file when a row refers to something that is not registered.

    Raises: RegistryFileError, naming file, line and column.
    """
    problems: list[str] = []
    for name, column, target, table in (
        ("stations", "operator_id", "operators", tables.operator),
        ("connectors", "station_id", "stations", tables.station),
        ("reference_meters", "station_id", "stations", tables.station),
        ("tariffs", "operator_id", "operators", tables.operator),
        ("tariffs", "station_id", "stations", tables.station),
    ):
        known = await _known(connection, file, table, (name, column, target))
        problems += [
            placed.error(
                column,
                f"{getattr(placed.row, column)!r} stands neither in the file's {target} "
                "nor in the registry",
            )
            for placed in file.rows[name]
            if getattr(placed.row, column) not in known
        ]
    problems += await _check_members(connection, file)
    refuse(problems)


async def _known(
    connection: AsyncConnection, file: RegistryFile, table: Table, reference: tuple[str, str, str]
) -> set[Any]:
    """Return the identifiers that stand in the file or are registered, and None."""
    name, column, target = reference
    in_file = {getattr(placed.row, column) for placed in file.rows[target]}
    used = {getattr(placed.row, column) for placed in file.rows[name]} - {None}
    stored = await sql.rows_by_key(connection, table, [column], first_keys=sorted(used - in_file))
    return in_file | {key[0] for key in stored} | {None}


async def _check_members(connection: AsyncConnection, file: RegistryFile) -> list[str]:
    """Return what is wrong with the connectors that meters and verifications name."""
    station_of = {
        placed.row.connector: placed.row.station_id
        for placed in file.rows["connectors"]
        if isinstance(placed.row, ConnectorRow)
    }
    meters = [
        (placed, placed.row)
        for placed in file.rows["reference_meters"]
        if isinstance(placed.row, ReferenceMeterRow)
    ]
    verified = [
        (placed, placed.row)
        for placed in file.rows["verifications"]
        if isinstance(placed.row, VerificationRow)
    ]
    names = {member for _, row in meters for member in row.connectors}
    names |= {row.connector for _, row in verified}
    stored = await sql.registered_ids(connection, sorted(names - set(station_of)))
    station_of |= {name: row.station_id for name, row in stored.items()}
    problems = [
        placed.error("connector", f"{row.connector!r} is not registered")
        for placed, row in verified
        if row.connector not in station_of
    ]
    for placed, row in meters:
        for member in row.connectors:
            if member not in station_of:
                problems.append(placed.error("connectors", f"{member!r} is not registered"))
            elif station_of[member] != row.station_id:
                problems.append(
                    placed.error(
                        "connectors", f"{member!r} belongs to station {station_of[member]}"
                    )
                )
    return problems

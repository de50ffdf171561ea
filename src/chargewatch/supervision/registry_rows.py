"""Rows of a registry file as the registry keeps them, and what they refer to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import registry as sql
from chargewatch.storage import tables
from chargewatch.storage.registry import Values
from chargewatch.wire.registry.ledger_columns import ledger_default
from chargewatch.wire.registry_file import RegistryFile, refuse
from chargewatch.wire.registry_models import (
    ConnectorRow,
    LedgerRow,
    ReferenceMeterRow,
    TariffRow,
    VerificationRow,
)

VERIFICATION_KEY = ("connector_id", "verified_on", "certificate")


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


def verification_name(row: Values) -> str:
    """Return what names a verification in history and preview: connector, day, certificate."""
    return identifier_of(row, ["connector", "verified_on", "certificate"]).strip()


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
    problems += await _check_inspectors(connection, file)
    problems += (await _ledger_connectors(connection, file)).problems
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


async def _check_inspectors(connection: AsyncConnection, file: RegistryFile) -> list[str]:
    """Return what is wrong with the operators that inspectors are recused for."""
    placed_rows = file.rows["inspectors"]
    named = {
        name
        for placed in placed_rows
        for name in placed.row.recused_operators  # type: ignore[attr-defined]
    }
    in_file = {placed.row.operator_id for placed in file.rows["operators"]}  # type: ignore[attr-defined]
    stored = await sql.rows_by_key(
        connection, tables.operator, ["operator_id"], first_keys=sorted(named - in_file)
    )
    known = in_file | {key[0] for key in stored}
    return [
        placed.error(
            "recused_operators",
            f"{name!r} stands neither in the file's operators nor in the registry",
        )
        for placed in placed_rows
        for name in placed.row.recused_operators  # type: ignore[attr-defined]
        if name not in known
    ]


def verification_key(row: Values) -> tuple[Any, ...]:
    """Return what identifies a verification among those that stand."""
    return tuple(row[column] for column in VERIFICATION_KEY)


async def kept_verifications(
    connection: AsyncConnection, rows: Sequence[Values]
) -> Mapping[tuple[Any, ...], Values]:
    """Return verifications that no file changes: entered in the office, or withdrawn."""
    office = tables.verification.c
    return await sql.rows_by_key(
        connection,
        tables.verification,
        VERIFICATION_KEY,
        first_keys=[row["connector_id"] for row in rows],
        where=office.entered_at.is_not(None) | office.withdrawn_at.is_not(None),
    )


def told_of_kept(count: int) -> list[str]:
    """Return what to say of rows of a file that were left out as such."""
    if not count:
        return []
    return [
        f"{count} verification(s) of the file were entered in the office or withdrawn: these stay "
        "as they are there"
    ]


OF_CONNECTOR = ("model", "accuracy_class", "serial", "manufacturer")
"""Columns of the ledger that the registry has of a connector already."""


@dataclass(frozen=True)
class LedgerPatch:
    """What a row of the ledger says of a connector: of the connector's row and of the ledger's."""

    connector: str
    connector_id: int | None
    connector_before: Values
    of_connector: Values
    entry_before: Values | None
    of_entry: Values


@dataclass
class _LedgerConnectors:
    """Which connector each row of the ledger means, by its place in the list."""

    names: list[str | None] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def _ledger_connectors(connection: AsyncConnection, file: RegistryFile) -> _LedgerConnectors:
    rows = [
        (placed, placed.row) for placed in file.rows["ledger"] if isinstance(placed.row, LedgerRow)
    ]
    found = _LedgerConnectors()
    if not rows:
        return found
    in_file = {placed.row.connector for placed in file.rows["connectors"]}  # type: ignore[attr-defined]
    names = {row.connector for _, row in rows if row.connector is not None}
    known = in_file | set(await sql.registered_ids(connection, sorted(names - in_file)))
    serials = [row.serial for _, row in rows if row.connector is None and row.serial is not None]
    by_serial = await sql.connectors_by_serial(connection, serials)
    for serial, others in _serials_of_file(file).items():
        same = by_serial.setdefault(serial, [])
        same += [one for one in others if one[0] not in {name for name, _ in same}]
    seen: dict[str, int] = {}
    for placed, row in rows:
        name, problem = _meant(row, known, by_serial)
        if name is not None and name in seen:
            problem = f"{name!r} stands already in line {seen[name]}"
        if problem:
            column = "serial" if row.connector is None else "connector"
            found.problems.append(placed.error(column, problem))
        elif name is not None:
            seen[name] = placed.line
        found.names.append(name)
    return found


def _serials_of_file(file: RegistryFile) -> dict[str, list[tuple[str, str | None]]]:
    by_serial: dict[str, list[tuple[str, str | None]]] = {}
    for placed in file.rows["connectors"]:
        row = placed.row
        if isinstance(row, ConnectorRow) and row.serial is not None:
            by_serial.setdefault(row.serial.upper(), []).append((row.connector, row.manufacturer))
    return by_serial


def _meant(
    row: LedgerRow, known: Set[str], by_serial: Mapping[str, Sequence[tuple[str, str | None]]]
) -> tuple[str | None, str]:
    """Return the connector that a row of the ledger means, or why none."""
    next_step = "register it first, with its station, in the list connectors"
    if row.connector is not None:
        if row.connector in known:
            return row.connector, ""
        return None, f"{row.connector!r} is not registered: {next_step}"
    matching = by_serial.get((row.serial or "").upper(), ())
    same_maker = [name for name, maker in matching if maker == row.manufacturer]
    candidates = same_maker or [
        name for name, maker in matching if maker is None or row.manufacturer is None
    ]
    if len(candidates) == 1:
        return candidates[0], ""
    if candidates:
        return None, (
            f"{row.serial!r} is the serial number of {', '.join(candidates[:5])}: "
            "give the connector or the maker"
        )
    return None, f"no registered connector has the serial number {row.serial!r}: {next_step}"


async def ledger_patches(
    connection: AsyncConnection, file: RegistryFile, *, unsaved: bool = False
) -> list[LedgerPatch]:
    """Return what the file's ledger says of connectors.

    A column that is not given stays as it is, and what says no more than the registry does
    (the station's address and district, the usual name) is not given either.

    Args:
        connection: to the registry.
        file: with the ledger.
        unsaved: whether the file's connectors and stations are still to be saved.
    """
    meant = await _ledger_connectors(connection, file)
    refuse(meant.problems)
    names = [name for name in meant.names if name is not None]
    if not names:
        return []
    connectors = await _rows_named(
        connection, file, tables.connector, "connector", names, unsaved=unsaved
    )
    station_ids = [row["station_id"] for row in connectors.values()]
    stations = await _rows_named(
        connection, file, tables.station, "station_id", station_ids, unsaved=unsaved
    )
    ids = [row["connector_id"] for row in connectors.values() if "connector_id" in row]
    entries = await sql.rows_by_key(
        connection, tables.ledger_entry, ["connector_id"], first_keys=ids
    )
    patches = []
    for placed, name in zip(file.rows["ledger"], names, strict=True):
        connector = connectors[name]
        before = entries.get((connector.get("connector_id"),))
        given = {key: getattr(placed.row, key) for key in placed.row.model_fields_set}
        known = ledger_known(connector, stations[connector["station_id"]])
        # Who edits by hand means it; a file's line repeats what an export has filled in.
        patches.append(_patch(given, connector, known if file.sha256 else {}, before))
    return patches


async def _rows_named(
    connection: AsyncConnection,
    file: RegistryFile,
    table: Table,
    column: str,
    names: Sequence[str],
    *,
    unsaved: bool,
) -> dict[str, Values]:
    """Return registered connectors or stations by name, as they are once the file is saved."""
    where = table.c.registered if "registered" in table.c else None
    stored = await sql.rows_by_key(connection, table, [column], first_keys=names, where=where)
    found = {key[0]: row for key, row in stored.items()}
    if unsaved:
        for row in row_values(file, f"{table.name}s"):
            if row[column] in set(names):
                found[row[column]] = found.get(row[column], {}) | row
    return found


OF_ENTRY = tuple(column for column in LedgerRow.model_fields if column in tables.ledger_entry.c)
"""Columns of the ledger that nothing else of the registry holds."""


def ledger_known(connector: Values, station: Values) -> Values:
    """Return what the ledger's own columns hold of a connector of which it says nothing."""
    known: Values = {
        column: ledger_default(column, connector["current"])
        for column in OF_ENTRY
        if column != "extra"
    }
    return known | {"place": station["address"], "place_code": station["district"]}


def _patch(given: Values, connector: Values, known: Values, before: Values | None) -> LedgerPatch:
    stored = {column: None if before is None else before[column] for column in OF_ENTRY}
    stored["extra"] = stored["extra"] or {}
    of_entry = dict(stored)
    for column in OF_ENTRY:
        is_said = column in given and not (
            stored[column] is None
            and column in known
            and _says_no_more(column, given[column], known[column])
        )
        if is_said:
            of_entry[column] = given[column]
    of_connector = {
        column: given[column] if column in given else connector[column] for column in OF_CONNECTOR
    }
    told = before
    if before is None and of_entry == stored:
        told = stored  # nothing is said, so no row of its own is made
    return LedgerPatch(
        connector=connector["connector"],
        connector_id=connector.get("connector_id"),
        connector_before=connector,
        of_connector=of_connector,
        entry_before=told,
        of_entry=of_entry,
    )


def _says_no_more(column: str, given: Any, known: Any) -> bool:
    # An administrative code of nine or twelve digits with zeros behind is that of the district.
    if column == "place_code" and known is not None and given is not None:
        return str(given).rstrip("0") == str(known).rstrip("0")
    return bool(given == known)

"""SQL of the registry: what is registered, upserts, history, export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Date,
    Table,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.tables import (
    connector,
    reference_meter,
    reference_meter_connector,
    reference_reading,
    register_reading,
    registry_history,
    registry_import,
    rollup_pending,
    station,
    verification,
)

Values = dict[str, Any]
Key = tuple[Any, ...]

# asyncpg takes at most 32,767 parameters a statement; no registry table has more than 20 columns.
ROWS_A_STATEMENT = 1_500


def _chunks(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), ROWS_A_STATEMENT):
        yield rows[start : start + ROWS_A_STATEMENT]


async def rows_by_key(
    connection: AsyncConnection,
    table: Table,
    key_columns: Sequence[str],
    *,
    first_keys: Sequence[Any],
    where: ColumnElement[bool] | None = None,
) -> dict[Key, Values]:
    """Return the stored rows whose first key column is one of `first_keys`, by key."""
    found: dict[Key, Values] = {}
    for chunk in _chunks(sorted(set(first_keys))):
        query = select(table).where(table.c[key_columns[0]].in_(chunk))
        if where is not None:
            query = query.where(where)
        for row in (await connection.execute(query)).mappings():
            found[tuple(row[column] for column in key_columns)] = dict(row)
    return found


async def upsert(
    connection: AsyncConnection, table: Table, key_columns: Sequence[str], *, rows: Sequence[Values]
) -> None:
    """Insert rows; a row with the same key is updated instead. All rows have the same columns."""
    for chunk in _chunks(rows):
        statement = upsert_into(table).values(list(chunk))
        changed = {name: statement.excluded[name] for name in chunk[0] if name not in key_columns}
        if changed:
            statement = statement.on_conflict_do_update(index_elements=key_columns, set_=changed)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=key_columns)
        await connection.execute(statement)


async def update_by_id(
    connection: AsyncConnection, table: Table, id_column: str, *, rows: Sequence[Values]
) -> None:
    """Update rows by their surrogate key."""
    for row in rows:
        values = {name: value for name, value in row.items() if name != id_column}
        await connection.execute(
            update(table).where(table.c[id_column] == row[id_column]).values(values)
        )


async def record_import(
    connection: AsyncConnection,
    *,
    source: str,
    sha256: str,
    row_counts: Mapping[str, int],
    actor: str,
) -> int:
    """Record that a file was imported; return the import's identity."""
    statement = (
        insert(registry_import)
        .values(source=source, sha256=sha256, row_counts=dict(row_counts), actor=actor)
        .returning(registry_import.c.import_id)
    )
    return int((await connection.execute(statement)).scalar_one())


async def record_history(connection: AsyncConnection, rows: Sequence[Values]) -> None:
    """Append what changed to the registry's history."""
    for chunk in _chunks(rows):
        await connection.execute(insert(registry_history).values(list(chunk)))


async def forbid_writing(connection: AsyncConnection) -> None:
    """Let this transaction read one state of the registry, and write nothing."""
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))


async def announce_change(connection: AsyncConnection) -> None:
    """Tell the ingest workers, at commit, that the registry has changed."""
    await connection.execute(text("NOTIFY registry_changed"))


async def merge_claim(
    connection: AsyncConnection,
    table: Table,
    *,
    name: str,
    operator_id: str,
    station_id: str,
    into: int,
) -> None:
    """Make a station's unregistered claim one with the registered instrument of that name.

    table: connector or reference_meter. Readings, rollups, sessions and assessments move, and the
    days of the readings become due again.
    """
    id_column, name_column, _ = _MERGE[table.name]
    claim = (
        await connection.execute(
            select(table.c[id_column]).where(
                table.c[name_column] == name,
                table.c.operator_id == operator_id,
                table.c.station_id == station_id,
                ~table.c.registered,
            )
        )
    ).scalar_one_or_none()
    if claim is not None:
        await _merge(connection, table, claim=claim, into=into)


_MERGE = {
    "connector": ("connector_id", "connector", func.merge_connector_claim),
    "reference_meter": ("meter_id", "meter", func.merge_meter_claim),
}


async def _merge(connection: AsyncConnection, table: Table, *, claim: int, into: int) -> None:
    # The function has rights that its caller has not: see migration 0005.
    _, _, function = _MERGE[table.name]
    await connection.execute(select(function(claim, into)))


async def mark_due(connection: AsyncConnection, table: Table, ids: Sequence[int]) -> None:
    """Make the rollups of instruments due on every day that has readings of them.

    table: connector or reference_meter.
    """
    readings = register_reading if table is connector else reference_reading
    identifier = readings.c[_MERGE[table.name][0]]
    kind = 0 if table is connector else 1
    day = cast(func.timezone("UTC", readings.c.at), Date)
    for chunk in _chunks(sorted(ids)):
        days = select(literal(kind), identifier, day).where(identifier.in_(chunk)).distinct()
        await connection.execute(
            upsert_into(rollup_pending)
            .from_select(["kind", "instrument_id", "day"], days)
            .on_conflict_do_nothing()
        )


async def set_meter_connectors(
    connection: AsyncConnection, members: Mapping[int, Sequence[int]]
) -> None:
    """Replace the connectors that reference meters measure, by meter_id."""
    for chunk in _chunks(sorted(members)):
        await connection.execute(
            delete(reference_meter_connector).where(reference_meter_connector.c.meter_id.in_(chunk))
        )
    rows = [
        {"meter_id": meter, "connector_id": member}
        for meter in sorted(members)
        for member in members[meter]
    ]
    for row_chunk in _chunks(rows):
        await connection.execute(insert(reference_meter_connector).values(list(row_chunk)))


async def connectors_of_meters(
    connection: AsyncConnection, names: Sequence[str]
) -> dict[str, list[str]]:
    """Return the names of the connectors listed for registered meters, by meter."""
    found: dict[str, list[str]] = {}
    for chunk in _chunks(sorted(set(names))):
        query = (
            select(reference_meter.c.meter, connector.c.connector)
            .join(
                reference_meter_connector,
                reference_meter_connector.c.meter_id == reference_meter.c.meter_id,
            )
            .join(connector, connector.c.connector_id == reference_meter_connector.c.connector_id)
            .where(reference_meter.c.registered, reference_meter.c.meter.in_(chunk))
            .order_by(reference_meter.c.meter, connector.c.connector)
        )
        for meter, member in await connection.execute(query):
            found.setdefault(meter, []).append(member)
    return found


async def all_rows(connection: AsyncConnection, table: Table, *, order_by: str) -> list[Values]:
    """Return every row of a registry table, registered instruments only, in a stable order."""
    query = select(table).order_by(text(order_by))
    if "registered" in table.c:
        query = query.where(table.c.registered)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def all_verifications(connection: AsyncConnection) -> list[Values]:
    """Return every verification with its connector's name."""
    query = (
        select(connector.c.connector, verification)
        .join(connector, connector.c.connector_id == verification.c.connector_id)
        .order_by(connector.c.connector, verification.c.verified_on, verification.c.certificate)
    )
    return [dict(row) for row in (await connection.execute(query)).mappings()]


@dataclass(frozen=True)
class RegisteredConnector:
    """Where a registered connector stands."""

    connector_id: int
    station_id: str


async def registered_ids(
    connection: AsyncConnection, names: Sequence[str]
) -> dict[str, RegisteredConnector]:
    """Return connector_id and station_id of registered connectors, by name."""
    found: dict[str, RegisteredConnector] = {}
    for chunk in _chunks(sorted(set(names))):
        query = select(
            connector.c.connector, connector.c.connector_id, connector.c.station_id
        ).where(connector.c.registered, connector.c.connector.in_(chunk))
        for row in await connection.execute(query):
            found[row.connector] = RegisteredConnector(row.connector_id, row.station_id)
    return found


async def follow_stations(connection: AsyncConnection) -> None:
    """Give registered instruments the operator of their station, which may have been sold.

    What the new operator has already sent for them was stored as claims, and is merged.
    """
    for table in (connector, reference_meter):
        id_column, name_column, _ = _MERGE[table.name]
        claim = table.alias("claim")
        sold = (
            table.c.registered,
            table.c.station_id == station.c.station_id,
            table.c.operator_id != station.c.operator_id,
        )
        claims = select(claim.c[id_column], table.c[id_column]).where(
            *sold,
            claim.c[name_column] == table.c[name_column],
            claim.c.station_id == table.c.station_id,
            claim.c.operator_id == station.c.operator_id,
            ~claim.c.registered,
        )
        for claimed, into in (await connection.execute(claims)).all():
            await _merge(connection, table, claim=claimed, into=into)
        await connection.execute(
            update(table).where(*sold).values(operator_id=station.c.operator_id)
        )

"""SQL of the registry: what is registered, upserts, history, export."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Date,
    Integer,
    Table,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.locks import (
    KEEP_RETENTION_WAITING,
    LOCK,
    LOCK_IN_TRANSACTION,
    UNLOCK,
    WAIT_10_S,
    AdvisoryLock,
)
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
)

Values = dict[str, Any]
Key = tuple[Any, ...]

# asyncpg takes at most 32,767 parameters a statement; no registry table has more than 20 columns.
ROWS_A_STATEMENT = 1_500


READ_ONLY = sql.statement(
    "registry: read only", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
)
ANNOUNCE_CHANGE = sql.statement("registry: announce change", "NOTIFY registry_changed")
CLAIMS_TO_MERGE = sql.statement(
    "registry: claims to merge",
    "SELECT claim.{id} AS claim, known.{id} AS known FROM {table} claim "
    "JOIN {table} known ON known.{name} = claim.{name} "
    "AND known.operator_id = claim.operator_id AND known.station_id = claim.station_id "
    "WHERE NOT claim.registered AND known.registered ORDER BY claim.{id}",
)
MERGE_SOME = sql.statement("registry: merge some", "SELECT {function}(:claim, :into, :most)")
CONNECTORS_OF_METERS = sql.statement(
    "registry: connectors of meters",
    "SELECT m.meter, c.connector FROM reference_meter m "
    "JOIN reference_meter_connector USING (meter_id) JOIN connector c USING (connector_id) "
    "WHERE m.registered AND m.meter = ANY(CAST(:names AS text[])) ORDER BY m.meter, c.connector",
)
CONNECTORS_BY_SERIAL = sql.statement(
    "registry: connectors by serial",
    "SELECT connector, serial, manufacturer FROM connector "
    "WHERE registered AND upper(serial) = ANY(CAST(:serials AS text[])) ORDER BY connector",
)
REGISTERED_IDS = sql.statement(
    "registry: registered ids",
    "SELECT connector, connector_id, station_id FROM connector "
    "WHERE registered AND connector = ANY(CAST(:names AS text[]))",
)


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
    connection: AsyncConnection,
    table: Table,
    key_columns: Sequence[str],
    *,
    rows: Sequence[Values],
    where: ColumnElement[bool] | None = None,
) -> None:
    """Insert rows; a row with the same key is updated instead. All rows have the same columns.

    where: the rows among which the key is one, where it isn't among all.
    """
    for chunk in _chunks(rows):
        statement = upsert_into(table).values(list(chunk))
        changed = {name: statement.excluded[name] for name in chunk[0] if name not in key_columns}
        if changed:
            statement = statement.on_conflict_do_update(
                index_elements=key_columns, index_where=where, set_=changed
            )
        else:
            statement = statement.on_conflict_do_nothing(
                index_elements=key_columns, index_where=where
            )
        await connection.execute(statement)


async def update_by_id(
    connection: AsyncConnection, table: Table, id_column: str, *, rows: Sequence[Values]
) -> None:
    """Update rows by their surrogate key. All rows have the same columns."""
    if not rows:
        return
    changed: Values = {name: bindparam(f"new_{name}") for name in rows[0] if name != id_column}
    statement = update(table).where(table.c[id_column] == bindparam("key")).values(changed)
    for chunk in _chunks(rows):
        await connection.execute(
            statement,
            [
                {"key": row[id_column]} | {f"new_{name}": row[name] for name in changed}
                for row in chunk
            ],
        )


async def add_rows(connection: AsyncConnection, table: Table, *, rows: Sequence[Values]) -> None:
    """Insert rows that are new. All rows have the same columns."""
    for chunk in _chunks(rows):
        await connection.execute(insert(table), list(chunk))


async def one_import_at_a_time(connection: AsyncConnection) -> None:
    """Wait until no other transaction imports a registry."""
    await sql.run(connection, LOCK_IN_TRANSACTION, key=AdvisoryLock.REGISTRY)


@asynccontextmanager
async def no_other_import(connection: AsyncConnection) -> AsyncIterator[None]:
    """Keep other imports waiting over several transactions of a connection."""
    async with connection.begin():
        await sql.run(connection, LOCK, key=AdvisoryLock.REGISTRY)
    try:
        yield
    finally:
        async with connection.begin():
            await sql.run(connection, UNLOCK, key=AdvisoryLock.REGISTRY)


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
    await sql.run(connection, READ_ONLY)


async def announce_change(connection: AsyncConnection) -> None:
    """Tell the ingest workers, at commit, that the registry has changed."""
    await sql.run(connection, ANNOUNCE_CHANGE)


_MERGE = {
    "connector": ("connector_id", "connector", "merge_connector_claim"),
    "reference_meter": ("meter_id", "meter", "merge_meter_claim"),
}

MERGED_AT_ONCE = 10_000
"""Readings of a claim that are moved in one transaction; ingest may wait for it."""


async def claims_to_merge(connection: AsyncConnection, table: Table) -> list[tuple[int, int]]:
    """Return claims of instruments that are registered now, each with the registered one."""
    id_column, name_column, _ = _MERGE[table.name]
    wanted = CLAIMS_TO_MERGE.filled(id=id_column, name=name_column, table=table.name)
    return [(row["claim"], row["known"]) for row in await sql.rows(connection, wanted)]


async def merge_some(connection: AsyncConnection, table: Table, *, claim: int, into: int) -> bool:
    """Make a claim one with the registered instrument, some readings at a time; True at the end.

    Readings, rollups, sessions, events and assessments move, and the days of the readings become
    due again. Repeat it, each time in a transaction of its own, until it is done.
    """
    # The function has rights that its caller has not, and locks the claim: see migration 0011.
    await sql.run(connection, WAIT_10_S)
    # Retention locks this table, and then chunks of readings.
    await sql.run(connection, KEEP_RETENTION_WAITING)
    _, _, function = _MERGE[table.name]
    merge = MERGE_SOME.filled(function=function)
    return bool(await sql.value(connection, merge, claim=claim, into=into, most=MERGED_AT_ONCE))


async def mark_due(connection: AsyncConnection, table: Table, ids: Sequence[int]) -> None:
    """Make the rollups of instruments due on every day that has readings of them.

    table: connector or reference_meter.
    """
    if not ids:
        return
    readings = register_reading if table is connector else reference_reading
    identifier = readings.c[_MERGE[table.name][0]]
    kind = 0 if table is connector else 1
    day = cast(func.timezone("UTC", readings.c.at), Date).label("day")
    wanted = identifier == func.any(cast(list(ids), ARRAY(Integer)))
    # One statement, in the order in which ingest marks: two orders would be a deadlock.
    days = select(literal(kind), identifier, day).where(wanted).distinct().order_by(day, identifier)
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
    for row in await sql.rows(connection, CONNECTORS_OF_METERS, names=sorted(set(names))):
        found.setdefault(row["meter"], []).append(row["connector"])
    return found


LISTS_OF_REGISTRY = {
    "operators": sql.statement(
        "registry: all operators", "SELECT * FROM operator WHERE true{own} ORDER BY operator_id"
    ),
    "stations": sql.statement(
        "registry: all stations", "SELECT * FROM station WHERE true{own} ORDER BY station_id"
    ),
    "connectors": sql.statement(
        "registry: all connectors",
        "SELECT * FROM connector WHERE registered{own} ORDER BY connector",
    ),
    "reference_meters": sql.statement(
        "registry: all reference meters",
        "SELECT m.*, ARRAY(SELECT c.connector FROM reference_meter_connector "
        "JOIN connector c USING (connector_id) WHERE meter_id = m.meter_id ORDER BY c.connector) "
        "AS connectors FROM reference_meter m WHERE registered{own} ORDER BY meter",
    ),
    "verifications": sql.statement(
        "registry: all verifications",
        "SELECT c.connector, v.* FROM verification v JOIN connector c USING (connector_id) "
        "WHERE registered AND v.withdrawn_at IS NULL{own} "
        "ORDER BY c.connector, v.verified_on, v.certificate",
    ),
    "tariffs": sql.statement(
        "registry: all tariffs",
        "SELECT * FROM tariff WHERE true{own} ORDER BY operator_id, station_id, valid_from",
    ),
    "inspectors": sql.statement(
        "registry: all inspectors", "SELECT * FROM inspector ORDER BY name"
    ),
    "ledger": sql.statement(
        "registry: all of the ledger",
        "SELECT c.connector, e.* FROM ledger_entry e JOIN connector c USING (connector_id) "
        "WHERE registered{own} ORDER BY c.connector",
    ),
}


async def lists_of_registry(
    connection: AsyncConnection, *, scope: str | None
) -> dict[str, Sequence[Any]]:
    """Return every row of every list, registered instruments only, in a stable order.

    scope: the one operator whose rows are wanted, and no inspectors; None: everybody's.
    """
    if scope is None:
        return {
            name: await sql.rows(connection, wanted.filled(own=""))
            for name, wanted in LISTS_OF_REGISTRY.items()
        }
    return {
        name: await sql.rows(
            connection, wanted.filled(own=" AND operator_id = :scope"), scope=scope
        )
        for name, wanted in LISTS_OF_REGISTRY.items()
        if name != "inspectors"
    }


@dataclass(frozen=True)
class RegisteredConnector:
    """Where a registered connector stands."""

    connector_id: int
    station_id: str


async def registered_ids(
    connection: AsyncConnection, names: Sequence[str]
) -> dict[str, RegisteredConnector]:
    """Return connector_id and station_id of registered connectors, by name."""
    found = await sql.rows(connection, REGISTERED_IDS, names=sorted(set(names)))
    return {
        row["connector"]: RegisteredConnector(row["connector_id"], row["station_id"])
        for row in found
    }


async def connectors_by_serial(
    connection: AsyncConnection, serials: Sequence[str]
) -> dict[str, list[tuple[str, str | None]]]:
    """Return connector and maker of the registered connectors with a serial number, by it."""
    wanted = sorted({serial.upper() for serial in serials})
    found: dict[str, list[tuple[str, str | None]]] = {}
    for row in await sql.rows(connection, CONNECTORS_BY_SERIAL, serials=wanted):
        found.setdefault(row["serial"].upper(), []).append((row["connector"], row["manufacturer"]))
    return found


async def follow_stations(connection: AsyncConnection) -> None:
    """Give registered instruments the operator of their station, which may have been sold."""
    for table in (connector, reference_meter):
        await connection.execute(
            update(table)
            .where(
                table.c.registered,
                table.c.station_id == station.c.station_id,
                table.c.operator_id != station.c.operator_id,
            )
            .values(operator_id=station.c.operator_id)
        )

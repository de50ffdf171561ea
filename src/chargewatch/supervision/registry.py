"""Import and export of the city's database of instruments under mandatory verification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.mpe import RuleSet
from chargewatch.storage import registry as sql
from chargewatch.storage import tables
from chargewatch.storage.database import Database
from chargewatch.storage.pile_index import driver_of, rebuild
from chargewatch.storage.registry import Values
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.registry_rows import (
    check_references,
    identifier_of,
    old_and_new,
    plain,
    row_values,
    tariff_rows,
)
from chargewatch.wire.registry_file import ListSource, PlacedRow, RegistryFile

DEADLOCK = "40P01"
"""What PostgreSQL says to the one of two that it ends."""
MERGE_TRIES = 5
VERIFICATION_KEY = ("connector_id", "verified_on", "certificate")


@dataclass(frozen=True)
class ImportReport:
    """What an import did, by list: rows read, new, changed; and what it noticed.

    Attributes:
        sources: how many rows of each list were read from where.
        told: what was understood differently from how it was written.
    """

    import_id: int
    rows: Mapping[str, int]
    new: Mapping[str, int]
    changed: Mapping[str, int]
    notices: Sequence[str] = field(default_factory=tuple)
    sources: Sequence[ListSource] = field(default_factory=tuple)
    told: Sequence[str] = field(default_factory=tuple)


class _Import:
    """One import, in one transaction."""

    def __init__(self, connection: AsyncConnection, file: RegistryFile) -> None:
        self.connection = connection
        self.file = file
        self.new: dict[str, int] = {}
        self.changed: dict[str, int] = {}
        self.history: list[Values] = []
        self.due: list[tuple[Table, list[int]]] = []
        self.left_out = 0

    def placed(self, name: str) -> list[PlacedRow]:
        return self.file.rows[name]

    def values(self, name: str) -> list[Values]:
        return row_values(self.file, name)

    def note(self, name: str, identifier: str, before: Values | None, after: Values) -> bool:
        """Count a row as new or changed, and keep its history; return whether it must be saved."""
        old, new = old_and_new(before, after)
        if old == new:
            return False
        counter = self.new if before is None else self.changed
        counter[name] = counter.get(name, 0) + 1
        self.history.append({"kind": name, "identifier": identifier, "before": old, "after": new})
        return True

    async def save_plain(
        self,
        name: str,
        table: Table,
        keys: Sequence[str],
        rows: Sequence[Values],
        where: ColumnElement[bool] | None = None,
    ) -> None:
        """Save a list whose identifier is its table's key, or that of some of its rows."""
        stored = await sql.rows_by_key(
            self.connection, table, keys, first_keys=[row[keys[0]] for row in rows], where=where
        )
        fresh = [
            row
            for row in rows
            if self.note(
                name,
                identifier_of(row, keys),
                stored.get(tuple(row[key] for key in keys)),
                row,
            )
        ]
        await sql.upsert(self.connection, table, keys, rows=fresh, where=where)

    async def save_instruments(
        self, name: str, table: Table, column: str, rows: Sequence[Values]
    ) -> None:
        """Save connectors or reference meters: new ones, adopted claims, moved ones."""
        id_column = "connector_id" if table is tables.connector else "meter_id"
        stored = await sql.rows_by_key(
            self.connection,
            table,
            [column],
            first_keys=[row[column] for row in rows],
            where=table.c.registered,
        )
        claims = await sql.rows_by_key(
            self.connection,
            table,
            [column, "operator_id", "station_id"],
            first_keys=[row[column] for row in rows if (row[column],) not in stored],
            where=~table.c.registered,
        )
        inserted, updated, due = [], [], []
        for row in rows:
            before = stored.get((row[column],))
            if not self.note(name, row[column], before, row):
                continue
            claim = claims.get((row[column], row["operator_id"], row["station_id"]))
            if before is None and claim is None:
                inserted.append(row | {"registered": True})
                continue
            known = before or claim or {}
            updated.append(row | {"registered": True, id_column: known[id_column]})
            # A rollup's uncertainty holds the register's step, which nobody knew of a claim.
            if before is None or row["resolution_wh"] != before["resolution_wh"]:
                due.append(known[id_column])
        await sql.update_by_id(self.connection, table, id_column, rows=updated)
        await sql.add_rows(self.connection, table, rows=inserted)
        self.due.append((table, due))

    async def operator_of_station(self, station_ids: Sequence[str]) -> dict[str, str]:
        stored = await sql.rows_by_key(
            self.connection, tables.station, ["station_id"], first_keys=station_ids
        )
        return {key[0]: row["operator_id"] for key, row in stored.items()}

    async def save_connectors(self) -> None:
        rows = self.values("connectors")
        operator_of = await self.operator_of_station([row["station_id"] for row in rows])
        for row in rows:
            row["operator_id"] = operator_of[row["station_id"]]
        await self.save_instruments("connectors", tables.connector, "connector", rows)

    async def save_meters(self) -> None:
        rows = self.values("reference_meters")
        if not rows:
            return
        operator_of = await self.operator_of_station([row["station_id"] for row in rows])
        names = [row["meter"] for row in rows]
        listed = await sql.connectors_of_meters(self.connection, names)
        members = {}
        for row in rows:
            row["operator_id"] = operator_of[row["station_id"]]
            members[row["meter"]] = sorted(row.pop("connectors"))
        await self.save_instruments("reference_meters", tables.reference_meter, "meter", rows)
        changed = {
            meter: wanted for meter, wanted in members.items() if wanted != listed.get(meter, [])
        }
        for meter, wanted in changed.items():
            self.history.append(
                {
                    "kind": "reference_meter_connectors",
                    "identifier": meter,
                    "before": {"connectors": listed[meter]} if meter in listed else None,
                    "after": {"connectors": wanted},
                }
            )
        await self._save_members(changed)

    async def _save_members(self, changed: Mapping[str, Sequence[str]]) -> None:
        meter_ids = await sql.rows_by_key(
            self.connection,
            tables.reference_meter,
            ["meter"],
            first_keys=list(changed),
            where=tables.reference_meter.c.registered,
        )
        ids = await sql.registered_ids(
            self.connection, sorted({name for wanted in changed.values() for name in wanted})
        )
        await sql.set_meter_connectors(
            self.connection,
            {
                meter_ids[(meter,)]["meter_id"]: [ids[name].connector_id for name in wanted]
                for meter, wanted in changed.items()
            },
        )

    async def save_verifications(self) -> None:
        rows = self.values("verifications")
        ids = await sql.registered_ids(self.connection, [row["connector"] for row in rows])
        for row in rows:
            row["connector_id"] = ids[row.pop("connector")].connector_id
            row["certificate"] = row["certificate"] or ""
        kept = await kept_verifications(self.connection, rows)
        self.left_out = sum(_verification_key(row) in kept for row in rows)
        await self.save_plain(
            "verifications",
            tables.verification,
            VERIFICATION_KEY,
            [row for row in rows if _verification_key(row) not in kept],
            where=tables.verification.c.withdrawn_at.is_(None),
        )

    async def save_tariffs(self) -> None:
        await self.save_plain(
            "tariffs",
            tables.tariff,
            ["operator_id", "station_id", "valid_from"],
            tariff_rows(self.file),
        )

    async def save(self) -> None:
        operators = self.values("operators")
        for row in operators:
            row["name"] = row["name"] or row["operator_id"]
        await self.save_plain("operators", tables.operator, ["operator_id"], operators)
        stations = self.values("stations")
        for row in stations:
            row["name"] = row["name"] or row["station_id"]
        await self.save_plain("stations", tables.station, ["station_id"], stations)
        await sql.follow_stations(self.connection)
        await self.save_connectors()
        await self.save_meters()
        await self.save_verifications()
        await self.save_tariffs()


def _verification_key(row: Values) -> tuple[Any, ...]:
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


def notices(file: RegistryFile, rules: RuleSet) -> list[str]:
    """Return what the file holds and the rule set doesn't know."""
    classes = {placed.row.accuracy_class for placed in file.rows["connectors"]}  # type: ignore[attr-defined]
    unmapped = sorted(classes - set(rules.mpe))
    if not unmapped:
        return []
    return [
        f"rule set {rules.name} has no MPE for accuracy class {', '.join(unmapped)}: "
        "connectors of it can't be assessed"
    ]


async def import_registry(
    database: Database,
    file: RegistryFile,
    *,
    actor: Actor,
    rules: RuleSet,
    progress: Callable[[str], None] = lambda _: None,
) -> ImportReport:
    """Take a registry file into the database, all or nothing; return what changed.

    Raises: RegistryFileError, naming file, line and column, when a row refers to something unknown.
    """
    counts = {name: len(rows) for name, rows in file.rows.items()}
    async with database.begin() as connection:
        await sql.one_import_at_a_time(connection)
        work = _Import(connection, file)
        await check_references(connection, file)
        progress("rows are valid, saving")
        await work.save()
        import_id = await sql.record_import(
            connection, source=file.source, sha256=file.sha256, row_counts=counts, actor=actor.name
        )
        await sql.record_history(
            connection, [row | {"import_id": import_id} for row in work.history]
        )
        await rebuild(await driver_of(connection))
        # Last, because ingest may wait for these rows until the commit.
        for table, ids in work.due:
            await sql.mark_due(connection, table, ids)
        await sql.announce_change(connection)
        await record(
            connection,
            actor,
            Action.REGISTRY_IMPORTED,
            f"import:{import_id}",
            source=file.source,
            sha256=file.sha256,
            new=work.new,
            changed=work.changed,
        )
    await merge_claims(database)
    told = [*notices(file, rules), *told_of_kept(work.left_out)]
    return ImportReport(import_id, counts, work.new, work.changed, told, file.sources, file.told)


async def merge_claims(database: Database) -> int:
    """Merge claims into instruments that are registered by now; return how many.

    Such are of instruments that moved or were sold, and those that ingest made while the import
    was under way. Each in short transactions: what stops in the middle, the next import goes on
    with.
    """
    merged = 0
    async with database.connect() as connection, sql.no_other_import(connection):
        for table in (tables.connector, tables.reference_meter):
            async with connection.begin():
                twins = await sql.claims_to_merge(connection, table)
            for claim, into in twins:
                while not await _merged_some(connection, table, claim=claim, into=into):
                    pass
                merged += 1
        if merged:
            async with connection.begin():
                await rebuild(await driver_of(connection))
    return merged


async def _merged_some(connection: AsyncConnection, table: Table, *, claim: int, into: int) -> bool:
    """Move some readings of a claim; True at the end.

    Where ingest writes rows of both at the same moment the database may end either side. Ingest
    writes its batch again; a step of a merge is done again too.
    """
    for left in range(MERGE_TRIES - 1, -1, -1):
        try:
            async with connection.begin():
                return await sql.merge_some(connection, table, claim=claim, into=into)
        except DBAPIError as exc:
            if not left or getattr(exc.orig, "sqlstate", None) != DEADLOCK:
                raise
    raise AssertionError("every try returns or raises")


async def export_registry(database: Database) -> dict[str, Any]:
    """Return the registry as a registry file, version 1."""
    async with database.connect() as connection:
        connectors = await sql.all_rows(connection, tables.connector, order_by="connector")
        meters = await sql.all_rows(connection, tables.reference_meter, order_by="meter")
        members = await sql.connectors_of_meters(connection, [row["meter"] for row in meters])
        lists = {
            "operators": await sql.all_rows(connection, tables.operator, order_by="operator_id"),
            "stations": await sql.all_rows(connection, tables.station, order_by="station_id"),
            "connectors": connectors,
            "reference_meters": [
                row | {"connectors": members.get(row["meter"], [])} for row in meters
            ],
            "verifications": await sql.all_verifications(connection),
            "tariffs": await sql.all_rows(
                connection, tables.tariff, order_by="operator_id, station_id, valid_from"
            ),
        }
    for row in lists["tariffs"]:
        row["station_id"] = row["station_id"] or None
    inner = {"connector_id", "meter_id", "verification_id", "tariff_id", "registered"}
    inner |= {"first_seen_at"}
    return {"version": 1} | {
        name: [
            {
                str(key): plain(value)
                for key, value in row.items()
                if key not in inner and not (name != "stations" and _derived(name, key))
            }
            for row in rows
        ]
        for name, rows in lists.items()
    }


def _derived(name: str, key: str) -> bool:
    """Whether a column is told by the station and so not part of the file."""
    return name in {"connectors", "reference_meters"} and key == "operator_id"

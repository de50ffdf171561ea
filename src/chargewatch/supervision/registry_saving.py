"""Saving rows of a registry file, with the history of who changed what, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import registry as sql
from chargewatch.storage import tables
from chargewatch.storage.pile_index import driver_of, rebuild
from chargewatch.storage.registry import Values
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.registry_rows import (
    VERIFICATION_KEY,
    identifier_of,
    kept_verifications,
    ledger_patches,
    old_and_new,
    row_values,
    tariff_rows,
    verification_key,
    verification_name,
)
from chargewatch.wire.registry_file import PlacedRow, RegistryFile


class Saving:
    """What one file or form changes, in one transaction."""

    def __init__(self, connection: AsyncConnection, file: RegistryFile) -> None:
        self.connection = connection
        self.file = file
        self.new: dict[str, int] = {}
        self.changed: dict[str, int] = {}
        self.history: list[Values] = []
        self.due: list[tuple[Table, list[int]]] = []
        self.left_out = 0

    def placed(self, name: str) -> list[PlacedRow]:
        """Return the rows of a list with their places."""
        return self.file.rows[name]

    def values(self, name: str) -> list[Values]:
        """Return the rows of a list by column."""
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
        self, name: str, table: Table, keys: Sequence[str], rows: Sequence[Values]
    ) -> None:
        """Save a list whose identifier is its table's key."""
        stored = await sql.rows_by_key(
            self.connection, table, keys, first_keys=[row[keys[0]] for row in rows]
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
        await sql.upsert(self.connection, table, keys, rows=fresh)

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
        """Return whose each registered station is."""
        stored = await sql.rows_by_key(
            self.connection, tables.station, ["station_id"], first_keys=station_ids
        )
        return {key[0]: row["operator_id"] for key, row in stored.items()}

    async def save_connectors(self) -> None:
        """Save connectors, with the operator of their station."""
        rows = self.values("connectors")
        operator_of = await self.operator_of_station([row["station_id"] for row in rows])
        for row in rows:
            row["operator_id"] = operator_of[row["station_id"]]
        await self.save_instruments("connectors", tables.connector, "connector", rows)

    async def save_meters(self) -> None:
        """Save reference meters and the connectors they measure."""
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
        """Save verifications."""
        rows = self.values("verifications")
        ids = await sql.registered_ids(self.connection, [row["connector"] for row in rows])
        for row in rows:
            row["connector_id"] = ids[row["connector"]].connector_id
            row["certificate"] = row["certificate"] or ""
        standing = tables.verification.c.withdrawn_at.is_(None)
        stored = await sql.rows_by_key(
            self.connection,
            tables.verification,
            VERIFICATION_KEY,
            first_keys=[connector.connector_id for connector in ids.values()],
            where=standing,
        )
        kept = await kept_verifications(self.connection, rows)
        self.left_out = sum(verification_key(row) in kept for row in rows)
        fresh = []
        for row in rows:
            key = verification_key(row)
            if key in kept:
                continue
            before = stored.get(key)
            # The history tells the connector by its name.
            told = None if before is None else before | {"connector": row["connector"]}
            if self.note("verifications", verification_name(row), told, row):
                fresh.append({column: row[column] for column in row if column != "connector"})
        await sql.upsert(
            self.connection, tables.verification, VERIFICATION_KEY, rows=fresh, where=standing
        )

    async def save_tariffs(self) -> None:
        """Save tariffs."""
        await self.save_plain(
            "tariffs",
            tables.tariff,
            ["operator_id", "station_id", "valid_from"],
            tariff_rows(self.file),
        )

    async def save_inspectors(self) -> None:
        """Save inspectors."""
        await self.save_plain("inspectors", tables.inspector, ["name"], self.values("inspectors"))

    async def save_ledger(self) -> None:
        """Save what the ledger says of connectors, of those columns that it says something of."""
        patches = await ledger_patches(self.connection, self.file)
        changed, entries = [], []
        for patch in patches:
            if self.note("connectors", patch.connector, patch.connector_before, patch.of_connector):
                changed.append(patch.of_connector | {"connector_id": patch.connector_id})
            if self.note("ledger", patch.connector, patch.entry_before, patch.of_entry):
                entries.append(patch.of_entry | {"connector_id": patch.connector_id})
        await sql.update_by_id(self.connection, tables.connector, "connector_id", rows=changed)
        await sql.upsert(self.connection, tables.ledger_entry, ["connector_id"], rows=entries)

    async def finish(self, *, actor: Actor, why: str, import_id: int | None) -> None:
        """Keep the history, and tell those who rest on the registry; before the audit entry."""
        await sql.record_history(
            self.connection,
            [
                row | {"import_id": import_id, "actor": actor.name, "why": why}
                for row in self.history
            ],
        )
        await rebuild(await driver_of(self.connection))
        # Last, because ingest may wait for these rows until the commit.
        for table, ids in self.due:
            await sql.mark_due(self.connection, table, ids)
        await sql.announce_change(self.connection)

    async def save(self) -> None:
        """Save every list, in the order in which they refer to one another."""
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
        await self.save_inspectors()
        await self.save_ledger()

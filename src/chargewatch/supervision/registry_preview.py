"""What a registry file would change, before anything is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.mpe import RuleSet
from chargewatch.storage import registry as sql
from chargewatch.storage import tables
from chargewatch.storage.database import Database
from chargewatch.storage.registry import Values
from chargewatch.supervision.registry import notices
from chargewatch.supervision.registry_rows import (
    VERIFICATION_KEY,
    check_references,
    identifier_of,
    kept_verifications,
    ledger_patches,
    named_rows,
    old_and_new,
    row_values,
    tariff_rows,
    told_of_kept,
    verification_name,
)
from chargewatch.wire.registry_file import ListSource, RegistryFile


@dataclass(frozen=True)
class RowChange:
    """A registered row that would change; by field, what it is and what it would be."""

    list: str
    identifier: str
    fields: Mapping[str, Mapping[str, Any]]


@dataclass
class Preview:
    """What an import would do: by list its counts, and row by row what is new or changes."""

    dry_run: bool = True
    rows: dict[str, int] = field(default_factory=dict)
    new: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    unchanged: dict[str, int] = field(default_factory=dict)
    added: dict[str, list[str]] = field(default_factory=dict)
    changes: list[RowChange] = field(default_factory=list)
    notices: Sequence[str] = field(default_factory=tuple)
    sources: Sequence[ListSource] = field(default_factory=tuple)
    told: Sequence[str] = field(default_factory=tuple)

    def note(self, name: str, identifier: str, before: Values | None, after: Values) -> None:
        """Sort a row into new, changed or left alone."""
        old, new = old_and_new(before, after)
        kind = self.new if old is None else self.unchanged if old == new else self.changed
        kind[name] = kind.get(name, 0) + 1
        if old is None:
            self.added.setdefault(name, []).append(identifier)
        elif old != new:
            fields = {
                key: {"before": old[key], "after": new[key]} for key in new if old[key] != new[key]
            }
            self.changes.append(RowChange(name, identifier, fields))


class _Look:
    """One look at the registry, in one transaction that can't write."""

    def __init__(self, connection: AsyncConnection, file: RegistryFile, preview: Preview) -> None:
        self.connection = connection
        self.file = file
        self.preview = preview

    async def plain_list(
        self, name: str, table: Table, keys: Sequence[str], rows: Sequence[Values]
    ) -> None:
        stored = await sql.rows_by_key(
            self.connection, table, keys, first_keys=[row[keys[0]] for row in rows]
        )
        for row in rows:
            before = stored.get(tuple(row[key] for key in keys))
            self.preview.note(name, identifier_of(row, keys), before, row)

    async def instruments(self, name: str, table: Table, column: str) -> None:
        rows = row_values(self.file, name)
        stored = await sql.rows_by_key(
            self.connection,
            table,
            [column],
            first_keys=[row[column] for row in rows],
            where=table.c.registered,
        )
        operator_of = await self._operator_of_station({row["station_id"] for row in rows})
        listed = await self._listed(name, rows)
        for row in rows:
            row["operator_id"] = operator_of[row["station_id"]]
            before = stored.get((row[column],))
            if "connectors" in row:
                row["connectors"] = sorted(row["connectors"])
                if before is not None:
                    before = before | {"connectors": listed.get(row[column], [])}
            self.preview.note(name, row[column], before, row)

    async def _operator_of_station(self, station_ids: set[str]) -> dict[str, str]:
        stored = await sql.rows_by_key(
            self.connection, tables.station, ["station_id"], first_keys=sorted(station_ids)
        )
        known = {key[0]: row["operator_id"] for key, row in stored.items()}
        return known | {
            row["station_id"]: row["operator_id"] for row in row_values(self.file, "stations")
        }

    async def _listed(self, name: str, rows: Sequence[Values]) -> dict[str, list[str]]:
        if name != "reference_meters":
            return {}
        return await sql.connectors_of_meters(self.connection, [row["meter"] for row in rows])

    async def verifications(self) -> None:
        rows = row_values(self.file, "verifications")
        ids = await sql.registered_ids(self.connection, [row["connector"] for row in rows])
        known = [{"connector_id": connector.connector_id} for connector in ids.values()]
        stored = await sql.rows_by_key(
            self.connection,
            tables.verification,
            VERIFICATION_KEY,
            first_keys=[row["connector_id"] for row in known],
            where=tables.verification.c.withdrawn_at.is_(None),
        )
        kept = await kept_verifications(self.connection, known)
        left_out = 0
        for row in rows:
            row["certificate"] = row["certificate"] or ""
            connector = ids.get(row["connector"])
            before = None
            if connector is not None:
                key = (connector.connector_id, row["verified_on"], row["certificate"])
                if key in kept:
                    left_out += 1
                    continue
                before = stored.get(key)
            if before is not None:
                before = before | {"connector": row["connector"]}
            self.preview.note("verifications", verification_name(row), before, row)
        self.preview.notices = [*self.preview.notices, *told_of_kept(left_out)]

    async def every_list(self) -> None:
        for name, table, key in (
            ("operators", tables.operator, "operator_id"),
            ("stations", tables.station, "station_id"),
        ):
            await self.plain_list(name, table, [key], named_rows(self.file, name, key))
        await self.instruments("connectors", tables.connector, "connector")
        await self.instruments("reference_meters", tables.reference_meter, "meter")
        await self.verifications()
        await self.plain_list(
            "tariffs",
            tables.tariff,
            ["operator_id", "station_id", "valid_from"],
            tariff_rows(self.file),
        )
        inspectors = row_values(self.file, "inspectors")
        await self.plain_list("inspectors", tables.inspector, ["name"], inspectors)
        for patch in await ledger_patches(self.connection, self.file, unsaved=True):
            before, after = patch.connector_before, patch.of_connector
            if any(before[column] != value for column, value in after.items()):
                self.preview.note("connectors", patch.connector, before, after)
            self.preview.note("ledger", patch.connector, patch.entry_before, patch.of_entry)


async def preview_registry(database: Database, file: RegistryFile, *, rules: RuleSet) -> Preview:
    """Return what an import of the file would change; nothing is taken.

    Raises: RegistryFileError, naming file, line and column, when a row refers to something unknown.
    """
    async with database.begin() as connection:
        await sql.forbid_writing(connection)
        return await preview_in(connection, file, rules=rules)


async def preview_in(connection: AsyncConnection, file: RegistryFile, *, rules: RuleSet) -> Preview:
    """Return what an import would change, as the registry is in a transaction.

    Raises: RegistryFileError, as `preview_registry`.
    """
    preview = Preview(
        rows={name: len(rows) for name, rows in file.rows.items()},
        notices=notices(file, rules),
        sources=file.sources,
        told=file.told,
    )
    await check_references(connection, file)
    await _Look(connection, file, preview).every_list()
    return preview

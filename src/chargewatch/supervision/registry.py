"""Import and export of the city's database of instruments under mandatory verification."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.mpe import RuleSet
from chargewatch.errors import ChargewatchError
from chargewatch.storage import registry as sql
from chargewatch.storage import tables
from chargewatch.storage.database import Database
from chargewatch.storage.locks import WAIT_10_S
from chargewatch.storage.pile_index import driver_of, rebuild
from chargewatch.storage.sql import run
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.registry_rows import check_references, plain, told_of_kept
from chargewatch.supervision.registry_saving import Saving
from chargewatch.wire.registry_file import ListSource, RegistryFile
from chargewatch.wire.registry_models import LISTS

DEADLOCK = "40P01"
"""What PostgreSQL says to the one of two that it ends."""
MERGE_TRIES = 5


LOCK_NOT_AVAILABLE = "55P03"
"""What PostgreSQL says to who has waited long enough."""


class RegistryBusyError(ChargewatchError):
    """The registry is held by an import or a risk run."""


async def hold_registry(connection: AsyncConnection) -> None:
    """Keep others from changing the registry in this transaction, where somebody waits for it.

    Raises: RegistryBusyError when an import or a risk run goes on for longer than 10 s.
    """
    await run(connection, WAIT_10_S)
    try:
        await sql.one_import_at_a_time(connection)
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise RegistryBusyError(
            "the registry is held by an import or a risk run: try again in a minute"
        ) from exc


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


def notices(file: RegistryFile, rules: RuleSet) -> list[str]:
    """Return what the file holds and the rule set doesn't know."""
    classes = {
        placed.row.accuracy_class  # type: ignore[attr-defined]
        for name in ("connectors", "ledger")
        for placed in file.rows[name]
    } - {None}
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
    why: str = "",
    check: Callable[[AsyncConnection], Awaitable[None]] | None = None,
    patient: bool = True,
) -> ImportReport:
    """Take a registry file into the database, all or nothing; return what changed.

    Args:
        database: with the registry.
        file: that was read.
        actor: who imports.
        rules: what the file's accuracy classes are looked up in.
        progress: is told what goes on.
        why: the reason that was given.
        check: is asked before anything is saved, and raises to stop.
        patient: whether to wait for another import or a risk run, however long.

    Raises: RegistryFileError, naming file, line and column, when a row refers to something unknown;
        RegistryBusyError for who isn't patient.
    """
    counts = {name: len(rows) for name, rows in file.rows.items()}
    async with database.begin() as connection:
        await (sql.one_import_at_a_time if patient else hold_registry)(connection)
        work = Saving(connection, file)
        await check_references(connection, file)
        if check is not None:
            await check(connection)
        progress("rows are valid, saving")
        await work.save()
        import_id = await sql.record_import(
            connection, source=file.source, sha256=file.sha256, row_counts=counts, actor=actor.name
        )
        await work.finish(actor=actor, why=why, import_id=import_id)
        await record(
            connection,
            actor,
            Action.REGISTRY_IMPORTED,
            f"import:{import_id}",
            why=why,
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


MAY_BE_MISSING = {"inspectors", "ledger"}
"""Lists that are left out where they hold nothing."""


async def export_registry(database: Database, *, scope: str | None = None) -> dict[str, Any]:
    """Return the registry as a registry file, version 1.

    Args:
        database: with the registry.
        scope: the one operator whose instruments are wanted; then no inspectors either.
    """
    async with database.connect() as connection:
        found = await sql.lists_of_registry(connection, scope=scope)
    told = {
        name: [_file_row(name, row) for row in rows]
        for name, rows in found.items()
        if rows or name not in MAY_BE_MISSING
    }
    return {"version": 1} | told


def _file_row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored row by the columns of its list in a file."""
    values = {
        column: plain(row.get(column)) for column in LISTS[name].model_fields if column in row
    }
    if name == "tariffs":
        values["station_id"] = values["station_id"] or None
    if name == "ledger":
        values = {column: value for column, value in values.items() if value not in (None, {})}
    return values

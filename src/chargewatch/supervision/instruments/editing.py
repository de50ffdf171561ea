"""Editing a row of the registry by hand, by the rules of imports, against its version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import ChargewatchError, RegistryFileError
from chargewatch.storage.database import Database
from chargewatch.storage.office import registry_rows as rows
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.instruments.rows import (
    FieldChange,
    RegistryRow,
    field_changes,
    find_row,
)
from chargewatch.supervision.registry import hold_registry, merge_claims
from chargewatch.supervision.registry_rows import check_references
from chargewatch.supervision.registry_saving import Saving
from chargewatch.wire.registry.values import is_blank
from chargewatch.wire.registry_file import RegistryFile, one_row
from chargewatch.wire.registry_models import LISTS

MOST_WHY = 500
MAY_HAVE_CLAIMS = {"stations", "connectors", "reference_meters"}


class EditError(ChargewatchError):
    """A row of the registry can't be edited as asked."""


class OutdatedEditError(EditError):
    """Somebody else has changed the row meanwhile.

    Attributes:
        fields: by field, what was asked for and what stands there now.
        since: what was changed since.
        version: of the row as it is now.
    """

    def __init__(
        self, row: RegistryRow, wanted: Mapping[str, Any], since: list[FieldChange]
    ) -> None:
        self.fields = {name: (value, row.values.get(name)) for name, value in wanted.items()}
        self.since = since
        self.version = row.version
        told = "; ".join(
            f"{name}: you give {yours!r}, it is {stored!r}"
            for name, (yours, stored) in self.fields.items()
        )
        super().__init__(
            f"{row.identifier} was changed meanwhile, nothing was saved: {told}. Look at it again "
            f"and edit version {row.version}"
        )


@dataclass(frozen=True, kw_only=True)
class Edited:
    """What an edit did: by field what it was and what it is, and the row's new version."""

    kind: str
    identifier: str
    version: int
    fields: Mapping[str, tuple[Any, Any]]
    told: tuple[str, ...] = field(default_factory=tuple)


def checked_why(why: str) -> str:
    """Return the reason of a change.

    Raises: EditError without one.
    """
    text = why.strip()
    if not text:
        raise EditError("say why: a change of the registry needs a reason")
    if len(text) > MOST_WHY:
        raise EditError(f"the reason is longer than {MOST_WHY} characters: shorten it")
    return text


def _file_of(
    row_kind: str, values: Mapping[str, Any], place: str, zone: str, *, keep_nulls: bool
) -> RegistryFile:
    given = {
        name: value
        for name, value in values.items()
        if not is_blank(value) or (keep_nulls and name != "extra")
    }
    # A null that is given erases; of all other lists what isn't given is erased.
    blank = {name for name, value in given.items() if is_blank(value)}
    file = one_row(
        row_kind, {name: given[name] for name in given if name not in blank}, place=place, zone=zone
    )
    if blank:
        for placed in file.rows[row_kind]:
            placed.row.model_fields_set.update(blank)
    return file


def _refuse_keys(row: RegistryRow, changes: Mapping[str, Any]) -> None:
    known = LISTS[row.kind].model_fields
    for name in changes:
        if name not in known:
            raise EditError(f"{row.kind} has no field {name!r}; it has {', '.join(known)}")
        if name in row.keys:
            raise EditError(f"{name} identifies the row: register another one instead")
    if row.is_fixed:
        raise EditError(
            "this verification was entered in the office: withdraw it under verifications and "
            "enter it again"
        )


MOST_AUDITED = 10_000
"""Characters of values in an audit entry; of longer ones only the fields are named."""


def _for_audit(fields: Mapping[str, tuple[Any, Any]]) -> Any:
    told = {name: {"before": old, "after": new} for name, (old, new) in fields.items()}
    return told if len(json.dumps(told)) <= MOST_AUDITED else sorted(told)


async def edit_row(
    database: Database,
    kind: str,
    name: str,
    changes: Mapping[str, Any],
    *,
    version: int | None,
    why: str,
    actor: Actor,
    zone: str,
) -> Edited:
    """Change fields of a registered row and keep their history.

    Args:
        database: with the registry.
        kind: a list of registry files.
        name: of the row; the number of a verification or tariff.
        changes: new values by field, as a file would have them; blank or None erases.
        version: of the row that was looked at; None: whatever it is.
        why: the reason.
        actor: who does it.
        zone: time zone of times without offset.

    Raises: NotFoundError; OutdatedEditError with both values; EditError without a reason or for a
        field that can't be edited; RegistryFileError naming the field whose value is refused;
        RegistryBusyError.
    """
    reason = checked_why(why)
    async with database.begin() as connection:
        await hold_registry(connection)
        row = await find_row(connection, kind, name, scope=None)
        _refuse_keys(row, changes)
        if version is not None and version != row.version:
            found = await rows.history(connection, named=row.named, limit=20)
            since = [one for one in field_changes(found, scope=None) if one.history_id > version]
            raise OutdatedEditError(row, changes, since)
        wanted = {**row.values, **changes}
        if kind == "ledger":
            wanted = {"connector": row.identifier, **changes}
        place = f"{kind} {row.identifier}"
        file = _file_of(kind, wanted, place, zone, keep_nulls=kind == "ledger")
        saving = await _save(connection, file, actor=actor, why=reason)
        after = await find_row(connection, kind, name, scope=None)
        fields = {
            field_name: (row.values.get(field_name), value)
            for field_name, value in after.values.items()
            if row.values.get(field_name) != value
        }
        if saving.history:
            await record(
                connection,
                actor,
                Action.REGISTRY_EDITED,
                f"{kind}:{row.identifier}",
                why=reason,
                fields=_for_audit(fields),
            )
    if kind in MAY_HAVE_CLAIMS and saving.history:
        await merge_claims(database)
    return Edited(
        kind=kind,
        identifier=row.identifier,
        version=after.version,
        fields=fields,
        told=tuple(file.told),
    )


async def add_row(
    database: Database,
    kind: str,
    values: Mapping[str, Any],
    *,
    why: str,
    actor: Actor,
    zone: str,
) -> Edited:
    """Register one row by hand.

    Raises: EditError when it is there already, or without a reason; RegistryFileError naming the
        field whose value is refused; RegistryBusyError.
    """
    reason = checked_why(why)
    if kind not in LISTS or kind == "ledger":
        raise EditError(f"no row is added to {kind!r} by hand: import a file")
    file = _file_of(kind, values, kind, zone, keep_nulls=False)
    async with database.begin() as connection:
        await hold_registry(connection)
        saving = await _save(connection, file, actor=actor, why=reason)
        told = next((row for row in saving.history if row["kind"] == kind), None)
        if told is None or told["before"] is not None:
            raise EditError(f"{kind} has this row already: edit it instead")
        await record(
            connection,
            actor,
            Action.REGISTRY_EDITED,
            f"{kind}:{told['identifier']}",
            why=reason,
            fields=_for_audit({name: (None, value) for name, value in told["after"].items()}),
        )
        version = await rows.version(connection, named=[(kind, told["identifier"])])
    if kind in MAY_HAVE_CLAIMS:
        await merge_claims(database)
    return Edited(
        kind=kind,
        identifier=told["identifier"],
        version=version,
        fields={name: (None, value) for name, value in told["after"].items()},
        told=tuple(file.told),
    )


async def _save(
    connection: AsyncConnection, file: RegistryFile, *, actor: Actor, why: str
) -> Saving:
    saving = Saving(connection, file)
    await check_references(connection, file)
    await saving.save()
    if saving.history:
        await saving.finish(actor=actor, why=why, import_id=None)
    return saving


def field_problem(error: RegistryFileError) -> str:
    """Return what is wrong with a row that was given by hand, without the place in a file."""
    lines = str(error).splitlines()[1:] or [str(error)]
    return "; ".join(line.strip().partition(", line 1, ")[2] or line.strip() for line in lines)
